"""The only place that reads time."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """A pair of clocks, injected so that tests can move them.

    Attributes:
        monotonic: callable without arguments giving seconds since an arbitrary instant; never goes back.
        time: callable without arguments giving seconds since the Unix epoch (UTC).
    """

    __slots__ = ("monotonic", "time")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        # Attributes, not methods: a hit in memory reads the clock, and a Python frame around it would double the cost.
        self.monotonic = monotonic
        self.time = wall


SYSTEM_CLOCK = Clock()
"""The clocks of the operating system."""
