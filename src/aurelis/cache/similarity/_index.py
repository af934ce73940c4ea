"""Which prompts were answered, as entries of the cache itself, so that all processes share it.

A prompt is an entry of its own, with its vector if there is one, under a digest. A partition, which is
what must be equal, has sixteen lists of such digests, each an entry that is replaced when a prompt is added. So adding
one moves a few kB, whatever the size of the partition. Two processes that replace a list at the same moment may lose
one prompt of it, which then is not found as similar until it is stored again, or its process adds another one.
An answer is looked for under its own key in any case, so what is listed here and gone there serves nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
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
SLOTS: Final = 16
_NAME_BYTES: Final = 16
_BATCH: Final = 128
_COMPARED: Final = 512
"""Prompts that are compared letter by letter before something else may run."""
_LONGEST: Final = 30.0
_RECENT: Final = 10.0
"""Seconds in which another process may have lost what this one has added."""


def name_of(partition: str, prompt: str) -> bytes:
    """The digest that stands for a prompt. In another partition it is another one, by which nobody sees that it is the
    same prompt, and who guesses a prompt must guess all else, too.
    """
    return bytes.fromhex(digest((partition, prompt)))


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

    async def brought_in_line(self, partition: str, timeout: float) -> None:
        """Have the view of a partition hold what the cache lists, or as much of it as is there in time.

        While somebody is at it already, what is there by then has to do.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._bring_in_line(partition, timeout)

    async def _bring_in_line(self, partition: str, timeout: float) -> None:
        keys = [self._slot_key(partition, slot) for slot in range(SLOTS)]
        found = await self._shelf.read(keys)
        slots = tuple(_listed(found.get(key)) for key in keys)
        now = self._shelf.now()
        with self._lock:
            view = self._views.of(partition)
            view.expire(now)
            if now < view.busy or (view.slots == slots and all(now < until for until in view.gone.values())):
                return
            names = dict.fromkeys(name for slot in slots for name in _names(slot))
            for name in [name for name in view.rows if name not in names and not _is_recent(view, name, now)]:
                view.discard(name)
            view.gone = {name: until for name, until in view.gone.items() if name in names and now < until}
            missing = [name for name in reversed(names) if name not in view.rows and name not in view.gone]
            view.busy = now + min(timeout, _LONGEST)  # its event loop may end meanwhile
        try:
            for begin in range(0, len(missing), _BATCH):
                await self._fetch(partition, missing[begin : begin + _BATCH], missing[begin + _BATCH :])
                await asyncio.sleep(0)  # so many prompts take a moment to read
            view.slots = slots
        finally:
            view.busy = -math.inf
            with self._lock:
                self._views.shrink(self._shelf.now())
                self._views.leave(partition)

    async def nearest(
        self, partition: str, reading: Reading, vector: Vector | None, count: int, least: float
    ) -> list[tuple[Row, float]]:
        """So many prompts at most that are at least so similar, the most similar first.

        Args:
            vector: of the prompt; `None`: letters are compared.
        """
        with self._lock:
            view = self._views.known(partition)
            if view is None:
                return []
            if vector is not None:
                return view.nearest(vector, count, least)
            texts = list(view.texts.items())
        found: list[tuple[float, bytes]] = []
        for begin in range(0, len(texts), _COMPARED):
            if begin:
                await asyncio.sleep(0)  # comparing holds up all else
            found = sorted([*found, *_ratios(reading.text, dict(texts[begin : begin + _COMPARED]), count, least)])[
                -count:
            ]
        with self._lock:
            return [(view.rows[name], ratio) for ratio, name in reversed(found) if name in view.rows]

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
        name, now = name_of(partition, prompt), self._shelf.now()
        await self._shelf.keep(
            self._prompt_key(partition, name), (prompt, b"" if vector is None else packed(vector)), life, tags
        )
        row = Row(name, prompt, read(prompt), vector, tuple(tags), now + life)
        slot = _slot(name)
        with self._lock:
            view = self._views.of(partition)
            view.add(row)
            recent = view.recent[slot]
            recent.pop(name, None)
            recent[name] = now
            while now - next(iter(recent.values())) >= _RECENT:
                del recent[next(iter(recent))]
            self._views.shrink(now)
        key = self._slot_key(partition, slot)
        shelved = (await self._shelf.read([key])).get(key)
        now = self._shelf.now()
        with self._lock:
            view = self._views.of(partition)
            known = view.slots or (b"",) * SLOTS
            # Where it could not be read, what was read before is better than an empty list.
            there = dict.fromkeys(_names(known[slot] if shelved is None else _listed(shelved)))
            added = [one for one in view.recent[slot] if one not in there]
            every = [*there, *added]
            for old in every[: -self._max_names]:
                view.discard(old)
                view.recent[slot].pop(old, None)
        left = 0.0 if shelved is None else shelved.expires - now
        if added or left < life:
            await self._shelf.keep(key, b"".join(every[-self._max_names :]), max(left, life), partition_tags)

    def forget(self, partition: str, name: bytes) -> None:
        """A prompt whose answer is gone is not to be found, until its process stores it again."""
        with self._lock:
            view = self._views.known(partition)
            if view is not None:
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

    async def forget_evidence(self, partition: str, prompt: str, life: float, tags: Sequence[str]) -> None:
        """What was seen of an answer says nothing of the one that has taken its place."""
        name = name_of(partition, prompt)
        if await self.evidence(partition, name):
            await self._shelf.keep(self._evidence_key(partition, name), (), life, tags)

    async def _fetch(self, partition: str, names: Sequence[bytes], later: Iterable[bytes]) -> None:
        keys = {self._prompt_key(partition, name): name for name in names}
        found = await self._shelf.read(keys)
        rows = [row for key, name in keys.items() if (row := _row(partition, name, found.get(key))) is not None]
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
    return now - view.recent[_slot(name)].get(name, -math.inf) < _RECENT


def _slot(name: bytes) -> int:
    return name[0] % SLOTS


def _ratios(text: str, texts: dict[bytes, str], count: int, least: float) -> list[tuple[float, bytes]]:
    """How much text of both is in common, as difflib's ratio; of so many at most, at least so much."""
    from rapidfuzz import fuzz, process

    found = process.extract(text, texts, scorer=fuzz.ratio, score_cutoff=100.0 * least, limit=count)
    return [(score / 100.0, name) for _, score, name in found]


def _listed(shelved: Shelved | None) -> bytes:
    value = None if shelved is None else shelved.value
    return value if isinstance(value, bytes) and not len(value) % _NAME_BYTES else b""


def _names(listed: bytes) -> Iterable[bytes]:
    return (listed[at : at + _NAME_BYTES] for at in range(0, len(listed), _NAME_BYTES))


def _row(partition: str, name: bytes, shelved: Shelved | None) -> Row | None:
    """What a prompt's entry says; `None`: it is none."""
    match shelved:
        case Shelved(value=(str(prompt), bytes(data))) if name_of(partition, prompt) == name:
            vector = unpacked(data) if data else None
            return Row(name, prompt, read(prompt), vector, shelved.tags, shelved.expires)
        case _:
            return None


def _observations(value: object) -> tuple[Observation, ...]:
    if not isinstance(value, tuple):
        return ()
    pairs = (pair for pair in value if isinstance(pair, tuple) and len(pair) == 2)
    return tuple((float(seen), correct) for seen, correct in pairs if isinstance(correct, bool) and 0 <= seen <= 1)
