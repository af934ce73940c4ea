"""Whether a response may be stored (RFC 9111 §3), and with which fields (§3.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ._age import Freshness, freshness
from ._directives import ResponseDirectives, request_directives, response_directives, targeted_directives
from ._grammar import entity_tag, http_date
from ._messages import Fields, HttpRequest, ResponseHead, RuleEffect, combine
from ._variants import vary_names

UNDERSTOOD_STATUSES = frozenset(
    {200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 307, 308}
    | {400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 417, 421, 422, 426}
    | {500, 501, 502, 503, 504, 505}
)
"""Final statuses of RFC 9110 whose caching requirements these rules meet: all but 206, 304 and 416."""

_PARTIAL_OR_VALIDATION = frozenset({206, 304})
_COOKIES = frozenset({b"set-cookie"})

# RFC 9110 §7.6.1 and RFC 9111 §3.1. `Trailer` goes with the trailers, which are not stored.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


_OF_THE_CONNECTION = frozenset({b"close", b"connection", b"keep-alive", b"upgrade"})
"""Options that end, keep or change the connection."""


@dataclass(frozen=True, slots=True)
class Storable:
    """The response may be stored.

    Attributes:
        freshness: for how long it is fresh; a lifetime of 0 means that it is stored to be validated.
        vary: names of the request fields that select it, lower case, sorted.
        allows_authorization: it may answer requests with Authorization in a shared cache (RFC 9111 §3.5).
        must_validate: it never answers without validation, however fresh it is (RFC 9111 §5.2.2.4).
        may_be_stale: nothing forbids to answer with it when it is stale (RFC 9111 §4.2.4).
        stale_while_revalidate: seconds after its freshness in which it may answer while it is loaded anew, ≥ 0 (RFC
            5861 §3).
        stale_if_error: seconds after that in which it may stand in for a failing origin, ≥ 0 (RFC 5861 §4).
        immutable: it does not change while it is fresh (RFC 8246).
        has_validator: the origin can be asked whether it still holds (RFC 9111 §4.3.1).
        left_out: names of fields that must not be stored with it, lower case.
        fields: its header fields by lower-case name.
    """

    freshness: Freshness
    vary: tuple[bytes, ...]
    allows_authorization: bool
    must_validate: bool
    may_be_stale: bool
    stale_while_revalidate: float
    stale_if_error: float
    immutable: bool
    has_validator: bool
    left_out: frozenset[bytes]
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Unstorable:
    """The response must not be stored.

    Attributes:
        reason: short token for people, for instance `no-store`, `set-cookie`, `status`.
    """

    reason: str


def may_store(
    request: HttpRequest,
    head: ResponseHead,
    *,
    shared: bool,
    response_time: float,
    honour_request_directives: bool = True,
    targets: Sequence[bytes] = (),
) -> Storable | Unstorable:
    """Whether a response to this request may be stored, before its body is known.

    Args:
        request: what was asked.
        head: what came; names of fields in any case.
        shared: for a shared cache; otherwise for a private one (RFC 9111 §1).
        response_time: when the head came, seconds since the epoch.
        honour_request_directives: heed `no-store` of the request (RFC 9111 §5.2.1.5).
        targets: names of fields that speak to this cache in place of Cache-Control (RFC 9213), lower case.
    """
    rule = request.rule
    lines = [(name.lower(), value) for name, value in head.headers]
    fields = combine(lines)
    targeted = targeted_directives(fields, targets) if targets else None
    directives = response_directives(fields.get(b"cache-control")) if targeted is None else targeted
    vary = vary_names(fields.get(b"vary"))
    refused = (
        _refused_by_request(request, honour_request_directives=honour_request_directives)
        or _refused_by_response(head.status, directives, shared=shared, rule=rule)
        or ("vary" if vary is None else "")
        or ("" if all(map(_is_harmless, lines)) else "invalid-field")
    )
    if refused or vary is None:
        return Unstorable(refused)
    spoken: Mapping[bytes, bytes] = fields
    if targeted is not None and b"expires" in fields:  # it does not count either (RFC 9213 §2.2)
        spoken = {name: value for name, value in fields.items() if name != b"expires"}
    fresh = freshness(head.status, spoken, directives, shared=shared, response_time=response_time, rule=rule)
    has_validator = _has_validator(fields, response_time)
    must_validate = directives.no_cache and "no-cache" not in _override(rule, head.status)
    if must_validate and has_validator:
        fresh = Freshness(0.0 if fresh is None else fresh.lifetime, "validation")
    elif fresh is not None and fresh.lifetime <= 0 and has_validator:
        fresh = Freshness(0.0, "validation")
    elif must_validate:
        return Unstorable("no-cache")
    elif fresh is None or fresh.lifetime <= 0:
        return Unstorable("not-fresh")
    if fresh.source in ("rule", "heuristic") and _is_of_events(fields):
        return Unstorable("events")
    allows_authorization = fresh.source == "explicit" and _allows_authorization(directives)
    left_out = directives.no_cache_fields | directives.private_fields if shared else directives.no_cache_fields
    if shared and _answers_a_cookie(request, fields, left_out, directives, is_targeted=targeted is not None):
        return Unstorable("cookie")
    if fresh.source == "explicit" or (fresh.source == "validation" and not shared):
        # The response may be used again, as it says itself; the cookie was for one request (RFC 9111 §7.3).
        left_out |= _COOKIES & fields.keys()
    refused = _refused_by_credentials(
        request, fields.keys() - left_out, fresh, shared=shared, allows_authorization=allows_authorization
    )
    if refused:
        return Unstorable(refused)
    may_be_stale = not (must_validate or _forbids_stale(directives, shared=shared))
    revalidate: float | None = directives.stale_while_revalidate
    error: float | None = directives.stale_if_error
    if rule is not None:
        revalidate = rule.stale_while_revalidate if revalidate is None else revalidate
        error = rule.stale_if_error if error is None else error
    return Storable(
        freshness=fresh,
        vary=vary,
        allows_authorization=allows_authorization,
        must_validate=must_validate,
        may_be_stale=may_be_stale,
        stale_while_revalidate=float(revalidate or 0) if may_be_stale else 0.0,
        stale_if_error=float(error or 0) if may_be_stale else 0.0,
        immutable=directives.immutable,
        has_validator=has_validator,
        left_out=left_out,
        fields=fields,
    )


def _has_validator(fields: Mapping[bytes, bytes], response_time: float) -> bool:
    if entity_tag(fields.get(b"etag")) is not None:
        return True
    return http_date(fields.get(b"last-modified"), response_time) is not None


def _is_of_events(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the body is a stream of server-sent events, of which only the app knows whether it ends."""
    return fields.get(b"content-type", b"").partition(b";")[0].strip(b" \t").lower() == b"text/event-stream"


