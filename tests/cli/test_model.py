"""The stand-in for a chat model, asked by the official SDK."""

from collections.abc import AsyncIterator

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from aurelis_cli.demo.model import FIRST_TOKEN, MAX_TOKENS, TOKEN, StandIn, reply

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Answer from these facts:\n- anyio 4: runs tasks. Required by starlette."},
    {"role": "user", "content": "What is anyio for?"},
]
EXPECTED = "anyio 4: runs tasks. Required by starlette. That is all I can say to: What is anyio for?"


@pytest.fixture
def stand_in() -> StandIn:
    """One that does not dawdle."""
    return StandIn(pace=0.0)


@pytest.fixture
async def client(stand_in: StandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK on the stand-in."""
    transport = httpx2.ASGITransport(app=stand_in.app())
    async with openai.AsyncOpenAI(
        api_key="none",
        base_url="http://model/v1",
        http_client=httpx2.AsyncClient(transport=transport),
        max_retries=0,
    ) as sdk:
        yield sdk


async def test_it_answers_from_the_facts_in_the_prompt(client: openai.AsyncOpenAI, stand_in: StandIn) -> None:
    completion = await client.chat.completions.create(model="m", messages=MESSAGES)
    assert completion.choices[0].message.content == EXPECTED
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(EXPECTED.split())
    assert (stand_in.calls.started, stand_in.calls.finished) == (1, 1)


async def test_it_streams_the_same_answer_with_its_usage_last(client: openai.AsyncOpenAI, stand_in: StandIn) -> None:
    stream = await client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == EXPECTED
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(EXPECTED.split())
    assert (stand_in.calls.started, stand_in.calls.finished) == (1, 1)


async def test_without_being_asked_it_streams_no_usage(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert all([chunk.usage is None async for chunk in stream])


async def test_a_request_without_messages_is_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        await client.chat.completions.create(model="m", messages=[])


def test_the_answer_depends_on_the_prompt_and_on_nothing_else() -> None:
    prompt = [{"role": "user", "content": "one"}]
    assert reply("m", prompt) == reply("m", prompt)
    assert reply("m", prompt).id != reply("other", prompt).id
    assert reply("m", prompt) != reply("m", [{"role": "user", "content": "two"}])


def test_it_is_as_slow_as_a_quick_model() -> None:
    answer = reply("m", [{"role": "user", "content": "word " * 200}])
    (_, first), *rest = answer.pieces
    assert len(answer.pieces) == MAX_TOKENS
    assert 0.8 * FIRST_TOKEN <= first <= 1.2 * FIRST_TOKEN
    assert all(TOKEN[0] <= delay <= TOKEN[1] for _, delay in rest)


async def test_texts_with_the_same_words_have_embeddings_near_each_other(
    client: openai.AsyncOpenAI, stand_in: StandIn
) -> None:
    texts = ["a web framework", "another web framework", "colours for terminals"]
    answer = await client.embeddings.create(model="e", input=texts, encoding_format="float")
    one, near, far = (each.embedding for each in answer.data)
    assert sum(a * b for a, b in zip(one, near, strict=True)) > sum(a * b for a, b in zip(one, far, strict=True))
    assert answer.usage.prompt_tokens == 9
    assert (stand_in.calls.started, stand_in.calls.finished) == (1, 1)


async def test_embeddings_of_nothing_are_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="texts"):
        await client.embeddings.create(model="e", input=[])


async def test_in_trouble_it_is_busy_ends_too_early_or_breaks_off(stand_in: StandIn) -> None:
    """One after the other, and the calls are counted all the same."""
    transport = httpx2.ASGITransport(app=stand_in.app(), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://model") as plain:
        assert (await plain.put("/faults?name=model&name=app")).status_code == 204
        call = {"model": "m", "messages": MESSAGES, "stream": True}
        answers = [await plain.post("/v1/chat/completions", json=call) for _ in range(3)]
        assert [answer.status_code for answer in answers].count(429) == 1
        assert not any("[DONE]" in answer.text for answer in answers)
        assert (await plain.post("/v1/embeddings", json={"model": "e", "input": ["a"]})).status_code == 429
        await plain.put("/faults")
        assert "[DONE]" in (await plain.post("/v1/chat/completions", json=call)).text
        assert (await plain.get("/calls")).json() == {"started": 5, "finished": 1}
