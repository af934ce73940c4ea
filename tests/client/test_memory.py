"""What is held while streams pass: little of one that is too large, and of many not much more than they send."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.client.stack import Stack
from tests.client.test_protocols import FIELDS
from tests.models.examples import DONE, chat, event, piece

URL = "http://model.example/v1/chat/completions"
PIECE = 512 * 1024
EVENT = event(piece("word " * 120))


def streaming(stack: Stack, chunks: list[bytes]) -> Any:
    """A client over an origin that streams these chunks, each as an object of its own."""

    class Chunks(stack.library.SyncByteStream, stack.library.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Iterator[bytes]:
            for chunk in chunks:
                yield bytes(bytearray(chunk))

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                await asyncio.sleep(0)
                yield chunk

    def answer(request: Any) -> Any:
        return stack.library.Response(200, headers={"content-type": "text/event-stream"}, stream=Chunks())

    return stack.client(inner=stack.mock(answer))


async def read(stack: Stack, client: Any, number: int = 0) -> int:
    """Read a stream chunk by chunk without keeping any; returns how many bytes there were."""
    opened = await stack.open("POST", URL, client=client, json=chat(stream=True, seed=number), headers=FIELDS)
    size = 0
    while (chunk := await opened.chunk()) is not None:
        size += len(chunk)
    await opened.close()
    return size


@pytest.fixture
def traced() -> Iterator[None]:
    """Allocations are counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def test_a_stream_that_is_too_large_is_not_held(stack: Stack, traced: None) -> None:
    number = 50 * 2**20 // PIECE
    client = streaming(stack, [b"x" * PIECE] * number)
    before = tracemalloc.get_traced_memory()[0]
    assert await read(stack, client) == 50 * 2**20
    assert tracemalloc.get_traced_memory()[1] - before < 8 * 2**20  # twice what is kept of a body at most
    assert not stack.manager._engine._entries


async def test_many_streams_at_once_hold_little_more_than_they_send(async_stack: Stack, traced: None) -> None:
    chunks = [*[EVENT] * 99, event(piece(None, "stop")) + DONE]
    client = streaming(async_stack, chunks)
    before = tracemalloc.get_traced_memory()[0]
    sizes = await asyncio.gather(*[read(async_stack, client, number) for number in range(200)])
    assert set(sizes) == {sum(map(len, chunks))}
    assert tracemalloc.get_traced_memory()[1] - before < 200 * 300 * 1024
    assert len(async_stack.manager._engine._entries) == 200
