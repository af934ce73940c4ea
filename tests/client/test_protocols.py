"""Calls of every protocol as they are on the wire, through both libraries, with and without an event loop."""

import asyncio
from typing import Any

import pytest

from aurelis.cache.telemetry import names
from tests.client.model_server import Model
from tests.client.stack import Received, Stack
from tests.client.upstream import Gate, Upstream
from tests.managers import eventually, series
from tests.models.examples import dump
from tests.models.wire import STREAMS, WIRES, Wire

BOTH = [
    *(pytest.param(wire, False, id=f"{name}, whole") for name, wire in WIRES.items()),
    *(pytest.param(wire, True, id=f"{name}, streamed") for name, wire in STREAMS.items()),
]
EVERY = pytest.mark.parametrize(("wire", "stream"), BOTH)
EVERY_STREAM = pytest.mark.parametrize("wire", STREAMS.values(), ids=STREAMS.keys())
FIELDS = {"content-type": "application/json", "authorization": "Bearer sk-one"}


def cuts(wire: Wire) -> list[str]:
    """In which ways answers of a protocol can end early."""
    return [fault for fault in ("length", "filtered") if getattr(wire, fault)]


async def ask(
    stack: Stack,
    upstream: Upstream,
    wire: Wire,
    *,
    stream: bool = False,
    client: Any = None,
    headers: dict[str, str] | None = None,
    extensions: dict[str, Any] | None = None,
    **changes: object,
) -> Received:
    """One call, read to its end."""
    path, body = wire.call(stream=stream, **changes)
    return await stack.send(
        "POST",
        upstream.url + path,
        client=client,
        content=dump(body),
        headers={**FIELDS, **(headers or {})},
        extensions=extensions,
    )


@EVERY
async def test_the_second_identical_call_is_answered_from_the_cache(
    stack: Stack, upstream: Upstream, wire: Wire, stream: bool
) -> None:
    upstream.answer = Model(wire)
    first = await ask(stack, upstream, wire, stream=stream)
    again = await ask(stack, upstream, wire, stream=stream)
    assert upstream.calls == 1
    assert again.is_hit
    assert again.body == first.body == (b"".join(wire.chunks) if stream else dump(wire.whole))
    assert again.chunks == first.chunks
    assert again.headers["age"] == "0"
    assert again.headers["x-cache-original-request-id"] == "req_1"
    assert not any("ratelimit" in name or name in ("set-cookie", "x-request-id") for name in again.headers)
    usage = wire.stream_usage if stream and wire.stream_usage else wire.usage
    known = None not in usage
    assert sum(series(stack.manager, names.SAVED_TOKENS).values()) == sum(count or 0 for count in usage if known)
    assert sum(series(stack.manager, names.SAVED_UNKNOWN).values()) == (not known)


@pytest.mark.parametrize(
    ("wire", "stream", "fault"),
    [
        *(pytest.param(wire, False, "gzip", id=f"{name}, whole, gzip") for name, wire in WIRES.items()),
        *(
            pytest.param(wire, True, fault, id=f"{name}, streamed, {fault}")
            for name, wire in STREAMS.items()
            for fault in ("gzip", "bytes", "clumps")
        ),
        *(pytest.param(WIRES["RESPONSES"], stream, "busy", id=f"busy {stream}") for stream in (False, True)),
    ],
)
async def test_however_an_answer_comes_it_is_kept(
    async_stack: Stack, upstream: Upstream, wire: Wire, stream: bool, fault: str
) -> None:
    upstream.answer = Model(wire, frozenset({fault}))
    if fault == "busy":
        assert (await ask(async_stack, upstream, wire, stream=stream)).status == 429
    first = await ask(async_stack, upstream, wire, stream=stream)
    calls = upstream.calls
    again = await ask(async_stack, upstream, wire, stream=stream)
    assert upstream.calls == calls
    assert again.is_hit
    # White space after the end of a stream comes too late to be stored.
    assert again.body.rstrip() == (b"".join(wire.chunks) if stream else dump(wire.whole)).rstrip()
    assert again.chunks == first.chunks[: len(again.chunks)]


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        pytest.param(wire, fault, id=f"{name}, {fault}")
        for name, wire in STREAMS.items()
        for fault in ("error", "unterminated", *cuts(wire))
    ],
)
async def test_what_is_no_whole_stream_is_never_stored(
    async_stack: Stack, upstream: Upstream, wire: Wire, fault: str
) -> None:
    upstream.answer = Model(wire, frozenset({fault}))
    first = await ask(async_stack, upstream, wire, stream=True)
    again = await ask(async_stack, upstream, wire, stream=True)
    assert upstream.calls == 2
    assert again.body == first.body
    assert not again.is_hit


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        pytest.param(wire, fault, id=f"{name}, {fault}")
        for name, wire in WIRES.items()
        if wire.cut
        for fault in ("error", *cuts(wire))
    ],
)
async def test_what_is_no_whole_answer_is_never_stored(
    async_stack: Stack, upstream: Upstream, wire: Wire, fault: str
) -> None:
    upstream.answer = Model(wire, frozenset({fault}))
    for _ in range(2):
        assert not (await ask(async_stack, upstream, wire)).is_hit
    assert upstream.calls == 2


