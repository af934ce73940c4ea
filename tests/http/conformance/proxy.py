"""A reverse proxy around a client, and connections that give it interim responses."""

from collections.abc import Awaitable, Callable
from typing import Final

import httpx2
from starlette.types import Receive, Scope, Send

from tests.asgi.http2 import Http2Answer, Lines, asked
from tests.http.conformance.origin import EARLY_HINT

INTERIM: Final = "interim"
"""Extension of a request: what is told of each interim response."""

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"proxy-connection"})
# The client of HTTP/2 gives these itself.
_OF_THE_CONNECTION = _HOP_BY_HOP | {b"host", b"content-length"}

Told = Callable[[int, Lines], Awaitable[None]]
"""Gets status and fields of one interim response, when it comes."""


class InterimTransport(httpx2.AsyncBaseTransport):
    """Connections over HTTP/2 that tell of interim responses, which those of the library drop."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask the origin, on a connection of the request's own."""
        told: Told | None = request.extensions.get(INTERIM)
        assert request.url.port is not None
        fields = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.lower() not in _OF_THE_CONNECTION
        ]
        target = request.url.raw_path.decode("ascii")
        body = await request.aread()
        async with asked(request.url.port, target, request.method, fields, body) as asking:
            passed = 0

            def is_news(answer: Http2Answer) -> bool:
                return answer.status != 0 or len(answer.interim) > passed

            while not asking.answer.status:
                answer = await asking.until(is_news)
                for status, lines in answer.interim[passed:]:
                    passed += 1
                    if told is not None:
                        await told(status, lines)
            answer = await asking.end()
        if answer.reset is not None:
            raise httpx2.RemoteProtocolError(f"reset with {answer.reset}")
        return httpx2.Response(answer.status, headers=answer.lines, stream=httpx2.ByteStream(answer.body))


class ReverseProxy:
    """The least that hands requests on and answers back, both as they are; hints where the server takes them."""

    def __init__(self, client: httpx2.AsyncClient, base: str) -> None:
        self._client = client
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = b""
        # Of a body that there is not, uvicorn over HTTP/2 says nothing.
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
        query = f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
        headers = [line for line in scope["headers"] if line[0] not in _HOP_BY_HOP and line[0] != b"host"]
        request = httpx2.Request(
            scope["method"],
            f"{self._base}{scope['raw_path'].decode()}{query}",
            headers=headers,
            content=body or None,
        )
        answered = False

        async def hint(status: int, lines: Lines) -> None:
            links = [value.encode("latin-1") for name, value in lines if name == "link"]
            # A refresh in the background asks with this request too, after its answer.
            if status == 103 and links and not answered:
                await send({"type": EARLY_HINT, "links": links})

        if EARLY_HINT in scope.get("extensions", {}):
            request.extensions[INTERIM] = hint
        response = await self._client.send(request, stream=True)
        answered = True
        try:
            kept = [(name, value) for name, value in response.headers.raw if name.lower() not in _HOP_BY_HOP]
            await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()
