"""Whether a stored response may answer a request (RFC 9111 §4), and when the answer is a 304 (§4.3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aurelis.cache._decisions import Bypass, Load, Lookup, Refuse, Serve
from aurelis.cache._entry import Entry

from ._age import current_age
from ._directives import NO_REQUEST_DIRECTIVES, RequestDirectives, request_directives
from ._grammar import entity_tag, entity_tags, http_date, weakly_equal
from ._messages import Fields, HttpRequest, StoredPart, StoredResponse
from ._ranges import within
from ._storing import refused_credentials
from ._validation import CONDITIONS, conditions, first

ORIGIN_CONDITIONS = frozenset({b"if-match", b"if-unmodified-since"})
"""Conditions that only the origin may evaluate (RFC 9111 §4.3.2)."""

PRIVATE_REUSE_FIELDS = CONDITIONS | ORIGIN_CONDITIONS | {b"cache-control", b"pragma", b"range"}
"""Request fields that can keep a fresh response from answering in a private cache."""

SHARED_REUSE_FIELDS = PRIVATE_REUSE_FIELDS | {b"authorization", b"cookie"}
"""The same for a shared cache."""

# Metadata of the content that a 304 does not carry (RFC 9110 §15.4.5); Content-Location stays.
_CONTENT_FIELDS = frozenset(
    {b"content-encoding", b"content-language", b"content-length", b"content-range", b"content-type"}
)

_ORIGIN_CONDITION = Bypass("bypass", "conditional")
_METHOD = Bypass("method")
_NO_STORE = Bypass("request", "no-store")
_REFUSE = Refuse()


def directives_of(request: HttpRequest, *, honour_request_directives: bool) -> RequestDirectives:
    """The request's directives, or none where they are not heeded."""
    if honour_request_directives or request.insists:
        return request_directives(request.fields)
    return NO_REQUEST_DIRECTIVES


def refused_by_request(request: HttpRequest, directives: RequestDirectives) -> Bypass | Refuse | None:
    """Why nothing that is stored can answer this request, whatever it is; `None`: something might."""
    if request.method not in ("GET", "HEAD"):
        return _METHOD
    answer: Bypass | None = None
    if not ORIGIN_CONDITIONS.isdisjoint(request.fields):
        answer = _ORIGIN_CONDITION
    elif directives.no_store:
        answer = _NO_STORE
    # RFC 9111 §5.2.1.7: the client would rather have an error than a request to the origin.
    return _REFUSE if answer is not None and directives.only_if_cached else answer


def reuse(
    request: HttpRequest, entry: Entry | None, now: float, directives: RequestDirectives, *, shared: bool
) -> Lookup:
    """What to do with the response found, for a request that `refused_by_request` lets through.

    Args:
        request: a GET or HEAD.
        entry: what was found; `None`, or anything but a stored response: nothing.
        now: monotonic, seconds.
        directives: of the request, as far as they are heeded.
        shared: for a shared cache.
    """
    stored = entry.value if entry is not None else None
    if entry is None or not isinstance(stored, StoredResponse):
        return _miss("uri-miss", request, None, directives, shared=shared)
    refused = _refused_credentials(request, stored, shared=shared)
    if refused:
        return _REFUSE if directives.only_if_cached else Bypass("bypass", refused)
    if stored.overdue:  # stale when it was stored, even to who had looked at the clock just before
        now = max(now, entry.fresh_until)
    if now >= entry.fresh_until:
        if _suffices(directives, stored, entry.fresh_until, now):
            return Serve(entry)
        if now < entry.fresh_until + stored.stale_while_revalidate and not _demands_fresh(directives):
            # Nobody else could use what the origin says to a HEAD, or of a part.
            whole = request.method == "GET" and b"range" not in request.fields
            return Serve(entry, "revalidate" if whole else "")
        return _miss("stale", request, stored, directives, shared=shared)
    if _demands_more(directives, stored, entry.fresh_until, now):
        return _miss("request", request, stored, directives, shared=shared)
    return Serve(entry)


def reuse_part(
    request: HttpRequest, entry: Entry, part: StoredPart, now: float, directives: RequestDirectives, *, shared: bool
) -> Lookup:
    """The same where only a part of a response is stored (RFC 9111 §3.3): it answers requests for what is in it."""
    refused = _refused_credentials(request, part.response, shared=shared)
    if refused:
        return _REFUSE if directives.only_if_cached else Bypass("bypass", refused)
    if now >= entry.fresh_until:
        return _miss("stale", request, None, directives, shared=shared)
    if _demands_more(directives, part.response, entry.fresh_until, now):
        return _miss("request", request, None, directives, shared=shared)
    answer = within(request.fields, part) if request.method == "GET" else None
    if answer is None:
        return _miss("partial", request, None, directives, shared=shared)
    return Serve(replace(entry, value=answer, payload=None))


