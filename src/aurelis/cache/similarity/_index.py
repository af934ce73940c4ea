"""Which prompts were answered, as entries of the cache itself, so that all processes share it.

A prompt is an entry of its own, with its vector if there is one, under the digest of the prompt. A partition, which is
what must be equal, has sixteen lists of such digests, each an entry that is replaced when a prompt is added. So adding
one moves a few kB, whatever the size of the partition. Two processes that replace a list at the same moment may lose
one prompt of it, which then is not found as similar until it is stored again, or its process adds another one.
An answer is looked for under its own key in any case, so what is listed here and gone there serves nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from aurelis.cache._canonical import digest
from aurelis.cache._forking import renew_in_children
from aurelis.cache._keys import CacheKeyBuilder

from ._shelf import Shelf, Shelved
from ._vectors import packed, unpacked
from ._verified import MAX_OBSERVATIONS, Observation
from ._view import RETRY, Row, View, Views
from ._wording import Reading, read

if TYPE_CHECKING:
    from ._vectors import Vector

PROMPTS: Final = "similar_prompts"
"""Category of prompts and of lists of them."""
EVIDENCE: Final = "similar_evidence"
"""Category of what was seen of answers that were compared."""
VECTORS: Final = "similar_vectors"
"""Category of vectors of prompts that were asked."""
SLOTS: Final = 16
_NAME_BYTES: Final = 16
_BATCH: Final = 128
_RECENT: Final = 10.0
"""Seconds in which another process may have lost what this one has added."""


def name_of(prompt: str) -> bytes:
    """The digest that stands for a prompt."""
    return bytes.fromhex(digest(prompt))


class Index:
    """The prompts of one cache.

    Args:
        views: what this process has at hand; only this class looks into them.
        max_entries: of a partition; beyond that the oldest go.
        max_bytes: of all views.
    """

    def __init__(self, shelf: Shelf, keys: CacheKeyBuilder, views: Views, *, max_entries: int, max_bytes: int) -> None:
        self._shelf = shelf
        self._keys = keys
        self._views = views
        self._max_names = max(1, max_entries // SLOTS)
        self._max_bytes = max_bytes
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """A thread that does not exist here may have been changing a view."""
        self._lock = threading.Lock()
        self._views.clear()

    async def brought_in_line(self, partition: str) -> None:
        """Have the view of a partition hold what the cache lists."""
        found = await self._shelf.read([self._slot_key(partition, slot) for slot in range(SLOTS)])
        slots = tuple(_listed(found.get(self._slot_key(partition, slot))) for slot in range(SLOTS))
        now = self._shelf.now()
        with self._lock:
            view = self._views.of(partition)
            view.expire(now)
            if view.slots == slots and all(now < until for until in view.gone.values()):
                return
            names = dict.fromkeys(name for slot in slots for name in _names(slot))
            for name in [name for name in view.rows if name not in names and not _is_recent(view, name, now)]:
                view.discard(name)
            view.gone = {name: until for name, until in view.gone.items() if name in names and now < until}
            missing = [name for name in reversed(names) if name not in view.rows and name not in view.gone]
        for begin in range(0, len(missing), _BATCH):
            await self._fetch(partition, missing[begin : begin + _BATCH], missing[begin + _BATCH :])
            await asyncio.sleep(0)  # so many prompts take a moment to read
        with self._lock:
            self._views.of(partition).slots = slots
            self._views.shrink(self._shelf.now())

    def nearest(
        self, partition: str, reading: Reading, vector: Vector | None, count: int, least: float
    ) -> list[tuple[Row, float]]:
        """So many prompts at most that are at least so similar, the most similar first."""
        with self._lock:
            return self._views.of(partition).nearest(reading, vector, count, least)

    async def add(
        self,
        partition: str,
        prompt: str,
        vector: Vector | None,
        life: float,
        tags: Sequence[str],
        partition_tags: Sequence[str],
    ) -> None:
        """List a prompt whose answer lives for so many seconds.

        Args:
            tags: of the answer.
            partition_tags: of all answers of the partition.
        """
        name, now = name_of(prompt), self._shelf.now()
        await self._shelf.keep(
            self._prompt_key(partition, name), (prompt, b"" if vector is None else packed(vector)), life, tags
        )
        row = Row(name, prompt, read(prompt), vector, tuple(tags), now + life)
        with self._lock:
            view = self._views.of(partition)
            view.add(row)
            view.recent = {name: at for name, at in view.recent.items() if now - at < _RECENT}
            view.recent[name] = now
            self._views.shrink(now)
        slot = name[0] % SLOTS
        key = self._slot_key(partition, slot)
        shelved = (await self._shelf.read([key])).get(key)
        now = self._shelf.now()
        there = list(_names(_listed(shelved)))
        with self._lock:
            added = [one for one in self._views.of(partition).recent if one[0] % SLOTS == slot and one not in there]
            every = [*there, *added]
            for old in every[: -self._max_names]:
                self._views.of(partition).drop(old)
        left = 0.0 if shelved is None else shelved.expires - now
        if added or left < life:
            await self._shelf.keep(key, b"".join(every[-self._max_names :]), max(left, life), partition_tags)

    def forget(self, partition: str, name: bytes) -> None:
        """A prompt whose answer is gone is not to be found, until its process stores it again."""
        with self._lock:
            view = self._views.of(partition)
            view.discard(name)
            view.gone[name] = self._shelf.now() + RETRY

    # What was seen of an answer

    async def evidence(self, partition: str, name: bytes) -> tuple[Observation, ...]:
        """How often the answer to a prompt was right for another one, and how similar that was."""
        key = self._evidence_key(partition, name)
        shelved = (await self._shelf.read([key])).get(key)
        return () if shelved is None else _observations(shelved.value)

    async def observe(self, partition: str, row: Row, observation: Observation) -> None:
        """Add to it. Of two processes that do so at the same moment one may be lost, whatever it saw."""
        seen = await self.evidence(partition, row.name)
        kept = (*seen, observation)[-MAX_OBSERVATIONS:]
        await self._shelf.keep(self._evidence_key(partition, row.name), kept, row.expires - self._shelf.now(), row.tags)

    async def _fetch(self, partition: str, names: Sequence[bytes], later: Iterable[bytes]) -> None:
        keys = {self._prompt_key(partition, name): name for name in names}
        found = await self._shelf.read(keys)
        rows = [row for key, name in keys.items() if (row := _row(name, found.get(key))) is not None]
        until = self._shelf.now() + RETRY
        with self._lock:
            view = self._views.of(partition)
            for row in rows:
                if view.size + row.size <= self._max_bytes:
                    view.add(row)
            view.gone.update((name, until) for name in names if name not in view.rows)
            if len(rows) == len(names) and rows and rows[-1].name not in view.rows:  # there is no room for more
                view.gone.update((name, until) for name in later)

    def _slot_key(self, partition: str, slot: int) -> str:
        return self._keys.build_key(PROMPTS, f"{partition}-{slot}")

    def _prompt_key(self, partition: str, name: bytes) -> str:
        return self._keys.build_key(PROMPTS, f"{partition}-{name.hex()}")

    def _evidence_key(self, partition: str, name: bytes) -> str:
        return self._keys.build_key(EVIDENCE, f"{partition}-{name.hex()}")


def _is_recent(view: View, name: bytes, now: float) -> bool:
    return now - view.recent.get(name, -_RECENT) < _RECENT


def _listed(shelved: Shelved | None) -> bytes:
    value = None if shelved is None else shelved.value
    return value if isinstance(value, bytes) and not len(value) % _NAME_BYTES else b""


def _names(listed: bytes) -> Iterable[bytes]:
    return (listed[at : at + _NAME_BYTES] for at in range(0, len(listed), _NAME_BYTES))


def _row(name: bytes, shelved: Shelved | None) -> Row | None:
    """What a prompt's entry says; `None`: it is none."""
    match shelved:
        case Shelved(value=(str(prompt), bytes(data))) if name_of(prompt) == name:
            vector = unpacked(data) if data else None
            return Row(name, prompt, read(prompt), vector, shelved.tags, shelved.expires)
        case _:
            return None


def _observations(value: object) -> tuple[Observation, ...]:
    if not isinstance(value, tuple):
        return ()
    pairs = (pair for pair in value if isinstance(pair, tuple) and len(pair) == 2)
    return tuple((float(seen), correct) for seen, correct in pairs if isinstance(correct, bool) and 0 <= seen <= 1)
