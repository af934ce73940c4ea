"""When to stop asking a layer that fails, and when to try it again: a pure state machine.

Closed until `threshold` calls in a row have failed; then open for `pause` seconds, in which nobody asks; then half
open: one caller probes, the others go on without. The probe's success closes it, its failure opens it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """State of a breaker.

    Attributes:
        kind: `closed`, `open` or `half_open` (a probe is under way).
        failures: failures in a row while closed, ≥ 0.
        until: monotonic instant until which nobody asks while open, or nobody else while half open.
    """

    kind: Kind = "closed"
    failures: int = 0
    until: float = 0.0


CLOSED = Breaker()


def admit(state: Breaker, now: float, *, pause: float) -> tuple[Breaker, bool]:
    """The next state, and whether this caller may ask the layer. Unless the state was closed, it asks as a probe.

    Args:
        pause: finite seconds after which a probe counts as lost (its event loop was closed, its process was forked)
            and another one may go; longer than a probe takes, unless it has no end.
    """
    if state.kind == "closed":
        return state, True
    if now >= state.until:
        return Breaker("half_open", until=now + pause), True
    return state, False


def succeeded(state: Breaker, *, probe: bool) -> Breaker:
    """The next state after a call that worked. Only a probe closes it: a late success was begun before it opened."""
    return CLOSED if probe or state.kind == "closed" else state


def failed(state: Breaker, now: float, *, probe: bool, threshold: int, pause: float) -> Breaker:
    """The next state after a call that failed or ran out of time. A late failure, begun before it opened, is no news.

    Args:
        threshold: failures in a row that open it, ≥ 1.
        pause: seconds to stay open; the caller adds jitter so that many processes don't probe in step.
    """
    if state.kind == "closed":
        failures = state.failures + 1
        return Breaker("open", until=now + pause) if failures >= threshold else Breaker("closed", failures)
    return Breaker("open", until=now + pause) if probe else state


def released(state: Breaker, now: float, *, probe: bool) -> Breaker:
    """The next state after a call that was cancelled: it says nothing of the layer, so a probe becomes free again."""
    return Breaker("open", until=now) if probe and state.kind == "half_open" else state