@EVERY_STREAM
async def test_a_stream_that_breaks_off_is_an_error_and_is_not_stored(
    stack: Stack, upstream: Upstream, wire: Wire
) -> None:
    upstream.answer = Model(wire, frozenset({"drop"}))
    for _ in range(2):
        with pytest.raises(stack.library.RemoteProtocolError):
            await ask(stack, upstream, wire, stream=True)
    assert upstream.calls == 2
    upstream.answer = Model(wire)
    assert not (await ask(stack, upstream, wire, stream=True)).is_hit
    assert (await ask(stack, upstream, wire, stream=True)).is_hit


@EVERY_STREAM
async def test_a_stream_left_before_its_end_is_not_stored(async_stack: Stack, upstream: Upstream, wire: Wire) -> None:
    gate = Gate()
    upstream.answer = Model(wire, gate=gate)
    path, body = wire.call(stream=True)
    client = async_stack.client(linger=0.05)  # for those of which nothing but the terminator is missing then
    opened = await async_stack.open("POST", upstream.url + path, client=client, content=dump(body), headers=FIELDS)
    assert await opened.chunk()
    await opened.close()
    await upstream.disconnected.happened()
    upstream.answer = Model(wire)
    assert not (await ask(async_stack, upstream, wire, stream=True)).is_hit


@EVERY_STREAM
async def test_a_stream_left_at_its_own_end_is_stored(async_stack: Stack, upstream: Upstream, wire: Wire) -> None:
    """SDKs stop reading there, and the origin may keep the connection open."""
    held = Model(wire)
    gate = Gate()

    def answer(asked: Any) -> Any:
        reply = held(asked)
        return type(reply)(reply.status, reply.headers, [*reply.chunks, gate])

    upstream.answer = answer
    path, body = wire.call(stream=True)
    opened = await async_stack.open("POST", upstream.url + path, content=dump(body), headers=FIELDS)
    received = b""
    while received != b"".join(wire.chunks):
        received += await opened.chunk() or b""
    await opened.close()
    again = await ask(async_stack, upstream, wire, stream=True)
    assert again.is_hit
    assert again.body == received


@pytest.mark.parametrize("name", ["OPENAI_CHAT", "RESPONSES", "ANTHROPIC", "GEMINI", "OLLAMA_CHAT", "COHERE"])
async def test_fifty_identical_calls_at_once_ask_once(async_stack: Stack, upstream: Upstream, name: str) -> None:
    wire, gate = WIRES[name], Gate()
    upstream.answer = Model(wire, gate=gate)
    calls = [asyncio.create_task(ask(async_stack, upstream, wire, stream=True)) for _ in range(50)]
    await upstream.arrived.happened()
    await eventually(lambda: async_stack.manager._engine.flights.waiting == len(calls) - 1)
    gate.open()
    answers = await asyncio.gather(*calls)
    assert upstream.calls == 1
    assert {answer.body for answer in answers} == {b"".join(wire.chunks)}


@pytest.mark.parametrize("name", ["OPENAI_CHAT", "ANTHROPIC", "GEMINI"])
async def test_a_large_answer_passes_and_is_not_stored_beyond_the_limit(
    async_stack: Stack, upstream: Upstream, name: str
) -> None:
    wire = WIRES[name]
    upstream.answer = Model(wire, frozenset({"large"}))
    client = async_stack.client(max_body_bytes=10_000)
    for stream in (True, False):
        bodies = [(await ask(async_stack, upstream, wire, stream=stream, client=client)).body for _ in range(2)]
        assert bodies[0] == bodies[1]
        assert len(bodies[0]) > 100_000
    assert upstream.calls == 4


@EVERY
async def test_a_call_that_must_reach_the_provider_passes_untouched(
    async_stack: Stack, upstream: Upstream, wire: Wire, stream: bool
) -> None:
    upstream.answer = Model(wire)
    path, body = wire.call(stream=stream)
    for _ in range(2):
        answer = await async_stack.send("POST", upstream.url + path, content=dump(body), headers={"content-type": "x"})
        assert answer.cache_status == ""
    assert upstream.calls == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/assistants"),
        ("POST", "/v1/threads"),
        ("POST", "/v1/threads/t/messages"),
        ("POST", "/v1/threads/t/runs"),
        ("POST", "/v1/realtime/sessions"),
        ("POST", "/v1/conversations"),
        ("POST", "/v1/responses/r/cancel"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/messages/batches"),
        ("DELETE", "/v1/responses/r"),
    ],
)
async def test_what_is_no_answer_of_a_model_passes_untouched(
    async_stack: Stack, upstream: Upstream, method: str, path: str
) -> None:
    upstream.answer = Model(WIRES["OPENAI_CHAT"])
    call = dump({"input": "x", "prompt": "x", "role": "user", "content": "x", "model": "m"})
    for _ in range(2):
        answer = await async_stack.send(method, upstream.url + path, content=call, headers=FIELDS)
        assert answer.cache_status == ""
    assert upstream.calls == 2
