"""`aurelis.cache.requests` counts each request once, and the loads that it implies are the calls of the app."""

import asyncio
import contextlib
import random

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.conftest import MakeManager
from tests.asgi.counts import loads, requests, saved_bytes, stale_reasons, stores
from tests.asgi.origin import Call, Origin
from tests.asgi.sockets import connected, served
from tests.asgi.visits import Visit, ask
from tests.managers import eventually, is_settled

FRESH = {"cache_control": "max-age=60"}


async def by_path(call: Call) -> None:
    """Answers as the path says, after a few turns of the event loop."""
    for _ in range(call.number % 4):
        await asyncio.sleep(0)
    match call.path.split("/")[1]:
        case "kept":
            await call.answer("body", **FRESH)
        case "varying":
            await call.answer(call.field("accept-language"), vary="accept-language", **FRESH)
        case "passing":
            await call.answer("body", cache_control="no-store")
        case "failing":
            raise LookupError("broken")
        case "breaking":
            await call.start(200, **FRESH)
            await call.chunk(b"1")
            raise LookupError("broken")
        case "tagged":
            await confirmed_or_made(call, "max-age=5")
        case "asked":
            await confirmed_or_made(call, "no-cache")
        case "behind":
            await confirmed_or_made(call, "max-age=5, stale-while-revalidate=60")
        case "standing-in":
            if call.number % 3:
                await call.answer("body", cache_control="max-age=5, stale-if-error=60")
            elif call.number % 2:
                await call.answer("failed", 500)
            else:
                raise LookupError("broken")
        case "changing":
            await call.answer("body", cache_control="max-age=5" if call.number % 2 else "no-store", etag='"1"')
        case _:
            await call.answer("body")


async def confirmed_or_made(call: Call, cache_control: str) -> None:
    """A 304 for a cache that asks whether the response still holds, which it mostly does."""
    etag = '"1"'
    if call.field("if-none-match") == etag and call.number % 5:
        await call.start(304, cache_control=cache_control, etag=etag)
        await call.chunk(b"", more=False)
    else:
        await call.answer("body", cache_control=cache_control, etag=etag)


TARGETS = [
    *("/kept/1", "/kept/2", "/varying", "/passing", "/failing", "/breaking", "/rule", "/rule/own"),
    *("/tagged", "/asked", "/behind", "/standing-in", "/changing"),
]
FIELDS = [
    {},
    {"accept-language": "de"},
    {"accept-language": "fr"},
    {"cookie": "a=b"},
    {"authorization": "me"},
    {"cache-control": "no-cache"},
    {"cache-control": "no-store"},
    {"cache-control": "only-if-cached"},
    {"if-none-match": '"v1"'},
    {"range": "bytes=0-1"},
    {"cache-control": "max-stale"},
]
RULES = [CacheRule("/rule", ttl=60), CacheRule("/rule/own", ttl=60, principal=lambda _: None)]


@pytest.mark.parametrize("layers", ["memory", "redis"])
@pytest.mark.parametrize("seed", range(8))
async def test_any_mix_of_requests_is_counted_exactly(
    make_manager: MakeManager, clock: ManualClock, request: pytest.FixtureRequest, layers: str, seed: int
) -> None:
    options = {"redis_url": request.getfixturevalue("redis_url")} if layers == "redis" else {}
    manager = make_manager(**options)
    origin = Origin(by_path)
    app = CacheMiddleware(origin, cache=manager, rules=RULES)
    dice = random.Random(seed)
    sent = posted = refused = 0
    for _ in range(60):
        clock.advance(dice.choice([0, 1, 6]))
        visits: list[Visit] = []
        for _ in range(dice.randrange(1, 15)):
            method = dice.choice(["GET", "GET", "GET", "HEAD", "POST"])
            visits.append(Visit(app, dice.choice(TARGETS), method, dice.choice(FIELDS)).begin())
            posted += method == "POST"
            sent += method != "POST"
        await asyncio.sleep(0)  # all have begun
        for visit in dice.sample(visits, len(visits) // 4):
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            dice.choice([visit.leave, visit.cancel])()
        for visit in visits:
            with contextlib.suppress(LookupError, asyncio.CancelledError):
                await visit.end()
            refused += bool(visit.messages) and visit.status == 504
    await eventually(lambda: not origin.running and is_settled(manager))
    counted = requests(manager)
    assert sum(counted.values()) == sent
    assert (
        counted.keys() >= {"hit", "stale", "revalidated", "miss", "bypass"} or layers == "redis"
    )  # which has its own time
    # A bypass is a call of the app too, unless the client wanted nothing but a stored answer.
    assert len(origin.calls) - posted == loads(manager) + counted["bypass"] - refused


@pytest.mark.parametrize("layers", ["memory", "redis"])
@pytest.mark.parametrize("way", ["disconnect", "cancel"])
async def test_a_client_that_leaves_at_any_moment_is_counted_once(
    make_manager: MakeManager, request: pytest.FixtureRequest, layers: str, way: str
) -> None:
    options = {"redis_url": request.getfixturevalue("redis_url")} if layers == "redis" else {}
    manager = make_manager(**options)

    async def handler(call: Call) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await call.start(200, **FRESH)
        for _ in range(3):
            await call.chunk(b"1")
        await call.chunk(b"", more=False)

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    moments = 40
    for moment in range(moments):
        visit = Visit(app, f"/{moment}").begin()
        for _ in range(moment + 1):
            await asyncio.sleep(0)
        visit.leave() if way == "disconnect" else visit.cancel()
        try:
            await visit.end()
        except asyncio.CancelledError:
            assert way == "cancel"
    await eventually(lambda: not origin.running and is_settled(manager))
    assert requests(manager) == {"miss": moments}
    assert loads(manager) == len(origin.calls)


async def test_a_driver_on_real_sockets_is_counted_exactly(manager: CacheManager) -> None:
    origin = Origin(by_path)
    dice = random.Random(7)
    targets = [f"/{kind}/{number}" for kind in ("kept", "passing", "rule") for number in range(20)]
    per_client = 50

    async def client(port: int) -> None:
        async with connected(port) as connection:
            for _ in range(per_client):
                answer = await connection.ask(dice.choice(targets))
                assert answer.body == b"body"

    async with served(CacheMiddleware(origin, cache=manager, rules=[CacheRule("/rule/*", ttl=60)])) as port:
        await asyncio.gather(*(client(port) for _ in range(20)))
    assert sum(requests(manager).values()) == 20 * per_client
    assert loads(manager) == len(origin.calls)


async def test_what_no_cache_could_answer_is_not_counted(manager: CacheManager) -> None:
    app = CacheMiddleware(Origin(by_path), cache=manager)
    await ask(app, "/kept", "POST")
    await ask(app, "/kept", "OPTIONS")
    assert requests(manager) == {}


async def test_bytes_are_saved_that_the_app_would_have_sent(manager: CacheManager, clock: ManualClock) -> None:
    async def handler(call: Call) -> None:
        if call.field("if-none-match"):
            await call.start(304, etag='"1"', cache_control="max-age=10")
            await call.chunk(b"", more=False)
        else:
            await call.answer(b"x" * 1000, cache_control="max-age=10, stale-while-revalidate=10", etag='"1"')

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app, "/")
    assert saved_bytes(manager) == 0
    for number in (1, 2):
        assert (await ask(app, "/")).body == b"x" * 1000
        assert saved_bytes(manager) == number * 1000
    assert (await ask(app, "/", "HEAD")).status == 200  # to which the app would have sent none
    assert saved_bytes(manager) == 2000
    assert (await ask(app, "/", "GET", {"if-none-match": '"1"'})).status == 304
    assert saved_bytes(manager) == 3000
    clock.advance(30)
    await ask(app, "/")  # the app confirms it, and sends nothing
    assert requests(manager)["revalidated"] == 1
    assert saved_bytes(manager) == 4000


