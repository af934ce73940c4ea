"""What one metrics endpoint has said so far: totals that never go down, and what has come in a window of time. Pure."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from io import StringIO
from typing import Final

from aurelis.cache.telemetry import names
from aurelis_cli.demo.metrics import Snapshot, merged, parse, series

WINDOW: Final = 10.0
"""Seconds over which rates, ratios and latencies are taken."""

_START: Final = "process_start_time_seconds"
_GAUGES: Final = frozenset(series(metric) for metric in names.METRICS if metric.kind == "gauge")
_COUNTS: Final = frozenset(
    f"{series(metric)}{suffix}"
    for metric in names.METRICS
    if metric.kind != "gauge"
    for suffix in (("_bucket",) if metric.kind == "histogram" else ("",))
)

_WANTED: Final = (*_GAUGES, *_COUNTS, _START)
_LINE: Final = re.compile(r"\s*(?:$|#|[A-Za-z_:][A-Za-z0-9_:]*[ \t]*(?:\{|[ \t](?:[-+.0-9]|NaN|Inf)))")
"""How each line of the format begins."""
_LONGEST_LINE: Final = 2**12
"""Characters: far above what a line of ours has."""

NOTHING: Final[Snapshot] = {}


def parsed(text: str) -> Snapshot:
    """What an endpoint says of caches, and when its process began.

    A process has metrics of much else, and the time to parse a line grows faster than its length. So nothing is parsed
    that is not wanted.

    Raises:
        ValueError: the text is not in the format.
    """
    wanted = []
    for line in StringIO(text):
        if _LINE.match(line) is None:
            raise ValueError("a line that is no sample")
        if line.lstrip().startswith(_WANTED):
            if len(line) > _LONGEST_LINE:
                raise ValueError("a line that is too long")
            wanted.append(line)
    return parse("".join(wanted))


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is to show of one endpoint.

    Attributes:
        counts: since the process began, restarts that were seen included.
        recent: of them, what has come in the last `span` seconds.
        span: seconds; 0 where there is nothing to compare with.
        levels: what is so now; nothing while the endpoint is down.
    """

    counts: Snapshot = field(default_factory=dict)
    recent: Snapshot = field(default_factory=dict)
    span: float = 0.0
    levels: Snapshot = field(default_factory=dict)


class Endpoint:
    """One endpoint over time. Instants are monotonic seconds and go up.

    A process that begins again begins to count at zero. That is seen by another time of its start, or by a count that
    went down; then all that it counts is new.

    Attributes:
        problem: why it could not be read the last time; empty: it could.
    """

    def __init__(self) -> None:
        self.problem = "not asked yet"
        self._last: Snapshot = NOTHING
        self._start = 0.0
        self._before: Snapshot = NOTHING  # of processes that are gone
        self._past: deque[tuple[float, Snapshot]] = deque()
        self._levels: Snapshot = NOTHING

    def take(self, now: float, snapshot: Snapshot) -> None:
        """It has said this."""
        counts = {key: value for key, value in snapshot.items() if key[0] in _COUNTS}
        start = snapshot.get((_START, frozenset()), 0.0)
        if start != self._start or any(counts.get(key, 0.0) < value for key, value in self._last.items()):
            self._before = merged((self._before, self._last))
        self._last, self._start = counts, start
        self._levels = {key: value for key, value in snapshot.items() if key[0] in _GAUGES}
        self.problem = ""
        self._past.append((now, merged((self._before, counts))))
        while len(self._past) > 2 and self._past[1][0] <= now - WINDOW:
            self._past.popleft()

    def fail(self, problem: str) -> None:
        """It could not be read."""
        self.problem = problem
        self._levels = NOTHING

    def reading(self) -> Reading:
        """What is to be shown."""
        if not self._past:
            return Reading()
        (first_at, first), (last_at, last) = self._past[0], self._past[-1]
        if self.problem:
            return Reading(last)
        return Reading(last, _difference(last, first), last_at - first_at, self._levels)


def _difference(last: Snapshot, first: Snapshot) -> Snapshot:
    return {key: value - first.get(key, 0.0) for key, value in last.items()}
