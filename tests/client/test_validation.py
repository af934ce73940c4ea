"""Stored responses are validated, refreshed behind callers' backs, and forgotten after unsafe requests."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.client.stack import KINDS, Stack, closing
from tests.managers import count, eventually, is_settled, opened, requests
from tests.models.examples import chat, completion, dump

URL = "http://origin.example/a"


class Origin:
    """What an inner transport asks: it has one response, with an entity tag.

    Attributes:
        asked: method and fields of each request.
    """

    def __init__(self, library: Any, cache_control: str = "max-age=10") -> None:
        self._library = library
        self.cache_control = cache_control
        self.version = 1
        self.content = b""  # in place of what tells the version
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.fields: dict[str, str] = {}
        self.status = 200
        self.threads: set[str] = set()

    def __call__(self, request: Any) -> Any:
        """Answer one request."""
        self.asked.append((request.method, dict(request.headers)))
        self.threads.add(threading.current_thread().name)
        headers = {"etag": f'"{self.version}"', "cache-control": self.cache_control, **self.fields}
        if request.headers.get("if-none-match") == f'"{self.version}"' and self.status == 200:
            return self._library.Response(304, headers=headers)
        content = b"" if request.method == "HEAD" else self.content or b"body %d" % self.version
        return self._library.Response(self.status, headers=headers, content=content)


class Setting:
    """A client over an origin, and the time that both go by."""

    def __init__(self, stack: Stack, manager: CacheManager, clock: ManualClock, cache_control: str, **options: Any):
        self.origin = Origin(stack.library, cache_control)
        self.stack, self.manager, self.clock = stack, manager, clock
        self.client = stack.client(stack.transport(stack.mock(self.origin), **options))

    async def ask(self, method: str = "GET", **request: Any) -> tuple[bytes, str]:
        """The body, and what the cache says but for its name."""
        answer = await self.stack.send(method, URL, client=self.client, **request)
        return answer.body, answer.cache_status.removeprefix(f"{self.manager.config.name}; ")


Make = Callable[..., Setting]


@pytest.fixture(params=KINDS)
async def make(request: pytest.FixtureRequest) -> Any:
    """A function that makes a setting of each kind."""
    clock = ManualClock()
    async with opened(clock=clock) as manager, closing(Stack(request.param, manager)) as stack:
        yield lambda cache_control="max-age=10", **options: Setting(stack, manager, clock, cache_control, **options)


def loads(setting: Setting) -> int:
    """How often the counts say that the origin was asked."""
    return requests(setting.manager).get("loads", 0) + int(count(setting.manager, names.REFRESHES))


async def test_a_stale_response_is_confirmed_by_a_304(make: Make) -> None:
    """RFC 9111 §4.3."""
    setting = make()
    await setting.ask()
    setting.clock.advance(15)
    assert await setting.ask(headers={"x": "1"}) == (b"body 1", "fwd=stale; fwd-status=304; ttl=10; stored")
    method, fields = setting.origin.asked[-1]
    assert (method, fields["if-none-match"], fields["x"]) == ("GET", '"1"', "1")
    assert await setting.ask() == (b"body 1", "hit; ttl=10")
    setting.origin.version = 2
    setting.clock.advance(15)
    assert await setting.ask() == (b"body 2", "fwd=stale; fwd-status=200; ttl=10; stored")
    assert loads(setting) == len(setting.origin.asked) == 3
    assert requests(setting.manager)["revalidated"] == 1


async def test_the_caller_keeps_its_own_request_and_conditions(make: Make) -> None:
    setting = make("no-cache")
    await setting.ask()
    answer = await setting.stack.send("GET", URL, client=setting.client, headers={"if-none-match": '"1", "x"'})
    assert (answer.status, answer.body) == (304, b"")
    assert answer.request.headers["if-none-match"] == '"1", "x"'  # type: ignore[attr-defined]
    assert setting.origin.asked[-1][1]["if-none-match"] == '"1"'


async def test_a_stale_response_is_served_while_it_is_loaded_anew(make: Make) -> None:
    """RFC 5861 §3."""
    setting = make("max-age=10, stale-while-revalidate=30")
    await setting.ask()
    setting.clock.advance(15)
    setting.origin.version = 2
    assert await setting.ask() == (b"body 1", "hit; ttl=-5")
    await eventually(lambda: len(setting.origin.asked) == 2 and is_settled(setting.manager))
    assert await setting.ask() == (b"body 2", "hit; ttl=10")
    assert requests(setting.manager) == {"miss": 1, "stale": 1, "hit l1": 1, "loads": 1}
    assert loads(setting) == 2
    assert ("aurelis-cache-refresh" in setting.origin.threads) is setting.stack.blocking


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_stale_response_stands_in_for_an_error(make: Make, status: int) -> None:
    """RFC 5861 §4."""
    setting = make("max-age=10, stale-if-error=60")
    await setting.ask()
    setting.clock.advance(15)
    setting.origin.status = status
    assert await setting.ask() == (b"body 1", f"fwd=stale; fwd-status={status}; ttl=-5")
    setting.clock.advance(60)
    assert (await setting.stack.send("GET", URL, client=setting.client)).status == status
    assert loads(setting) == len(setting.origin.asked) == 3


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("shared", [False, True])
async def test_an_unsafe_request_invalidates_its_target(make: Make, method: str, shared: bool) -> None:
    """RFC 9111 §4.4: for all callers."""
    setting = make("public, max-age=10", shared=shared)
    for user in ("ada", "grace"):
        await setting.ask(headers={"authorization": user})
    known = len(setting.origin.asked)
    assert known == (1 if shared else 2)
    assert (await setting.ask(method, headers={"authorization": "ada"}))[1] == ""
    setting.origin.version = 2
    for user in ("ada", "grace"):
        assert (await setting.ask(headers={"authorization": user}))[0] == b"body 2"


async def test_what_failed_or_is_safe_invalidates_nothing(make: Make) -> None:
    setting = make()
    await setting.ask()
    setting.origin.status = 400
    await setting.ask("DELETE")
    setting.origin.status = 200
    await setting.ask("OPTIONS")
    assert (await setting.ask())[1] == "hit; ttl=10"


async def test_the_answer_to_a_post_is_stored_where_it_says_so(make: Make) -> None:
    """RFC 9110 §9.3.3."""
    setting = make()
    setting.origin.fields = {"content-location": "/a"}
    posted = await setting.stack.send("POST", URL, client=setting.client, content=b"1")
    assert (posted.status, posted.body, posted.headers["content-length"]) == (200, b"body 1", "6")
    assert await setting.ask() == (b"body 1", "hit; ttl=10")
    assert len(setting.origin.asked) == 1


async def test_a_head_updates_what_a_get_has_stored(make: Make) -> None:
    """RFC 9111 §4.3.5."""
    setting = make()
    await setting.ask()
    setting.clock.advance(15)
    setting.origin.fields = {"content-length": "6"}
    await setting.ask("HEAD")
    assert await setting.ask() == (b"body 1", "hit; ttl=10")


@pytest.mark.parametrize(("options", "kept"), [({}, True), ({"bypass": True}, False), ({"namespace": "n"}, False)])
async def test_the_answer_to_a_post_is_for_those_who_share_its_options(
    make: Make, options: dict[str, object], kept: bool
) -> None:
    setting = make()
    await setting.ask()
    setting.origin.version = 2
    setting.origin.fields = {"content-location": "/a"}
    await setting.ask("POST", extensions={"aurelis": options})
    setting.origin.fields = {}
    body, status = await setting.ask()
    assert body == b"body 2"  # what was there before is gone in any case
    assert (status == "hit; ttl=10") is kept
    if "namespace" in options:
        assert (await setting.ask(extensions={"aurelis": options})) == (b"body 2", "hit; ttl=10")


async def test_rules_of_http_are_not_for_calls_of_models(make: Make) -> None:
    """A call has no validators, varies by nothing, and puts nothing out of date."""
    setting = make()
    url = "http://origin.example/v1/chat/completions"
    client, asked = setting.client, setting.origin.asked

    async def call() -> tuple[bytes, str]:
        answer = await setting.stack.send("POST", url, client=client, json=chat())
        return answer.body, answer.cache_status.removeprefix(f"{setting.manager.config.name}; ")

    async def page() -> str:
        answer = await setting.stack.send("GET", url, client=client)
        return answer.cache_status.removeprefix(f"{setting.manager.config.name}; ")

    await page()
    fields = {"cache-control": "no-store, private", "vary": "*", "set-cookie": "a=1; path=/x", "content-location": url}
    setting.origin.fields = {**fields, "content-type": "application/json", "surrogate-key": "t"}
    setting.origin.content = dump(completion())
    await call()
    assert await call() == (setting.origin.content, "hit; ttl=3600")
    await setting.manager.invalidate_tags("t")
    assert (await call())[1] == "hit; ttl=3600"
    assert await page() == "hit; ttl=10"
    setting.clock.advance(3601)
    setting.origin.status = 503
    assert (await call())[1] == "fwd=miss; fwd-status=503; detail=status"
    assert [method for method, _ in asked] == ["GET", "POST", "POST"]
    assert not any("if-none-match" in sent for _, sent in asked)
