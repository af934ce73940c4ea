"""Plain GET and HEAD by the rules of RFC 9111, as a private cache and as a shared one."""

import gzip
import re

import pytest

from aurelis.cache import CacheManager
from aurelis.cache._clock import Clock
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import Asked, Gate, Reply, Upstream
from tests.managers import opened, requests


def page(*headers: tuple[str, str], body: bytes = b"page", status: int = 200) -> Reply:
    """A response with these fields."""
    return Reply(status, [("content-type", "text/plain"), *headers], [body], length=True)


FRESH = page(("cache-control", "max-age=60"))


@pytest.fixture
def upstream(upstream: Upstream) -> Upstream:
    """This test's part of the server; what it answers is fresh for a minute."""
    upstream.replies(FRESH)
    return upstream


async def test_a_fresh_response_is_answered_from_the_cache(stack: Stack, upstream: Upstream) -> None:
    first = await stack.get(f"{upstream.url}/a?b=c")
    again = await stack.get(f"{upstream.url}/a?b=c#fragment")
    assert upstream.calls == 1
    assert not first.is_hit
    assert again.is_hit
    assert (again.status, again.body) == (200, b"page")
    assert "age" in again.headers
    assert {name: again.headers[name] for name in ("content-type", "cache-control", "content-length")} == {
        "content-type": "text/plain",
        "cache-control": "max-age=60",
        "content-length": "4",
    }


@pytest.mark.parametrize("path", ["/other", "/a?b=d", "/A?b=c", "/a"])
async def test_another_url_is_not_answered_by_it(stack: Stack, upstream: Upstream, path: str) -> None:
    await stack.get(f"{upstream.url}/a?b=c")
    await stack.get(upstream.url + path)
    assert upstream.calls == 2


@pytest.mark.parametrize("value", ["no-store", "no-cache", "max-age=0"])
async def test_what_may_not_be_reused_is_not_stored(stack: Stack, upstream: Upstream, value: str) -> None:
    upstream.replies(page(("cache-control", value)))
    for _ in range(2):
        assert not (await stack.get(upstream.url)).is_hit
    assert upstream.calls == 2


