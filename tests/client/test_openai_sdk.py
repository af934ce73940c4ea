"""Calls of every kind through OpenAI's SDK, of both libraries, and clients that are there already."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import openai
import pydantic
import pytest

from aurelis.cache.exceptions import ConfigurationError
from tests.client.model_server import Model
from tests.client.stack import Stack, in_thread
from tests.client.upstream import Asked, Gate, Reply, Upstream, json_reply, stream_reply
from tests.managers import eventually
from tests.models.examples import DONE, completion, event, piece
from tests.models.wire import WIRES

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "What is the weather in Paris?"}


class City(pydantic.BaseModel):
    name: str
    people: int


async def done(stack: Stack, call: Callable[[], Any]) -> Any:
    """What a call of the SDK gives, read to its end."""
    if stack.blocking:
        return await in_thread(lambda: _dumped(call()))
    answer = await call()
    if isinstance(answer, openai.AsyncStream):
        return [event.model_dump() async for event in answer]
    return answer.model_dump()


def _dumped(answer: Any) -> Any:
    return [event.model_dump() for event in answer] if isinstance(answer, openai.Stream) else answer.model_dump()


@pytest.fixture(params=["made", "wrapped"])
async def sdk(request: pytest.FixtureRequest, stack: Stack, upstream: Upstream) -> AsyncIterator[Any]:
    """A client with a cache, made so or given one."""
    if request.param == "made":
        yield stack.sdk(upstream.url)
        return
    make: Any = openai.OpenAI if stack.blocking else openai.AsyncOpenAI
    client = stack.library.Client(verify=False) if stack.blocking else stack.library.AsyncClient(verify=False)
    own = make(api_key="sk-one", base_url=f"{upstream.url}/v1", max_retries=0, http_client=client)
    assert stack.package.wrap(own, cache=stack.manager) is own
    yield own
    await in_thread(own.close) if stack.blocking else await own.close()


@BOTH
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"instructions": "Be brief.", "temperature": 0.2},
        {"tools": [{"type": "function", "name": "w", "parameters": {}, "strict": False}]},
        {"text": {"format": {"type": "json_object"}}},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,iVBO"}]}]},
        {"store": False, "include": ["reasoning.encrypted_content"]},
    ],
    ids=str,
)
async def test_a_response_is_answered_from_the_cache(
    stack: Stack, upstream: Upstream, sdk: Any, stream: bool, changes: dict[str, Any]
) -> None:
    upstream.answer = Model(WIRES["RESPONSES"])
    call = {"model": "gpt-4o-mini", "input": "Hello", "stream": stream, **changes}
    first = await done(stack, lambda: sdk.responses.create(**call))
    assert await done(stack, lambda: sdk.responses.create(**call)) == first
    assert upstream.calls == 1
    assert len(first) == (len(WIRES["RESPONSES"].chunks) if stream else len(first))


@pytest.mark.parametrize(
    "changes",
    [
        {"previous_response_id": "resp_0"},
        {"conversation": "conv_1"},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    ],
    ids=str,
)
async def test_a_response_that_depends_on_more_is_not(
    stack: Stack, upstream: Upstream, changes: dict[str, Any]
) -> None:
    upstream.answer = Model(WIRES["RESPONSES"])
    sdk = stack.sdk(upstream.url)
    for _ in range(2):
        await done(stack, lambda: sdk.responses.create(model="gpt-4o-mini", input="Hello", **changes))
    assert upstream.calls == 2


@pytest.mark.parametrize("fault", ["unterminated", "length", "filtered"])
async def test_what_is_no_whole_stream_of_a_response_is_not_stored(
    stack: Stack, upstream: Upstream, fault: str
) -> None:
    upstream.answer = Model(WIRES["RESPONSES"], frozenset({fault}))
    sdk = stack.sdk(upstream.url)
    for _ in range(2):
        await done(stack, lambda: sdk.responses.create(model="gpt-4o-mini", input="Hello", stream=True))
    assert upstream.calls == 2


async def test_an_error_within_the_stream_of_a_response_is_not_stored(stack: Stack, upstream: Upstream) -> None:
    upstream.answer = Model(WIRES["RESPONSES"], frozenset({"error"}))
    sdk = stack.sdk(upstream.url)
    for _ in range(2):
        try:
            await done(stack, lambda: sdk.responses.create(model="gpt-4o-mini", input="Hello", stream=True))
        except openai.APIError:
            continue
    assert upstream.calls == 2


async def test_embeddings_are_answered_from_the_cache(stack: Stack, upstream: Upstream, sdk: Any) -> None:
    upstream.answer = Model(WIRES["EMBEDDINGS"])

    def call(**changes: Any) -> Any:
        return lambda: sdk.embeddings.create(
            **{"model": "m", "input": ["a", "b"], "encoding_format": "float", **changes}
        )

    first = await done(stack, call())
    assert await done(stack, call(user="u")) == first
    assert upstream.calls == 1
    await done(stack, call(input=["b", "a"]))  # by item; see test_items
    assert upstream.calls == 1
    await done(stack, call(dimensions=2))
    assert upstream.calls == 2


@BOTH
async def test_completions_are_answered_from_the_cache(
    stack: Stack, upstream: Upstream, sdk: Any, stream: bool
) -> None:
    upstream.answer = Model(WIRES["OPENAI_COMPLETIONS"])
    call = {"model": "m", "prompt": "Hello", "stream": stream}
    first = await done(stack, lambda: sdk.completions.create(**call))
    assert await done(stack, lambda: sdk.completions.create(**call)) == first
    assert upstream.calls == 1


async def test_structured_output_is_answered_from_the_cache(stack: Stack, upstream: Upstream, sdk: Any) -> None:
    message = {"role": "assistant", "content": json.dumps({"name": "Paris", "people": 2_000_000})}
    upstream.replies(json_reply(completion(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])))

    async def parse() -> Any:
        call: Any = {"model": "m", "messages": [USER], "response_format": City}
        if stack.blocking:
            return await in_thread(lambda: sdk.chat.completions.parse(**call))
        return await sdk.chat.completions.parse(**call)

    first, again = await parse(), await parse()
    assert first.choices[0].message.parsed == again.choices[0].message.parsed == City(name="Paris", people=2_000_000)
    assert upstream.calls == 1


@BOTH
async def test_a_loop_of_tool_calls_replays_whole(stack: Stack, upstream: Upstream, sdk: Any, stream: bool) -> None:
    use = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}

    def answer(asked: Asked) -> Reply:
        if b'"tool"' in asked.body:
            return Model(WIRES["OPENAI_CHAT"])(asked)
        if not stream:
            message = {"role": "assistant", "content": None, "tool_calls": [use]}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            return json_reply(completion(choices=[choice]))
        part = piece()
        part["choices"] = [{"index": 0, "delta": {"tool_calls": [{"index": 0, **use}]}, "finish_reason": None}]
        return stream_reply(event(part), event(piece(None, "tool_calls")), DONE)

    upstream.answer = answer

    async def loop() -> list[Any]:
        messages: list[Any] = [USER]
        answers = []
        for _ in range(2):
            call = {"model": "m", "messages": list(messages), "tools": [TOOL], "stream": stream}
            answers.append(await done(stack, partial(sdk.chat.completions.create, **call)))
            messages += [
                {"role": "assistant", "tool_calls": [use]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            ]
        return answers

    first = await loop()
    assert "call_1" in str(first[0])
    assert await loop() == first
    assert upstream.calls == 2


async def test_fifty_identical_calls_at_once_ask_once(async_stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.answer = Model(WIRES["RESPONSES"], gate=gate)
    sdk = async_stack.sdk(upstream.url)

    def call() -> Any:
        return sdk.responses.create(model="gpt-4o-mini", input="Hello", stream=True)

    calls = [asyncio.create_task(done(async_stack, call)) for _ in range(50)]
    await upstream.arrived.happened()
    await eventually(lambda: async_stack.manager._engine.flights.waiting == len(calls) - 1)
    gate.open()
    answers = await asyncio.gather(*calls)
    assert upstream.calls == 1
    assert all(answer == answers[0] for answer in answers)


# Clients that are there already


async def test_a_client_of_the_library_is_wrapped(stack: Stack, upstream: Upstream) -> None:
    upstream.answer = Model(WIRES["COHERE"])
    client = stack.library.Client() if stack.blocking else stack.library.AsyncClient()
    stack.package.wrap(client, cache=stack.manager, ttl=60, key_headers=["x-tenant"])
    for hit in (False, True):
        answer = await stack.send("POST", f"{upstream.url}/v2/chat", client=client, json=WIRES["COHERE"].body)
        assert answer.is_hit is hit
    await in_thread(client.close) if stack.blocking else await client.aclose()


async def test_copies_of_a_client_have_its_cache(stack: Stack, upstream: Upstream, sdk: Any) -> None:
    upstream.answer = Model(WIRES["RESPONSES"])
    for client in (sdk, sdk.with_options(timeout=7)):
        await done(stack, partial(client.responses.create, model="m", input="Hello"))
    assert upstream.calls == 1


async def test_proxies_are_wrapped_too(stack: Stack) -> None:
    make = stack.library.Client if stack.blocking else stack.library.AsyncClient
    transport = stack.library.HTTPTransport if stack.blocking else stack.library.AsyncHTTPTransport
    client = make(mounts={"http://proxied.example": transport(), "http://direct.example": None})
    stack.package.wrap(client, cache=stack.manager)
    kinds = [type(mounted).__name__ for mounted in client._mounts.values()]
    assert sorted(kinds) == sorted([type(client._transport).__name__, "NoneType"])
    await in_thread(client.close) if stack.blocking else await client.aclose()


async def test_a_client_has_one_cache(stack: Stack, sdk: Any) -> None:
    with pytest.raises(ConfigurationError, match="has a cache already"):
        stack.package.wrap(sdk, cache=stack.manager)


@pytest.mark.parametrize("what", [None, object(), "client"])
def test_what_has_no_client_is_refused(stack: Stack, what: object) -> None:
    with pytest.raises(TypeError, match=f"no client of {stack.library_name}"):
        stack.package.wrap(what)


async def test_a_client_of_the_other_library_is_refused(stack: Stack) -> None:
    other = importlib.import_module("httpx" if stack.library_name == "httpx2" else "httpx2")
    with other.Client() as client, pytest.raises(TypeError, match=f"no client of {stack.library_name} in Client"):
        stack.package.wrap(client)