async def test_bytes_are_saved_of_all_pieces_of_a_body_and_also_where_a_part_is_wanted(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.start(200, cache_control="max-age=10")
        for number in range(3):
            await call.chunk(b"x" * 100, more=number < 2)

    app = CacheMiddleware(Origin(handler), cache=manager)
    for number in range(3):
        assert (await ask(app, "/")).body == b"x" * 300
        assert saved_bytes(manager) == number * 300
    assert (await ask(app, "/", "GET", {"range": "bytes=0-9"})).body == b"x" * 10
    assert saved_bytes(manager) == 900


async def test_a_response_that_an_invalidation_has_overtaken_is_counted(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.start(200, cache_control="max-age=10")
        await call.chunk(b"1")
        await manager.clear()
        await call.chunk(b"2", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    assert (await ask(app, "/")).body == b"12"
    assert stores(manager) == {"fenced": 1}


async def test_a_body_that_ends_too_early_is_counted(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.start(200, cache_control="max-age=10", content_length="10")
        await call.chunk(b"12345", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    for _ in range(2):
        await ask(app, "/")
    assert stores(manager) == {"incomplete": 2}


async def test_a_body_that_turns_out_to_be_too_large_is_counted(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.start(200, cache_control="max-age=10")
        for number in range(3):
            await call.chunk(b"x" * 100, more=number < 2)

    app = CacheMiddleware(Origin(handler), cache=manager, max_body_bytes=250)
    for _ in range(2):
        assert (await ask(app, "/")).body == b"x" * 300
    assert stores(manager) == {"too_large": 2}
    assert manager._engine.telemetry.miss_l1.n == 2


async def test_stale_answers_are_counted_by_what_they_are_for(manager: CacheManager, clock: ManualClock) -> None:
    down = asyncio.Event()

    async def handler(call: Call) -> None:
        windows = "max-age=10, stale-while-revalidate=10, stale-if-error=1000"
        await call.answer("body", 503 if down.is_set() else 200, cache_control=windows)

    app = CacheMiddleware(Origin(handler), cache=manager, honour_request_directives=True)
    await ask(app, "/")
    clock.advance(15)
    down.set()
    await ask(app, "/")
    await eventually(lambda: is_settled(manager))
    await ask(app, "/", "HEAD")
    clock.advance(15)
    await ask(app, "/")
    await ask(app, "/", "GET", {"cache-control": "max-stale=1000"})
    assert stale_reasons(manager) == {"revalidate": 1, "error": 1, "request": 2}
    assert requests(manager) == {"miss": 1, "stale": 4}
    assert manager._engine.telemetry.lookup(names.L1, names.STALE).n == 3  # and one stood in for a failure


async def test_whoever_wants_nothing_but_what_is_stored_passes_it_by_where_there_is_nothing(
    manager: CacheManager,
) -> None:
    origin = Origin(by_path)
    app = CacheMiddleware(origin, cache=manager, honour_request_directives=True)
    assert (await ask(app, "/kept/1", "GET", {"cache-control": "only-if-cached"})).status == 504
    assert requests(manager) == {"bypass": 1}
    assert (loads(manager), origin.calls) == (0, [])
