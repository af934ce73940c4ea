"""Streams that lack nothing but their terminator when their last reader leaves are read on for a moment."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from aurelis.cache.client import ClientOptions
from aurelis.cache.exceptions import ConfigurationError
from tests.client.stack import Opened, Stack, in_thread
from tests.client.test_threads import refuse
from tests.client.upstream import BREAK, Gate, Happened, Reply, Upstream, json_reply
from tests.managers import WITHIN, eventually, requests
from tests.models.examples import DONE, STREAM, chat, event, piece
from tests.models.wire import ANTHROPIC, GEMINI, OPENAI_CHAT, Wire

SAID = {"anthropic": (ANTHROPIC, 1), "openai": (OPENAI_CHAT, 2)}
"""Protocols whose streams go on after they have said why they end, and how many of the last chunks come then."""


def replies(wire: Wire, chunks: Iterable[object]) -> Reply:
    """A stream of a protocol."""
    return Reply(200, [("content-type", wire.content_type)], list(chunks))


async def opened(stack: Stack, upstream: Upstream, wire: Wire = ANTHROPIC, **options: Any) -> Opened:
    """A call for a stream, its body unread."""
    path, body = wire.call(stream=True)
    return await stack.open("POST", upstream.url + path, json=body, **options)


async def left_after(stack: Stack, upstream: Upstream, number: int, wire: Wire = ANTHROPIC, **options: Any) -> None:
    """A call whose caller reads so many chunks and leaves."""
    call = await opened(stack, upstream, wire, **options)
    for _ in range(number):
        assert await call.chunk()
    await call.close()


async def is_stored(stack: Stack, upstream: Upstream, wire: Wire = ANTHROPIC, **options: Any) -> bool:
    """Whether the answer is in the cache. Where it is not, a provider that fails is asked."""
    calls = upstream.calls
    upstream.replies(Reply(500))
    path, body = wire.call(stream=True)
    answer = await stack.send("POST", upstream.url + path, json=body, **options)
    assert answer.is_hit == (upstream.calls == calls)
    return answer.is_hit


def threads() -> list[str]:
    """The threads that read on."""
    return [thread.name for thread in threading.enumerate() if thread.name == "aurelis-cache-linger"]


async def stays(condition: Callable[[], bool]) -> None:
    """For a moment, in which something would go wrong if it could."""
    end = time.monotonic() + 0.2
    await eventually(lambda: time.monotonic() > end or not condition())
    assert condition()


async def settled(stack: Stack) -> None:
    """Wait until nothing is loaded any more."""
    await eventually(lambda: not stack.manager._engine.flights._flights)
    await eventually(lambda: not threads())


@pytest.mark.parametrize("protocol", SAID)
async def test_what_lacks_its_terminator_alone_is_stored(stack: Stack, upstream: Upstream, protocol: str) -> None:
    wire, last = SAID[protocol]
    gate = Gate()
    upstream.replies(replies(wire, [*wire.chunks[:-last], gate, *wire.chunks[-last:]]))
    await left_after(stack, upstream, len(wire.chunks) - last, wire)
    gate.open()
    await settled(stack)
    assert await is_stored(stack, upstream, wire)
    assert requests(stack.manager)["miss"] == 1


async def test_that_is_so_where_its_client_is_closed_as_well(stack: Stack, upstream: Upstream) -> None:
    wire, last = SAID["anthropic"]
    gate = Gate()
    upstream.replies(replies(wire, [*wire.chunks[:-last], gate, *wire.chunks[-last:]]))
    client = stack.maker(transport=stack.transport(), timeout=10)
    await left_after(stack, upstream, len(wire.chunks) - last, wire, client=client)
    client.close() if stack.blocking else await client.aclose()
    gate.open()
    await settled(stack)
    assert await is_stored(stack, upstream, wire)


async def test_the_next_call_waits_for_what_is_read_on(stack: Stack, upstream: Upstream) -> None:
    """The second caller need not know that the first one's answer has not quite come."""
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], gate, ANTHROPIC.chunks[-1]]))
    client = stack.client(linger=30)
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    second = asyncio.create_task(opened(stack, upstream, client=client))
    await stays(lambda: not second.done())
    gate.open()
    reader = await second
    assert "; hit" in reader.response.headers["cache-status"]
    assert await reader.rest() == list(ANTHROPIC.chunks)
    assert upstream.calls == 1


