"""What callers want of the cache for plain requests: how long, under which tags, anew, or not at all."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock, SharedMemory
from tests.client.stack import KINDS, Stack, closing
from tests.managers import opened

URL = "http://origin.example/a"


class Setting:
    """A client over an origin with one response, and the time that both go by."""

    def __init__(self, stack: Stack, manager: CacheManager, clock: ManualClock) -> None:
        self.stack, self.manager, self.clock = stack, manager, clock
        self.fields: dict[str, str] = {}
        self.version = 1
        self.asked: list[Any] = []

    def client(self, **options: Any) -> Any:
        """A client with a cache over the origin."""

        def origin(request: Any) -> Any:
            self.asked.append(request)
            if request.headers.get("if-none-match", "") == self.fields.get("etag", "none"):
                return self.stack.library.Response(304, headers=self.fields)
            return self.stack.library.Response(200, headers=self.fields, content=b"body %d" % self.version)

        return self.stack.client(self.stack.transport(self.stack.mock(origin), **options))

    async def ask(self, client: Any, headers: dict[str, str] | None = None, method: str = "GET", **wishes: Any) -> str:
        """What the cache says of a request with these options, but for its name."""
        extensions = {"aurelis": wishes} if wishes else {}
        answer = await self.stack.send(method, URL, client=client, headers=headers, extensions=extensions)
        return answer.cache_status.removeprefix(f"{self.manager.config.name}; ")


Make = Callable[..., Setting]


@pytest.fixture(params=KINDS)
async def setting(request: pytest.FixtureRequest) -> Any:
    """A setting of each kind."""
    clock = ManualClock()
    async with opened(clock=clock) as manager, closing(Stack(request.param, manager)) as stack:
        yield Setting(stack, manager, clock)


async def test_a_ttl_speaks_for_a_response_that_says_nothing(setting: Setting) -> None:
    client = setting.client()
    assert "detail=not-fresh" in await setting.ask(client)
    assert await setting.ask(client, ttl=60) == "fwd=uri-miss; fwd-status=200; ttl=60; stored"
    setting.clock.advance(59)
    assert await setting.ask(client) == "hit; ttl=1"
    setting.clock.advance(2)
    assert await setting.ask(client, ttl=60) in (
        "fwd=uri-miss; fwd-status=200; ttl=60; stored",
        "fwd=stale; fwd-status=200; ttl=60; stored",
    )


@pytest.mark.parametrize(
    ("cache_control", "ttl", "left"), [("max-age=600", 60, 60), ("max-age=6", 60, 6), ("s-maxage=6", 60, 60)]
)
async def test_a_ttl_is_the_longest_life(setting: Setting, cache_control: str, ttl: int, left: int) -> None:
    setting.fields = {"cache-control": cache_control}
    client = setting.client()
    await setting.ask(client, ttl=ttl)
    assert await setting.ask(client) == f"hit; ttl={left}"
    setting.clock.advance(left + 1)
    assert "hit" not in await setting.ask(client, only_if_cached=True)


async def test_a_ttl_counts_from_now_for_a_response_that_is_old(setting: Setting) -> None:
    setting.fields = {"cache-control": "max-age=600", "age": "100"}
    client = setting.client()
    await setting.ask(client, ttl=60)
    setting.clock.advance(50)
    answer = await setting.stack.get(URL, client=client)
    assert answer.cache_status.endswith("; hit; ttl=10")
    assert answer.headers["age"] == "150"


async def test_a_ttl_of_0_stores_nothing(setting: Setting) -> None:
    setting.fields = {"cache-control": "max-age=600", "etag": '"1"'}
    client = setting.client()
    for _ in range(2):
        assert "detail=ttl" in await setting.ask(client, ttl=0)
    await setting.ask(client)
    assert (await setting.ask(client, ttl=0)).startswith("hit")


@pytest.mark.parametrize(
    ("cache_control", "reason", "options"),
    [
        ("no-store", "no-store", {}),
        ("no-cache", "no-cache", {}),
        ("private", "private", {"shared": True}),
        ("max-age=0", "not-fresh", {}),
    ],
)
async def test_a_ttl_overrides_no_word_of_the_origin(
    setting: Setting, cache_control: str, reason: str, options: dict[str, Any]
) -> None:
    setting.fields = {"cache-control": cache_control}
    client = setting.client(**options)
    for _ in range(2):
        assert f"detail={reason}" in await setting.ask(client, ttl=60)
    assert len(setting.asked) == 2


@pytest.mark.parametrize("name", ["authorization", "cookie"])
async def test_a_ttl_shares_nothing_among_credentials(setting: Setting, name: str) -> None:
    client = setting.client(shared=True)
    for who in ("one", "two", "one"):
        assert "hit" not in await setting.ask(client, {name: who}, ttl=60)
    assert len(setting.asked) == 3
    setting.fields = {"cache-control": "public, max-age=600"}
    await setting.ask(client, {name: "one"}, ttl=60)
    assert await setting.ask(client, {name: "two"}) == "hit; ttl=60"


async def test_a_ttl_keeps_no_cookie(setting: Setting) -> None:
    setting.fields = {"set-cookie": "a=b"}
    client = setting.client()
    for _ in range(2):
        assert "detail=set-cookie" in await setting.ask(client, ttl=60)


async def test_tags_invalidate_plain_responses(setting: Setting) -> None:
    setting.fields = {"cache-control": "max-age=600", "vary": "accept-language"}
    client = setting.client()
    for tag in ("a", "b"):
        await setting.ask(client, tags=["a", "b"])
        await setting.ask(client, {"accept-language": "de"}, tags=["c"])
        assert (await setting.ask(client)).startswith("hit")
        await setting.manager.invalidate_tags(tag)
        assert "hit" not in await setting.ask(client)
        assert (await setting.ask(client, {"accept-language": "de"})).startswith("hit")
        await setting.manager.clear()


async def test_tags_are_given_by_fields_too(setting: Setting) -> None:
    setting.fields = {"surrogate-key": "c"}
    client = setting.client()
    for tag in ("a", "b", "c"):
        await setting.ask(client, {"x-cache-tags": "a, b", "x-cache-control": "max-age=60"})
        assert await setting.ask(client) == "hit; ttl=60"
        await setting.manager.invalidate_tags(tag)
    assert "hit" not in await setting.ask(client)
    assert not any(name.startswith("x-cache") for request in setting.asked for name in request.headers)


@pytest.mark.parametrize("by", ["GET", "HEAD"])
async def test_tags_survive_a_confirmation(setting: Setting, by: str) -> None:
    setting.fields = {"cache-control": "max-age=10", "etag": '"1"', "cache-tag": "own", "content-length": "6"}
    client = setting.client()
    await setting.ask(client, tags=["a"])
    for number in range(3):
        setting.clock.advance(11)
        setting.fields["cache-tag"] = f"own{number}"
        if by == "HEAD":
            setting.fields.pop("content-length", None)
        await setting.ask(client, method=by, tags=[f"later{number}"])
        assert await setting.ask(client) == "hit; ttl=10"
    await setting.manager.invalidate_tags("own", "own1")  # these were of the response, which has said something else
    assert await setting.ask(client) == "hit; ttl=10"
    await setting.manager.invalidate_tags("a")
    assert "hit" not in await setting.ask(client)


@pytest.mark.parametrize("library", ["httpx2", "httpx"])
async def test_tags_survive_a_confirmation_by_another_process(library: str) -> None:
    """Which knows of them what the shared layer tells it."""
    clock = ManualClock()
    shared = SharedMemory(clock)
    one, other = [CacheManager(lower=[shared.node()], clock=clock) for _ in range(2)]
    async with one, other, closing(Stack(f"{library}-async", one)) as stack:
        first = Setting(stack, one, clock)
        first.fields = {"cache-control": "max-age=10", "etag": '"1"'}
        await first.ask(first.client(), tags=["a"])
        clock.advance(11)
        client = first.client(cache=other)
        assert "fwd-status=304" in await first.ask(client)
        assert "hit" in await first.ask(client)
        await one.invalidate_tags("a")
        assert "hit" not in await first.ask(first.client(cache=one), only_if_cached=True)
        await other.aclose()
        fresh = CacheManager(lower=[shared.node()], clock=clock)
        async with fresh:
            assert "hit" not in await first.ask(first.client(cache=fresh), only_if_cached=True)


@pytest.mark.parametrize("honour", [True, False])
async def test_a_refresh_loads_anew_whatever_requests_may_say(setting: Setting, honour: bool) -> None:
    setting.fields = {"cache-control": "max-age=600"}
    client = setting.client(honour_request_directives=honour)
    await setting.ask(client)
    setting.version = 2
    assert "fwd=request" in await setting.ask(client, refresh=True)
    answer = await setting.stack.get(URL, client=client)
    assert (answer.body, answer.is_hit) == (b"body 2", True)
    assert "fwd=request" in await setting.ask(client, {"x-cache-control": "no-cache"})
    assert ("hit" in await setting.ask(client, {"cache-control": "no-cache"})) is not honour
    assert not any("cache-control" in request.headers for request in setting.asked[:3])


@pytest.mark.parametrize("honour", [True, False])
async def test_only_if_cached_asks_nobody_whatever_requests_may_say(setting: Setting, honour: bool) -> None:
    setting.fields = {"cache-control": "max-age=600"}
    client = setting.client(honour_request_directives=honour)
    for method in ("GET", "HEAD"):
        answer = await setting.stack.send(method, URL, client=client, extensions={"aurelis": {"only_if_cached": True}})
        assert (answer.status, answer.body) == (504, b"")
    assert setting.asked == []
    await setting.ask(client)
    assert await setting.ask(client, only_if_cached=True) == "hit; ttl=600"
    setting.clock.advance(601)
    assert re.search("hit|stored", await setting.ask(client, only_if_cached=True)) is None
    assert len(setting.asked) == 1


async def test_namespaces_and_bypass_hold_whatever_requests_may_say(setting: Setting) -> None:
    setting.fields = {"cache-control": "max-age=600"}
    client = setting.client(honour_request_directives=False)
    await setting.ask(client)
    for name in ("one", "two"):
        assert "hit" not in await setting.ask(client, namespace=name)
        assert (await setting.ask(client, namespace=name)).startswith("hit")
    assert await setting.ask(client, bypass=True) == "fwd=bypass; detail=option"
    assert len(setting.asked) == 4
