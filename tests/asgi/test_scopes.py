"""What an ASGI server or the middleware around may hand over, and what must reach the app untouched."""

import asyncio
import gc
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from aurelis.cache import CacheManager, get_cache_manager, set_cache_manager
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.counts import requests, stores
from tests.asgi.origin import Call, Origin, fixed
from tests.asgi.visits import Visit, ask, http_scope
from tests.managers import eventually


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something-new"])
async def test_what_is_no_request_passes_untouched(manager: CacheManager, kind: str) -> None:
    seen: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError("nobody asks")

    async def send(message: Message) -> None:
        raise AssertionError("nobody answers")

    scope = {"type": kind, "path": "/", "headers": []}
    before = dict(scope)
    await CacheMiddleware(app, cache=manager, rules=[CacheRule("/", ttl=60)])(scope, receive, send)
    ((seen_scope, seen_receive, seen_send),) = seen
    assert seen_scope is scope
    assert seen_scope == before
    assert seen_receive is receive
    assert seen_send is send
    assert requests(manager) == {}


async def test_a_scope_with_the_least_that_the_specification_demands(manager: CacheManager) -> None:
    origin = fixed(cache_control="max-age=60")
    app = CacheMiddleware(origin, cache=manager, rules=[CacheRule("/", ttl=60)])
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET"}
    for _ in range(2):
        visit = Visit(app)
        visit.scope = {**scope, "path": "/", "query_string": b"", "headers": ()}
        assert (await visit.go()).body == b"body 1"


async def test_the_app_gets_the_scope_of_the_request_itself(manager: CacheManager) -> None:
    """What the app leaves in the scope is for middleware outside."""

    async def handler(call: Call) -> None:
        call.scope["left"] = "by the app"
        await call.answer("body")

    visit = await ask(CacheMiddleware(Origin(handler), cache=manager))
    assert visit.scope["left"] == "by the app"


async def test_answers_that_cannot_be_recorded_are_not_offered(manager: CacheManager) -> None:
    """A path instead of a body, for instance; what is no way to answer stays."""
    seen: list[object] = []

    async def handler(call: Call) -> None:
        seen.append(call.scope["extensions"])
        await call.answer("body", cache_control="max-age=60")

    app = CacheMiddleware(Origin(handler), cache=manager)
    extensions: dict[str, object] = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "tls": {"a": 1}}
    offered = dict(extensions)
    await ask(app, extensions=extensions)
    await ask(app, "/", "POST", extensions=extensions)
    assert seen == [{"tls": {"a": 1}}, offered]
    assert extensions == offered


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({"root_path": "/api"}, id="mounted: the path holds the root path"),
        pytest.param({"root_path": "", "path": "/catalog/1"}, id="not mounted"),
        pytest.param({"root_path": "/elsewhere", "path": "/catalog/1"}, id="the path does not hold it"),
        pytest.param({"root_path": "/cat", "path": "/catalog/1"}, id="the same letters, but no segment"),
    ],
)
async def test_a_rule_is_for_the_path_below_the_root_path(manager: CacheManager, scope: dict[str, Any]) -> None:
    app = CacheMiddleware(fixed(), cache=manager, rules=[CacheRule("/catalog/*", ttl=60)])
    assert (await ask(app, "/api/catalog/1", **scope)).cache_status.endswith("stored")


async def test_without_a_manager_that_of_the_process_is_used_also_after_it_was_closed() -> None:
    set_cache_manager(None)
    app = CacheMiddleware(fixed(cache_control="max-age=60"))
    for _ in range(2):
        assert "stored" in (await ask(app)).cache_status
        assert "; hit; " in (await ask(app)).cache_status
        await get_cache_manager().aclose()  # as an app does that is shut down, and started again in the same process
    set_cache_manager(None)


async def test_the_root_path_itself_is_a_slash_for_rules(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(), cache=manager, rules=[CacheRule("/", ttl=60)])
    assert (await ask(app, "/api", root_path="/api")).cache_status.endswith("stored")


async def test_a_message_that_the_app_uses_again_is_not_changed(manager: CacheManager) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}

    async def handler(call: Call) -> None:
        await call.send(start)
        await call.chunk(b"body", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    for method in ("GET", "POST", "GET", "POST"):
        visit = await ask(app, "/", method)
        assert len(visit.messages[0]["headers"]) == 2
    assert start == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}


