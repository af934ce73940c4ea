"""Bodies pass chunk by chunk while they are recorded, and are stored only when they end cleanly."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.counts import requests, stores
from tests.asgi.origin import Call, Origin
from tests.asgi.sockets import connected, fetch, served
from tests.asgi.visits import Visit, ask
from tests.managers import eventually

FRESH = {"cache_control": "max-age=60"}
PASSING = {"cache_control": "no-store"}
either_way = pytest.mark.parametrize("fields", [FRESH, PASSING], ids=["recorded", "passing"])


class Stepwise:
    """A handler that sends a chunk for each `step`, and ends at `finish`."""

    def __init__(self, **fields: str) -> None:
        self.fields = fields
        self.steps: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.made = 0

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        await call.start(200, **self.fields)
        while (step := await self.steps.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            self.made += 1
            await call.chunk(step)
        await call.chunk(b"", more=False)


# Chunk by chunk


@either_way
async def test_the_client_sees_a_chunk_before_the_app_makes_the_next(
    manager: CacheManager, fields: dict[str, str]
) -> None:
    handler = Stepwise(**fields)
    visit = Visit(CacheMiddleware(Origin(handler), cache=manager)).begin()
    for number in range(1, 4):
        handler.steps.put_nowait(b"%d" % number)
        await visit.until(1 + number)
        assert (visit.body[-1:], handler.made, visit.complete) == (b"%d" % number, number, False)
    handler.steps.put_nowait(None)
    await visit.end()
    assert (visit.body, visit.complete) == (b"123", True)


@either_way
async def test_that_holds_for_an_app_that_never_waits(manager: CacheManager, fields: dict[str, str]) -> None:
    order: list[str] = []

    async def handler(call: Call) -> None:
        await call.start(200, **fields)
        for number in range(5):
            order.append(f"made {number}")
            await call.chunk(b"%d" % number, more=number < 4)

    class Observed(Visit):
        async def _send(self, message: Message) -> None:
            if message.get("body"):
                order.append(f"seen {message['body'].decode()}")
            await super()._send(message)

    await Observed(CacheMiddleware(Origin(handler), cache=manager)).go()
    assert order == [f"{verb} {number}" for number in range(5) for verb in ("made", "seen")]


@either_way
async def test_that_holds_on_a_real_socket(manager: CacheManager, fields: dict[str, str]) -> None:
    handler = Stepwise(**fields)
    app = CacheMiddleware(Origin(handler), cache=manager)
    async with served(app) as port, connected(port) as connection:
        await connection.send("/")
        for number in range(1, 4):
            handler.steps.put_nowait(b"chunk %d" % number)
            if number == 1:
                status, head = await connection.read_head()
                assert (status, head["transfer-encoding"]) == (200, "chunked")
            assert (await connection.read_chunk(), handler.made) == (b"chunk %d" % number, number)
        handler.steps.put_nowait(None)
        assert await connection.read_chunk() == b""


async def test_who_comes_later_gets_what_has_come_and_then_the_rest_live(manager: CacheManager) -> None:
    handler = Stepwise(**FRESH)
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    first = Visit(app).begin()
    handler.steps.put_nowait(b"1")
    await first.until(2)
    second = Visit(app).begin()
    await second.until(2)
    handler.steps.put_nowait(b"2")
    await first.until(3)
    await second.until(3)
    assert (first.body, second.body) == (b"12", b"12")
    handler.steps.put_nowait(None)
    await first.end()
    await second.end()
    assert "collapsed" in second.cache_status
    assert len(origin.calls) == 1
    assert (await ask(app)).chunks == [b"1", b"2"]


async def test_events_without_freshness_pass_live_and_end_with_the_client(manager: CacheManager) -> None:
    running = 0

    async def events(_: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            nonlocal running
            running += 1
            try:
                for number in range(1_000_000):
                    yield f"data: {number}\n\n"
                    await asyncio.sleep(0.001)
            finally:
                running -= 1

        return StreamingResponse(body(), media_type="text/event-stream")

    starlette = Starlette(routes=[Route("/events", events)])
    async with served(CacheMiddleware(starlette, cache=manager)) as port, connected(port) as one:
        await one.send("/events")
        status, head = await one.read_head()
        assert (status, head["cache-status"]) == (
            200,
            "default; fwd=uri-miss; fwd-status=200",
        )
        assert [await one.read_chunk() for _ in range(3)] == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]
        async with connected(port) as other:  # has a stream of its own
            await other.send("/events")
            await other.read_head()
            assert await other.read_chunk() == b"data: 0\n\n"
            assert running == 2
        await eventually(lambda: running == 1)
        assert await one.read_chunk()
        await one.close()
        await eventually(lambda: running == 0)
    assert stores(manager) == {"not_fresh": 2}


@pytest.mark.parametrize("fields", [{}, {"last_modified": "Sun, 06 Nov 1994 08:49:37 GMT"}])
async def test_no_rule_for_many_paths_keeps_events(manager: CacheManager, fields: dict[str, str]) -> None:
    """Otherwise the second client would get all that the first one has got, and wait with it for the slower one."""
    handler = Stepwise(content_type="Text/Event-Stream; charset=utf-8", **fields)
    app = CacheMiddleware(Origin(handler), manager, [CacheRule("/**", ttl=60)], cache_status="debug")
    for _ in range(2):
        handler.steps.put_nowait(b"data: 1\n\n")
        visit = Visit(app).begin()
        await visit.until(2)
        assert visit.cache_status == "default; fwd=uri-miss; fwd-status=200; detail=events"
        handler.steps.put_nowait(None)
        await visit.end()
    assert stores(manager) == {"events": 2}


async def test_events_with_a_lifetime_are_live_and_replayed_later(manager: CacheManager) -> None:
    """A lifetime is the app's word that a stream of events ends, and is the same for all."""
    gate = asyncio.Event()

    async def events(_: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "event: one\ndata: 1\n\n"
            await gate.wait()
            yield ": comment\n\n"
            yield "id: 2\ndata: 2\n\n"

        return StreamingResponse(body(), media_type="text/event-stream", headers={"cache-control": "max-age=60"})

    starlette = Starlette(routes=[Route("/events", events)])
    chunks = [b"event: one\ndata: 1\n\n", b": comment\n\n", b"id: 2\ndata: 2\n\n"]
    async with served(CacheMiddleware(starlette, cache=manager)) as port:
        async with connected(port) as one, connected(port) as other:
            await one.send("/events")
            status, head = await one.read_head()
            assert (status, head["cache-status"]) == (200, "default; fwd=uri-miss; fwd-status=200; ttl=60; stored")
            assert await one.read_chunk() == chunks[0]
            await other.send("/events")  # joins in the middle
            _, head = await other.read_head()
            assert "collapsed" in head["cache-status"]
            assert await other.read_chunk() == chunks[0]
            gate.set()
            for client in (one, other):
                assert [await client.read_chunk() for _ in range(3)] == [*chunks[1:], b""]
        async with connected(port) as later:
            await later.send("/events", {"last-event-id": "1"})
            _, head = await later.read_head()
            assert head["cache-status"] == "default; hit; ttl=60"
            assert head["content-type"].startswith("text/event-stream")
            assert [await later.read_chunk() for _ in range(4)] == [*chunks, b""]


# Limits


@pytest.mark.parametrize("pieces", [1, 3, 100])
async def test_a_body_over_the_limit_passes_whole_and_is_not_stored(manager: CacheManager, pieces: int) -> None:
    total = 300_000

    async def handler(call: Call) -> None:
        await call.start(200, **FRESH)
        for number in range(pieces):
            await call.chunk(b"x" * (total // pieces), more=number < pieces - 1)

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager, max_body_bytes=200_000)
    for number in (1, 2):
        visit = await ask(app)
        assert (len(visit.body), visit.complete, len(origin.calls)) == (total, True, number)
    assert stores(manager) == {"too_large": 2}


async def test_a_body_of_just_the_limit_is_stored(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.answer(b"x" * 1000, **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager, max_body_bytes=1000)
    await ask(app)
    assert (await ask(app)).cache_status == "default; hit; ttl=60"


async def test_a_body_announced_as_too_large_is_not_recorded_at_all(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.answer(b"x" * 1001, **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager, max_body_bytes=1000, cache_status="debug")
    visit = await ask(app)
    assert visit.cache_status == "default; fwd=uri-miss; fwd-status=200; detail=too-large"
    assert len(visit.body) == 1001


@either_way
async def test_memory_is_bounded_when_the_client_is_slow(manager: CacheManager, fields: dict[str, str]) -> None:
    chunk, limit = 10_000, 100_000
    made = taken = behind = 0

    async def handler(call: Call) -> None:
        nonlocal made, behind
        await call.start(200, **fields)
        for number in range(200):
            made += chunk
            behind = max(behind, made - taken)
            await call.chunk(b"x" * chunk, more=number < 199)

    class Slow(Visit):
        async def _send(self, message: Message) -> None:
            nonlocal taken
            for _ in range(20):
                await asyncio.sleep(0)
            taken += len(message.get("body", b""))
            await super()._send(message)

    visit = await Slow(CacheMiddleware(Origin(handler), cache=manager, max_body_bytes=limit)).go()
    assert len(visit.body) == 200 * chunk
    assert behind <= limit + 64 * 1024 + 2 * chunk


async def test_a_slow_client_does_not_slow_down_one_that_shares_its_load(manager: CacheManager) -> None:
    release = asyncio.Event()

    class Slow(Visit):
        async def _send(self, message: Message) -> None:
            await super()._send(message)
            await release.wait()

    async def handler(call: Call) -> None:
        await call.start(200, **FRESH)
        for number in range(50):
            await call.chunk(b"%2d" % number, more=number < 49)

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    slow = Slow(app).begin()
    await slow.until(1)
    quick = await ask(app)
    assert len(quick.chunks) == 50
    assert len(slow.messages) == 1
    release.set()
    assert (await slow.end()).body == quick.body
    assert len(origin.calls) == 1


# Bodies that do not end cleanly


@either_way
async def test_a_body_that_breaks_off_breaks_off_for_the_client(manager: CacheManager, fields: dict[str, str]) -> None:
    handler = Stepwise(**fields)
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    for _ in range(2):
        handler.steps.put_nowait(b"1")
        handler.steps.put_nowait(LookupError("broken"))
        visit = Visit(app)
        with pytest.raises(LookupError, match="broken"):
            await visit.go()
        assert (visit.body, visit.complete) == (b"1", False)
    assert len(origin.calls) == 2
    assert stores(manager).get("stored") is None
    assert requests(manager) == {"miss": 2}


async def test_on_a_real_socket_it_is_no_complete_response(
    manager: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Stepwise(**FRESH)
    app = CacheMiddleware(Origin(handler), cache=manager)
    async with served(app) as port:
        for _ in range(2):
            async with connected(port) as connection:
                await connection.send("/")
                handler.steps.put_nowait(b"1")
                _, head = await connection.read_head()
                assert await connection.read_chunk() == b"1"
                handler.steps.put_nowait(LookupError("broken"))
                with pytest.raises(asyncio.IncompleteReadError):
                    await connection.read_body(head)
    assert sum("Exception in ASGI application" in record.getMessage() for record in caplog.records) == 2


async def test_all_who_share_it_see_that_it_broke_off(manager: CacheManager) -> None:
    handler = Stepwise(**FRESH)
    app = CacheMiddleware(Origin(handler), cache=manager)
    visits = [Visit(app).begin() for _ in range(5)]
    handler.steps.put_nowait(b"1")
    for visit in visits:
        await visit.until(2)
    handler.steps.put_nowait(LookupError("broken"))
    for visit in visits:
        with pytest.raises(LookupError, match="broken"):
            await visit.end()
    assert [visit.complete for visit in visits] == [False] * 5
    handler.steps.put_nowait(None)
    assert (await ask(app)).cache_status.endswith("stored")


async def test_a_body_with_another_length_than_announced_is_not_stored(manager: CacheManager) -> None:
    """RFC 9111 §3.3."""

    async def handler(call: Call) -> None:
        await call.start(200, content_length="10", **FRESH)
        await call.chunk(b"short", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app)
    assert stores(manager) == {"incomplete": 1}


@pytest.mark.parametrize("stage", ["nothing", "head", "part"])
async def test_an_app_that_returns_too_early_has_not_answered(manager: CacheManager, stage: str) -> None:
    async def handler(call: Call) -> None:
        if stage != "nothing":
            await call.start(200, **FRESH)
        if stage == "part":
            await call.chunk(b"part")

    app = CacheMiddleware(Origin(handler), cache=manager)
    visits = [Visit(app).begin() for _ in range(3)]
    for visit in visits:
        with pytest.raises(RuntimeError, match="without completing"):
            await visit.end()
        assert not visit.complete
    assert stores(manager) == {}


async def test_an_app_that_answers_nothing_gives_500_on_a_real_socket(manager: CacheManager) -> None:
    async def handler(_: Call) -> None:
        return

    async with served(CacheMiddleware(Origin(handler), cache=manager)) as port:
        assert (await fetch(port, "/")).status == 500


# After the response


async def test_background_tasks_run_once_after_the_response(manager: CacheManager) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    async def work(name: str) -> None:
        await gate.wait()
        ran.append(name)

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("body", headers={"cache-control": "max-age=60"}, background=BackgroundTask(work, "a"))

    app = CacheMiddleware(Starlette(routes=[Route("/", endpoint)]), cache=manager)
    leader, follower = Visit(app).begin(), Visit(app).begin()
    await eventually(lambda: leader.complete and follower.complete)
    await follower.end()  # it owes nothing to the work of the request that it shared
    assert (await ask(app)).cache_status == "default; hit; ttl=60"
    assert ran == []
    gate.set()
    await leader.end()
    assert ran == ["a"]


@either_way
async def test_the_error_of_a_background_task_surfaces_as_without_a_cache(
    manager: CacheManager, fields: dict[str, str]
) -> None:
    async def handler(call: Call) -> None:
        await call.answer("body", **fields)
        raise LookupError("in the background")

    app = CacheMiddleware(Origin(handler), cache=manager)
    visit = Visit(app)
    with pytest.raises(LookupError, match="in the background"):
        await visit.go()
    assert (visit.body, visit.complete) == (b"body", True)
    assert stores(manager).get("stored", 0) == (1 if fields is FRESH else 0)


async def test_that_error_is_reported_although_the_client_has_left(
    manager: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await call.start(200, **FRESH)
        await call.chunk(b"1")
        await gate.wait()
        await call.chunk(b"2", more=False)
        raise LookupError("in the background")

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    leader, follower = Visit(app).begin(), Visit(app).begin()
    await leader.until(2)
    await follower.until(2)
    leader.leave()
    await leader.end()
    gate.set()
    assert (await follower.end()).body == b"12"
    origin.calls.clear()
    gc.collect()  # asyncio reports it when nobody can ask any more
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "in the background" in str(record.exc_info[1])


async def test_after_its_response_the_app_is_told_that_the_client_is_gone(manager: CacheManager) -> None:
    """As by a server; some apps wait for it."""
    received: list[str] = []

    async def handler(call: Call) -> None:
        await call.request_body()
        await call.answer("body", **FRESH)
        received.append((await call.receive())["type"])

    await ask(CacheMiddleware(Origin(handler), cache=manager))
    assert received == ["http.disconnect"]


async def test_a_client_that_leaves_after_its_response_stops_no_background_task(manager: CacheManager) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await call.answer("body", **FRESH)
        await gate.wait()

    origin = Origin(handler)
    visit = Visit(CacheMiddleware(origin, cache=manager)).begin()
    await eventually(lambda: visit.complete)
    visit.leave()
    for _ in range(10):
        await asyncio.sleep(0)
    assert origin.running == 1
    gate.set()
    await visit.end()
    assert origin.cancelled == 0
