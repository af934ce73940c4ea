"""Bodies of responses. A binding combines each with the stream classes of its library."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from aurelis.cache.exchange import Lead, Live, WaitTimeout

from ._library import Library, Response
from ._lingering import Lingering

_FAMILY = "httpx"  # the modules of both libraries begin so


class ReplayedBody:
    """A stored body in the chunks in which it came.

    A second iteration goes on where the first one was left, as with a connection.

    Args:
        pauses: seconds to wait before each chunk; empty: none.
    """

    def __init__(self, chunks: tuple[bytes, ...], pauses: Iterable[float] = ()) -> None:
        self._chunks = iter(chunks)
        self._pauses = iter(pauses) if pauses else None

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks if self._pauses is None else self._paced(self._pauses)

    def _paced(self, pauses: Iterator[float]) -> Iterator[bytes]:
        for chunk in self._chunks:
            time.sleep(next(pauses, 0.0))
            yield chunk

    # Not an asynchronous generator: event loops keep track of each, which would cost as much as the lookup.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            if self._pauses is not None:
                await asyncio.sleep(next(self._pauses, 0.0))
            return chunk
        raise StopAsyncIteration


class ReplayedResponse:
    """To be mixed into the library's response: one whose body is a `ReplayedBody` that needs no decoding.

    A response reads its body through three generators, made for connections that may fail, be encoded and
    be slow. For chunks that are there they cost several times as much as the lookup, so they are passed over, unless
    somebody other than the library has put a stream of their own around ours.
    """

    is_stream_consumed: bool
    _replayed: ReplayedBody | None = None
    _stream: Any = None
    _given: int | None = None

    def replays(self) -> None:
        """Say that the stream's chunks are the body."""
        self._replayed = self._stream

    @property
    def stream(self) -> Any:
        """The body's stream."""
        return self._stream

    @stream.setter
    def stream(self, stream: Any) -> None:
        # The client puts one around each stream, to know how long the response took.
        if not type(stream).__module__.startswith(_FAMILY):
            self._replayed = None
        self._stream = stream

    @property
    def num_bytes_downloaded(self) -> int:
        """Bytes of the body that were read, as for other responses."""
        read: int = super().num_bytes_downloaded if self._given is None else self._given  # type: ignore[misc]
        return read

    def aiter_bytes(self, chunk_size: int | None = None) -> Any:
        """The chunks, as from the library."""
        parts = super().aiter_bytes(chunk_size)  # type: ignore[misc]
        if chunk_size is not None or self._replayed is None or self.is_stream_consumed:
            return parts
        return _Chunks(self, self._replayed, parts)

    def iter_bytes(self, chunk_size: int | None = None) -> Any:
        """The same for a thread."""
        parts = super().iter_bytes(chunk_size)  # type: ignore[misc]
        if chunk_size is not None or self._replayed is None or self.is_stream_consumed:
            return parts
        return self._parts(self._replayed, parts)

    def _parts(self, body: ReplayedBody, otherwise: Iterator[bytes]) -> Iterator[bytes]:
        response: Any = self
        if response.is_stream_consumed or response.is_closed:
            yield from otherwise  # which says what is wrong
            return
        response.is_stream_consumed = True
        self._given = 0
        for chunk in body:
            self._given += len(chunk)
            yield chunk
        response.close()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return {name: value for name, value in state.items() if name not in ("_stream", "_replayed")}


