"""A TCP proxy that fails on demand, to stand between clients and a real server on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self, assert_never
from urllib.parse import urlsplit

from tests.loops import LoopThread
from tests.proxy_faults import Cut, Direction, Drop, Fault, Hang, Latency, Pass, Refuse, Throttle
from tests.servers import HOST

__all__ = ["Cut", "Direction", "Drop", "Fault", "Hang", "Latency", "Pass", "Proxy", "Refuse", "Throttle"]

_CHUNK = 65536
_HELD = 16  # chunks that wait in the proxy before it stops reading
_SLICE = 0.02  # seconds between two pieces of a throttled stream
_RESET = None  # in place of bytes: the sender has reset its connection


class _CutOff(Exception):
    """The connection ends here.

    Attributes:
        reset: both sides see a reset, instead of the end of the stream.
    """

    def __init__(self, reset: bool) -> None:
        self.reset = reset


class Proxy:
    """One proxy in front of one server. Start it, or use it in a `with` statement; it keeps its port until closed.

    Args:
        url: where the server is, with its port, such as `redis://user:secret@127.0.0.1:6379/0`.
        seed: decides the jitter.

    Example:
        with Proxy(redis_url) as proxy:
            client = Redis.from_url(proxy.url)
            proxy.apply(Latency(0.2))     # stays until another one is applied
            with proxy.during(Hang()):    # ends with the block
                ...
            proxy.reset()
    """

    def __init__(self, url: str, *, seed: int = 0) -> None:
        parts = urlsplit(url)
        assert parts.hostname, f"{url} names no host"
        assert parts.port, f"{url} names no port"
        self._target = parts.hostname, parts.port
        self._parts = parts
        self._random = random.Random(seed)
        self._fault: Fault = Pass()
        self._changed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._listener: socket.socket | None = None
        self._thread: LoopThread | None = None
        self._port = 0

    # --- what tests use, from any thread

    def start(self) -> Self:
        """Begins to listen on a free port."""
        # This socket never listens: it keeps the port for the time when connections are refused.
        self._reserved = _bound(0)
        self._port = self._reserved.getsockname()[1]
        self._thread = LoopThread()
        self._thread.run(self._apply(self._fault))
        return self

    def close(self) -> None:
        """Ends all connections and the thread; does nothing the second time."""
        if self._thread is not None:
            self._thread.run(self._close())
            self._thread.end()
            self._thread = None
            self._reserved.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        assert self._port, "start the proxy first"
        return self._port

    @property
    def url(self) -> str:
        """The server's URL, leading through the proxy."""
        credentials, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{credentials}{at}{HOST}:{self.port}").geturl()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return self._accepted

    def apply(self, fault: Fault) -> None:
        """Makes this the only fault, for new and existing connections; returns when it is in force."""
        self._running().run(self._apply(fault))

    @contextlib.contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        """A fault that ends with the block."""
        before = self._fault
        self.apply(fault)
        try:
            yield
        finally:
            self.apply(before)

    def reset(self) -> None:
        """Resets all connections that exist (RST), on both sides."""
        self._running().run(self._reset())

    def _running(self) -> LoopThread:
        assert self._thread is not None, "the proxy does not run"
        return self._thread

    # --- in the thread of the proxy

    async def _apply(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if isinstance(fault, Refuse):
            self._stop_listening()
        elif self._listener is None:
            self._listener = _bound(self._port)
            self._listener.listen(128)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _reset(self) -> None:
        await _end(*self._connections)

    async def _close(self) -> None:
        self._stop_listening()
        await self._reset()

    def _accept(self, listener: socket.socket) -> None:
        # No task that waits in `sock_accept`: cancelled at the wrong moment, it would lose a socket.
        with contextlib.suppress(OSError):  # the client may be gone again
            client, _ = listener.accept()
            self._accepted += 1
            connection = asyncio.create_task(self._connect(client))
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)
            connection.add_done_callback(lambda _: client.close())  # also if it is cancelled before it begins

    async def _connect(self, client: socket.socket) -> None:
        """Serves one connection to its end; cancelled, it resets both sides."""
        reset = True
        server = socket.socket()
        try:
            for side in (client, server):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(server, self._target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(client, server, "to_server"))
                group.create_task(self._forward(server, client, "to_client"))
            reset = False
        except* _CutOff as ends:
            reset = any(end.reset for end in ends.exceptions if isinstance(end, _CutOff))
        except* OSError:
            pass  # one side is gone, or the server refuses: the client sees a reset
        finally:
            for side in (client, server):
                if reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.close()

    async def _forward(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        """Carries one direction of a connection to its end."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(_HELD)

        async def read() -> None:
            chunk: bytes | None = b"more"
            due = 0.0
            while chunk:
                try:
                    chunk = await loop.sock_recv(source, _CHUNK)
                except OSError:
                    chunk = _RESET
                due = max(due, loop.time() + self._delay())
                await chunks.put((due, chunk))

        reading = asyncio.create_task(read())
        counted, passed = self._fault, 0
        try:
            chunk: bytes | None = b"more"
            while chunk:
                due, chunk = await chunks.get()
                await asyncio.sleep(due - loop.time())
                while isinstance(self._fault, Hang):
                    await self._changed.wait()
                if counted is not self._fault:
                    counted, passed = self._fault, 0
                passed += await self._deliver(chunk, sink, direction, passed)
        finally:
            await _end(reading)

    def _delay(self) -> float:
        fault = self._fault
        return fault.seconds + self._random.uniform(0, fault.jitter) if isinstance(fault, Latency) else 0.0

    async def _deliver(self, chunk: bytes | None, sink: socket.socket, direction: Direction, passed: int) -> int:
        """Does with a chunk what the fault says; returns how much has passed.

        Args:
            chunk: bytes, of which none are the end of the stream, or `_RESET`.
            passed: bytes that this fault let pass before.
        """
        loop = asyncio.get_running_loop()
        fault = self._fault
        match fault:
            case Drop(direction=dropped) if dropped == direction:
                return 0
            case Cut(after, cut, reset) if cut == direction and chunk is not None and passed + len(chunk) >= after:
                await loop.sock_sendall(sink, chunk[: after - passed])
                raise _CutOff(reset)
            case Throttle(rate) if chunk:
                size = max(1, int(rate * _SLICE))
                for start in range(0, len(chunk), size):
                    piece = chunk[start : start + size]
                    await loop.sock_sendall(sink, piece)
                    await asyncio.sleep(len(piece) / rate if self._fault is fault else 0)
            case Pass() | Latency() | Throttle() | Drop() | Hang() | Refuse() | Cut():
                if chunk is _RESET:
                    raise _CutOff(reset=True)
                if chunk:
                    await loop.sock_sendall(sink, chunk)
                else:
                    sink.shutdown(socket.SHUT_WR)
            case _:
                assert_never(fault)
        return len(chunk or b"")


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setblocking(False)
    bound.bind((HOST, port))
    return bound


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
