"""What the app asks models: answers to questions, answers to frequent ones, and which packages are alike.

All calls go through the cache's transport; answers to frequent questions are also found by similar wordings.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import httpx2
import openai

from aurelis.cache import CacheManager, SimilarityCache
from aurelis.cache.models import BilledCall
from aurelis_httpx2 import AsyncCacheTransport

from .catalog import Catalog
from .origin import CountModelCalls, Origin
from .settings import EMBEDDINGS, STAND_IN, WorkerSettings

FAILURES: Final = (openai.APIError, httpx2.HTTPError)
"""What a call can end with; a stream that breaks off raises the client's own error."""

_INSTRUCTIONS: Final = "Answer in one or two sentences, and only from these facts:"
_INPUT, _OUTPUT = 0.4e-6, 1.6e-6
"""US dollars for a token: what a small model costs."""
_COMPARED: Final = 30
"""Packages that each one is compared with."""
_ALIKE: Final = 5
_ERROR_RATE: Final = 0.1
"""Of the questions that are similar to another one, so many at most may get a wrong answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and on which facts it rests."""

    status: str
    text: str
    model: str
    tokens: int
    facts: list[str]


def price(call: BilledCall) -> float | None:
    """What a call has cost. The model for embeddings runs on machines of our own, so nobody knows."""
    usage = call.usage
    if call.model != STAND_IN or usage.input_tokens is None or usage.output_tokens is None:
        return None
    return usage.input_tokens * _INPUT + usage.output_tokens * _OUTPUT


def same_facts(known: Any, own: Any) -> bool:  # the judge of a SimilarityCache gets what the app has stored
    """Whether one answer would have done for the other question."""
    return bool(known.facts == own.facts)


def model_client(cache: CacheManager, settings: WorkerSettings, origin: Origin) -> openai.AsyncOpenAI:
    """The official client, cached: one line of it is about that."""
    cached = AsyncCacheTransport(httpx2.AsyncHTTPTransport(), cache=cache, cost=price)
    return openai.AsyncOpenAI(
        api_key=os.environ["OPENAI_API_KEY"] if settings.real_model else "the stand-in needs none",
        base_url=settings.model_url,
        http_client=httpx2.AsyncClient(transport=CountModelCalls(cached, origin)),
    )


def frequent(cache: CacheManager) -> SimilarityCache:
    """Finds answers to similar questions, and asks the model as often as it takes to know whether they are right."""
    return SimilarityCache(cache, mode="verified", judge=same_facts, error_rate=_ERROR_RATE)


class Assistant:
    """Asks models about the packages of a catalogue.

    Its methods raise one of `FAILURES` if the model fails.
    """

    def __init__(self, client: openai.AsyncOpenAI, model: str, catalog: Catalog, answers: SimilarityCache) -> None:
        """`answers`: to frequent questions."""
        self._client = client
        self._model = model
        self._catalog = catalog
        self._answers = answers

    async def ask(self, question: str) -> Answer:
        """Put a question to the model and read its answer to the end, as it streams."""
        facts = await asyncio.to_thread(self._catalog.facts, question)
        stream = await self._client.chat.completions.create(
            model=self._model,
            messages=[
                {"role": "system", "content": "\n".join([_INSTRUCTIONS, *(f"- {fact}" for fact in facts)])},
                {"role": "user", "content": question},
            ],
            stream=True,
            stream_options={"include_usage": True},
        )
        text: list[str] = []
        tokens = 0
        async for chunk in stream:
            text.extend(choice.delta.content or "" for choice in chunk.choices)
            if chunk.usage is not None:
                tokens = chunk.usage.total_tokens
        return Answer("success", "".join(text), self._model, tokens, facts)

    async def frequently_asked(self, question: str) -> Answer:
        """The answer to this question, or to one that says the same."""
        answer: Answer = await self._answers.get_or_compute(self._model, question, {}, lambda: self.ask(question))
        return answer

    async def alike(self, name: str) -> list[dict[str, Any]] | None:
        """The packages whose summaries are nearest in meaning, by embeddings; `None`: there is no such package.

        Each call asks for all of them; what has been embedded before is not sent again.
        """
        found = await asyncio.to_thread(self._catalog.detail, name)
        if found is None:
            return None
        page = await asyncio.to_thread(self._catalog.page, 1, _COMPARED)
        packages = [package for package in page.packages if package["name"] != found["name"]]
        texts = [package["summary"] or package["name"] for package in (found, *packages)]
        answer = await self._client.embeddings.create(model=EMBEDDINGS, input=texts, encoding_format="float")
        own, *others = (each.embedding for each in answer.data)
        scored = [
            {"name": package["name"], "summary": package["summary"], "similarity": round(_cosine(own, vector), 3)}
            for package, vector in zip(packages, others, strict=True)
        ]
        return sorted(scored, key=lambda each: -each["similarity"])[:_ALIKE]


def as_page(question: str, answer: Answer) -> dict[str, Any]:
    """An answer as the app gives it."""
    said = asdict(answer)
    return {"question": question, "answer": said["text"], "model": said["model"], "tokens": said["tokens"]}


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return _product(one, other) / math.sqrt(_product(one, one) * _product(other, other) or 1.0)


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
