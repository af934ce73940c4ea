"""An app whose manager is made, and has been used, when the module is imported; for servers with several workers."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aurelis import cache
from aurelis.cache import CacheConfig, CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx import CacheTransport

CACHE = CacheManager(CacheConfig(redis_url=os.environ["APP_REDIS_URL"], namespace="app", timeout=2.0, lease=1.0))
NUMBERS = itertools.count()


def fresh_name() -> str:
    """Returns a name that no other load of any process has."""
    return f"{os.getpid()}-{next(NUMBERS)}"


def answer(request: httpx.Request) -> httpx.Response:
    """Is the service that the app asks."""
    return httpx.Response(200, headers={"cache-control": "max-age=60"}, text=fresh_name())


CLIENT = httpx.Client(transport=CacheTransport(httpx.MockTransport(answer), cache=CACHE))
# Threads and connections are there before a server forks that has preloaded the app.
CLIENT.get("http://service/at-import")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Closes the cache with the worker, and writes down what is left of it then."""
    yield
    await CACHE.aclose()
    left = {"connections": connections(), "tasks": tasks(), "threads": threads()}
    path = Path(os.environ["APP_FOLDER"]) / str(os.getpid())
    path.with_suffix(".new").write_text(json.dumps(left))
    path.with_suffix(".new").rename(path)


def threads() -> int:
    """How many threads are the cache's."""
    return sum(thread.name == "aurelis-cache" for thread in threading.enumerate())


def tasks() -> int:
    """How many tasks of this event loop run code of the cache."""
    package = str(Path(cache.__file__).parent)
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return sum(each.cr_code.co_filename.startswith(package) for each in coroutines if inspect.iscoroutine(each))


def connections() -> int:
    """How many sockets of this process lead to Redis."""
    port = urlsplit(os.environ["APP_REDIS_URL"]).port
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(descriptor).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(descriptor.name))) as copy:
                    found += copy.getpeername()[1] == port
        except (OSError, IndexError):  # closed since, or not connected
            continue
    return found


async def value(request: Request) -> PlainTextResponse:
    """Answers with the name of the load that the thing came from, and the process that answers."""

    async def load() -> str:
        await asyncio.sleep(float(request.query_params.get("seconds", "0.2")))
        return fresh_name()

    key = CACHE.key_builder.build_key("things", request.path_params["name"])
    name = await CACHE.get_or_compute(key, load, tags=["all"])
    return PlainTextResponse(f"{name} {os.getpid()}")


def service(request: Request) -> PlainTextResponse:
    """Answers with what the service said, which is asked in a thread; and with the process that answers."""
    name = CLIENT.get(f"http://service/{request.path_params['name']}").text
    return PlainTextResponse(f"{name} {os.getpid()}")


async def page(request: Request) -> PlainTextResponse:
    """Answers with a name of its own each time."""
    return PlainTextResponse(fresh_name())


async def proxied(request: Request) -> PlainTextResponse:
    """Answers as the app of a reverse proxy does, with the Date of the server behind it."""
    return PlainTextResponse(fresh_name(), headers={"date": formatdate(time.time() - 30, usegmt=True)})


async def invalidate(request: Request) -> PlainTextResponse:
    """Makes all values and responses out of date."""
    await CACHE.invalidate_tags("all")
    await CACHE.invalidate_category("http")
    await CACHE.invalidate_category("http-client")
    return PlainTextResponse("done")


cached = [Middleware(CacheMiddleware, cache=CACHE, rules=[CacheRule("/page/**", ttl=60)])]
app = Starlette(
    routes=[
        Route("/value/{name}", value),
        Route("/service/{name}", service),
        Route("/page/{name}", page, middleware=cached),
        Route("/page/{name}/proxied", proxied, middleware=cached),
        Route("/invalidate", invalidate),
    ],
    lifespan=lifespan,
)
