"""What is none of the cache's business passes as if there were no cache, and is not counted."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.client.stack import Stack
from tests.client.upstream import Reply, Upstream
from tests.managers import requests
from tests.models.examples import chat, dump

FRESH = Reply(200, [("cache-control", "max-age=60")], [b"x"], length=True)


def pieces(body: bytes) -> Iterator[bytes]:
    """A body that can be read once."""
    yield body


async def async_pieces(body: bytes) -> AsyncIterator[bytes]:
    """The same for a client with an event loop."""
    yield body


@pytest.mark.parametrize(
    ("method", "path", "request_"),
    [
        ("PUT", "", {"content": b"x"}),
        ("DELETE", "", {}),
        ("OPTIONS", "", {}),
        ("POST", "/v1/embeddings", {"json": chat()}),
        ("POST", "/v1/chat/completions", {"content": b"no JSON"}),
        ("POST", "/v1/chat/completions", {"content": dump(chat()), "headers": {"content-type": "text/plain"}}),
        ("POST", "/v1/chat/completions", {"json": chat(previous_response_id="r1")}),
        ("POST", "/v1/chat/completions", {"files": {"file": b"x"}}),
        ("GET", "", {"content": b"x"}),
        ("GET", "", {"headers": {"transfer-encoding": "chunked"}, "content": b"x"}),
        ("GET", "", {"headers": {"host": "other.example"}}),
        ("GET", "", {"extensions": {"target": b"/other"}}),
    ],
    ids=str,
)
async def test_other_requests_pass(
    stack: Stack, upstream: Upstream, method: str, path: str, request_: dict[str, Any]
) -> None:
    upstream.replies(FRESH)
    if "target" in request_.get("extensions", {}):
        request_ = {"extensions": {"target": f"/{upstream.url.rpartition('/')[2]}/other".encode()}}
    for _ in range(2):
        answer = await stack.send(method, upstream.url + path, **request_)
        assert answer.status == 200
        assert answer.cache_status == ""
    assert upstream.calls == 2
    assert requests(stack.manager) == {}


async def test_an_upgrade_passes(stack: Stack, upstream: Upstream) -> None:
    seen = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return stack.library.Response(101, headers={"cache-control": "max-age=60"})

    client = stack.client(stack.transport(stack.mock(handler)))
    for _ in range(2):
        answer = await stack.get(upstream.url, headers={"connection": "upgrade", "upgrade": "websocket"}, client=client)
        assert answer.cache_status == ""
    assert len(seen) == 2


async def test_an_upload_is_not_used_up(stack: Stack, upstream: Upstream) -> None:
    body = dump(chat())
    for _ in range(2):
        content: object = pieces(body) if stack.blocking else async_pieces(body)
        answer = await stack.send(
            "POST",
            f"{upstream.url}/v1/chat/completions",
            content=content,
            headers={"content-type": "application/json"},
        )
        assert answer.cache_status == ""
    assert [asked.body for asked in upstream.asked] == [body, body]


async def test_a_call_reaches_the_origin_as_it_was(stack: Stack, upstream: Upstream) -> None:
    """No field is added or changed on the way, and what belongs to the call alone goes with it."""
    seen = []
    inner = stack.library.HTTPTransport() if stack.blocking else stack.library.AsyncHTTPTransport()
    base = type(inner)

    class Spy(base):  # type: ignore[misc,valid-type]  # a class of either library
        def handle_request(self, request: Any) -> Any:
            seen.append(request)
            return super().handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            seen.append(request)
            return await super().handle_async_request(request)

    client = stack.client(stack.transport(Spy()))
    marker = object()
    answer = await stack.send(
        "POST",
        f"{upstream.url}/v1/chat/completions#stream",
        json=chat(),
        headers={"x-trace": "1"},
        extensions={"marker": marker, "timeout": {"read": 7.0}},
        client=client,
    )
    assert [request.extensions["marker"] for request in seen] == [marker]
    assert seen[0].extensions["timeout"]["read"] == 7.0
    assert seen[0] is answer.request
    (asked,) = upstream.asked
    assert json.loads(asked.body) == chat()
    assert {name: value for name, value in asked.headers.items() if name not in ("host", "content-length")} == {
        "accept": "*/*",
        "accept-encoding": client.headers["accept-encoding"],
        "connection": "keep-alive",
        "content-type": "application/json",
        "user-agent": client.headers["user-agent"],
        "x-trace": "1",
    }
