"""Model calls through the official SDK: what is answered from the cache, and what must not be."""

import asyncio
import gzip
from typing import Any

import openai
import pytest

from aurelis.cache.telemetry import names
from tests.client.stack import Stack
from tests.client.upstream import BREAK, Asked, Gate, Reply, Upstream, chat_reply, json_reply, stream_reply
from tests.managers import configuration, eventually, opened, series
from tests.models.examples import DONE, STREAM, chat, completion, dump, event, piece

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
ERROR = {"error": {"message": "no", "type": "server_error", "code": None, "param": None}}


@BOTH
async def test_the_second_identical_call_is_answered_from_the_cache(
    stack: Stack, upstream: Upstream, stream: bool
) -> None:
    sdk = stack.sdk(upstream.url)
    first = await stack.ask(sdk, stream=stream)
    again = await stack.ask(sdk, stream=stream)
    assert upstream.calls == 1
    assert again == first
    assert len(first) == (3 if stream else 1)


@BOTH
async def test_another_client_gets_the_answer_too(stack: Stack, upstream: Upstream, stream: bool) -> None:
    first = await stack.ask(stack.sdk(upstream.url), stream=stream)
    assert await stack.ask(stack.sdk(upstream.url), stream=stream) == first
    assert upstream.calls == 1


@BOTH
@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"api_key": "sk-two"}, {}),
        ({"path": "/other"}, {}),
        ({}, {"model": "gpt-4o"}),
        ({}, {"messages": [{"role": "user", "content": "Bye"}]}),
        ({}, {"extra_body": {"num_ctx": 8192}}),
        ({}, {"extra_headers": {"OpenAI-Beta": "x"}}),
        ({}, {"temperature": 0.5}),
    ],
    ids=str,
)
async def test_another_call_is_not_answered_by_it(
    stack: Stack, upstream: Upstream, options: dict[str, Any], changes: dict[str, Any], stream: bool
) -> None:
    await stack.ask(stack.sdk(upstream.url), stream=stream)
    other = dict(options)
    sdk = stack.sdk(upstream.url + other.pop("path", ""), **other)
    await stack.ask(sdk, stream=stream, **changes)
    assert upstream.calls == 2


async def test_a_stream_does_not_answer_a_call_for_the_whole(stack: Stack, upstream: Upstream) -> None:
    sdk = stack.sdk(upstream.url)
    await stack.ask(sdk, stream=True)
    await stack.ask(sdk, stream=False)
    assert upstream.calls == 2


async def test_answers_are_shared_across_credentials_where_that_is_wanted(stack: Stack, upstream: Upstream) -> None:
    first = await stack.ask(stack.sdk(upstream.url, share_across_credentials=True))
    assert await stack.ask(stack.sdk(upstream.url, api_key="sk-two", share_across_credentials=True)) == first
    assert upstream.calls == 1


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 429, 500, 503])
async def test_what_is_not_200_is_not_stored(stack: Stack, upstream: Upstream, status: int) -> None:
    upstream.replies(json_reply(ERROR, status=status) if status != 204 else Reply(204))
    for _ in range(2):
        answer = await stack.send("POST", f"{upstream.url}/v1/chat/completions", json=chat())
        assert answer.status == status
    assert upstream.calls == 2


async def test_what_an_sdk_retries_is_stored_in_the_end(stack: Stack, upstream: Upstream) -> None:
    retry = [("retry-after-ms", "1")]
    upstream.replies(
        json_reply(ERROR, status=429, headers=retry),
        json_reply(ERROR, status=500, headers=retry),
        json_reply(completion()),
    )
    sdk = stack.sdk(upstream.url, max_retries=2)
    first = await stack.ask(sdk)
    assert upstream.calls == 3
    assert await stack.ask(sdk) == first
    assert upstream.calls == 3


@pytest.mark.parametrize(
    "reply",
    [
        stream_reply(*STREAM[:-1]),
        stream_reply(*STREAM[:-1], DONE[:-1]),
        stream_reply(event(piece("a")), event(piece(None, "length")), DONE),
        stream_reply(*STREAM[:-1], event(ERROR), DONE),
        stream_reply(DONE),
    ],
    ids=["unterminated", "half a terminator", "cut by length", "error", "no choices"],
)
async def test_a_stream_that_is_no_whole_answer_is_not_stored(stack: Stack, upstream: Upstream, reply: Reply) -> None:
    upstream.replies(reply)
    url = f"{upstream.url}/v1/chat/completions"
    first = await stack.send("POST", url, json=chat(stream=True))
    again = await stack.send("POST", url, json=chat(stream=True))
    assert upstream.calls == 2
    assert first.body == again.body == b"".join(chunk for chunk in reply.chunks if isinstance(chunk, bytes))


