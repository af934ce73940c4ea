"""An app with a cache, for servers that tests start: FastAPI, the middleware, and a counter of what the app did."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response

from aurelis.cache import CacheConfig, CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule

manager = CacheManager(CacheConfig(name="web"))
loads: list[int] = []


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Closes the cache with the app."""
    yield
    await manager.aclose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(CacheMiddleware, cache=manager, rules=[CacheRule("/items/*", ttl=60)])


@app.get("/items/{item}")
async def read(item: int) -> dict[str, int]:
    """Something that may be stored."""
    loads.append(item)
    return {"item": item}


@app.get("/process")
async def process(response: Response) -> dict[str, int]:
    """Which process answers, and how often its app was asked for items."""
    response.headers["cache-control"] = "no-store"
    return {"pid": os.getpid(), "loads": len(loads)}
