"""Whatever coding a body came in, it reads as without a cache, and the fields tell the truth about its bytes."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from aurelis.cache.testing import ManualClock
from tests.client.stack import KINDS, Stack, closing, in_thread
from tests.client.upstream import Gate, Reply, Upstream
from tests.managers import opened

CONTENT = b"hello"


def _deflated(content: bytes) -> bytes:
    """Deflate without the frame of zlib, as some servers send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


# By the names of RFC 9110 §8.4.1. What the libraries do not decode passes as it is.
CODINGS: dict[str, tuple[str, bytes]] = {
    "none": ("", CONTENT),
    "identity": ("identity", CONTENT),
    "gzip": ("gzip", gzip.compress(CONTENT)),
    "upper-case": ("GZIP", gzip.compress(CONTENT)),
    "deflate": ("deflate", zlib.compress(CONTENT)),
    "raw-deflate": ("deflate", _deflated(CONTENT)),
    "two": ("deflate, gzip", gzip.compress(zlib.compress(CONTENT))),
    "br": ("br", b"\x0b\x02\x80hello\x03"),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello"),
    "unknown": ("x-own", b"olleh"),
}
ALL = {"accept-encoding": "gzip, deflate, br, zstd, x-own"}
HeaderList = list[tuple[str, str]]


def page(coding: str, body: bytes, *headers: tuple[str, str], pieces: int = 0) -> Reply:
    """A response that is fresh for a minute, announced by its length or in pieces of some bytes."""
    fields: HeaderList = [("cache-control", "max-age=60"), ("vary", "accept-encoding"), ("etag", '"1"'), *headers]
    if coding:
        fields.append(("content-encoding", coding))
    chunks = [body[at : at + pieces] for at in range(0, len(body), pieces)] if pieces else [body]
    return Reply(200, fields, chunks, length=not pieces)


async def raw(stack: Stack, url: str, client: Any, headers: dict[str, str]) -> Any:
    """A response and the bytes that `iter_raw` gives."""
    if stack.blocking:

        def read() -> Any:
            with client.stream("GET", url, headers=headers) as response:
                return response, b"".join(response.iter_raw())

        return await in_thread(read)
    async with client.stream("GET", url, headers=headers) as response:
        return response, b"".join([chunk async for chunk in response.aiter_raw()])


def read_again(stack: Stack, headers: Any, body: bytes) -> bytes:
    """What anybody makes of these bytes who believes the fields."""
    content: bytes = stack.library.Response(200, headers=headers, content=body).content
    return content


@pytest.mark.parametrize("pieces", [0, 3], ids=["length", "pieces"])
@pytest.mark.parametrize("name", CODINGS)
async def test_a_body_reads_as_without_a_cache(stack: Stack, upstream: Upstream, name: str, pieces: int) -> None:
    coding, body = CODINGS[name]
    upstream.replies(page(coding, body, pieces=pieces))
    bare = stack.client(stack.network())
    plain = await stack.request("GET", upstream.url, client=bare, headers=ALL)
    decoded = plain.content == CONTENT
    assert decoded is (name != "unknown")
    client = stack.client()
    for _ in range(3):
        response = await stack.request("GET", upstream.url, client=client, headers=ALL)
        assert response.content == plain.content
        assert response.headers.get("content-encoding") in (None, "identity" if name == "identity" else coding)
        if not decoded:
            assert response.headers["content-encoding"] == coding
    for _ in range(2):
        response, bytes_ = await raw(stack, upstream.url, client, ALL)
        assert read_again(stack, response.headers, bytes_) == plain.content
        assert response.headers.get("content-length", str(len(bytes_))) == str(len(bytes_))
        assert response.num_bytes_downloaded == len(bytes_)
    assert upstream.calls == (2 if decoded else 6)


@pytest.mark.parametrize("name", CODINGS)
async def test_raw_bytes_of_a_miss_are_what_the_fields_say(stack: Stack, upstream: Upstream, name: str) -> None:
    coding, body = CODINGS[name]
    upstream.replies(page(coding, body))
    plain = await stack.request("GET", upstream.url, client=stack.client(stack.network()), headers=ALL)
    response, bytes_ = await raw(stack, upstream.url, stack.client(), ALL)
    assert read_again(stack, response.headers, bytes_) == plain.content
    assert response.headers.get("content-length", str(len(bytes_))) == str(len(bytes_))


async def test_the_bytes_of_the_origin_come_where_the_cache_is_passed_by(stack: Stack, upstream: Upstream) -> None:
    body = gzip.compress(CONTENT)
    upstream.replies(page("gzip", body))
    client = stack.client()
    await stack.get(upstream.url, client=client)

    async def bypassed() -> Any:
        request = client.build_request("GET", upstream.url, extensions={"aurelis": {"bypass": True}})
        if stack.blocking:
            return await in_thread(lambda: b"".join(client.send(request, stream=True).iter_raw()))
        return b"".join([chunk async for chunk in (await client.send(request, stream=True)).aiter_raw()])

    assert await bypassed() == body


async def test_a_body_that_cannot_be_decoded_is_an_error_and_is_not_stored(stack: Stack, upstream: Upstream) -> None:
    upstream.replies(page("gzip", b"no gzip"), page("gzip", gzip.compress(CONTENT)))
    client = stack.client()
    with pytest.raises(stack.library.DecodingError):
        await stack.request("GET", upstream.url, client=client)
    assert (await stack.request("GET", upstream.url, client=client)).content == CONTENT
    assert upstream.calls == 2


