"""The middleware: its settings, and what does not change between requests."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.exchange import DEFAULT_MAX_BODY_BYTES, Alone, Exchange, Heeding
from aurelis.cache.http import (
    ELSEWHERE_FIELDS,
    SAFE_METHODS,
    CacheRule,
    CacheStatus,
    Fields,
    HttpPolicy,
    HttpRequest,
    TargetRule,
    combine,
    target_names,
    told_elsewhere,
)
from aurelis.cache.manager import AnyManager, CacheManager, manager_of
from aurelis.cache.typing import Bypass

from ._heeding import UnsafeSend
from ._request import BODY_FIELDS, Target, has_body, make_target
from ._responder import Responder, replay
from ._telling import Teller, Tells

_LOG = logging.getLogger("aurelis.cache")
_REMEMBERED_AGES = 4096
_REMEMBERED_TARGETS = 4096
_MAX_REMEMBERED_LENGTH = 1024  # in characters and bytes; what is remembered stays below some megabytes
_MAX_REMEMBERED_TOLD = 256
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
        cache_control_fields: names of response fields that are meant for this cache and count in place of
            `Cache-Control` and `Expires` (RFC 9213); of several that are there, the first.
        cache_status: `False`: responses say nothing of the cache; `"debug"`: also why, and the key with the URL in it.

    Raises:
        ConfigurationError: a rule is not a `CacheRule`, or an option has a value that cannot work.
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
        cache_control_fields: Sequence[str] = ("CDN-Cache-Control",),
        cache_status: Tells = True,
    ) -> None:
        if not callable(app):
            raise ConfigurationError(f"CacheMiddleware takes an ASGI app, not {type(app).__name__}")
        if not isinstance(rules, Iterable):
            raise ConfigurationError("rules must be a sequence of CacheRule(...): put it into [...]")
        if cache_status not in (True, False, "debug"):
            raise ConfigurationError(f"cache_status={cache_status!r}: pass True, False or 'debug'")
        self.app = app
        self.rules = tuple(rules)
        for rule in self.rules:
            if not isinstance(rule, CacheRule):
                raise ConfigurationError(f"rules must hold CacheRule(...), not {type(rule).__name__}")
        self._max_body_bytes = max_body_bytes
        self._honour_request_directives = honour_request_directives
        self._targets = target_names(cache_control_fields)
        self._tells: Tells = cache_status
        self._of_process = cache is None
        self._warned: set[tuple[object, str]] = set()
        self._stand_on(manager_of(cache))

    def _stand_on(self, manager: CacheManager) -> None:
        # Shared: what one client got may be served to another.
        policy = HttpPolicy(
            shared=True,
            keys=manager.key_builder.build_key,
            honour_request_directives=self._honour_request_directives,
            targets=self._targets,
        )
        self.exchange = Exchange(manager, policy, max_body_bytes=self._max_body_bytes)
        self.heeding = Heeding(self.exchange, policy)
        self._hash_key = manager.config.hash_key()
        self._status = CacheStatus(manager.config.name)
        self._teller = Teller(self._status, self._tells)
        # Most requests are for few targets, and to read one costs as much as to find its answer.
        self._make_target = partial(make_target, self.rules, policy.key, self._tells, self._partition)
        self._remembered_target = lru_cache(_REMEMBERED_TARGETS)(self._make_target)
        # Where a request has none of these, and no rule asks for more, any fresh response answers it.
        self._speaking_fields = policy.reuse_fields | BODY_FIELDS
        self._watched_fields = self._speaking_fields | ELSEWHERE_FIELDS
        # They change once a second, which is seldom where hits must be fast.
        self.fields_of_hit = lru_cache(_REMEMBERED_AGES)(self._teller.hit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method != "GET" and method != "HEAD":
            # No cache could answer it, so it is not a request to the cache and is not counted.
            watched = None
            if method not in SAFE_METHODS:
                asked, addresses = partial(self._unsafe_request, scope), partial(self._addresses, scope)
                watched = partial(UnsafeSend, self.heeding, asked, addresses)
            await Responder(self, scope, receive, send, self._teller).forward(Alone("method"), watched=watched)
            return
        fields = combine(scope["headers"])
        is_plain = self._watched_fields.isdisjoint(fields)
        if is_plain or not (told := told_elsewhere(fields)):
            target = self._target(scope, fields)
        else:
            target = self._target(scope, fields, told)
        if target.alternatives:
            target = target.chosen(method, fields)
        if method == "GET" and not target.asks and (is_plain or self._speaking_fields.isdisjoint(fields)):
            hit = self.exchange.fresh(target.key)
            if hit is not None:
                # Nothing of it is left to keep track of, so it has no responder.
                await replay(hit, scope, send, self.fields_of_hit(hit.age, hit.ttl // 1))
                return
        if self._of_process and self.exchange.is_closed():
            self._stand_on(manager_of(None))  # somebody has closed it: there is a new one
            target = self._target(scope, fields, told_elsewhere(fields)).chosen(method, fields)
        request = HttpRequest(method, target.uri, fields, target.partition, target.effect)
        refusal = self._refusal(request, scope, target.said)
        teller = self._teller
        if target.tells != self._tells or target.tells == "debug":
            teller = Teller(self._status, target.tells, self.exchange.policy.key(request))
        responder = Responder(self, scope, receive, send, teller)
        if refusal is not None:
            await responder.forward(self.exchange.bypass(refusal))
            return
        await responder.respond(request)

    def note_bypass(self, scope: Scope, reason: str) -> None:
        """Say once for each rule and reason why it did not apply, and what would help."""
        way_out = _WAYS_OUT.get(reason)
        if way_out is None:
            return
        fields = combine(scope["headers"])
        said = self._target(scope, fields).chosen(scope["method"], fields).said
        rule = None if said is None else said.rule
        if rule is not None and (rule.path, reason) not in self._warned:
            self._warned.add((rule.path, reason))
            said_of_it = "CacheRule(%r) leaves out, so that no user gets what is meant for another one, %s"
            with contextlib.suppress(Exception):  # of a handler of somebody's, which must not end the request
                _LOG.warning(said_of_it, rule.path, way_out)

    def _refusal(self, request: HttpRequest, scope: Scope, said: TargetRule | None) -> Bypass | None:
        """Apply the rule for the target, or say why the request must go to the app alone."""
        if said is not None and said.refusal is not None:
            return said.refusal
        if said is not None and said.rule.separates:
            admission = said.rule.admit(scope, request.fields)
            if isinstance(admission, Bypass):
                return admission
            if admission.partition_source:
                apart = admission.partition_source
                request.partition = self._partition(
                    request.partition.encode() + b"/" + apart if request.partition else apart
                )
        return Bypass("bypass", "body") if has_body(request.fields) else None

    def _unsafe_request(self, scope: Scope) -> HttpRequest:
        # The app sees all of the query, whatever of it counts under a rule, so what it answers is for just this.
        fields = combine(scope["headers"])
        target = make_target(
            (),
            self.exchange.policy.key,
            False,
            self._partition,
            scope.get("scheme", "http"),
            fields.get(b"host"),
            scope.get("raw_path"),
            scope["path"],
            scope["query_string"],
            scope.get("root_path", ""),
            told_elsewhere(fields),
            scope.get("server"),
        )
        return HttpRequest(scope["method"], target.uri, fields, target.partition)

    def _addresses(self, scope: Scope, url: str) -> set[str]:
        """The URIs under which responses of one may be stored: rules differ in what of a query counts."""
        fields = combine(scope["headers"])
        own = self._target(scope, fields)
        if url != own.uri:
            parts = urlsplit(url)
            path = {"path": unquote(parts.path), "raw_path": parts.path.encode("latin-1")}
            own = self._target({**scope, **path, "query_string": parts.query.encode("latin-1")}, fields)
        return {url, own.uri, *(target.uri for target in own.alternatives)}

    def _target(self, scope: Scope, fields: Mapping[bytes, bytes], told: Fields = ()) -> Target:
        scheme, path, query = scope.get("scheme", "http"), scope["path"], scope["query_string"]
        raw_path, root_path = scope.get("raw_path"), scope.get("root_path", "")
        host = fields.get(b"host")
        if host is None or len(host) + len(path) + len(query) + len(raw_path or b"") > _MAX_REMEMBERED_LENGTH:
            return self._make_target(scheme, host, raw_path, path, query, root_path, told, scope.get("server"))
        if told:
            is_short = sum([len(value) for _, value in told]) <= _MAX_REMEMBERED_TOLD
            make = self._remembered_target if is_short else self._make_target
            return make(scheme, host, raw_path, path, query, root_path, told)
        return self._remembered_target(scheme, host, raw_path, path, query, root_path)

    def _partition(self, source: bytes) -> str:
        return blake2b(source, key=self._hash_key, digest_size=16).hexdigest()