TRAILING = b": bye\n\n"


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
async def test_what_follows_the_terminator_reaches_its_readers_and_is_not_stored(
    stack: Stack, upstream: Upstream, redis_url: str, shared: bool
) -> None:
    url, call = f"{upstream.url}/v1/chat/completions", chat(stream=True)
    rest = Gate()
    upstream.replies(stream_reply(*STREAM, rest, TRAILING))
    async with opened(configuration(redis_url=redis_url if shared else None, timeout=10)) as manager:
        client = stack.client(stack.transport(cache=manager))
        first = await stack.open("POST", url, client=client, json=call)
        received = b""
        while not received.endswith(DONE):
            received += await first.chunk() or b""
        assert (await stack.send("POST", url, client=client, json=call)).is_hit
        rest.open()
        assert await first.rest() == [TRAILING]
        await first.close()
        again = await stack.send("POST", url, client=client, json=call)
        assert again.is_hit
        assert again.body == received == b"".join(STREAM)
        assert upstream.calls == 1
        assert series(manager, names.STORES) == {((names.STORE_RESULT, "stored"),): 1}


async def test_a_stream_that_outgrows_the_limit_with_its_terminator_is_not_stored(
    stack: Stack, upstream: Upstream
) -> None:
    url, call = f"{upstream.url}/v1/chat/completions", chat(stream=True)
    client = stack.client(max_body_bytes=sum(map(len, STREAM)) - 1)
    for _ in range(2):
        answer = await stack.send("POST", url, client=client, json=call)
        assert answer.body == b"".join(STREAM)
    assert upstream.calls == 2
    assert series(stack.manager, names.STORES) == {((names.STORE_RESULT, "too_large"),): 2}


async def test_an_answer_cut_by_its_length_is_not_stored(stack: Stack, upstream: Upstream) -> None:
    cut = {"index": 0, "message": {"role": "assistant", "content": "Hel"}, "finish_reason": "length"}
    upstream.replies(json_reply(completion(choices=[cut])))
    sdk = stack.sdk(upstream.url)
    await stack.ask(sdk)
    await stack.ask(sdk)
    assert upstream.calls == 2


@BOTH
async def test_a_broken_connection_is_an_error_and_is_not_stored(
    stack: Stack, upstream: Upstream, stream: bool
) -> None:
    broken = stream_reply(*STREAM[:2], BREAK) if stream else Reply(200, json_reply({}).headers, [b"{", BREAK])
    upstream.replies(broken)
    sdk = stack.sdk(upstream.url)
    with pytest.raises(openai.APIConnectionError):
        await stack.ask(sdk, stream=stream)
    upstream.answer = chat_reply
    assert len(await stack.ask(sdk, stream=stream)) == (3 if stream else 1)
    assert upstream.calls == 2


