"""The file of the disk layer, which notes whether the last process that used it has left in order."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from ._sqlite_file import Connection, SqliteFile, require_sound

_LOG = logging.getLogger("aurelis.cache")

NAME: Final = "cache-1.sqlite3"
"""The number is the version of what is in it: another version has another file."""
_MARK: Final = 0x41754361
"""`AuCa`, by which the file says whose it is."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_SCHEMA: Final = f"""
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN;
PRAGMA application_id = {_MARK};
CREATE TABLE entries (
    n INTEGER PRIMARY KEY, scope INTEGER NOT NULL, key BLOB NOT NULL, size INTEGER NOT NULL,
    expires INTEGER NOT NULL, used INTEGER NOT NULL, stored INTEGER NOT NULL, frame BLOB NOT NULL
);
CREATE UNIQUE INDEX entries_by_key ON entries (scope, key);
CREATE INDEX entries_by_expiry ON entries (expires);
CREATE INDEX entries_by_use ON entries (used);
CREATE TABLE numbers (scope INTEGER PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE leases (
    scope INTEGER NOT NULL, key BLOB NOT NULL, token BLOB NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE TABLE tags (
    scope INTEGER NOT NULL, tag BLOB NOT NULL, hard INTEGER NOT NULL, soft INTEGER NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (scope, tag)
) WITHOUT ROWID;
CREATE INDEX tags_by_use ON tags (seen);
CREATE TABLE words (
    n INTEGER PRIMARY KEY AUTOINCREMENT, scope INTEGER NOT NULL, at INTEGER NOT NULL, word BLOB NOT NULL
);
CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL, tags INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
CREATE TABLE state (boot TEXT NOT NULL, in_order INTEGER NOT NULL);
INSERT INTO state VALUES ('', 0);
CREATE TRIGGER entry_in AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER entry_changed AFTER UPDATE OF size ON entries WHEN NEW.size <> OLD.size BEGIN
    UPDATE totals SET bytes = bytes + NEW.size - OLD.size;
END;
CREATE TRIGGER entry_out AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size;
END;
CREATE TRIGGER tag_in AFTER INSERT ON tags BEGIN UPDATE totals SET tags = tags + 1; END;
CREATE TRIGGER tag_out AFTER DELETE ON tags BEGIN UPDATE totals SET tags = tags - 1; END;
PRAGMA user_version = 1;
COMMIT;
"""
# The frame comes last, so that what stands before it is read and changed without it.


class DatabaseFile(SqliteFile):
    """The cache on disk, which may be forgotten."""

    kept = 1
    pages = 16_000  # the layer brings the journal to the disk long before, when nobody waits for it

    def __init__(self, folder: str | os.PathLike[str], patience: float) -> None:
        super().__init__(folder, NAME, _MARK, _SCHEMA, patience)

    def _found(self, connection: Connection, *, alone: bool, fresh: bool) -> None:
        if not alone:
            return
        boot, in_order = connection.execute("SELECT boot, in_order FROM state").fetchone()
        if not in_order and not fresh:
            require_sound(connection)
            if boot != _boot():
                # The machine stopped while it was in use. What was changed last may not have reached the disk, and
                # what an invalidation was to remove would be back.
                _LOG.warning("disk: the machine stopped while the cache was in use; it begins empty")
                for table in ("entries", "tags", "leases", "words", "numbers"):
                    connection.execute(f"DELETE FROM {table}")
        _note(connection, in_order=False)

    def _left(self, connection: Connection) -> None:
        _note(connection, in_order=True)

    def _how(self) -> str:
        # Without a way to tell that the machine has stopped, all must be on the disk at once.
        return f"PRAGMA synchronous = {'NORMAL' if _boot() else 'FULL'}"


def _note(connection: sqlite3.Connection, *, in_order: bool) -> None:
    # Before anything else is written, and after everything: on the disk, and not only on its way there.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("UPDATE state SET boot = ?, in_order = ?", (_boot(), in_order))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _boot() -> str:
    """What changes when the machine is started again."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
