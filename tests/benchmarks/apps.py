"""The ASGI apps that `asgi_hit` calls and `uvicorn_wrk` serves: one response of 3 kB of JSON, cached in several ways.

The response is prepared, so the work that a cache saves is the framework's alone. An app that reads a database or
renders JSON gains more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.benchmarks.harness import attach_reader, module

PATH = "/catalog/items/500"
BODY = json.dumps(
    [{"id": number, "name": f"item {number}", "price": number * 1.25, "stock": number % 7} for number in range(48)]
).encode()
"""About 3 kB."""
_TTL = 3600


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The least that an ASGI app can do."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class Origin:
    """The routes, and how often one was called."""

    def __init__(self) -> None:
        self.calls = 0

    async def item(self, _request: Request) -> Response:
        """The prepared response."""
        self.calls += 1
        return Response(BODY, media_type="application/json")

    async def fresh_item(self, _request: Request) -> Response:
        """The same, which says itself how long it may be kept."""
        self.calls += 1
        return Response(BODY, media_type="application/json", headers={"cache-control": f"max-age={_TTL}"})


ORIGIN = Origin()


def uncached() -> ASGIApp:
    """A Starlette app with one route that returns the prepared response."""
    return Starlette(routes=[Route("/catalog/items/{number:int}", ORIGIN.item)])


def ours() -> ASGIApp:
    """The route behind `CacheMiddleware`, by a rule."""
    return CacheMiddleware(uncached(), CacheManager(), [CacheRule("/catalog/**", ttl=_TTL)])


def ours_without_rules() -> ASGIApp:
    """A route behind `CacheMiddleware` that sends `Cache-Control`."""
    return CacheMiddleware(Starlette(routes=[Route("/catalog/items/{number:int}", ORIGIN.fresh_item)]), CacheManager())


def starlette_caches() -> ASGIApp:
    """The route behind starlette-caches in memory."""
    middleware = module("starlette_caches.middleware").CacheMiddleware
    cache = module("aiocache").Cache(ttl=_TTL)
    rule = module("starlette_caches.rules").Rule(match="/catalog/items/500", ttl=_TTL)
    app: ASGIApp = middleware(uncached(), cache=cache, rules=[rule])
    return app


def fastapi_cache2() -> ASGIApp:
    """The route behind the decorator of fastapi-cache2 in memory, which is for FastAPI only."""
    fastapi = module("fastapi")
    memory = module("fastapi_cache.backends.inmemory").InMemoryBackend()
    module("fastapi_cache").FastAPICache.init(memory)
    items: list[dict[str, Any]] = json.loads(BODY)

    async def item(number: int) -> list[dict[str, Any]]:
        ORIGIN.calls += 1
        return items

    app = fastapi.FastAPI()
    app.get("/catalog/items/{number}")(module("fastapi_cache.decorator").cache(expire=_TTL)(item))
    asgi: ASGIApp = app
    return asgi


def hishel(folder: Path) -> ASGIApp:
    """The route behind hishel, whose storage is SQLite."""
    middleware = module("hishel.asgi").ASGICacheMiddleware
    storage = module("hishel").AsyncSqliteStorage(database_path=folder / "asgi.db")
    app: ASGIApp = middleware(uncached(), storage=storage, rfc=False)
    return app


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def serve() -> ASGIApp:
    """What `uvicorn --factory` serves: the app that the environment names, with telemetry on."""
    attach_reader()
    makers = {"bare": lambda: bare, "uncached": uncached, "ours": ours, "starlette-caches": starlette_caches}
    return makers[os.environ["BENCHMARK_APP"]]()