def _override(rule: RuleEffect | None, status: int) -> frozenset[str]:
    return rule.override if rule is not None and status in rule.statuses else frozenset()


def _refused_by_request(request: HttpRequest, *, honour_request_directives: bool) -> str:
    if request.method != "GET":
        return "method"
    if b"range" in request.fields:  # a partial response must never be taken for a whole one
        return "range"
    if honour_request_directives and request_directives(request.fields).no_store:
        return "request-no-store"
    return ""


def _refused_by_response(status: int, directives: ResponseDirectives, *, shared: bool, rule: RuleEffect | None) -> str:
    override = _override(rule, status)
    if not 200 <= status <= 599 or status in _PARTIAL_OR_VALIDATION:
        return "status"
    if directives.must_understand:
        # RFC 9111 §5.2.2.3: for caches that know the directive, it replaces a no-store meant for the others.
        if status not in UNDERSTOOD_STATUSES:
            return "status"
    elif directives.no_store and "no-store" not in override:
        return "no-store"
    if shared and directives.private and "private" not in override:
        return "private"
    return ""


def _answers_a_cookie(
    request: HttpRequest,
    fields: Mapping[bytes, bytes],
    left_out: frozenset[bytes],
    directives: ResponseDirectives,
    *,
    is_targeted: bool,
) -> bool:
    """Whether a response changes the cookies of a client that has some, and does not say that it is for all the same.

    That is what logging in, a session that rolls, or a token for the next form look like. A lifetime alone, which is
    meant for the browser more often than not, is too little to give such a page to others.
    """
    if b"set-cookie" not in fields or b"set-cookie" in left_out or b"cookie" not in request.fields:
        return False
    if request.rule is not None and request.rule.credentials_allowed:
        return False
    return not (directives.public or directives.s_maxage is not None or is_targeted)


