"""A response from memory behaves as one that came over a connection, though its body takes a shorter way."""

import datetime
import importlib
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurelis.cache import CacheManager

CHUNKS = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"]


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """The client library; `Any`, as both have the same names and unrelated types."""
    return importlib.import_module(request.param)


@pytest.fixture
async def client(library: Any) -> AsyncIterator[Any]:
    """A client whose origin answers in chunks, after the answer is in memory."""

    class Origin(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            async def body() -> AsyncIterator[bytes]:
                for chunk in CHUNKS:
                    yield chunk

            class Stream(library.AsyncByteStream):  # type: ignore[misc]
                def __aiter__(self) -> AsyncIterator[bytes]:
                    return body()

            return library.Response(200, headers={"cache-control": "max-age=60"}, stream=Stream())

    binding = importlib.import_module(f"aurelis_{library.__name__}")
    async with CacheManager() as cache:
        transport = binding.AsyncCacheTransport(Origin(), cache=cache)
        async with library.AsyncClient(transport=transport) as made:
            for _ in range(2):  # the second time by its first way, so that the tests see the remembered one
                assert (await made.get("http://example.com/")).content == b"".join(CHUNKS)
            yield made


async def hit(client: Any, **options: Any) -> Any:
    """A response from memory, not yet read."""
    response = await client.send(client.build_request("GET", "http://example.com/"), stream=True, **options)
    assert b"hit" in dict(response.headers.raw)[b"cache-status"]
    return response


async def test_a_whole_body_is_read_and_timed(client: Any) -> None:
    response = await client.get("http://example.com/")
    assert response.content == b"".join(CHUNKS)
    assert response.num_bytes_downloaded == len(response.content)
    assert response.elapsed > datetime.timedelta()
    assert response.is_closed
    assert response.is_stream_consumed
    assert response.text == b"".join(CHUNKS).decode()


async def test_chunks_are_those_recorded(client: Any) -> None:
    response = await hit(client)
    assert [chunk async for chunk in response.aiter_bytes()] == CHUNKS
    assert response.is_closed
    assert response.elapsed > datetime.timedelta()


async def test_raw_chunks_lines_and_sizes(client: Any) -> None:
    response = await hit(client)
    assert [chunk async for chunk in response.aiter_raw()] == CHUNKS
    response = await hit(client)
    assert [line async for line in response.aiter_lines() if line] == ["data: one", "data: two", "data: three"]
    response = await hit(client)
    assert [chunk async for chunk in response.aiter_bytes(5)][:2] == [b"data:", b" one\n"]


async def test_a_body_can_be_read_once(client: Any, library: Any) -> None:
    response = await hit(client)
    parts = [response.aiter_bytes(), response.aiter_bytes()]
    assert [chunk async for chunk in parts[0]] == CHUNKS
    for again in (parts[1], response.aiter_bytes()):
        with pytest.raises(library.StreamConsumed):
            assert [chunk async for chunk in again] == []
    closed = await hit(client)
    parts = [closed.aiter_bytes()]
    await closed.aclose()
    with pytest.raises(library.StreamClosed):
        assert [chunk async for chunk in parts[0]] == []


async def test_leaving_the_rest_closes_it(client: Any) -> None:
    response = await hit(client)
    parts = response.aiter_bytes()
    assert await anext(parts) == CHUNKS[0]
    assert response.num_bytes_downloaded == len(CHUNKS[0])
    await parts.aclose()
    assert response.is_closed
    unread = await hit(client)
    await unread.aiter_bytes().aclose()
    assert not unread.is_closed
    await unread.aclose()


async def test_a_stream_that_somebody_put_around_it_is_read(client: Any, library: Any) -> None:
    class Shout(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._stream:
                yield chunk.upper()

    response = await hit(client)
    response.stream = Shout(response.stream)
    assert await response.aread() == b"".join(CHUNKS).upper()


async def test_it_can_be_pickled(client: Any) -> None:
    response = await client.get("http://example.com/")
    copy = pickle.loads(pickle.dumps(response))
    assert copy.content == response.content
    assert copy.headers == response.headers
    assert copy.status_code == 200
