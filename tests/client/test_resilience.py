"""What callers get when a provider fails: what was stored, where that is allowed, and not too many attempts."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from aurelis.cache import CacheManager, cache_options
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.client.model_server import Model
from tests.client.stack import KINDS, Stack, closing
from tests.client.test_protocols import ask
from tests.client.upstream import BREAK, Asked, Gate, Reply, Upstream, chat_reply, json_reply, stream_reply
from tests.managers import configuration, count, eventually, opened, requests
from tests.models.examples import DONE, completion, event, piece
from tests.models.wire import WIRES

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
WIRE = WIRES["OPENAI_CHAT"]
FAILURE = {"error": {"message": "busy", "type": "server_error", "param": None, "code": None}}
JSON = [("content-type", "application/json")]


def failing(status: int, **fields: str) -> Reply:
    """An answer that says that the provider has failed."""
    headers = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return json_reply(FAILURE, status=status, headers=headers)


def broken(asked: Asked) -> Reply:
    """A response that breaks off before the first byte of its body."""
    streams = b'"stream":true' in asked.body
    return Reply(200, [("content-type", "text/event-stream")] if streams else JSON, [BREAK])


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


@pytest.fixture
async def manager(clock: ManualClock) -> AsyncIterator[CacheManager]:
    """A cache in memory whose time a test moves."""
    async with opened(clock=clock) as manager:
        yield manager


@pytest.fixture(params=KINDS)
async def stack(request: pytest.FixtureRequest, manager: CacheManager) -> AsyncIterator[Stack]:
    """Each library, with and without an event loop."""
    async with closing(Stack(request.param, manager)) as stack:
        yield stack


class Lapsed:
    """A call whose answer is stored and no longer fresh, and what its next answers are."""

    def __init__(self, stack: Stack, upstream: Upstream, *, stream: bool) -> None:
        self.stack = stack
        self.upstream = upstream
        self.stream = stream
        self.sdk: Any = None
        self.first: list[dict[str, Any]] = []

    async def prepare(self, clock: ManualClock, *, max_retries: int = 2, past: float = 5, **options: Any) -> None:
        """Store an answer that lives for 60 seconds, and let it become stale."""
        self.sdk = self.stack.sdk(self.upstream.url, max_retries=max_retries, ttl=60, **options)
        self.first = await self.ask()
        clock.advance(60 + past)

    async def ask(self, **changes: Any) -> list[dict[str, Any]]:
        """The call once more."""
        return await self.stack.ask(self.sdk, stream=self.stream, **changes)


@BOTH
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_a_stale_answer_stands_in_for_a_failure(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool, status: int
) -> None:
    """The SDK sees an answer, so it does not try again."""
    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, stale_if_error=600)
    upstream.replies(failing(status))
    assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 2
    assert requests(stack.manager) == {"miss": 1, "stale": 1, "loads": 1}


@BOTH
@pytest.mark.parametrize("kind", ["ConnectError", "ConnectTimeout", "ReadTimeout", "RemoteProtocolError"])
async def test_a_stale_answer_stands_in_where_there_is_no_answer(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool, kind: str
) -> None:
    network = stack.network()
    lost = False

    def send(request: Any) -> Any:
        if lost:
            raise getattr(stack.library, kind)("lost")
        return network.handle_request(request) if stack.blocking else network.handle_async_request(request)

    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, inner=Inner(network, send), stale_if_error=600)
    lost = True
    assert await lapsed.ask() == lapsed.first
    assert requests(stack.manager) == {"miss": 1, "stale": 1, "loads": 1}


class Inner:
    """An inner transport in whose place a function answers."""

    def __init__(self, network: Any, send: Any) -> None:
        self._network = network
        self._send = send

    def handle_request(self, request: Any) -> Any:
        """Answer in a thread."""
        return self._send(request)

    async def handle_async_request(self, request: Any) -> Any:
        """Answer in an event loop."""
        return await self._send(request)

    def close(self) -> None:
        """Close the network."""
        self._network.close()

    async def aclose(self) -> None:
        """The same."""
        await self._network.aclose()


@BOTH
async def test_a_stale_answer_stands_in_when_the_provider_takes_too_long(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool
) -> None:
    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, stale_if_error=600)
    gate = Gate()
    upstream.replies(Reply(200, [("content-type", "text/event-stream")] if stream else JSON, [gate]))
    lapsed.sdk = lapsed.sdk.with_options(timeout=0.2)
    assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 2
    gate.open()


@BOTH
async def test_a_failure_before_the_first_byte_of_the_body_is_one(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool
) -> None:
    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, stale_if_error=600)
    upstream.answer = broken
    assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 2


async def test_a_failure_after_the_first_byte_is_none(stack: Stack, upstream: Upstream, clock: ManualClock) -> None:
    lapsed = Lapsed(stack, upstream, stream=True)
    await lapsed.prepare(clock, stale_if_error=600)
    upstream.replies(stream_reply(event(piece("New")), BREAK))
    with pytest.raises(openai.APIConnectionError):
        await lapsed.ask()
    # What was stored is still there for the next one.
    upstream.replies(failing(500))
    assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 3


async def test_what_comes_at_last_is_given_from_its_first_byte(
    stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    lapsed = Lapsed(stack, upstream, stream=True)
    await lapsed.prepare(clock, stale_if_error=600)
    upstream.replies(stream_reply(event(piece("New")), event(piece(None, "stop")), DONE))
    again = await lapsed.ask()
    assert [one["choices"][0]["delta"]["content"] for one in again] == ["New", None]
    assert await lapsed.ask() == again
    assert upstream.calls == 2


@BOTH
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
async def test_an_error_of_the_call_reaches_its_caller(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool, status: int
) -> None:
    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, max_retries=0, stale_if_error=600, negative_ttl=30)
    upstream.replies(failing(status))
    for _ in range(2):
        with pytest.raises(openai.APIStatusError):
            await lapsed.ask()
    assert upstream.calls == 3


@BOTH
async def test_nothing_is_stale_unless_that_is_allowed(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool
) -> None:
    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, max_retries=0)
    upstream.replies(failing(500))
    with pytest.raises(openai.InternalServerError):
        await lapsed.ask()


async def test_the_window_ends(stack: Stack, upstream: Upstream, clock: ManualClock) -> None:
    lapsed = Lapsed(stack, upstream, stream=False)
    await lapsed.prepare(clock, max_retries=0, past=601, stale_if_error=600)
    upstream.replies(failing(500))
    with pytest.raises(openai.InternalServerError):
        await lapsed.ask()


async def test_whoever_asks_for_a_new_answer_gets_no_old_one(
    stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    lapsed = Lapsed(stack, upstream, stream=False)
    await lapsed.prepare(clock, max_retries=0, stale_if_error=600, throttle=0)
    upstream.replies(failing(500))
    with pytest.raises(openai.InternalServerError):
        await lapsed.ask(extra_headers={"x-cache-control": "no-cache"})
    assert await lapsed.ask() == lapsed.first


async def test_what_was_invalidated_does_not_stand_in(
    async_stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    stack, network, gate, lost = async_stack, async_stack.network(), Gate(), False

    async def send(request: Any) -> Any:
        if lost:
            await gate.passed()
            raise stack.library.ConnectError("lost")
        return await network.handle_async_request(request)

    lapsed = Lapsed(stack, upstream, stream=False)
    await lapsed.prepare(clock, max_retries=0, inner=Inner(network, send), stale_if_error=600)
    lost = True
    calling = asyncio.create_task(lapsed.ask())
    await eventually(lambda: stack.manager._engine.flights._flights)
    await stack.manager.invalidate_category("model")
    gate.open()
    with pytest.raises(openai.APIConnectionError):
        await calling


@BOTH
async def test_a_failing_provider_is_left_alone_for_a_while(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool
) -> None:
    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, stale_if_error=600, throttle=30)
    upstream.replies(failing(503))
    for _ in range(3):
        assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 2
    clock.advance(30)
    upstream.answer = chat_reply
    assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 3
    assert requests(stack.manager) == {"miss": 2, "stale": 3, "loads": 2}


@BOTH
async def test_a_stale_answer_is_given_while_one_load_goes_on(
    stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool
) -> None:
    lapsed = Lapsed(stack, upstream, stream=stream)
    await lapsed.prepare(clock, stale_while_revalidate=600)
    new = event(piece("New")), event(piece(None, "stop")), DONE
    fields = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "New"}, "finish_reason": "stop"}]}
    upstream.replies(stream_reply(*new) if stream else json_reply(completion(**fields)))
    assert await lapsed.ask() == lapsed.first
    await eventually(lambda: count(stack.manager, names.STORES, {names.STORE_RESULT: "stored"}) == 2)
    assert "New" in str(await lapsed.ask())
    assert upstream.calls == 2
    assert requests(stack.manager) == {"miss": 1, "stale": 1, "hit l1": 1, "loads": 1}


async def test_a_refresh_that_fails_is_not_tried_at_each_hit(
    stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    lapsed = Lapsed(stack, upstream, stream=False)
    await lapsed.prepare(clock, stale_while_revalidate=600, throttle=30)
    upstream.replies(failing(503))
    assert await lapsed.ask() == lapsed.first
    await eventually(lambda: count(stack.manager, names.REFRESHES) == 1)
    for _ in range(3):
        assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 2
    clock.advance(30)
    assert await lapsed.ask() == lapsed.first
    await eventually(lambda: upstream.calls == 3)


async def test_whoever_wants_what_is_stored_gets_it_stale(stack: Stack, upstream: Upstream, clock: ManualClock) -> None:
    lapsed = Lapsed(stack, upstream, stream=False)
    await lapsed.prepare(clock, stale_while_revalidate=600)
    only = {"x-cache-control": "only-if-cached"}
    assert await lapsed.ask(extra_headers=only) == lapsed.first
    assert upstream.calls == 1
    clock.advance(600)
    with pytest.raises(openai.APIStatusError):
        await lapsed.ask(extra_headers=only)


# Failures that are remembered


@BOTH
async def test_a_failure_is_given_again(stack: Stack, upstream: Upstream, clock: ManualClock, stream: bool) -> None:
    client = stack.client(negative_ttl=30)
    upstream.replies(failing(503), chat_reply(Asked("POST", "", {}, b'{"stream":true}' if stream else b"{}")))
    first = await ask(stack, upstream, WIRE, stream=stream, client=client)
    assert (first.status, first.cache_status.partition(";")[2]) == (503, " fwd=miss; fwd-status=503")
    clock.advance(10.5)
    again = await ask(stack, upstream, WIRE, stream=stream, client=client)
    assert (again.status, again.body) == (503, first.body)
    assert again.cache_status.partition("; ")[2] == "hit; ttl=19; detail=negative"
    assert (again.headers["retry-after"], again.headers["age"]) == ("20", "10")
    clock.advance(19.5)
    assert (await ask(stack, upstream, WIRE, stream=stream, client=client)).status == 200
    assert upstream.calls == 2
    assert requests(stack.manager) == {"miss": 2, "hit negative": 1, "loads": 2}
    assert count(stack.manager, names.SAVED_UNKNOWN) == 0


async def test_it_is_for_the_same_call_alone(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(negative_ttl=30)
    upstream.replies(failing(503))
    await ask(stack, upstream, WIRE, client=client)
    await ask(stack, upstream, WIRE, client=client, temperature=0.5)
    await ask(stack, upstream, WIRE, client=client, headers={"authorization": "Bearer sk-two"})
    assert upstream.calls == 3


async def test_no_failure_is_given_for_longer_than_the_provider_says(
    stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    client = stack.client(negative_ttl=30)
    upstream.replies(failing(429, retry_after="2"))
    await ask(stack, upstream, WIRE, client=client)
    again = await ask(stack, upstream, WIRE, client=client)
    assert (again.status, again.headers["retry-after"]) == (429, "2")
    assert upstream.calls == 1
    clock.advance(2)
    await ask(stack, upstream, WIRE, client=client)
    upstream.replies(failing(429, retry_after="0"))
    clock.advance(2)
    for _ in range(2):
        await ask(stack, upstream, WIRE, client=client)
    assert upstream.calls == 4


async def test_sdks_are_told_when_to_try_again(stack: Stack, upstream: Upstream) -> None:
    """The second attempt meets the failure again and is told to wait for what is left; then it succeeds."""
    kind = f"{stack.library_name}-{'sync' if stack.blocking else 'async'}"
    async with opened() as manager, closing(Stack(kind, manager)) as own:  # in real time
        upstream.replies(failing(503), json_reply(completion()))
        sdk = own.sdk(upstream.url, max_retries=2, negative_ttl=1)
        assert await own.ask(sdk)
        assert upstream.calls == 2
        assert upstream.asked[1].headers["x-stainless-retry-count"] in ("1", "2")


async def test_fifty_calls_of_a_failing_provider_are_one(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    reply = failing(503)
    upstream.replies(Reply(503, reply.headers, [gate, *reply.chunks]))
    sdk = stack.sdk(upstream.url, negative_ttl=30)
    number = 8 if stack.blocking else 50
    calls = [asyncio.create_task(stack.ask(sdk)) for _ in range(number)]
    await upstream.arrived.happened()
    await eventually(lambda: stack.manager._engine.flights.waiting == number - 1)
    gate.open()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {openai.InternalServerError}
    assert upstream.calls == 1


@pytest.mark.parametrize("kind", ["ConnectError", "ReadTimeout"])
async def test_an_error_is_raised_again(stack: Stack, upstream: Upstream, clock: ManualClock, kind: str) -> None:
    attempts = 0

    def send(request: Any) -> Any:
        nonlocal attempts
        attempts += 1
        raise getattr(stack.library, kind)("lost")

    client = stack.client(inner=stack.mock(send), negative_ttl=30)
    for _ in range(3):
        with pytest.raises(getattr(stack.library, kind), match="lost") as raised:
            await ask(stack, upstream, WIRE, client=client)
        assert raised.value.request.url  # of the caller's own request
    assert attempts == 1
    clock.advance(30)
    with pytest.raises(getattr(stack.library, kind)):
        await ask(stack, upstream, WIRE, client=client)
    assert attempts == 2
    assert requests(stack.manager) == {"miss": 2, "hit negative": 2, "loads": 2}


async def test_a_timeout_says_nothing_to_those_who_wait_longer(
    stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    attempts: list[float] = []

    def send(request: Any) -> Any:
        attempts.append(request.extensions["timeout"]["read"])
        raise stack.library.ReadTimeout("slow")

    client = stack.client(inner=stack.mock(send), negative_ttl=30)
    path, body = WIRE.call(stream=False)
    for timeout in (2, 2, 1, 3, 3, None, None):
        with pytest.raises(stack.library.ReadTimeout):
            await stack.request("POST", upstream.url + path, client=client, json=body, timeout=timeout)
    assert attempts == [2, 3, None]


async def test_what_is_stored_later_ends_it(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(negative_ttl=30)
    upstream.replies(failing(503), json_reply(completion()))
    await ask(stack, upstream, WIRE, client=client)
    fresh = await ask(stack, upstream, WIRE, client=client, headers={"x-cache-control": "no-cache"})
    assert fresh.status == 200
    assert (await ask(stack, upstream, WIRE, client=client)).is_hit
    assert upstream.calls == 2


async def test_no_failure_takes_the_place_of_an_answer(stack: Stack, upstream: Upstream, clock: ManualClock) -> None:
    lapsed = Lapsed(stack, upstream, stream=False)
    await lapsed.prepare(clock, past=-30, max_retries=0, negative_ttl=30, stale_if_error=600)
    upstream.replies(failing(503))
    with pytest.raises(openai.InternalServerError):
        await lapsed.ask(extra_headers={"x-cache-control": "no-cache"})
    assert await lapsed.ask() == lapsed.first
    assert upstream.calls == 2


async def test_a_failure_that_is_too_long_is_not_remembered(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(negative_ttl=30)
    upstream.replies(json_reply({**FAILURE, "padding": "x" * 20_000}, status=503))
    for _ in range(2):
        assert len((await ask(stack, upstream, WIRE, client=client)).body) > 20_000
    assert upstream.calls == 2


# Options


async def test_single_calls_decide_for_themselves(stack: Stack, upstream: Upstream, clock: ManualClock) -> None:
    lapsed = Lapsed(stack, upstream, stream=False)
    await lapsed.prepare(clock, max_retries=0, stale_if_error=600, throttle=0)
    upstream.replies(failing(503))
    with pytest.raises(openai.InternalServerError):
        await lapsed.ask(extra_headers={"x-cache-control": "stale-if-error=3"})
    assert await lapsed.ask() == lapsed.first
    assert await lapsed.ask(extra_headers={"x-cache-control": "stale-while-revalidate=60"}) == lapsed.first


async def test_the_call_that_stores_an_answer_says_how_long_it_is_kept(
    stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    client = stack.client(ttl=60, throttle=0)
    upstream.replies(json_reply(completion()), failing(503))
    allowed = {"aurelis": {"stale_if_error": 600, "negative_ttl": 5}}
    await ask(stack, upstream, WIRE, client=client, extensions=allowed)
    clock.advance(65)
    stale = await ask(stack, upstream, WIRE, client=client, extensions=allowed)
    assert (stale.status, stale.cache_status.partition("; ")[2]) == (200, "fwd=stale; fwd-status=503; ttl=-5")
    assert (await ask(stack, upstream, WIRE, client=client)).status == 503


async def test_options_around_calls(async_stack: Stack, upstream: Upstream, clock: ManualClock) -> None:
    client = async_stack.client(ttl=60)
    upstream.replies(json_reply(completion()), failing(503))
    with cache_options(stale_if_error=600), cache_options(negative_ttl=5):
        await ask(async_stack, upstream, WIRE, client=client)
        clock.advance(65)
        assert (await ask(async_stack, upstream, WIRE, client=client)).status == 200


async def test_plain_responses_may_be_stale_as_their_request_says(
    stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    client = stack.client()
    upstream.replies(json_reply({"a": 1}, headers=[("cache-control", "max-age=10")]), json_reply({}, status=503))
    allowed = {"aurelis": {"stale_if_error": 600}}
    await stack.get(upstream.url + "/x", client=client, extensions=allowed)
    clock.advance(15)
    assert (await stack.get(upstream.url + "/x", client=client)).status == 200


@pytest.mark.parametrize("name", ["stale_while_revalidate", "stale_if_error", "throttle", "negative_ttl"])
async def test_wrong_options_are_refused(stack: Stack, upstream: Upstream, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        stack.transport(**{name: -1})
    with pytest.raises(TypeError, match=name):
        stack.transport(**{name: "long"})
    if name != "throttle":
        with pytest.raises(ConfigurationError, match=name):
            await ask(stack, upstream, WIRE, extensions={"aurelis": {name: -1}})


async def test_another_protocol_is_no_different(stack: Stack, upstream: Upstream, clock: ManualClock) -> None:
    wire = WIRES["ANTHROPIC"]
    upstream.answer = Model(wire)
    client = stack.client(ttl=60, stale_if_error=600)
    first = await ask(stack, upstream, wire, stream=True, client=client)
    clock.advance(65)
    upstream.replies(failing(529))
    assert (await ask(stack, upstream, wire, stream=True, client=client)).chunks == first.chunks


async def test_an_error_is_raised_anew_for_each_caller(stack: Stack, upstream: Upstream) -> None:
    def send(request: Any) -> Any:
        raise stack.library.ConnectError("lost")

    client = stack.client(inner=stack.mock(send), negative_ttl=30)
    caught: list[Any] = []
    for key in ("one", "two", "three"):
        try:
            raise LookupError(key)  # what this caller is doing when it asks
        except LookupError:
            with pytest.raises(stack.library.ConnectError) as raised:
                await ask(stack, upstream, WIRE, client=client)
        caught.append(raised.value)
    assert len(set(map(id, caught))) == 3
    assert len({id(error.request) for error in caught}) == 3


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        ("Fri, 02 Jan 1970 00:00:02 GMT", 2),
        ("1.5", 2),
        ("Fri, 02 Jan 1970 00:01:00 GMT", 1),
        ("soon", 1),
        ("\u00b2", 1),
    ],
)
async def test_providers_may_say_when_in_any_form(
    stack: Stack, upstream: Upstream, clock: ManualClock, value: str, calls: int
) -> None:
    attempts = 0

    def send(request: Any) -> Any:
        nonlocal attempts
        attempts += 1
        fields = {"date": "Fri, 02 Jan 1970 00:00:00 GMT", "retry-after": value.encode("latin-1")}
        return stack.library.Response(429, json=FAILURE, headers=fields)

    client = stack.client(inner=stack.mock(send), negative_ttl=30)
    for _ in range(2):
        assert (await ask(stack, upstream, WIRE, client=client)).status == 429
    assert attempts == 1
    clock.advance(2)
    assert (await ask(stack, upstream, WIRE, client=client)).status == 429
    assert attempts == calls


async def test_the_body_of_an_error_is_not_begun_before_it_is_clear_whose_it_is(
    async_stack: Stack, upstream: Upstream, clock: ManualClock
) -> None:
    stack, network, gate, body = async_stack, async_stack.network(), Gate(), b" " * 20_000
    came = asyncio.Event()

    async def send(request: Any) -> Any:
        response = await network.handle_async_request(request)
        if response.status_code == 503:
            came.set()
        return response

    lapsed = Lapsed(stack, upstream, stream=False)
    options: Any = {"inner": Inner(network, send), "negative_ttl": 30, "stale_if_error": 600}
    await lapsed.prepare(clock, max_retries=0, **options)
    upstream.replies(Reply(503, [*JSON, ("content-length", str(len(body)))], [gate, body]))
    calling = asyncio.create_task(lapsed.ask())
    await came.wait()
    await stack.manager.invalidate_category("model")
    gate.open()
    assert await calling == lapsed.first


async def test_no_failure_takes_the_place_of_an_answer_that_another_process_has(
    stack: Stack, upstream: Upstream, redis_url: str
) -> None:
    kind = f"{stack.library_name}-{'sync' if stack.blocking else 'async'}"
    config = configuration(redis_url=redis_url, timeout=5.0)
    async with (
        opened(config) as one,
        closing(Stack(kind, one)) as first,
        opened(replace(config, name=f"{config.name}-2", namespace=config.namespace)) as two,
        closing(Stack(kind, two)) as second,
    ):
        failed, good = first.client(negative_ttl=30), second.client()
        upstream.replies(failing(503), json_reply(completion()))
        assert (await ask(first, upstream, WIRE, client=failed)).status == 503
        assert (await ask(first, upstream, WIRE, client=failed)).status == 503
        assert (await ask(second, upstream, WIRE, client=good)).status == 200
        assert (await ask(first, upstream, WIRE, client=failed)).is_hit
        assert upstream.calls == 2
        assert requests(one) == {"miss": 1, "hit negative": 1, "hit l2": 1, "loads": 1}


@pytest.mark.parametrize("value", ["hello", ["hello", "you"]], ids=["one", "several"])
async def test_windows_may_be_without_end(
    stack: Stack, upstream: Upstream, clock: ManualClock, value: str | list[str]
) -> None:
    ends: dict[str, Any] = dict.fromkeys(
        ("stale_while_revalidate", "stale_if_error", "throttle", "negative_ttl"), math.inf
    )
    client = stack.client(**ends)
    upstream.replies(failing(503))
    for _ in range(2):
        body = {"model": "m", "input": value}
        failed = await stack.send("POST", upstream.url + "/v1/embeddings", client=client, json=body)
        assert (failed.status, json.loads(failed.body)) == (503, FAILURE)
        clock.advance(1e9)
    assert "retry-after" not in failed.headers
    assert failed.is_hit
    assert upstream.calls == 1
