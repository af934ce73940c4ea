"""Concurrent requests for one cold URL: one call of the app, and nobody harms anybody else by leaving."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.counts import coalesced, loads, requests, stores
from tests.asgi.origin import Call, Gated, Origin, fixed
from tests.asgi.sockets import Connection, connect, fetch, served
from tests.asgi.visits import Visit, ask
from tests.managers import eventually

FRESH = {"cache_control": "max-age=60"}
CROWD = 1000

some_leave = pytest.mark.parametrize(
    "leaving",
    [
        pytest.param(range(1), id="the first"),
        pytest.param(range(3, 4), id="any"),
        pytest.param([0, 2, 4, 6], id="every second"),
        pytest.param(range(7), id="all but the last"),
        pytest.param(range(1, 8), id="all but the first"),
    ],
)
ways_to_leave = pytest.mark.parametrize("way", ["disconnect", "cancel"])


class Begun:
    """A handler that sends half of its body, then waits for the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        await call.start(200, **FRESH)
        await call.chunk(b"one half, ")
        await self.gate.wait()
        await call.chunk(b"other half", more=False)


async def leave(visit: Visit, way: str) -> None:
    """Have the client go, and wait until the server's side has noticed."""
    if way == "cancel":
        visit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visit.end()
    else:
        visit.leave()
        await visit.end()


# Real sockets


async def test_a_crowd_at_a_cold_url_causes_one_call(manager: CacheManager) -> None:
    handler = Gated(**FRESH)
    origin = Origin(handler)
    async with served(CacheMiddleware(origin, cache=manager)) as port:
        connections = [await connect(port) for _ in range(CROWD)]
        try:
            for connection in connections:
                await connection.send("/cold")
            await eventually(lambda: manager._engine.flights.waiting == CROWD - 1)
            handler.gate.set()
            answers = await asyncio.gather(*(connection.read_answer() for connection in connections))
            assert {(answer.status, answer.body) for answer in answers} == {(200, b"body 1")}
            assert len(origin.calls) == 1
            assert sum("collapsed" in answer.cache_status for answer in answers) == CROWD - 1
            assert (requests(manager), coalesced(manager), loads(manager)) == ({"miss": CROWD}, CROWD - 1, 1)
            # The connections are good for more.
            again = await asyncio.gather(*(connection.ask("/cold") for connection in connections))
            assert {(answer.body, answer.cache_status) for answer in again} == {(b"body 1", "default; hit; ttl=60")}
            assert all(connection.is_open() for connection in connections)
        finally:
            for connection in connections:
                await connection.close()
    assert len(origin.calls) == 1


@pytest.mark.parametrize("handler", [Gated, Begun], ids=["before the head", "in the body"])
@some_leave
async def test_connections_that_break_leave_the_others_with_their_answer(
    manager: CacheManager, handler: type[Gated] | type[Begun], leaving: list[int]
) -> None:
    handle = handler(**FRESH) if handler is Gated else handler()
    origin = Origin(handle)
    async with served(CacheMiddleware(origin, cache=manager)) as port:
        connections: list[Connection] = []
        for _ in range(8):  # one after the other, so that the first one leads
            connections.append(await connect(port))
            await connections[-1].send("/")
            await eventually(lambda: len(connections) - 1 == manager._engine.flights.waiting and origin.calls)
        for number in leaving:
            connections[number].abort()
        staying = [connection for number, connection in enumerate(connections) if number not in leaving]
        followers = len(staying) if 0 in leaving else len(staying) - 1
        await eventually(lambda: manager._engine.flights.waiting == followers)
        assert (origin.running, origin.cancelled) == (1, 0)
        handle.gate.set()
        answers = await asyncio.gather(*(connection.read_answer() for connection in staying))
        assert {answer.body for answer in answers} == {b"body 1" if handler is Gated else b"one half, other half"}
        # Also these connections are good for more.
        assert [(await connection.ask("/")).cache_status for connection in staying] == ["default; hit; ttl=60"] * len(
            staying
        )
        for connection in connections:
            await connection.close()
    assert len(origin.calls) == 1


