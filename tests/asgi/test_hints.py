"""Early hints of the app (RFC 8297, ASGI's `http.response.early_hint`) behind the middleware, in process."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import Visit
from tests.managers import eventually, is_settled

HINT = "http.response.early_hint"
STYLE = b"</style.css>; rel=preload; as=style"
FONT = b"</font.woff2>; rel=preload; as=font"


def hinting_scope() -> dict[str, Any]:
    """What a server says that sends hints."""
    return {"extensions": {HINT: {}, "http.response.trailers": {}}}


def visit(app: ASGIApp, target: str = "/", method: str = "GET", **fields: str) -> Visit:
    """A request through such a server."""
    return Visit(app, target, method, fields, **hinting_scope())


def kinds(visited: Visit) -> list[str]:
    """What came, in order."""
    return [message["type"].removeprefix("http.response.") for message in visited.messages]


def links(visited: Visit) -> list[list[bytes]]:
    """The hints that came."""
    return [message["links"] for message in visited.messages if message["type"] == HINT]


class Hinting:
    """A handler that gives two hints before it waits for its gate, and then answers."""

    def __init__(self, **fields: str) -> None:
        self.fields = {"cache_control": "max-age=60"} | fields
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        if HINT in (call.scope.get("extensions") or {}):
            await call.send({"type": HINT, "links": [STYLE]})
            await call.send({"type": HINT, "links": [FONT, STYLE]})
        await self.gate.wait()
        await call.answer(f"body {call.number}", **self.fields)


async def test_hints_reach_the_client_before_the_app_answers(manager: CacheManager) -> None:
    handler = Hinting()
    handler.gate.clear()
    visited = visit(CacheMiddleware(Origin(handler), cache=manager)).begin()
    await visited.until(2)
    assert links(visited) == [[STYLE], [FONT, STYLE]]
    handler.gate.set()
    await visited.end()
    assert kinds(visited) == ["early_hint", "early_hint", "start", "body"]


async def test_hints_are_not_stored(manager: CacheManager) -> None:
    origin = Origin(Hinting())
    app = CacheMiddleware(origin, cache=manager)
    first, second = await visit(app).go(), await visit(app).go()
    assert (len(links(first)), kinds(second)) == (2, ["start", "body"])
    assert b"link" not in dict(second.messages[0]["headers"])
    assert len(origin.calls) == 1


async def test_an_app_is_told_of_the_extension_only_where_the_server_has_it(manager: CacheManager) -> None:
    origin = Origin(Hinting())
    visited = await Visit(CacheMiddleware(origin, cache=manager)).go()
    assert kinds(visited) == ["start", "body"]
    seen = await visit(CacheMiddleware(origin, cache=manager), "/other").go()
    assert kinds(seen)[0] == "early_hint"
    assert set(origin.calls[1].scope["extensions"]) == {HINT}


async def test_a_hint_that_the_server_cannot_send_is_the_apps_error(manager: CacheManager) -> None:
    """As behind a server: what is out of order is not passed over in silence."""

    async def handler(call: Call) -> None:
        await call.send({"type": HINT, "links": [STYLE]})

    with pytest.raises(RuntimeError, match="early_hint"):
        await Visit(CacheMiddleware(Origin(handler), cache=manager)).go()


async def test_after_the_start_of_the_response_there_is_no_hint(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.start(cache_control="max-age=60")
        await call.send({"type": HINT, "links": [STYLE]})

    visited = visit(CacheMiddleware(Origin(handler), cache=manager))
    with pytest.raises(RuntimeError, match="early_hint"):
        await visited.go()
    assert links(visited) == []


async def test_others_who_share_the_load_get_no_hints(manager: CacheManager) -> None:
    """Only the head tells whether the response is for them as well, and hints come before it."""
    handler = Hinting()
    handler.gate.clear()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    leader = visit(app).begin()
    await leader.until(2)
    followers = [visit(app).begin() for _ in range(3)]
    await eventually(lambda: manager._engine.flights.waiting == 3)
    handler.gate.set()
    for one in (leader, *followers):
        await one.end()
        assert one.body == b"body 1"
    assert [kinds(one) for one in followers] == [["start", "body"]] * 3
    assert len(origin.calls) == 1


async def test_a_leader_that_leaves_takes_its_hints_with_it(manager: CacheManager) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def handler(call: Call) -> None:
        await first.wait()
        await call.send({"type": HINT, "links": [STYLE]})
        await second.wait()
        await call.answer("body", cache_control="max-age=60")

    app = CacheMiddleware(Origin(handler), cache=manager)
    leader = visit(app).begin()
    await eventually(lambda: not is_settled(manager))
    follower = visit(app).begin()
    await eventually(lambda: manager._engine.flights.waiting == 1)
    leader.leave()
    await leader.end()
    first.set()
    second.set()
    await follower.end()
    assert (links(leader), links(follower), follower.body) == ([], [], b"body")


async def test_a_background_refresh_hints_nobody(manager: CacheManager, clock: ManualClock) -> None:
    hinted: list[bool] = []

    async def handler(call: Call) -> None:
        hinted.append(HINT in call.scope["extensions"])
        await call.send({"type": HINT, "links": [STYLE]})  # without asking whether it may
        await call.answer(f"body {call.number}", cache_control="max-age=10, stale-while-revalidate=60")

    app = CacheMiddleware(Origin(handler), cache=manager)
    await visit(app).go()
    clock.advance(11)
    stale = await visit(app).go()
    assert (stale.body, links(stale)) == (b"body 1", [])
    await eventually(lambda: is_settled(manager))
    assert (await visit(app).go()).body == b"body 2"
    assert hinted == [True, False]


async def test_hints_come_before_a_response_that_the_origin_has_confirmed(
    manager: CacheManager, clock: ManualClock
) -> None:
    async def handler(call: Call) -> None:
        await call.send({"type": HINT, "links": [STYLE]})
        if call.field("if-none-match"):
            await call.answer(b"", 304, etag='"1"', cache_control="max-age=10")
        else:
            await call.answer("body", etag='"1"', cache_control="max-age=10")

    app = CacheMiddleware(Origin(handler), cache=manager)
    await visit(app).go()
    clock.advance(11)
    confirmed = await visit(app).go()
    assert kinds(confirmed) == ["early_hint", "start", "body"]
    assert (confirmed.messages[1]["status"], confirmed.body) == (200, b"body")


@pytest.mark.parametrize("method", ["HEAD", "POST", "GET"])
async def test_hints_of_what_goes_to_the_app_alone_pass(manager: CacheManager, method: str) -> None:
    rules = [CacheRule("/alone", bypass=True)]
    app = CacheMiddleware(Origin(Hinting()), cache=manager, rules=rules)
    visited = await visit(app, "/alone" if method == "GET" else "/", method).go()
    assert kinds(visited) == ["early_hint", "early_hint", "start", "body"]


async def test_hints_come_before_a_response_that_is_not_stored(manager: CacheManager) -> None:
    app = CacheMiddleware(Origin(Hinting(cache_control="no-store")), cache=manager)
    for _ in range(2):
        assert kinds(await visit(app).go()) == ["early_hint", "early_hint", "start", "body"]


async def test_the_app_may_go_on_with_its_message(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        named = [STYLE]
        await call.send({"type": HINT, "links": iter(named)})
        message: Message = {"type": HINT, "links": named}
        await call.send(message)
        named.clear()
        await call.answer("body")

    visited = await visit(CacheMiddleware(Origin(handler), cache=manager)).go()
    assert links(visited) == [[STYLE], [STYLE]]


class Slow:
    """A client's `send` that is stuck at the first hint until its gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.came: list[Message] = []

    def before(self, app: ASGIApp) -> ASGIApp:
        """The app for this client."""

        async def slowed(scope: Scope, receive: Receive, send: Send) -> None:
            async def slow(message: Message) -> None:
                await self.gate.wait()
                self.came.append(message)
                await send(message)

            await app(scope, receive, slow)

        return slowed