async def test_it_waits_no_longer_than_that(stack: Stack, upstream: Upstream) -> None:
    """What has no end is nobody's answer, not even of one who comes before that is known."""
    broken = replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()])
    upstream.replies(broken, replies(ANTHROPIC, ANTHROPIC.chunks))
    client = stack.client(linger=0.05)
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    second = await opened(stack, upstream, client=client)
    assert await second.rest() == list(ANTHROPIC.chunks)
    await second.close()
    assert upstream.calls == 2
    await settled(stack)
    assert await is_stored(stack, upstream, client=client)


async def test_whoever_leaves_does_not_wait(stack: Stack, upstream: Upstream) -> None:
    """The terminator never comes, and no time-out is near."""
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], gate]))
    client = stack.client(linger=30)
    reader = await opened(stack, upstream, client=client)
    for _ in ANTHROPIC.chunks[:-1]:
        await reader.chunk()
    await asyncio.wait_for(reader.close(), WITHIN)
    assert not upstream.disconnected.is_set()
    assert stack.manager._engine.flights._flights
    gate.open()
    await settled(stack)


async def test_it_is_over_when_the_time_is_up(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))
    client = stack.client(linger=0.05)
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    await upstream.disconnected.happened()
    await settled(stack)
    assert not await is_stored(stack, upstream, client=client)


async def test_others_who_still_read_have_it_to_the_end(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], gate, ANTHROPIC.chunks[-1]]))
    client = stack.client(linger=0.05)
    first, second = [await opened(stack, upstream, client=client) for _ in range(2)]
    for _ in ANTHROPIC.chunks[:-1]:
        assert await first.chunk()
    await first.close()
    await stays(lambda: not upstream.disconnected.is_set())
    gate.open()
    assert await second.rest() == list(ANTHROPIC.chunks)
    await second.close()
    assert upstream.calls == 1
    await settled(stack)
    assert await is_stored(stack, upstream, client=client)


async def test_all_who_shared_it_may_leave_before_its_end(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], gate, ANTHROPIC.chunks[-1]]))
    calls = [await opened(stack, upstream) for _ in range(3)]
    for call in calls:
        for _ in ANTHROPIC.chunks[:-1]:
            assert await call.chunk()
        await call.close()
    gate.open()
    await settled(stack)
    assert upstream.calls == 1
    assert await is_stored(stack, upstream)


@pytest.mark.parametrize("keep", [(), ("length",)], ids=["as it is", "kept"])
async def test_what_would_not_be_kept_is_not_read_on(stack: Stack, upstream: Upstream, keep: tuple[str, ...]) -> None:
    assert ANTHROPIC.end is not None
    end = ANTHROPIC.end("max_tokens")
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-2], end[0], gate, end[1]]))
    client = stack.client(None, {"timeout": 10 * WITHIN}, keep=keep, linger=30)
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    if not keep:
        await upstream.disconnected.happened()
    gate.open()
    await settled(stack)
    assert await is_stored(stack, upstream, client=client) == bool(keep)


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(2, id="nothing said"),
        pytest.param(len(ANTHROPIC.chunks) - 2, id="all but why it ends"),
    ],
)
async def test_an_aborted_answer_is_not_read_on(stack: Stack, upstream: Upstream, read: int) -> None:
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:read], Gate()]))
    await left_after(stack, upstream, read)
    await upstream.disconnected.happened()
    assert not threads()
    assert not await is_stored(stack, upstream)


async def test_all_of_several_answers_must_have_ended(stack: Stack, upstream: Upstream) -> None:
    pieces = [event(piece("Hel")), event(piece("Hel", index=1)), event(piece(None, "stop"))]
    upstream.replies(Reply(200, [("content-type", "text/event-stream")], [*pieces, Gate()]))
    client = stack.client(None, {"timeout": 10 * WITHIN}, linger=30)
    call = await stack.open("POST", f"{upstream.url}/v1/chat/completions", json=chat(stream=True, n=2), client=client)
    for _ in pieces:
        await call.chunk()
    await call.close()
    await upstream.disconnected.happened()
    assert not threads()


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        ([BREAK], "dropped"),
        ([], "ended cleanly"),
        ([ANTHROPIC.error, ANTHROPIC.chunks[-1]], "an error before the end"),
        ([b": " + b"x" * 5000 + b"\n\n"] * 8 + [ANTHROPIC.chunks[-1]], "more than an end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_without_the_terminator_nothing_is_stored(
    stack: Stack, upstream: Upstream, rest: list[object], what: str
) -> None:
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], gate, *rest]))
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1)
    gate.open()
    await settled(stack)
    assert not await is_stored(stack, upstream), what


