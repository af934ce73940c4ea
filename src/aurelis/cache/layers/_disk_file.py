"""The file of the disk layer: made, checked, shared with other processes, and set aside when it is damaged.

Beside it is a lock file. Whoever uses the database holds it shared, so whoever gets it alone knows that nobody else
does, and whether the last one has left in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Final

from aurelis.cache._clock import SYSTEM_CLOCK
from aurelis.cache.exceptions import ConfigurationError

_LOG = logging.getLogger("aurelis.cache")

NAME: Final = "cache-1.sqlite3"
"""The number is the version of what is in it: another version has another file."""
_MARK: Final = 0x41754361
"""`AuCa`, by which the file says whose it is."""
_OLDEST: Final = (3, 35, 0)
"""The first SQLite with all that is used here."""
_LOOK: Final = 0.005
"""Seconds between two looks at a lock."""
_KEPT: Final = 1
"""Damaged files that are kept."""
_numbers = itertools.count(1)
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


class Connection(sqlite3.Connection):
    """A connection that can be told from others.

    Attributes:
        number: unlike that of any other connection of this process.
        file: device and inode of its file.
    """

    number = 0
    file = (-1, -1)


class DatabaseFile:
    """The file in a folder, for all connections of one layer.

    Args:
        folder: made when it is not there.
        patience: seconds to wait for another process at most.
    """

    def __init__(self, folder: str | os.PathLike[str], patience: float) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            needed, found = ".".join(map(str, _OLDEST)), sqlite3.sqlite_version
            raise ConfigurationError(f"a disk layer needs SQLite {needed} or newer, and this Python has {found}")
        self.folder = Path(folder).absolute()
        self.path = self.folder / NAME
        self.patience = patience
        self._lock = threading.Lock()
        self._held = -1  # the lock file, held shared while the database is in use
        self._identity = (-1, -1)

    def connect(self) -> Connection:
        """A connection for the calling thread.

        Raises:
            OSError: the folder cannot be used, or another process is busy with the file for too long.
            sqlite3.Error: SQLite cannot use the file, though it is not damaged.
        """
        with self._lock:
            if self._held < 0 or not self.is_current(self._identity):
                self._prepare()
            connection = self._open()
            connection.number, connection.file = next(_numbers), self._identity
            return connection

    def is_current(self, identity: tuple[int, int]) -> bool:
        """Whether the file is still that one: others may set it aside or remove it while it is in use."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == identity

    def set_aside(self, identity: tuple[int, int], why: str) -> None:
        """Give the damaged file another name, if another process has not done so."""
        with self._lock, contextlib.suppress(OSError), self._door():
            if self.is_current(identity):
                self._rename(why)

    def leave(self) -> None:
        """No connection is open any more. Whoever is the last one notes that all is in order."""
        with self._lock:
            if self._held < 0:
                return
            try:
                with contextlib.suppress(OSError, sqlite3.Error), self._door():
                    if self.is_current(self._identity) and _try_lock(self._held, fcntl.LOCK_EX):
                        connection = self._open()
                        try:
                            _note(connection, in_order=True)
                        finally:
                            connection.close()
            finally:
                os.close(self._held)
                self._held = -1

    # Inside

    @contextlib.contextmanager
    def _door(self) -> Iterator[None]:
        """Only one process at a time opens, closes or renames."""
        descriptor = _open_private(self.folder / f"{NAME}.door")
        try:
            _wait_for_lock(descriptor, fcntl.LOCK_EX, self.patience)
            yield
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        """Make sure that there is a sound file, and hold the lock of those who use it."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._door():
            held = _open_private(self.folder / f"{NAME}.lock")
            try:
                alone = _try_lock(held, fcntl.LOCK_EX)
                if self.path.is_dir():
                    self._rename("it is a directory")
                try:
                    self._check(alone=alone)
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                    self._rename(str(error))
                    self._check(alone=alone)
                _wait_for_lock(held, fcntl.LOCK_SH, self.patience)
            except BaseException:
                os.close(held)
                raise
            self._held = held
            found = os.stat(self.path)
            self._identity = (found.st_dev, found.st_ino)

    def _check(self, *, alone: bool) -> None:
        self._make()
        connection = self._open()
        fresh = False
        try:
            (mark,), (version,) = (
                connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
            )
            if (mark, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
                # Before the journal's mode, which fixes what a new file is like.
                connection.executescript(_SCHEMA)
                fresh = True
            elif (mark, version) != (_MARK, 1):
                raise sqlite3.DatabaseError("it is another program's")
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if not alone:
                return
            boot, in_order = connection.execute("SELECT boot, in_order FROM state").fetchone()
            if not in_order and not fresh:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise sqlite3.DatabaseError("it is damaged")
                if boot != _boot():
                    # The machine stopped while it was in use. What was changed last may not have reached the disk, and
                    # what an invalidation was to remove would be back.
                    _LOG.warning("disk: the machine stopped while the cache was in use; it begins empty")
                    for table in ("entries", "tags", "leases", "words", "numbers"):
                        connection.execute(f"DELETE FROM {table}")
            _note(connection, in_order=False)
        finally:
            connection.close()

    def _make(self) -> None:
        """Make the file, for nobody else's eyes; SQLite gives the journal beside it the same mode."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # Not opened to look at it: closing it again would end the locks of all of this process's connections to it.
            mode = os.lstat(self.path).st_mode
            if stat.S_ISLNK(mode):
                raise OSError(f"{NAME} must not be a symbolic link") from None
            if stat.S_IMODE(mode) != 0o600:
                with contextlib.suppress(PermissionError):  # somebody else's, who lets us use it
                    os.chmod(self.path, 0o600)

    def _open(self) -> Connection:
        uri = f"file:{_quoted(self.path)}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=self.patience, isolation_level=None, factory=Connection, cached_statements=64
        )
        try:
            # Without a way to tell that the machine has stopped, all must be on the disk at once.
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if _boot() else 'FULL'}")
            connection.execute("PRAGMA journal_size_limit = 16777216")
            # Pages. The layer brings the journal to the disk long before, when nobody waits for it.
            connection.execute("PRAGMA wal_autocheckpoint = 16000")
            connection.execute("PRAGMA cache_size = -8192")
            connection.execute("PRAGMA trusted_schema = OFF")
        except BaseException:
            connection.close()
            raise
        return connection

    def _rename(self, why: str) -> None:
        aside = f"{NAME}.damaged-{SYSTEM_CLOCK.time():.6f}"
        _LOG.warning("disk: the file %s cannot be used (%s); it is kept as %s, and a new one begins", NAME, why, aside)
        # What belongs to it first: a new file must not meet the journal of this one.
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.folder / f"{NAME}{suffix}", self.folder / f"{aside}{suffix}")
        found = self.folder.glob(f"{NAME}.damaged-*")
        kept = sorted({path.name.removesuffix("-wal").removesuffix("-shm") for path in found})
        for name in kept[:-_KEPT]:
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(OSError):  # a directory stays
                    os.unlink(self.folder / f"{name}{suffix}")


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file is none, or is damaged."""
    if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.IntegrityError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # ours
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code == sqlite3.SQLITE_IOERR_SHORT_READ


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


def _quoted(path: Path) -> str:
    return "".join(character if character not in "%?#" else f"%{ord(character):02X}" for character in str(path))


def _open_private(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            with contextlib.suppress(PermissionError):  # somebody else's, who lets us use it
                os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_lock(descriptor: int, kind: int, patience: float) -> None:
    deadline = SYSTEM_CLOCK.monotonic() + patience
    while not _try_lock(descriptor, kind):
        if SYSTEM_CLOCK.monotonic() >= deadline:
            raise TimeoutError("another process is busy with the cache on disk")
        sleep(_LOOK)
