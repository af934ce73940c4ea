"""What does a client's call cost when our transport answers it from memory?

The baseline is the same client over a transport that answers at once from memory: what the client library itself takes
to build a request and read a response. The transport may add little to it. Where the body is a stream, as those of
connections are and those that our transport replays, the client itself takes longer: a second row shows that.

The number misleads as an estimate of what caching saves: a real call takes milliseconds to minutes. And it is the cost
of the whole call, in which the transport's share is small; a client that does less would make the share larger.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aurelis.cache import CacheManager
from tests.benchmarks.harness import Absent, Bench, Subject, Target, always, module, peer

LIBRARIES = {"httpx2": "aurelis_httpx2", "httpx": "aurelis_httpx"}
URL = "https://api.example.com/v1/items/500?expand=prices"
CHAT_URL = "https://api.example.com/v1/chat/completions"
CHAT = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant that answers in one short sentence."},
        {"role": "user", "content": "What is the capital of France, and how many people live there?"},
    ],
    "temperature": 0.2,
    "max_tokens": 200,
}
_KEY = {"authorization": "Bearer sk-benchmark-0123456789abcdefghijklmnopqrstuvwxyz"}
_ITEM = json.dumps({"id": 500, "name": "item 500", "prices": [number * 1.25 for number in range(200)]}).encode()
_COMPLETION = json.dumps(
    {
        "id": "chatcmpl-123",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris, where about two million people live. " * 8},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 90, "total_tokens": 130},
    }
).encode()


class Origin:
    """Answers from memory, for one library; counts its answers.

    Args:
        library: `Any`, since httpx and httpx2 have the same names and unrelated types.
        streams: the body has to be read by the client, as from a connection; otherwise it is there with the response.
    """

    def __init__(self, library: Any, *, streams: bool = False) -> None:
        self.calls = 0
        self._library = library
        self._streams = streams

    def answer(self, request: Any) -> Any:
        """A prepared response of the library."""
        self.calls += 1
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"max-age=3600")]
        body = _COMPLETION if request.method == "POST" else _ITEM
        if self._streams:
            return self._library.Response(200, headers=headers, stream=self._library.ByteStream(body), request=request)
        return self._library.Response(200, headers=headers, content=body)

    def transport(self) -> Any:
        """A transport for synchronous clients."""
        answer = self.answer

        class Transport(self._library.BaseTransport):  # type: ignore[misc,name-defined]  # a base of either library
            def handle_request(self, request: Any) -> Any:
                return answer(request)

        return Transport()

    def async_transport(self) -> Any:
        """A transport for asynchronous clients."""
        answer = self.answer

        class Transport(self._library.AsyncBaseTransport):  # type: ignore[misc,name-defined]  # as above
            async def handle_async_request(self, request: Any) -> Any:
                return answer(request)

        return Transport()


def run(bench: Bench) -> None:
    """Print the tables."""
    for library in LIBRARIES:
        for name, asynchronous in (("AsyncClient", True), ("Client", False)):
            with tempfile.TemporaryDirectory() as folder:
                tables(bench, library, name, asynchronous, Path(folder))


def tables(bench: Bench, library: str, name: str, asynchronous: bool, folder: Path) -> None:
    """Print the tables of one kind of client."""
    target = {"CacheTransport": [Target(1.15)]}
    bench.compare(
        f"{library}.{name}, GET of {len(_ITEM)} bytes, hit in memory",
        [
            getting(bench, "transport that answers from memory", plain(library, asynchronous), asynchronous),
            getting(bench, "the same, as a stream", plain(library, asynchronous, streams=True), asynchronous),
            getting(bench, "CacheTransport", ours(library, asynchronous), asynchronous, calls=1),
        ],
        target,
        rounds=60,
        count=100,
    )
    bench.compare(
        f"{library}.{name}, POST of a chat completion, hit in memory",
        [
            posting(bench, "transport that answers from memory", plain(library, asynchronous), asynchronous),
            posting(bench, "the same, as a stream", plain(library, asynchronous, streams=True), asynchronous),
            posting(bench, "CacheTransport", ours(library, asynchronous), asynchronous, calls=1),
        ],
        target,
        rounds=60,
        count=100,
    )
    bench.compare(
        f"{library}.{name}, GET, with a peer that takes longer",
        [
            getting(bench, "transport that answers from memory", plain(library, asynchronous), asynchronous),
            hishel(bench, library, asynchronous, folder),
        ],
        {},
        rounds=10,
        count=30,
    )


Made = tuple[Any, Origin]
"""A client, and the origin that it asks."""


def plain(library: str, asynchronous: bool, *, streams: bool = False) -> Made:
    """A client without a cache."""
    httpx = module(library)
    origin = Origin(httpx, streams=streams)
    if asynchronous:
        return httpx.AsyncClient(transport=origin.async_transport(), headers=_KEY), origin
    return httpx.Client(transport=origin.transport(), headers=_KEY), origin


def ours(library: str, asynchronous: bool) -> Made:
    """The same over our transport."""
    httpx = module(library)
    origin = Origin(httpx)
    binding = module(LIBRARIES[library])
    if asynchronous:
        transport = binding.AsyncCacheTransport(origin.async_transport(), cache=CacheManager())
        return httpx.AsyncClient(transport=transport, headers=_KEY), origin
    transport = binding.CacheTransport(origin.transport(), cache=CacheManager())
    return httpx.Client(transport=transport, headers=_KEY), origin


def hishel(bench: Bench, library: str, asynchronous: bool, folder: Path) -> Subject | Absent:
    """hishel's transport, whose storage is SQLite, in the mode that does less."""

    def make() -> Subject:
        httpx = module(library)
        origin = Origin(httpx)
        peers = module(f"hishel.{library}")
        path = folder / "client.db"
        client: Any
        if asynchronous:
            storage = module("hishel").AsyncSqliteStorage(database_path=path)
            transport = peers.AsyncCacheTransport(origin.async_transport(), storage=storage)
            client = httpx.AsyncClient(transport=transport, headers=_KEY)
        else:
            storage = module("hishel").SqliteStorage(database_path=path)
            client = httpx.Client(transport=peers.CacheTransport(origin.transport(), storage=storage), headers=_KEY)
        return getting(bench, "hishel", (client, origin), asynchronous, calls=1)

    return peer("hishel", make)


