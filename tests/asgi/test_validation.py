"""Stored responses are validated by the app, refreshed behind clients' backs, and stand in for errors."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar

import pytest

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.exchange import MAX_REFRESHES
from aurelis.cache.testing import ManualClock, SharedMemory
from aurelis.cache.typing import Entry
from aurelis_asgi import CacheMiddleware
from tests.asgi.counts import coalesced, loads, requests
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import Visit, ask
from tests.managers import eventually, is_settled


@pytest.fixture(params=["memory", "shared"])
async def manager(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[CacheManager]:
    """A manager with memory alone, and one over a layer that others share."""
    lower = [SharedMemory(clock).node()] if request.param == "shared" else []
    async with CacheManager(CacheConfig(), clock=clock, lower=lower) as manager:
        yield manager
        await eventually(lambda: is_settled(manager))


async def test_another_process_validates_what_this_one_has_stored(clock: ManualClock) -> None:
    shared, handler = SharedMemory(clock), Tagged("no-cache")
    origin = Origin(handler)
    async with (
        CacheManager(CacheConfig(), clock=clock, lower=[shared.node()]) as one,
        CacheManager(CacheConfig(), clock=clock, lower=[shared.node()]) as other,
    ):
        await ask(CacheMiddleware(origin, cache=one))
        visit = await ask(CacheMiddleware(origin, cache=other))
        assert (visit.status, visit.body) == (200, b"body 1")
        assert "fwd-status=304" in visit.cache_status
        assert loads(one) + loads(other) == len(origin.calls) == 2


async def test_what_goes_out_of_date_while_a_layer_answers_is_no_hit(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for who wants nothing but what is stored, either."""
    shared, origin = SharedMemory(clock), Origin(Tagged())
    node = shared.node()
    lookup = node.lookup

    async def slow(key: str) -> Entry | None:
        found = await lookup(key)
        clock.advance(11)
        return found

    async with (
        CacheManager(CacheConfig(), clock=clock, lower=[shared.node()]) as one,
        CacheManager(CacheConfig(timeout=100), clock=clock, lower=[node]) as other,
    ):
        await ask(CacheMiddleware(origin, cache=one))
        monkeypatch.setattr(node, "lookup", slow)
        visit = await ask(CacheMiddleware(origin, cache=other), "/", "GET", {"cache-control": "only-if-cached"})
        assert visit.status == 504, visit.cache_status
        assert requests(other) == {"bypass": 1}
        assert len(origin.calls) == 1


class Tagged:
    """A handler whose response has an entity tag, and which answers 304 to those who have it."""

    def __init__(self, cache_control: str = "max-age=10") -> None:
        self.version = 1
        self.cache_control = cache_control
        self.gate: asyncio.Event | None = None
        self.status = 200

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        if self.gate is not None:
            await self.gate.wait()
        fields = {"etag": f'"{self.version}"', "cache_control": self.cache_control}
        if self.status != 200:
            await call.answer("failed", self.status)
        elif call.field("if-none-match") == f'"{self.version}"':
            await call.start(304, **fields)
            await call.chunk(b"", more=False)
        else:
            await call.answer(f"body {self.version}", **fields)


async def test_a_stale_response_is_confirmed_by_a_304(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §4.3."""
    handler = Tagged()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    visit = await ask(app)
    assert (visit.status, visit.body, visit.field("age")) == (200, b"body 1", "0")
    assert visit.cache_status == "default; fwd=stale; fwd-status=304; ttl=10; stored"
    assert (await ask(app)).cache_status == "default; hit; ttl=10"
    handler.version = 2
    clock.advance(15)
    visit = await ask(app)
    assert visit.body == b"body 2"
    assert visit.cache_status == "default; fwd=stale; fwd-status=200; ttl=10; stored"
    assert requests(manager) == {"miss": 2, "hit": 1, "revalidated": 1}
    assert loads(manager) == len(origin.calls) == 3


async def test_a_crowd_shares_one_validation(manager: CacheManager, clock: ManualClock) -> None:
    handler = Tagged()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    handler.gate = asyncio.Event()
    visits = [Visit(app).begin() for _ in range(20)]
    await eventually(lambda: origin.running and manager._engine.flights.waiting == 19)
    visits[0].leave()  # the one who leads
    await visits[0].end()
    handler.gate.set()
    for visit in visits[1:]:
        await visit.end()
        assert (visit.status, visit.body) == (200, b"body 1")
        assert visit.cache_status == "default; fwd=stale; fwd-status=304; ttl=10; collapsed"
    await eventually(lambda: is_settled(manager))
    assert requests(manager) == {"miss": 2, "revalidated": 19}
    assert loads(manager) == len(origin.calls) == 2


@pytest.mark.parametrize("cache_control", ["no-cache", "max-age=0", "no-cache, max-age=60"])
async def test_what_must_be_validated_is_validated_for_everybody(manager: CacheManager, cache_control: str) -> None:
    """RFC 9111 §5.2.2.4; nobody waits for the validation of another."""
    handler = Tagged(cache_control)
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    assert (await ask(app)).cache_status.endswith("; stored")
    visits = [Visit(app).begin() for _ in range(5)]
    for visit in visits:
        await visit.end()
        assert (visit.status, visit.body) == (200, b"body 1")
        assert "fwd=stale; fwd-status=304" in visit.cache_status
        assert "collapsed" not in visit.cache_status
    assert requests(manager) == {"miss": 1, "revalidated": 5}
    assert loads(manager) == len(origin.calls) == 6
    assert coalesced(manager) == 0


async def test_a_client_that_has_the_response_gets_a_304(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §4.3.2, after the cache has validated for itself."""
    handler = Tagged()
    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app)
    clock.advance(15)
    visit = await ask(app, "/", "GET", {"if-none-match": '"x", "1"'})
    assert (visit.status, visit.body) == (304, b"")
    assert visit.cache_status == "default; fwd=stale; fwd-status=304; ttl=10; stored"


