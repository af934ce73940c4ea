"""The HTTP rules as one policy for the engine: RFC 9111 for a shared or a private cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aurelis.cache._decisions import (
    Bypass,
    Confirm,
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

from ._addresses import Addresses, KeyBuilder, selected_variant
from ._age import age_brought, corrected_initial_age, date_of
from ._directives import NO_REQUEST_DIRECTIVES
from ._messages import (
    Fields,
    HttpRequest,
    LoadedResponse,
    ResponseHead,
    StoredPart,
    StoredResponse,
    VariantIndex,
    combine,
)
from ._ranges import as_whole, content_range, without_range
from ._reuse import (
    PRIVATE_REUSE_FIELDS,
    SHARED_REUSE_FIELDS,
    directives_of,
    refused_by_request,
    reuse,
    reuse_part,
    stand_in,
)
from ._storing import Storable, Unstorable, is_complete, may_store, refused_credentials, storable_fields
from ._tagging import confirmed_tags, response_tags
from ._validation import FAILED, conditions, first, updated, updated_by_head
from ._variants import MAX_CHOICE_LENGTH, chosen_language, language_of, normalised, selects_same

_URI_MISS = Load("uri-miss")
_RERAISE = Reraise()
CDN_CACHE_CONTROL = (b"cdn-cache-control",)
"""The targeted field that shared caches before an origin heed (RFC 9213 §3.1)."""

VALIDATION_SECONDS = 3600.0
"""Seconds after its freshness for which a response with a validator is kept, to be validated."""

MAX_STALE_SECONDS = 60.0
"""Seconds after its freshness for which any response is kept that a request with `max-stale` may get."""

_ACCEPT_LANGUAGE = b"accept-language"

# What a URL's responses say of themselves; other reasons lie in the request that got this one.
_SAID_BY_RESPONSE = frozenset({"events", "no-cache", "no-store", "not-fresh", "private", "set-cookie", "vary"})


class HttpPolicy:
    """Answers the engine's questions about HTTP requests (an `ExchangePolicy`).

    Pure, and safe to share between threads. It remembers keys of recent URLs, nothing else.

    Args:
        shared: rules of a shared cache, whose responses go to many users; otherwise of a private one.
        category: of the keys.
        keys: makes keys of category, identifier and params.
        honour_request_directives: heed Cache-Control and Pragma of requests (RFC 9111 §5.2.1). Without it no
            client can make the cache ask the origin.
        targets: names of the response fields that speak to this cache in place of Cache-Control (RFC 9213), lower
            case, the most specific first; `None`: `CDN-Cache-Control` for a shared cache.

    Attributes:
        reuse_fields: any fresh response answers a GET without these fields (RFC 9111 §4), if it is under the key.
    """

    __slots__ = (
        "_addresses",
        "_honour",
        "_shared",
        "_targets",
        "reuse_fields",
    )

    def __init__(
        self,
        *,
        shared: bool,
        category: str = "http",
        keys: KeyBuilder,
        honour_request_directives: bool = True,
        targets: Sequence[bytes] | None = None,
    ) -> None:
        self._shared = shared
        self._targets = (CDN_CACHE_CONTROL if shared else ()) if targets is None else tuple(targets)
        self._honour = honour_request_directives
        self.reuse_fields = SHARED_REUSE_FIELDS if shared else PRIVATE_REUSE_FIELDS
        self._addresses = Addresses(category, keys)

    def key(self, request: HttpRequest) -> str:
        """The key of the URI in the request's partition, the same for GET and HEAD (RFC 9111 §2)."""
        return self._addresses.uri(request.url, request.partition)

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
            if isinstance(value, StoredResponse) and now < entry.fresh_until and not value.overdue:
                return Serve(entry)
            directives = NO_REQUEST_DIRECTIVES
        else:
            directives = directives_of(request, honour_request_directives=self._honour)
            refused = refused_by_request(request, directives)
            if refused is not None:
                return refused
        if entry is not None and isinstance(entry.value, VariantIndex):
            index = entry.value
            value = request.fields.get(_ACCEPT_LANGUAGE) if index.languages else None
            return Follow(self._addresses.variant(request, index.vary, chosen_language(value, index.languages)))
        if entry is not None and isinstance(entry.value, StoredPart):
            return reuse_part(request, entry, entry.value, now, directives, shared=self._shared)
        return reuse(request, entry, now, directives, shared=self._shared)

    def on_response(self, request: HttpRequest, head: ResponseHead, response_time: float) -> Record | Pass:
        """Whether the body is worth recording (RFC 9111 §3). `response_time`: seconds since the epoch."""
        verdict = self._may_store(request, head, response_time)
        if isinstance(verdict, Unstorable):
            # An error says nothing of the next response.
            return Pass(verdict.reason, lasting=verdict.reason in _SAID_BY_RESPONSE and head.status < 500)
        left = verdict.freshness.lifetime - age_brought(verdict.fields, response_time=response_time)
        if left <= 0 and not verdict.has_validator:
            return Pass("not-fresh")
        tags = response_tags(request, verdict.fields)
        if tags is None:
            return Pass("tags", lasting=True)
        limit = longest = None
        if request.rule is not None:
            limit, longest = request.rule.max_body_bytes, request.rule.longest
        if longest is not None:
            if longest <= 0:
                return Pass("ttl")
            left = min(left, longest)
        shared = left > 0 and not verdict.must_validate
        return Record(left, tags, limit, shared=shared, left_out=verdict.left_out)

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
        if verdict.must_validate or verdict.freshness.lifetime <= 0:
            return Bypass("miss", "not-fresh")  # it is for the one who asked, and to be validated for all others
        if not selects_same(verdict.vary, leader.fields, request.fields):
            return Follow(self._addresses.variant(request, verdict.vary))
        return None

    def conditions(self, request: HttpRequest, entry: Entry | None) -> Fields:
        """Fields by which the load asks whether what is stored still holds (RFC 9111 §4.3.1)."""
        stored = entry.value if entry is not None else None
        return conditions(stored) if isinstance(stored, StoredResponse) else ()

    def on_validated(self, request: HttpRequest, entry: Entry, loaded: LoadedResponse) -> Confirm | None:
        """What follows from the answer to a request with `conditions` (RFC 9111 §4.3.3, §4.3.4)."""
        stored = entry.value
        if loaded.head.status != 304 or not isinstance(stored, StoredResponse):
            return None
        head = updated(stored, loaded.head)
        if head is None:
            return Confirm(stored, 0.0, None)
        confirmed = replace(loaded, head=head, chunks=stored.chunks, route=loaded.route or stored.route)
        cookie = first(loaded.head.headers, b"set-cookie") is not None
        decision = Discard("set-cookie") if cookie else self.on_loaded(request, confirmed)
        if isinstance(decision, Store):
            decision = _with_tags(decision, request, entry, stored)
        if isinstance(decision, Discard):  # it may be used once more, as it has just been confirmed
            age = age_brought(combine(head.headers), response_time=loaded.response_time)
            return Confirm(replace(stored, headers=storable_fields(head), lifetime=age), 0.0, None)
        assert isinstance(decision.value, StoredResponse)
        value = replace(decision.value, load_seconds=stored.load_seconds)
        return Confirm(value, decision.fresh_for, replace(decision, value=value))

    def on_head(self, request: HttpRequest, entry: Entry, loaded: LoadedResponse) -> Store | Discard | None:
        """What the response to a HEAD says of what a GET has stored (RFC 9111 §4.3.5).

        Args:
            request: the HEAD request.
            loaded: its response.

        Returns:
            `Discard`: it has changed. `None`: nothing.
        """
        stored = entry.value
        if not isinstance(stored, StoredResponse) or loaded.head.status != stored.status:
            return None
        head = updated_by_head(stored, loaded.head)
        if head is None:
            return Discard("changed")
        decision = self.on_loaded(replace(request, method="GET"), replace(loaded, head=head, chunks=stored.chunks))
        if isinstance(decision, Store):
            decision = _with_tags(decision, request, entry, stored)
        if isinstance(decision, Discard):
            return None  # that is for whoever asked
        assert isinstance(decision.value, StoredResponse)
        return replace(decision, value=replace(decision.value, load_seconds=stored.load_seconds, route=stored.route))

    def on_part(self, request: HttpRequest, loaded: LoadedResponse) -> Store | Discard:
        """What to keep of the response to a request with Range (RFC 9111 §3.3).

        A part is kept for those who ask for what is in it; one that is the whole, as the whole that it is.
        """
        head = loaded.head
        place = content_range(combine(head.headers).get(b"content-range")) if head.status == 206 else None
        if head.status != 200 and place is None:
            return Discard("partial")
        decision = self.on_loaded(without_range(request), replace(loaded, head=as_whole(head)))
        if isinstance(decision, Discard) or place is None:
            return decision
        first_byte, last_byte, size = place
        length = last_byte + 1 - first_byte
        if sum(map(len, loaded.chunks)) != length:
            return Discard("incomplete")
        if length == size:
            return decision
        if decision.index is not None:
            return Discard("vary")
        if decision.fresh_for <= 0:
            return Discard("not-fresh")
        assert isinstance(decision.value, StoredResponse)
        return replace(decision, value=StoredPart(decision.value, first_byte, last_byte, size), stale_for=0.0)

    def may_keep_part(self, request: HttpRequest, head: ResponseHead, response_time: float) -> Record | Pass:
        """Whether the body of such a response is worth recording, by its head; as `on_response`."""
        if head.status not in (200, 206) or (head.status == 206 and b"if-range" in request.fields):
            return Pass("partial")  # to those who have the rest it may lack fields that they have (RFC 9110 §15.3.7)
        return self.on_response(without_range(request), as_whole(head), response_time)

    def addresses(self, url: str) -> tuple[str, str]:
        """The key of a URI, and the tag of all that is stored under it with params."""
        return self._addresses.whole(url)

    def on_refused(self, request: HttpRequest, entry: Entry | None, head: ResponseHead, now: float) -> Serve | None:
        """What stands in for a response that says that the origin has failed (RFC 9111 §4.3.3, RFC 5861 §4)."""
        if head.status not in FAILED:
            return None
        directives = directives_of(request, honour_request_directives=self._honour)
        return stand_in(request, entry, now, directives, shared=self._shared)

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
        longest = None if request.rule is None else request.rule.longest
        if longest is not None and longest <= 0:
            return Discard("ttl")
        overdue = max(-fresh_for, 0.0)
        fresh_for = 0.0 if verdict.must_validate else max(fresh_for, 0.0)
        if fresh_for <= 0 and not verdict.has_validator:
            return Discard("not-fresh")
        if longest is not None:
            fresh_for = min(fresh_for, longest)
        tags = response_tags(request, verdict.fields)
        if tags is None:
            return Discard("tags")
        stored = StoredResponse(
            status=head.status,
            headers=storable_fields(head, verdict.left_out),
            chunks=loaded.chunks,
            initial_age=age,
            lifetime=fresh_for + age,
            source=verdict.freshness.source,
            vary=verdict.vary,
            stale_while_revalidate=verdict.stale_while_revalidate,
            stale_if_error=verdict.stale_if_error,
            may_be_stale=verdict.may_be_stale,
            immutable=verdict.immutable,
            overdue=overdue,
            date=date_of(verdict.fields, loaded.response_time),
            allows_authorization=verdict.allows_authorization,
            load_seconds=loaded.seconds,
            route=loaded.route,
        )
        uri_key = self.key(request)
        stale_for = _of_use_for(verdict)
        if not verdict.vary:
            return Store(stored, fresh_for, stale_for, key=uri_key, tags=tags)
        language: bytes | None = None
        choices: tuple[tuple[bytes, bytes], ...] = ()
        value = request.fields.get(_ACCEPT_LANGUAGE)
        if _ACCEPT_LANGUAGE in verdict.vary and value is not None and len(value) <= MAX_CHOICE_LENGTH:
            language = language_of(verdict.fields.get(b"content-language"))
            if language is not None:
                choices = ((normalised(_ACCEPT_LANGUAGE, value), language),)
        digest = selected_variant(request, verdict.vary, language)
        return Store(
            stored,
            fresh_for,
            stale_for,
            key=self._addresses.variant(request, verdict.vary, language),
            index=(uri_key, VariantIndex(verdict.vary, choices, (digest,))),
            tags=tags,
        )

    def on_indexed(self, request: HttpRequest, index: object, known: object) -> tuple[object, tuple[str, ...]]:
        """The index to keep in place of the known one, and the keys of variants that must make room."""
        if not isinstance(index, VariantIndex):
            return index, ()
        index, displaced = index.after(known)
        return index, self._addresses.variants(request, displaced)

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
            targets=self._targets,
        )


def _with_tags(decision: Store, request: HttpRequest, entry: Entry, stored: StoredResponse) -> Store | Discard:
    """What to store of a response that was confirmed, with the tags that it was given before."""
    tags = confirmed_tags(request.url, entry.details.tags, combine(stored.headers), decision.tags)
    return Discard("tags") if tags is None else replace(decision, tags=tags)


def _of_use_for(verdict: Storable) -> float:
    """Seconds after its freshness for which a response is worth its room."""
    useful = max(verdict.stale_while_revalidate, verdict.stale_if_error)
    if verdict.has_validator:
        return max(useful, VALIDATION_SECONDS)
    return max(useful, MAX_STALE_SECONDS) if verdict.may_be_stale else useful
