"""The database of the disk layer as event loops use it: bounded, and tidied with each transaction.

A transaction is done when it is in the journal. Now and then the journal is brought to the disk, after those who waited
have been told.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import Any, Final

from aurelis.cache._clock import Clock
from aurelis.cache.telemetry._cells import Cell

from . import _disk_rows as rows
from ._disk_file import DatabaseFile
from ._sqlite_file import Connection
from ._transactions import Transactions

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


class Database(Transactions):
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
        self._clock = clock
        super().__init__(lambda: DatabaseFile(folder, patience), "aurelis-disk", patience)

    def _begin(self) -> None:
        super()._begin()
        self._written = 0
        self._touched: dict[int, int] = {}
        self._touching = threading.Lock()
        self._looked_at = -_LOOK_EVERY
        self._transactions = 0

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._clock.time() * 1000)

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

    def after_fork(self) -> None:
        """Begin anew, in the child."""
        super().after_fork()
        self.evicted.n = self.expired.n = 0

    # In the threads

    def _looked(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked_at >= _LOOK_EVERY and self._reader.is_open():
            self._looked_at = now
            with contextlib.suppress(sqlite3.Error):
                self.entries, self.bytes, _ = rows.totals(self._reader.connection())

    def _committed(self, connection: Connection, completed: Any) -> None:  # `Any`: what `_complete` returns
        evicted, expired = completed
        self.evicted.n += evicted
        self.expired.n += expired
        self._give_back(connection)

    def _rest(self) -> None:
        if self._written >= _JOURNAL and self._writer.is_open():
            self._written = 0
            with contextlib.suppress(sqlite3.Error):  # the journal waits a little longer
                self._writer.connection().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _complete(self, connection: Connection) -> tuple[int, int]:
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


def _nothing(connection: Connection) -> None:
    """A transaction without anything of its own."""
