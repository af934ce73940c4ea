"""How sure a measured rate is. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Interval:
    """Between what a rate lies, with the confidence that was asked for.

    Attributes:
        low: in [0, 1].
        high: likewise, not below `low`.
    """

    low: float
    high: float


def wilson(events: int, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of the rate of events (E. B. Wilson, 1927).

    It holds for few trials, too, and for a rate near 0, where the usual interval is far too narrow.

    Args:
        events: how many of the trials had it, in [0, `trials`].
        trials: ≥ 0; with none the rate may be anything.
        confidence: in (0, 1).

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> wilson(0, 100).high < 0.04
        True
    """
    if not 0 <= events <= trials:
        raise ValueError("there must be no more events than trials, and no less than none")
    if not 0 < confidence < 1:
        raise ValueError("confidence must be between 0 and 1")
    if not trials:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = events / trials
    scale = 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    reach = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # At the ends it meets them exactly, which rounding may miss by a bit.
    low = 0.0 if events == 0 else max(0.0, middle - reach)
    high = 1.0 if events == trials else min(1.0, middle + reach)
    return Interval(low, high)
