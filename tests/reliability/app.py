"""An app whose manager is made, and has been used, when the module is imported; for servers with several workers."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aurelis.cache import CacheConfig, CacheManager

CACHE = CacheManager(CacheConfig(redis_url=os.environ["APP_REDIS_URL"], namespace="app", timeout=2.0))
NUMBERS = itertools.count()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Closes the cache with the worker."""
    yield
    await CACHE.aclose()


async def value(request: Request) -> PlainTextResponse:
    """Answers with the name of the load that the thing came from, and the process that answers."""

    async def load() -> str:
        await asyncio.sleep(0.2)
        return f"{os.getpid()}-{next(NUMBERS)}"

    key = CACHE.key_builder.build_key("things", request.path_params["name"])
    name = await CACHE.get_or_compute(key, load, tags=["all"])
    return PlainTextResponse(f"{name} {os.getpid()}")


async def invalidate(request: Request) -> PlainTextResponse:
    """Makes all things out of date."""
    await CACHE.invalidate_tags("all")
    return PlainTextResponse("done")


app = Starlette(routes=[Route("/value/{name}", value), Route("/invalidate", invalidate)], lifespan=lifespan)
