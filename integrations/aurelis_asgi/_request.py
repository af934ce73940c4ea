"""An ASGI scope as the record that the HTTP rules understand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.types import Scope

from aurelis.cache.http import Admission, CacheRule, HttpRequest, RuleEffect, match_rule

BODY_FIELDS = frozenset({b"content-length", b"transfer-encoding"})
"""Request fields that announce a body."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for, and what follows from that alone.

    Attributes:
        uri: target URI (RFC 9110 §7.1): scheme, authority, path and query. The path is taken as the client sent it: two
            spellings of one path have entries of their own, since the app may tell them apart.
        rule: for its path, or `None`.
        effect: what the rule says about every request; `None` without a rule, and where it `asks`.
        asks: the rule has to be asked about each request.
        key: of the response, where requests are not kept apart.
    """

    uri: str
    rule: CacheRule | None
    effect: RuleEffect | None
    asks: bool
    key: str


def make_target(
    rules: Sequence[CacheRule],
    key_of: Callable[[HttpRequest], str],
    scheme: str,
    host: bytes | None,
    raw_path: bytes | None,
    path: str,
    query: bytes,
    root_path: str,
    server: Sequence[object] | None = None,
) -> Target:
    """Read what a scope says about the target. `host`: value of the field; `server`: stands in for it."""
    name = f"{server[0]}:{server[1]}" if server else ""
    authority = name if host is None else host.decode("latin-1")
    uri = f"{scheme}://{authority}{quote(path) if raw_path is None else raw_path.decode('latin-1')}"
    if query:
        uri += f"?{query.decode('latin-1')}"
    key = key_of(HttpRequest("GET", uri, {}))
    rule = match_rule(rules, path_below_root(path, root_path)) if rules else None
    if rule is None:
        return Target(uri, None, None, False, key)
    if rule.principal is not None or rule.cookies is not None:
        return Target(uri, rule, None, True, key)
    admission = rule.admit({}, {})
    assert isinstance(admission, Admission)
    return Target(uri, rule, admission.effect, False, key)


def path_below_root(path: str, root: str) -> str:
    """The decoded path below the root path, which rules are written for."""
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def has_body(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a body follows (RFC 9112 §6.3). On a GET it has no meaning for HTTP, but the app may read it."""
    length = fields.get(b"content-length")
    return b"transfer-encoding" in fields or (length is not None and length.strip() != b"0")


def route_template(scope: Scope) -> str:
    """Template of the route that the app's router left in the scope; empty where there is none."""
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) else ""