@pytest.mark.parametrize("answers", ["request", "disconnect", "unknown", "error"])
async def test_a_receive_that_never_waits_makes_nobody_wait(
    manager: CacheManager, answers: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such ones are in many tests of apps."""
    app = CacheMiddleware(fixed(cache_control="no-store"), cache=manager)
    messages: list[Message] = []

    async def receive() -> Message:
        if answers == "error":
            raise RuntimeError("nobody should ask")
        kind = {"request": "http.request", "unknown": "something.else", "disconnect": "http.disconnect"}[answers]
        return {"type": kind, "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(http_scope(), receive, send)
    # Whoever says "disconnected" at once gets what a client that has left gets: nothing that matters.
    assert messages[0]["status"] == (499 if answers == "disconnect" else 200)
    gc.collect()
    assert caplog.records == []


async def test_the_app_never_receives_while_the_middleware_does(manager: CacheManager) -> None:
    """A client that waited, and then asks for itself: the middleware has looked for a disconnect."""
    gate = asyncio.Event()
    receiving = most = 0

    class Observed(Visit):
        async def _receive(self) -> Message:
            nonlocal receiving, most
            receiving += 1
            most = max(most, receiving)
            try:
                return await super()._receive()
            finally:
                for _ in range(10):  # it takes its time to be cancelled
                    await asyncio.sleep(0)
                receiving -= 1

    async def handler(call: Call) -> None:
        await gate.wait()
        await call.request_body()
        asked = asyncio.create_task(_receive(call))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait((asked,))
        await call.answer("body", cache_control="no-store")

    app = CacheMiddleware(Origin(handler), cache=manager)
    first, second = Visit(app).begin(), Observed(app).begin()
    await eventually(lambda: manager._engine.flights.waiting == 1)
    gate.set()
    for visit in (first, second):
        assert (await visit.end()).body == b"body"
    assert most == 1


@pytest.mark.parametrize("turns", [0, 1, 5, 50])
async def test_a_receive_that_loses_what_it_has_when_cancelled_loses_nothing(manager: CacheManager, turns: int) -> None:
    """That of Starlette's `BaseHTTPMiddleware` is of this kind."""

    class Slow(Visit):
        async def _receive(self) -> Message:
            message = await super()._receive()
            for _ in range(turns):
                await asyncio.sleep(0)
            return message

    async def handler(call: Call) -> None:
        assert await call.request_body() == b""
        await call.answer("body", cache_control="no-store")

    app = CacheMiddleware(Origin(handler), cache=manager)
    visits = [Slow(app).begin() for _ in range(3)]
    for visit in visits:
        assert (await visit.end()).body == b"body"


async def test_who_asks_for_itself_hears_of_a_disconnect_from_the_app(manager: CacheManager) -> None:
    received: list[str] = []

    async def handler(call: Call) -> None:
        await gate.wait()
        if call.number == 2:
            received.append((await call.receive())["type"])
            received.append((await call.receive())["type"])
        await call.answer("body", cache_control="no-store")

    gate = asyncio.Event()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    visits = [Visit(app).begin() for _ in range(2)]
    await eventually(lambda: manager._engine.flights.waiting == 1)
    gate.set()
    await visits[0].end()
    await eventually(lambda: received == ["http.request"])
    visits[1].leave()
    assert (await visits[1].end()).status == 200  # as without a cache: the app decides
    assert (received, origin.cancelled) == (["http.request", "http.disconnect"], 0)


async def _receive(call: Call) -> Message:
    return await call.receive()


# The app's own messages


@pytest.mark.parametrize(
    "kinds",
    [
        ["http.response.body"],
        ["http.response.start", "http.response.start"],
        ["http.response.start", "http.response.trailers"],
        ["http.response.start", "last", "http.response.body"],
        ["http.response.start", "last", "last"],
        ["http.response.start", "last", "http.response.start"],
        ["something.else"],
    ],
    ids="-".join,
)
async def test_messages_out_of_order_are_refused_as_by_a_server(manager: CacheManager, kinds: list[str]) -> None:
    async def handler(call: Call) -> None:
        for kind in kinds:
            await call.send(
                {
                    "type": "http.response.body" if kind == "last" else kind,
                    "status": 200,
                    "headers": [(b"cache-control", b"max-age=60")],
                    "body": b"x",
                    "more_body": kind != "last",
                }
            )

    app = CacheMiddleware(Origin(handler), cache=manager)
    with pytest.raises(RuntimeError, match="the app sent"):
        await ask(app)
    # What was complete before the error stays; nothing else is stored.
    assert stores(manager) == ({"stored": 1} if "last" in kinds else {})
    if "last" in kinds:
        assert (await ask(app)).body == b"x"
