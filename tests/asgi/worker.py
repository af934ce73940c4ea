"""A worker process for tests: `python -m tests.asgi.worker FD REDIS_URL` serves a cached app on an inherited socket.

The body of each answer names the process that made it.
"""

import os
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aurelis.cache import CacheConfig, CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule


async def made_by(request: Request) -> PlainTextResponse:
    """Answers with the process and what was asked for."""
    return PlainTextResponse(f"{os.getpid()} {request.url.path}", headers={"vary": "accept-language"})


def main() -> None:
    """Serve until a signal comes."""
    manager = CacheManager(CacheConfig(redis_url=sys.argv[2]))
    rules = [CacheRule("/**", ttl=60)]
    app = Starlette(
        routes=[Route("/{path:path}", made_by)],
        middleware=[Middleware(CacheMiddleware, cache=manager, rules=rules)],
    )
    listener = socket.socket(fileno=int(sys.argv[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