def getting(bench: Bench, name: str, made: Made, asynchronous: bool, calls: int = 3) -> Subject:
    """GET through a client, whose response is read."""
    client, _ = made
    return checked(bench, name, client.get, URL, made, asynchronous, calls)


def posting(bench: Bench, name: str, made: Made, asynchronous: bool, calls: int = 3) -> Subject:
    """A chat completion through a client."""
    client, _ = made
    call: Callable[[object], Any]
    if asynchronous:

        async def ask(chat: object) -> object:
            return await client.post(CHAT_URL, json=chat)

        call = ask
    else:

        def ask_blocking(chat: object) -> object:
            return client.post(CHAT_URL, json=chat)

        call = ask_blocking
    return checked(bench, name, call, CHAT, made, asynchronous, calls)


def checked(
    bench: Bench,
    name: str,
    call: Callable[[Any], Any],
    argument: object,
    made: Made,
    asynchronous: bool,
    calls: int,
) -> Subject:
    """A subject that asks its origin for exactly `calls` of three calls."""
    _, origin = made
    for _ in range(3):
        response = call(argument)
        if asynchronous:
            response = bench.wait(_result(response))
        assert response.json()["id"]
    assert origin.calls == calls, f"{name}: {origin.calls} calls of the origin, not {calls}"
    return Subject(name, call, always(argument), blocking=not asynchronous)


async def _result(awaitable: Coroutine[Any, Any, Any]) -> Any:
    return await awaitable