@pytest.mark.parametrize("handler", [Gated, Begun], ids=["before the head", "in the body"])
async def test_when_all_connections_break_the_app_stops(
    manager: CacheManager, handler: type[Gated] | type[Begun], caplog: pytest.LogCaptureFixture
) -> None:
    handle = handler(**FRESH) if handler is Gated else handler()
    origin = Origin(handle)
    async with served(CacheMiddleware(origin, cache=manager)) as port:
        connections = [await connect(port) for _ in range(8)]
        for connection in connections:
            await connection.send("/")
        await eventually(lambda: manager._engine.flights.waiting == 7)
        for connection in connections:
            connection.abort()
        await eventually(lambda: origin.cancelled == 1)
        assert origin.running == 0
        handle.gate.set()
        assert (await fetch(port, "/")).cache_status.endswith("stored")
        for connection in connections:
            await connection.close()
    assert len(origin.calls) == 2
    assert stores(manager) == {"stored": 1}
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_slow_reader_gets_everything_and_holds_up_nobody(manager: CacheManager) -> None:
    size = 3_000_000

    async def handler(call: Call) -> None:
        await call.start(200, **FRESH)
        for number in range(30):
            await call.chunk(bytes([number]) * (size // 30), more=number < 29)

    origin = Origin(handler)
    ended = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal ended
        await cached(scope, receive, send)
        ended += 1

    cached = CacheMiddleware(origin, cache=manager)
    async with served(app, send_buffer=10_000) as port:
        slow = await connect(port, receive_buffer=10_000)
        await slow.send("/")
        await eventually(lambda: origin.calls)
        quick = await fetch(port, "/")
        assert len(quick.body) == size
        assert (origin.running, ended) == (0, 1)  # the slow one is still being answered
        assert (await slow.read_answer()).body == quick.body
        assert (await slow.ask("/")).body == quick.body
        await slow.close()
    assert len(origin.calls) == 1


async def test_an_error_is_500_for_everybody_and_not_stored(
    manager: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    async def handler(_: Call) -> None:
        await gate.wait()
        raise LookupError("broken")

    origin = Origin(handler)
    async with served(CacheMiddleware(origin, cache=manager)) as port:
        asking = [asyncio.create_task(fetch(port, "/")) for _ in range(20)]
        await eventually(lambda: manager._engine.flights.waiting == 19)
        gate.set()
        assert {(await answer).status for answer in asking} == {500}
        assert len(origin.calls) == 1
        assert (await fetch(port, "/")).status == 500
    assert len(origin.calls) == 2
    assert (requests(manager), loads(manager)) == ({"miss": 21}, 2)
    assert sum(record.exc_info is not None for record in caplog.records) == 21


# Every message


@ways_to_leave
@some_leave
@pytest.mark.parametrize("handler", [Gated, Begun], ids=["before the head", "in the body"])
async def test_leaving_harms_nobody(
    manager: CacheManager, handler: type[Gated] | type[Begun], leaving: list[int], way: str
) -> None:
    handle = handler(**FRESH) if handler is Gated else handler()
    origin = Origin(handle)
    app = CacheMiddleware(origin, cache=manager)
    visits = [Visit(app).begin() for _ in range(8)]
    await eventually(lambda: manager._engine.flights.waiting == 7)
    if handler is Begun:
        for visit in visits:
            await visit.until(2)
    for number in leaving:
        await leave(visits[number], way)
    assert (origin.running, origin.cancelled) == (1, 0)
    handle.gate.set()
    for number, visit in enumerate(visits):
        if number not in leaving:
            await visit.end()
            assert visit.complete
            assert visit.body == (b"body 1" if handler is Gated else b"one half, other half")
    assert (await ask(app)).cache_status == "default; hit; ttl=60"
    assert len(origin.calls) == 1
    assert (requests(manager), loads(manager)) == ({"miss": 8, "hit": 1}, 1)


@ways_to_leave
@pytest.mark.parametrize("handler", [Gated, Begun], ids=["before the head", "in the body"])
async def test_when_all_have_left_the_app_is_cancelled_and_nothing_stored(
    manager: CacheManager, handler: type[Gated] | type[Begun], way: str
) -> None:
    handle = handler(**FRESH) if handler is Gated else handler()
    origin = Origin(handle)
    app = CacheMiddleware(origin, cache=manager)
    visits = [Visit(app).begin() for _ in range(4)]
    await eventually(lambda: manager._engine.flights.waiting == 3)
    for visit in visits:
        assert origin.cancelled == 0
        await leave(visit, way)
    await eventually(lambda: origin.cancelled == 1)
    assert origin.running == 0
    assert stores(manager) == {}
    handle.gate.set()
    assert (await ask(app)).cache_status.endswith("; stored")
    assert (requests(manager), loads(manager)) == ({"miss": 5}, 2)


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_is_not_lost_in_a_disconnect(manager: CacheManager, turns: int) -> None:
    origin = Origin(Gated())
    visit = Visit(CacheMiddleware(origin, cache=manager)).begin()
    await eventually(lambda: origin.running == 1)
    visit.leave()
    for _ in range(turns):
        await asyncio.sleep(0)
    if visit.cancel():
        with pytest.raises(asyncio.CancelledError):
            await visit.end()
    await eventually(lambda: origin.cancelled == 1)


async def test_a_large_body_does_not_wait_for_who_left_before_it(manager: CacheManager) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await gate.wait()
        await call.start(200, **FRESH)
        for number in range(20):
            await call.chunk(b"x" * 50_000, more=number < 19)

    app = CacheMiddleware(Origin(handler), cache=manager, max_body_bytes=100_000)
    first, second = Visit(app).begin(), Visit(app).begin()
    await eventually(lambda: manager._engine.flights.waiting == 1)
    await leave(first, "disconnect")
    gate.set()
    assert len((await second.end()).body) == 1_000_000


async def test_the_app_is_not_cancelled_once_its_response_is_with_the_last_client(manager: CacheManager) -> None:
    gate = asyncio.Event()
    after: list[str] = []

    async def handler(call: Call) -> None:
        await call.start(200, **FRESH)
        await call.chunk(b"1")
        await gate.wait()
        await call.chunk(b"2" * 200_000, more=False)  # more than is kept, so the app waits until it is read
        after.append("work")

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager, max_body_bytes=1000)
    first, second = Visit(app).begin(), Visit(app).begin()
    await first.until(2)
    await second.until(2)
    await leave(first, "disconnect")
    gate.set()
    assert len((await second.end()).body) == 200_001
    await eventually(lambda: not origin.running)
    assert (origin.cancelled, after) == (0, ["work"])


async def test_who_comes_while_a_load_is_being_cancelled_begins_another(manager: CacheManager) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        if call.number == 1:
            try:
                await asyncio.Event().wait()
            finally:
                await gate.wait()  # cleaning up takes a while
        await call.answer(f"body {call.number}", **FRESH)

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    first = Visit(app).begin()
    await eventually(lambda: origin.running == 1)
    await leave(first, "disconnect")
    assert origin.running == 1
    assert (await ask(app)).body == b"body 2"
    gate.set()
    await eventually(lambda: origin.running == 0)
    assert (await ask(app)).body == b"body 2"


async def test_an_app_that_resists_its_cancellation_is_not_stored(manager: CacheManager) -> None:
    handler = Gated()

    async def stubborn(call: Call) -> None:
        try:
            await handler.gate.wait()
        except asyncio.CancelledError:
            await call.answer("body", **FRESH)

    origin = Origin(stubborn)
    app = CacheMiddleware(origin, cache=manager)
    visit = Visit(app).begin()
    await eventually(lambda: origin.running == 1)
    await leave(visit, "disconnect")
    await eventually(lambda: origin.running == 0)
    assert stores(manager).get("stored") is None


async def test_the_outer_world_sees_a_response_also_when_the_client_left(manager: CacheManager) -> None:
    """Middleware outside takes an app that answers nothing for a broken one."""
    handler = Gated(**FRESH)
    app = CacheMiddleware(Origin(handler), cache=manager)
    visits = [Visit(app).begin() for _ in range(2)]
    await eventually(handler.entered.is_set)
    for visit in visits:
        visit.leave()
        await visit.end()
        assert (visit.status, visit.body, visit.complete) == (499, b"", True)


async def test_an_error_reaches_everybody_who_waits(manager: CacheManager) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await gate.wait()
        if call.number == 1:
            raise LookupError("broken")
        await call.answer("body", **FRESH)

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    visits = [Visit(app).begin() for _ in range(10)]
    await eventually(lambda: manager._engine.flights.waiting == 9)
    gate.set()
    for visit in visits:
        with pytest.raises(LookupError, match="broken"):
            await visit.end()
        assert visit.messages == []
    assert (await ask(app)).body == b"body"
    assert (requests(manager), loads(manager)) == ({"miss": 11}, 2)


async def test_those_with_credentials_of_their_own_do_not_share(manager: CacheManager) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await gate.wait()
        await call.answer(f"for [{call.field('cookie')}]")

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager, rules=[CacheRule("/", ttl=60)])
    fields = [{}, {"cookie": "a"}, {}, {"cookie": "b"}, {"cookie": "b"}]
    visits = [Visit(app, "/", "GET", each).begin() for each in fields]
    await eventually(lambda: len(origin.calls) == 4)
    gate.set()
    bodies = [(await visit.end()).body.decode() for visit in visits]
    assert bodies == ["for []", "for [a]", "for []", "for [b]", "for [b]"]
    assert requests(manager) == {"miss": 2, "bypass": 3}


# Who must not wait


@pytest.mark.parametrize("fields", [{"cache_control": "no-store"}, {"cache_control": "private, max-age=60"}, {}])
async def test_a_url_that_gives_nothing_to_share_makes_nobody_wait_twice(
    manager: CacheManager, fields: dict[str, str]
) -> None:
    """Two clients of a route that holds its answer back until there is news, for instance."""
    handler = Gated(**fields)
    handler.gate.set()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app, "/news")
    handler.gate.clear()
    visits = [Visit(app, "/news").begin() for _ in range(5)]
    await eventually(lambda: origin.running == 5)
    handler.gate.set()
    for visit in visits:
        assert (await visit.end()).status == 200
    assert (requests(manager), loads(manager)) == ({"miss": 6}, 6)


