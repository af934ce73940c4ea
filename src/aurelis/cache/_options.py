"""Durations as callers give them."""

from __future__ import annotations

import math
from datetime import timedelta

Duration = float | timedelta
"""Seconds, or a timedelta."""


def seconds(value: Duration, name: str = "ttl") -> float:
    """The duration in seconds, ≥ 0, perhaps infinite.

    Raises:
        ValueError: it is negative or not a number.
        TypeError: it is neither a number nor a timedelta.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} must be 0 or more seconds (math.inf: never expires), not {value!r}")
    return float(value)
