"""Apps that share their cache through Redis, and apps whose Redis fails."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from aurelis_asgi import CacheMiddleware
from tests.asgi.conftest import MakeManager
from tests.asgi.counts import hits_by_layer, loads, requests, stores
from tests.asgi.origin import Call, Gated, Origin, fixed
from tests.asgi.sockets import fetch, listening_socket, served
from tests.asgi.visits import Visit, ask
from tests.conftest import ROOT
from tests.managers import eventually
from tests.servers import ServerProcess

FRESH = {"cache_control": "max-age=60"}


@contextlib.contextmanager
def worker(redis_url: str) -> Iterator[tuple[int, int]]:
    """A uvicorn in a process of its own; gives its port and PID."""
    with listening_socket() as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.asgi.worker", str(descriptor), redis_url],
            cwd=ROOT,
            pass_fds=[descriptor],
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        try:
            yield listener.getsockname()[1], process.pid
        finally:
            process.terminate()
            process.wait(10)
    assert process.returncode in (0, -15)


async def test_what_one_worker_loaded_the_other_answers(redis_url: str) -> None:
    with worker(redis_url) as (one, one_pid), worker(redis_url) as (two, two_pid):
        german, french = {"accept-language": "de"}, {"accept-language": "fr"}
        first = await fetch(one, "/a", german)
        assert (first.body, "stored" in first.cache_status) == (b"%d /a" % one_pid, True)
        for _ in range(2):  # from Redis, then from its own memory
            shared = await fetch(two, "/a", german)
            assert (shared.body, shared.cache_status.split(";")[1]) == (first.body, " hit")
        other = await fetch(two, "/a", french)
        assert (other.body, "vary-miss" in other.cache_status) == (b"%d /a" % two_pid, True)
        assert (await fetch(one, "/a", french)).body == other.body


async def test_the_second_cache_answers_from_redis(make_manager: MakeManager, redis_url: str) -> None:
    one, two = make_manager(redis_url=redis_url), make_manager(redis_url=redis_url)
    origin = fixed(etag='"v1"', vary="accept-language", **FRESH)
    first, second = CacheMiddleware(origin, cache=one), CacheMiddleware(origin, cache=two)
    stored = await ask(first)
    for layer in ("l2", "l1"):
        visit = await ask(second)
        assert visit.body == stored.body
        assert visit.cache_status.startswith("default; hit; ttl=")
        assert visit.messages[0]["headers"][:3] == stored.messages[0]["headers"][:3]
        assert hits_by_layer(two)[layer] == 1
    assert (requests(one), requests(two)) == ({"miss": 1}, {"hit": 2})
    assert len(origin.calls) == 1


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        pytest.param("HEAD", {}, 200, id="HEAD"),
        pytest.param("GET", {"if-none-match": '"v1"'}, 304, id="condition"),
        pytest.param("GET", {"cache-control": "only-if-cached"}, 200, id="only-if-cached"),
    ],
)
@pytest.mark.parametrize("vary", ["", "accept-language"])
async def test_so_do_requests_that_would_not_be_loaded_for(
    make_manager: MakeManager, redis_url: str, method: str, fields: dict[str, str], status: int, vary: str
) -> None:
    one, two = make_manager(redis_url=redis_url), make_manager(redis_url=redis_url)
    origin = fixed(etag='"v1"', vary=vary, **FRESH)
    await ask(CacheMiddleware(origin, cache=one))
    visit = await ask(CacheMiddleware(origin, cache=two), "/", method, fields)
    assert (visit.status, visit.cache_status.split(";")[1]) == (status, " hit")
    assert len(origin.calls) == 1
    assert hits_by_layer(two) == {"l2": 1}


@pytest.mark.parametrize("vary", ["", "accept-language"])
async def test_what_redis_has_and_does_not_suffice_is_no_miss(
    make_manager: MakeManager, redis_url: str, vary: str
) -> None:
    """RFC 9211 §2.2: a stored response was selected, also where it was in Redis alone."""
    held = asyncio.Event()

    async def handler(call: Call) -> None:
        if call.field("if-none-match") == '"v1"':
            await held.wait()
            await call.start(304, etag='"v1"', cache_control=kept)
            await call.chunk(b"", more=False)
            return
        await held.wait()
        await call.answer(f"body {call.number}", etag='"v1"', cache_control=kept, vary=vary)

    def fresh_app() -> CacheMiddleware:
        return CacheMiddleware(Origin(handler), cache=make_manager(redis_url=redis_url))

    held.set()
    kept = "max-age=0"
    await ask(fresh_app())
    told = (await ask(fresh_app())).cache_status
    assert told == "default; fwd=stale; fwd-status=304; ttl=0; stored"
    held.clear()
    kept = "max-age=60"
    app = fresh_app()
    visits = [Visit(app).begin() for _ in range(3)]
    await eventually(lambda: app.exchange.engine.flights.waiting == 2)
    held.set()
    told_all = [(await visit.end()).cache_status for visit in visits]
    shared = "default; fwd=stale; fwd-status=304; ttl=60"
    assert told_all == [f"{shared}; stored", f"{shared}; collapsed", f"{shared}; collapsed"]
    unwilling = await ask(fresh_app(), "/", "GET", {"cache-control": "no-cache"})
    assert unwilling.cache_status.startswith("default; fwd=request; fwd-status=304; ")
    impatient = await ask(fresh_app(), "/", "GET", {"cache-control": "min-fresh=100", "if-none-match": '"v0"'})
    assert (impatient.status, impatient.cache_status.split(";")[1]) == (200, " fwd=request")


async def test_concurrent_requests_ask_redis_once(make_manager: MakeManager, redis_url: str) -> None:
    one, two = make_manager(redis_url=redis_url), make_manager(redis_url=redis_url)
    origin = fixed(**FRESH)
    await ask(CacheMiddleware(origin, cache=one))
    app = CacheMiddleware(origin, cache=two)
    visits = [Visit(app).begin() for _ in range(100)]
    for visit in visits:
        assert (await visit.end()).cache_status.startswith("default; hit; ttl=")
    assert requests(two) == {"hit": 100}
    assert len(origin.calls) == 1


async def test_a_body_in_one_piece_does_not_wait_for_redis(make_manager: MakeManager, own_redis: ServerProcess) -> None:
    """The client has its answer before it is stored there; who asks next gets it from memory."""
    manager = make_manager(redis_url=own_redis.url, timeout=5.0)
    origin = fixed(**FRESH)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app, "/warm-up")
    handler = Gated(**FRESH)
    slow = CacheMiddleware(Origin(handler), cache=manager)
    visit = Visit(slow, "/slow").begin()
    await handler.entered.wait()
    own_redis.pause()
    handler.gate.set()
    await visit.until(2)
    assert visit.complete
    assert (await ask(slow, "/slow")).cache_status.startswith("default; hit; ttl=")
    own_redis.resume()
    await visit.end()


@contextlib.asynccontextmanager
async def trouble(redis: ServerProcess, kind: str) -> AsyncIterator[None]:
    """Redis is down or hangs."""
    if kind == "stopped":
        redis.stop()
    else:
        redis.pause()
    try:
        yield
    finally:
        if kind == "stopped":
            redis.start()
        else:
            redis.resume()


@pytest.mark.parametrize("kind", ["stopped", "paused"])
async def test_without_redis_everything_is_served(
    make_manager: MakeManager, own_redis: ServerProcess, kind: str
) -> None:
    manager = make_manager(redis_url=own_redis.url)

    async def handler(call: Call) -> None:
        fields = FRESH if call.path.startswith("/kept") else {"cache_control": "no-store"}
        await call.answer(call.path, **fields)

    origin = Origin(handler)
    async with served(CacheMiddleware(origin, cache=manager)) as port:
        assert (await fetch(port, "/kept/before")).status == 200
        async with trouble(own_redis, kind):
            targets = [f"/kept/{number % 5}" for number in range(40)] + [f"/passing/{number}" for number in range(10)]
            answers = await asyncio.gather(*(fetch(port, target) for target in targets))
            assert [(answer.status, answer.body.decode()) for answer in answers] == [(200, path) for path in targets]
            again = [await fetch(port, target) for target in targets[:5]]
            assert all("; hit" in answer.cache_status for answer in again)
            assert "; hit" in (await fetch(port, "/kept/before")).cache_status
        assert (await fetch(port, "/kept/after")).status == 200
    assert loads(manager) == len(origin.calls) == 1 + 5 + 10 + 1
    results = stores(manager)
    assert results.get("stored", 0) + results["layer_failed"] == 7


async def test_a_redis_that_never_was_is_no_reason_to_fail(make_manager: MakeManager) -> None:
    manager = make_manager(redis_url="redis://127.0.0.1:1/0")
    origin = fixed(**FRESH)
    app = CacheMiddleware(origin, cache=manager)
    for _ in range(3):
        assert (await ask(app)).body == b"body 1"
    visit = await ask(app, "/", "GET", {"cache-control": "no-cache"})
    assert visit.cache_status.endswith("; stored")
