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
    Fault(REDIS, 0, 6, "Redis cannot be reached"),
    Fault(TABLE, 0, 8, "the table of ratings takes no writes"),
    Fault(MODEL, 6, 10, "the model answers 429, or breaks off"),
    Fault(APP, 10, 13, "the app answers 503"),
    Fault(SLOW, 13, 15, "the app takes half a second longer"),
)
"""In this order, then all is well, then again."""
PERIOD: Final = 45.0
"""Seconds from the beginning of one round to that of the next."""


def steps() -> list[tuple[list[Fault], float]]:
    """What fails, step by step, and for how many seconds: one round, at the end of which nothing does."""
    moments = sorted({moment for fault in SCRIPT for moment in (fault.begins, fault.ends)})
    return [
        ([fault for fault in SCRIPT if fault.begins <= moment < fault.ends], following - moment)
        for moment, following in zip(moments, [*moments[1:], PERIOD], strict=True)
    ]


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
