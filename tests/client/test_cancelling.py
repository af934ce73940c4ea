"""Callers who leave early: what happens to the load, to those who wait for it, and to what is stored."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from aurelis.cache.telemetry import names
from tests.client.stack import Opened, Stack, in_thread
from tests.client.upstream import BREAK, Gate, Reply, Upstream, stream_reply
from tests.managers import count, eventually, is_settled
from tests.models.examples import STREAM, chat, completion, dump

BODY = b"".join(STREAM)
FRESH = [("cache-control", "max-age=60")]


def chat_url(upstream: Upstream) -> str:
    """Where model calls go."""
    return f"{upstream.url}/v1/chat/completions"


async def open_chat(stack: Stack, upstream: Upstream, **request: Any) -> Opened:
    """A streamed call, its body unread."""
    return await stack.open("POST", chat_url(upstream), json=chat(stream=True), **request)


async def is_stored(stack: Stack, upstream: Upstream) -> bool:
    """Whether the answer is in the cache; asks nobody."""
    calls = upstream.calls
    upstream.replies(Reply(500))
    answer = await stack.send("POST", chat_url(upstream), json=chat(stream=True))
    assert answer.is_hit == (upstream.calls == calls)
    return answer.is_hit


# --- before there is an answer, with an event loop


@pytest.mark.parametrize("leaving", [[0], [1], [3], [0, 1, 2], [1, 2, 3]], ids=str)
async def test_callers_who_leave_harm_nobody(async_stack: Stack, upstream: Upstream, leaving: list[int]) -> None:
    stack = async_stack
    gate = Gate()
    upstream.answer = lambda asked: Reply(200, [("content-type", "text/event-stream")], [gate, *STREAM])
    # The head comes with the first chunk at the latest: hold it back, too.
    held = Held(stack, gate)
    calls = [asyncio.create_task(held.send(upstream)) for _ in range(4)]
    await eventually(lambda: stack.manager._engine.flights.waiting == 3)
    for index in leaving:
        calls[index].cancel()
    await asyncio.wait([calls[index] for index in leaving])
    gate.open()
    answers = await asyncio.gather(*(call for index, call in enumerate(calls) if index not in leaving))
    assert all(answer == BODY for answer in answers)
    assert upstream.calls == 1
    assert await is_stored(stack, upstream)


class Held:
    """Calls whose inner transport does not ask before a gate is open."""

    def __init__(self, stack: Stack, gate: Gate) -> None:
        inner = stack.library.AsyncHTTPTransport()

        class Inner(stack.library.AsyncBaseTransport):  # type: ignore[misc,name-defined]  # of either library
            async def handle_async_request(self, request: Any) -> Any:
                await gate.passed()
                return await inner.handle_async_request(request)

            async def aclose(self) -> None:
                await inner.aclose()

        self.cancelled = False
        self._stack = stack
        self._client = stack.client(stack.transport(Inner()))

    async def send(self, upstream: Upstream) -> bytes:
        """One call."""
        answer = await self._stack.send("POST", chat_url(upstream), json=chat(stream=True), client=self._client)
        return answer.body


async def test_the_work_stops_when_all_have_left(async_stack: Stack, upstream: Upstream) -> None:
    stack = async_stack
    upstream.replies(stream_reply(STREAM[0], Gate()))
    calls = [asyncio.create_task(stack.send("POST", chat_url(upstream), json=chat(stream=True))) for _ in range(3)]
    await eventually(lambda: stack.manager._engine.flights.waiting == 2)
    await upstream.arrived.happened()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await upstream.disconnected.happened()
    assert upstream.calls == 1
    assert not await is_stored(stack, upstream)


@pytest.mark.parametrize("followed", [False, True], ids=["alone", "with another"])
async def test_an_unread_response_is_closed_when_its_caller_has_left(async_stack: Stack, followed: bool) -> None:
    """A response that is not recorded is handed over as it is; if there is nobody to take it, it must not leak."""
    stack = async_stack
    gate = Gate()
    closed = []
    asked = []

    class Body(stack.library.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either library
        async def __aiter__(self) -> Any:
            yield b"no"

        async def aclose(self) -> None:
            closed.append(self)

    async def handler(request: Any) -> Any:
        asked.append(request)
        if len(asked) == 1:
            try:
                await gate.passed()
            except asyncio.CancelledError:
                if followed:
                    raise
                # What cannot be interrupted: the response comes although nobody waits any more.
        return stack.library.Response(500, stream=Body())

    client = stack.client(stack.transport(stack.mock(handler)))
    url = "http://example.com/"
    first = asyncio.create_task(stack.get(url, client=client))
    await eventually(lambda: asked)
    second = asyncio.create_task(stack.get(url, client=client)) if followed else None
    await eventually(lambda: stack.manager._engine.flights.waiting == followed)
    first.cancel()
    await asyncio.wait([first])
    gate.open()
    if second is not None:
        assert (await second).status == 500
    await eventually(lambda: len(closed) == len(asked))
    assert len(asked) == 1 + followed


# --- after its beginning, with and without an event loop


async def test_the_first_caller_may_leave_while_another_reads(stack: Stack, upstream: Upstream) -> None:
    """Without an event loop the one who leaves loads the rest for the other."""
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, *STREAM[1:]))
    first = await open_chat(stack, upstream)
    second = await open_chat(stack, upstream)
    assert await first.chunk() == STREAM[0]
    assert await second.chunk() == STREAM[0]
    closing = asyncio.create_task(first.close())
    rest = asyncio.create_task(second.rest())
    gate.open()
    assert await rest == list(STREAM[1:])
    await closing
    await second.close()
    assert upstream.calls == 1
    assert await is_stored(stack, upstream)


async def test_another_caller_may_leave_while_the_first_reads(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, *STREAM[1:]))
    first = await open_chat(stack, upstream)
    second = await open_chat(stack, upstream)
    assert await first.chunk() == await second.chunk() == STREAM[0]
    await second.close()
    gate.open()
    assert await first.rest() == list(STREAM[1:])
    await first.close()
    assert await is_stored(stack, upstream)


async def test_the_load_ends_when_the_last_reader_leaves(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, *STREAM[1:3], Gate()))
    first = await open_chat(stack, upstream)
    second = await open_chat(stack, upstream)
    assert await first.chunk() == await second.chunk() == STREAM[0]
    closing = asyncio.create_task(first.close())
    if stack.blocking:
        await eventually(lambda: stack.manager._engine.flights.waiting == 1)
    await second.close()
    gate.open()  # a blocked thread notices with the next chunk that nobody is left
    await closing
    await upstream.disconnected.happened()
    assert not await is_stored(stack, upstream)


async def test_one_who_comes_late_gets_the_whole(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(stream_reply(*STREAM[:2], gate, *STREAM[2:]))
    first = await open_chat(stack, upstream)
    assert [await first.chunk(), await first.chunk()] == list(STREAM[:2])
    second = await open_chat(stack, upstream)
    gate.open()
    rest = asyncio.create_task(first.rest())
    assert await second.rest() == list(STREAM)
    assert await rest == list(STREAM[2:])
    await first.close()
    await second.close()
    assert upstream.calls == 1


async def test_an_sdk_stream_that_is_left_early_is_not_stored(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(stream_reply(STREAM[0], Gate()))
    sdk = stack.sdk(upstream.url)
    if stack.blocking:

        def leave_early() -> None:
            with sdk.chat.completions.create(**chat(stream=True)) as answer:
                next(iter(answer))

        await in_thread(leave_early)
    else:
        async with await sdk.chat.completions.create(**chat(stream=True)) as answer:
            await anext(aiter(answer))
    await upstream.disconnected.happened()
    assert not await is_stored(stack, upstream)


async def test_closing_the_manager_ends_what_is_loaded(async_stack: Stack, upstream: Upstream) -> None:
    stack = async_stack
    upstream.replies(stream_reply(STREAM[0], Gate()))
    opened = await open_chat(stack, upstream)
    assert await opened.chunk() == STREAM[0]
    await stack.manager.aclose(timeout=0)
    with pytest.raises(stack.library.ReadError):
        await opened.chunk()
    await opened.close()


async def test_a_stream_that_is_closed_while_it_is_read_says_so(async_stack: Stack, upstream: Upstream) -> None:
    stack = async_stack
    upstream.replies(stream_reply(STREAM[0], Gate()))
    opened = await open_chat(stack, upstream)
    assert await opened.chunk() == STREAM[0]
    reading = asyncio.create_task(opened.chunk())
    await asyncio.sleep(0)
    await opened.response.aclose()
    with pytest.raises(stack.library.ReadError):
        await reading


# --- without an event loop


def blocking(stack: Stack, upstream: Upstream, client: Any) -> Any:
    """A streamed call from this thread, its body unread."""
    return client.send(client.build_request("POST", chat_url(upstream), json=chat(stream=True)), stream=True)


async def test_a_thread_does_not_wait_for_itself(sync_stack: Stack, upstream: Upstream) -> None:
    """The same call again while the first is unread: only this thread could read it on."""
    stack = sync_stack
    client = stack.client()

    def twice() -> None:
        first = blocking(stack, upstream, client)
        second = blocking(stack, upstream, client)
        assert second.read() == BODY
        assert "detail=recursive" in second.headers["cache-status"]
        assert first.read() == BODY

    await in_thread(twice)
    assert upstream.calls == 2
    assert await is_stored(stack, upstream)


async def test_a_blocking_call_does_not_wait_for_the_loop_it_stops(async_stack: Stack, upstream: Upstream) -> None:
    stack = async_stack
    gate = Gate()
    upstream.replies(stream_reply(gate, *STREAM), stream_reply(*STREAM))
    other = Stack(f"{stack.library_name}-sync", stack.manager)
    call = asyncio.create_task(stack.send("POST", chat_url(upstream), json=chat(stream=True)))
    await upstream.arrived.happened()
    with other.client() as client:
        assert blocking(other, upstream, client).read() == BODY
    gate.open()
    assert (await call).body == BODY
    assert upstream.calls == 2


async def test_a_dropped_response_holds_nobody_up(sync_stack: Stack, upstream: Upstream) -> None:
    """Neither read nor closed: those who wait for the same must not wait for ever."""
    stack = sync_stack
    upstream.replies(stream_reply(STREAM[0], Gate()), stream_reply(*STREAM))
    client = stack.client()
    ready = threading.Event()

    def drop() -> None:
        response: Any = blocking(stack, upstream, client)
        next(response.iter_raw())
        ready.set()

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    gc.collect()
    answer = await stack.send("POST", chat_url(upstream), json=chat(stream=True), client=client)
    assert answer.body == BODY
    assert upstream.calls == 2


@pytest.mark.parametrize("limit", [1000, 2**20], ids=["too large to keep", "kept"])
async def test_a_response_that_is_dropped_unread_and_unclosed_aborts_its_load(
    async_stack: Stack, upstream: Upstream, limit: int
) -> None:
    stack = async_stack
    client = stack.client(max_body_bytes=limit)
    upstream.replies(Reply(200, FRESH, [b"x" * 40_000] * 5 + [Gate()]))
    for _ in range(2):
        await dropped(await stack.open("GET", upstream.url, client=client))
        await upstream.disconnected.happened()
        await eventually(lambda: is_settled(stack.manager))
    assert upstream.calls == 2


async def test_one_who_shares_a_load_and_drops_its_response_is_not_waited_for(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(max_body_bytes=1000)
    gate = Gate()
    upstream.replies(Reply(200, FRESH, [b"x", gate, *[b"x" * 40_000] * 5]))
    first = await stack.open("GET", upstream.url, client=client)
    assert count(stack.manager, names.WAITING) == 0
    await dropped(await stack.open("GET", upstream.url, client=client))
    gate.open()
    assert len(b"".join(await first.rest())) == 200_001
    await first.close()
    assert upstream.calls == 1
    await eventually(lambda: count(stack.manager, names.WAITING) == 0)


async def dropped(opened: Opened) -> None:
    """Drop a response that nobody else has, and wait until it is gone."""
    reference = weakref.ref(opened.response)
    opened.__dict__.clear()

    def is_gone() -> bool:
        gc.collect()
        return reference() is None

    await eventually(is_gone)


async def test_a_response_can_be_read_by_another_thread_than_asked_for_it(
    sync_stack: Stack, upstream: Upstream
) -> None:
    stack = sync_stack
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, *STREAM[1:]))
    client = stack.client()
    responses: list[Any] = []
    thread = threading.Thread(target=lambda: responses.append(blocking(stack, upstream, client)))
    thread.start()
    thread.join()
    reading = Opened(responses[0], ThreadPoolExecutor(1))
    assert await reading.chunk() == STREAM[0]
    second = await open_chat(stack, upstream, client=client)
    gate.open()
    rest = asyncio.create_task(reading.rest())
    assert await second.rest() == list(STREAM)
    assert await rest == list(STREAM[1:])
    await reading.close()
    await second.close()
    assert upstream.calls == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
async def test_an_interrupted_thread_leaves_the_others_to_ask_again(
    sync_stack: Stack, interruption: type[BaseException]
) -> None:
    stack = sync_stack
    entered, go = threading.Event(), threading.Event()
    asked = []

    def handler(request: Any) -> Any:
        asked.append(request)
        if len(asked) == 1:
            entered.set()
            assert go.wait(10)
            raise interruption
        return stack.library.Response(200, headers={"content-type": "application/json"}, content=dump(completion()))

    client = stack.client(stack.transport(stack.mock(handler)))
    caught: list[BaseException] = []

    def interrupted() -> None:
        try:
            client.post("http://example.com/v1/chat/completions", json=chat())
        except interruption as error:
            caught.append(error)

    thread = threading.Thread(target=interrupted)
    thread.start()
    await in_thread(entered.wait, 10)
    second = asyncio.create_task(
        stack.send("POST", "http://example.com/v1/chat/completions", json=chat(), client=client)
    )
    await eventually(lambda: stack.manager._engine.flights.waiting == 1)
    go.set()
    assert (await second).status == 200
    await in_thread(thread.join)
    assert len(caught) == 1
    assert len(asked) == 2


async def test_an_error_after_the_first_caller_has_left_is_not_its_concern(
    sync_stack: Stack, upstream: Upstream
) -> None:
    stack = sync_stack
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, BREAK))
    first = await open_chat(stack, upstream)
    second = await open_chat(stack, upstream)
    assert await first.chunk() == await second.chunk() == STREAM[0]
    closing = asyncio.create_task(first.close())
    gate.open()
    with pytest.raises(stack.library.RemoteProtocolError):
        await second.rest()
    await closing
    await second.close()


async def test_a_sdk_stream_without_its_end_is_an_error_for_all(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(stream_reply(STREAM[0], BREAK))
    with pytest.raises(openai.APIConnectionError):
        await stack.ask(stack.sdk(upstream.url), stream=True)
    assert not await is_stored(stack, upstream)