def stand_in(
    request: HttpRequest, entry: Entry | None, now: float, directives: RequestDirectives, *, shared: bool
) -> Serve | None:
    """The stored response if it may answer in place of a failed origin (RFC 5861 §4), else `None`."""
    if entry is None or not isinstance(entry.value, StoredResponse):
        return None
    stored = entry.value
    if _refused_credentials(request, stored, shared=shared):
        return None
    if _suffices(directives, stored, entry.fresh_until, now):
        return Serve(entry)
    window = stored.stale_if_error
    if directives.stale_if_error is not None and stored.may_be_stale:
        window = max(window, directives.stale_if_error)
    if now >= entry.fresh_until + window or _demands_fresh(directives):
        return None
    return Serve(entry)


def _demands_fresh(directives: RequestDirectives) -> bool:
    """Whether a stale answer is none: who limits the age of one wants a fresh one (RFC 9111 §5.2.1.1)."""
    return directives.no_cache or directives.max_age is not None or directives.min_fresh is not None


def _suffices(directives: RequestDirectives, stored: StoredResponse, fresh_until: float, now: float) -> bool:
    """Whether a stale response is good enough for a request that says so (RFC 9111 §5.2.1.2)."""
    limit = directives.max_stale
    if limit is None or not stored.may_be_stale or now - fresh_until + stored.overdue > limit:
        return False
    if directives.no_cache or directives.min_fresh is not None:
        return False
    return directives.max_age is None or current_age(stored.lifetime, fresh_until, now) <= directives.max_age


def _miss(
    reason: str,
    request: HttpRequest,
    stored: StoredResponse | None,
    directives: RequestDirectives,
    *,
    shared: bool,
) -> Load | Bypass | Refuse:
    if directives.only_if_cached:
        return _REFUSE
    if request.method == "HEAD":  # the answer has no body to store
        return Bypass(reason, "head")
    if b"range" in request.fields:  # nor has this one the whole of it
        return Bypass(reason, "range")
    if not CONDITIONS.isdisjoint(request.fields) and (stored is None or not conditions(stored)):
        # The origin may answer 304 to this client, which says nothing to those who have no such copy.
        return Bypass(reason, "conditional")
    if shared and request.rule is not None and request.rule.ttl is not None and stored is None:
        # The rule is there because the app says nothing by itself, so the answer could not be stored: don't
        # make others wait for it.
        refused = refused_credentials(request, explicit=False, allows_authorization=False)
        if refused:
            return Bypass("bypass", refused)
    return Load(reason)


def _refused_credentials(request: HttpRequest, stored: StoredResponse, *, shared: bool) -> str:
    if not shared:
        return ""
    return refused_credentials(
        request, explicit=stored.source == "explicit", allows_authorization=stored.allows_authorization
    )


def _demands_more(directives: RequestDirectives, stored: StoredResponse, fresh_until: float, now: float) -> bool:
    """Whether the request asks for something fresher (RFC 9111 §5.2.1.1, §5.2.1.3, §5.2.1.4)."""
    if directives.no_cache:
        return True
    if directives.min_fresh is not None and fresh_until - now < directives.min_fresh:
        return True
    if directives.max_age is None or stored.immutable:  # a reload gets what does not change (RFC 8246 §2)
        return False
    return current_age(stored.lifetime, fresh_until, now) > directives.max_age


def is_not_modified(request_fields: Mapping[bytes, bytes], stored: StoredResponse) -> bool:
    """Whether a fresh stored response answers a conditional request with 304 (RFC 9111 §4.3.2).

    Args:
        request_fields: of a GET or HEAD, by lower-case name.
        stored: the response selected, fresh.
    """
    if CONDITIONS.isdisjoint(request_fields) or not 200 <= stored.status <= 299:  # RFC 9110 §13.2.1
        return False
    none_match = request_fields.get(b"if-none-match")
    if none_match is not None:  # then If-Modified-Since does not count (RFC 9110 §13.1.3)
        candidates = entity_tags(none_match)
        if candidates == [b"*"]:
            return True
        tag = entity_tag(first(stored.headers, b"etag"))
        return tag is not None and any(weakly_equal(tag, candidate) for candidate in candidates)
    # Without Last-Modified the time of its creation takes its place (RFC 9111 §4.3.2).
    modified = http_date(first(stored.headers, b"last-modified"), stored.date)
    known = stored.date if modified is None else modified
    since = http_date(request_fields[b"if-modified-since"], known)
    return since is not None and known <= since


def not_modified_fields(stored: StoredResponse) -> Fields:
    """The fields of the 304 that stands for a stored response (RFC 9110 §15.4.5).

    Only what describes content is left out. A browser expects others, CORS fields for example, on a 304 too.
    """
    return tuple(line for line in stored.headers if line[0] not in _CONTENT_FIELDS)
