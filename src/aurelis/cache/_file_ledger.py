"""How many copies a directory has and how large they are: in a file that is locked while they change.

It is written before a copy takes its name, so that whoever dies in between leaves a number that is too high, never one
that is too low.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ._clock import Clock

_USAGE: Final = struct.Struct(">QQI")
"""Copies, bytes, and a check: after a power failure the file may be full of zeros, which would say that all is free."""
_LOCK_WAIT: Final = 10.0
"""Seconds to wait for another process, which needs milliseconds, unless it is stopped."""
_LOCK_PAUSE: Final = 0.002


class StoreProblem(Exception):
    """The directory could not be used; the cause says why."""


class Usage:
    """How many copies and bytes there are, in the file that is locked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> tuple[int, int] | None:
        """Copies and bytes; `None`: not known, they must be counted."""
        written = os.pread(self._descriptor, _USAGE.size + 1, 0)
        if len(written) != _USAGE.size:
            return None
        count, total, _ = _USAGE.unpack(written)
        return (count, total) if written == _packed(count, total) else None

    def write(self, count: int, total: int) -> None:
        os.pwrite(self._descriptor, _packed(count, total), 0)
        os.ftruncate(self._descriptor, _USAGE.size)

    def forget(self) -> None:
        """From now on it is not known."""
        os.ftruncate(self._descriptor, 0)


def _packed(count: int, total: int) -> bytes:
    return _USAGE.pack(count, total, zlib.crc32(f"{count} {total}".encode()))


@contextlib.contextmanager
def locked(directory: Path, clock: Clock) -> Iterator[Usage]:
    """Nobody else changes what there is."""
    with problems():
        descriptor = os.open(directory / ".usage", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = clock.monotonic() + _LOCK_WAIT
        with problems():
            while not _lock(descriptor):
                if clock.monotonic() >= deadline:
                    raise TimeoutError("another process holds the lock")
                time.sleep(_LOCK_PAUSE)
        try:
            yield Usage(descriptor)
        finally:
            # Said, as a child that was forked meanwhile would hold it on.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def problems() -> Iterator[None]:
    """What goes wrong inside is a problem of the store, and not of the file that is to be kept."""
    try:
        yield
    except OSError as error:
        raise StoreProblem from error


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
