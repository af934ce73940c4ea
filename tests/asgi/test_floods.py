"""What strangers send to fill the cache, to have errors in place of pages, or to wear the app out."""

import gc
import tracemalloc

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.http._messages import MAX_VARIANTS
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.conftest import MakeManager
from tests.asgi.origin import Call, Origin, fixed
from tests.asgi.visits import Visit, ask
from tests.servers import ServerProcess, keys

FRESH = {"cache_control": "max-age=60"}


def entries(manager: CacheManager) -> int:
    """How many entries memory has."""
    memory = manager._engine.stack.memory
    assert memory is not None
    return len(memory.entries)


def used(manager: CacheManager) -> float:
    """Bytes that they take."""
    memory = manager._engine.stack.memory
    assert memory is not None
    return memory.entries.currsize


async def test_a_url_has_a_bounded_number_of_variants(make_manager: MakeManager) -> None:
    """An explosion of `Vary` pushes nothing else out, and who comes later finds the cache working."""
    manager = make_manager(max_size=200)
    app = CacheMiddleware(fixed(vary="user-agent, x-a", **FRESH), cache=manager)
    await ask(app, "/other", "GET", {"user-agent": "browser"})
    for number in range(0, 400, 20):
        fields = [{"user-agent": f"evil {number + more}"} for more in range(20)]
        for visit in [Visit(app, "/", "GET", each).begin() for each in fields]:
            await visit.end()
        assert entries(manager) <= MAX_VARIANTS + 3
    for target, begin in (("/other", "hit"), ("/", "fwd=vary-miss"), ("/", "hit")):
        assert f"; {begin}" in (await ask(app, target, "GET", {"user-agent": "browser"})).cache_status


async def test_nor_in_redis(make_manager: MakeManager, redis_url: str, shared_redis: ServerProcess) -> None:
    """Whichever process has stored them."""
    for _ in range(2):
        app = CacheMiddleware(fixed(vary="x-a", **FRESH), cache=make_manager(redis_url=redis_url))
        for number in range(2 * MAX_VARIANTS):
            visit = await ask(app, "/", "GET", {"x-a": f"{id(app)} {number}"})
            assert visit.cache_status.endswith("stored")
        found = keys(shared_redis, "aurelis:e:*")
        assert int(found[1 : found.index(b"\r")]) == MAX_VARIANTS + 1


async def test_endless_queries_take_a_bounded_room(make_manager: MakeManager) -> None:
    """Long or many, whether their responses are stored or not."""
    manager = make_manager(max_size=100, max_bytes=1_000_000)
    kept, alone = (CacheMiddleware(fixed("x" * 100, **fields), cache=manager) for fields in (FRESH, {}))
    for app in (kept, alone):
        for number in range(4200):
            await ask(app, f"/?{number}")
        for number in range(50):
            await ask(app, f"/?{number}&" + "a" * 60_000)
        assert app._remembered_target.cache_info().currsize <= 4096
        assert len(app.exchange._unshareable._until) <= 4096
    assert entries(manager) <= 100
    assert used(manager) <= 1_000_000


async def test_large_fields_of_requests_are_stored_nowhere(manager: CacheManager) -> None:
    """As a part of a key they count by their digest."""
    origin = fixed("x", vary="x-a, accept-language", content_language="de", **FRESH)
    app = CacheMiddleware(origin, cache=manager, rules=[CacheRule("/**", key_headers=("x-b",))])
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(40):
            large = f"{number} " + "a" * 64_000
            for name in ("x-a", "x-b", "accept-language", "user-agent", "range", "if-none-match"):
                visits = [await ask(app, "/", "GET", {name: large}) for _ in range(2)]
                assert {visit.status for visit in visits} == {200}
                origin.calls.clear()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 1_500_000
    finally:
        tracemalloc.stop()


async def test_large_fields_of_responses_count_as_room(make_manager: MakeManager) -> None:
    manager = make_manager(max_bytes=1_000_000)
    app = CacheMiddleware(fixed("x", x_large="a" * 64_000, **FRESH), cache=manager)
    for number in range(50):
        await ask(app, f"/{number}")
    assert 1 < entries(manager) < 16
    assert (await ask(app, "/49")).field("x-large") == "a" * 64_000


ERRORS = [400, 401, 403, 405, 408, 413, 414, 418, 421, 429, 431, 500, 501, 502, 503, 504]


