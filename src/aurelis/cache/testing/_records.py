"""What several nodes share in place of a Redis: its records, each command in one step, with expiry by a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aurelis.cache._clock import Clock

_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Record:
    data: bytes
    expires: float


class Records:
    """Byte strings under names, a number that only grows, and who listens.

    Each method is one command of Redis, or one script: nothing comes in between.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.number = 0
        self.subscribers: list[asyncio.Queue[bytes | Exception]] = []
        self._entries: dict[str, _Record] = {}
        self._leases: dict[str, _Record] = {}
        self._tags: dict[str, _Record] = {}

    # Entries

    def get(self, key: str) -> tuple[bytes, int] | None:
        """The frame, and its remaining life in milliseconds; -1: for ever."""
        record = self._alive(self._entries, key)
        if record is None:
            return None
        return record.data, -1 if record.expires == _NEVER else round((record.expires - self.clock.monotonic()) * 1000)

    def set(self, key: str, data: bytes, life: int | None) -> None:
        """Keep a frame for so many milliseconds."""
        self._entries[key] = self._record(data, life)

    def unlink(self, key: str) -> bool:
        """Forget an entry; whether it was there."""
        there = self._alive(self._entries, key) is not None
        self._entries.pop(key, None)
        return there

    def keys(self) -> list[str]:
        """The keys of the entries."""
        return [key for key in list(self._entries) if self._alive(self._entries, key) is not None]

    def forget_entries(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    # Leases

    def lease(self, key: str) -> bytes:
        """The token; empty: nobody loads the key."""
        record = self._alive(self._leases, key)
        return b"" if record is None else record.data

    def leases(self) -> dict[str, bytes]:
        """All tokens by key."""
        return {key: token for key in list(self._leases) if (token := self.lease(key))}

    def elect(self, key: str, token: bytes, life: int, own: bytes, *, again: bool) -> tuple[bytes, int] | bytes:
        """What is stored and its life, or the token of who loads: the asker if it is free, or held by its own node."""
        if not again and (found := self.get(key)) is not None:
            return found
        holder = self.lease(key)
        if not holder or holder.startswith(own):
            self._leases[key] = self._record(token, life)
            return token
        return holder

    def renew(self, key: str, token: bytes, life: int) -> bool:
        """Let the lease last, if the token is right."""
        if self.lease(key) != token:
            return False
        self._leases[key] = self._record(token, life)
        return True

    def release(self, key: str, token: bytes | None = None) -> None:
        """End the lease, if the token is right, or whatever it is."""
        if token is None or self.lease(key) == token:
            self._leases.pop(key, None)

    # Generations

    def present(self) -> int:
        """The number. One that was lost begins with the time in microseconds."""
        self.number = self.number or int(self.clock.time() * 1_000_000)
        return self.number

    def tick(self, floor: int) -> int:
        """The next number, above the floor."""
        self.number = max(self.present(), floor) + 1
        return self.number

    def bump(self, tag: str, number: int, soft: bool, life: int) -> None:
        """Give the tag this number."""
        hard, soft_before = self.generation(tag) or (0, 0)
        record = (hard or number, number) if soft else (number, soft_before)
        self._tags[tag] = self._record(b"%d:%d" % record, life)

    def ensure(self, tag: str, number: int, life: int) -> tuple[int, int]:
        """The record of the tag; one that has none gets this number."""
        known = self.generation(tag) or (number, 0)
        self._tags[tag] = self._record(b"%d:%d" % known, life)
        return known

    def generation(self, tag: str) -> tuple[int, int] | None:
        """The last hard and soft number of the tag."""
        record = self._alive(self._tags, tag)
        if record is None:
            return None
        hard, _, soft = record.data.partition(b":")
        return int(hard), int(soft)

    def tags(self) -> list[str]:
        """The tags that have a record."""
        return [tag for tag in list(self._tags) if self._alive(self._tags, tag) is not None]

    def forget_tags(self, tags: Sequence[str]) -> None:
        """Lose the records of these tags."""
        for tag in tags:
            self._tags.pop(tag, None)

    # Messages

    def tell(self, number: int, word: bytes) -> None:
        """Send a message to all who listen."""
        for subscriber in self.subscribers:
            subscriber.put_nowait(b"%d %b" % (number, word))

    def _record(self, data: bytes, life: int | None) -> _Record:
        return _Record(data, _NEVER if life is None else self.clock.monotonic() + life / 1000)

    def _alive(self, records: dict[str, _Record], name: str) -> _Record | None:
        record = records.get(name)
        if record is None or record.expires <= self.clock.monotonic():
            records.pop(name, None)
            return None
        return record
