"""The web app of the demo: a catalogue of the installed packages, their ratings, and questions about them.

It is an ordinary FastAPI app. What makes it a cached one is the middleware in `make_app`, the transport and the
`SimilarityCache` in `assistant`, and the `WriteBehind` here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from aurelis.cache import WriteBehind
from aurelis.cache.exceptions import CacheError
from aurelis_asgi import CacheMiddleware, CacheRule

from . import ratings as ratings_table
from .assistant import FAILURES, Assistant, as_page, frequent, model_client
from .caches import Caches, make_caches
from .catalog import Catalog, normalised
from .exports import Exports
from .faults import Switch
from .origin import CountCalls, Origin
from .ratings import Ratings
from .settings import RATINGS, WorkerSettings


def _tag(package: str) -> str:
    return f"package:{normalised(package)}"


RULES: Final = (
    CacheRule("/packages", ttl=20, stale_if_error=600),
    CacheRule("/packages/{name}", stale_if_error=600, tags=lambda found: [_tag(found["name"])]),
    CacheRule("/search", ttl=20, stale_while_revalidate=20, stale_if_error=600),
)
"""`/packages` and `/search` send no Cache-Control; the others do."""

_FLUSH: Final = 0.2
"""Seconds that a rating waits at most, unless its table fails."""
_ATTEMPTS: Final = 2
"""Attempts until it is a dead letter: few, so that one can be seen here."""
_LAST_WRITES: Final = 1.0
"""Seconds that ratings may take to reach their table at the end."""
_NO_STORE: Final = {"Cache-Control": "no-store"}
_INDEX: Final = """<!doctype html><title>aurelis-cache demo</title>
<h1>{count} Python packages, cached</h1>
<p>Look at the Cache-Status field of the responses (<code>curl -i</code>), and reload.</p>
<ul>
<li><a href="/packages">/packages</a>: the list, kept for 20 s by a rule
<li><a href="/packages/{name}">/packages/{name}</a>: details, kept for 10 s by the app's own Cache-Control, and
forgotten when somebody rates the package
<li><a href="/search?q=http">/search?q=http</a>: a search, kept for 20 s by a rule
<li><a href="/ask?q=What+is+{name}+for%3F">/ask?q=What is {name} for?</a>: asks a chat model; this response is
never kept, the model's answer is
<li><a href="/docs">/docs</a>: the whole API
</ul>
"""


def make_app(settings: WorkerSettings, origin: Origin, faults: Switch) -> FastAPI:
    """The app of one worker. It counts the calls that reach it into `origin`, and fails as `faults` says.

    Raises:
        CacheError: The settings of a cache are wrong.
    """
    catalog = Catalog(settings.catalog)
    caches = make_caches(settings)
    client = model_client(caches.models, settings, origin)
    answers = frequent(caches.faq)
    assistant = Assistant(client, settings.model, catalog, answers)
    table, behind = _ratings(settings, caches, faults)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with caches.opened(clear=settings.redis_url is not None), client, answers:
            try:
                yield
            finally:
                await behind.aclose(_LAST_WRITES)

    app = FastAPI(title="aurelis-cache demo", lifespan=lifespan)
    app.add_middleware(CountCalls, origin=origin, faults=faults)  # added first: inside the cache
    app.add_middleware(CacheMiddleware, cache=caches.web, rules=RULES)
    for failure in FAILURES:
        app.add_exception_handler(failure, _model_failed)
    _add_packages(app, catalog, table)
    _add_exports(app, Exports(Path(settings.data), catalog, caches.web))
    _add_ratings(app, behind)
    _add_questions(app, assistant)
    if not settings.real_model:
        _add_more_questions(app, assistant)
    return app


def _ratings(settings: WorkerSettings, caches: Caches, faults: Switch) -> tuple[Ratings, WriteBehind[Ratings]]:
    async def written(packages: set[str]) -> None:
        await caches.web.invalidate_tags(*map(_tag, packages))

    folder = Path(settings.data)
    table = Ratings(folder / "ratings.sqlite", faults, written)
    return table, WriteBehind(
        caches.ratings, table, name=RATINGS, flush_interval=_FLUSH, max_attempts=_ATTEMPTS, journal=folder
    )


def _model_failed(request: Request, error: Exception) -> Response:
    # The text of the error may quote the request; the type says enough.
    detail = f"the model's endpoint failed: {type(error).__name__}"
    return JSONResponse({"detail": detail}, 502, headers=_NO_STORE)


def _add_packages(app: FastAPI, catalog: Catalog, table: Ratings) -> None:
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
    def package(name: str, request: Request) -> Response:
        found = catalog.detail(name)
        if found is None:
            raise HTTPException(404, "no such package", headers={"Cache-Control": "public, max-age=5"})
        found["rating"], found["ratings"] = table.of(normalised(name))
        response = JSONResponse(found, headers={"Cache-Control": "public, max-age=10"})
        tag = response.headers["ETag"] = f'"{sha256(response.body).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == tag:  # the cache asks whether what it has is still right
            return Response(status_code=304, headers={"Cache-Control": "public, max-age=10", "ETag": tag})
        return response

    @app.get("/search")
    def search(q: Annotated[str, Query(min_length=1, max_length=100)]) -> dict[str, Any]:
        return {"q": q, "found": catalog.search(q)}


def _add_exports(app: FastAPI, exports: Exports) -> None:
    @app.get("/exports/{name}")
    async def export(name: str) -> Response:
        content = await exports.of(name)
        if content is None:
            raise HTTPException(404, "no such package", headers={"Cache-Control": "public, max-age=5"})
        return Response(content, media_type="application/json", headers=_NO_STORE)


def _add_ratings(app: FastAPI, behind: WriteBehind[Ratings]) -> None:
    @app.put("/ratings/{name}")
    async def rate(
        name: str,
        user: Annotated[str, Query(pattern=r"^\w{1,40}$")],
        stars: Annotated[int, Query(ge=1, le=5)],
    ) -> dict[str, Any]:
        try:
            await behind.set(ratings_table.key(normalised(name), user), stars)
        except CacheError as error:
            raise HTTPException(503, f"the rating was not taken: {type(error).__name__}") from error
        return {"package": name, "stars": stars}

    @app.post("/ratings")
    async def write_again() -> dict[str, int]:
        """Let the ratings that the table refused be written again."""
        return {"replayed": await behind.replay_dead_letters()}


def _add_questions(app: FastAPI, assistant: Assistant) -> None:
    @app.get("/ask")
    async def ask(q: Annotated[str, Query(min_length=1, max_length=500)]) -> JSONResponse:
        return JSONResponse(as_page(q, await assistant.ask(q)), headers=_NO_STORE)


def _add_more_questions(app: FastAPI, assistant: Assistant) -> None:
    """Those that would cost too much, or need a second model, where the model is a real one."""

    @app.get("/faq")
    async def faq(q: Annotated[str, Query(min_length=1, max_length=500)]) -> JSONResponse:
        return JSONResponse(as_page(q, await assistant.frequently_asked(q)), headers=_NO_STORE)

    @app.get("/related/{name}")
    async def related(name: str) -> JSONResponse:
        packages = await assistant.alike(name)
        if packages is None:
            raise HTTPException(404, "no such package", headers={"Cache-Control": "public, max-age=5"})
        return JSONResponse({"name": name, "related": packages}, headers={"Cache-Control": "public, max-age=10"})
