"""Calls through Anthropic's SDK, which stands on httpx2."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import pytest

from aurelis.cache import CacheManager, cache_options
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport, wrap
from tests.client.model_server import Model
from tests.client.stack import in_thread
from tests.client.upstream import Asked, Gate, Reply, Upstream, json_reply, stream_reply
from tests.managers import eventually
from tests.models.wire import WIRES, named

WIRE = WIRES["ANTHROPIC"]
USER = {"role": "user", "content": "What is the weather in Paris?"}
TOOL = {"name": "weather", "description": "x", "input_schema": {"type": "object", "properties": {}}}
IMAGE = {
    "role": "user",
    "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "text", "text": "What is it?"},
    ],
}
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class Claude:
    """One client of the SDK, with or without an event loop; `wrapped`: the cache is put into one that is there."""

    def __init__(self, manager: CacheManager, url: str, mode: str, **options: Any) -> None:
        self.blocking = mode == "sync"
        make: Any = anthropic.Anthropic if self.blocking else anthropic.AsyncAnthropic
        library: Any = httpx2.Client if self.blocking else httpx2.AsyncClient
        transport: Any = CacheTransport if self.blocking else AsyncCacheTransport
        settings = {"api_key": "sk-ant-one", "base_url": url, "max_retries": 0, **options}
        if settings.pop("wrapped", False):
            self.client = wrap(make(**settings), cache=manager)
        else:
            network: Any = httpx2.HTTPTransport if self.blocking else httpx2.AsyncHTTPTransport
            http_client = library(transport=transport(network(verify=False), cache=manager), timeout=10)
            self.client = make(http_client=http_client, **settings)

    async def ask(self, **changes: Any) -> Any:
        """A call, read to its end: what the SDK makes of the answer, or of each event of a stream."""
        call = {"model": "claude-test", "max_tokens": 64, "messages": [USER], **changes}
        create = self.client.messages.create
        if self.blocking:
            return await in_thread(lambda: _dumped(create(**call)))
        answer = await create(**call)
        if changes.get("stream"):
            return [event.model_dump() async for event in answer]
        return answer.model_dump()

    async def final(self) -> Any:
        """A call by the SDK's helper for streams: the text as it comes, and the message in the end."""
        call: Any = {"model": "claude-test", "max_tokens": 64, "messages": [USER]}
        if self.blocking:

            def read() -> Any:
                with self.client.messages.stream(**call) as stream:
                    return list(stream.text_stream), stream.get_final_message().model_dump()

            return await in_thread(read)
        async with self.client.messages.stream(**call) as stream:
            return [text async for text in stream.text_stream], (await stream.get_final_message()).model_dump()

    async def close(self) -> None:
        """Close it."""
        if self.blocking:
            self.client.close()
        else:
            await self.client.close()


def _dumped(answer: Any) -> Any:
    if isinstance(answer, anthropic.Stream):
        return [event.model_dump() for event in answer]
    return answer.model_dump()


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture
async def claude(mode: str, manager: CacheManager, upstream: Upstream) -> AsyncIterator[Claude]:
    upstream.answer = Model(WIRE)
    made = Claude(manager, upstream.url, mode)
    yield made
    await made.close()


@BOTH
async def test_a_client_that_is_there_gets_a_cache(
    mode: str, manager: CacheManager, upstream: Upstream, stream: bool
) -> None:
    upstream.answer = Model(WIRE)
    client = Claude(manager, upstream.url, mode, wrapped=True)
    first = await client.ask(stream=stream)
    assert await client.ask(stream=stream) == first
    assert upstream.calls == 1
    await client.close()


@BOTH
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"system": "Be brief.", "extra_body": {"temperature": 0.2}},
        {"tools": [TOOL], "tool_choice": {"type": "auto"}},
        {"messages": [IMAGE]},
        {"metadata": {"user_id": "u"}},
        {"extra_body": {"unheard_of": 1}},
        {"extra_headers": {"anthropic-beta": "a,b"}},
    ],
    ids=str,
)
async def test_the_second_identical_call_is_answered_from_the_cache(
    claude: Claude, upstream: Upstream, stream: bool, changes: dict[str, Any]
) -> None:
    first = await claude.ask(stream=stream, **changes)
    assert await claude.ask(stream=stream, **changes) == first
    assert upstream.calls == 1
    assert len(first) == (len(WIRE.chunks) - 1 if stream else len(first))  # it does not show pings


async def test_the_helper_for_streams_sees_the_same_again(claude: Claude, upstream: Upstream) -> None:
    first = await claude.final()
    assert first[0] == ["He message_stop"]
    assert await claude.final() == first
    assert upstream.calls == 1


@BOTH
@pytest.mark.parametrize(
    "changes",
    [
        {"model": "claude-other"},
        {"max_tokens": 65},
        {"system": "x"},
        {"extra_body": {"temperature": 0.5}},
        {"messages": [IMAGE]},
        {"tools": [TOOL]},
        {"extra_headers": {"anthropic-beta": "x"}},
        {"extra_headers": {"anthropic-version": "2020-01-01"}},
        {"extra_headers": {"x-api-key": "sk-ant-two"}},
        {"extra_query": {"beta": "true"}},
        {"workspace_id": "wrkspc_1"},
        {"user_profile_id": "uprof_1"},
        {"extra_body": {"unheard_of": 1}},
    ],
    ids=str,
)
async def test_another_call_is_not_answered_by_it(
    claude: Claude, upstream: Upstream, stream: bool, changes: dict[str, Any]
) -> None:
    await claude.ask(stream=stream)
    await claude.ask(stream=stream, **changes)
    assert upstream.calls == 2


