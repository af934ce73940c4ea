"""An app whose manager is made, and has been used, when the module is imported; for servers with several workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aurelis.cache import CacheConfig, CacheManager

CACHE = CacheManager(CacheConfig(redis_url=os.environ["APP_REDIS_URL"], namespace="app", timeout=2.0))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Closes the cache with the worker."""
    yield
    await CACHE.aclose()


async def value(request: Request) -> PlainTextResponse:
    """Answers with the process that has loaded the thing, and the one that answers."""

    async def load() -> int:
        await asyncio.sleep(0.2)
        return os.getpid()

    key = CACHE.key_builder.build_key("things", request.path_params["name"])
    loader = await CACHE.get_or_compute(key, load, tags=["all"])
    return PlainTextResponse(f"{loader} {os.getpid()}")


async def invalidate(request: Request) -> PlainTextResponse:
    """Makes all things out of date."""
    await CACHE.invalidate_tags("all")
    return PlainTextResponse("done")


app = Starlette(routes=[Route("/value/{name}", value), Route("/invalidate", invalidate)], lifespan=lifespan)