async def test_the_app_does_not_see_the_conditions_of_the_client(manager: CacheManager, clock: ManualClock) -> None:
    origin = Origin(Tagged())
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    visit = await ask(app, "/", "GET", {"if-none-match": '"other"', "if-modified-since": "x"})
    assert (visit.status, visit.body) == (200, b"body 1")
    assert origin.calls[1].field("if-none-match") == '"1"'
    assert origin.calls[1].field("if-modified-since") == ""
    assert dict(visit.scope["headers"])[b"if-none-match"] == b'"other"'  # outside of the cache nothing has changed


async def test_a_stale_response_is_served_while_it_is_loaded_anew(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 5861 §3; the refresh belongs to no request."""
    handler = Tagged("max-age=10, stale-while-revalidate=30")
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    handler.version = 2
    handler.gate = asyncio.Event()
    for _ in range(3):
        visit = await ask(app)
        assert (visit.body, visit.cache_status) == (b"body 1", "default; hit; ttl=-5")
    await eventually(lambda: origin.running == 1)
    handler.gate.set()
    await eventually(lambda: is_settled(manager))
    visit = await ask(app)
    assert (visit.body, visit.cache_status) == (b"body 2", "default; hit; ttl=10")
    assert requests(manager) == {"miss": 1, "stale": 3, "hit": 1}
    assert loads(manager) == len(origin.calls) == 2


async def test_a_refresh_that_is_confirmed_or_fails_is_counted_once(manager: CacheManager, clock: ManualClock) -> None:
    handler = Tagged("max-age=10, stale-while-revalidate=300")
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    await ask(app)
    await eventually(lambda: is_settled(manager))
    assert (await ask(app)).cache_status == "default; hit; ttl=10"
    clock.advance(15)
    handler.status = 500
    for _ in range(2):
        assert (await ask(app)).body == b"body 1"
        await eventually(lambda: is_settled(manager))
    assert requests(manager) == {"miss": 1, "stale": 3, "hit": 1}
    assert loads(manager) == len(origin.calls) == 4


async def test_refreshes_are_few_at_once_whatever_is_stale(manager: CacheManager, clock: ManualClock) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        if call.number > targets:
            await gate.wait()
        await call.answer(f"{call.path} {call.number}", cache_control="max-age=10, stale-while-revalidate=300")

    targets = MAX_REFRESHES + 10
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    for number in range(targets):
        await ask(app, f"/{number}")
    clock.advance(15)
    for _ in range(2):
        for number in range(targets):
            assert (await ask(app, f"/{number}")).body == f"/{number} {number + 1}".encode()
    await eventually(lambda: origin.running == MAX_REFRESHES)
    await asyncio.sleep(0)
    assert len(origin.calls) == targets + MAX_REFRESHES
    gate.set()
    await eventually(lambda: is_settled(manager))
    for number in range(targets):  # those that had to wait are loaded anew later
        await ask(app, f"/{number}")
    await eventually(lambda: is_settled(manager))
    assert len(origin.calls) == 2 * targets


async def test_a_refresh_is_no_part_of_the_request_that_began_it(manager: CacheManager, clock: ManualClock) -> None:
    """What belongs to the request, its context or the client behind its `receive`, may be over while the app runs."""
    asking: ContextVar[str] = ContextVar("asking", default="nobody")
    gate = asyncio.Event()
    seen = []

    async def handler(call: Call) -> None:
        if call.number > 1:
            await gate.wait()
        seen.append(asking.get())
        await call.answer(f"body {call.number}", cache_control="max-age=10, stale-while-revalidate=300")

    app = CacheMiddleware(Origin(handler), cache=manager)
    asking.set("somebody")
    await ask(app)
    clock.advance(15)
    visit = Visit(app).begin()
    await visit.end()
    visit.leave()
    assert (visit.body, visit.complete) == (b"body 1", True)
    gate.set()
    await eventually(lambda: is_settled(manager))
    assert (await ask(app)).body == b"body 2"
    assert seen == ["somebody", "nobody"]


async def test_a_refresh_of_what_may_not_be_kept_ends_early(manager: CacheManager, clock: ManualClock) -> None:
    """The app would stream to nobody, perhaps for ever."""

    async def handler(call: Call) -> None:
        if call.number == 1:
            await call.answer("body", cache_control="max-age=10, stale-while-revalidate=300")
            return
        await call.start(200, cache_control="no-store")
        while True:
            await call.chunk(b"event")

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    assert (await ask(app)).body == b"body"
    await eventually(lambda: is_settled(manager))
    assert (origin.cancelled, loads(manager)) == (1, 2)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_stale_response_stands_in_for_an_error(manager: CacheManager, clock: ManualClock, status: int) -> None:
    """RFC 5861 §4."""
    handler = Tagged("max-age=10, stale-if-error=60")
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    handler.status = status
    visit = await ask(app)
    assert (visit.status, visit.body) == (200, b"body 1")
    assert visit.cache_status == f"default; fwd=stale; fwd-status={status}; ttl=-5"
    clock.advance(60)
    visit = await ask(app)
    assert (visit.status, visit.body) == (status, b"failed")
    assert requests(manager) == {"miss": 2, "stale": 1}
    assert loads(manager) == len(origin.calls) == 3


async def test_what_an_app_raises_after_its_error_is_for_the_server(manager: CacheManager, clock: ManualClock) -> None:
    """As `ServerErrorMiddleware` does, so that servers log it."""

    async def handler(call: Call) -> None:
        if call.number == 1:
            await call.answer("body", cache_control="max-age=10, stale-if-error=60")
            return
        await call.answer("failed", 500)
        raise LookupError("broken")

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app)
    clock.advance(15)
    visit = Visit(app)
    with pytest.raises(LookupError):
        await visit.go()
    assert (visit.status, visit.body, visit.complete) == (200, b"body", True)


async def test_a_cookie_of_a_304_is_for_the_one_who_asked(manager: CacheManager, clock: ManualClock) -> None:
    number = 0

    async def handler(call: Call) -> None:
        nonlocal number
        if call.number == 1:
            await call.answer("body", cache_control="max-age=10", etag='"1"')
            return
        number += 1
        session = f"session={number}"
        await asyncio.sleep(0)
        await call.start(304, etag='"1"', set_cookie=session)
        await call.chunk(b"", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app)
    clock.advance(15)
    visits = [Visit(app).begin() for _ in range(3)]
    cookies = []
    for visit in visits:
        await visit.end()
        assert (visit.status, visit.body) == (200, b"body")
        cookies += visit.fields("set-cookie")
    assert sorted(cookies) == ["session=1", "session=2", "session=3"]


@pytest.mark.parametrize("status", [304, 500])
async def test_what_an_app_does_after_its_answer_is_done(
    manager: CacheManager, clock: ManualClock, status: int
) -> None:
    """Background tasks, although the answer is not used."""
    done = asyncio.Event()

    async def handler(call: Call) -> None:
        if call.number == 1:
            await call.answer("body", cache_control="max-age=10, stale-if-error=60", etag='"1"')
            return
        await call.start(status, etag='"1"')
        await call.chunk(b"", more=False)
        for _ in range(5):
            await asyncio.sleep(0)
        done.set()

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app)
    clock.advance(15)
    assert (await ask(app)).body == b"body"
    assert done.is_set()


async def test_a_head_starts_no_refresh(manager: CacheManager, clock: ManualClock) -> None:
    """Its response could not be stored."""
    origin = Origin(Tagged("max-age=10, stale-while-revalidate=300"))
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(15)
    assert (await ask(app, "/", "HEAD")).cache_status == "default; hit; ttl=-5"
    assert (await ask(app, "/", "GET", {"range": "bytes=0-1"})).body == b"bo"
    await eventually(lambda: is_settled(manager))
    assert len(origin.calls) == 1


async def test_nobody_waits_for_validations_in_turn(manager: CacheManager, clock: ManualClock) -> None:
    """Also when it is long ago that it became known that each needs one."""
    handler = Tagged("no-cache")
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    clock.advance(100)
    handler.gate = asyncio.Event()
    visits = [Visit(app).begin() for _ in range(5)]
    await eventually(lambda: origin.running)
    handler.gate.set()
    for visit in visits:
        await visit.end()
        assert "fwd=stale; fwd-status=304" in visit.cache_status
    assert requests(manager) == {"miss": 1, "revalidated": 5}
    assert loads(manager) == len(origin.calls) == 6
