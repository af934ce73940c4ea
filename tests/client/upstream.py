"""A real HTTP server whose answers a test decides, and which counts what it was asked."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.managers import WITHIN, eventually
from tests.models.examples import STREAM, completion, dump

# Any: ASGI scopes and messages hold whatever the server puts there.
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]
Scope = dict[str, Any]
HeaderList = Sequence[tuple[str, str]]


class Gate:
    """Opened by a test, waited for by the server, which runs in another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        """Let the server go on."""
        with self._lock:
            self._opened = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    async def passed(self) -> None:
        """Wait until it is open."""
        event = asyncio.Event()
        with self._lock:
            if self._opened:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()


class Happened:
    """Set by the server, waited for by a test."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """It has happened."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it has happened yet."""
        return self._event.is_set()

    async def happened(self) -> None:
        """Wait for it."""
        await eventually(self._event.is_set)


@dataclass
class Reply:
    """What the server answers.

    Attributes:
        chunks: of the body, each sent by itself; a `Gate` among them is waited for, `BREAK` drops the connection.
        length: the body is announced by its length, not sent chunked.
    """

    status: int = 200
    headers: HeaderList = ()
    chunks: Sequence[object] = ()
    length: bool = False


BREAK = object()


@dataclass
class Asked:
    """One request that reached the server."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def json_reply(document: object, *, status: int = 200, headers: HeaderList = ()) -> Reply:
    """A whole JSON document."""
    return Reply(status, [("content-type", "application/json"), *headers], [dump(document)], length=True)


def stream_reply(*chunks: object, headers: HeaderList = ()) -> Reply:
    """A stream of events."""
    return Reply(200, [("content-type", "text/event-stream; charset=utf-8"), *headers], chunks)


def chat_reply(asked: Asked) -> Reply:
    """What a model answers: streamed or whole, as asked."""
    if json.loads(asked.body).get("stream"):
        return stream_reply(*STREAM)
    return json_reply(completion())


@dataclass
class Upstream:
    """One test's part of the server.

    Attributes:
        url: begins all its addresses.
        asked: the requests so far, in order.
        disconnected: set when a client went away before its answer was complete.
    """

    url: str
    answer: Callable[[Asked], Reply] = chat_reply
    asked: list[Asked] = field(default_factory=list)
    arrived: Happened = field(default_factory=Happened)
    disconnected: Happened = field(default_factory=Happened)

    @property
    def calls(self) -> int:
        """How many requests reached the server."""
        return len(self.asked)

    def replies(self, *replies: Reply) -> None:
        """Answer with these in turn, and with the last one ever after."""
        rest = list(replies)
        self.answer = lambda asked: rest.pop(0) if len(rest) > 1 else rest[0]

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["path"].partition("/")[2].partition("/")[2], headers, body)
        self.asked.append(asked)
        reply = self.answer(asked)
        self.arrived.set()
        answering = asyncio.create_task(self._send(reply, send, with_body=asked.method != "HEAD"))
        leaving = asyncio.create_task(receive())
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
            self.disconnected.set()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            return
        leaving.cancel()
        answering.result()

    async def _send(self, reply: Reply, send: Send, *, with_body: bool) -> None:
        headers = [(name.encode(), value.encode()) for name, value in reply.headers]
        if reply.length:
            size = sum(len(chunk) for chunk in reply.chunks if isinstance(chunk, bytes))
            headers.append((b"content-length", b"%d" % size))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for chunk in reply.chunks if with_body else ():
            if isinstance(chunk, Gate):
                await chunk.passed()
            elif chunk is BREAK:
                raise ConnectionResetError("the test wants the connection dropped")
            else:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Server:
    """The process's server: it runs in a thread, and each test has a part of its paths."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        # Otherwise the second piece of a response waits for the client to acknowledge the first, which takes it 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parts: dict[str, Upstream] = {}
        # Without Date: its whole seconds would make a response look a second older now and then.
        config = uvicorn.Config(
            self._serve,
            http="h11",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            ws="none",
            date_header=False,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def part(self) -> Upstream:
        """A part of its own for a test."""
        name = f"part{len(self._parts)}"
        upstream = Upstream(f"http://127.0.0.1:{self._socket.getsockname()[1]}/{name}")
        self._parts[name] = upstream
        return upstream

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._parts[scope["path"].split("/")[1]].serve(scope, receive, send)

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        """The server while it runs. What asks before it listens waits in the socket's queue."""
        self._thread.start()
        yield self
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(WITHIN)
        self._socket.close()
