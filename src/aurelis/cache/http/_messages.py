"""HTTP messages as records, independent of any framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Header fields in order, names in lower case."""


def combine(fields: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Field lines by name, several lines of one name joined with `, ` (RFC 9110 §5.2), of Cookie with `; `.

    `fields` is a sequence of pairs with lower-case names.
    """
    pairs = fields if isinstance(fields, (list, tuple)) else list(fields)
    combined = dict(pairs)
    if len(combined) != len(pairs):  # some name has several lines: rare, so the common case stays one C call
        combined = {}
        for name, value in pairs:
            # HTTP/2 lets a client split Cookie, whose members are no list with commas (RFC 9113 §8.2.3).
            separator = b"; " if name == b"cookie" else b", "
            combined[name] = combined[name] + separator + value if name in combined else value
    return combined


@dataclass(slots=True)
class HttpRequest:
    """A request as the rules see it.

    Attributes:
        method: in upper case, as HTTP is case-sensitive about it.
        url: target URI without user information and fragment: scheme, authority, path, query.
        fields: header fields by lower-case name, lines of one name already joined.
        partition: token that separates this request's entries from those of others (a keyed hash of
            credentials or of a principal), empty where all share. Never the credential itself.
        rule: what the app declared for this request, or `None`.
        insists: its Cache-Control is what the app itself says to this cache, which is heeded also where directives of
            requests are not.
    """

    method: str
    url: str = field(repr=False)
    fields: Mapping[bytes, bytes] = field(repr=False)  # credentials are among them
    partition: str = ""
    rule: RuleEffect | None = None
    insists: bool = False


@dataclass(frozen=True, slots=True)
class RuleEffect:
    """The part of an app's rule that the HTTP rules need.

    Attributes:
        ttl: seconds of freshness for responses that say nothing about it, > 0; `None`: it gives none.
        credentials_allowed: the rule said how requests with credentials are to be kept apart (or that they
            need not be), so such a request may be answered from and stored in the partition it belongs to.
        statuses: statuses that the rule's ttl applies to.
        tags: names by which responses can be invalidated, beside those that they give themselves; internal form.
        stale_while_revalidate: seconds, ≥ 0, for responses that do not say it themselves (RFC 5861 §3); `None`: not
            said.
        stale_if_error: likewise (RFC 5861 §4).
        override: response directives that do not keep a response from being stored: `no-store`, `private`, `no-cache`.
            Where one of them would have, the rule's ttl counts, and nothing else that the response says of freshness.
        max_body_bytes: in place of the general limit; `None`: that one.
        vary: names of request fields that responses vary by, beside those that they name, lower case.
        query: what the origin gets to see of the query, since nothing else of it counts; `None`: all.
        longest: seconds, ≥ 0, after which nothing is fresh any more, whatever gave its lifetime; 0: nothing is stored;
            `None`: there is no limit.
    """

    ttl: float | None
    credentials_allowed: bool = False
    statuses: frozenset[int] = frozenset({200, 203, 301, 308, 404})
    tags: tuple[str, ...] = ()
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    override: frozenset[str] = frozenset()
    max_body_bytes: int | None = None
    vary: tuple[str, ...] = ()
    query: bytes | None = None
    longest: float | None = None


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and header fields of a response whose body may still be coming."""

    status: int
    headers: Fields = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A complete response as it is kept and replayed.

    Attributes:
        status: of the response.
        headers: replay-ready: hop-by-hop fields (RFC 9110 §7.6.1) and `Age` removed, names in lower case.
        chunks: body in the chunks in which it came; joined they are the content.
        initial_age: corrected initial age (RFC 9111 §4.2.3) when it was stored, seconds ≥ 0.
        lifetime: freshness lifetime (RFC 9111 §4.2.1), seconds. Age now = lifetime - (entry.fresh_until -
            now). Under a rule it is longer than the rule's ttl by the time that the origin took.
        source: where the lifetime came from: `explicit`, `rule`, `heuristic`, `validation` or `model`; `failure`: it is
            one that is only remembered.
        vary: names of the request fields that selected it, lower case, sorted.
        stale_while_revalidate: seconds beyond its freshness in which it may answer while it is loaded anew, ≥ 0 (RFC
            5861 §3).
        stale_if_error: seconds beyond its freshness in which it may stand in for a failing origin, ≥ 0 (RFC
            5861 §4).
        may_be_stale: nothing forbids to answer with it when it is stale (RFC 9111 §4.2.4).
        immutable: it does not change while it is fresh (RFC 8246).
        overdue: seconds for which it had been stale already when it was stored, ≥ 0.
        date: when it was made, seconds since the epoch: its Date, or when it came (RFC 9110 §6.6.1).
        allows_authorization: a shared cache may answer requests with Authorization with it (RFC 9111 §3.5).
        input_tokens: usage reported by the model, `None` where unknown or not a model call.
        output_tokens: likewise.
        load_seconds: how long the origin took, request to last byte.
        route: route template of the app that made it, empty where unknown.
        pauses: whole milliseconds before each chunk came, of a stream whose times are known; otherwise empty.
        model: name of the model that made it, as the call gave it or else the answer; empty where neither did.
        cost: US dollars that the call has cost; `None`: not known, or not asked for.
    """

    status: int
    headers: Fields = field(repr=False)
    chunks: tuple[bytes, ...] = field(repr=False)
    initial_age: float = 0.0
    lifetime: float = 0.0
    source: str = "explicit"
    vary: tuple[bytes, ...] = ()
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    may_be_stale: bool = False
    immutable: bool = False
    overdue: float = 0.0
    date: float = 0.0
    allows_authorization: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    load_seconds: float = 0.0
    route: str = ""
    pauses: tuple[int, ...] = ()
    model: str = ""
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class StoredPart:
    """Kept under a URI's key when only a part of a response is known (RFC 9111 §3.3).

    Attributes:
        response: as a whole one is kept, with the part for its body.
        first: position of the first byte of the part in the whole.
        last: of the last one.
        size: bytes of the whole.
    """

    response: StoredResponse
    first: int
    last: int
    size: int


@dataclass(frozen=True, slots=True)
class VariantIndex:
    """Kept under a URI's key when its responses vary: which request fields select (RFC 9111 §4.1).

    Attributes:
        vary: names of those fields, lower case, sorted.
        languages: what the origin has chosen for values of Accept-Language: normalised value and language, the last
            first.
        variants: digests of the variants that are stored, the last first.
    """

    vary: tuple[bytes, ...] = field(default=())
    languages: tuple[tuple[bytes, bytes], ...] = field(default=())
    variants: tuple[str, ...] = field(default=())

    def after(self, before: object) -> tuple[VariantIndex, tuple[str, ...]]:
        """This index, with what the one before it knew; and the variants for which there is no more room."""
        if not isinstance(before, VariantIndex):
            return self, ()
        languages = self.languages
        if before.vary == self.vary and before.languages:
            values = {value for value, _ in languages}
            languages = (*languages, *(choice for choice in before.languages if choice[0] not in values))
        # Also those by other fields, which the origin may name again.
        variants = (*self.variants, *(digest for digest in before.variants if digest not in self.variants))
        index = VariantIndex(self.vary, languages[:MAX_LANGUAGES], variants[:MAX_VARIANTS])
        return index, variants[MAX_VARIANTS:]


# A client decides what it sends, so there must be an end.
MAX_LANGUAGES = 64
"""Choices that an index remembers."""
MAX_VARIANTS = 64
"""Variants of a URI that are stored at once."""


@dataclass(frozen=True, slots=True)
class LoadedResponse:
    """A whole response as it came from the origin, for the decision whether to keep it.

    Attributes:
        head: status and fields as they came.
        chunks: body in the chunks in which it came, content codings of the transport removed where it decodes
            them.
        seconds: how long the load took.
        request_time: wall clock when the request was sent, seconds since the epoch (RFC 9111 §4.2.3).
        response_time: wall clock when its head came.
        route: route template of the app, empty where unknown.
        times: seconds after the head at which each chunk came, of a body that is watched for its terminator; otherwise
            empty.
        part: it is one of several parts of a response, whose own share of what that has used is not known.
    """

    head: ResponseHead
    chunks: tuple[bytes, ...] = field(repr=False)
    seconds: float
    request_time: float
    response_time: float
    route: str = ""
    times: tuple[float, ...] = ()
    part: bool = False
