"""The journal in a file of SQLite, for the processes of one machine.

A lock on a file says who drains: the system takes it from a process that is gone, at once, and leaves it to one that
hangs. So no clock decides who may write.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from aurelis.cache._clock import Clock
from aurelis.cache._forking import renew_in_children
from aurelis.cache._keys import escape
from aurelis.cache.layers._sqlite_file import Connection, SqliteFile, open_private, require_sound, try_lock
from aurelis.cache.layers._transactions import Transactions

from . import _rows as rows
from ._journal import Appended, Backlog, Failure, Letter, Outcome, Ticket

_LOG = logging.getLogger("aurelis.cache")

_PATIENCE: Final = 5.0
"""Seconds that one process waits for the transaction of another."""


class _JournalFile(SqliteFile):
    """A file that holds what exists nowhere else."""

    def _found(self, connection: Connection, *, alone: bool, fresh: bool) -> None:
        if fresh:
            _sync(self.folder)
        elif alone:
            require_sound(connection)

    def _warn(self, why: str, aside: str) -> None:
        _LOG.error(
            "write-behind: the journal %s cannot be used (%s); it is kept as %s, with writes that are perhaps in no "
            "data store, and a new one begins",
            self.name,
            why,
            aside,
        )


class EmbeddedJournal:
    """A journal in a folder.

    Args:
        folder: made, for nobody else's eyes, when it is not there.
        namespace, name: journals with both in common are the same.
    """

    def __init__(self, folder: str | os.PathLike[str], namespace: str, name: str, clock: Clock) -> None:
        own = hashlib.blake2b(namespace.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        self._path = Path(folder).absolute() / f"writes-1-{escape(name)}-{own}.sqlite3"
        self.place = os.path.realpath(self._path)
        self._clock = clock
        make = partial(_JournalFile, self._path.parent, self._path.name, rows.MARK, rows.SCHEMA, _PATIENCE)
        self._transactions = Transactions(make, "aurelis-writes", _PATIENCE)
        # Its threads refer to what they work for.
        weakref.finalize(self, self._transactions.close)

    async def append(self, key: str, frame: bytes, limit: int) -> Appended | None:
        """See `Journal.append`."""
        now = self._now()
        return await self._transactions.write(lambda connection: rows.append(connection, key, frame, limit, now))

    async def pending(self, key: str) -> bytes | None:
        """See `Journal.pending`."""
        return await self._transactions.read(lambda connection: rows.pending(connection, key))

    async def backlog(self) -> Backlog:
        """See `Journal.backlog`."""
        return await self._transactions.read(rows.backlog)

    async def letters(self, count: int) -> Sequence[Letter]:
        """See `Journal.letters`."""
        return await self._transactions.read(lambda connection: rows.letters(connection, count))

    async def replay(self, keys: Sequence[str] | None, upto: int, count: int) -> Sequence[str]:
        """See `Journal.replay`."""
        now = self._now()
        return await self._transactions.write(lambda connection: rows.replay(connection, keys, upto, count, now))

    def session(self) -> _Session:
        """See `Journal.session`."""
        return _Session(self._transactions, _Turn(self._path.with_name(f"{self._path.name}.turn")), self._now)

    async def aclose(self) -> None:
        """See `Journal.aclose`."""
        await self._transactions.aclose()

    def _now(self) -> int:
        return int(self._clock.time() * 1000)


class _Session:
    """Drains while it has the turn."""

    lease: float | None = None

    def __init__(self, transactions: Transactions, turn: _Turn, now: Callable[[], int]) -> None:
        self._transactions = transactions
        self._turn = turn
        self._now = now

    async def take(self, count: int, interval: float, upto: int) -> Sequence[Ticket]:
        """See `Session.take`. The turn is this session's until it settles what it gets here."""

        def look(connection: Connection) -> list[Ticket]:
            # One that waited in vain for the last look may have got the turn by it.
            self._turn.end()
            # Without the turn first, which is not worth taking for nothing.
            if not rows.ready(connection, count, interval, upto, now) or not self._turn.begin():
                return []
            found: list[Ticket] = []
            try:
                found = rows.ready(connection, count, interval, upto, now)
            finally:
                if not found:
                    self._turn.end()
            return found

        interval, now = interval * 1000, self._now()
        return await self._transactions.read(look)

    async def renew(self, tickets: Sequence[Ticket]) -> bool:
        """See `Session.renew`."""
        return True

    async def settle(self, written: Sequence[Ticket], failed: Sequence[Failure]) -> Outcome:
        """See `Session.settle`."""
        now = self._now()
        try:
            return await self._transactions.write(lambda connection: rows.settle(connection, written, failed, now))
        finally:
            self._turn.end()

    async def leave(self) -> None:
        """See `Session.leave`."""
        self.abandon()

    def abandon(self) -> None:
        """See `Session.abandon`."""
        self._turn.close()


class _Turn:
    """A lock that one session of all processes has at a time, and that ends with its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor = -1
        self._closed = False
        renew_in_children(self)

    def after_fork(self) -> None:
        """A copy of the parent's would keep the turn after the parent is gone."""
        self._lock = threading.Lock()
        self.close()

    def begin(self) -> bool:
        """Take the turn; false if somebody else has it, or it was closed meanwhile."""
        with self._lock:
            if self._closed:
                return False
            if self._descriptor >= 0 and not self._is_current():
                os.close(self._descriptor)
                self._descriptor = -1
            if self._descriptor < 0:
                self._descriptor = open_private(self._path)
            if not try_lock(self._descriptor, fcntl.LOCK_EX):
                return False
            if not self._is_current():  # removed meanwhile, and others lock another one
                os.close(self._descriptor)
                self._descriptor = -1
            return self._descriptor >= 0

    def end(self) -> None:
        """Give it back, if it is had."""
        with self._lock:
            if self._descriptor >= 0:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give it back, and take it never again."""
        with self._lock:
            self._closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _is_current(self) -> bool:
        """Whether the file is still the one that others would lock."""
        own = os.fstat(self._descriptor)
        try:
            found = os.stat(self._path)
        except OSError:
            return False
        return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
