"""Memory, seen through what is known of invalidations: what of it still counts, and what may be put there."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ._changes import Changes
from ._clock import Clock
from ._entry import NO_DETAILS, Entry
from ._generations import Generations
from ._packing import Keep, Packed
from ._tags import implied
from ._ttl_policy import refresh_from
from .codecs import size_of
from .layers.memory import MemoryBackend
from .telemetry import names
from .telemetry._cells import Cell

_STRIPES = 256
_NEVER = -math.inf


@dataclass(slots=True)
class Found:
    """An entry, and the layer that had it."""

    entry: Entry
    layer: str


class FirstLayer:
    """What this process has at hand. Nothing here waits for anybody else.

    Args:
        memory: `None`: the cache has none, and nothing is ever found.
        ttl: seconds that memory keeps a value when the caller gives no ttl.
        default_ttl: seconds for which a value is fresh then.
        alone: there is no layer below.
        prefix: what the keys of this namespace begin with.

    Attributes:
        changes: what has become of keys while something about them was on its way.
        invalidated: how many entries went on request, or since they were found to be out of date.
        note_size: is told the size of what is stored, in bytes.
    """

    def __init__(
        self,
        memory: MemoryBackend | None,
        generations: Generations,
        clock: Clock,
        *,
        ttl: float,
        default_ttl: float,
        alone: bool,
        prefix: str,
    ) -> None:
        self.memory = memory
        self.generations = generations
        self.changes = Changes()
        self.invalidated = Cell()
        self.note_size: Callable[[int], None] = _ignore
        self._clock = clock
        self._ttl = ttl
        self.default_ttl = default_ttl
        self._alone = alone
        self._prefix = prefix
        # A removal changes the number of its stripe. A value that was read below before it is not promoted after it.
        self._removals = [0] * _STRIPES

    def state(self, key: str) -> object:
        """Changes when the key, or anything by a tag, is changed or invalidated."""
        return self.removals(key), self.generations.mark

    def removals(self, key: str) -> int:
        """Changes when the key is changed or removed."""
        return self._removals[hash(key) % _STRIPES]

    def is_invalid(self, key: str, entry: Entry) -> bool:
        """Whether an invalidation has overtaken the entry, as far as is known."""
        return self.generations.judge(entry.generation, self.tags(key, entry)) == "invalid"

    def peek(self, key: str, now: float | None = None) -> Entry | None:
        """What memory holds and no invalidation has overtaken, without waiting. It may be stale.

        Args:
            now: the caller's, if it will compare with it.
        """
        if self.memory is None:
            return None
        entry = self.memory.peek(key)
        if entry is None or entry.mark == self.generations.mark:
            return entry
        mark = self.generations.mark
        if self.generations.must_verify(entry.mark):
            return None
        verdict = self.generations.judge(entry.generation, self.tags(key, entry))
        if verdict == "valid":
            entry.mark = mark
            return entry
        if verdict == "soft":
            return self.aged(entry, now)
        if verdict == "invalid" and self.memory.drop(key, entry):
            self.invalidated.n += 1
        return None

    def implied(self, key: str) -> tuple[str, ...]:
        """The tags that follow from a key of this namespace."""
        return implied(key, self._prefix)

    def tags(self, key: str, entry: Entry) -> tuple[str, ...]:
        """All tags of an entry."""
        return implied(key, self._prefix) + entry.details.tags

    def remember(self, values: Mapping[str, Packed], keep: Keep, generation: int, mark: int) -> Collection[str]:
        """Keep values that were set or loaded; returns the keys of those that are too large.

        Args:
            mark: that of the generations before anything was asked.
        """
        if self.memory is None:
            return ()
        now = self._clock.monotonic()
        fresh_until = now + (self.default_ttl if keep.ttl is None else keep.ttl)
        expires = min(fresh_until + keep.stale_for, now + self._life(keep))
        until = min(expires, refresh_from(fresh_until, keep.details.lead, keep.details.spread, keep.chance))
        large: list[str] = []
        for key, packed in values.items():
            entry = _memory_entry(key, packed, fresh_until, expires)
            entry.generation, entry.details, entry.until, entry.mark = generation, keep.details, until, mark
            if self.generations.judge(generation, self.tags(key, entry)) != "valid":
                entry.mark = -1  # overtaken meanwhile, or a tag that must be asked for: the first reader finds out
            self.note_size(entry.size)
            if not self.memory.put(key, entry):
                large.append(key)
        return large

    def promote(self, key: str, entry: Entry, removals: int, mark: int, memory_ttl: float = math.inf) -> None:
        """Keep an entry that was found below, with what is left of its life, unless something has changed meanwhile.

        Args:
            removals: `removals` of the key before the layer below was asked.
            mark: that of the generations then.
            memory_ttl: seconds at most.
        """
        details = entry.details
        until = entry.fresh_until
        if details is not NO_DETAILS:
            until = refresh_from(until, details.lead, details.spread, 1.0 - random.random())
        entry.until = until
        if self.memory is None:
            return
        stripe = hash(key) % _STRIPES
        now = self._clock.monotonic()
        expires = min(entry.expires, now + min(memory_ttl, self._ttl))
        value = entry.value if entry.payload is None else None
        until = min(until, expires)
        before = self.memory.peek(key) if key in self.memory.entries else None
        if (
            before is not None
            and before.mark >= 0
            and ((usable := self.peek(key, now)) is None or usable.fresh_until <= now < until)
        ):
            self.memory.drop(key, before)  # otherwise each request would go below until it expires
        # If absent: what a concurrent `set` put there is newer than what was read below.
        promoted = Entry(
            value, entry.payload, entry.fresh_until, expires, entry.size, entry.generation, details, until, mark
        )
        self.memory.put_if_absent(key, promoted, valid=lambda: self._removals[stripe] == removals)

    def rearm(self, key: str, entry: Entry, retry_at: float) -> None:
        """Keep a stale entry in memory, and don't try to refresh it before that instant."""
        if self.memory is not None:
            expires = min(entry.expires, self._clock.monotonic() + self._ttl)
            details = replace(entry.details, retry_at=retry_at)
            mark = self.generations.mark
            verdict = self.generations.judge(entry.generation, self.tags(key, entry))
            if verdict == "invalid":
                return
            if verdict == "soft":
                entry = self.aged(entry)
            until = min(retry_at, entry.fresh_until, expires)
            self.memory.put(key, replace(entry, expires=expires, details=details, until=until, mark=mark))

    def in_need(self, key: str) -> Found | None:
        """What there is while no shared layer answers."""
        # No shared layer can say whether it was invalidated elsewhere. Its life in memory is the bound for that.
        entry = None if self.memory is None else self.memory.peek(key)
        if entry is None:
            return None
        verdict = self.generations.judge(entry.generation, self.tags(key, entry), in_need=True)
        if verdict == "invalid":
            return None
        return Found(self.aged(entry) if verdict == "soft" else entry, names.L1)

    def _life(self, keep: Keep) -> float:
        if self._alone:
            return (self._ttl if keep.ttl is None else keep.ttl) + keep.stale_for
        cap = self._ttl if keep.memory_ttl is None else min(keep.memory_ttl, self._ttl)
        return cap if keep.ttl is None else min(keep.ttl + keep.stale_for, cap)

    # Forgetting

    def forget(self, key: str, change: float = math.inf) -> bool:
        """Forget the key in memory; true if it was there.

        Args:
            change: the generation of the change; inf: not known.
        """
        self.changes.note((key,), change)
        self._removals[hash(key) % _STRIPES] += 1
        gone = self.memory is not None and self.memory.drop(key)
        if gone:
            self.invalidated.n += 1
        return gone

    def lose(self, key: str, only: Entry | None = None) -> None:
        """Let go of what has been overtaken in memory; of one entry alone, if it is given."""
        if self.memory is not None and self.memory.drop(key, only):
            self.invalidated.n += 1

    def forget_matching(self, matches: Callable[[str], bool]) -> set[str]:
        """Forget all keys that match; returns those that were there."""
        keys = [] if self.memory is None else [key for key in list(self.memory.entries) if matches(key)]
        return {key for key in keys if self.forget(key)}

    async def forget_all(self) -> None:
        """Forget everything."""
        for stripe in range(_STRIPES):
            self._removals[stripe] += 1
        if self.memory is not None:
            gone = self.memory.drop_all()
            self.invalidated.n += gone

    def count_removals(self, keys: Iterable[str]) -> None:
        """What was read below before now is not promoted any more."""
        for key in keys:
            self._removals[hash(key) % _STRIPES] += 1

    def aged(self, entry: Entry, now: float | None = None) -> Entry:
        """The entry as one that is stale."""
        now = self._clock.monotonic() if now is None else now
        return replace(entry, fresh_until=min(entry.fresh_until, now), until=_NEVER)


def _ignore(size: int) -> None:
    """Nobody wants to know."""


def _memory_entry(key: str, packed: Packed, fresh_until: float, expires: float) -> Entry:
    if packed.shared or packed.payload is None:
        return Entry(packed.value, None, fresh_until, expires, len(key) + size_of(packed.value))
    return Entry(None, packed.payload, fresh_until, expires, len(key) + len(packed.payload))
