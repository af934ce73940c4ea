"""Bodies of responses. A binding combines each with the stream classes of its library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from aurelis.cache.exchange import Lead, Live

from ._library import Library, Response


class ReplayedBody:
    """A stored body in the chunks in which it came.

    A second iteration goes on where the first one was left, as with a connection.
    """

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    # Not an asynchronous generator: event loops keep track of each, which would cost as much as the lookup.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


class LiveBody:
    """A body that is being loaded elsewhere: in a task, or by another thread."""

    def __init__(self, live: Live, library: Library[Any]) -> None:
        assert live.reader is not None
        self._live = live
        self._reader = live.reader
        self._library = library

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._reader.next_blocking()
            except Exception as error:
                self._library.translate_from_body(error)
                raise
            if chunk is None:
                return
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                chunk = await self._reader.next()
            except Exception as error:
                self._library.translate_from_body(error)
                raise
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        """Let go. The last one to let go before the end aborts the load."""
        self._live.close()

    async def aclose(self) -> None:
        """The same."""
        self._live.close()


class LedBody:
    """A body that is loaded by reading it, for this reader and for others who wait."""

    def __init__(self, lead: Lead, response: Response) -> None:
        self._closed = False
        self._lead = lead
        self._response = response
        self._chunks = response.iter_bytes()

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._load()) is not None:
            yield chunk

    def close(self) -> None:
        """Let go. While others read what has not come yet, this loads it for them and blocks."""
        self._closed = True
        try:
            while self._lead.close():
                with suppress(Exception):  # they get the error; this reader has left
                    self._load()
        finally:
            self._response.close()

    def __del__(self) -> None:
        # Dropped unclosed: those who wait for the rest would wait for ever.
        if not self._closed:
            self._lead.lose()

    def _load(self) -> bytes | None:
        try:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._lead.end()
            else:
                self._lead.chunk(chunk)
        except BaseException as error:
            self._lead.fail(error)
            raise
        return chunk
