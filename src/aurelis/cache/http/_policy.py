"""The HTTP rules as one policy for the engine: RFC 9111 for a shared or a private cache."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Protocol

from aurelis.cache._decisions import (
    Bypass,
    Discard,
    Follow,
    Load,
    Lookup,
    Pass,
    Record,
    Reraise,
    Serve,
    Store,
)
from aurelis.cache._entry import Entry

from ._age import age_brought, corrected_initial_age
from ._grammar import NO_REQUEST_DIRECTIVES
from ._messages import HttpRequest, LoadedResponse, ResponseHead, StoredResponse, VariantIndex
from ._reuse import (
    PRIVATE_REUSE_FIELDS,
    SHARED_REUSE_FIELDS,
    directives_of,
    refused_by_request,
    reuse,
    stand_in,
)
from ._storing import Storable, Unstorable, is_complete, may_store, refused_credentials, storable_fields
from ._tagging import response_tags
from ._variants import selects_same, variant_digest

# Bounds of what is remembered about keys, some megabytes whatever clients send. Lengths are in characters.
_REMEMBERED_KEYS = 4096
_MAX_REMEMBERED_LENGTH = 512

_URI_MISS = Load("uri-miss")
_RERAISE = Reraise()
# What a URL's responses say of themselves; other reasons lie in the request that got this one.
_SAID_BY_RESPONSE = frozenset({"no-cache", "no-store", "not-fresh", "private", "set-cookie", "vary"})


class KeyBuilder(Protocol):
    """Builds keys that differ whenever category, identifier or params do: `CacheKeyBuilder.build_key`."""

    def __call__(self, category: str, identifier: str, params: Mapping[str, object] | None = None) -> str:
        """The key."""
        ...


class HttpPolicy:
    """Answers the engine's questions about HTTP requests (an `ExchangePolicy`).

    Pure, and safe to share between threads. It remembers keys of recent URLs, nothing else.

    Args:
        shared: rules of a shared cache, whose responses go to many users; otherwise of a private one.
        category: of the keys.
        keys: makes keys of category, identifier and params.
        honour_request_directives: heed Cache-Control and Pragma of requests (RFC 9111 §5.2.1). Without it no
            client can make the cache ask the origin.

    Attributes:
        reuse_fields: any fresh response answers a GET without these fields (RFC 9111 §4), if it is under the key.
    """

    __slots__ = ("_build_key", "_honour", "_remembered_key", "_shared", "reuse_fields")

    def __init__(
        self,
        *,
        shared: bool,
        category: str = "http",
        keys: KeyBuilder,
        honour_request_directives: bool = True,
    ) -> None:
        self._shared = shared
        self._honour = honour_request_directives
        self.reuse_fields = SHARED_REUSE_FIELDS if shared else PRIVATE_REUSE_FIELDS
        # Most requests are for few URLs, and building a key costs several times as much as finding it here.
        self._build_key = partial(_build_key, keys, category)
        self._remembered_key = lru_cache(_REMEMBERED_KEYS)(self._build_key)

    def key(self, request: HttpRequest) -> str:
        """The key of the URI in the request's partition, the same for GET and HEAD (RFC 9111 §2)."""
        url = request.url
        if len(url) > _MAX_REMEMBERED_LENGTH:
            return self._build_key(url, request.partition)
        return self._remembered_key(url, request.partition)

    def on_lookup(self, request: HttpRequest, entry: Entry | None, now: float) -> Lookup:
        """What to do with what was found (RFC 9111 §4).

        After `Follow`, a further answer `Load("uri-miss")` means that no variant fits (`vary-miss` in RFC
        9211 §2.2): the rules are not told how the key came about.
        """
        # A hit that nothing in the request speaks against takes these lines alone.
        if request.method == "GET" and self.reuse_fields.isdisjoint(request.fields):
            if entry is None:
                return _URI_MISS
            value = entry.value
            if isinstance(value, StoredResponse) and now < entry.fresh_until:
                return Serve(entry)
            directives = NO_REQUEST_DIRECTIVES
        else:
            directives = directives_of(request, honour_request_directives=self._honour)
            refused = refused_by_request(request, directives)
            if refused is not None:
                return refused
        if entry is not None and isinstance(entry.value, VariantIndex):
            return Follow(self._variant_key(request, entry.value.vary))
        return reuse(request, entry, now, directives, shared=self._shared)

    def on_response(self, request: HttpRequest, head: ResponseHead, response_time: float) -> Record | Pass:
        """Whether the body is worth recording (RFC 9111 §3). `response_time`: seconds since the epoch."""
        verdict = self._may_store(request, head, response_time)
        if isinstance(verdict, Unstorable):
            # An error says nothing of the next response.
            return Pass(verdict.reason, lasting=verdict.reason in _SAID_BY_RESPONSE and head.status < 500)
        left = verdict.freshness.lifetime - age_brought(verdict.fields, response_time=response_time)
        if left <= 0:
            return Pass("not-fresh")
        tags = response_tags(request, verdict.fields)
        if tags is None:
            return Pass("tags", lasting=True)
        return Record(left, tags, None if request.rule is None else request.rule.max_body_bytes)

    def on_shared(
        self, request: HttpRequest, leader: HttpRequest, head: ResponseHead, response_time: float
    ) -> Follow | Bypass | None:
        """Whether a request that waited may have the response that was loaded for another.

        Both have the same key. `on_response` said `Record` for the leader, so the response may be stored;
        this asks what a lookup right afterwards would ask: does the request select it (RFC 9111 §4.1), and
        may it be answered with it in spite of its credentials?
        """
        verdict = self._may_store(leader, head, response_time)
        if isinstance(verdict, Unstorable):
            return Bypass("miss", verdict.reason)
        if self._shared:
            refused = refused_credentials(
                request,
                explicit=verdict.freshness.source == "explicit",
                allows_authorization=verdict.allows_authorization,
            )
            if refused:
                return Bypass("bypass", refused)
        if not selects_same(verdict.vary, leader.fields, request.fields):
            return Follow(self._variant_key(request, verdict.vary))
        return None

    def terminator(self, request: HttpRequest, head: ResponseHead) -> None:
        """HTTP itself says where a body ends."""
        return

    def on_loaded(self, request: HttpRequest, loaded: LoadedResponse) -> Store | Discard:
        """Whether, where and how long to keep a whole response."""
        head = loaded.head
        verdict = self._may_store(request, head, loaded.response_time)
        if isinstance(verdict, Unstorable):
            return Discard(verdict.reason)
        if not is_complete(head, loaded.chunks):
            return Discard("incomplete")
        age = corrected_initial_age(
            verdict.fields, request_time=loaded.request_time, response_time=loaded.response_time
        )
        # It has aged while its body came (RFC 9111 §4.2.3, resident_time).
        age += max(loaded.request_time + loaded.seconds - loaded.response_time, 0.0)
        if verdict.freshness.source == "rule":
            # A rule says how long to keep what the app has just answered. Would the time that the app took
            # count, then nothing were left of a ttl that is shorter than a slow load. The age of what comes
            # from elsewhere counts.
            fresh_for = verdict.freshness.lifetime - age_brought(verdict.fields, response_time=loaded.response_time)
        else:
            fresh_for = verdict.freshness.lifetime - age
        if fresh_for <= 0:
            return Discard("not-fresh")
        stored = StoredResponse(
            status=head.status,
            headers=storable_fields(head),
            chunks=loaded.chunks,
            initial_age=age,
            lifetime=fresh_for + age,
            source=verdict.freshness.source,
            vary=verdict.vary,
            stale_if_error=verdict.stale_if_error,
            allows_authorization=verdict.allows_authorization,
            load_seconds=loaded.seconds,
            route=loaded.route,
        )
        uri_key = self.key(request)
        tags = response_tags(request, verdict.fields)
        if tags is None:
            return Discard("tags")
        if not verdict.vary:
            return Store(stored, fresh_for, verdict.stale_if_error, key=uri_key, tags=tags)
        return Store(
            stored,
            fresh_for,
            verdict.stale_if_error,
            key=self._variant_key(request, verdict.vary),
            index=(uri_key, VariantIndex(verdict.vary)),
            tags=tags,
        )

    def on_error(self, request: HttpRequest, entry: Entry | None, error: BaseException, now: float) -> Serve | Reraise:
        """What callers get when the load failed: something stale where that is allowed (RFC 5861 §4)."""
        if not isinstance(error, Exception):  # cancelled, or the process ends: the origin has not failed
            return _RERAISE
        directives = directives_of(request, honour_request_directives=self._honour)
        return stand_in(request, entry, now, directives, shared=self._shared) or _RERAISE

    def _may_store(self, request: HttpRequest, head: ResponseHead, response_time: float) -> Storable | Unstorable:
        return may_store(
            request,
            head,
            shared=self._shared,
            response_time=response_time,
            honour_request_directives=self._honour,
        )

    def _variant_key(self, request: HttpRequest, names: tuple[bytes, ...]) -> str:
        values = tuple(map(request.fields.get, names))
        length = len(request.url) + sum(len(value) for value in values if value)
        build = self._build_key if length > _MAX_REMEMBERED_LENGTH else self._remembered_key
        return build(request.url, request.partition, names, values)


def _build_key(
    keys: KeyBuilder,
    category: str,
    url: str,
    partition: str,
    names: tuple[bytes, ...] = (),
    values: tuple[bytes | None, ...] = (),
) -> str:
    """Everything of one URI has the same identifier, so that it can be addressed as a whole."""
    params: dict[str, object] = {}
    if partition:
        params["partition"] = partition
    if names:
        fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        params["variant"] = variant_digest(names, fields)
    return keys(category, f"GET {url}", params or None)