async def test_it_can_be_switched_off(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))
    client = stack.client(linger=0)
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    await upstream.disconnected.happened()
    assert not await is_stored(stack, upstream, client=client)


@pytest.mark.parametrize("linger", [-1, float("nan"), 61, "1"])
def test_how_long_is_checked(linger: Any) -> None:
    with pytest.raises((ConfigurationError, ValueError, TypeError)):
        ClientOptions(linger=linger)


async def test_an_invalidation_reaches_what_is_read_on(stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], gate, ANTHROPIC.chunks[-1]]))
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1)
    await stack.manager.clear()
    gate.open()
    await eventually(lambda: not threads())
    await asyncio.sleep(0)
    assert not await is_stored(stack, upstream)


async def test_a_gemini_stream_without_usage_ends_with_its_body(stack: Stack, upstream: Upstream) -> None:
    """Nothing of the protocol follows, but something might: the end of the body is waited for."""
    last = GEMINI.chunks[-1].replace(b'"usageMetadata"', b'"somethingElse"')
    gate = Gate()
    upstream.replies(replies(GEMINI, [*GEMINI.chunks[:-1], last, gate]))
    await left_after(stack, upstream, len(GEMINI.chunks), GEMINI)
    gate.open()
    await settled(stack)
    assert await is_stored(stack, upstream, GEMINI)


async def test_no_other_call_fails_for_want_of_the_connection(stack: Stack, upstream: Upstream) -> None:
    """Whoever waits for one that is read on waits as long as its own time-out allows, and gets it before."""
    other, body = OPENAI_CHAT.call(stream=False)
    broken = replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()])
    upstream.answer = lambda asked: broken if asked.path == "v1/messages" else json_reply(OPENAI_CHAT.whole)
    limits = stack.library.Limits(max_connections=1)
    timeout = stack.library.Timeout(WITHIN, pool=0.3)
    transport = stack.transport(stack.network(limits=limits), linger=30)
    client = stack.client(transport, {"timeout": timeout})
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    answer = await stack.send("POST", upstream.url + other, json=body, client=client)
    assert answer.status == 200


# --- without an event loop


