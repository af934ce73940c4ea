"""What a journal of writes is, whatever keeps it.

A journal has at most one write for each key: the newest, with the number of those that it stands for. So a key is in
one of three states, and there is one *ticket* for it, whoever has that:

* waiting: for a batch, or for the time of another attempt;
* taken: one session, of all processes, has its ticket and nobody else gets it before that is settled or its holder
  is gone. A newer write meanwhile changes what waits, and makes no second ticket. So the writes of a key reach the
  store one after the other, in their order;
* dead: tried as often as it may be. A newer write takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ticket:
    """A write that a session has taken.

    Attributes:
        key: its full key.
        sequence: its number; a newer write of the key has a higher one.
        frame: what is to be stored; empty: the key is to be deleted.
        attempts: that were in vain so far.
        writes: how many writes it stands for, ≥ 1: itself, and those that it has replaced.
        handle: by which the journal knows the ticket.
    """

    key: str
    sequence: int
    frame: bytes = field(repr=False)
    attempts: int
    writes: int
    handle: bytes = b""


@dataclass(frozen=True, slots=True)
class Appended:
    """A write is in the journal.

    Attributes:
        sequence: its number.
        waiting: keys that are not written yet, this one among them.
    """

    sequence: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is in a journal.

    Attributes:
        waiting: keys that are not written yet, also those that a session has taken.
        dead: dead letters.
        first: no write with a lower number is waiting; `None`: none at all is.
        last: number of the last write of all.
    """

    waiting: int
    dead: int
    first: int | None
    last: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt in vain.

    Attributes:
        ticket: of the write.
        error: type of what the store raised.
        delay: seconds before the next attempt.
        last: there is to be none, unless there is a newer write of the key.
    """

    ticket: Ticket
    error: str
    delay: float
    last: bool


@dataclass(slots=True)
class Outcome:
    """What has become of the tickets of a batch.

    Attributes:
        written: writes that are in the store.
        coalesced: writes that others have replaced before they were written.
        retried: attempts in vain that another one follows.
        buried: keys of the writes that are dead letters now.
    """

    written: int = 0
    coalesced: int = 0
    retried: int = 0
    buried: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it is kept.

    Attributes:
        at: when it was given up; seconds since the Unix epoch.
    """

    key: str
    sequence: int
    frame: bytes = field(repr=False)
    attempts: int
    error: str
    at: float


class Session(Protocol):
    """Takes tickets, one batch at a time, and settles them. Of one task in one event loop.

    Attributes:
        lease: seconds after which others take the tickets of a session that has not renewed them; `None`: others take
            them when this process is gone, and not before.
    """

    lease: float | None

    async def take(self, count: int, interval: float, upto: int) -> Sequence[Ticket]:
        """The next tickets, at most `count`; none if it is not time yet.

        It is time when `count` wait, when one has waited for `interval` seconds, when one is to be tried again, and
        when one waits with a number up to `upto`.
        """
        ...

    async def renew(self, tickets: Sequence[Ticket]) -> bool:
        """Keep the tickets for another `lease`; false if some are lost."""
        ...

    async def settle(self, written: Sequence[Ticket], failed: Sequence[Failure]) -> Outcome:
        """Note what has become of the batch. Tickets that are lost count for whoever has them now."""
        ...

    async def leave(self) -> None:
        """End, in order."""
        ...

    def abandon(self) -> None:
        """End without waiting for anything. After `leave` it does nothing."""
        ...


class Journal(Protocol):
    """A journal, used from several event loops, threads and processes. Raises whatever its medium raises.

    Attributes:
        place: where it is: equal for those that are the same. For this process alone, and never to be shown.
    """

    place: str

    async def append(self, key: str, frame: bytes, limit: int) -> Appended | None:
        """Keep a write for as long as the medium lasts, in place of an earlier one of the key; `None`: it is full.

        Args:
            frame: empty: the key is to be deleted.
            limit: keys that may wait or be dead.
        """
        ...

    async def pending(self, key: str) -> bytes | None:
        """The frame of the write that waits, also one that is taken; `None`: there is none."""
        ...

    async def backlog(self) -> Backlog:
        """What is in it."""
        ...

    async def letters(self, count: int) -> Sequence[Letter]:
        """The oldest dead letters."""
        ...

    async def replay(self, keys: Sequence[str] | None, upto: int, count: int) -> Sequence[str]:
        """Let dead letters wait again as new writes; the keys of those that there were.

        Args:
            keys: whose; `None`: the oldest ones up to the number `upto`, `count` at most.
        """
        ...

    def session(self) -> Session:
        """A session of the running event loop."""
        ...

    async def aclose(self) -> None:
        """Give back connections, threads and files. It may be used again."""
        ...
