"""Bodies of GET requests over HTTP/2 that come later than they are waited for."""

import asyncio

import pytest
from starlette.types import ASGIApp, Message

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware
from tests.asgi.counts import loads, requests
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import Visit
from tests.managers import eventually


class LateBody(Visit):
    """A request over HTTP/2 whose body comes when the test says so, a piece at a time."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, http_version="2")
        self._requests.clear()
        self._pieces: asyncio.Queue[Message] = asyncio.Queue()

    def give(self, piece: bytes, *, more: bool = False) -> None:
        """Send a piece of the body."""
        self._pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def _receive(self) -> Message:
        return await self._pieces.get()


class Questioned:
    """A handler that answers with the body of the request, in two pieces, once its gate is open."""

    def __init__(self) -> None:
        self.gate, self.rest = asyncio.Event(), asyncio.Event()

    async def __call__(self, call: Call) -> None:
        await self.gate.wait()
        body = await call.request_body()
        await call.start(cache_control="max-age=60")
        await call.chunk(b"answer to ")
        await self.rest.wait()
        await call.chunk(body, more=False)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "alone"])
async def test_a_body_that_comes_while_the_app_is_at_work_reaches_it(manager: CacheManager, shared: bool) -> None:
    """A packet that was lost comes later than anybody waits for it."""
    handler = Questioned()
    handler.rest.set()
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    late, other = LateBody(app).begin(), Visit(app)
    await eventually(lambda: len(origin.calls) == 1)  # it has been waited for
    if shared:
        other.begin()
        await eventually(lambda: manager._engine.flights.waiting == 1)
    late.give(b"a long ", more=True)
    await eventually(lambda: len(origin.calls) == 2)
    late.give(b"question")
    handler.gate.set()
    assert (await late.end()).body == b"answer to a long question"
    assert late.cache_status == "default; fwd=bypass"
    assert origin.cancelled == (0 if shared else 1)
    if shared:
        await other.end()
    else:
        await other.go()
    assert other.body == b"answer to "
    assert requests(manager) == {"miss": 2}
    assert loads(manager) == len(origin.calls)


async def test_a_body_that_comes_behind_the_beginning_of_an_answer_cuts_it_not_short(manager: CacheManager) -> None:
    handler = Questioned()
    handler.gate.set()
    origin = Origin(handler)
    late = LateBody(CacheMiddleware(origin, cache=manager)).begin()
    await late.until(2)
    late.give(b"question")
    await asyncio.sleep(0)
    handler.rest.set()
    assert (await late.end()).complete
    assert (late.body, len(origin.calls), origin.cancelled) == (b"answer to ", 1, 0)


async def test_a_client_that_leaves_behind_a_late_body_is_the_apps_to_notice(manager: CacheManager) -> None:
    handler = Questioned()
    handler.rest.set()
    origin = Origin(handler)
    late = LateBody(CacheMiddleware(origin, cache=manager)).begin()
    await eventually(lambda: len(origin.calls) == 1)
    late.give(b"question")
    late._pieces.put_nowait({"type": "http.disconnect"})
    await eventually(lambda: len(origin.calls) == 2)
    handler.gate.set()
    assert (await late.end()).body == b"answer to question"
    assert origin.cancelled == 1
