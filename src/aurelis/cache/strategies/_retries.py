"""When an attempt is made again."""

from __future__ import annotations

from typing import Final

FIRST: Final = 1.0
"""Seconds before the second attempt, on average."""
_FACTOR: Final = 3.0
_LONGEST: Final = 300.0


def delay(attempts: int, chance: float, first: float = FIRST) -> float:
    """Seconds before the next attempt.

    Three times as long each time, five minutes at most, and by up to a half more or less: what has failed together is
    not tried again together.

    Args:
        attempts: in vain so far, ≥ 1.
        chance: in [0, 1).

    Example:
        >>> [delay(attempts, 0.5) for attempts in (1, 2, 3, 4, 5, 6, 7)]
        [1.0, 3.0, 9.0, 27.0, 81.0, 243.0, 300.0]
    """
    steps = min(attempts - 1, 16)  # a float would overflow long after it stopped to matter
    return min(_LONGEST, first * _FACTOR**steps) * (0.5 + chance)
