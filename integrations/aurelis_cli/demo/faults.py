"""What fails on purpose, and when. Pure, but for the switch.

Nobody but the demo itself has such a switch: the app below asks it where a real one would meet the trouble.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

REDIS: Final = "redis"
TABLE: Final = "table"
MODEL: Final = "model"
APP: Final = "app"
SLOW: Final = "slow"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that fails for a while.

    Attributes:
        name: what fails.
        begins: seconds since the faults began.
        ends: likewise.
        words: what the user is told.
    """

    name: str
    begins: float
    ends: float
    words: str


SCRIPT: Final = (
    Fault(REDIS, 0, 5, "Redis cannot be reached"),
    Fault(TABLE, 1, 5, "the table of ratings takes no writes"),
    Fault(MODEL, 5, 8, "the model answers 429, or breaks off"),
    Fault(APP, 8, 11, "the app answers 503"),
    Fault(SLOW, 11, 13, "the app takes half a second longer"),
)
"""In this order, then all is well, then again."""
PERIOD: Final = 45.0
"""Seconds from the beginning of one round to that of the next."""


def active(seconds: float) -> list[Fault]:
    """What fails so many seconds after the faults began; nothing before."""
    inside = seconds % PERIOD
    return [] if seconds < 0 else [fault for fault in SCRIPT if fault.begins <= inside < fault.ends]


class Switch:
    """Which faults are on in a process. One thread sets it; any reads."""

    def __init__(self) -> None:
        """All is well."""
        self._on: frozenset[str] = frozenset()

    def set(self, names: Iterable[str]) -> None:
        """Have these fail from now on, and nothing else."""
        self._on = frozenset(names)

    def __contains__(self, name: str) -> bool:
        """Whether it fails now."""
        return name in self._on