class _Chunks:
    """What `aiter_bytes` of a replayed response gives: as the library's generator, without being one."""

    def __init__(self, response: Any, body: ReplayedBody, otherwise: AsyncIterator[bytes]) -> None:
        self._response = response
        self._otherwise = otherwise  # not begun, a generator costs next to nothing
        self._body = body
        self._begun = False

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        response = self._response
        if not self._begun:
            if response.is_stream_consumed or response.is_closed:
                async for chunk in self._otherwise:  # which says what is wrong
                    return chunk
            self._begun = response.is_stream_consumed = True
            response._given = 0
        for chunk in self._body:
            response._given += len(chunk)
            return chunk
        await response.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave the rest."""
        if self._begun and not self._response.is_closed:
            await self._response.aclose()


class UndisturbedBody:
    """A body that a load reads, closed as a whole: what cancels the load does not cut that off.

    Otherwise its connection would be lost to the pool that it is from, for good.

    Args:
        stream: the body, as the inner transport gives it.
        run: runs something to its end, whoever waits for that.
    """

    def __init__(self, stream: Any, run: Callable[[Coroutine[Any, Any, None], Context], asyncio.Task[None]]) -> None:
        self._stream = stream
        self._run = run

    def __aiter__(self) -> AsyncIterator[bytes]:
        body: AsyncIterator[bytes] = self._stream.__aiter__()
        return body

    async def aclose(self) -> None:
        """Let go of the connection."""
        await asyncio.shield(self._run(self._stream.aclose(), copy_context()))


class LiveBody:
    """A body that is being loaded elsewhere: in a task, or by another thread.

    Args:
        patience: seconds to wait for each chunk at most; `None`: as long as it takes.
    """

    def __init__(self, live: Live, library: Library[Any], patience: float | None) -> None:
        self._live = live
        assert live.reader is not None
        self._patience = patience
        self._reader = live.reader
        self._library = library

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._reader.next_blocking(math.inf if self._patience is None else self._patience)
            except Exception as error:
                self._library.translate_from_body(error)
                raise
            if chunk is None:
                return
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                chunk = await self._next()
            except Exception as error:
                self._library.translate_from_body(error)
                raise
            if chunk is None:
                return
            yield chunk

    async def _next(self) -> bytes | None:
        if self._patience is None:
            return await self._reader.next()
        deadline = asyncio.timeout(self._patience)
        try:
            async with deadline:
                return await self._reader.next()
        except TimeoutError:
            if not deadline.expired():
                raise  # what the load has met
            raise WaitTimeout from None

    def close(self) -> None:
        """Let go. The last one to let go before the end aborts the load."""
        self._live.close()

    async def aclose(self) -> None:
        """The same."""
        self._live.close()

    def __del__(self) -> None:
        # Dropped unclosed: the load would wait for its reader, and an aborted one would be stored.
        self._live.lose()


class LedBody:
    """A body that is loaded by reading it, for this reader and for others who wait.

    Args:
        chunks: of the body, where they have been begun to be read.
        lingering: reads on where next to nothing is left when this reader leaves.
    """

    def __init__(self, lead: Lead, response: Response, chunks: Iterator[bytes] | None, lingering: Lingering) -> None:
        self._closed = False
        self._is_elsewhere = False  # another thread reads it, and ends it
        self._lingering = lingering
        self._lead = lead
        self._response = response
        self._chunks = response.iter_bytes() if chunks is None else chunks

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self.load()) is not None:
            yield chunk

    def close(self) -> None:
        """Let go. While others read what has not come yet, this loads it for them and blocks.

        Where nothing but the end lacks, another thread reads on for a moment, so that the body can be kept.
        """
        self._closed = True
        if self._is_elsewhere:
            return
        seconds = self._lead.lingers()
        if seconds and self._lingering.begin(self, self._lead, self._response, seconds):
            self._is_elsewhere = True
        else:
            self._lead.forgo()
            self.finish()

    def finish(self) -> None:
        """Load what others still read, and close the response."""
        try:
            while self._lead.close():
                with suppress(Exception):  # they get the error; this reader has left
                    self.load()
        finally:
            self._response.close()

    def __del__(self) -> None:
        # Dropped unclosed: those who wait for the rest would wait for ever.
        if not self._closed:
            self._lead.lose()

    def load(self) -> bytes | None:
        """Take the next chunk from the origin; `None` after the last."""
        handled = sys.exc_info()[1]
        try:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._lead.end()
            else:
                self._lead.chunk(chunk)
        except BaseException as error:
            self._lead.fail(error, handled)
            raise
        return chunk