async def test_once_it_gives_something_it_is_shared_again(manager: CacheManager) -> None:
    handler = Gated(cache_control="no-store")
    handler.gate.set()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    handler.fields = {"cache_control": "max-age=1"}
    await ask(app)
    handler.gate.clear()
    visits = [Visit(app, "/", "GET", {"cache-control": "no-cache"}).begin() for _ in range(5)]
    await eventually(lambda: manager._engine.flights.waiting == 4)
    handler.gate.set()
    for visit in visits:
        await visit.end()
    assert len(origin.calls) == 3


async def test_a_failure_does_not_end_the_sharing(manager: CacheManager) -> None:
    """Or a crowd would trample on an app that has just stumbled."""

    async def handler(call: Call) -> None:
        await gate.wait()
        await call.answer("body", 503 if call.number == 1 else 200, **{} if call.number == 1 else FRESH)

    gate = asyncio.Event()
    gate.set()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    await ask(app)
    gate.clear()
    visits = [Visit(app).begin() for _ in range(5)]
    await eventually(lambda: manager._engine.flights.waiting == 4)
    gate.set()
    for visit in visits:
        await visit.end()
    assert len(origin.calls) == 2


async def test_those_who_waited_for_somebody_special_share_among_themselves(manager: CacheManager) -> None:
    """A client with Authorization leads, and its response may not be stored: no reason to trample on the app."""
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await gate.wait()
        await call.answer(f"for [{call.field('authorization')}]", **FRESH)

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    users = ["alice", *[""] * 20, "bob", *[""] * 20]
    visits = [Visit(app, "/", "GET", {"authorization": user} if user else {}).begin() for user in users]
    await eventually(lambda: manager._engine.flights.waiting == 41)
    gate.set()
    assert [(await visit.end()).body.decode() for visit in visits] == [f"for [{user}]" for user in users]
    assert len(origin.calls) == 3
    assert loads(manager) == 2


# Invalidation


async def test_what_is_cleared_while_it_is_being_stored_is_gone(
    manager: CacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too late to stop the storing, so clearing comes after it."""
    gate = asyncio.Event()
    storing = asyncio.Event()
    stack = manager._engine.stack
    publish = stack.publish

    async def slowly(*arguments: Any, **options: Any) -> Any:
        storing.set()
        await gate.wait()
        return await publish(*arguments, **options)

    monkeypatch.setattr(stack, "publish", slowly)
    app = CacheMiddleware(fixed(**FRESH), cache=manager)
    visit = Visit(app).begin()
    await storing.wait()
    clearing = asyncio.create_task(manager.clear())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(visit.end(), clearing)
    assert "fwd=uri-miss" in (await ask(app)).cache_status