async def test_a_private_response_is_stored_by_a_private_cache_alone(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(page(("cache-control", "private, max-age=60")))
    shared = stack.client(shared=True)
    for _ in range(2):
        await stack.get(upstream.url, client=shared)
    assert upstream.calls == 2
    for _ in range(2):
        await stack.get(upstream.url)
    assert upstream.calls == 3
    await stack.get(upstream.url, client=shared)
    assert upstream.calls == 4


@pytest.mark.parametrize("name", ["authorization", "cookie", "x-api-key"])
async def test_requests_with_other_credentials_are_kept_apart(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.answer = lambda asked: page(("cache-control", "max-age=60"), body=asked.headers.get(name, "").encode())
    for _ in range(2):
        assert (await stack.get(upstream.url, headers={name: "one"})).body == b"one"
        assert (await stack.get(upstream.url, headers={name: "two"})).body == b"two"
        assert (await stack.get(upstream.url)).body == b""
    assert upstream.calls == 3


async def test_a_shared_cache_answers_requests_with_credentials_only_where_that_is_allowed(
    stack: Stack, upstream: Upstream
) -> None:
    client = stack.client(shared=True)
    for credential in ("one", "two"):
        await stack.get(upstream.url, headers={"authorization": credential}, client=client)
    assert upstream.calls == 2
    upstream.replies(page(("cache-control", "public, max-age=60")))
    for credential in ("one", "two", "one", "two"):
        await stack.get(f"{upstream.url}/public", headers={"authorization": credential}, client=client)
    assert upstream.calls == 3


async def test_a_shared_response_that_took_the_place_of_a_public_one_is_for_nobody_with_credentials(
    stack: Stack, upstream: Upstream
) -> None:
    """Also where the way to the answer would be remembered."""
    client = stack.client(shared=True)
    upstream.replies(page(("cache-control", "public, max-age=60")), FRESH)
    for _ in range(3):
        assert (await stack.get(upstream.url, headers={"authorization": "one"}, client=client)).body == b"page"
    await stack.get(upstream.url, headers={"cache-control": "no-cache"}, client=client)
    assert upstream.calls == 2
    answer = await stack.get(upstream.url, headers={"authorization": "one"}, client=client)
    assert not answer.is_hit
    assert upstream.calls == 3


async def test_variants_are_kept_apart(stack: Stack, upstream: Upstream) -> None:
    upstream.answer = lambda asked: page(
        ("cache-control", "max-age=60"), ("vary", "accept-language"), body=asked.headers["accept-language"].encode()
    )
    for _ in range(3):
        for language in ("de", "fr"):
            answer = await stack.get(upstream.url, headers={"accept-language": language})
            assert answer.body == language.encode()
    assert upstream.calls == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-none-match": '"v1"'}, 304),
        ({"if-none-match": '"v2"'}, 200),
        ({"if-none-match": "*"}, 304),
        ({"if-modified-since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 304),
        ({"if-modified-since": "Sun, 06 Nov 1993 08:49:37 GMT"}, 200),
    ],
    ids=str,
)
async def test_a_condition_is_answered_by_a_fresh_response(
    stack: Stack, upstream: Upstream, headers: dict[str, str], status: int
) -> None:
    upstream.replies(
        page(("cache-control", "max-age=60"), ("etag", '"v1"'), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"))
    )
    await stack.get(upstream.url)
    for _ in range(2):
        answer = await stack.get(upstream.url, headers=headers)
        assert answer.is_hit
        assert answer.status == status
        assert answer.body == (b"" if status == 304 else b"page")
        assert answer.headers["etag"] == '"v1"'
        assert ("content-type" in answer.headers) is (status == 200)
    assert upstream.calls == 1


async def test_a_head_is_answered_by_what_a_get_has_brought(stack: Stack, upstream: Upstream) -> None:
    assert (await stack.send("HEAD", upstream.url)).body == b""
    await stack.get(upstream.url)
    assert upstream.calls == 2
    for _ in range(3):
        head = await stack.send("HEAD", upstream.url)
        assert head.is_hit
        assert head.body == b""
        assert head.headers["content-length"] == "4"
        assert (await stack.get(upstream.url)).body == b"page"
    assert upstream.calls == 2


async def test_only_if_cached_is_refused_where_nothing_is_stored(stack: Stack, upstream: Upstream) -> None:
    only = {"cache-control": "only-if-cached"}
    refused = await stack.get(upstream.url, headers=only)
    assert (refused.status, refused.body) == (504, b"")
    assert upstream.calls == 0
    await stack.get(upstream.url)
    assert (await stack.get(upstream.url, headers=only)).is_hit


async def test_a_client_can_ask_for_something_fresher(stack: Stack, upstream: Upstream) -> None:
    await stack.get(upstream.url)
    fresher = await stack.get(upstream.url, headers={"cache-control": "no-cache"})
    assert "fwd=request" in fresher.cache_status
    assert upstream.calls == 2
    client = stack.client(honour_request_directives=False)
    assert (await stack.get(upstream.url, headers={"cache-control": "no-cache"}, client=client)).is_hit


async def test_a_range_is_made_of_a_stored_response(stack: Stack, upstream: Upstream) -> None:
    """RFC 9110 §14."""
    await stack.get(upstream.url)
    answer = await stack.get(upstream.url, headers={"range": "bytes=1-2"})
    assert (answer.status, answer.body, answer.headers["content-range"]) == (206, b"ag", "bytes 1-2/4")
    assert answer.is_hit
    answer = await stack.get(upstream.url, headers={"range": "bytes=4-"})
    assert (answer.status, answer.body) == (416, b"")
    assert upstream.calls == 1


async def test_no_range_is_made_of_what_was_decoded(stack: Stack, upstream: Upstream) -> None:
    """Which bytes are meant would be unclear."""
    body = gzip.compress(b"page")
    upstream.replies(page(("cache-control", "max-age=60"), ("content-encoding", "gzip"), body=body))
    for _ in range(2):
        assert (await stack.get(upstream.url)).body == b"page"
    answer = await stack.get(upstream.url, headers={"range": "bytes=0-1"})
    assert (answer.status, answer.body) == (200, b"page")


async def test_a_redirect_is_stored_as_such(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(page(("cache-control", "max-age=60"), ("location", "/elsewhere"), status=301))
    for _ in range(2):
        answer = await stack.get(upstream.url)
        assert answer.status == 301
        assert answer.headers["location"] == "/elsewhere"
    assert upstream.calls == 1


async def test_a_compressed_response_is_kept_decoded(stack: Stack, upstream: Upstream) -> None:
    packed = gzip.compress(b"page" * 100)
    upstream.replies(
        page(("cache-control", "max-age=60"), ("content-encoding", "gzip"), ("content-digest", "x"), body=packed)
    )
    for _ in range(2):
        answer = await stack.get(upstream.url)
        assert answer.body == b"page" * 100
        assert {"content-encoding", "content-length", "content-digest"}.isdisjoint(answer.headers)
    assert (await stack.get(upstream.url, headers={"accept-encoding": "identity"})).body == b"page" * 100
    assert upstream.calls == 1


async def test_members_of_caches_before_stay_in_the_status(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(page(("cache-control", "max-age=60"), ("cache-status", "cdn; hit")))
    name = stack.manager.config.name
    await stack.get(upstream.url)
    assert (await stack.get(upstream.url)).cache_status.startswith(f"cdn; hit, {name}; hit; ttl=")
    upstream.replies(page(("cache-control", "no-store"), ("cache-status", "cdn; hit")))
    assert (await stack.get(f"{upstream.url}/b")).cache_status.startswith(f"cdn; hit, {name}; fwd=uri-miss")


async def test_the_status_says_what_was_done(stack: Stack, upstream: Upstream) -> None:
    name = stack.manager.config.name
    assert (await stack.get(upstream.url)).cache_status == f"{name}; fwd=uri-miss; fwd-status=200; ttl=60; stored"
    assert re.fullmatch(rf"{name}; hit; ttl=5\d", (await stack.get(upstream.url)).cache_status)
    upstream.replies(page(("cache-control", "no-store"), status=404))
    status = (await stack.get(f"{upstream.url}/b")).cache_status
    assert status == f"{name}; fwd=uri-miss; fwd-status=404; detail=no-store"


async def test_a_waiting_caller_is_told_that_it_shared(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(
        Reply(200, [("cache-control", "max-age=60"), ("connection", "x-hop"), ("x-hop", "1")], [b"a", gate, b"b"])
    )
    first = await stack.open("GET", upstream.url)
    second = await stack.open("GET", upstream.url)
    assert "collapsed" in second.response.headers["cache-status"]
    assert "x-hop" in first.response.headers
    assert "x-hop" not in second.response.headers
    gate.open()
    assert b"".join(await first.rest()) == b"".join(await second.rest()) == b"ab"
    await first.close()
    await second.close()
    assert upstream.calls == 1


async def test_each_request_is_counted_once(stack: Stack, upstream: Upstream) -> None:
    upstream.answer = lambda asked: FRESH if asked.path != "b" else page(("cache-control", "no-store"))
    for path in ("/a", "/a", "/a", "/b", "/b"):
        await stack.get(upstream.url + path)
    await stack.get(f"{upstream.url}/a", headers={"range": "bytes=0-1"})
    await stack.send("POST", f"{upstream.url}/a", content=b"x")
    await stack.get(f"{upstream.url}/c", headers={"if-match": '"a"'})
    assert requests(stack.manager) == {"hit l1": 3, "miss": 3, "bypass": 1, "loads": 3}


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def clock(self) -> Clock:
        """Both clocks show it."""
        return Clock(lambda: self.now, lambda: self.now)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_response_grows_old(kind: str, upstream: Upstream) -> None:
    time = Time()
    async with opened(clock=time.clock()) as manager, closing(Stack(kind, manager)) as stack:
        await stack.get(upstream.url)
        for age in (0, 0, 10, 10, 59):
            time.now = 1_000_000.0 + age
            answer = await stack.get(upstream.url)
            assert answer.headers["age"] == str(age)
            assert answer.cache_status == f"{manager.config.name}; hit; ttl={60 - age}"
        time.now += 1
        assert not (await stack.get(upstream.url)).is_hit
        assert upstream.calls == 2
        assert (await stack.get(upstream.url)).headers["age"] == "0"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stale_response_stands_in_for_a_broken_origin(kind: str, upstream: Upstream) -> None:
    """RFC 5861 §4."""
    time = Time()
    upstream.replies(page(("cache-control", "max-age=60, stale-if-error=600")))
    async with opened(clock=time.clock()) as manager, closing(Stack(kind, manager)) as stack:

        def fails(request: object) -> object:
            raise stack.library.ConnectError("down")

        await stack.get(upstream.url)
        time.now += 100
        broken = stack.client(stack.transport(stack.mock(fails)))
        answer = await stack.get(upstream.url, client=broken)
        assert answer.body == b"page"
        assert answer.cache_status == f"{manager.config.name}; fwd=stale; ttl=-40"
        time.now += 600
        with pytest.raises(stack.library.ConnectError):
            await stack.get(upstream.url, client=broken)
        assert requests(manager) == {"miss": 2, "stale": 1, "loads": 2}


async def test_what_is_deleted_is_not_answered_again(stack: Stack, upstream: Upstream, manager: CacheManager) -> None:
    """Also where the way to the answer is remembered."""
    for _ in range(3):
        await stack.get(upstream.url)
    await manager.clear()
    assert not (await stack.get(upstream.url)).is_hit
    assert upstream.calls == 2


async def test_a_response_that_took_the_place_of_another_is_answered(stack: Stack, upstream: Upstream) -> None:
    replies = [
        page(("cache-control", "max-age=60"), ("x-version", str(number)), body=b"%d" % number) for number in (1, 2)
    ]

    def answer(asked: Asked) -> Reply:
        return replies[upstream.calls - 1]

    upstream.answer = answer
    for _ in range(3):
        assert (await stack.get(upstream.url)).body == b"1"
    await stack.get(upstream.url, headers={"cache-control": "no-cache"})
    for _ in range(3):
        again = await stack.get(upstream.url)
        assert (again.body, again.headers["x-version"]) == (b"2", "2")
    assert upstream.calls == 2


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("field", ["X-Forwarded-Host", "x-original-url", "Forwarded"])
async def test_what_is_said_about_another_target_has_entries_of_its_own(
    stack: Stack, upstream: Upstream, field: str, shared: bool
) -> None:
    """A gateway hands on what its clients say, and the origin may answer for the host that they name."""

    def answer(asked: Asked) -> Reply:
        return page(("cache-control", "max-age=60"), body=asked.headers.get(field.lower(), "none").encode())

    upstream.answer = answer
    client = stack.client(shared=shared)
    told = {field: "host=evil"}
    for fields, body, hits in (
        (told, b"host=evil", [False, True]),
        ({}, b"none", [False, True]),
        (told, b"host=evil", [True]),
    ):
        for hit in hits:
            found = await stack.get(upstream.url, client=client, headers=fields)
            assert (found.body, found.is_hit) == (body, hit)
    await stack.send("DELETE", upstream.url, client=client)
    assert not (await stack.get(upstream.url, client=client, headers=told)).is_hit
