"""A stand-in for models of a provider: OpenAI-compatible, deterministic, and as slow as quick ones are.

It runs in a process of its own and counts its calls, to be compared with what the cache reports.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .faults import MODEL, Switch
from .lifeline import receive
from .server import serve
from .settings import ModelSettings

FIRST_TOKEN: Final = 0.25
"""Seconds to the first token."""
TOKEN: Final = 0.02, 0.03
"""Seconds from one token to the next, at least and at most."""
MAX_TOKENS: Final = 60
EMBEDDING: Final = 0.04
"""Seconds that embeddings take."""
DIMENSIONS: Final = 64
Trouble = Literal["cut", "busy", "broken"] | None
"""A call ends in order and too early, is refused, or breaks off; `None`: all is well."""
_TROUBLES: Final[tuple[Trouble, ...]] = ("cut", "busy", "broken")
_BROKEN_AFTER: Final = 3
"""Chunks that come all the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says to one prompt: pieces of text, and how long each takes to come, in seconds."""

    id: str
    model: str
    pieces: list[tuple[str, float]]
    prompt_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        """Token counts, as the API names them."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": len(self.pieces),
            "total_tokens": self.prompt_tokens + len(self.pieces),
        }


@dataclass(slots=True)
class Calls:
    """The stand-in's own counters."""

    started: int = 0
    finished: int = 0


@dataclass(slots=True)
class StandIn:
    """The endpoints of the stand-in."""

    calls: Calls = field(default_factory=Calls)
    pace: float = 1.0
    """Factor on all delays; tests use 0."""
    faults: Switch = field(default_factory=Switch)
    _troubles: Iterator[Trouble] = field(default_factory=lambda: itertools.cycle(_TROUBLES))

    def app(self) -> Starlette:
        """The ASGI app."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/embeddings", self.embed, methods=["POST"]),
                Route("/calls", self.count, methods=["GET"]),
                Route("/faults", self.fail, methods=["PUT"]),
            ]
        )

    async def count(self, request: Request) -> Response:
        """The counters as JSON."""
        return JSONResponse({"started": self.calls.started, "finished": self.calls.finished})

    async def fail(self, request: Request) -> Response:
        """Have fail from now on what is named in the query, and nothing else."""
        self.faults.set(request.query_params.getlist("name"))
        return Response(status_code=204)

    async def embed(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        self.calls.started += 1
        body = json.loads(await request.body())
        texts = body.get("input")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            return JSONResponse({"error": {"message": "input: texts are required", "type": "invalid_request"}}, 400)
        if MODEL in self.faults:
            return _refusal()
        await asyncio.sleep(EMBEDDING * self.pace)
        data = [
            {"object": "embedding", "index": index, "embedding": embedding(text)} for index, text in enumerate(texts)
        ]
        tokens = sum(len(text.split()) for text in texts)
        self.calls.finished += 1
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "model": str(body.get("model", "")),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    async def complete(self, request: Request) -> Response:
        """`POST /v1/chat/completions`, streamed or not."""
        self.calls.started += 1
        body = json.loads(await request.body())
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return JSONResponse({"error": {"message": "messages: a list is required", "type": "invalid_request"}}, 400)
        trouble = self._trouble()
        if trouble == "busy":
            return _refusal()
        answer = reply(str(body.get("model", "")), messages)
        if body.get("stream"):
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(
                self._stream(answer, with_usage=with_usage, trouble=trouble), media_type="text/event-stream"
            )
        await asyncio.sleep(sum(delay for _, delay in answer.pieces) * self.pace)
        self.calls.finished += 1
        return JSONResponse(_completion(answer))

    def _trouble(self) -> Trouble:
        """How the call that has just begun is to fail: one way after the other."""
        return next(self._troubles) if MODEL in self.faults else None

    async def _stream(self, answer: Answer, *, with_usage: bool, trouble: Trouble) -> AsyncIterator[bytes]:
        """The events of an answer; in trouble only the first."""
        for number, (chunk, delay) in enumerate(_chunks(answer, with_usage=with_usage)):
            if number > _BROKEN_AFTER and trouble == "cut":
                return
            if number > _BROKEN_AFTER and trouble == "broken":
                raise ConnectionAbortedError("breaking off, on purpose")
            await asyncio.sleep(delay * self.pace)
            yield f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n".encode()
        self.calls.finished += 1
        yield b"data: [DONE]\n\n"


def embedding(text: str) -> list[float]:
    """A vector in which each word has its places, so that texts with the same words are near each other."""
    vector = [0.0] * DIMENSIONS
    for word in text.lower().split():
        for place in hashlib.sha256(word.encode()).digest()[:4]:
            vector[place % DIMENSIONS] += 1.0
    return vector


def reply(model: str, messages: list[dict[str, Any]]) -> Answer:
    """The answer to a prompt, derived from its text alone, with delays as of a model that thinks first."""
    texts = [str(message.get("content", "")) for message in messages]
    question = texts[-1].strip()
    facts = " ".join(line[2:] for text in texts[:-1] for line in text.splitlines() if line.startswith("- "))
    text = f"{facts or 'I was given no facts about that.'} That is all I can say to: {question}"
    words = text.split()[:MAX_TOKENS]
    digest = hashlib.sha256("\n".join((model, *texts)).encode()).digest()
    low, high = TOKEN
    pieces = []
    for index, word in enumerate(words):
        spread = digest[index % len(digest)] / 255
        delay = low + spread * (high - low) if index else FIRST_TOKEN * (0.8 + 0.4 * spread)
        pieces.append((word if index == 0 else f" {word}", delay))
    prompt_tokens = sum(len(text.split()) for text in texts) + 4 * len(texts)
    return Answer(f"chatcmpl-{digest.hex()[:24]}", model, pieces, prompt_tokens)


def _refusal() -> Response:
    """What a provider says to who asks too often."""
    error = {"message": "too many requests, on purpose", "type": "rate_limit_error"}
    return JSONResponse({"error": error}, 429, headers={"Retry-After": "1"})


def _completion(answer: Answer) -> dict[str, Any]:
    text = "".join(piece for piece, _ in answer.pieces)
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer.model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": answer.usage,
    }


def _chunks(answer: Answer, *, with_usage: bool) -> Iterator[tuple[dict[str, Any], float]]:
    """The events of a stream, each with the delay before it."""
    head = {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": answer.model,
    }

    def choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    yield choice({"role": "assistant", "content": ""}), 0.0
    for piece, delay in answer.pieces:
        yield choice({"content": piece}), delay
    yield choice({}, "stop"), 0.0
    if with_usage:
        yield {**head, "choices": [], "usage": answer.usage}, 0.0


def main() -> None:
    """Run the stand-in on the socket that the parent opened."""
    settings = receive(ModelSettings, temporary="temporary")
    serve(StandIn().app(), socket.socket(fileno=settings.fd))


if __name__ == "__main__":
    main()
