"""An origin of web pages and of answers of models, in a process of its own, which counts what reaches it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.asgi.sockets import listening_socket
from tests.fleet import Report

INPUT, OUTPUT = 7, 5
"""Tokens of each answer."""
SLOW: Final = 0.3
"""Seconds of what takes longer than its caller waits."""
PAUSE: Final = 0.02
"""Seconds of what others wait for as well."""

_WISHES: Final = ("no-store", "only-if-cached", "no-cache")


def wishes(chance: random.Random) -> dict[str, str]:
    """Fields of a request, which rarely wants something special of the cache."""
    return {"cache-control": chance.choice(_WISHES)} if chance.random() < 0.06 else {}


CALLS: Counter[str] = Counter()
"""What has come, by who has sent it (a field says that) and what it was."""
TEXTS: Counter[str] = Counter()
"""Texts whose embeddings were asked for, by who has asked."""
SENDER: Final = "x-sender"


async def page(request: Request) -> Response:
    """A page of one kind."""
    kind = request.path_params["kind"]
    number = count(request.headers.get(SENDER, ""), kind)
    etag = '"1"'
    match kind:
        case "kept":
            return Response("kept", headers={"cache-control": "max-age=3600"})
        case "shared":
            await asyncio.sleep(PAUSE)
            return Response("shared", headers={"cache-control": "max-age=3600"})
        case "asked":  # stored, and to be confirmed each time
            if request.headers.get("if-none-match") == etag:
                return Response(status_code=304, headers={"cache-control": "no-cache", "etag": etag})
            return Response("asked", headers={"cache-control": "no-cache", "etag": etag})
        case "behind":
            return Response("behind", headers={"cache-control": "max-age=1, stale-while-revalidate=3600"})
        case "standing-in":
            if number % 3 == 0:
                return Response("broken", 500)
            return Response("standing in", headers={"cache-control": "max-age=1, stale-if-error=3600"})
        case "failing":
            return Response("broken", 503)
        case "breaking":
            return StreamingResponse(_broken(), headers={"cache-control": "max-age=3600"})
        case "slow":
            await asyncio.sleep(SLOW)
            return Response("slow", headers={"cache-control": "max-age=3600"})
        case _:
            return Response(kind, headers={"cache-control": "no-store"})


async def _broken() -> AsyncIterator[bytes]:
    yield b"the beginning"
    await asyncio.sleep(PAUSE)
    raise LookupError("broken")


async def chat(request: Request) -> Response:
    """An answer of a chat model, whole or in pieces."""
    asked = json.loads(await request.body())
    count(request.headers[SENDER], "chat")
    await asyncio.sleep(PAUSE / 4)
    usage = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    head = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "yes"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    def piece(choices: list[Any], **more: Any) -> str:
        document = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(document)}\n\n"

    pieces = [
        piece([{"index": 0, "delta": {"role": "assistant", "content": "yes"}, "finish_reason": None}]),
        piece([{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        piece([], usage=usage),
        "data: [DONE]\n\n",
    ]
    return StreamingResponse(iter(pieces), media_type="text/event-stream")


async def embeddings(request: Request) -> Response:
    """Embeddings of texts."""
    asked = json.loads(await request.body())
    texts = asked["input"]
    count(request.headers[SENDER], "embeddings")
    TEXTS[request.headers[SENDER]] += len(texts)
    data = [{"object": "embedding", "index": place, "embedding": [0.5, 0.25]} for place in range(len(texts))]
    usage = {"prompt_tokens": INPUT * len(texts), "total_tokens": INPUT * len(texts)}
    return JSONResponse({"object": "list", "data": data, "model": asked["model"], "usage": usage})


async def told(_: Request) -> Response:
    """What has come."""
    return JSONResponse({"calls": CALLS, "texts": TEXTS})


def count(sender: str, kind: str) -> int:
    """Count one more call; returns how many there are of its kind."""
    who = f"{sender} {kind}"
    CALLS[who] += 1
    return CALLS[who]


app = Starlette(
    routes=[
        Route("/page/{kind}/{name}", page),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/counts", told),
    ]
)


def serve(report: Report) -> None:
    """Serves until it is ended, and reports its port."""
    with listening_socket() as listener:
        report(listener.getsockname()[1])
        # A connection that is closed while a request is on its way is a load that the origin knows nothing of.
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_keep_alive=3600)
        uvicorn.Server(config).run(sockets=[listener])