async def test_an_aborted_stream_is_not_stored_and_the_origin_is_left(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(stream_reply(*STREAM[:2], gate, *STREAM[2:]))
    opened = await stack.open("POST", f"{upstream.url}/v1/chat/completions", json=chat(stream=True))
    assert await opened.chunk() == STREAM[0]
    await opened.close()
    await upstream.disconnected.happened()
    upstream.answer = chat_reply
    await stack.ask(stack.sdk(upstream.url, api_key="none"), stream=True)
    assert upstream.calls == 2


async def test_a_stream_left_at_its_terminator_is_stored(stack: Stack, upstream: Upstream) -> None:
    """SDKs stop reading there, and the origin may keep the connection open."""
    upstream.replies(stream_reply(*STREAM, Gate()))
    url = f"{upstream.url}/v1/chat/completions"
    opened = await stack.open("POST", url, json=chat(stream=True))
    assert [await opened.chunk() for _ in STREAM] == list(STREAM)
    await opened.close()
    again = await stack.send("POST", url, json=chat(stream=True))
    assert again.is_hit
    assert again.chunks == list(STREAM)
    assert upstream.calls == 1


async def test_chunks_reach_the_caller_as_they_come(stack: Stack, upstream: Upstream) -> None:
    gates = [Gate() for _ in STREAM]
    upstream.replies(stream_reply(*(part for pair in zip(gates, STREAM, strict=True) for part in pair)))
    opened = await stack.open("POST", f"{upstream.url}/v1/chat/completions", json=chat(stream=True))
    for gate, chunk in zip(gates, STREAM, strict=True):
        gate.open()
        assert await opened.chunk() == chunk
    await opened.close()


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_chunks_are_replayed_as_they_came(stack: Stack, upstream: Upstream, size: int) -> None:
    body = b"".join(STREAM)
    upstream.replies(stream_reply(*(body[start : start + size] for start in range(0, len(body), size))))
    url = f"{upstream.url}/v1/chat/completions"
    first = await stack.send("POST", url, json=chat(stream=True))
    again = await stack.send("POST", url, json=chat(stream=True))
    assert again.is_hit
    assert again.chunks == first.chunks
    assert again.body == body


@BOTH
async def test_a_compressed_answer_is_kept_decoded(stack: Stack, upstream: Upstream, stream: bool) -> None:
    body = b"".join(STREAM) if stream else dump(completion())
    kind = "text/event-stream" if stream else "application/json"
    packed = gzip.compress(body)
    upstream.replies(Reply(200, [("content-type", kind), ("content-encoding", "gzip")], [packed], length=True))
    url = f"{upstream.url}/v1/chat/completions"
    first = await stack.send("POST", url, json=chat(stream=stream))
    again = await stack.send("POST", url, json=chat(stream=stream), headers={"accept-encoding": "identity"})
    assert again.is_hit
    for answer in (first, again):
        assert answer.body == body
        assert "content-encoding" not in answer.headers
        assert "content-length" not in answer.headers


async def test_a_coding_that_was_not_asked_for_passes_as_it_is(stack: Stack, upstream: Upstream) -> None:
    packed = gzip.compress(dump(completion()))
    upstream.replies(
        Reply(200, [("content-type", "application/json"), ("content-encoding", "gzip")], [packed], length=True)
    )
    client = stack.client()
    for _ in range(2):
        opened = await stack.open(
            "POST",
            f"{upstream.url}/v1/chat/completions",
            json=chat(),
            headers={"accept-encoding": "identity"},
            client=client,
        )
        assert opened.response.headers["content-encoding"] == "gzip"
        assert "detail=content-encoding" in opened.response.headers["cache-status"]
        assert b"".join(await opened.rest()) == dump(completion())  # the library decodes it all the same
        await opened.close()
    assert upstream.calls == 2


async def test_the_rules_of_http_have_no_say(stack: Stack, upstream: Upstream) -> None:
    headers = [("cache-control", "no-store, private"), ("vary", "*"), ("set-cookie", "__cf_bm=x; path=/")]
    upstream.replies(json_reply(completion(), headers=[*headers, ("x-request-id", "r1"), ("date", "now")]))
    url = f"{upstream.url}/v1/chat/completions"
    first = await stack.send("POST", url, json=chat())
    again = await stack.send("POST", url, json=chat(), headers={"cache-control": "no-cache"})
    assert upstream.calls == 1
    assert first.headers["x-request-id"] == "r1"
    assert "set-cookie" in first.headers
    assert "set-cookie" not in again.headers
    assert again.headers["x-cache-original-request-id"] == "r1"


async def test_no_store_is_honoured_where_that_is_wanted(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(json_reply(completion(), headers=[("cache-control", "no-store")]))
    sdk = stack.sdk(upstream.url, honour_cache_control=True)
    await stack.ask(sdk)
    await stack.ask(sdk)
    assert upstream.calls == 2


async def test_a_ttl_of_0_keeps_nothing(stack: Stack, upstream: Upstream) -> None:
    sdk = stack.sdk(upstream.url, ttl=0)
    await stack.ask(sdk)
    await stack.ask(sdk)
    assert upstream.calls == 2


async def test_a_body_over_the_limit_passes_and_is_not_stored(stack: Stack, upstream: Upstream) -> None:
    chunks = [event(piece("x" * 1000)) for _ in range(200)] + list(STREAM)
    upstream.replies(stream_reply(b"".join(chunks[:100]), b"".join(chunks[100:])))
    client = stack.client(max_body_bytes=1000)
    url = f"{upstream.url}/v1/chat/completions"
    for calls in (1, 2):
        answer = await stack.send("POST", url, json=chat(stream=True), client=client)
        assert answer.body == b"".join(chunks)
        assert upstream.calls == calls
    assert stack.manager._engine.stack.memory is not None
    assert not stack.manager._engine.stack.memory.entries


async def test_an_announced_body_over_the_limit_is_handed_over_unread(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(max_body_bytes=100)
    url = f"{upstream.url}/v1/chat/completions"
    for _ in range(2):
        answer = await stack.send("POST", url, json=chat(), client=client)
        assert answer.body == dump(completion())
        assert "detail=too-large" in answer.cache_status
    assert upstream.calls == 2


async def test_concurrent_identical_calls_ask_once(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, *STREAM[1:]))
    sdk = stack.sdk(upstream.url)
    calls = [asyncio.create_task(stack.ask(sdk, stream=True)) for _ in range(10)]
    await upstream.arrived.happened()
    await eventually(lambda: stack.manager._engine.flights.waiting == len(calls) - 1)
    gate.open()
    answers = await asyncio.gather(*calls)
    assert upstream.calls == 1
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]) == 3


async def test_an_error_reaches_every_waiting_caller(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, BREAK))
    sdk = stack.sdk(upstream.url)
    calls = [asyncio.create_task(stack.ask(sdk, stream=True)) for _ in range(5)]
    await upstream.arrived.happened()
    await eventually(lambda: stack.manager._engine.flights.waiting == len(calls) - 1)
    gate.open()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [openai.APIConnectionError] * 5
    assert upstream.calls == 1


async def test_waiting_callers_ask_for_themselves_when_the_answer_cannot_be_shared(
    stack: Stack, upstream: Upstream
) -> None:
    gate = Gate()

    def answer(asked: Asked) -> Reply:
        refusal = json_reply(ERROR, status=400)
        return Reply(400, refusal.headers, [gate, *refusal.chunks]) if upstream.calls == 1 else refusal

    upstream.answer = answer
    sdk = stack.sdk(upstream.url)
    calls = [asyncio.create_task(stack.ask(sdk)) for _ in range(3)]
    await upstream.arrived.happened()
    gate.open()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [openai.BadRequestError] * 3
    assert upstream.calls == 3
