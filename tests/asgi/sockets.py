"""Apps under a real uvicorn on a real socket, and a client that reads its answers piece by piece."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

HOST = "127.0.0.1"
NO_FIELDS: Mapping[str, str] = MappingProxyType({})


def listening_socket(send_buffer: int | None = None) -> socket.socket:
    """A socket that listens on a free loopback port. `send_buffer`: bytes that a connection holds for the client."""
    listener = socket.socket()
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # connections inherit it
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, 0))
    listener.listen(2048)
    return listener


class Server(uvicorn.Server):
    """A server that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:  # Ctrl-C is pytest's
        yield


@contextlib.asynccontextmanager
async def served(
    app: ASGIApp, *, lifespan: Literal["on", "off"] = "off", send_buffer: int | None = None
) -> AsyncIterator[int]:
    """Run the app under uvicorn in this event loop; gives the port."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan=lifespan, timeout_graceful_shutdown=5)
    async with running(config, send_buffer) as port:
        yield port


@contextlib.asynccontextmanager
async def running(config: uvicorn.Config, send_buffer: int | None = None) -> AsyncIterator[int]:
    """Run what is configured in this event loop; gives the port. `send_buffer`: as for `listening_socket`."""
    server = Server(config)
    with listening_socket(send_buffer) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            # Connections wait in the backlog until it accepts them.
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


@dataclass
class HttpAnswer:
    """A whole response."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def cache_status(self) -> str:
        """What the cache says."""
        return self.fields.get("cache-status", "")


class Connection:
    """A client's connection, which may carry several requests one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, target: str, fields: Mapping[str, str] = NO_FIELDS, method: str = "GET") -> None:
        """Send a request without a body."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {HOST}", *(f"{name}: {fields[name]}" for name in fields)]
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self._writer.drain()

    async def read_head(self) -> tuple[int, Mapping[str, str]]:
        """Read the status and the fields."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
        return int(head[0].split(" ")[1]), fields

    async def read_chunk(self) -> bytes:
        """Read one chunk of a chunked body; empty at its end."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def read_body(self, fields: Mapping[str, str]) -> bytes:
        """Read the rest of the response.

        Raises:
            IncompleteReadError: the server has closed the connection before its end.
        """
        if "content-length" in fields:
            return await self._reader.readexactly(int(fields["content-length"]))
        body = b""
        while chunk := await self.read_chunk():
            body += chunk
        return body

    async def ask(self, target: str, fields: Mapping[str, str] = NO_FIELDS) -> HttpAnswer:
        """One GET request from beginning to end; the connection stays open."""
        await self.send(target, fields)
        return await self.read_answer()

    async def read_answer(self) -> HttpAnswer:
        """Read a whole response to a GET request."""
        status, head = await self.read_head()
        return HttpAnswer(status, head, b"" if status == 304 else await self.read_body(head))

    def is_open(self) -> bool:
        """Whether the server has not closed it."""
        return not self._reader.at_eof()

    async def close(self) -> None:
        """Close it, whatever is under way."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """Drop it without a word."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection that is closed at the end."""
    connection = await connect(port)
    try:
        yield connection
    finally:
        await connection.close()


async def connect(port: int, receive_buffer: int | None = None) -> Connection:
    """A connection for the caller to close. `receive_buffer`: bytes that it takes while nobody reads."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (HOST, port))
    return Connection(*await asyncio.open_connection(sock=client))


async def fetch(port: int, target: str, fields: Mapping[str, str] = NO_FIELDS) -> HttpAnswer:
    """One request on a connection of its own."""
    async with connected(port) as connection:
        return await connection.ask(target, fields)
