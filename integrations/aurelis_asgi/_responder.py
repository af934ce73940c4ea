"""One request's way through the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

from starlette.types import Message, Receive, Scope, Send

from aurelis.cache.exchange import Alone, Hit, Live, Pending, Refused
from aurelis.cache.http import (
    Fields,
    HttpRequest,
    Part,
    forwardable_fields,
    is_not_modified,
    not_modified_fields,
    part_of,
    storable_fields,
)
from aurelis.cache.typing import Bypass, Pass, Record

from ._heeding import HeadSend, PartSend, Watching
from ._hinting import Hints, takes_hints
from ._listening import Listener
from ._load import AppLoad
from ._routes import restore, without_telemetry
from ._telling import Teller

if TYPE_CHECKING:
    from ._middleware import CacheMiddleware

_CLIENT_CLOSED_REQUEST = 499
"""What proxies log for a client that left before its response; it is in no specification."""
_BODY = Bypass("bypass", "body")


class Responder:
    """Answers one request."""

    __slots__ = ("_middleware", "_receive", "_scope", "_send", "_teller")

    def __init__(self, middleware: CacheMiddleware, scope: Scope, receive: Receive, send: Send, teller: Teller) -> None:
        self._middleware = middleware
        self._teller = teller
        self._scope = scope
        self._receive = receive
        self._send = send

    async def forward(
        self, answer: Alone, receive: Receive | None = None, watched: Callable[[Send], Watching] | None = None
    ) -> None:
        """Have the app answer this request alone, as if there were no cache.

        Args:
            receive: for the app; `None`: the server's.
            watched: puts itself before a `send`, to see what the app says.
        """
        self._middleware.note_bypass(self._scope, answer.detail)
        told = self._teller.forwarded(answer.reason, detail=answer.detail)
        forward = self._send

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A copy: the app may send the same message again.
                message = {**message, "headers": [*forwardable_fields([*message.get("headers", ())]), *told]}
            await forward(message)

        if watched is None:
            await self._middleware.app(self._scope, receive or self._receive, send)
            return
        watching = watched(send)
        try:
            await self._middleware.app(self._scope, receive or self._receive, watching)
        finally:
            await watching.close()

    async def respond(self, request: HttpRequest) -> None:
        """Answer from the cache, from a load under way, or from the app."""
        answer = self._middleware.exchange.peek(request)
        if type(answer) is Hit:
            await self._replay(answer, request)
        else:
            assert isinstance(answer, Pending)
            await self._open(answer)

    async def _replay(self, hit: Hit, request: HttpRequest) -> None:
        response, forwarded = hit.response, hit.forwarded
        if hit.refresh:
            self._refresh(hit, request)
        if forwarded is None:
            stamp = self._teller.hit(hit.age, hit.ttl // 1)
        else:
            told = self._teller.forwarded(
                forwarded.reason,
                status=forwarded.status,
                ttl=hit.ttl,
                stored=forwarded.stored,
                collapsed=forwarded.collapsed,
            )
            stamp = ((b"age", b"%d" % hit.age), *told)
        if is_not_modified(request.fields, response):
            await replay(hit, self._scope, self._send, stamp, not_modified=True)
        elif b"range" in request.fields and request.method == "GET":
            part = part_of(request.fields, response, token_hex(16).encode())
            await replay(hit, self._scope, self._send, stamp, part=part)
        else:
            await replay(hit, self._scope, self._send, stamp, with_body=request.method != "HEAD")
        if forwarded is not None:
            await forwarded.finished()  # what the app raises after its response is the server's to log

    def _refresh(self, hit: Hit, request: HttpRequest) -> None:
        middleware = self._middleware
        # A copy: the app writes to it, and this request goes on with its own.
        load = AppLoad(middleware.app, without_telemetry(self._scope), request.rule, hit.response.route)
        middleware.exchange.refresh(request, hit, load)

    async def _open(self, pending: Pending[HttpRequest]) -> None:
        task = asyncio.current_task()
        assert task is not None
        listener = Listener(self._receive, task)
        try:
            answer = await self._answer(pending, listener, task)
            if isinstance(answer, Hit):
                await self._replay(answer, pending.request)
            elif isinstance(answer, Refused):
                await self._refuse()
            elif answer is not None:
                await self.forward(answer, listener.receive, self._watching(pending.request, answer))
        finally:
            listener.stop()

    def _watching(self, request: HttpRequest, answer: Alone) -> Callable[[Send], Watching] | None:
        """What looks at the response to a request that is answered alone for what it says of what is stored."""
        rule = request.rule
        if rule is not None and rule.query is not None and rule.query != self._scope["query_string"]:
            return None  # the app has seen what does not count for the key
        if request.method == "HEAD":
            return partial(HeadSend, self._middleware.heeding, request)
        if answer.detail == "range":
            return partial(PartSend, self._middleware.heeding, request)
        return None

    async def _has_hidden_body(self, request: HttpRequest, listener: Listener) -> bool:
        """Whether a body comes without a field that announces it: from HTTP/2 on, frames say where it ends."""
        if self._scope.get("http_version", "1.1").startswith("1") or b"content-length" in request.fields:
            return False
        try:
            return await listener.announces_body()
        except asyncio.CancelledError:
            self._middleware.exchange.bypass(_BODY)  # it was a request all the same
            raise

    async def _answer(
        self, pending: Pending[HttpRequest], listener: Listener, task: asyncio.Task[object]
    ) -> Hit | Refused | Alone | None:
        """What is to be answered; `None`: that has been done."""
        middleware = self._middleware
        live: Live | None = None
        relays = False
        try:
            if await self._has_hidden_body(pending.request, listener):
                return middleware.exchange.bypass(_BODY)
            hints = Hints(self._send) if takes_hints(self._scope) else None
            load = AppLoad(middleware.app, self._scope, pending.request.rule, hints=hints)
            async with hints or nullcontext():
                answer = await middleware.exchange.open(pending, load)
                if isinstance(answer, Live):
                    live = answer
            if not isinstance(answer, Live):
                return answer
            relays = True
            listener.answered()
            await self._relay(answer, listener)
        except asyncio.CancelledError:
            # The listener's cancellation always arrives at an await within this block: it runs only while we wait.
            if not (listener.disconnected or listener.has_late_body) or task.uncancel() > 0:
                raise
            if listener.has_late_body:
                self._middleware.exchange.note_again("body")  # that it was a request has been counted
                return Alone(_BODY.reason, _BODY.detail)
            if not relays:
                await self._conclude()
        finally:
            listener.ignore()
            if live is not None:
                live.close()
        return None

    async def _relay(self, live: Live, listener: Listener) -> None:
        reader = live.reader
        assert reader is not None  # the app's response is never handed over unread
        decision = live.decision
        if isinstance(decision, Pass):
            self._middleware.note_bypass(self._scope, decision.reason)
        told = self._teller.forwarded(
            live.reason,
            status=live.head.status,
            ttl=decision.lifetime if isinstance(decision, Record) else None,
            stored=isinstance(decision, Record),
            collapsed=live.collapsed,
            detail=decision.reason if isinstance(decision, Pass) else "",
        )
        if live.route:
            restore(self._scope, live.route)
        send = self._send
        if live.collapsed and isinstance(decision, Record):
            fields: Sequence[tuple[bytes, bytes]] = storable_fields(live.head, decision.left_out)
        else:
            fields = forwardable_fields(live.head.headers)
        await send(
            {
                "type": "http.response.start",
                "status": live.head.status,
                "headers": [*fields, *told],
            }
        )
        more = True
        while more:
            chunk = await reader.next()
            # What is outside of us gets the messages that the app sent: it may treat a body in one piece differently.
            more = chunk is not None and not reader.at_end()
            if not more:
                listener.ignore()  # the client has all that it wanted
            await send({"type": "http.response.body", "body": chunk or b"", "more_body": more})
        if not live.collapsed:
            # As without a cache, the request ends when the app does, and what it raises then is the server's to log.
            await live.finished()

    async def _refuse(self) -> None:
        await self._send_empty(504, self._teller.refused())

    async def _conclude(self) -> None:
        # For the middleware outside of us: the server sends it nowhere, or says that it cannot.
        with suppress(OSError):
            await self._send_empty(_CLIENT_CLOSED_REQUEST, ())

    async def _send_empty(self, status: int, fields: Fields) -> None:
        headers = [(b"content-length", b"0"), *fields]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})


async def replay(
    hit: Hit,
    scope: Scope,
    send: Send,
    stamp: Fields,
    *,
    not_modified: bool = False,
    with_body: bool = True,
    part: Part | None = None,
) -> None:
    """Answer from the cache.

    Args:
        stamp: fields that say how old the answer is, and whence it comes.
        not_modified: by a 304.
        with_body: otherwise the head alone.
        part: in place of the whole.
    """
    response = hit.response
    if response.route:
        restore(scope, response.route)
    status, headers = (304, not_modified_fields(response)) if not_modified else (response.status, response.headers)
    chunks = response.chunks if with_body and not not_modified else ()
    if part is not None:
        status, headers, chunks = part.status, part.fields, (part.body,)
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *stamp]})
    if len(chunks) == 1:
        await send({"type": "http.response.body", "body": chunks[0]})
        return
    for chunk in chunks[:-1]:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": chunks[-1] if chunks else b""})
