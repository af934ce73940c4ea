"""Copies of files in a directory, by what is in them; several processes may share it.

Everything here blocks, and is to be called in a thread.

A copy is written apart and then takes its name in one step, so no other one is ever seen. Nobody waits until the disk
has it: what a power failure tears does not have the digest that it is named by, which each reader compares.

How much there is stands in a file that is locked while it is changed; see `_file_ledger`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from secrets import token_hex
from typing import Final, Literal

from ._clock import Clock
from ._file_ledger import StoreProblem, Usage, locked, problems
from ._file_names import opened
from ._trouble import Trouble
from .telemetry import names
from .telemetry._cells import Cell

_LOG = logging.getLogger("aurelis.cache")

_CHUNK: Final = 2**20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ABANDONED: Final = 60.0
"""Seconds after which a copy that nobody has locked is what a dead process has left."""
_KEPT: Final = 0.9
"""Part of the bounds that is left when something must go, so that not each copy has to look at all others."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One file of the store."""

    used: int
    size: int
    path: Path


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a file that was to be kept.

    Attributes:
        digest: of its content.
        result: by the names of telemetry; empty: it was there already.
        size: bytes of the copy, where there is a new one.
    """

    digest: str
    result: str = ""
    size: int = 0


def _ignore(operation: str, error_type: str) -> None:
    """Nobody wants to know."""


class FileStore:
    """The copies in one directory.

    Args:
        directory: absolute; made when it is first needed, for this user alone.
        max_size: copies at most.
        max_bytes: bytes of all copies at most.
        failed: is told of each failure: the operation, and the type of the error.

    Attributes:
        evicted: copies that went for want of room.
    """

    def __init__(
        self,
        directory: Path,
        max_size: int,
        max_bytes: int,
        clock: Clock,
        failed: Callable[[str, str], None] = _ignore,
    ) -> None:
        self._directory = directory
        self._partial = directory / ".partial"
        self._max_size = max_size
        self.max_bytes = max_bytes
        self._clock = clock
        self._tell = failed
        self.evicted = Cell()
        self._held: tuple[int, int] | None = None
        self._is_ready = False
        self._warned: set[str] = set()
        self._trouble = Trouble("a directory of copied files", "copies are not kept, or not found")

    def put(self, folder: str, path: str | os.PathLike[str]) -> Put:
        """Keep a copy of the file, if there is room and the directory can be used.

        Raises:
            OSError: the file could not be read.
            ConfigurationError: it is no regular file.
        """
        with opened(path) as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            size = os.fstat(source.fileno()).st_size
            if size > self.max_bytes:
                self._warn("a file is larger than the whole cache may be")
                return Put(digest, names.TOO_LARGE)
            try:
                if self.verify(folder, digest) is not None:
                    return Put(digest)
                self._get_ready()
                source.seek(0)
                put = self._copy(folder, source) or Put(digest, names.TOO_LARGE)
                self._trouble.over(self._clock.monotonic())
                return put
            except StoreProblem as problem:
                self._failed("set", problem.__cause__)
                return Put(digest, names.LAYER_FAILED)

    def verify(self, folder: str, digest: str) -> Path | None:
        """Where the copy with this digest is, after comparing it; one that is damaged goes."""
        file = self.open(folder, digest)
        if file is None:
            return None
        file.close()
        return self.path(folder, digest)

    def open(self, folder: str, digest: str) -> BufferedReader | None:
        """The same, opened for reading."""
        return self.look(folder, digest)[0]

    def look(self, folder: str, digest: str) -> tuple[BufferedReader | None, Literal["hit", "miss", "error"]]:
        """The same, and whether there is one."""
        if _DIGEST.fullmatch(digest) is None:
            return None, "miss"
        path = self.path(folder, digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None, "miss"
            self._failed("get", error)
            return None, "error"
        file = os.fdopen(descriptor, "rb")
        try:
            is_whole = hashlib.file_digest(file, "sha256").hexdigest() == digest
        except OSError as error:
            file.close()
            self._failed("get", error)
            return None, "error"
        if not is_whole:
            with file:
                self._warn("a kept file was damaged, and is removed")
                self._tell("get", "damaged")
                with contextlib.suppress(StoreProblem):
                    self._discard(path, os.fstat(descriptor).st_ino)
            return None, "error"
        with contextlib.suppress(OSError):  # on a medium that cannot be written it is as old as it was
            os.utime(descriptor)
        file.seek(0)
        return file, "hit"

    def remove(self, folder: str, digest: str) -> bool:
        """Remove the copy; true if it was there."""
        if _DIGEST.fullmatch(digest) is None:
            return False
        path = self.path(folder, digest)
        try:
            with problems():
                if not path.exists():
                    return False
            return self._discard(path, None)
        except StoreProblem as problem:
            self._failed("delete", problem.__cause__)
            return False

    def held(self) -> tuple[int, int] | None:
        """Copies and bytes, as last seen; `None`: nobody has counted them."""
        try:
            descriptor = os.open(self._directory / ".usage", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._held or (0, 0)
        except OSError:
            return self._held
        try:
            self._held = Usage(descriptor).read() or self._held
        except OSError:
            pass
        finally:
            os.close(descriptor)
        return self._held

    # Writing

    def path(self, folder: str, digest: str) -> Path:
        """Where the copy with this digest is, if there is one."""
        return self._directory / folder / f"{digest}.cache"

    def _touch(self, path: Path, size: int) -> bool:
        """Whether there is a copy of this size, which is in use then."""
        try:
            state = os.stat(path, follow_symlinks=False)
            if not stat.S_ISREG(state.st_mode) or state.st_size != size:
                return False
            os.utime(path, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _get_ready(self) -> None:
        with problems():
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self._partial.mkdir(mode=0o700, exist_ok=True)
        if not self._is_ready:
            self._is_ready = True
            self._sweep()

    def _copy(self, folder: str, source: BufferedReader) -> Put | None:
        """Copy the file; `None`: it has grown too large meanwhile."""
        partial = self._partial / token_hex(16)
        with problems():
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as copy:
                with problems():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # says that its writer is alive
                digest, size = hashlib.sha256(), 0
                while chunk := source.read(_CHUNK):
                    size += len(chunk)
                    if size > self.max_bytes:
                        return None
                    digest.update(chunk)
                    with problems():
                        _write(copy, chunk)
                with problems():
                    os.fchmod(descriptor, 0o400)
                is_new = self._publish(partial, self.path(folder, digest.hexdigest()), size)
                return Put(digest.hexdigest(), names.KEPT if is_new else "", size)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _publish(self, partial: Path, path: Path, size: int) -> bool:
        """Give the copy its name; false: there is one already."""
        with locked(self._directory, self._clock) as usage:
            if self._touch(path, size):
                return False
            with problems():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if path.exists():  # and is damaged
                    usage.forget()
                    path.unlink()
                count, total = usage.read() or self._count()
                if count + 1 > self._max_size or total + size > self.max_bytes:
                    count, total = self._evict(size)
                usage.write(count + 1, total + size)
                os.replace(partial, path)
                self._held = count + 1, total + size
        return True

    # Room

    def _copies(self) -> list[_Copy]:
        found = []
        for folder in os.scandir(self._directory):
            if folder.name.startswith(".") or not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(state.st_mode) and _DIGEST.fullmatch(entry.name.removesuffix(".cache")):
                        found.append(_Copy(state.st_mtime_ns, state.st_size, Path(entry.path)))
        return found

    def _count(self) -> tuple[int, int]:
        copies = self._copies()
        return len(copies), sum(copy.size for copy in copies)

    def _evict(self, size: int) -> tuple[int, int]:
        """Make room for one more, the longest unused ones first; returns how many copies and bytes are left."""
        copies = sorted(self._copies(), key=lambda copy: copy.used)
        count, total = len(copies), sum(copy.size for copy in copies)
        if count + 1 <= self._max_size and total + size <= self.max_bytes:
            return count, total  # others have removed some
        most = min(self._max_size - 1, int(self._max_size * _KEPT))
        most_bytes = min(self.max_bytes - size, int(self.max_bytes * _KEPT))
        for copy in copies:
            if count <= most and total <= most_bytes:
                break
            copy.path.unlink(missing_ok=True)
            self.evicted.n += 1
            count, total = count - 1, total - copy.size
        self._sweep()
        return count, total

    def _discard(self, path: Path, inode: int | None) -> bool:
        with locked(self._directory, self._clock) as usage, problems():
            try:
                state = os.stat(path, follow_symlinks=False)
                if inode is not None and state.st_ino != inode:
                    return False  # it has been replaced
                path.unlink()
            except FileNotFoundError:
                return False
            if self._held is not None:
                self._held = max(self._held[0] - 1, 0), max(self._held[1] - state.st_size, 0)
            usage.forget()
            return True

    def _sweep(self) -> None:
        """Remove what dead processes have left unfinished."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._partial):
                with contextlib.suppress(OSError):
                    if self._clock.time() - entry.stat(follow_symlinks=False).st_mtime < _ABANDONED:
                        continue
                    descriptor = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(entry.path)
                    finally:
                        os.close(descriptor)

    def _failed(self, operation: str, error: BaseException | None) -> None:
        self._tell(operation, type(error).__qualname__)
        code = getattr(error, "errno", None)
        cause = type(error).__name__ if code is None else errno.errorcode.get(code, str(code))
        self._trouble.met(cause, self._clock.monotonic())

    def _warn(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _LOG.warning("file cache: %s", what)


def _write(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
