"""The web app of the demo: a catalogue of the installed packages, and questions about it put to a chat model.

It is an ordinary FastAPI app. What makes it a cached one is two lines: the middleware in `make_app`, and the
transport in `_model_client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from html import escape
from typing import Annotated, Any, Final

import httpx2
import openai
from fastapi import FastAPI, HTTPException, Query, Response
from fastapi.responses import HTMLResponse

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.exceptions import CacheError
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx2 import AsyncCacheTransport

from .catalog import Catalog
from .origin import CountCalls, Origin
from .settings import MODELS, WEB, WorkerSettings

RULES: Final = (CacheRule("/packages", ttl=20), CacheRule("/search", ttl=20))
"""These routes send no Cache-Control; the others do."""

_CLEAR: Final = 2.0
"""Seconds that clearing Redis may take at the end."""
_INSTRUCTIONS: Final = "Answer in one or two sentences, and only from these facts:"
_INDEX: Final = """<!doctype html><title>aurelis-cache demo</title>
<h1>{count} Python packages, cached</h1>
<p>Look at the Cache-Status field of the responses (<code>curl -i</code>), and reload.</p>
<ul>
<li><a href="/packages">/packages</a>: the list, kept for 20 s by a rule
<li><a href="/packages/{name}">/packages/{name}</a>: details, kept for 30 s by the app's own Cache-Control
<li><a href="/search?q=http">/search?q=http</a>: a search, kept for 20 s by a rule
<li><a href="/ask?q=What+is+{name}+for%3F">/ask?q=What is {name} for?</a>: asks a chat model; this response is
never kept, the model's answer is
<li><a href="/docs">/docs</a>: the whole API
</ul>
"""


def make_app(settings: WorkerSettings, origin: Origin) -> FastAPI:
    """The app of one worker. It counts the calls that reach it into `origin`.

    Raises:
        CacheError: The settings of a cache are wrong.
    """
    catalog = Catalog(settings.catalog)
    web, models = (_manager(name, settings) for name in (WEB, MODELS))
    client = _model_client(models, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with web, models, client:
            yield
            if settings.redis_url is not None:
                await _clear(web, models)

    app = FastAPI(title="aurelis-cache demo", lifespan=lifespan)
    app.add_middleware(CountCalls, origin=origin)  # added first: inside the cache
    app.add_middleware(CacheMiddleware, cache=web, rules=RULES)

    @app.get("/", response_class=HTMLResponse)
    def index() -> HTMLResponse:
        page = catalog.page(1)
        name = escape(page.packages[0]["name"]) if page.packages else "none"
        return HTMLResponse(_INDEX.format(count=page.total, name=name), headers={"Cache-Control": "public, max-age=30"})

    @app.get("/packages")
    def packages(page: Annotated[int, Query(ge=1)] = 1) -> dict[str, Any]:
        found = catalog.page(page)
        return {"page": page, "pages": found.pages, "total": found.total, "packages": found.packages}

    @app.get("/packages/{name}")
    def package(name: str, response: Response) -> dict[str, Any]:
        found = catalog.detail(name)
        if found is None:
            raise HTTPException(404, "no such package", headers={"Cache-Control": "public, max-age=5"})
        response.headers["Cache-Control"] = "public, max-age=30"
        return found

    @app.get("/search")
    def search(q: Annotated[str, Query(min_length=1, max_length=100)]) -> dict[str, Any]:
        return {"q": q, "found": catalog.search(q)}

    @app.get("/ask")
    async def ask(q: Annotated[str, Query(min_length=1, max_length=500)], response: Response) -> dict[str, Any]:
        response.headers["Cache-Control"] = "no-store"
        facts = await asyncio.to_thread(catalog.facts, q)
        try:
            return {"question": q, **await _answer(client, settings.model, q, facts)}
        except openai.APIError as error:
            # The text may quote the request; the type says enough.
            raise HTTPException(
                502,
                f"the model's endpoint failed: {type(error).__name__}",
                headers={"Cache-Control": "no-store"},
            ) from error

    return app


def _manager(name: str, settings: WorkerSettings) -> CacheManager:
    return CacheManager(CacheConfig(name=name, namespace=f"{settings.namespace}-{name}", redis_url=settings.redis_url))


async def _clear(*managers: CacheManager) -> None:
    """Leave the user's Redis as it was, if it answers; otherwise its entries expire."""
    with contextlib.suppress(CacheError, TimeoutError):
        async with asyncio.timeout(_CLEAR):
            for manager in managers:
                await manager.clear()


def _model_client(cache: CacheManager, settings: WorkerSettings) -> openai.AsyncOpenAI:
    transport = AsyncCacheTransport(httpx2.AsyncHTTPTransport(), cache=cache)
    return openai.AsyncOpenAI(
        api_key=os.environ["OPENAI_API_KEY"] if settings.real_model else "the stand-in needs none",
        base_url=settings.model_url,
        http_client=httpx2.AsyncClient(transport=transport),
    )


async def _answer(client: openai.AsyncOpenAI, model: str, question: str, facts: list[str]) -> dict[str, Any]:
    """Ask the model and read its answer to the end, as it streams."""
    stream = await client.chat.completions.create(
        model=model,
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
    return {"answer": "".join(text), "model": model, "tokens": tokens}
