"""A file of SQLite as event loops use it: one thread reads, another one writes.

What waits to be written is one transaction. A reader never waits for a writer, of this process or another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

from aurelis.cache._forking import renew_in_children

from ._lane import Job, Lane
from ._sqlite_file import Connection, SqliteFile, is_damage

_LOG = logging.getLogger("aurelis.cache")
T = TypeVar("T")
Work = Callable[[Connection], T]

_FAREWELL: Final = 2.0
"""Seconds that what is under way may take to end when a process forks or exits."""
_GENERAL: Final = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
})  # fmt: skip
"""What does not lie in the work itself, and so would meet all the others in the transaction, too."""
_PASSING: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
"""What says nothing against the connection."""


class Transactions:
    """Reads and writes in one file.

    Args:
        make: makes the file's record, once for each process.
        threads: what the names of the threads begin with.
        patience: seconds for which a transaction waits for other processes.
    """

    def __init__(self, make: Callable[[], SqliteFile], threads: str, patience: float) -> None:
        self._make = make
        self._threads = threads
        self._patience = patience
        self._unsafe = self._unsafe_in_child = False
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        self._file = self._make()
        self._reader, self._writer = _Handle(self._file), _Handle(self._file)
        self._reads = Lane(f"{self._threads}-read", self._run_reads, self._reader.close)
        self._writes = Lane(f"{self._threads}-write", self._run_writes, self._writer.close, self._rest)

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

    async def aclose(self) -> None:
        """Do what waits, end the threads and close the file. It may be used again.

        A thread that hangs in the system is left to itself after a few seconds, and ends when it can.
        """
        try:
            async with asyncio.timeout(self._patience + _FAREWELL):
                await self._reads.finish()
                await self._writes.finish()
        except TimeoutError:
            _LOG.warning("disk: it does not answer, so it is left without being closed")
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

    def _refuse_if_unsafe(self) -> None:
        if self._unsafe:
            raise OSError("the disk hung while this process was forked, so it does not use it")

    # What differs between files; called in the threads

    def _looked(self) -> None:
        """Reads have been done."""

    def _complete(self, connection: Connection) -> object:
        """The last part of each transaction; what it returns is for `_committed`."""
        return None

    def _committed(self, connection: Connection, completed: Any) -> None:
        """A transaction is done, and those who wait do not know it yet."""

    def _rest(self) -> None:
        """They have been told."""

    # In the threads

    def _run_reads(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.is_given_up() or job.work is None:
                continue
            try:
                connection = job.context.run(self._reader.connection)
                job.result = job.context.run(job.work, connection)
            except Exception as error:  # noqa: BLE001  # it belongs to who waits
                job.context.run(self._reader.failed, error)
                job.error = error
        self._looked()

    def _run_writes(self, jobs: list[Job]) -> None:
        while jobs:
            failing: Job | None = None
            first = jobs[0].context
            try:
                connection = first.run(self._writer.connection)
                connection.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    failing = job
                    if job.work is not None and not job.is_given_up():
                        job.result = job.context.run(job.work, connection)
                failing = None
                completed = self._complete(connection)
                connection.execute("COMMIT")
            except Exception as error:  # noqa: BLE001  # it belongs to who waits
                first.run(self._writer.failed, error)
                if failing is None or _code(error) in _GENERAL or is_damage(error):
                    for job in jobs:
                        job.error = error
                    return
                failing.error = error
                jobs = [job for job in jobs if job is not failing]
            else:
                self._committed(connection, completed)
                return


class _Handle:
    """The connection of one thread, which is opened anew when it is of no use any more."""

    def __init__(self, file: SqliteFile) -> None:
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
