"""The middleware: its settings, and what does not change between requests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from starlette.types import ASGIApp, Receive, Scope, Send

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.exchange import DEFAULT_MAX_BODY_BYTES, Alone, Exchange
from aurelis.cache.http import CacheRule, CacheStatus, HttpPolicy, HttpRequest, combine, match_rule
from aurelis.cache.manager import AnyManager, manager_of
from aurelis.cache.typing import Bypass

from ._request import has_body, target_uri
from ._responder import Responder

_LOG = logging.getLogger("aurelis.cache")
_REMEMBERED_PATHS = 4096
_MAX_REMEMBERED_LENGTH = 512
_WAYS_OUT = {
    "authorization": "requests with Authorization; give it principal= to say who is asking, or shared=True if everybody"
    " gets the same",
    "cookie": "requests with Cookie; give it cookies= to name those that count, principal= to say who is asking, or"
    " shared=True if everybody gets the same",
    "set-cookie": "responses with Set-Cookie; set no cookie there, or have a middleware outside of this one set it",
}


class CacheMiddleware:
    """Answers from the cache what may be answered from it, and asks the app for the rest.

    Without rules it is a shared cache by RFC 9111. Every response says in `Cache-Status` (RFC 9211) what was done.

    Args:
        app: ASGI app. WebSockets and lifespan reach it untouched.
        cache: manager; `None` means the process's. It is never closed here.
        rules: for paths whose responses do not say themselves how long they are fresh; the first match counts.
        max_body_bytes: larger bodies pass through and are not stored.
        honour_request_directives: heed `Cache-Control` and `Pragma` of requests.

    Raises:
        ConfigurationError: a rule is not a `CacheRule`, or the limit is not positive.
        TypeError: `cache` is no manager.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: AnyManager | None = None,
        rules: Sequence[CacheRule] = (),
        *,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        honour_request_directives: bool = True,
    ) -> None:
        for rule in rules:
            if not isinstance(rule, CacheRule):
                raise ConfigurationError(f"rules must hold CacheRule(...), not {type(rule).__name__}")
        if max_body_bytes < 1:
            raise ConfigurationError("max_body_bytes must be 1 or more")
        manager = manager_of(cache)
        # Shared: what one client got may be served to another.
        policy = HttpPolicy(
            shared=True,
            keys=manager.key_builder.build_key,
            honour_request_directives=honour_request_directives,
        )
        self.app = app
        self.rules = tuple(rules)
        self.exchange = Exchange(manager, policy, max_body_bytes=max_body_bytes)
        self.status = CacheStatus(manager.config.name)
        self._hash_key = manager.config.hash_key()
        # Most requests are for few paths, and rules are patterns.
        self._rule_for = lru_cache(_REMEMBERED_PATHS)(self._match)
        self._warned: set[tuple[str, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        responder = Responder(self, scope, receive, send)
        method = scope["method"]
        if method != "GET" and method != "HEAD":
            # No cache could answer it, so it is not a request to the cache and is not counted.
            await responder.forward(Alone("method"))
            return
        headers = scope["headers"]
        fields = combine(headers if isinstance(headers, list) else list(headers))
        request = HttpRequest(method, target_uri(scope, fields), fields)
        refusal = self._refusal(request, scope)
        if refusal is not None:
            await responder.forward(self.exchange.bypass(refusal))
            return
        await responder.respond(request)

    def note_bypass(self, scope: Scope, reason: str) -> None:
        """Say once for each rule and reason why it did not apply, and what would help."""
        way_out = _WAYS_OUT.get(reason)
        if way_out is None:
            return
        rule = self._rule(scope)
        if rule is not None and (rule.path, reason) not in self._warned:
            self._warned.add((rule.path, reason))
            _LOG.warning(
                "CacheRule(%r) leaves out, so that no user gets what is meant for another one, %s", rule.path, way_out
            )

    def _refusal(self, request: HttpRequest, scope: Scope) -> Bypass | None:
        """Apply the rule for the path, or say why the request must go to the app alone."""
        if self.rules and (rule := self._rule(scope)) is not None:
            admission = rule.admit(scope, request.fields)
            if isinstance(admission, Bypass):
                return admission
            request.rule = admission.effect
            if admission.partition_source:
                request.partition = self._partition(admission.partition_source)
        fields: Mapping[bytes, bytes] = request.fields
        if (b"content-length" in fields or b"transfer-encoding" in fields) and has_body(fields):
            return Bypass("bypass", "body")
        return None

    def _partition(self, source: bytes) -> str:
        return blake2b(source, key=self._hash_key, digest_size=16).hexdigest()

    def _rule(self, scope: Scope) -> CacheRule | None:
        path = _path(scope)
        return self._match(path) if len(path) > _MAX_REMEMBERED_LENGTH else self._rule_for(path)

    def _match(self, path: str) -> CacheRule | None:
        return match_rule(self.rules, path)


def _path(scope: Scope) -> str:
    """The decoded path below the root path, which rules are written for."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path