@BOTH
@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"user_id": "u"}},
        {"extra_headers": {"x-trace": "1"}},
        {"extra_headers": {"anthropic-beta": "b, a"}},
    ],
    ids=str,
)
async def test_what_leaves_the_answer_alone_is_no_other_call(
    claude: Claude, upstream: Upstream, stream: bool, changes: dict[str, Any]
) -> None:
    base = {"extra_headers": {"anthropic-beta": "a,b"}} if "anthropic-beta" in str(changes) else {}
    await claude.ask(stream=stream, **base)
    await claude.ask(stream=stream, **changes)
    assert upstream.calls == 1


async def test_another_key_is_another_caller(mode: str, manager: CacheManager, upstream: Upstream) -> None:
    upstream.answer = Model(WIRE)
    for key in ("sk-ant-one", "sk-ant-two"):
        client = Claude(manager, upstream.url, mode, api_key=key)
        await client.ask()
        await client.ask()
        await client.close()
    assert upstream.calls == 2


@pytest.mark.parametrize("fault", ["error", "unterminated", "length", "filtered"])
async def test_what_is_no_whole_stream_is_not_stored(claude: Claude, upstream: Upstream, fault: str) -> None:
    upstream.answer = Model(WIRE, frozenset({fault}))
    for _ in range(2):
        if fault == "error":
            with pytest.raises(anthropic.APIStatusError):
                await claude.ask(stream=True)
        else:
            await claude.ask(stream=True)
    assert upstream.calls == 2


async def test_a_dropped_connection_is_an_error_and_is_not_stored(claude: Claude, upstream: Upstream) -> None:
    upstream.answer = Model(WIRE, frozenset({"drop"}))
    with pytest.raises((httpx2.RemoteProtocolError, anthropic.APIConnectionError)):
        await claude.ask(stream=True)
    upstream.answer = Model(WIRE)
    await claude.ask(stream=True)
    assert upstream.calls == 2


async def test_what_an_sdk_retries_is_stored_in_the_end(mode: str, manager: CacheManager, upstream: Upstream) -> None:
    upstream.answer = Model(WIRE, frozenset({"busy"}))
    client = Claude(manager, upstream.url, mode, max_retries=2)
    first = await client.ask()
    assert await client.ask() == first
    assert upstream.calls == 2
    await client.close()


async def test_fifty_identical_calls_at_once_ask_once(claude: Claude, upstream: Upstream) -> None:
    gate, number = Gate(), 20 if claude.blocking else 50  # each that blocks needs a thread
    upstream.answer = Model(WIRE, gate=gate)
    calls = [asyncio.create_task(claude.ask(stream=True)) for _ in range(number)]
    await upstream.arrived.happened()
    flights = claude_flights(claude)
    await eventually(lambda: flights.waiting == number - 1)
    gate.open()
    answers = await asyncio.gather(*calls)
    assert upstream.calls == 1
    assert all(answer == answers[0] for answer in answers)


def claude_flights(claude: Claude) -> Any:
    return claude.client._client._transport._cache._models.engine.flights


async def test_only_if_cached_is_not_tried_again(mode: str, manager: CacheManager, upstream: Upstream) -> None:
    client = Claude(manager, upstream.url, mode, max_retries=2)
    with pytest.raises(anthropic.InternalServerError) as caught:
        await client.ask(extra_headers={"x-cache-control": "only-if-cached"})
    assert caught.value.status_code == 504
    assert upstream.calls == 0
    await client.close()


async def test_a_loop_of_tool_calls_replays_whole(claude: Claude, upstream: Upstream) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}

    def answer(asked: Asked) -> Reply:
        if b"tool_result" in asked.body:
            return json_reply(WIRE.whole)
        return json_reply({**WIRE.whole, "content": [use], "stop_reason": "tool_use"})

    upstream.answer = answer

    async def loop() -> list[Any]:
        messages: list[Any] = [USER]
        answers = []
        while True:
            message = await claude.ask(messages=messages, tools=[TOOL])
            answers.append(message)
            if message["stop_reason"] != "tool_use":
                return answers
            content = [{key: block[key] for key in ("type", "id", "name", "input")} for block in message["content"]]
            result = {"type": "tool_result", "tool_use_id": message["content"][0]["id"], "content": "sunny"}
            messages += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]

    first = await loop()
    assert len(first) == 2
    assert await loop() == first
    assert upstream.calls == 2


async def test_a_streamed_tool_call_replays_whole(claude: Claude, upstream: Upstream) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    upstream.replies(
        stream_reply(
            WIRE.chunks[0],
            named("content_block_start", {"type": "content_block_start", "index": 0, "content_block": use}),
            *(
                named(
                    "content_block_delta",
                    {
                        "type": "content_block_delta",
                        "index": 0,
                        "delta": {"type": "input_json_delta", "partial_json": part},
                    },
                )
                for part in ('{"city":', ' "message_stop"}')
            ),
            named("content_block_stop", {"type": "content_block_stop", "index": 0}),
            *(WIRE.end("tool_use") if WIRE.end else ()),
        )
    )
    first = await claude.final()
    assert first[1]["content"][0]["input"] == {"city": "message_stop"}
    assert await claude.final() == first
    assert upstream.calls == 1


async def test_options_around_a_call_reach_it(manager: CacheManager, upstream: Upstream) -> None:
    upstream.answer = Model(WIRE)
    client = Claude(manager, upstream.url, "async")
    with cache_options(bypass=True):
        await client.ask()
    await client.ask()
    assert upstream.calls == 2
    await client.close()
