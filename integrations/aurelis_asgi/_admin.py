"""A small app to be mounted, by which operators purge responses and see what is stored."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aurelis.cache.exceptions import ConfigurationError, LayerError
from aurelis.cache.exchange import StoredEntry
from aurelis.cache.http import CacheRule
from aurelis.cache.manager import AnyManager

from ._purging import Purger

_MIN_TOKEN_LENGTH = 16
_MAX_BODY_BYTES = 64 * 1024
_MAX_TAGS = 1000
_NO_STORE = {"cache-control": "no-store"}
_FIELDS = ("url", "tag", "tags", "pattern")
_FLAGS = ("soft", "everything")
_EXAMPLE = '{"url": "https://shop.example/catalog/7", "soft": true}'


def admin_app(
    cache: AnyManager | None = None, *, token: str, rules: Sequence[CacheRule] = (), root_path: str = ""
) -> ASGIApp:
    """An ASGI app by which whoever knows the token purges responses and sees what is stored.

    * `POST /purge` with JSON: one of `url`, `tag`, `tags`, `pattern`, and perhaps `"soft": true`. A pattern that begins
      with `*` needs `"everything": true`.
    * `PURGE /entries/https://shop.example/catalog/7` purges a URL; softly with the field `Soft-Purge: 1`.
    * `GET /entries/https://shop.example/catalog/7` tells what is stored of a URL: no bodies, fields or credentials.

    All answers are JSON, errors by RFC 9457.

    Args:
        cache: manager; `None` means the process's.
        token: that requests must have in `Authorization: Bearer …`; at least 16 characters that nobody can guess.
        rules: those of the middleware.
        root_path: of the app that the middleware wraps, as for `Purger`.

    Raises:
        ConfigurationError: the token is too short.
        TypeError: `cache` is no manager.
    """
    if len(token) < _MIN_TOKEN_LENGTH:
        raise ConfigurationError(
            f"token: pass at least {_MIN_TOKEN_LENGTH} characters that nobody can guess, for instance those of "
            "secrets.token_urlsafe()"
        )
    admin = _Admin(Purger(cache, rules=rules, root_path=root_path))
    app = Starlette(
        routes=[
            Route("/purge", admin.purge, methods=["POST"]),
            Route("/entries/{url:path}", admin.purge_url, methods=["PURGE"]),
            Route("/entries/{url:path}", admin.entries, methods=["GET"]),
        ],
        exception_handlers={
            HTTPException: _as_problem,
            ConfigurationError: _as_bad_request,
            LayerError: _as_unavailable,
        },
    )
    return _Guarded(app, token)


class _Guarded:
    """Lets in who has the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._digest = sha256(token.encode("utf-8", "surrogatepass")).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_known(scope):
            answer = _problem(401, "a bearer token is needed", {"www-authenticate": 'Bearer realm="cache"'})
            await answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        # Digests have one length, so the time tells nothing of that of the token either.
        same = hmac.compare_digest(sha256(token.strip(b" ")).digest(), self._digest)
        return scheme.lower() == b"bearer" and same


class _Admin:
    def __init__(self, purger: Purger) -> None:
        self._purger = purger

    async def purge(self, request: Request) -> Response:
        """`POST /purge`."""
        what, value, flags = _wish(await _body(request))
        soft = flags["soft"]
        purged: dict[str, object] = {what: value, "soft": soft}
        match what, value:
            case "url", str():
                await self._purger.url(value, soft=soft)
            case "pattern", str():
                purged["entries"] = await self._purger.pattern(value, **flags)
            case _, str():
                await self._purger.tags(value, soft=soft)
            case _, list():
                await self._purger.tags(*value, soft=soft)
        return JSONResponse({"purged": purged}, headers=_NO_STORE)

    async def purge_url(self, request: Request) -> Response:
        """`PURGE /entries/…`."""
        url = _url(request)
        soft = request.headers.get("soft-purge", "").strip() in ("1", "?1")
        await self._purger.url(url, soft=soft)
        return JSONResponse({"purged": {"url": url, "soft": soft}}, headers=_NO_STORE)

    async def entries(self, request: Request) -> Response:
        """`GET /entries/…`."""
        url = _url(request)
        entries = [_described(entry) for entry in await self._purger.entries(url)]
        return JSONResponse({"url": url, "entries": entries}, headers=_NO_STORE)


def _url(request: Request) -> str:
    """The URL behind `/entries/`, as it was sent: the query of the request is its query."""
    scope = request.scope
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    text = raw.decode("latin-1")
    root = quote(scope.get("root_path", ""))
    url = text.removeprefix(root).partition("/entries/")[2]
    if not url.lower().startswith(("http://", "https://")):
        url = unquote(url)  # a client that escaped it as one piece
    query: bytes = scope["query_string"]
    return f"{url}?{query.decode('latin-1')}" if query else url


async def _body(request: Request) -> object:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {_MAX_BODY_BYTES} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, f"the body is no JSON; send for instance {_EXAMPLE}") from None


def _wish(body: object) -> tuple[str, str | list[str], dict[str, bool]]:
    """Which of the fields says what is to be purged, what it is, and the flags."""
    if not isinstance(body, Mapping):
        raise HTTPException(400, f"send an object, for instance {_EXAMPLE}")
    unknown = [name for name in body if name not in (*_FIELDS, *_FLAGS)]
    given = [name for name in _FIELDS if name in body]
    if unknown or len(given) != 1:
        raise HTTPException(400, f"name one of {', '.join(_FIELDS)}, perhaps with soft, and nothing else")
    value, flags = body[given[0]], {name: body.get(name, False) for name in _FLAGS}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise HTTPException(400, "soft and everything must be true or false")
    if given[0] != "tags":
        if not isinstance(value, str) or not value:
            raise HTTPException(400, f"{given[0]} must be a text that is not empty")
        return given[0], value, flags
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_TAGS:
        raise HTTPException(400, f"tags must be a list of 1 to {_MAX_TAGS} texts")
    if not all(isinstance(tag, str) and tag for tag in value):
        raise HTTPException(400, "tags must be texts that are not empty")
    return "tags", [str(tag) for tag in value], flags


def _described(entry: StoredEntry) -> dict[str, object]:
    return {
        "layer": entry.layer,
        "state": "fresh" if entry.ttl > 0 else "stale",
        "status": entry.status,
        "age": round(entry.age, 3),
        # JSON has no infinity.
        "ttl": round(entry.ttl, 3) if math.isfinite(entry.ttl) else None,
        "life": round(entry.life, 3) if math.isfinite(entry.life) else None,
        "source": entry.source,
        "vary": list(entry.vary),
        "apart": entry.apart,
        "tags": list(entry.tags),
        "size": entry.size,
        "route": entry.route,
    }


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(
        {"status": status, "detail": detail},
        status_code=status,
        headers={**_NO_STORE, **(headers or {})},
        media_type="application/problem+json",
    )


async def _as_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, error.detail, error.headers)


async def _as_bad_request(_: Request, error: Exception) -> Response:
    return _problem(400, str(error))


async def _as_unavailable(_: Request, error: Exception) -> Response:
    # Which layer, and no more: operators look into the log.
    return _problem(503, str(error))
