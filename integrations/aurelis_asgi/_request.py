"""An ASGI scope as the record that the HTTP rules understand."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from starlette.types import Scope


def target_uri(scope: Scope, fields: Mapping[bytes, bytes]) -> str:
    """The target URI of a request (RFC 9110 §7.1): scheme, authority, path and query.

    The path is taken as the client sent it: two spellings of one path have entries of their own, since the app may tell
    them apart.
    """
    raw_path: bytes | None = scope.get("raw_path")
    path = quote(scope["path"]) if raw_path is None else raw_path.decode("latin-1")
    host = fields.get(b"host")
    authority = _server(scope) if host is None else host.decode("latin-1")
    scheme = scope.get("scheme", "http")
    query: bytes = scope["query_string"]
    if query:
        return f"{scheme}://{authority}{path}?{query.decode('latin-1')}"
    return f"{scheme}://{authority}{path}"


def has_body(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a body follows (RFC 9112 §6.3). On a GET it has no meaning for HTTP, but the app may read it."""
    length = fields.get(b"content-length")
    return b"transfer-encoding" in fields or (length is not None and length.strip() != b"0")


def route_template(scope: Scope) -> str:
    """Template of the route that the app's router left in the scope; empty where there is none."""
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) else ""


def _server(scope: Scope) -> str:
    server = scope.get("server")
    return "" if not server else f"{server[0]}:{server[1]}"
