"""What does a hit of `CacheMiddleware` cost, from the ASGI server's call to the last message?

The baseline is the Starlette route itself, uncached, which returns 3 kB of prepared JSON; a bare ASGI app shows the
floor. A hit must cost less than the least that a framework does without the cache.

The number misleads as a share of a whole request: the server's parsing and writing are not in it (see `uvicorn_wrk`),
and an app that does any work takes many times as long as this route. Peers do not do the same: fastapi-cache2 caches
the value that a FastAPI route returns, and hishel reads from SQLite.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from tests.benchmarks import apps
from tests.benchmarks.harness import Absent, Bench, Subject, Target, peer

_HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en"),
    (b"connection", b"keep-alive"),
]


def run(bench: Bench) -> None:
    """Print the table."""
    name = "CacheMiddleware, CacheRule"
    with tempfile.TemporaryDirectory() as folder:
        bench.compare(
            f"ASGI, hit in memory, {len(apps.BODY)} bytes of JSON",
            [
                subject("uncached Starlette route", apps.uncached()),
                subject("bare ASGI app", apps.bare),
                hitting(bench, name, apps.ours),
                hitting(bench, "CacheMiddleware, Cache-Control of the app", apps.ours_without_rules),
                peer("starlette-caches", lambda: hitting(bench, "starlette-caches", apps.starlette_caches)),
            ],
            {name: [Target(0.5)], "CacheMiddleware, Cache-Control of the app": [Target(0.5)]},
            rounds=100,
            count=200,
        )
        bench.compare(
            "the same, with peers that take longer",
            [
                subject("uncached Starlette route", apps.uncached()),
                peer("fastapi-cache2", lambda: hitting(bench, "fastapi-cache2", apps.fastapi_cache2)),
                hishel(bench, Path(folder)),
            ],
            {},
            rounds=20,
            count=40,
        )


def hishel(bench: Bench, folder: Path) -> Subject | Absent:
    """`ASGICacheMiddleware`, as it comes."""
    return peer("hishel", lambda: hitting(bench, "hishel", lambda: apps.hishel(folder)))


def subject(name: str, app: ASGIApp) -> Subject:
    """Calls of an app, each with a scope of its own, as from a server."""
    return Subject(name, caller(app), scopes)


def hitting(bench: Bench, name: str, make: Callable[[], ASGIApp]) -> Subject:
    """The same for a cached app that has the response."""
    app = make()
    calls = apps.ORIGIN.calls
    answers = [bench.wait(answer(app)) for _ in range(3)]
    assert apps.ORIGIN.calls == calls + 1, f"{name} called the route {apps.ORIGIN.calls - calls} times"
    assert json.loads(answers[2]) == json.loads(apps.BODY)
    return subject(name, app)


def caller(app: ASGIApp) -> Callable[[Scope], Coroutine[Any, Any, None]]:
    """A function that calls the app with a scope."""

    async def call(scope: Scope) -> None:
        await app(scope, receive, send)

    return call


def scopes(count: int) -> Sequence[Scope]:
    """Scopes as uvicorn makes them."""
    return [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
            "scheme": "http",
            "method": "GET",
            "root_path": "",
            "path": apps.PATH,
            "raw_path": apps.PATH.encode(),
            "query_string": b"",
            "headers": list(_HEADERS),
            "state": {},
        }
        for _ in range(count)
    ]


async def receive() -> Message:
    """An empty request body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Takes a message as a server does, and does nothing with it."""


async def answer(app: ASGIApp) -> bytes:
    """The body of one response."""
    chunks = []

    async def record(message: Message) -> None:
        chunks.append(message.get("body", b""))

    (scope,) = scopes(1)
    await app(scope, receive, record)
    return b"".join(chunks)