@pytest.mark.parametrize("status", [*ERRORS, 404, 410, 451])
@pytest.mark.parametrize("rules", [[], [CacheRule("/**", ttl=600)]], ids=["no rule", "a rule"])
async def test_an_error_that_a_strange_request_has_caused_is_for_nobody_else(
    manager: CacheManager, clock: ManualClock, rules: list[CacheRule], status: int
) -> None:
    """Cached error as denial of service: a field that the cache does not look at, and the app cannot bear."""

    async def handler(call: Call) -> None:
        if call.field("x-large") or call.field("x-http-method-override"):
            await call.answer("error", status)
        else:
            await call.answer("page")

    app = CacheMiddleware(Origin(handler), cache=manager, rules=rules)
    for fields in ({"x-large": "a" * 64_000}, {"x-http-method-override": "POST"}):
        assert (await ask(app, "/", "GET", fields)).status == status
        if status == 404 and rules:  # may be worth remembering, but not for long
            clock.advance(10.1)
        visit = await ask(app)
        assert (visit.status, visit.body) == (200, b"page")
        await ask(app, "/", "POST")  # what was stored is gone
        if rules:
            clock.advance(600)


@pytest.mark.parametrize("status", sorted({*ERRORS} - {405, 414, 501}))
async def test_nor_by_heuristics(manager: CacheManager, status: int) -> None:
    """RFC 9110 §15.1 names the statuses for which a lifetime may be guessed; three of them are errors."""
    origin = fixed("error", status, last_modified="Sun, 06 Nov 1994 08:49:37 GMT")
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    await ask(app)
    assert len(origin.calls) == 2


async def test_an_error_with_a_lifetime_of_its_own_is_kept(manager: CacheManager) -> None:
    """The app says so."""
    origin = fixed("error", 400, **FRESH)
    app = CacheMiddleware(origin, cache=manager)
    assert [(await ask(app)).status for _ in range(2)] == [400, 400]
    assert len(origin.calls) == 1


async def test_many_ranges_make_no_large_answer(manager: CacheManager) -> None:
    """Range amplification: a few bytes of a request, many times the body in the answer."""
    origin = fixed("x" * 100_000, **FRESH)
    app = CacheMiddleware(origin, cache=manager)
    size = len((await ask(app)).body)
    for value in (
        "bytes=" + ",".join(["0-"] * 10),
        "bytes=" + ",".join(f"{number}-" for number in range(16)),
        "bytes=" + ",".join(["0-0"] * 200),
        "bytes=" + ",".join(f"{number}-{number}" for number in range(0, 20_000, 2)),
        "bytes=" + ",".join(["-100000"] * 16),
        "bytes=0-,-1",
    ):
        visit = await ask(app, "/", "GET", {"range": value})
        assert (visit.status, len(visit.body)) == (200, size)
    most = await ask(app, "/", "GET", {"range": "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 32, 2))})
    assert most.status == 206
    assert len(most.body) < 16 * 200
    assert len(origin.calls) == 1


async def test_ranges_of_what_is_not_stored_make_the_app_do_no_more(manager: CacheManager) -> None:
    """Each is one call, as without a cache."""
    origin = fixed("x" * 1000)
    app = CacheMiddleware(origin, cache=manager)
    for _ in range(3):
        await ask(app, "/", "GET", {"range": "bytes=0-0,0-0"})
    assert len(origin.calls) == 3


async def test_queries_that_look_alike_are_told_apart(manager: CacheManager) -> None:
    """Without a rule a query counts as it came: repeated, bracketed, with `;`, and however it is encoded."""

    async def handler(call: Call) -> None:
        await call.answer(call.scope["query_string"], **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager)
    queries = ["a=1", "a=1;a=2", "a=1&a=2", "a=2&a=1", "a[]=1", "a[0]=1", "a%5B%5D=1", "a%255B%255D=1", "%61=1", "A=1"]
    for _ in range(2):
        for query in queries:
            assert (await ask(app, f"/?{query}")).body == query.encode()


async def test_paths_that_are_encoded_twice_are_paths_of_their_own(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.answer(call.path, **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager)
    targets = ["/a%252fb", "/a%2fb", "/%252e%252e/a", "/%2e%2e/a", "/../a", "/a", "/a%2500", "/a%00"]
    bodies = [b"/a%2fb", b"/a/b", b"/%2e%2e/a", b"/../a", b"/../a", b"/a", b"/a%00", b"/a\0"]
    for _ in range(2):
        assert [(await ask(app, target)).body for target in targets] == bodies
