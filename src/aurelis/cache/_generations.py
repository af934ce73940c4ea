"""Which entries are older than an invalidation.

Invalidations are numbered: each gets the next *generation*. An entry notes the highest generation that was known
before its value began to be loaded, a tag the generation of its last invalidation. An entry is out of date when one of
its tags has a higher generation, however many entries the tag has. No clock is involved.

With a layer that processes share, generations come from there; what is known of them here is a copy. A tag that is not
known must be asked for, and a tag that has no record there gets a new generation, so whatever was stored before is out
of date: a lost record makes a miss, never a wrong answer.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ._clock import Clock
from ._forking import renew_in_children

Verdict = Literal["valid", "soft", "invalid", "unknown"]

_MAX_KNOWN: Final = 100_000
_NOT_RELIED_ON: Final = -math.inf
"""In place of when a record was learned: there may be higher numbers, of which this process has not heard."""
_EVER: Final = -sys.float_info.max
"""Before all instants at which something can be learned."""


@dataclass(slots=True)
class _Known:
    hard: int
    soft: int
    learned: float


class Generations:
    """What this process knows.

    Args:
        shared: a layer below holds the truth; otherwise this is it.
        trust: seconds for which a copy is relied on while there is no word from other processes.
        first: the generation to begin with, where this is the truth: above those of entries that an earlier process has
            left in a layer below.

    Attributes:
        mark: changes whenever an entry in memory may have become out of date.
        latest: the highest generation seen.
        in_step: whether word of each invalidation elsewhere arrives here.
        pending: tags whose invalidation the shared layer has not been told yet: nothing with one of them is valid.
    """

    def __init__(self, clock: Clock, *, shared: bool, trust: float, first: int = 0) -> None:
        self.mark = 0
        self.latest = first
        self.in_step = False
        self.pending: frozenset[str] = frozenset()
        self._shared = shared
        self._trust = trust
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}  # the longest known first
        self._floor = 0  # where this is the truth: entries below it may have had a tag that is forgotten by now
        self._verify_before = 0
        renew_in_children(self)

    def unknown(self, tags: Iterable[str]) -> list[str]:
        """Those that have to be asked for before an entry with them can be judged."""
        if not self._shared:
            return []
        limit = _EVER if self.in_step else self._clock.monotonic() - self._trust
        known = self._known
        return [tag for tag in tags if (record := known.get(tag)) is None or record.learned < limit]

    def judge(self, generation: int, tags: Sequence[str], *, in_need: bool = False) -> Verdict:
        """Whether a value of that generation is out of date; `unknown`: some of the tags have to be asked for first.

        Args:
            in_need: nobody can be asked, so what is known here has to do.
        """
        if self.pending and not self.pending.isdisjoint(tags):
            return "invalid"
        verdict: Verdict = "valid"
        if in_need or not self._shared:
            limit = -math.inf
        else:
            limit = _EVER if self.in_step else self._clock.monotonic() - self._trust
        for tag in tags:
            record = self._known.get(tag)
            if record is None:
                if in_need:
                    continue
                if self._shared:
                    return "unknown"
                if generation < self._floor:
                    return "invalid"
            elif record.hard > generation:
                return "invalid"
            elif record.learned < limit:
                return "unknown"
            elif record.soft > generation:
                verdict = "soft"
        return verdict

    def newest(self, tags: Iterable[str]) -> int:
        """The last hard invalidation of any of the tags that is known here."""
        return max((record.hard for tag in tags if (record := self._known.get(tag)) is not None), default=0)

    def must_verify(self, mark: int) -> bool:
        """Whether an entry with that mark may be served only after the shared layer was asked."""
        return mark < self._verify_before

    def learn(self, records: Mapping[str, tuple[int, int]]) -> None:
        """Take what the shared layer says of tags."""
        now = self._clock.monotonic()
        with self._lock:
            for tag, (hard, soft) in records.items():
                before = self._known.get(tag)
                if before is not None:
                    hard, soft = max(hard, before.hard), max(soft, before.soft)
                    if (hard, soft) != (before.hard, before.soft):
                        self.mark += 1
                self._keep(tag, _Known(hard, soft, now))
                self.latest = max(self.latest, hard, soft)

    def invalidated(self, tags: Iterable[str], generation: int, *, soft: bool) -> None:
        """An invalidation has this generation."""
        with self._lock:
            self._invalidate(tags, generation, soft=soft)

    def invalidate_here(self, tags: Iterable[str], *, soft: bool) -> None:
        """An invalidation where this is the truth."""
        with self._lock:
            self._invalidate(tags, self.latest + 1, soft=soft)

    def _invalidate(self, tags: Iterable[str], generation: int, *, soft: bool) -> None:
        now = self._clock.monotonic()
        for tag in tags:
            record = self._known.get(tag)
            if record is None:
                record = _Known(0, 0, _NOT_RELIED_ON) if self._shared else _Known(self._floor, 0, now)
            if soft:
                # What had to be asked for still has to be: a hard one may have come before.
                self._keep(tag, _Known(record.hard, max(record.soft, generation), record.learned))
            else:
                self._keep(tag, _Known(max(record.hard, generation), record.soft, now))
        self.latest = max(self.latest, generation)
        self.mark += 1

    def saw(self, generation: int) -> None:
        """Somebody has mentioned this generation."""
        if generation > self.latest:
            with self._lock:
                self.latest = max(self.latest, generation)

    def lost_step(self) -> None:
        """Word of invalidations may have been lost: nothing that is known or in memory can be relied on.

        What is known to be out of date still is.
        """
        with self._lock:
            self.in_step = False
            for record in self._known.values():
                record.learned = _NOT_RELIED_ON
            self.mark += 1
            self._verify_before = self.mark

    def _keep(self, tag: str, record: _Known) -> None:
        self._known.pop(tag, None)
        if len(self._known) >= _MAX_KNOWN:
            forgotten = self._known.pop(next(iter(self._known)))
            self._floor = max(self._floor, forgotten.hard, forgotten.soft)
        self._known[tag] = record

    def after_fork(self) -> None:
        """Where this is a copy, nobody keeps it in step in this process yet."""
        self._lock = threading.Lock()
        if self._shared:
            self.lost_step()
