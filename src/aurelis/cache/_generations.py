"""Which entries are older than an invalidation.

Invalidations are numbered: each gets the next *generation*. An entry notes the highest generation that was known
before its value began to be loaded, a tag the generation of its last invalidation. An entry is out of date when one of
its tags has a higher generation, however many entries the tag has. No clock is involved.

With a layer that processes share, generations come from there; what is known of them here is a copy. A tag that is not
known must be asked for, and a tag that has no record there gets a new generation, so whatever was stored before is out
of date: a lost record makes a miss, never a wrong answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ._clock import Clock

Verdict = Literal["valid", "soft", "invalid", "unknown"]

_MAX_KNOWN: Final = 100_000
_NEVER = (0, 0)


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

    Attributes:
        mark: changes whenever an entry in memory may have become out of date.
        latest: the highest generation seen.
        in_step: whether word of each invalidation elsewhere arrives here.
        pending: tags whose invalidation the shared layer has not been told yet: nothing with one of them is valid.
    """

    def __init__(self, clock: Clock, *, shared: bool, trust: float) -> None:
        self.mark = 0
        self.latest = 0
        self.in_step = False
        self.pending: frozenset[str] = frozenset()
        self._shared = shared
        self._trust = trust
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}  # the longest known first
        self._floor = 0  # where this is the truth: entries below it may have had a tag that is forgotten by now
        self._verify_before = 0

    def unknown(self, tags: Iterable[str]) -> list[str]:
        """Those that have to be asked for before an entry with them can be judged."""
        if not self._shared:
            return []
        limit = float("-inf") if self.in_step else self._clock.monotonic() - self._trust
        known = self._known
        return [tag for tag in tags if (record := known.get(tag)) is None or record.learned < limit]

    def judge(self, generation: int, tags: Sequence[str]) -> Verdict:
        """Whether a value of that generation is out of date; `unknown`: some of the tags have to be asked for first."""
        if self.pending and not self.pending.isdisjoint(tags):
            return "invalid"
        verdict: Verdict = "valid"
        limit = float("-inf") if self.in_step or not self._shared else self._clock.monotonic() - self._trust
        for tag in tags:
            record = self._known.get(tag)
            if record is None:
                if self._shared:
                    return "unknown"
                if generation < self._floor:
                    return "invalid"
            elif record.learned < limit:
                return "unknown"
            elif record.hard > generation:
                return "invalid"
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
        now = self._clock.monotonic()
        with self._lock:
            for tag in tags:
                if self._shared and soft and tag not in self._known:
                    continue  # that there was a hard one is not known either, so it must be asked for
                hard, was_soft = (record.hard, record.soft) if (record := self._known.get(tag)) else _NEVER
                if soft:
                    was_soft = max(was_soft, generation)
                else:
                    hard = max(hard, generation)
                self._keep(tag, _Known(hard, was_soft, now))
            self.latest = max(self.latest, generation)
            self.mark += 1

    def invalidate_here(self, tags: Iterable[str], *, soft: bool) -> None:
        """An invalidation where this is the truth."""
        with self._lock:
            generation = self.latest + 1
        self.invalidated(tags, generation, soft=soft)

    def saw(self, generation: int) -> None:
        """Somebody has mentioned this generation."""
        if generation > self.latest:
            with self._lock:
                self.latest = max(self.latest, generation)

    def lost_step(self) -> None:
        """Word of invalidations may have been lost: nothing that is known or in memory can be relied on."""
        with self._lock:
            self.in_step = False
            self._known.clear()
            self.mark += 1
            self._verify_before = self.mark

    def _keep(self, tag: str, record: _Known) -> None:
        self._known.pop(tag, None)
        if len(self._known) >= _MAX_KNOWN:
            forgotten = self._known.pop(next(iter(self._known)))
            self._floor = max(self._floor, forgotten.hard, forgotten.soft)
        self._known[tag] = record

    def after_fork(self) -> None:
        """A thread of the parent may have held the lock, and nobody listens for this process yet."""
        self._lock = threading.Lock()
        self.lost_step()
