"""A door between the workers and the user's Redis, which can be shut: to them it looks as if Redis were away."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

from .processes import listener
from .settings import HOST

_CHUNK: Final = 65536
_PORT: Final = 6379
_WAIT: Final = 5.0
"""Seconds for the thread to begin and to end, and for a connection."""


class Gate:
    """Passes connections on to Redis while it is open. A context manager, with a thread of its own inside.

    Args:
        url: Of one Redis, without TLS: `redis://…`.

    Attributes:
        url: Where Redis is for the workers, known inside.
    """

    def __init__(self, url: str) -> None:
        """Open nothing yet."""
        self._behind = urlsplit(url)
        self.url = ""
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gate", daemon=True)

    def __enter__(self) -> Self:
        """Begin to pass on."""
        self._listener = listener()
        user, at, _ = self._behind.netloc.rpartition("@")
        here = f"{user}{at}{HOST}:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(self._behind._replace(netloc=here))
        self._thread.start()
        self._ready.wait(_WAIT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all connections."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_WAIT)

    def open(self) -> None:
        """Let connections through."""
        self._turn(to_open=True)

    def shut(self) -> None:
        """End all connections, and let none through."""
        self._turn(to_open=False)

    def _turn(self, *, to_open: bool) -> None:
        self._open = to_open
        if not to_open and self._loop is not None:
            self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener)
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._ended.wait()
        server.close()
        self._abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as stack:
            self._hold(stack, writer)
            if not self._open:
                return
            with contextlib.suppress(OSError):
                async with asyncio.timeout(_WAIT):
                    host, port = self._behind.hostname or HOST, self._behind.port or _PORT
                    there, onward = await asyncio.open_connection(host, port)
                self._hold(stack, onward)
                if self._open:
                    await asyncio.gather(_pump(reader, onward), _pump(there, writer))

    def _hold(self, stack: contextlib.ExitStack, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        stack.callback(writer.transport.abort)
        stack.callback(self._writers.discard, writer)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
    target.transport.abort()
