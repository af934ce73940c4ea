"""Files of SQLite: made, checked, shared with other processes, and set aside when they are damaged.

Beside each is a lock file. Whoever uses the file holds it shared, so whoever gets it alone knows that nobody else does.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
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

_OLDEST: Final = (3, 35, 0)
"""The first SQLite with all that is used here."""
_LOOK: Final = 0.005
"""Seconds between two looks at a lock."""
_numbers = itertools.count(1)


class Connection(sqlite3.Connection):
    """A connection that can be told from others.

    Attributes:
        number: unlike that of any other connection of this process.
        file: device and inode of its file.
    """

    number = 0
    file = (-1, -1)


class SqliteFile:
    """A file in a folder, for all connections of one user of it.

    Args:
        folder: made when it is not there.
        name: of the file.
        mark: the `application_id` by which the file says whose it is.
        schema: makes a new one, of `user_version` 1.
        patience: seconds to wait for another process at most.

    Attributes:
        kept: damaged files that are kept; `None`: all.
        pages: in the journal, after which a writer brings it to the disk.
    """

    kept: int | None = None
    pages = 1000

    def __init__(self, folder: str | os.PathLike[str], name: str, mark: int, schema: str, patience: float) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            needed, found = ".".join(map(str, _OLDEST)), sqlite3.sqlite_version
            raise ConfigurationError(f"a file on disk needs SQLite {needed} or newer, and this Python has {found}")
        self.folder = Path(folder).absolute()
        self.name = name
        self.path = self.folder / name
        self.patience = patience
        self._mark = mark
        self._schema = schema
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
                    if self.is_current(self._identity) and try_lock(self._held, fcntl.LOCK_EX):
                        connection = self._open()
                        try:
                            self._left(connection)
                        finally:
                            connection.close()
            finally:
                os.close(self._held)
                self._held = -1

    # What differs between files

    def _found(self, connection: Connection, *, alone: bool, fresh: bool) -> None:
        """The file has been opened, when it was not in use here.

        Args:
            alone: no other process uses it.
            fresh: it is new.

        Raises:
            sqlite3.DatabaseError: it is damaged.
        """

    def _left(self, connection: Connection) -> None:
        """The last process leaves it."""

    def _how(self) -> str:
        """The pragma for how sure it is that what was written survives the machine."""
        return "PRAGMA synchronous = FULL"

    # Inside

    @contextlib.contextmanager
    def _door(self) -> Iterator[None]:
        """Only one process at a time opens, closes or renames."""
        descriptor = open_private(self.folder / f"{self.name}.door")
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
            held = open_private(self.folder / f"{self.name}.lock")
            try:
                alone = try_lock(held, fcntl.LOCK_EX)
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
                connection.executescript(self._schema)
                fresh = True
            elif (mark, version) != (self._mark, 1):
                raise sqlite3.DatabaseError("it is another program's")
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            self._found(connection, alone=alone, fresh=fresh)
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
                raise OSError(f"{self.name} must not be a symbolic link") from None
            if stat.S_IMODE(mode) != 0o600:
                with contextlib.suppress(PermissionError):  # somebody else's, who lets us use it
                    os.chmod(self.path, 0o600)

    def _open(self) -> Connection:
        uri = f"file:{_quoted(self.path)}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=self.patience, isolation_level=None, factory=Connection, cached_statements=64
        )
        try:
            connection.execute(self._how())
            connection.execute("PRAGMA journal_size_limit = 16777216")
            connection.execute(f"PRAGMA wal_autocheckpoint = {self.pages}")
            connection.execute("PRAGMA cache_size = -8192")
            connection.execute("PRAGMA trusted_schema = OFF")
        except BaseException:
            connection.close()
            raise
        return connection

    def _rename(self, why: str) -> None:
        aside = f"{self.name}.damaged-{SYSTEM_CLOCK.time():.6f}"
        self._warn(why, aside)
        # What belongs to it first: a new file must not meet the journal of this one.
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.folder / f"{self.name}{suffix}", self.folder / f"{aside}{suffix}")
        if self.kept is None:
            return
        found = self.folder.glob(f"{glob.escape(self.name)}.damaged-*")
        kept = sorted({path.name.removesuffix("-wal").removesuffix("-shm") for path in found})
        for name in kept[: -self.kept]:
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(OSError):  # a directory stays
                    os.unlink(self.folder / f"{name}{suffix}")

    def _warn(self, why: str, aside: str) -> None:
        _LOG.warning(
            "disk: the file %s cannot be used (%s); it is kept as %s, and a new one begins", self.name, why, aside
        )


def require_sound(connection: sqlite3.Connection) -> None:
    """Check the whole file.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError("it is damaged")


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file is none, or is damaged."""
    if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.IntegrityError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # ours
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _quoted(path: Path) -> str:
    return "".join(character if character not in "%?#" else f"%{ord(character):02X}" for character in str(path))


def open_private(path: Path) -> int:
    """A descriptor of a file for nobody else's eyes, which is made if need be."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            with contextlib.suppress(PermissionError):  # somebody else's, who lets us use it
                os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(descriptor: int, kind: int) -> bool:
    """Whether the lock was free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_lock(descriptor: int, kind: int, patience: float) -> None:
    deadline = SYSTEM_CLOCK.monotonic() + patience
    while not try_lock(descriptor, kind):
        if SYSTEM_CLOCK.monotonic() >= deadline:
            raise TimeoutError("another process is busy with the cache on disk")
        sleep(_LOOK)
