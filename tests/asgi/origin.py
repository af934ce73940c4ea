"""An ASGI app under test: it answers by a function, and remembers how often it was called and how each call ended."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send


@dataclass
class Call:
    """One call of the app."""

    number: int
    scope: Scope
    receive: Receive
    send: Send

    @property
    def path(self) -> str:
        """The decoded path."""
        path: str = self.scope["path"]
        return path

    def field(self, name: str) -> str:
        """A field of the request; empty where it is absent."""
        headers: list[tuple[bytes, bytes]] = self.scope["headers"]
        return dict(headers).get(name.encode(), b"").decode("latin-1")

    async def start(self, status: int = 200, /, **fields: str) -> None:
        """Send the head; `_` in a name stands for `-`."""
        headers = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of the body."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, body: bytes | str, status: int = 200, /, **fields: str) -> None:
        """Send a whole response with its length."""
        data = body.encode() if isinstance(body, str) else body
        await self.start(status, **{"content_length": str(len(data)), **fields})
        await self.chunk(data, more=False)

    async def request_body(self) -> bytes:
        """Read the body of the request."""
        body = b""
        while True:
            message = await self.receive()
            part: bytes = message.get("body", b"")
            body += part
            if not message.get("more_body", False):
                return body


Handler = Callable[[Call], Awaitable[None]]


class Origin:
    """The app.

    Attributes:
        calls: all calls so far.
        running: calls that have not ended.
        cancelled: calls that saw their cancellation.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.calls: list[Call] = []
        self.running = 0
        self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = Call(len(self.calls) + 1, scope, receive, send)
        self.calls.append(call)
        self.running += 1
        try:
            await self._handler(call)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def fixed(body: str = "body", status: int = 200, /, **fields: str) -> Origin:
    """An app that answers the same each time, but for the number of the call at the end of the body."""

    async def handler(call: Call) -> None:
        await call.answer(f"{body} {call.number}", status, **fields)

    return Origin(handler)


class Gated:
    """A handler that waits, until the test opens the gate, before it answers."""

    def __init__(self, **fields: str) -> None:
        self.fields = fields
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        self.entered.set()
        await self.gate.wait()
        await call.answer(f"body {call.number}", **self.fields)
