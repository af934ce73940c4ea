"""A response body while it arrives: appended by one load, read by any number of callers of any loop or thread.

Within the size limit everything is kept, so a reader can begin at any time and the load never waits. Beyond the limit,
or when the body is only passing through, chunks are dropped once all readers have them and the load waits for the
slowest, so memory stays bounded.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

from ._forking import renew_in_children
from ._gate import Gate
from ._shared_errors import SharedError

WINDOW = 64 * 1024
"""Bytes that may wait for readers when the body is not kept."""


class ReaderClosed(Exception):
    """The reader was closed while it waited."""


class WaitTimeout(TimeoutError):
    """Whoever waited for the load of another had no more patience."""


class Recording:
    """The body.

    Args:
        limit: bytes to keep at most; 0: it only passes through.
        alive: says whether whoever appends still can; readers elsewhere ask from time to time.
        loop: where it is appended to; `None`: in a thread. Readers in the same loop need not ask.
    """

    def __init__(self, limit: int, alive: Callable[[], bool], loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.kept = limit > 0
        self.size = 0
        self._limit = limit
        self._alive = alive
        self._loop = loop
        self._lock = threading.Lock()
        self._chunks: list[bytes] = []
        self._dropped = 0
        self._waiting_bytes = 0
        self._readers: list[Reader] = []
        self._arrived = Gate()
        self._room = Gate()
        self._last = False
        self._complete = False
        self._error: SharedError | None = None
        renew_in_children(self)

    def after_fork(self) -> None:
        """Nobody records or reads it any more, but what did is let go of in the child as well."""
        self._lock = threading.Lock()

    def append(self, chunk: bytes, *, last: bool = False) -> None:
        """Take the next chunk. Empty ones are ignored: a replay must not invent what a framework would not send.

        Args:
            last: no other will come.
        """
        if not chunk:
            return
        with self._lock:
            self._last = last
            self._chunks.append(chunk)
            self.size += len(chunk)
            self._waiting_bytes += len(chunk)
            if self.kept and self.size > self._limit:
                self.kept = False
            self._drop_unless_kept()
            arrived, self._arrived = self._arrived, Gate()
        arrived.open()

    async def room(self) -> None:
        """Wait until readers have taken enough of what is not kept."""
        while (gate := self._full()) is not None:
            await gate.wait()

    def room_blocking(self) -> None:
        """The same in a thread, for a load that a thread runs."""
        while (gate := self._full()) is not None:
            gate.wait_blocking(alive=lambda: True)

    def finish(self) -> None:
        """The body is complete."""
        self._end()

    def fail(self, error: BaseException) -> None:
        """The body broke off; readers get what has come and then the error."""
        with self._lock:
            if not self._complete:
                self._error = SharedError.of(error)
        self._end()

    def has_readers(self) -> bool:
        """Whether anybody reads it."""
        return bool(self._readers)

    def is_complete(self) -> bool:
        """Whether nothing more will come."""
        return self._complete

    def chunks(self) -> tuple[bytes, ...]:
        """All chunks so far; only while `kept`."""
        with self._lock:
            return tuple(self._chunks)

    def reader(self) -> Reader | None:
        """A reader from the start, or `None` when the start is gone."""
        with self._lock:
            if self._dropped:
                return None
            reader = Reader(self)
            self._readers.append(reader)
            return reader

    def _full(self) -> Gate | None:
        with self._lock:
            if self._room.is_open():  # somebody was lost
                self._room = Gate()
                self._drop_unless_kept()
            if self.kept or self._waiting_bytes <= WINDOW or all(reader.closed for reader in self._readers):
                return None
            return self._room

    def _drop_unless_kept(self) -> None:
        if not self.kept:
            self._drop()

    def _drop(self) -> None:
        positions = (reader.position for reader in self._readers if not reader.closed)
        reached = min(positions, default=self._dropped + len(self._chunks))
        count = reached - self._dropped
        if count > 0:
            self._waiting_bytes -= sum(map(len, self._chunks[:count]))
            del self._chunks[:count]
            self._dropped = reached

    def _end(self) -> None:
        with self._lock:
            self._complete = True
            arrived = self._arrived
        arrived.open()


class Reader:
    """One caller's way through a recording."""

    __slots__ = ("_recording", "closed", "position")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.closed = False
        self.position = 0

    async def next(self) -> bytes | None:
        """The next chunk; `None` after the last.

        Raises:
            ReaderClosed: it was closed meanwhile.
            BaseException: what made the body break off.
        """
        recording = self._recording
        alive = None if recording._loop is asyncio.get_running_loop() else recording._alive
        while True:
            chunk, gate = self._take()
            if gate is None:
                return chunk
            if not await gate.wait(alive=alive):
                raise ConnectionError("the event loop that read this response has ended")

    def at_end(self) -> bool:
        """Whether it is known that no chunk is left; the body may still break off."""
        recording = self._recording
        with recording._lock:
            seen_all = self.position - recording._dropped >= len(recording._chunks)
            return seen_all and recording._error is None and (recording._last or recording._complete)

    def next_blocking(self, patience: float = math.inf) -> bytes | None:
        """The same in a thread.

        Args:
            patience: seconds to wait at most.

        Raises:
            WaitTimeout: they are over.
        """
        recording = self._recording
        while True:
            chunk, gate = self._take()
            if gate is None:
                return chunk
            if not gate.wait_blocking(alive=recording._alive, patience=patience):
                if recording._alive():
                    raise WaitTimeout
                raise ConnectionError("the event loop that read this response has ended")

    def close(self) -> None:
        """Let go; a pending `next` raises `ReaderClosed`. Closing twice is harmless."""
        recording = self._recording
        with recording._lock:
            self.closed = True
            if self in recording._readers:
                recording._readers.remove(self)
            recording._drop_unless_kept()
            arrived, recording._arrived = recording._arrived, Gate()
            room, recording._room = recording._room, Gate()
            if recording._complete:
                recording._arrived.open()
        arrived.open()
        room.open()

    def lose(self) -> None:
        """Nobody will read on. Takes no lock: a garbage collector calls this."""
        self.closed = True
        self._recording._room.open()

    def _take(self) -> tuple[bytes | None, Gate | None]:
        recording = self._recording
        room = None
        with recording._lock:
            if self.closed:
                raise ReaderClosed
            index = self.position - recording._dropped
            if index < len(recording._chunks):
                chunk = recording._chunks[index]
                self.position += 1
                if not recording.kept:
                    recording._drop()
                    room, recording._room = recording._room, Gate()
            elif recording._error is not None:
                recording._error.again()
            elif recording._complete:
                return None, None
            else:
                return None, recording._arrived
        if room is not None:
            room.open()
        return chunk, None