async def test_whoever_shares_an_encoded_load_reads_the_same(async_stack: Stack, upstream: Upstream) -> None:
    gate = Gate()
    body = gzip.compress(CONTENT * 1000)
    upstream.replies(
        Reply(200, [("cache-control", "max-age=60"), ("content-encoding", "gzip")], [body[:9], gate, body[9:]])
    )
    client = async_stack.client()
    readers = [await async_stack.open("GET", upstream.url, client=client) for _ in range(3)]
    gate.open()
    for reader in readers:
        assert b"".join(await reader.rest()) == CONTENT * 1000
        assert "content-encoding" not in reader.response.headers
        await reader.close()
    assert upstream.calls == 1


@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_a_head_says_nothing_wrong_about_a_stored_body(stack: Stack, upstream: Upstream, coding: str) -> None:
    upstream.replies(page(coding, gzip.compress(CONTENT) if coding else CONTENT))
    await stack.get(upstream.url)
    for _ in range(2):
        head = await stack.send("HEAD", upstream.url)
        assert head.is_hit
        assert head.body == b""
        assert head.headers.get("content-length") == (None if coding else "5")
        assert "content-encoding" not in head.headers
    assert upstream.calls == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_head_updates_a_body_that_came_encoded(kind: str, upstream: Upstream) -> None:
    """Its fields are about the encoded bytes, which says nothing against those that are stored."""
    body = gzip.compress(CONTENT)
    clock = ManualClock()
    upstream.replies(page("gzip", body))
    async with opened(clock=clock) as manager, closing(Stack(kind, manager)) as stack:
        await stack.get(upstream.url)
        clock.advance(61)
        head = await stack.send("HEAD", upstream.url)
        assert (head.headers["content-encoding"], head.headers["content-length"]) == ("gzip", str(len(body)))
        again = await stack.get(upstream.url)
        assert (again.body, again.is_hit) == (CONTENT, True)
        assert {"content-encoding", "content-length"}.isdisjoint(again.headers)
        assert upstream.calls == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_confirmation_says_nothing_wrong_about_a_stored_body(kind: str, upstream: Upstream) -> None:
    clock = ManualClock()
    fields: HeaderList = [("cache-control", "max-age=60"), ("etag", '"1"'), ("content-encoding", "gzip")]
    upstream.replies(
        Reply(200, fields, [gzip.compress(CONTENT)], length=True),
        Reply(304, fields),
    )
    async with opened(clock=clock) as manager, closing(Stack(kind, manager)) as stack:
        for _ in range(2):
            for _ in range(2):
                answer = await stack.get(upstream.url)
                assert answer.body == CONTENT
                assert "content-encoding" not in answer.headers
            clock.advance(61)
        assert upstream.calls == 2
        assert upstream.asked[1].headers["if-none-match"] == '"1"'


@pytest.mark.parametrize("status", [200, 204])
async def test_an_empty_body_is_stored(stack: Stack, upstream: Upstream, status: int) -> None:
    upstream.replies(Reply(status, [("cache-control", "max-age=60")], [], length=status == 200))
    client = stack.client()
    for hit in (False, True, True):
        response = await stack.request("GET", upstream.url, client=client)
        assert (response.status_code, response.content) == (status, b"")
        assert ("; hit" in response.headers["cache-status"]) is hit
        assert response.headers.get("content-length") == ("0" if status == 200 else None)
        assert response.num_bytes_downloaded == 0
    part = await stack.get(upstream.url, headers={"range": "bytes=0-1"})
    assert (part.status, part.body) == (416 if status == 200 else 204, b"")
    assert upstream.calls == 1


async def test_a_part_comes_as_the_origin_sent_it_where_nothing_is_stored(stack: Stack, upstream: Upstream) -> None:
    fields: HeaderList = [("cache-control", "max-age=60"), ("content-range", "bytes 1-2/5")]
    upstream.answer = lambda asked: (
        Reply(206, fields, [b"el"], length=True) if "range" in asked.headers else page("", CONTENT)
    )
    for _ in range(2):
        part = await stack.get(upstream.url, headers={"range": "bytes=1-2"})
        assert (part.status, part.body, part.headers["content-length"]) == (206, b"el", "2")
        assert not part.is_hit
    assert (await stack.get(upstream.url)).body == CONTENT
    part = await stack.get(upstream.url, headers={"range": "bytes=-2"})
    assert (part.status, part.body, part.headers["content-length"]) == (206, b"lo", "2")
    assert part.is_hit


async def test_each_way_of_reading_a_hit_gives_the_same(stack: Stack, upstream: Upstream) -> None:
    text = b"one\ntwo\nthree\n"
    upstream.replies(page("gzip", gzip.compress(text), ("content-type", "text/plain; charset=utf-8"), pieces=7))
    client = stack.client()
    await stack.request("GET", upstream.url, client=client)
    ways: dict[str, Callable[[Any], Any]] = {
        "iter_bytes": b"".join,
        "iter_raw": b"".join,
        "iter_text": lambda parts: "".join(parts).encode(),
        "iter_lines": lambda lines: "".join(f"{line}\n" for line in lines).encode(),
    }
    for name, joined in ways.items():
        for _ in range(2):
            opened_ = await stack.open("GET", upstream.url, client=client)
            response = opened_.response
            if stack.blocking:
                parts = await in_thread(lambda way=name, of=response: list(getattr(of, way)()))
            else:
                parts = [part async for part in getattr(response, f"a{name}")()]
            assert joined(parts) == text
            await opened_.close()
    assert upstream.calls == 1
