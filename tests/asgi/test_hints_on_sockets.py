"""Early hints behind servers that send them, seen by a client that looks at 1xx responses."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from starlette.types import ASGIApp

from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware
from tests.asgi.conftest import MakeManager
from tests.asgi.http2 import Http2Answer, asked, hypercorn_both, uvicorn_http2
from tests.asgi.origin import Origin
from tests.asgi.sockets import fetch
from tests.asgi.test_hints import FONT, STYLE, Hinting
from tests.managers import WITHIN

Serving = Callable[[ASGIApp], AbstractAsyncContextManager[int]]

HINTED = [(103, [STYLE.decode()]), (103, [FONT.decode(), STYLE.decode()])]


def hinted(answer: Http2Answer) -> list[tuple[int, list[str]]]:
    """The interim responses, without what a server adds."""
    return [(status, [value for name, value in lines if name == "link"]) for status, lines in answer.interim]


@pytest.fixture(params=[uvicorn_http2, hypercorn_both], ids=["uvicorn", "hypercorn"])
def serving(request: pytest.FixtureRequest) -> Serving:
    """A server that speaks HTTP/1.1 and HTTP/2."""
    serving: Serving = request.param
    return serving


@pytest.fixture
def clock() -> ManualClock:
    """The time that the managers of this test go by."""
    return ManualClock(time=1_800_000_000.0)


async def test_a_client_gets_the_hints_while_the_app_is_still_at_work(
    serving: Serving, make_manager: MakeManager
) -> None:
    handler = Hinting()
    handler.gate.clear()
    origin = Origin(handler)
    async with (
        asyncio.timeout(WITHIN),
        serving(CacheMiddleware(origin, cache=make_manager())) as port,
        asked(port, "/") as first,
    ):
        early = await first.until(lambda answer: len(answer.interim) == 2)
        assert (hinted(early), early.status) == (HINTED, 0)
        handler.gate.set()
        answer = await first.end()
        assert (answer.status, answer.body) == (200, b"body 1")
        async with asked(port, "/") as second:
            hit = await second.end()
        assert (hit.interim, hit.status, hit.body) == ([], 200, b"body 1")
        assert "hit" in dict(hit.lines)["cache-status"]
    assert len(origin.calls) == 1


async def test_over_http_1_there_are_none(serving: Serving, make_manager: MakeManager) -> None:
    """The servers do not send them there, and the app is not told that they would."""
    origin = Origin(Hinting())
    async with asyncio.timeout(WITHIN), serving(CacheMiddleware(origin, cache=make_manager())) as port:
        answer = await fetch(port, "/")
    assert (answer.status, answer.body) == (200, b"body 1")
    assert "http.response.early_hint" not in origin.calls[0].scope.get("extensions", {})


async def test_a_client_that_leaves_after_its_hints_ends_the_load(serving: Serving, make_manager: MakeManager) -> None:
    handler = Hinting()
    handler.gate.clear()
    origin = Origin(handler)
    async with asyncio.timeout(WITHIN), serving(CacheMiddleware(origin, cache=make_manager())) as port:
        async with asked(port, "/") as gone:
            await gone.until(lambda answer: answer.interim)
        while not origin.cancelled:
            await asyncio.sleep(0.001)
