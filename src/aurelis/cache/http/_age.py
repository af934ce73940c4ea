"""How old a response is and how long it stays fresh (RFC 9111 §4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Literal, TypeAlias

from ._directives import ResponseDirectives
from ._grammar import MAX_DELTA_SECONDS, age_seconds, http_date
from ._messages import RuleEffect

Source: TypeAlias = Literal["explicit", "rule", "heuristic", "validation"]
"""Who gave a freshness lifetime: the response, the app's rule, or nobody (RFC 9111 §4.2.2).

`validation`: whatever the lifetime is, only the origin's word before each use counts.
"""

HEURISTIC_STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Heuristically cacheable statuses (RFC 9110 §15.1) but 206, since partial responses are not stored."""

HEURISTIC_FRACTION = 0.1
"""Share of the time since the last modification that a response is taken to be fresh (RFC 9111 §4.2.2)."""

MAX_HEURISTIC_LIFETIME = 86_400.0
"""Seconds: nobody said that the response may be reused, so no guess goes beyond a day."""

MAX_NEGATIVE_LIFETIME = 10.0
"""Seconds that a rule keeps a 404: what does not exist yet is often made next."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long a response is fresh.

    Attributes:
        lifetime: seconds, 0 to `MAX_DELTA_SECONDS`.
        source: who gave it.
    """

    lifetime: float
    source: Source


def freshness(
    status: int,
    fields: Mapping[bytes, bytes],
    directives: ResponseDirectives,
    *,
    shared: bool,
    response_time: float,
    rule: RuleEffect | None = None,
) -> Freshness | None:
    """The freshness lifetime of a response, or `None` where nothing gives one.

    What the response says goes first, also when it is invalid and so means "not fresh". A rule speaks for
    responses that say nothing, a heuristic for those that no rule speaks for.

    Args:
        status: of the response.
        fields: its header fields by lower-case name.
        directives: its Cache-Control.
        shared: for a shared cache.
        response_time: when the head came, seconds since the epoch.
        rule: what the app declared for the request.
    """
    overridden = rule is not None and overrides(rule, directives)
    explicit = _explicit_lifetime(fields, directives, shared=shared, response_time=response_time)
    if explicit is not None and not overridden:
        return Freshness(float(min(explicit, MAX_DELTA_SECONDS)), "explicit")
    if rule is not None and rule.ttl is not None and status in rule.statuses:
        limit = MAX_NEGATIVE_LIFETIME if status == 404 else MAX_DELTA_SECONDS
        return Freshness(float(min(rule.ttl, limit)), "rule")
    if not overridden and (status in HEURISTIC_STATUSES or directives.public):
        modified = http_date(fields.get(b"last-modified"), response_time)
        if modified is not None:
            unchanged_for = date_of(fields, response_time) - modified
            return Freshness(min(max(unchanged_for * HEURISTIC_FRACTION, 0.0), MAX_HEURISTIC_LIFETIME), "heuristic")
    return None


def overrides(rule: RuleEffect, directives: ResponseDirectives) -> bool:
    """Whether the rule sets aside a directive that the response has: then it speaks for the response alone.

    What such a response says of its freshness was said to caches that heed the rest of it, too.
    """
    return bool(rule.override) and (
        ("no-store" in rule.override and directives.no_store)
        or ("private" in rule.override and directives.private)
        or ("no-cache" in rule.override and directives.no_cache)
    )


def _explicit_lifetime(
    fields: Mapping[bytes, bytes], directives: ResponseDirectives, *, shared: bool, response_time: float
) -> float | None:
    """RFC 9111 §4.2.1, in this order; `None` where the response says nothing."""
    if directives.malformed:
        return 0
    if shared and directives.s_maxage is not None:
        return directives.s_maxage
    if directives.max_age is not None:
        return directives.max_age
    expires = fields.get(b"expires")
    if expires is None:
        return None
    expiry = http_date(expires, response_time)
    if expiry is None:  # above all "0", which means "already expired" (RFC 9111 §5.3)
        return 0
    return max(expiry - date_of(fields, response_time), 0)


def date_of(fields: Mapping[bytes, bytes], response_time: float) -> float:
    """The Date field; the time of reception where it is absent or invalid (RFC 9110 §6.6.1)."""
    date = http_date(fields.get(b"date"), response_time)
    return response_time if date is None else date


def corrected_initial_age(fields: Mapping[bytes, bytes], *, request_time: float, response_time: float) -> float:
    """The age of a response when it came, seconds ≥ 0 (RFC 9111 §4.2.3).

    Args:
        fields: header fields by lower-case name.
        request_time: when the request was sent, seconds since the epoch.
        response_time: when the head of the response came, likewise.
    """
    response_delay = max(response_time - request_time, 0.0)  # a wall clock may be set back meanwhile
    return max(_apparent_age(fields, response_time), age_seconds(fields.get(b"age")) + response_delay)


def age_brought(fields: Mapping[bytes, bytes], *, response_time: float) -> float:
    """The age that a response states by itself, seconds ≥ 0: its initial age without the origin's delay.

    Args:
        fields: header fields by lower-case name.
        response_time: when its head came, seconds since the epoch.
    """
    return max(_apparent_age(fields, response_time), float(age_seconds(fields.get(b"age"))))


def _apparent_age(fields: Mapping[bytes, bytes], response_time: float) -> float:
    # Date has whole seconds, so the fraction of the time of reception says nothing about age. Counting it
    # would take half a second on average from every lifetime.
    date = http_date(fields.get(b"date"), response_time)
    return 0.0 if date is None else float(max(floor(response_time) - date, 0))


def current_age(lifetime: float, fresh_until: float, now: float) -> float:
    """The age of a stored response, seconds ≥ 0 (RFC 9111 §4.2.3).

    Args:
        lifetime: freshness lifetime it was stored with, seconds.
        fresh_until: instant at which it stops being fresh.
        now: instant on the same clock.
    """
    return max(lifetime - (fresh_until - now), 0.0)
