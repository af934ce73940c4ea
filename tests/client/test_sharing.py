"""One manager behind several kinds of clients, and several managers on one Redis."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from aurelis.cache import CacheManager
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import BREAK, Gate, Reply, Upstream, stream_reply
from tests.managers import configuration, eventually, opened, requests
from tests.models.examples import STREAM, chat

CREDENTIALS = ("sk-header-5ecre7", "sk-query-5ecre7", "cookie-5ecre7", "user-5ecre7", "password-5ecre7")
PROMPT = "a prompt that nobody else may read"
PAIRS = list(itertools.permutations(KINDS, 2))


@pytest.fixture(params=PAIRS, ids="/".join)
async def pair(request: pytest.FixtureRequest, manager: CacheManager) -> AsyncIterator[tuple[Stack, Stack]]:
    """Two kinds of clients over one manager."""
    one, other = request.param
    async with closing(Stack(one, manager)) as first, closing(Stack(other, manager)) as second:
        yield first, second


async def test_what_one_has_loaded_the_other_finds(pair: tuple[Stack, Stack], upstream: Upstream) -> None:
    one, other = pair
    url = f"{upstream.url}/v1/chat/completions"
    loaded = await one.send("POST", url, json=chat(stream=True))
    found = await other.send("POST", url, json=chat(stream=True))
    assert found.is_hit
    assert found.chunks == loaded.chunks
    assert isinstance(found.request, other.library.Request)
    assert upstream.calls == 1


async def test_what_one_is_loading_the_other_shares(pair: tuple[Stack, Stack], upstream: Upstream) -> None:
    one, other = pair
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, *STREAM[1:]))
    url = f"{upstream.url}/v1/chat/completions"
    first = await one.open("POST", url, json=chat(stream=True))
    second = await other.open("POST", url, json=chat(stream=True))
    assert isinstance(second.response, other.library.Response)
    assert await first.chunk() == await second.chunk() == STREAM[0]
    rest = asyncio.create_task(first.rest())
    gate.open()
    assert await second.rest() == await rest == list(STREAM[1:])
    await first.close()
    await second.close()
    assert upstream.calls == 1


async def test_errors_are_of_the_caller_s_library(pair: tuple[Stack, Stack], upstream: Upstream) -> None:
    one, other = pair
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, BREAK))
    url = f"{upstream.url}/v1/chat/completions"
    first = await one.open("POST", url, json=chat(stream=True))
    second = await other.open("POST", url, json=chat(stream=True))
    assert await first.chunk() == await second.chunk() == STREAM[0]
    rest = asyncio.create_task(first.rest())
    gate.open()
    with pytest.raises(other.library.RemoteProtocolError):
        await second.rest()
    with pytest.raises(one.library.RemoteProtocolError):
        await rest
    await first.close()
    await second.close()


async def test_errors_before_there_is_an_answer_are_of_the_caller_s_library(pair: tuple[Stack, Stack]) -> None:
    one, other = pair
    gate = Gate()
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def enter() -> None:
        loop.call_soon_threadsafe(entered.set)

    class Inner(one.library.BaseTransport, one.library.AsyncBaseTransport):  # type: ignore[misc,name-defined]  # of either
        def handle_request(self, request: Any) -> Any:
            enter()
            asyncio.run(gate.passed())
            raise one.library.ConnectTimeout("too slow")

        async def handle_async_request(self, request: Any) -> Any:
            enter()
            await gate.passed()
            raise one.library.ConnectTimeout("too slow")

    url = "http://example.com/v1/chat/completions"
    client = one.client(one.transport(Inner()))
    first = asyncio.create_task(one.send("POST", url, json=chat(), client=client))
    await entered.wait()
    second = asyncio.create_task(other.send("POST", url, json=chat()))
    await eventually(lambda: one.manager._engine.flights.waiting == 1)
    gate.open()
    with pytest.raises(one.library.ConnectTimeout):
        await first
    with pytest.raises(other.library.ConnectTimeout, match="too slow") as caught:
        await second
    assert isinstance(caught.value.request, other.library.Request)


# --- through Redis


@pytest.fixture(params=KINDS)
async def two(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[tuple[Stack, Stack]]:
    """Clients over two managers, as in two processes, that share a Redis."""
    config = configuration(redis_url=redis_url, timeout=5)
    async with (
        opened(config) as one,
        opened(configuration(redis_url=redis_url, timeout=5)) as other,
        closing(Stack(request.param, one)) as first,
        closing(Stack(request.param, other)) as second,
    ):
        yield first, second


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_two_managers_share_answers_through_redis(
    two: tuple[Stack, Stack], upstream: Upstream, stream: bool
) -> None:
    one, other = two
    first = await one.ask(one.sdk(upstream.url), stream=stream)
    assert await other.ask(other.sdk(upstream.url), stream=stream) == first
    assert await other.ask(other.sdk(upstream.url), stream=stream) == first
    assert upstream.calls == 1
    assert requests(other.manager) == {"hit l2": 1, "hit l1": 1}


async def test_two_managers_share_responses_and_their_variants(two: tuple[Stack, Stack], upstream: Upstream) -> None:
    one, other = two
    upstream.replies(Reply(200, [("cache-control", "max-age=60"), ("vary", "accept-language")], [b"x"], length=True))
    for language in ("de", "fr"):
        await one.get(upstream.url, headers={"accept-language": language})
    for language in ("de", "fr", "de", "fr"):
        assert (await other.get(upstream.url, headers={"accept-language": language})).is_hit
    assert upstream.calls == 2


async def test_chunks_are_the_same_after_redis(two: tuple[Stack, Stack], upstream: Upstream) -> None:
    one, other = two
    url = f"{upstream.url}/v1/chat/completions"
    loaded = await one.send("POST", url, json=chat(stream=True))
    found = await other.send("POST", url, json=chat(stream=True))
    assert found.is_hit
    assert found.chunks == loaded.chunks


async def test_credentials_and_prompts_appear_nowhere(
    two: tuple[Stack, Stack], upstream: Upstream, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in keys nor in values of Redis, nor in what our loggers say."""
    caplog.set_level(logging.DEBUG, "aurelis")
    _, other = two
    header, query, cookie, user, password = CREDENTIALS
    fields = {"authorization": f"Bearer {header}", "x-api-key": header, "cookie": f"session={cookie}"}
    messages = [{"role": "user", "content": PROMPT}]
    url = upstream.url.replace("//", f"//{user}:{password}@")
    for stack in two:
        for stream in (False, True):
            answer = await stack.send(
                "POST",
                f"{url}/v1/chat/completions?key={query}",
                json=chat(messages=messages, stream=stream),
                headers=fields,
            )
            assert answer.is_hit is (stack is other)
    upstream.replies(Reply(200, [("cache-control", "max-age=60"), ("vary", "authorization, cookie")], [b"x"]))
    for stack in two:
        assert (await stack.get(f"{url}?key={query}", headers=fields)).is_hit is (stack is other)

    async with Redis.from_url(redis_url) as redis:
        stored = [(key, await redis.dump(key)) async for key in redis.scan_iter()]
    entries = [key for key, _ in stored if key.startswith(b"aurelis:e:")]
    assert len(entries) == 4  # two calls, a response and the index of its variants
    said = [
        repr((record.getMessage(), record.exc_text)) for record in caplog.records if record.name.startswith("aurelis")
    ]
    everything = b"".join(key + value for key, value in stored) + "".join(said).encode()
    found = [secret for secret in (*CREDENTIALS, PROMPT) if secret.encode() in everything]
    assert found == []


async def test_a_call_with_other_credentials_finds_nothing_in_redis(
    two: tuple[Stack, Stack], upstream: Upstream
) -> None:
    one, other = two
    await one.ask(one.sdk(upstream.url))
    await other.ask(other.sdk(upstream.url, api_key="sk-two"))
    assert upstream.calls == 2
