"""What follows from the answers of a policy and from how a load has gone: pure functions."""

from __future__ import annotations

from typing import Any, Final

from aurelis.cache._decisions import Bypass, Follow, Load, Lookup, Pass, Record, Refuse, Serve
from aurelis.cache._flight import Failed, Flight
from aurelis.cache._shared_errors import is_timeout
from aurelis.cache.telemetry import names

MISSES: Final = frozenset({"miss", "uri-miss", "vary-miss", "stale", "partial"})
"""Reasons for asking the origin (RFC 9211 §2.2) that count as misses."""

_ABSENT: Final = frozenset({"uri-miss", "vary-miss"})


def answers(decision: Lookup, behind: str) -> bool:
    """Whether what was found makes a load needless: any answer to a caller, something fresh to a refresh."""
    if isinstance(decision, Serve):
        return not (behind and decision.refresh)
    return isinstance(decision, Follow)


def is_for_its_leader(decision: Record | Pass) -> bool:
    """Whether those who waited for a response ask again, rather than all at once."""
    if isinstance(decision, Record):
        return not decision.shared  # it will be stored, and they can ask whether it holds for them
    return not decision.lasting  # the leader's request or luck was special


def why(decision: Load, found: str) -> str:
    """Why the origin was asked: what was not in memory may have been in a lower layer. `found`: as of `Recorder`."""
    return found if found and decision.reason in _ABSENT else decision.reason


def result_alone(reason: str) -> str:
    """The result of a request that asks the origin for itself alone."""
    return names.MISS if is_miss(reason) else names.BYPASS


def may_be_below(decision: Lookup) -> bool:
    """Whether a request that nobody loads for could still be answered by a lower layer."""
    return isinstance(decision, Refuse) or (isinstance(decision, Bypass) and decision.reason in MISSES)


def is_miss(reason: str) -> bool:
    """Whether a request for which the origin is asked for this reason counts as a miss."""
    return reason in MISSES or reason == "request"


def is_at_hand(decision: Lookup, layer: str, failure: object) -> bool:
    """Whether memory has the answer to a request, or was not asked for one.

    Args:
        layer: that had what the decision is about.
        failure: what is remembered in place of a response that would have to be loaded; `None`: nothing is.
    """
    if isinstance(decision, Serve):
        return layer == names.L1
    if isinstance(decision, Bypass):
        return not is_miss(decision.reason)
    return isinstance(decision, Load) and failure is not None


def of_variant(decision: Lookup) -> Lookup:
    """What the rules say about the key of a variant; they don't know that an index led there (RFC 9211 §2.2)."""
    if type(decision) is Serve:  # a hit: this is its hot path
        return decision
    if isinstance(decision, Load) and decision.reason == "uri-miss":
        return Load("vary-miss")
    if isinstance(decision, Bypass) and decision.reason == "uri-miss":
        return Bypass("vary-miss", decision.detail)
    return decision


def stale_reason(decision: Serve, now: float) -> str:
    """Why something stale is served without a load that is waited for, by the names of telemetry."""
    if decision.refresh:
        return "revalidate"
    return "error" if now < decision.entry.details.retry_at else "request"


def wants_body(request: object) -> bool:
    """Whether the origin would have sent a body: it would not to a HEAD."""
    return getattr(request, "method", "") != "HEAD"


def waits_longer(patience: float | None, flight: Flight[Any], failed: Failed) -> bool:
    """Whether a load has failed because it took longer than its own caller waits, and this one waits for more."""
    if flight.patience is None or not is_timeout(failed.error):
        return False
    return patience is None or patience > flight.patience


def would_block_itself(flight: Flight[Any], *, blocking: bool) -> bool:
    """Whether the load goes on only when this very thread does something else than wait for it.

    Another response of the same thread that is not read yet, or a task of the event loop which a blocking call stops.
    """
    return flight.is_of_this_thread() and (blocking or flight.task is None)
