"""Timeouts of a caller who waits for the load of another: the inner transport, which heeds them, is not asked."""

import asyncio
import threading
from typing import Any

import pytest

from aurelis.cache.client._calls import patience_for_chunk, patience_for_head
from tests.client.stack import Stack
from tests.client.upstream import Gate, Upstream, stream_reply
from tests.managers import WITHIN, eventually, requests
from tests.models.examples import STREAM, chat

URL = "http://example.com/slow"
SHORT = 0.05


async def test_who_waits_for_the_head_waits_no_longer_than_its_own_timeout(stack: Stack) -> None:
    arrived, released = threading.Event(), threading.Event()

    def answer() -> Any:
        return stack.library.Response(200, headers={"cache-control": "max-age=60"}, content=b"body")

    def blocking(request: Any) -> Any:
        arrived.set()
        assert released.wait(WITHIN)
        return answer()

    async def waiting(request: Any) -> Any:
        arrived.set()
        await eventually(released.is_set)
        return answer()

    client = stack.client(stack.transport(stack.mock(blocking if stack.blocking else waiting)))
    leader = asyncio.create_task(stack.get(URL, client=client, timeout=None))
    await eventually(arrived.is_set)
    for _ in range(2):
        with pytest.raises(stack.library.ReadTimeout, match="another caller"):
            await stack.get(URL, client=client, timeout=SHORT)
    patient = asyncio.create_task(stack.get(URL, client=client, timeout=WITHIN))
    await eventually(lambda: stack.manager._engine.flights.waiting == 1)
    released.set()
    assert (await leader).body == (await patient).body == b"body"
    assert (await stack.get(URL, client=client)).is_hit
    assert requests(stack.manager) == {"miss": 4, "hit l1": 1, "loads": 1}


async def test_who_shares_a_body_waits_no_longer_for_a_chunk_than_its_own_timeout(
    stack: Stack, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.replies(stream_reply(STREAM[0], gate, *STREAM[1:]))
    url = f"{upstream.url}/v1/chat/completions"
    leader = await stack.open("POST", url, json=chat(stream=True), timeout=None)
    assert await leader.chunk() == STREAM[0]
    follower = await stack.open("POST", url, json=chat(stream=True), timeout=SHORT)
    assert await follower.chunk() == STREAM[0]
    with pytest.raises(stack.library.ReadTimeout, match="another caller"):
        await follower.chunk()
    await follower.close()
    gate.open()
    assert await leader.rest() == list(STREAM[1:])
    await leader.close()
    assert (await stack.send("POST", url, json=chat(stream=True))).is_hit
    assert upstream.calls == 1


@pytest.mark.parametrize(
    ("extensions", "head", "chunk"),
    [
        ({}, None, None),
        ({"timeout": {"connect": 1.0, "read": 2.0, "write": 4.0, "pool": 8.0}}, 3.0, 2.0),
        ({"timeout": {"connect": None, "read": 2.0}}, 2.0, 2.0),
        ({"timeout": {"connect": 1.0, "read": None}}, None, None),
        ({"timeout": {}}, None, None),
        ({"timeout": 5}, None, None),
    ],
)
def test_what_the_request_says_of_its_patience(
    extensions: dict[str, Any], head: float | None, chunk: float | None
) -> None:
    class Request:
        def __init__(self) -> None:
            self.extensions = extensions

    request: Any = Request()  # all that is looked at
    assert (patience_for_head(request), patience_for_chunk(request)) == (head, chunk)
