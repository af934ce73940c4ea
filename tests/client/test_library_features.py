"""What a client does above its transport is as without a cache: authentication, redirects, hooks, cookies, timeouts."""

import asyncio
import base64
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache.testing import ManualClock
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import Gate, Reply, Upstream
from tests.managers import configuration, eventually, is_settled, opened

URL = "http://origin.example/a"
FRESH = {"cache-control": "max-age=60"}


class Origin:
    """Answers each path as a test says, and notes what it was asked."""

    def __init__(self, stack: Stack, **answers: Callable[[Any], Any]) -> None:
        self.stack = stack
        self.answers = answers
        self.asked: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.asked.append(request)
        return self.answers[request.url.path.strip("/")](request)

    def client(self, settings: dict[str, Any] | None = None, **options: Any) -> Any:
        """A client with a cache over this origin."""
        return self.stack.client(self.stack.transport(self.stack.mock(self), **options), settings)

    def text(self, text: str, status: int = 200, **headers: str) -> Any:
        """A response that is fresh for a minute."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.stack.library.Response(status, headers={**FRESH, **fields}, text=text)


def is_hit(response: Any) -> bool:
    """Whether it came out of the cache."""
    return "; hit" in response.headers.get("cache-status", "")


# Authentication


async def test_basic_credentials_keep_users_apart(stack: Stack) -> None:
    def answer(request: Any) -> Any:
        given = request.headers.get("authorization")
        return origin.text(given) if given else origin.text("", 401, www_authenticate="Basic", cache_control="no-store")

    origin = Origin(stack, a=answer)
    client = origin.client()
    for user in ("ada", "grace"):
        expected = "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()
        for hit in (False, True):
            response = await stack.request("GET", URL, client=client, auth=(user, "secret"))
            assert (response.text, is_hit(response)) == (expected, hit)
    assert (await stack.request("GET", URL, client=client)).status_code == 401
    assert len(origin.asked) == 3


async def test_credentials_of_a_netrc_file_keep_users_apart(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine origin.example login ada password secret\n")
    file.chmod(0o600)
    origin = Origin(stack, a=lambda request: origin.text(request.headers.get("authorization", "nobody")))
    client = origin.client()
    for auth, hits in ((stack.library.NetRCAuth(str(file)), [False, True]), (None, [False, True])):
        responses = [await stack.request("GET", URL, client=client, auth=auth) for _ in hits]
        assert [is_hit(response) for response in responses] == hits
        assert {response.text.partition(" ")[0] for response in responses} == {"Basic" if auth else "nobody"}


async def test_digest_authentication_makes_its_round_trip(stack: Stack) -> None:
    """Each request has credentials of its own, so none finds what was stored for another."""

    sent = []  # the flow changes the request itself

    def answer(request: Any) -> Any:
        sent.append(request.headers.get("authorization", ""))
        if not sent[-1].startswith("Digest "):
            challenge = 'Digest realm="r", nonce="n1", qop="auth", algorithm=SHA-256'
            return stack.library.Response(401, headers={"www-authenticate": challenge})
        return origin.text("secret")

    origin = Origin(stack, a=answer)
    client = origin.client()
    auth = stack.library.DigestAuth("ada", "secret")
    responses = [await stack.request("GET", URL, client=client, auth=auth) for _ in range(3)]
    assert [(response.status_code, response.text) for response in responses] == [(200, "secret")] * 3
    assert [[earlier.status_code for earlier in response.history] for response in responses] == [[401], [], []]
    assert ["nc=" + value.partition("nc=")[2][:8] if value else "" for value in sent] == [
        *("", "nc=00000001", "nc=00000002", "nc=00000003")
    ]
    assert (await stack.request("GET", URL, client=client)).status_code == 401


async def test_a_flow_that_reads_bodies_reads_those_of_hits(stack: Stack) -> None:
    class TokenAuth(stack.library.Auth):  # type: ignore[name-defined,misc]  # a class of either library
        requires_response_body = True

        def auth_flow(self, request: Any) -> Any:
            response = yield stack.library.Request("GET", "http://origin.example/token")
            request.headers["x-auth-token"] = response.json()["token"]
            yield request

    origin = Origin(
        stack,
        token=lambda request: origin.text(json.dumps({"token": "t1"})),
        a=lambda request: origin.text(request.headers["x-auth-token"]),
    )
    client = origin.client()
    for hit in (False, True, True):
        response = await stack.request("GET", URL, client=client, auth=TokenAuth())
        assert (response.text, is_hit(response)) == ("t1", hit)
        assert [is_hit(earlier) for earlier in response.history] == [hit]
    assert len(origin.asked) == 2


# Redirects


def redirecting(stack: Stack, status: int) -> Origin:
    """An origin with a chain of two redirects."""
    origin = Origin(
        stack,
        a=lambda request: origin.text("", status, location="/b"),
        b=lambda request: origin.text("", status, location="http://origin.example/c?d=e"),
        c=lambda request: origin.text("there"),
    )
    return origin


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_chain_of_redirects_is_followed_from_the_cache(stack: Stack, status: int) -> None:
    origin = redirecting(stack, status)
    client = origin.client()
    for hit in (False, True, True):
        response = await stack.request("GET", URL, client=client, follow_redirects=True)
        assert (response.text, str(response.url)) == ("there", "http://origin.example/c?d=e")
        assert [(earlier.status_code, earlier.url.path) for earlier in response.history] == [
            *((status, "/a"), (status, "/b"))
        ]
        assert [is_hit(each) for each in (*response.history, response)] == [hit] * 3
    assert len(origin.asked) == 3


async def test_a_redirect_that_is_not_followed_says_what_would_be_next(stack: Stack) -> None:
    client = redirecting(stack, 302).client()
    for _ in range(2):
        response = await stack.request("GET", URL, client=client)
        assert response.is_redirect
        assert response.history == []
        assert str(response.next_request.url) == "http://origin.example/b"
        assert response.next_request.method == "GET"


async def test_too_many_redirects_are_an_error_from_the_cache_too(stack: Stack) -> None:
    origin = Origin(stack, a=lambda request: origin.text("", 301, location="/a"))
    client = origin.client({"max_redirects": 3})
    for _ in range(2):
        with pytest.raises(stack.library.TooManyRedirects):
            await stack.request("GET", URL, client=client, follow_redirects=True)
    assert len(origin.asked) == 1


async def test_credentials_do_not_follow_a_stored_redirect_to_another_host(stack: Stack) -> None:
    origin = Origin(
        stack,
        a=lambda request: origin.text("", 302, location="http://other.example/b"),
        b=lambda request: origin.text("there", cache_control="no-store"),
    )
    client = origin.client({"follow_redirects": True})
    for hit in (False, True):
        response = await stack.request("GET", URL, client=client, auth=("ada", "secret"), headers={"cookie": "s=1"})
        assert is_hit(response.history[0]) is hit
    assert [request.url.host for request in origin.asked] == ["origin.example", "other.example", "other.example"]
    for request in origin.asked[1:]:
        assert "authorization" not in request.headers
        assert "cookie" not in request.headers


async def test_options_of_a_request_hold_for_its_redirects(stack: Stack) -> None:
    origin = redirecting(stack, 301)
    client = origin.client()
    for _ in range(2):
        await stack.request("GET", URL, client=client, follow_redirects=True, extensions={"aurelis": {"bypass": True}})
    assert len(origin.asked) == 6


# Hooks


async def test_hooks_see_hits(stack: Stack) -> None:
    """They may change the request, and read the response."""
    events: list[str] = []

    def on_request(request: Any) -> None:
        request.headers["x-auth-token"] = "t1"
        events.append(f"request {request.url.path}")

    async def on_request_async(request: Any) -> None:
        on_request(request)

    def on_response(response: Any) -> None:
        events.append(f"response {response.read().decode()} {response.request.url.path}")

    async def on_response_async(response: Any) -> None:
        await response.aread()
        events.append(f"response {response.text} {response.request.url.path}")

    hooks = (
        {"request": [on_request], "response": [on_response]}
        if stack.blocking
        else {"request": [on_request_async], "response": [on_response_async]}
    )
    origin = Origin(stack, a=lambda request: origin.text(request.headers["x-auth-token"]))
    client = origin.client({"event_hooks": hooks})
    for hit in (False, True, True):
        response = await stack.request("GET", URL, client=client)
        assert (response.text, is_hit(response)) == ("t1", hit)
        assert response.elapsed.total_seconds() >= 0
        assert response.is_closed
    assert events == ["request /a", "response t1 /a"] * 3
    assert len(origin.asked) == 1


async def test_a_hook_that_fails_harms_nobody_else(stack: Stack) -> None:
    def refuse(response: Any) -> None:
        raise LookupError("no")

    async def refuse_async(response: Any) -> None:
        refuse(response)

    origin = Origin(stack, a=lambda request: origin.text("body"))
    failing = origin.client({"event_hooks": {"response": [refuse if stack.blocking else refuse_async]}})
    for _ in range(2):
        with pytest.raises(LookupError):
            await stack.request("GET", URL, client=failing)
        assert (await stack.request("GET", URL, client=origin.client())).text == "body"


# Cookies


async def test_a_stored_response_sets_no_cookie(stack: Stack) -> None:
    """A cookie is for the one whose request was answered by the origin: later it may have changed (RFC 9111 §7.3)."""
    origin = Origin(stack, a=lambda request: origin.text("hello", set_cookie="session=1; path=/"))
    client = origin.client()
    first = await stack.request("GET", URL, client=client)
    assert first.cookies["session"] == client.cookies["session"] == "1"
    client.cookies.clear()  # as after logging out
    for again in (client, origin.client()):
        response = await stack.request("GET", URL, client=again)
        assert is_hit(response)
        assert "set-cookie" not in response.headers
        assert dict(again.cookies) == {}
    assert len(origin.asked) == 1


async def test_a_changed_cookie_is_not_set_back(stack: Stack) -> None:
    numbers = iter("123")
    origin = Origin(
        stack,
        a=lambda request: origin.text(request.headers.get("cookie", "none")),
        login=lambda request: origin.text("", set_cookie=f"session={next(numbers)}; path=/"),
    )
    client = origin.client()
    for number in "12":
        await stack.request("POST", "http://origin.example/login", client=client)
        for hit in (False, True):
            response = await stack.request("GET", URL, client=client)
            assert (response.text, is_hit(response)) == (f"session={number}", hit)
        assert client.cookies["session"] == number


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cookie_that_comes_with_a_confirmation_is_for_the_one_who_asked(kind: str) -> None:
    clock = ManualClock()
    async with opened(clock=clock) as manager, closing(Stack(kind, manager)) as stack:

        def answer(request: Any) -> Any:
            fields: dict[str, Any] = {"etag": '"1"', "set_cookie": f"session={len(origin.asked)}; path=/"}
            if "if-none-match" in request.headers:
                return origin.text("", 304, **fields)
            return origin.text("hello", **fields)

        origin = Origin(stack, a=answer)
        seen = []
        for pause in (0, 61, 0):
            clock.advance(pause)
            response = await stack.request("GET", URL, client=origin.client())
            assert response.text == "hello"
            seen.append(response.cookies.get("session"))
        assert seen == ["1", "2", "3"]  # what came with a cookie was not kept for others


# Timeouts, retries and extensions


async def test_timeouts_of_requests_reach_the_inner_transport(stack: Stack) -> None:
    origin = Origin(stack, a=lambda request: origin.text("x"))
    timeout = stack.library.Timeout(5, connect=1)
    await stack.request("GET", URL, client=origin.client(), timeout=timeout)
    assert origin.asked[0].extensions["timeout"] == {"connect": 1, "read": 5, "write": 5, "pool": 5}


async def test_an_origin_that_is_too_slow_is_an_error_and_nothing_is_stored(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(Reply(200, [("cache-control", "max-age=60")], [b"a", gate, b"b"]))
    with pytest.raises(stack.library.ReadTimeout):
        await stack.request("GET", upstream.url, client=stack.client(), timeout=0.2)
    gate.open()
    response = await stack.request("GET", upstream.url, client=stack.client())
    assert (response.text, is_hit(response)) == ("ab", False)
    assert is_hit(await stack.request("GET", upstream.url, client=stack.client(), timeout=0.001))


async def test_retries_of_the_inner_transport_go_on(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(Reply(200, [("cache-control", "max-age=60")], [b"x"]))
    core = importlib.import_module(stack.library_name.replace("httpx", "httpcore"))
    tries = []

    def count(port: int) -> None:
        tries.append(port)
        if len(tries) == 1:
            raise core.ConnectError("refused")

    class Flaky(core.NetworkBackend if stack.blocking else core.AsyncNetworkBackend):  # type: ignore[misc]
        def __init__(self, backend: Any) -> None:
            self._backend = backend

        def connect_tcp(self, host: str, port: int, **options: Any) -> Any:
            if not stack.blocking:
                return self._connect(host, port, **options)
            count(port)
            return self._backend.connect_tcp(host, port, **options)

        async def _connect(self, host: str, port: int, **options: Any) -> Any:
            count(port)
            return await self._backend.connect_tcp(host, port, **options)

        def sleep(self, seconds: float) -> Any:
            return self._backend.sleep(0)

    inner = stack.network(retries=1)
    inner._pool._network_backend = Flaky(inner._pool._network_backend)
    client = stack.client(stack.transport(inner))
    for hit in (False, True):
        response = await stack.request("GET", upstream.url, client=client)
        assert (response.text, is_hit(response)) == ("x", hit)
    assert len(tries) == 2


async def test_extensions_of_the_library_work(stack: Stack, upstream: Upstream) -> None:
    """A trace sees what goes over the network, and nothing of a hit."""
    upstream.replies(Reply(200, [("cache-control", "max-age=60")], [b"x"]))
    events: list[str] = []

    def trace(name: str, info: Any) -> None:
        events.append(name)

    async def trace_async(name: str, info: Any) -> None:
        events.append(name)

    client = stack.client()
    extensions = {"trace": trace if stack.blocking else trace_async}
    response = await stack.request("GET", upstream.url, client=client, extensions=extensions)
    assert "http11.receive_response_headers.complete" in events
    assert response.extensions["http_version"] == b"HTTP/1.1"
    seen = len(events)
    assert is_hit(await stack.request("GET", upstream.url, client=client, extensions=extensions))
    assert [name for name in events[seen:] if not name.startswith(("http11.response_closed", "http11.receive"))] == []


EMBEDDINGS = "http://model.example/v1/embeddings"
_SOON = "max-age=1, stale-while-revalidate=1000"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [None, "a", ["a", "b"]], ids=["page", "item", "items"])
@pytest.mark.parametrize("below", [False, True], ids=["memory", "below"])
async def test_a_refresh_in_the_background_calls_nobody_back(
    kind: str, body: object, below: bool, redis_url: str
) -> None:
    """Whoever traces a request is done with it by then. All else that the request says holds for the refresh."""

    def answer(request: Any) -> Any:
        asked.append(request.extensions)
        if body is None:
            return stack.library.Response(200, headers={"cache-control": _SOON}, content=b"x")
        inputs = json.loads(request.read())["input"]
        data = [
            {"object": "embedding", "index": index, "embedding": [0.1]}
            for index, _ in enumerate(inputs if isinstance(inputs, list) else [inputs])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return stack.library.Response(200, json={"object": "list", "data": data, "model": "m", "usage": usage})

    async def trace(name: str, info: Any) -> None:
        raise AssertionError(name)

    async def ask(stack: Stack) -> str:
        client = stack.client(stack.transport(stack.mock(answer), ttl=0.2, stale_while_revalidate=1000))
        extensions = {"trace": trace, "marker": "kept"}
        if body is None:
            return (await stack.get(URL, client=client, extensions=extensions)).cache_status
        call = {"model": "m", "input": body}
        return (await stack.send("POST", EMBEDDINGS, client=client, extensions=extensions, json=call)).cache_status

    asked: list[Any] = []
    config = configuration(redis_url=redis_url, timeout=10.0) if below else configuration()
    async with opened(config) as manager, closing(Stack(kind, manager)) as stack:
        assert "fwd" in await ask(stack)
        await asyncio.sleep(1.2 if body is None else 0.3)  # a maximum age has whole seconds
        if below:  # in another process, which has nothing in memory
            async with opened(config) as other, closing(Stack(kind, other)) as stack:
                assert "; hit" in await ask(stack)
                await eventually(lambda: len(asked) == 2 and is_settled(other))
        else:
            assert "; hit" in await ask(stack)
            await eventually(lambda: len(asked) == 2 and is_settled(manager))
    assert [("trace" in extensions, extensions["marker"]) for extensions in asked] == [(True, "kept"), (False, "kept")]
