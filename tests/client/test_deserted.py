"""Loads that fail by the doing of a caller who is none of those who still wait: these ask for themselves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurelis.cache.telemetry import names
from tests.client.stack import Stack
from tests.managers import WITHIN, count, eventually, is_settled, requests

SHORT = 0.3


class Origin:
    """A server whose first so many answers do not come.

    Attributes:
        asked: how often it was asked so far.
    """

    def __init__(self, *, silent: int) -> None:
        self._silent = silent
        self.asked = 0
        self.url = ""
        self.cache_control = "max-age=60"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it listens."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/page"
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                if self.asked <= self._silent:
                    await reader.read()  # until the client goes
                    break
                body = b"answer %d" % self.asked
                fields = f"cache-control: {self.cache_control}\r\ncontent-length: {len(body)}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + body)
                await writer.drain()
        writer.close()


def waiting(stack: Stack) -> int:
    """How many wait for the load of another."""
    return stack.manager._engine.flights.waiting


async def test_of_a_client_that_is_closed(async_stack: Stack) -> None:
    stack, origin = async_stack, Origin(silent=1)
    leaving, staying = stack.client(), stack.client()
    async with origin.running():
        leader = asyncio.create_task(stack.get(origin.url, client=leaving))
        await eventually(lambda: origin.asked == 1)
        followers = [asyncio.create_task(stack.get(origin.url, client=staying)) for _ in range(3)]
        await eventually(lambda: waiting(stack) == 3)
        leader.cancel()
        await asyncio.wait([leader])
        await leaving.aclose()
        answers = await asyncio.gather(*followers)
        assert [answer.body for answer in answers] == [b"answer 2"] * 3
        assert origin.asked == 2
        await eventually(lambda: is_settled(stack.manager))
        assert requests(stack.manager) == {"miss": 4, "loads": 2}
        await stack.aclose()


async def test_of_a_client_that_is_closed_while_it_refreshes(stack: Stack) -> None:
    origin = Origin(silent=0)
    origin.cache_control = "max-age=1, stale-while-revalidate=3600"
    leaving, staying = stack.client(), stack.client()
    async with origin.running():
        assert (await stack.get(origin.url, client=leaving)).body == b"answer 1"
        await asyncio.sleep(1.1)
        origin._silent = 2
        assert (await stack.get(origin.url, client=leaving)).body == b"answer 1"
        await eventually(lambda: origin.asked == 2)
        fields = {"cache-control": "no-cache"}
        follower = asyncio.create_task(stack.get(origin.url, client=staying, headers=fields))
        await eventually(lambda: waiting(stack) == 1)
        await _close(stack, leaving)
        assert (await follower).body == b"answer 3"
        await eventually(lambda: is_settled(stack.manager))
        assert origin.asked == 3
        assert requests(stack.manager) == {"stale": 1, "miss": 2, "loads": 2}
        assert count(stack.manager, names.REFRESHES) == 1
        await stack.aclose()


async def _close(stack: Stack, client: Any) -> None:
    if stack.blocking:
        # Its pool closes the connection only when the read that goes on there has ended.
        for connection in client._transport._inner._pool.connections:
            connection._connection._network_stream._sock.shutdown(2)
        client.close()
    else:
        await client.aclose()


async def test_of_a_caller_with_less_patience(stack: Stack) -> None:
    origin = Origin(silent=1)
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
        assert requests(stack.manager) == {"miss": 4, "loads": 2}
        await stack.aclose()


async def test_of_a_caller_with_as_much_patience(stack: Stack) -> None:
    origin = Origin(silent=1)
    client = stack.client()
    async with origin.running():
        calls = [asyncio.create_task(stack.get(origin.url, client=client, timeout=SHORT)) for _ in range(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [stack.library.ReadTimeout] * 3
        assert origin.asked == 1
        await stack.aclose()
