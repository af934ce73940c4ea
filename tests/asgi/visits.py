"""Requests to an ASGI app by direct calls: no server, every message seen as it is sent."""

import asyncio
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

NO_FIELDS: Mapping[str, str] = MappingProxyType({})
HOST = "example.com"
_KEY = re.compile(r'; key="[^"]*"')


def http_scope(target: str = "/", method: str = "GET", fields: Mapping[str, str] = NO_FIELDS, /, **more: Any) -> Scope:
    """The scope of a request for a path with a query, both as a client writes them."""
    raw_path, _, query = target.partition("?")
    headers = {"host": HOST, **fields}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        **more,
    }


class Visit:
    """One request and the messages that came for it.

    Args:
        body: of the request.
        more: further keys of the scope.
    """

    def __init__(
        self,
        app: ASGIApp,
        target: str = "/",
        method: str = "GET",
        fields: Mapping[str, str] = NO_FIELDS,
        /,
        *,
        body: bytes = b"",
        **more: Any,
    ) -> None:
        if body:
            fields = {"content-length": str(len(body)), **fields}
        self.scope = http_scope(target, method, fields, **more)
        self.messages: list[Message] = []
        self._app = app
        self._requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._left = asyncio.Event()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # What the client does

    async def go(self) -> Self:
        """Ask, and return when the app does."""
        await self._ask()
        return self

    def begin(self) -> Self:
        """Ask in a task of its own."""
        self._task = asyncio.create_task(self._ask())
        return self

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    def cancel(self) -> bool:
        """Cancel the task, as a server that shuts down does; false if it has ended."""
        assert self._task is not None
        return self._task.cancel()

    async def end(self) -> Self:
        """Wait for the end of what `begin` began; raise what it raised."""
        assert self._task is not None
        await self._task
        return self

    async def until(self, count: int) -> None:
        """Wait until so many messages have come."""
        while len(self.messages) < count:
            self._arrived.clear()
            await self._arrived.wait()

    # What came

    @property
    def status(self) -> int:
        """The status code."""
        status: int = self.messages[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        """The body as far as it came."""
        return b"".join(self.chunks)

    @property
    def chunks(self) -> list[bytes]:
        """Its pieces, empty ones left out."""
        return [message["body"] for message in self.messages[1:] if message.get("body")]

    @property
    def complete(self) -> bool:
        """Whether the response has ended."""
        last = self.messages[-1] if self.messages else {}
        return last.get("type") == "http.response.body" and not last.get("more_body", False)

    def fields(self, name: str) -> list[str]:
        """The lines of a header field."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self.messages[0]["headers"] if key == wanted]

    def field(self, name: str) -> str | None:
        """A header field with at most one line."""
        lines = self.fields(name)
        assert len(lines) <= 1, f"{name} has several lines: {lines}"
        return lines[0] if lines else None

    @property
    def cache_status(self) -> str:
        """What the cache says, but for the key."""
        return _KEY.sub("", self.field("cache-status") or "")

    async def _ask(self) -> None:
        await self._app(self.scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._requests:
            return self._requests.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.messages.append(message)
        self._arrived.set()


async def ask(
    app: ASGIApp,
    target: str = "/",
    method: str = "GET",
    fields: Mapping[str, str] = NO_FIELDS,
    /,
    *,
    body: bytes = b"",
    **more: Any,
) -> Visit:
    """One request from beginning to end."""
    return await Visit(app, target, method, fields, body=body, **more).go()
