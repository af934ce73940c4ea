"""Loads that fail by the doing of a caller who is none of those who still wait: these ask for themselves."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from aurelis.cache.telemetry import names
from tests.client.stack import Stack, in_thread
from tests.managers import WITHIN, count, eventually, is_settled, requests

SHORT = 0.3
SOON_STALE = "max-age=1, stale-while-revalidate=3600"


class Origin:
    """A server whose first so many answers are held back.

    Attributes:
        asked: how often it was asked so far.
        left: how many connections of clients have ended.
        kind: of content.
        breaks: an answer that was held back never comes: its connection is dropped.
    """

    kind = b"text/plain"

    def __init__(self, *, held: int, cache_control: str = "max-age=60", breaks: bool = False) -> None:
        self.held = held
        self.asked = 0
        self.left = 0
        self.url = ""
        self.released = asyncio.Event()
        self.breaks = breaks
        self._cache_control = cache_control

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it listens."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/page"
            try:
                yield
            finally:
                self.released.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                asked = await reader.readexactly(length)
                self.asked += 1
                body = self._answer(asked)
                if self.asked <= self.held:
                    await self.released.wait()
                    if self.breaks:
                        break
                fields = f"cache-control: {self._cache_control}\r\ncontent-length: {len(body)}\r\n".encode()
                fields += b"content-type: " + self.kind
                writer.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + body)
                await writer.drain()
        self.left += 1
        writer.close()

    def _answer(self, asked: bytes) -> bytes:
        """The body of the next answer, to whatever was asked."""
        return b"answer %d" % self.asked


class Embedder(Origin):
    """The same, of embeddings."""

    kind = b"application/json"

    def _answer(self, asked: bytes) -> bytes:
        items = json.loads(asked)["input"]
        data = [{"object": "embedding", "index": place, "embedding": [0.5]} for place in range(len(items))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}).encode()


def waiting(stack: Stack) -> int:
    """How many wait for the load of another."""
    return stack.manager._engine.flights.waiting


async def test_of_a_leader_who_has_left(async_stack: Stack) -> None:
    stack, origin = async_stack, Origin(held=1, breaks=True)
    leaving, staying = stack.client(), stack.client()
    async with origin.running():
        leader = asyncio.create_task(stack.get(origin.url, client=leaving))
        await eventually(lambda: origin.asked == 1)
        followers = [asyncio.create_task(stack.get(origin.url, client=staying)) for _ in range(3)]
        await eventually(lambda: waiting(stack) == 3)
        leader.cancel()
        await asyncio.wait([leader])
        origin.released.set()
        answers = await asyncio.gather(*followers)
        assert [answer.body for answer in answers] == [b"answer 2"] * 3
        assert origin.asked == 2
        await eventually(lambda: is_settled(stack.manager))
        said = requests(stack.manager)
        assert said["loads"] == 2
        assert said["miss"] + said.get("hit l1", 0) == 4
        await stack.aclose()


async def test_of_a_refresh(stack: Stack) -> None:
    origin = Origin(held=0, cache_control=SOON_STALE, breaks=True)
    client, fields = stack.client(), {"cache-control": "no-cache"}
    async with origin.running():
        assert (await stack.get(origin.url, client=client)).body == b"answer 1"
        await asyncio.sleep(1.1)
        origin.held = 2
        assert (await stack.get(origin.url, client=client)).body == b"answer 1"
        await eventually(lambda: origin.asked == 2)
        follower = asyncio.create_task(stack.get(origin.url, client=client, headers=fields))
        await eventually(lambda: waiting(stack) == 1)
        origin.released.set()
        assert (await follower).body == b"answer 3"
        await eventually(lambda: is_settled(stack.manager))
        assert origin.asked == 3
        assert requests(stack.manager) == {"stale": 1, "miss": 2, "loads": 2}
        assert count(stack.manager, names.REFRESHES) == 1
        await stack.aclose()


# --- a client that is closed while its loads are for others, or for nobody


async def test_of_a_leader_whose_client_is_closed(async_stack: Stack) -> None:
    stack, origin = async_stack, Origin(held=1)
    leaving, staying = stack.client(), stack.client()
    async with origin.running():
        leader = asyncio.create_task(stack.get(origin.url, client=leaving))
        await eventually(lambda: origin.asked == 1)
        follower = asyncio.create_task(stack.get(origin.url, client=staying))
        await eventually(lambda: waiting(stack) == 1)
        leader.cancel()
        await asyncio.wait([leader])
        await leaving.aclose()
        assert origin.left == 0
        origin.released.set()
        assert (await follower).body == b"answer 1"
        await eventually(lambda: origin.left == 1)
        assert origin.asked == 1


async def test_a_load_that_nobody_waits_for_ends_before_its_client_is_closed(async_stack: Stack) -> None:
    stack, origin = async_stack, Origin(held=1)
    async with origin.running():
        async with stack.client() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT):
                    await stack.get(origin.url, client=client)
        assert is_settled(stack.manager)
        origin.released.set()
        await eventually(lambda: origin.left == 1)


async def test_of_clients_of_one_request(stack: Stack) -> None:
    """What is stale is refreshed by a client that is closed at once, and its connection as soon as that is done."""
    turns = 1
    origin = Origin(held=0, cache_control=SOON_STALE)
    async with origin.running():
        assert await _once(stack, origin.url) == b"answer 1"
        for turn in range(1, turns + 1):
            await asyncio.sleep(1.1)
            origin.held, origin.released = turn + 1, asyncio.Event()
            assert await _once(stack, origin.url) == b"answer %d" % turn
            await eventually(lambda turn=turn: origin.asked == turn + 1)  # type: ignore[misc]
            assert origin.left == turn
            origin.released.set()
            await eventually(lambda turn=turn: origin.left == turn + 1)  # type: ignore[misc]
            await eventually(lambda: is_settled(stack.manager))
            assert await _once(stack, origin.url) == b"answer %d" % (turn + 1)
        assert count(stack.manager, names.REFRESHES) == turns


async def _once(stack: Stack, url: str) -> bytes:
    """The answer by a client of its own."""
    if stack.blocking:

        def ask() -> bytes:
            with stack.maker(transport=stack.transport(), timeout=10) as client:
                return bytes(client.get(url).content)

        return await in_thread(ask)
    async with stack.maker(transport=stack.transport(), timeout=10) as client:
        return bytes((await client.get(url)).content)


async def test_what_is_closed_while_nothing_goes_on_is_closed_at_once(stack: Stack) -> None:
    origin = Origin(held=0)
    async with origin.running():
        assert await _once(stack, origin.url) == b"answer 1"
        await eventually(lambda: origin.left == 1)


async def test_of_a_caller_with_less_patience(stack: Stack) -> None:
    origin = Origin(held=1)
    client = stack.client()
    async with origin.running():
        hasty = asyncio.create_task(stack.get(origin.url, client=client, timeout=SHORT))
        await eventually(lambda: origin.asked == 1)
        patient = [asyncio.create_task(stack.get(origin.url, client=client, timeout=WITHIN)) for _ in range(3)]
        await eventually(lambda: waiting(stack) == 3)
        with pytest.raises(stack.library.ReadTimeout):
            await hasty
        assert [answer.body for answer in await asyncio.gather(*patient)] == [b"answer 2"] * 3
        assert origin.asked == 2
        said = requests(stack.manager)  # who asks again late finds what another one has loaded
        assert said["loads"] == 2
        assert said["miss"] + said.get("hit l1", 0) == 4
        await stack.aclose()


# --- the same of several items at once


async def _embed(stack: Stack, origin: Origin, client: Any, timeout: float = WITHIN) -> int:
    """The status of the answer to a question for two items."""
    url, body = origin.url.replace("/page", "/v1/embeddings"), {"model": "m", "input": ["a", "b"]}
    ask = partial(client.post, url, json=body, timeout=timeout)
    response = await in_thread(ask) if stack.blocking else await ask()
    return int(response.status_code)


async def test_of_a_leader_for_several_items_who_has_left(async_stack: Stack) -> None:
    stack, origin = async_stack, Embedder(held=1, breaks=True)
    leaving, staying = stack.client(), stack.client()
    async with origin.running():
        leader = asyncio.create_task(_embed(stack, origin, leaving))
        await eventually(lambda: origin.asked == 1)
        followers = [asyncio.create_task(_embed(stack, origin, staying)) for _ in range(3)]
        await eventually(lambda: waiting(stack) == 6)
        leader.cancel()
        await asyncio.wait([leader])
        origin.released.set()
        assert await asyncio.gather(*followers) == [200] * 3
        assert origin.asked == 2
        await eventually(lambda: is_settled(stack.manager))
        assert requests(stack.manager) == {"miss": 4, "loads": 2}
        await stack.aclose()


async def test_of_a_caller_with_less_patience_for_several_items(stack: Stack) -> None:
    origin = Embedder(held=1)
    client = stack.client()
    async with origin.running():
        hasty = asyncio.create_task(_embed(stack, origin, client, SHORT))
        await eventually(lambda: origin.asked == 1)
        patient = [asyncio.create_task(_embed(stack, origin, client)) for _ in range(3)]
        await eventually(lambda: waiting(stack) == 6)
        with pytest.raises(stack.library.ReadTimeout):
            await hasty
        assert await asyncio.gather(*patient) == [200] * 3
        assert origin.asked == 2
        counted = requests(stack.manager)
        # A thread that is late finds what was loaded meanwhile.
        assert counted["miss"] + counted.get("hit l1", 0) == 4
        assert counted["loads"] == 2
        await stack.aclose()


async def test_of_a_caller_with_as_much_patience(stack: Stack) -> None:
    origin = Origin(held=1)
    client = stack.client()
    async with origin.running():
        calls = [asyncio.create_task(stack.get(origin.url, client=client, timeout=SHORT)) for _ in range(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [stack.library.ReadTimeout] * 3
        assert origin.asked == 1
        await stack.aclose()
