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
_END: Final = 2.0
"""Seconds to wait for the thread at the end."""


class Gate:
    """Passes connections on to Redis while it is open. A context manager, with a thread of its own inside."""

    def __init__(self, url: str) -> None:
        """`url` is of one Redis, without TLS: `redis://…`."""
        parts = urlsplit(url)
        self._target = parts.hostname or HOST, parts.port or _PORT
        self._listener = listener()
        user, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{user}{at}{HOST}:{self._listener.getsockname()[1]}"))
        """Where Redis is for the workers."""
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def __enter__(self) -> Self:
        """Begin to pass on."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END)

    def open(self) -> None:
        """Let connections through."""
        self._loop.call_soon_threadsafe(self._turn, True)

    def shut(self) -> None:
        """End all connections, and let none through."""
        self._loop.call_soon_threadsafe(self._turn, False)

    def _turn(self, to_open: bool) -> None:  # `call_soon_threadsafe` passes no keywords
        self._open = to_open
        if not to_open:
            self._abort()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, sock=self._listener))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._abort()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as stack:
            self._hold(stack, writer)
            if not self._open:
                return
            with contextlib.suppress(OSError):
                there, onward = await asyncio.open_connection(*self._target)
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