async def test_a_client_that_does_not_read_its_hints_keeps_nobody_from_the_response(manager: CacheManager) -> None:
    handler = Hinting()
    handler.gate.clear()
    app, slow = CacheMiddleware(Origin(handler), cache=manager), Slow()
    leader = visit(slow.before(app)).begin()
    await eventually(lambda: not is_settled(manager))
    follower = visit(app).begin()
    await eventually(lambda: manager._engine.flights.waiting == 1)
    handler.gate.set()
    assert (await follower.end()).body == b"body 1"
    assert slow.came == []
    slow.gate.set()
    await leader.end()
    assert kinds(leader) == ["early_hint", "early_hint", "start", "body"]


async def test_what_waits_for_a_slow_client_is_bounded(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        for _ in range(1000):
            await call.send({"type": HINT, "links": [STYLE]})
        await call.answer("body")
        answered.set()

    slow, answered = Slow(), asyncio.Event()
    visited = visit(slow.before(CacheMiddleware(Origin(handler), cache=manager))).begin()
    await answered.wait()
    slow.gate.set()
    await visited.end()
    assert 1 < len(links(visited)) < 20
    assert visited.body == b"body"


@pytest.mark.parametrize("leaves", [Visit.leave, Visit.cancel], ids=["disconnect", "cancel"])
async def test_a_client_that_is_gone_while_hints_are_on_their_way(
    manager: CacheManager, leaves: Callable[[Visit], object]
) -> None:
    """The load was for nobody else, so it ends; nothing is left behind (the fixture looks)."""
    handler = Hinting()
    handler.gate.clear()
    origin, slow = Origin(handler), Slow()
    visited = visit(slow.before(CacheMiddleware(origin, cache=manager))).begin()
    await eventually(lambda: origin.running == 1)
    leaves(visited)
    await eventually(lambda: origin.cancelled == 1)
    slow.gate.set()
    with suppress(asyncio.CancelledError):
        await visited.end()
    assert links(visited) == []


async def test_a_client_that_leaves_when_the_response_is_there_and_a_hint_is_not_through(
    manager: CacheManager,
) -> None:
    """What is outside still gets to hear that the request has ended."""
    slow, origin = Slow(), Origin(Hinting())
    visited = visit(slow.before(CacheMiddleware(origin, cache=manager))).begin()
    await eventually(lambda: origin.calls and not origin.running)
    visited.leave()
    for _ in range(5):
        await asyncio.sleep(0)  # it has heard of it
    slow.gate.set()
    await visited.end()
    assert visited.messages[-2]["status"] == 499


async def gone(message: Message) -> None:
    """A server's `send` when the connection is lost."""
    raise OSError("the connection is lost")


def without_client(app: ASGIApp) -> ASGIApp:
    """The app for a client whose connection is lost."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, gone)

    return broken


async def test_a_server_that_fails_to_send_a_hint_fails_the_request_and_no_other(
    manager: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Hinting()
    handler.gate.clear()
    app = CacheMiddleware(Origin(handler), cache=manager)
    leader = visit(without_client(app)).begin()
    await eventually(lambda: not is_settled(manager))
    follower = visit(app).begin()
    await eventually(lambda: manager._engine.flights.waiting == 1)
    handler.gate.set()
    with pytest.raises(OSError, match="is lost"):
        await leader.end()
    assert (await follower.end()).body == b"body 1"
    gc.collect()  # an error that nobody has looked at would be logged now
    assert not caplog.records


async def test_a_failure_to_send_a_hint_is_over_when_the_client_is_gone(
    manager: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    handler, stuck = Hinting(), asyncio.Event()
    handler.gate.clear()
    app = CacheMiddleware(Origin(handler), cache=manager)

    async def send(message: Message) -> None:
        if message["type"] != HINT:
            return
        stuck.set()
        try:
            await handler.gate.wait()
        finally:
            raise OSError("the connection is lost")

    async def broken(scope: Scope, receive: Receive, _: Send) -> None:
        await app(scope, receive, send)

    visited = visit(broken).begin()
    await stuck.wait()
    visited.leave()
    await visited.end()
    await eventually(lambda: is_settled(manager))
    del visited
    gc.collect()
    assert not caplog.records


async def test_an_app_that_fails_after_its_hints_fails_with_its_own_error(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.send({"type": HINT, "links": [STYLE]})
        raise LookupError("of the app")

    visited = visit(CacheMiddleware(Origin(handler), cache=manager))
    with pytest.raises(LookupError, match="of the app"):
        await visited.go()
    assert links(visited) == [[STYLE]]
    broken = without_client(CacheMiddleware(Origin(handler), cache=manager))
    with pytest.raises(LookupError, match="of the app"):
        await visit(broken, "/other").go()


async def test_hints_are_sent_in_the_context_of_the_request(manager: CacheManager) -> None:
    """So what telemetry outside says of them belongs to the request, and not to the load."""
    outside: ContextVar[str] = ContextVar("outside", default="")
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        outside.set("of the app")
        await Origin(Hinting())(scope, receive, send)

    app = CacheMiddleware(inner, cache=manager)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            seen.append(outside.get())
            await send(message)

        outside.set("of the request")
        await app(scope, receive, watched)

    await visit(outer).go()
    assert seen == ["of the request"] * 4


async def read(request: Request) -> Response:
    """A route that hints by Starlette's own means."""
    await request.send_early_hints(STYLE.decode(), FONT.decode())
    return PlainTextResponse("body " * 500, headers={"Cache-Control": "max-age=60"})


class Neighbour(BaseHTTPMiddleware):
    """A middleware of the kind that takes responses apart."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass it on."""
        response = await call_next(request)
        response.headers["X-Neighbour"] = "yes"
        return response


@pytest.mark.parametrize("packs", [GZipMiddleware, Neighbour])
@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
async def test_hints_pass_neighbours_on_either_side(
    manager: CacheManager, packs: type[GZipMiddleware] | type[Neighbour], *, outside: bool
) -> None:
    neighbours = [Middleware(packs), Middleware(CacheMiddleware, cache=manager)]
    app = Starlette(
        routes=[Route("/", read)],
        middleware=neighbours if outside else neighbours[::-1],
    )
    first = await visit(app, **{"accept-encoding": "gzip"}).go()
    second = await visit(app, **{"accept-encoding": "gzip"}).go()
    assert links(first) == [[STYLE, FONT]]
    assert kinds(first)[:2] == ["early_hint", "start"]
    assert links(second) == []
    assert "hit" in second.cache_status
