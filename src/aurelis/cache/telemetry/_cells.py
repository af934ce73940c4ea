"""Counts as plain integers, and the registry that adds them up for whoever asks.

A synchronous OpenTelemetry instrument costs about twenty times a hit in memory. So each count is a `Cell`, found once
and then incremented, and a reader walks all cells when it collects (the asynchronous equivalent that the metrics
specification allows).

`cell.n += 1` loses no count between threads: CPython hands over the interpreter lock at calls and backward jumps only,
and there is neither between the load and the store. So what is added must not be a call: `cell.n += len(keys)` loads
the count first, and calls then; `cell.add(len(keys))` does not. A build without that lock needs cells per thread.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from aurelis.cache._forking import renew_in_children

from .names import Metric

T = TypeVar("T")

Attributes = tuple[tuple[str, str], ...]
"""Attribute names and values, sorted by name."""


class Cell:
    """One count: `cell.n += 1`."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n: int = 0

    def add(self, number: int) -> None:
        """Count so many at once."""
        self.n += number


class Sum:
    """One sum of seconds: `sum.n += elapsed`."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n: float = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Gauge:
    """A level of a subject, which is not kept alive by it.

    Attributes:
        read: takes the subject; `Any`, since each has one of its own kind.
        of: what it is the level of, where caches share that and would each tell all of it; `None`: of its own cache.
    """

    metric: str
    attributes: Attributes
    subject: weakref.ref[Any]
    read: Callable[[Any], float | None]
    of: Hashable


class CellTable:
    """The cells and gauges of one cache."""

    __slots__ = ("__weakref__", "cells", "common", "gauges")

    def __init__(self, **common: str) -> None:
        self.common = common
        self.cells: dict[str, dict[Attributes, Cell | Sum]] = {}  # by metric, as they are read
        self.gauges: list[_Gauge] = []

    def cell(self, metric: Metric, **attributes: str) -> Cell:
        """The cell for these attributes; the same one each time."""
        found = self._series(metric).setdefault(self._attributes(attributes), Cell())  # atomic between threads
        assert isinstance(found, Cell)
        return found

    def sum(self, metric: Metric, **attributes: str) -> Sum:
        """The sum for these attributes; the same one each time."""
        found = self._series(metric).setdefault(self._attributes(attributes), Sum())
        assert isinstance(found, Sum)
        return found

    def alias(self, cell: Cell, metric: Metric, **attributes: str) -> None:
        """Report the cell under a second name too: two metrics that count the same events by definition."""
        self._series(metric)[self._attributes(attributes)] = cell

    def gauge(
        self, metric: Metric, subject: T, read: Callable[[T], float | None], of: Hashable = None, **attributes: str
    ) -> None:
        """Have a level of `subject` read at each collection, as long as it lives; `None`: there is none to tell.

        Args:
            of: what several caches share, if it is the level of that.
        """
        self._drop(lambda gauge: gauge.subject() is None)  # of what is made for each request, say
        self.gauges.append(_Gauge(metric.name, self._attributes(attributes), weakref.ref(subject), read, of))

    def end(self, *metrics: Metric) -> None:
        """Read the gauges of these metrics no more."""
        ended = {metric.name for metric in metrics}
        self._drop(lambda gauge: gauge.metric in ended)

    def _drop(self, is_over: Callable[[_Gauge], bool]) -> None:
        # One by one, each in one step: another thread may be adding one.
        for gauge in filter(is_over, self.gauges.copy()):
            with contextlib.suppress(ValueError):  # another thread has dropped it
                self.gauges.remove(gauge)

    def _series(self, metric: Metric) -> dict[Attributes, Cell | Sum]:
        return self.cells.setdefault(metric.name, {})

    def _attributes(self, attributes: dict[str, str]) -> Attributes:
        return tuple(sorted({**self.common, **attributes}.items()))


class Registry:
    """All caches of the process, the living and the sums of the dead, so that a counter never goes back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[int, CellTable] = {}
        self._ended: deque[int] = deque()
        self._retired: dict[str, dict[Attributes, float]] = {}
        self._next = 0
        renew_in_children(self)

    def add(self, owner: object, table: CellTable) -> None:
        """Take the table in; when `owner` is garbage its counts are kept and its gauges end."""
        with self._lock:
            self._bury()  # where nobody reads, nobody else does it
            self._next += 1
            number = self._next
            self._live[number] = table
        # The finaliser may run inside any allocation, also one made under our lock: it only appends.
        weakref.finalize(owner, self._ended.append, number).atexit = False

    def counts(self, metric: Metric) -> dict[Attributes, float]:
        """Sum of each attribute set. Two caches of one name are one series."""
        with self._lock:
            self._bury()
            sums = dict(self._retired.get(metric.name, {}))
            for table in self._live.values():
                # A copy, in one step: another thread may be counting something for the first time.
                for attributes, cell in table.cells.get(metric.name, {}).copy().items():
                    sums[attributes] = sums.get(attributes, 0) + cell.n
        return sums

    def levels(self, metric: Metric) -> dict[Attributes, float]:
        """Sum of each attribute set over the living caches; what several of them share is in it once."""
        sums: dict[Attributes, float] = {}
        shared: dict[tuple[Attributes, Hashable], float] = {}
        with self._lock:
            self._bury()
            tables = list(self._live.values())
        for gauge in _gauges(tables):
            if gauge.metric != metric.name or (subject := gauge.subject()) is None:
                continue
            if (value := gauge.read(subject)) is None:
                continue
            attributes = gauge.attributes
            known: float = 0
            if gauge.of is not None:  # each tells what it has last seen of the same: the most of that counts
                known = shared.get((attributes, gauge.of), 0)
                shared[attributes, gauge.of] = value = max(known, value)
            sums[attributes] = sums.get(attributes, 0) + value - known
        return sums

    def _bury(self) -> None:
        while self._ended:
            table = self._live.pop(self._ended.popleft())
            for metric, cells in table.cells.items():
                retired = self._retired.setdefault(metric, {})
                for attributes, cell in cells.items():
                    if cell.n:  # a series of zeros, of each cache that ever was, would be all that grows
                        retired[attributes] = retired.get(attributes, 0) + cell.n

    def after_fork(self) -> None:
        """Begin counting anew in a child: what the parent counted, the parent reports."""
        self._lock = threading.Lock()
        self._bury()
        self._retired.clear()
        for table in self._live.values():
            for cells in table.cells.values():
                for cell in cells.values():
                    cell.n = 0


def _gauges(tables: list[CellTable]) -> Iterator[_Gauge]:
    for table in tables:
        yield from table.gauges.copy()


REGISTRY = Registry()
"""The process's registry. Module-level state on purpose: the SDK exports one set of instruments per process."""
