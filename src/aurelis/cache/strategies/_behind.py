"""Write behind: a journal and the cache first, then, in batches, the data store."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from aurelis.cache._clock import SYSTEM_CLOCK
from aurelis.cache._forking import renew_in_children
from aurelis.cache._keys import escape
from aurelis.cache._loading import current_load
from aurelis.cache._options import Duration, seconds, whole
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.config import CacheConfig
from aurelis.cache.exceptions import CacheClosedError, ConfigurationError, JournalFullError, LayerError
from aurelis.cache.journals._journal import Journal
from aurelis.cache.manager import AnyManager, CacheManager, manager_of
from aurelis.cache.telemetry._bounded import require_label

from . import _writing
from ._asking import PATIENCE, Asking
from ._draining import Draining
from ._letters import DELETION, DeadLetter, Envelopes
from ._store import DataStore, deleting, require_store

S = TypeVar("S", bound=DataStore)

_FOLDER: Final = "./cache"
"""Where the journal is when no folder is configured."""
_LONGEST_NAME: Final = 100
_LONGEST_LEASE: Final = 1.0
"""Seconds for which a process that dies while it writes a key keeps others from loading it."""
_LOOK: Final = 0.25
"""Seconds between two looks whether other processes have written something, while somebody waits for it."""
_GRACE: Final = 1.0
"""Seconds that closing waits for a journal beyond what the store has."""
_LETTERS: Final = 100
"""Dead letters that are made to wait again in one step."""


class WriteBehind(Generic[S]):
    """Writes are acknowledged when they are in a journal, and reach the data store in batches.

    What was acknowledged outlasts the process: it is in the store, in the journal, or among the dead letters. The
    writes of a key reach the store in the order in which they were acknowledged, whichever process brings them there;
    of several that wait for the same key only the last one does. A write may reach it more than once.

    The store is called by a task of the event loop that uses the strategy first; in a running loop that is the one
    where it is made. It begins with what processes before have left.

    Args:
        cache: a manager; full keys are used with either kind.
        data_store: see `DataStore`.
        name: of the journal, up to 100 printable characters. Strategies with the same one, and the same namespace of
            the cache, have one journal; their stores must be the same, too.
        batch_size: writes that are brought to the store at once, ≥ 1.
        flush_interval: seconds or timedelta that a write waits when there are fewer; may be infinite.
        max_attempts: attempts to write something until it becomes a dead letter, ≥ 1. The pauses between them begin
            with a second and become three times as long each time, five minutes at most.
        journal: a folder, for a journal in SQLite, or the URL of a Redis. `None`: the cache's Redis, if it has one,
            else its `cache_dir`, else `./cache`.
        max_pending: keys that may wait or be dead letters, ≥ 1. When there are as many, writes of other keys wait.
        timeout: seconds or timedelta that a call of the store may take, and that a write waits for room.

    Attributes:
        cache: the `CacheManager`.
        data_store: the store.

    Raises:
        ConfigurationError: an argument is out of range, or the store lacks `get` or `set`.
        MissingExtraError: the journal needs Redis, and the extra is not installed.
        TypeError: `cache` is no manager.

    Example:
        >>> import tempfile
        >>> class Table:
        ...     def __init__(self) -> None:
        ...         self.rows: dict[str, object] = {}
        ...     async def get(self, key: str) -> object:
        ...         return self.rows.get(key)
        ...     async def set(self, key: str, value: object) -> None:
        ...         self.rows[key] = value
        >>> async def main(folder: str) -> None:
        ...     async with CacheManager() as cache, WriteBehind(cache, Table(), journal=folder) as users:
        ...         await users.set("user:17", {"name": "Ada"})
        ...         print(await users.get("user:17"), users.data_store.rows)
        ...         await users.flush()
        ...         print(users.data_store.rows)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        {'name': 'Ada'} {}
        {'user:17': {'name': 'Ada'}}
    """

    def __init__(
        self,
        cache: AnyManager,
        data_store: S,
        *,
        name: str = "default",
        batch_size: int = 10,
        flush_interval: Duration = 30.0,
        max_attempts: int = 8,
        journal: str | os.PathLike[str] | None = None,
        max_pending: int = 10_000,
        timeout: Duration = 30.0,
    ) -> None:
        require_store("WriteBehind", data_store)
        for option, number in (
            ("batch_size", batch_size),
            ("max_attempts", max_attempts),
            ("max_pending", max_pending),
        ):
            whole(f"WriteBehind: {option}", number)
        try:
            interval = seconds(flush_interval, "flush_interval")
            self._timeout = seconds(timeout, "timeout")
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"WriteBehind: {error}") from None
        if self._timeout == 0:
            raise ConfigurationError("WriteBehind: timeout must be more than 0 seconds")
        _check_name(name)
        self.cache = manager_of(cache)
        self.data_store = data_store
        self._lease = min(seconds(self.cache.config.lease), _LONGEST_LEASE)
        config = self.cache.config
        self._envelopes = Envelopes(ValueCodec(config.types), config.framing(), SYSTEM_CLOCK)
        self._batch_size = batch_size
        self._hurry = interval == 0
        self._max_pending = max_pending
        self._closed = False
        self._all_written = False
        self._journal = _journal(self.cache, name, journal)
        self._asking = Asking(name, self._journal.place, self.cache._engine.telemetry, SYSTEM_CLOCK)
        self._draining = Draining(
            self._journal,
            data_store,
            self._envelopes,
            self._asking,
            SYSTEM_CLOCK,
            batch_size=batch_size,
            interval=interval,
            max_attempts=max_attempts,
            timeout=self._timeout,
            buried=partial(_writing.forget, self.cache._engine),
        )
        renew_in_children(self._draining)
        with contextlib.suppress(RuntimeError):  # no loop is running, and the first use begins
            self._draining.start()

    # Values

    async def get(self, key: str) -> Any:
        """The value: what was acknowledged last, whether or not it is in the store yet; `None` if there is none.

        While the journal does not answer, what is not in the cache comes from the store, may be older than what waits,
        and is not kept. What the store raises reaches the caller.

        Raises:
            FrameError: this process cannot read what waits, for want of a class or of an `encryption_key`.
            CacheClosedError: the strategy or its cache was closed.
        """
        self._begin()
        return await self.cache.get_or_compute(key, partial(self._load, key))

    async def set(self, key: str, value: object, ttl: Duration | None = None) -> bool:
        """Acknowledge the value by its return: from then on it reaches the store, whatever becomes of the process.

        Args:
            ttl: seconds or timedelta that the cache keeps it; `None`: each layer's own; 0: it does not.

        Returns:
            Whether every layer of the cache has it now. One that has not has no older value either: it was told to
            forget the key, or is told as soon as it answers.

        Raises:
            UnstorableValueError: the value cannot be stored.
            ValueError: the ttl is negative or not a number.
            JournalFullError: there was no room within `timeout`. Nothing was written.
            LayerTimeout: the journal did not answer in time. Whether the value is in it is not known.
            LayerError: the journal failed. Nothing was written, unless the connection was lost meanwhile.
            CacheClosedError: the strategy or its cache was closed.
        """
        self._begin()
        life = None if ttl is None else seconds(ttl)
        engine = self.cache._engine
        engine.check(key)
        packed = engine.stack.pack(value)
        act = partial(self._append, key, self._envelopes.frame(key, value, packed.payload))
        return await _writing.write(engine, key, packed, life, self._lease, act)

    async def delete(self, key: str) -> None:
        """Delete the key, as a write like any other: acknowledged when it is in the journal.

        Raises:
            ConfigurationError: the store has no `delete`.
            CacheError: as `set`.
        """
        self._begin()
        deleting("WriteBehind", self.data_store)
        await _writing.remove(self.cache._engine, key, partial(self._append, key, DELETION))

    # What waits

    async def flush(self, timeout: Duration | None = None) -> bool:
        """Wait until all that has been acknowledged until now is in the store, or is a dead letter.

        No write waits for a batch any more, but what has failed waits for its time. What other processes have under
        way is waited for, too.

        Args:
            timeout: seconds or timedelta to wait; `None`: without a limit.

        Returns:
            False when the time is over.

        Raises:
            LayerError: the journal failed.
        """
        self._begin()
        return await self._flush(math.inf if timeout is None else seconds(timeout, "timeout"))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """What the store has not taken, the oldest first. A newer write of a key takes its dead letter away.

        Args:
            limit: how many at most, ≥ 1.

        Raises:
            LayerError: the journal failed.
            CacheClosedError: the strategy was closed.
        """
        self._refuse_if_closed()
        whole("limit", limit)
        found = await self._asking.ask("letters", self._journal.letters(limit))
        return [self._envelopes.letter(letter) for letter in found]

    async def replay_dead_letters(self, keys: Iterable[str] | None = None) -> int:
        """Let dead letters wait for the store again, with all attempts before them.

        Args:
            keys: whose; `None`: all that there are now.

        Returns:
            How many there were.

        Raises:
            LayerError: the journal failed; some may wait again.
        """
        self._begin()
        if isinstance(keys, str):
            raise TypeError("keys must be several: write [key]")
        last = (await self._asking.ask("backlog", self._journal.backlog())).last
        count = 0
        named = None if keys is None else list(dict.fromkeys(keys))
        while named is None or named:
            part = None if named is None else named[:_LETTERS]
            replayed = await self._asking.ask("replay", self._journal.replay(part, last, _LETTERS))
            count += len(replayed)
            self._asking.replayed(len(replayed))
            for key in replayed:  # what is read from now on is what waits again
                await _writing.forget(self.cache._engine, key)
            if named is not None:
                del named[:_LETTERS]
            elif len(replayed) < _LETTERS:
                break
        self._draining.wake()
        return count

    async def aclose(self, timeout: Duration = 5.0) -> bool:
        """Take no more writes, bring to the store what waits, and end. The cache stays open.

        Twice is harmless, and says the same again; before the first call has ended that is False.

        Args:
            timeout: seconds or timedelta that the store has for that. What is left stays in the journal, and the next
                process with the same journal goes on with it. A journal or a store that hangs takes some seconds more.

        Returns:
            Whether all was written, or is a dead letter.
        """
        patience = seconds(timeout, "timeout")
        if self._closed:
            return self._all_written
        self._closed = True
        try:
            with contextlib.suppress(LayerError, TimeoutError):
                async with asyncio.timeout(patience + _GRACE):
                    self._all_written = await self._flush(patience)
        finally:
            await self._draining.stop()
            self._asking.closed = True
            self._asking.backlog = None  # others say what is in it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._journal.aclose()
        return self._all_written

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Inside

    def _begin(self) -> None:
        self._refuse_if_closed()
        self._draining.start()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise CacheClosedError("this write-behind was closed; make a new one")

    async def _load(self, key: str) -> Any:
        try:
            # The journal first: what is not in it any more is in the store.
            frame = await self._asking.ask("pending", self._journal.pending(key))
        except LayerError:
            current_load().skip()
            return await self.data_store.get(key)
        if frame is None:
            return await self.data_store.get(key)
        return None if frame == DELETION else self._envelopes.value(key, frame)

    async def _append(self, key: str, frame: bytes) -> None:
        clock = SYSTEM_CLOCK
        deadline = clock.monotonic() + self._timeout
        while not await self._to_its_end(key, self._append_once(key, frame)):
            self._refuse_if_closed()
            if clock.monotonic() >= deadline:
                raise JournalFullError(
                    f"write-behind: {self._max_pending} keys wait for the data store or are dead letters"
                )
            backlog = await self._asking.ask("backlog", self._journal.backlog())
            self._draining.start()  # the loop that did may have ended
            self._draining.wake(backlog.last)
            await self._draining.progress(min(_LOOK, max(0.001, deadline - clock.monotonic())))

    async def _append_once(self, key: str, frame: bytes) -> bool:
        """Append if there is room; whether there was."""
        appended = await self._asking.ask("append", self._journal.append(key, frame, self._max_pending))
        if appended is None:
            return False
        self._asking.accepted()
        if self._hurry or appended.waiting >= self._batch_size:
            self._draining.wake()
        return True

    async def _to_its_end(self, key: str, appending: Coroutine[Any, Any, bool]) -> bool:
        """Do it, also if the caller is cancelled.

        Otherwise the write could come into the journal when the cache has forgotten the key, and somebody has read the
        value before it already.
        """
        task = asyncio.ensure_future(appending)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self.cache._engine.flights.run_to_its_end(self._forget_after(task, key))
            raise

    async def _forget_after(self, task: asyncio.Future[bool], key: str) -> None:
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # nobody else hears of it
        await _writing.forget(self.cache._engine, key)

    async def _flush(self, patience: float) -> bool:
        clock = SYSTEM_CLOCK
        deadline = clock.monotonic() + patience
        last: int | None = None
        while True:
            backlog = await self._asking.ask("backlog", self._journal.backlog())
            self._asking.backlog = backlog
            if last is None:
                last = backlog.last
                self._draining.wake(last)
            left = deadline - clock.monotonic()
            if backlog.first is None or backlog.first > last:
                await self._draining.forgotten(min(PATIENCE, max(0.0, left)))
                return True
            if left <= 0:
                return False
            self._draining.start()  # the loop that did may have ended
            await self._draining.progress(min(_LOOK, left))


def _journal(cache: CacheManager, name: str, given: str | os.PathLike[str] | None) -> Journal:
    """The journal that the arguments name. Opens nothing."""
    config = cache.config
    if given is None and any(layer.backend == "redis" for layer in config.effective_layers()):
        return _stream(config, name)
    if isinstance(given, str) and "://" in given:
        # Not with the password of another Redis.
        return _stream(CacheConfig(redis_url=given, namespace=config.namespace), name)
    folder = (config.cache_dir or _FOLDER) if given is None else given
    _check_folder(folder)
    from aurelis.cache.journals._embedded import EmbeddedJournal  # imported here: others must not need SQLite

    return EmbeddedJournal(folder, config.namespace, name, SYSTEM_CLOCK)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or len(escape(name)) > _LONGEST_NAME:
        raise ConfigurationError("WriteBehind: name must be a str of 1 to 100 characters")
    require_label("WriteBehind: name", name)


def _check_folder(folder: object) -> None:
    if not isinstance(folder, (str, os.PathLike)) or not isinstance(os.fspath(folder), str) or not os.fspath(folder):
        raise ConfigurationError("WriteBehind: journal must be the path of a folder or the URL of a Redis")


def _stream(config: CacheConfig, name: str) -> Journal:
    from aurelis.cache.journals._stream import StreamJournal  # imported here: others must not need redis-py

    return StreamJournal(config, name)