class Http10:
    """A server whose bodies have no end but that of the connection: all of a stream, and then it waits."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._body = b"".join(chunks)
        self._server: asyncio.Server | None = None
        self._waits = asyncio.Event()
        self.disconnected = asyncio.Event()

    async def __aenter__(self) -> "Http10":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._waits.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + self._body)
        assert not await reader.read()
        self.disconnected.set()
        await self._waits.wait()
        writer.close()


async def test_an_end_that_was_made_here_is_no_end(sync_stack: Stack) -> None:
    """A connection that is shut down looks as if the body had come whole."""
    stack = sync_stack
    last = GEMINI.chunks[-1].replace(b'"usageMetadata"', b'"somethingElse"')
    path, body = GEMINI.call(stream=True)
    client = stack.client(linger=0.05)
    async with Http10([*GEMINI.chunks[:-1], last]) as server:
        call = await stack.open("POST", server.url + path, json=body, client=client)
        read = b""
        while b"somethingElse" not in read:
            read += await call.chunk() or b""
        await call.close()
        await asyncio.wait_for(server.disconnected.wait(), WITHIN)
        await settled(stack)
        answer = await stack.send(
            "POST", server.url + path, json=body, client=client, headers={"x-cache-control": "only-if-cached"}
        )
    assert answer.status == 504


async def test_a_thread_may_wait_for_what_it_has_left(sync_stack: Stack, upstream: Upstream) -> None:
    """Another one reads it on."""
    stack = sync_stack
    gate = Gate()
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], gate, ANTHROPIC.chunks[-1]]))
    client = stack.client(linger=30)
    path, body = ANTHROPIC.call(stream=True)
    left = threading.Event()

    def twice() -> str:
        with client.stream("POST", upstream.url + path, json=body) as first:
            chunks = first.iter_bytes()
            for _ in ANTHROPIC.chunks[:-1]:
                next(chunks)
        left.set()
        status: str = client.post(upstream.url + path, json=body).headers["cache-status"]
        return status

    second = asyncio.create_task(in_thread(twice))
    await eventually(left.is_set)
    await stays(lambda: not second.done() and upstream.calls == 1)
    gate.open()
    assert "; hit" in await second


async def test_a_connection_of_several_responses_is_not_read_on(sync_stack: Stack, upstream: Upstream) -> None:
    """To shut it down would end the others, too."""
    stack = sync_stack
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))

    class Says(stack.library.BaseTransport):  # type: ignore[misc,name-defined]  # of either library
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def handle_request(self, request: Any) -> Any:
            response = self._inner.handle_request(request)
            response.extensions["http_version"] = b"HTTP/2"
            return response

    client = stack.client(stack.transport(Says(stack.network()), linger=30))
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    assert not threads()
    await upstream.disconnected.happened()


async def test_those_who_read_it_after_all_may_leave_too(sync_stack: Stack, upstream: Upstream) -> None:
    """The thread that reads for them is not left with a body that never ends."""
    stack = sync_stack
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))
    client = stack.client(None, {"timeout": 10 * WITHIN}, linger=0.05)
    first, second = [await opened(stack, upstream, client=client) for _ in range(2)]
    for _ in ANTHROPIC.chunks[:-1]:
        assert await first.chunk()
    await first.close()
    await stays(lambda: not upstream.disconnected.is_set())
    assert await second.chunk()
    await second.close()
    await upstream.disconnected.happened()
    await settled(stack)
    assert not await is_stored(stack, upstream, client=client)


async def test_what_a_connection_raises_when_it_is_closed_is_nobodys(sync_stack: Stack, upstream: Upstream) -> None:
    """An error that ends a thread would be a warning, and so fail this."""
    stack = sync_stack
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))
    closed = threading.Event()

    class Raising(stack.library.BaseTransport):  # type: ignore[misc,name-defined]  # of either library
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def handle_request(self, request: Any) -> Any:
            response = self._inner.handle_request(request)
            close = response.stream.close

            def raising() -> None:
                close()
                closed.set()
                raise stack.library.CloseError("of the test")

            response.stream.close = raising
            return response

    client = stack.client(stack.transport(Raising(stack.network()), linger=0.05))
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    await eventually(closed.is_set)
    await settled(stack)


async def test_where_no_thread_can_begin_nothing_is_read_on(
    sync_stack: Stack, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = sync_stack
    client = stack.client(None, {"timeout": 10 * WITHIN}, linger=30)
    for name in ("aurelis-cache-linger", "aurelis-cache-linger-end"):
        upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))
        upstream.disconnected = Happened()
        with monkeypatch.context() as patch:
            refuse(patch, name)
            await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
            await upstream.disconnected.happened()
            await settled(stack)
        assert not await is_stored(stack, upstream, client=client)


async def test_a_transport_without_a_connection_is_not_read_on(sync_stack: Stack) -> None:
    """Nothing could stop it."""
    stack = sync_stack
    going_on = threading.Event()

    class Body(stack.library.SyncByteStream):  # type: ignore[misc,name-defined]  # of either library
        def __iter__(self) -> Any:
            yield from STREAM[:-1]
            going_on.set()
            yield DONE

    def handler(request: Any) -> Any:
        return stack.library.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    client = stack.client(stack.transport(stack.mock(handler)))
    call = await stack.open("POST", "http://example.com/v1/chat/completions", json=chat(stream=True), client=client)
    for _ in STREAM[:-1]:
        await call.chunk()
    await call.close()
    assert not threads()
    assert not going_on.is_set()


async def test_a_client_that_is_closed_meanwhile_leaves_no_thread(sync_stack: Stack, upstream: Upstream) -> None:
    stack = sync_stack
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))
    client = stack.client(linger=0.1)
    await left_after(stack, upstream, len(ANTHROPIC.chunks) - 1, client=client)
    client.close()
    await settled(stack)
    assert not await is_stored(stack, upstream)


async def test_no_more_than_some_are_read_on_at_once(sync_stack: Stack, upstream: Upstream) -> None:
    stack = sync_stack
    upstream.replies(replies(ANTHROPIC, [*ANTHROPIC.chunks[:-1], Gate()]))
    client = stack.client(linger=30)
    calls = []
    for number in range(34):
        path, body = ANTHROPIC.call(stream=True, system=str(number))
        calls.append(await stack.open("POST", upstream.url + path, json=body, client=client))
    for call in calls:
        for _ in ANTHROPIC.chunks[:-1]:
            await call.chunk()
        await call.close()
    assert len(threads()) == 32
    for connection in client._transport._inner._pool.connections:
        stream = connection._connection._network_stream
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    await settled(stack)
