"""An app with a cache, for servers that tests start: FastAPI, the middleware, and which process answers."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from aurelis.cache import CacheConfig, CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule

RULES = [CacheRule("/items/*", ttl=60), CacheRule("/process", bypass=True)]
manager = CacheManager(CacheConfig(name="web"))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Closes the cache with the app, and sends what is left: a server that is ended by a signal runs no `atexit`."""
    yield
    await manager.aclose()
    for provider in (metrics.get_meter_provider(), trace.get_tracer_provider()):
        if isinstance(provider, MeterProvider | TracerProvider):
            provider.force_flush()


app = FastAPI(lifespan=lifespan)
app.add_middleware(CacheMiddleware, cache=manager, rules=RULES)


@app.get("/items/{item}")
async def read(item: int) -> dict[str, int]:
    """Something that may be stored."""
    return {"item": item}


@app.get("/process")
async def process(response: Response) -> dict[str, int]:
    """Which process answers."""
    response.headers["cache-control"] = "no-store"
    return {"pid": os.getpid()}
