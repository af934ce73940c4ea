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
        until: monotonic instant until which nobody asks while open.
    """

    kind: Kind = "closed"
    failures: int = 0
    until: float = 0.0


CLOSED = Breaker()


def admit(state: Breaker, now: float) -> tuple[Breaker, bool]:
    """The next state, and whether this caller may ask the layer."""
    if state.kind == "closed":
        return state, True
    if state.kind == "open" and now >= state.until:
        return Breaker("half_open"), True
    return state, False


def succeeded(state: Breaker) -> Breaker:
    """The next state after a call that worked. A late success of a call begun before it opened does not close it."""
    return state if state.kind == "open" else CLOSED


def failed(state: Breaker, now: float, *, threshold: int, pause: float) -> Breaker:
    """The next state after a call that failed or ran out of time.

    Args:
        threshold: failures in a row that open it, ≥ 1.
        pause: seconds to stay open; the caller adds jitter so that many processes don't probe in step.
    """
    if state.kind == "open":
        return state
    failures = state.failures + 1
    if state.kind == "half_open" or failures >= threshold:
        return Breaker("open", until=now + pause)
    return Breaker("closed", failures)


def released(state: Breaker, now: float) -> Breaker:
    """The next state after a call that was cancelled: it says nothing of the layer, so a probe becomes free again."""
    return Breaker("open", until=now) if state.kind == "half_open" else state
