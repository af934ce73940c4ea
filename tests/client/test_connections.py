"""However a request or a load ends, its connection goes back to the pool: a lost one is lost for good."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache import CacheManager
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import Reply, Upstream
from tests.managers import configuration, eventually, is_settled, opened
from tests.models.examples import STREAM, chat

FEW = 2
"""Connections that the pool may have."""
SOON_STALE = [("cache-control", "max-age=1, stale-while-revalidate=3600")]


def client_of_few(stack: Stack, **options: Any) -> Any:
    """A client that soon waits in vain when connections are lost."""
    limits = stack.library.Limits(max_connections=FEW)
    settings = {"timeout": stack.library.Timeout(20, pool=5)}
    return stack.client(stack.transport(stack.network(limits=limits), **options), settings)


NEWER = {
    "no-store": Reply(200, [("cache-control", "no-store")], [b"newer"], length=True),
    "in-pieces": Reply(200, [("cache-control", "no-store")], [b"newer", b" and larger"]),
    "gone": Reply(404, (), [b"gone"], length=True),
    "failed": Reply(503, (), [b"later"], length=True),
}


async def test_of_a_refresh_whose_response_is_not_kept(stack: Stack, upstream: Upstream) -> None:
    client = client_of_few(stack)
    urls = [f"{upstream.url}/{kind}/{turn}" for turn in range(2 * FEW) for kind in NEWER]
    upstream.replies(Reply(200, SOON_STALE, [b"older"], length=True))
    for url in urls:
        assert (await stack.get(url, client=client)).status == 200
    await asyncio.sleep(1.1)
    upstream.answer = lambda asked: NEWER[asked.path.partition("/")[0]]
    for url in urls:
        assert (await stack.get(url, client=client)).body == b"older"
        await eventually(lambda: is_settled(stack.manager))
    await eventually(lambda: upstream.calls == 2 * len(urls))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_takes_the_place_of_something_is_read_while_that_is_removed(
    kind: str, upstream: Upstream, tmp_path: Path
) -> None:
    """To remove it from a layer below memory takes its time, in which the caller has the response already."""
    async with opened(configuration(cache_dir=tmp_path)) as manager, closing(Stack(kind, manager)) as stack:
        client = client_of_few(stack)
        urls = [f"{upstream.url}/{turn}" for turn in range(3 * FEW)]
        upstream.replies(Reply(200, [("cache-control", "max-age=1")], [b"older"], length=True))
        for url in urls:
            assert (await stack.get(url, client=client)).body == b"older"
        await asyncio.sleep(1.1)
        upstream.replies(Reply(200, [("cache-control", "no-store")], [b"newer", b" and larger"]))
        for url in urls:
            assert (await stack.get(url, client=client)).body == b"newer and larger"


class Wire:
    """A server that sends the end of a stream in one piece with its terminator, as many do."""

    def __init__(self, *, pause: float = 0.0) -> None:
        self._pause = pause
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it listens."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, last = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n", b""
        *first, last = (b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in STREAM)
        try:
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in asked.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                for piece in (head, *first, last + b"0\r\n\r\n"):
                    await asyncio.sleep(self._pause)
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def test_of_a_stream_that_is_left_where_the_protocol_ends(async_stack: Stack) -> None:
    client, wire = client_of_few(async_stack), Wire()
    async with wire.running():
        for turn in range(5 * FEW):
            async with client.stream("POST", wire.url, json=_question(turn)) as response:
                async for line in response.aiter_lines():
                    if "[DONE]" in line:
                        break
        assert await _is_answered(client, wire)
    await async_stack.aclose()


@pytest.mark.parametrize(("linger", "seed"), [(0, 1), (1.0, 2)])
async def test_of_callers_who_leave_at_any_time(async_stack: Stack, seed: int, linger: float) -> None:
    client, wire, chance = client_of_few(async_stack, linger=linger), Wire(pause=0.002), random.Random(seed)

    async def ask(number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.04):
                await client.post(wire.url, json=_question(number))

    async with wire.running():
        for turn in range(40):
            await asyncio.gather(*(ask(turn + other) for other in range(chance.randint(1, FEW))))
        assert await _is_answered(client, wire)
    await async_stack.aclose()


async def test_of_embeddings_whose_callers_leave_at_any_time(async_stack: Stack, upstream: Upstream) -> None:
    client, chance = client_of_few(async_stack), random.Random(1)
    data = [{"object": "embedding", "index": place, "embedding": [0.5]} for place in range(2)]
    body = json.dumps({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}})
    upstream.replies(Reply(200, [("content-type", "application/json")], [body[:40].encode(), body[40:].encode()]))
    url = f"{upstream.url}/v1/embeddings"

    async def ask(number: int, within: float) -> int:
        async with asyncio.timeout(within):
            return int((await client.post(url, json={"model": "m", "input": [f"{number}", "x"]})).status_code)

    for turn in range(60):
        with contextlib.suppress(TimeoutError):
            await ask(turn, chance.random() * 0.02)
    assert await ask(-1, 20) == 200


async def _is_answered(client: Any, wire: Wire) -> bool:
    """Whether a connection is left for each that there may be."""
    responses = await asyncio.gather(*(client.post(wire.url, json=_question(-1 - turn)) for turn in range(FEW)))
    return all(response.content == b"".join(STREAM) for response in responses)


def _question(number: int) -> dict[str, Any]:
    return {**chat(stream=True), "messages": [{"role": "user", "content": f"{number}"}]}


async def test_the_manager_waits_for_what_is_being_closed(manager: CacheManager) -> None:
    done = asyncio.Event()

    async def close() -> None:
        await asyncio.sleep(0.05)
        done.set()

    manager._engine.flights.run_to_its_end(close())
    await manager.aclose()
    assert done.is_set()


async def test_a_call_that_is_dropped_waits_for_nothing(async_stack: Stack) -> None:
    """As a garbage collector drops it, with its event loop; it has just been told that the response is its own."""
    raised: list[RuntimeError] = []

    def drop() -> None:
        try:
            call.get_coro().close()
        except RuntimeError as error:
            raised.append(error)

    async def body() -> AsyncIterator[bytes]:
        yield b"body"

    async def handler(_: object) -> Any:
        asyncio.get_running_loop().call_soon(drop)
        return async_stack.library.Response(200, headers={"cache-control": "no-store"}, content=body())

    transport = async_stack.transport(async_stack.mock(handler))
    request = async_stack.library.Request("GET", "http://origin.test/")
    call = asyncio.create_task(transport.handle_async_request(request))
    await asyncio.wait([call])
    assert isinstance(call.exception(), RuntimeError)  # of asyncio, which goes on with what is over
    assert raised == []