def _refused_by_credentials(
    request: HttpRequest,
    names: Collection[bytes],
    fresh: Freshness,
    *,
    shared: bool,
    allows_authorization: bool,
) -> str:
    # A response that sets a cookie gives one client something of its own. Without a word of the origin it is
    # never stored. With it, the response is stored and not the cookie: session middleware adds the field to responses
    # that the route has declared cacheable.
    if b"set-cookie" in names:
        return "set-cookie"
    if not shared:
        return ""
    return refused_credentials(request, explicit=fresh.source == "explicit", allows_authorization=allows_authorization)


def refused_credentials(request: HttpRequest, *, explicit: bool, allows_authorization: bool) -> str:
    """Why a shared cache must keep a request with credentials apart from a response; empty where it need not.

    The same rule holds for storing the response to this request and for answering it with one stored for
    another.

    Args:
        request: the request with or without credentials.
        explicit: the freshness of the response was given by itself, not by a rule or a guess.
        allows_authorization: the response says that it is for everybody (RFC 9111 §3.5).

    Returns:
        `authorization`, `cookie` or nothing.
    """
    rule = request.rule
    if rule is not None and rule.credentials_allowed:
        return ""
    # For an answer from the store this is stricter than RFC 9111 §3.5, which only forbids to store: where an
    # app looks at Authorization without saying so in Vary, those who send it don't get what others got.
    if b"authorization" in request.fields and not allows_authorization:
        return "authorization"
    if b"cookie" in request.fields and not explicit:
        return "cookie"
    return ""


def _allows_authorization(directives: ResponseDirectives) -> bool:
    """RFC 9111 §3.5."""
    return directives.public or directives.must_revalidate or directives.s_maxage is not None


def _forbids_stale(directives: ResponseDirectives, *, shared: bool) -> bool:
    """RFC 9111 §4.2.4; s-maxage implies proxy-revalidate (§5.2.2.10)."""
    if directives.must_revalidate:
        return True
    return shared and (directives.proxy_revalidate or directives.s_maxage is not None)


def _is_harmless(line: tuple[bytes, bytes]) -> bool:
    """Whether a field line can be replayed without splitting into two (RFC 9110 §5.5)."""
    name, value = line
    return not (b"\n" in value or b"\r" in value or b"\0" in value or b"\n" in name or b"\r" in name or b":" in name)


def is_complete(head: ResponseHead, chunks: tuple[bytes, ...]) -> bool:
    """Whether the body has the length that the head announced (RFC 9111 §3.3, RFC 9110 §8.6).

    A malformed or contradictory length is one that the body does not have.
    """
    announced: set[bytes] = set()
    for name, value in head.headers:
        lower = name.lower()
        if lower == b"transfer-encoding":  # overrides any length (RFC 9112 §6.3)
            return True
        if lower == b"content-length":
            announced.update(part.strip(b" \t") for part in value.split(b","))
    if not announced:
        return True
    length = sum(map(len, chunks))
    return all(_length(value) == length for value in announced)


def _length(value: bytes) -> int | None:
    # Not `delta_seconds`, which ends at its cap.
    return int(value) if value.isdigit() and len(value) <= 20 else None


def nominated(fields: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The names in `Connection`, lower case: fields that are for the next recipient alone (RFC 9110 §7.6.1)."""
    return frozenset(
        option.strip(b" \t").lower()
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    )


def forwardable_fields(fields: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
    """The fields of a response without those that `Connection` names, which are not for whoever comes after.

    What it says of the connection itself stays: it is for the server, as the cache has no connection of its own.

    Args:
        fields: names in any case.
    """
    dropped = nominated(fields) - _OF_THE_CONNECTION
    return [line for line in fields if line[0].lower() not in dropped] if dropped else fields


def storable_fields(head: ResponseHead, left_out: frozenset[bytes] = frozenset()) -> Fields:
    """The fields to store: names in lower case, without Age and those of the connection (RFC 9111 §3.1).

    Age is stored as part of the response's initial age and made anew for each answer.

    Args:
        head: as it came.
        left_out: names of further fields that are not for storing, lower case.
    """
    lines = [(name.lower(), value) for name, value in head.headers]
    dropped = _HOP_BY_HOP | {b"age"} | left_out | nominated(lines)
    return tuple(line for line in lines if line[0] not in dropped)
