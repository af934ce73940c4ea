"""The database of the disk layer as event loops use it: one thread reads, another one writes.

What waits to be written is one transaction, which is done when it is in the journal. Now and then the journal is
brought to the disk, after those who waited have been told. A reader never waits for a writer, of this process or
another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from aurelis.cache._clock import Clock
from aurelis.cache._forking import renew_in_children
from aurelis.cache.telemetry._cells import Cell

from . import _disk_rows as rows
from ._disk_file import Connection, DatabaseFile, is_damage
from ._lane import Job, Lane

_LOG = logging.getLogger("aurelis.cache")
T = TypeVar("T")
Work = Callable[[Connection], T]

_FAREWELL: Final = 2.0
"""Seconds that what is under way may take to end when a process forks or exits."""
_TOUCHES: Final = 512
"""Rows that were used before that is noted."""
_SWEPT: Final = 32
"""Expired entries that go with each transaction, at most."""
_TIDIED: Final = 200
"""Transactions between two looks at what else may go."""
_LOOK_EVERY: Final = 1.0
"""Seconds for which the totals are believed, for telemetry."""
_FREE_PAGES: Final = 512
_JOURNAL: Final = 16 * 2**20
"""Bytes, approximately, that are written to the journal before it is brought to the disk."""
_PAGE: Final = 4096
_GENERAL: Final = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
})  # fmt: skip
"""What does not lie in the work itself, and so would meet all the others in the transaction, too."""
_PASSING: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
"""What says nothing against the connection."""


class Database:
    """Reads and writes in a folder.

    Args:
        max_size: entries at most.
        max_bytes: bytes at most.
        patience: seconds for which a transaction waits for other processes.

    Attributes:
        entries, bytes: what is in the file, as last seen.
        evicted, expired: entries that went for want of room, and because their life was over.
    """

    def __init__(
        self, folder: str | os.PathLike[str], max_size: int, max_bytes: int, patience: float, clock: Clock
    ) -> None:
        self.max_size = max_size
        self.max_bytes = max_bytes
        self.entries = 0
        self.bytes = 0
        self.evicted = Cell()
        self.expired = Cell()
        self._folder = folder
        self._patience = patience
        self._clock = clock
        self._unsafe = self._unsafe_in_child = False
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        self._file = DatabaseFile(self._folder, self._patience)
        self._reader, self._writer = _Handle(self._file), _Handle(self._file)
        self._reads = Lane("aurelis-disk-read", self._run_reads, self._reader.close)
        self._writes = Lane("aurelis-disk-write", self._run_writes, self._writer.close, self._sync)
        self._written = 0
        self._touched: dict[int, int] = {}
        self._touching = threading.Lock()
        self._looked = -_LOOK_EVERY
        self._transactions = 0

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._clock.time() * 1000)

    def read(self, work: Work[T]) -> asyncio.Future[T]:
        """Have it called with a connection, and see one state of the file."""
        self._refuse_if_unsafe()
        return self._reads.do(work)

    def write(self, work: Work[T]) -> asyncio.Future[T]:
        """Have it called as a part of a transaction, again if another part fails; done when that is committed.

        A caller that is cancelled does not know whether it was done.
        """
        self._refuse_if_unsafe()
        return self._writes.do(work)

    def wrote(self, size: int) -> None:
        """So many bytes are written; to be called while writing."""
        self._written += max(size, _PAGE)

    def touch(self, n: int, now: int) -> None:
        """A row was used; to be called while reading."""
        with self._touching:
            self._touched[n] = now
            full = len(self._touched) == _TOUCHES
        if full:
            self._writes.tell(_nothing)

    async def aclose(self) -> None:
        """Do what waits, end the threads and close the file. It may be used again.

        A thread that hangs in the system is left to itself after a few seconds, and ends when it can.
        """
        try:
            async with asyncio.timeout(self._patience + _FAREWELL):
                await self._reads.finish()
                await self._writes.finish()
        except TimeoutError:
            _LOG.warning("disk: it does not answer, so the cache is closed without it")
            return
        self._leave()

    def close(self) -> None:
        """The same for who has no event loop, within a few seconds."""
        if self._reads.stop(_FAREWELL) and self._writes.stop(_FAREWELL):
            self._leave()

    def _leave(self) -> None:
        if not (self._reads.is_running() or self._writes.is_running()):
            self._file.leave()

    # Forking: SQLite's locks are the process's, so a child must inherit no connection and no lock in its library.

    def before_fork(self) -> None:
        """Close all connections, and open none before the fork is over."""
        reads, writes = self._reads.pause(_FAREWELL), self._writes.pause(_FAREWELL)
        self._unsafe_in_child = not (reads and writes)
        if not self._unsafe_in_child:
            self._file.leave()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._reads.go_on()
        self._writes.go_on()

    def after_fork(self) -> None:
        """Begin anew, in the child. What the parent was to do, the parent does."""
        self._inherited = (self._file, self._reader, self._writer, self._reads, self._writes)  # never to be closed here
        self._unsafe |= self._unsafe_in_child
        self._begin()
        self.evicted.n = self.expired.n = 0

    def _refuse_if_unsafe(self) -> None:
        if self._unsafe:
            raise OSError("the disk hung while this process was forked, so it does not use it")

    # In the threads

    def _run_reads(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.is_given_up() or job.work is None:
                continue
            try:
                connection = self._reader.connection()
                job.result = job.work(connection)
            except Exception as error:  # noqa: BLE001  # it belongs to who waits
                self._reader.failed(error)
                job.error = error
        now = self._clock.monotonic()
        if now - self._looked >= _LOOK_EVERY and self._reader.is_open():
            self._looked = now
            with contextlib.suppress(sqlite3.Error):
                self.entries, self.bytes, _ = rows.totals(self._reader.connection())

    def _run_writes(self, jobs: list[Job]) -> None:
        while jobs:
            failing: Job | None = None
            try:
                connection = self._writer.connection()
                connection.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    failing = job
                    if job.work is not None and not job.is_given_up():
                        job.result = job.work(connection)
                failing = None
                evicted, expired = self._make_room(connection)
                connection.execute("COMMIT")
            except Exception as error:  # noqa: BLE001  # it belongs to who waits
                self._writer.failed(error)
                if failing is None or _code(error) in _GENERAL or is_damage(error):
                    for job in jobs:
                        job.error = error
                    return
                failing.error = error
                jobs = [job for job in jobs if job is not failing]
            else:
                self.evicted.n += evicted
                self.expired.n += expired
                self._give_back(connection)
                return

    def _sync(self) -> None:
        if self._written >= _JOURNAL and self._writer.is_open():
            self._written = 0
            with contextlib.suppress(sqlite3.Error):  # the journal waits a little longer
                self._writer.connection().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _make_room(self, connection: Connection) -> tuple[int, int]:
        now = self.now()
        if self._touched:
            with self._touching:
                touched, self._touched = self._touched, {}
            rows.touch(connection, [(at, n) for n, at in touched.items()])
        expired = rows.drop_expired(connection, now, _SWEPT)
        self._transactions += 1
        if self._transactions % _TIDIED == 1:
            rows.tidy(connection, now, self.max_size * 2 + 10_000)
        entries, size, _ = rows.totals(connection)
        evicted = 0
        if entries > self.max_size or size > self.max_bytes:
            expired += rows.drop_expired(connection, now, -1)
            entries, size, _ = rows.totals(connection)
            evicted = rows.drop_unused(connection, entries - self.max_size, size - self.max_bytes)
            entries, size, _ = rows.totals(connection)
        self.entries, self.bytes = entries, size
        return evicted, expired

    def _give_back(self, connection: Connection) -> None:
        if self._transactions % _TIDIED == 1:
            with contextlib.suppress(sqlite3.Error):  # another time
                (free,) = connection.execute("PRAGMA freelist_count").fetchone()
                if free > _FREE_PAGES:
                    # As a script, of which all steps are taken: each frees a page.
                    connection.executescript(f"PRAGMA incremental_vacuum({free // 2})")


class _Handle:
    """The connection of one thread, which is opened anew when it is of no use any more."""

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self._connection: Connection | None = None
        self._identity = (-1, -1)

    def is_open(self) -> bool:
        return self._connection is not None

    def connection(self) -> Connection:
        """A connection to the file that is there now."""
        if self._connection is None or not self._file.is_current(self._identity):
            self.close()
            self._connection = self._file.connect()
            self._identity = self._connection.file
        return self._connection

    def failed(self, error: Exception) -> None:
        """Something went wrong: leave the transaction, and leave the file if it is damaged."""
        connection = self._connection
        if connection is None:
            return
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if is_damage(error):
            self.close()
            self._file.set_aside(self._identity, str(error))
        elif isinstance(error, sqlite3.Error) and _code(error) not in _PASSING:
            self.close()

    def close(self) -> None:
        """Close it, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _code(error: BaseException) -> int:
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF


def _nothing(connection: Connection) -> None:
    """A transaction without anything of its own."""
