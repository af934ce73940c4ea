"""A client of HTTP/2 that sees all that a server sends, 1xx responses too, and servers of that version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import uvicorn
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.asgi.sockets import HOST, listening_socket, running

Lines = list[tuple[str, str]]


@dataclass
class Http2Answer:
    """A response as far as it came.

    Attributes:
        interim: status and fields of each 1xx response.
        reset: the error by which the server has ended it.
    """

    status: int = 0
    lines: Lines = field(default_factory=list)
    body: bytes = b""
    interim: list[tuple[int, Lines]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    def take(self, event: Event) -> None:
        """Note what has come."""
        match event:
            case InformationalResponseReceived():
                self.interim.append(_head(event.headers or ()))
            case ResponseReceived():
                self.status, self.lines = _head(event.headers or ())
            case DataReceived():
                self.body += event.data or b""
            case StreamEnded():
                self.ended = True
            case StreamReset() | ConnectionTerminated():
                self.reset, self.ended = int(event.error_code or ErrorCodes.NO_ERROR), True


class Http2Request:
    """One request on a connection of its own; make it with `asked`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answer = Http2Answer()
        self._reader = reader
        self._writer = writer
        self._connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))

    async def send(self, port: int, method: str, target: str, fields: Iterable[tuple[str, str]], body: bytes) -> None:
        """Send all of it."""
        length = [("content-length", str(len(body)))] if body else []
        head = [(":method", method), (":scheme", "http"), (":authority", f"{HOST}:{port}"), (":path", target)]
        lines = [*head, *length, *((name.lower(), value) for name, value in fields)]
        self._connection.initiate_connection()
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
        self._connection.send_headers(1, encoded, end_stream=not body)
        if body:
            self._connection.send_data(1, body, end_stream=True)
        await self._flush()

    async def until(self, condition: Callable[[Http2Answer], object]) -> Http2Answer:
        """Read until something is true of the answer.

        Raises:
            ConnectionError: the response has ended before that.
        """
        while not condition(self.answer):
            data = b"" if self.answer.ended else await self._reader.read(65536)
            if not data:
                raise ConnectionError("the response is over")
            for event in self._connection.receive_data(data):
                if isinstance(event, DataReceived) and event.stream_id and event.flow_controlled_length:
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.answer.take(event)
            await self._flush()
        return self.answer

    async def end(self) -> Http2Answer:
        """Read to the end."""
        return await self.until(lambda answer: answer.ended)

    async def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())
        await self._writer.drain()


def _head(headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, Lines]:
    lines = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]
    return int(dict(lines)[":status"]), [line for line in lines if line[0] != ":status"]


@contextlib.asynccontextmanager
async def asked(
    port: int, target: str, method: str = "GET", fields: Sequence[tuple[str, str]] = (), body: bytes = b""
) -> AsyncIterator[Http2Request]:
    """A request that is sent; its connection is closed at the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        request = Http2Request(reader, writer)
        await request.send(port, method, target, fields, body)
        yield request
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def uvicorn_http2(app: ASGIApp, *, date: bool = True) -> AsyncIterator[int]:
    """The app under uvicorn, which speaks both versions; gives the port. `date`: it says when a response was sent."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http="zttp",
        http2=True,
        date_header=date,
        server_header=date,
        timeout_graceful_shutdown=5,
    )
    async with running(config) as port:
        yield port


@contextlib.asynccontextmanager
async def hypercorn_both(app: ASGIApp) -> AsyncIterator[int]:
    """The app under hypercorn, which speaks both versions; gives the port."""
    config, ends = Config(), asyncio.Event()

    async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"  # the server goes on without
        await app(scope, receive, send)

    config.errorlog = None
    listener = listening_socket()
    port = listener.getsockname()[1]
    config.bind = [f"fd://{listener.detach()}"]  # the server closes it
    config.graceful_timeout = 5
    task = asyncio.create_task(serve(without_lifespan, config, shutdown_trigger=ends.wait))  # type: ignore[arg-type]  # Starlette's types of the same
    try:
        yield port
    finally:
        ends.set()
        await task
