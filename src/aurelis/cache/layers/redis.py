"""The layer that all processes share: framed values in Redis, with a client of our own settings.

redis-py's defaults suit a database: ten retries and timeouts of seconds. A cache that waits that long is worse than
none, so there are no retries here, and the caller sets the deadline (no `socket_timeout`: on Python 3.11 it can swallow
the cancellation of a task that is sending).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, TypeVar

from aurelis.cache._clock import SYSTEM_CLOCK, Clock
from aurelis.cache._entry import Entry
from aurelis.cache._forking import renew_in_children
from aurelis.cache._options import Duration, seconds
from aurelis.cache._trouble import Incidents
from aurelis.cache.codecs import Framing, ValueCodec
from aurelis.cache.config import CacheConfig, require_config
from aurelis.cache.exceptions import FrameError, LayerError, LayerTimeout, MissingExtraError

from ._framed import Framed, note_damage

try:
    from redis.exceptions import NoScriptError, RedisError

    from ._coordination import Coordination, set_command, succeeded
    from ._link import Link
    from ._names import Names
    from ._scripts import LIVES, LOOKUP
    from ._topology import Topology
except ImportError as error:
    raise MissingExtraError("redis", "RedisBackend") from error

T = TypeVar("T")
_End = AsyncGenerator[None, None]

_SCAN_COUNT: Final = 500
_ABSENT: Final = -2
"""In place of the life of what is not there."""


class RedisBackend(Framed, Coordination):
    """Keeps entries in Redis, framed and checked.

    Usable on its own (`get`, `set`, `delete`, `clear`, which contain failures) and as a layer of a manager (`lookup`,
    `store`, `remove`, which raise them for the guard). Works from several event loops: each has a client of its own.

    Args:
        config: its `redis_*` options, `namespace`, `types`, `timeout`, `ttl`, and what it says of compression and
            encryption are used.
        damaged: called with the error for each frame that is damaged or not ours.

    Raises:
        ConfigurationError: it is no configuration, has no `redis_url`, or redis-py refuses that.
    """

    name = "l2"

    def __init__(
        self,
        config: CacheConfig,
        *,
        codec: ValueCodec | None = None,
        framing: Framing | None = None,
        clock: Clock = SYSTEM_CLOCK,
        damaged: Callable[[FrameError], None] | None = None,
    ) -> None:
        require_config("RedisBackend", config)
        self._topology = Topology.parse(config)
        self._config = config
        self._codec = codec or ValueCodec(config.types)
        self._framing = framing or config.framing()
        self._clock = clock
        self._incidents = Incidents("redis: something failed")
        # Not a method of its own, which would keep it alive until the garbage collector comes.
        self._damaged = damaged or partial(note_damage, self._incidents, clock)
        self._timeout = seconds(config.timeout)
        self._names = Names(config.namespace)
        self._lock = threading.Lock()  # several threads look for the clients of their loops
        self._links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = weakref.WeakKeyDictionary()
        self._ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _End] = weakref.WeakKeyDictionary()
        self._inherited: list[object] = []
        renew_in_children(self)

    def after_fork(self) -> None:
        """The clients are the parent's; they are kept, since their end could be that of what they share with it."""
        self._lock = threading.Lock()
        self._inherited += [self._links, self._ends]
        self._links, self._ends = weakref.WeakKeyDictionary(), weakref.WeakKeyDictionary()

    # Values

    async def connect(self) -> None:
        """Check that Redis answers. Not needed before other calls.

        Raises:
            LayerError: it does not, within the configured timeout.
        """
        await self._contained("connect", self._link().execute("PING"))

    async def get(self, key: str, default: object = None) -> object:
        """The value, or `default`, also when Redis does not answer in time."""
        try:
            entry = await self._contained("get", self.lookup(key))
        except LayerError:
            return default
        return default if entry is None else entry.value

    async def set(self, key: str, value: object, ttl: Duration | None = None) -> bool:
        """Keep the value; false when Redis did not take it in time.

        Raises:
            UnstorableValueError: the value holds a type that is neither built in nor registered.
            ValueError: the ttl is negative or not a number.
        """
        life = seconds(self._config.ttl if ttl is None else ttl)
        payload = self._codec.dumps(value)
        expires = self._clock.monotonic() + life
        try:
            if life == 0:
                await self._contained("set", self.remove(key))
            else:
                await self._contained("set", self.store(key, Entry(None, payload, expires, expires, len(payload))))
        except LayerError:
            return False
        return True

    async def delete(self, key: str) -> bool:
        """Forget the key; true if it was there.

        Raises:
            LayerError: Redis did not answer in time, so the value may still be there.
        """
        return await self._contained("delete", self.remove(key))

    async def clear(self) -> bool:
        """Forget everything in this namespace.

        Raises:
            LayerError: Redis did not answer in time.
        """
        await self._contained("clear", self.remove_all(), timeout=None)
        return True

    # Layer

    async def lookup(self, key: str) -> Entry | None:
        """The entry, or `None`; one round trip."""
        found = await self._link().script(LOOKUP, (self._names.entry(key),))
        return self._entry(key, found[0][1], found[0][2]) if found else None

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """The entries found; one round trip to each server."""
        link = self._link()
        names = [self._names.entry(key) for key in keys]
        # Copying values into a script and out of it again costs a server more than all the rest, so it is spared that
        # where one transaction can do without. In a cluster each slot would need one.
        found = await (_together(link, names) if link.single and len(names) > 1 else _by_slot(link, names))
        now = self._clock.monotonic()
        entries: dict[str, Entry] = {}
        for position, frame, life in found:
            entry = self._entry(keys[position], frame, life, now)
            if entry is not None:
                entries[keys[position]] = entry
        return entries

    async def store(self, key: str, entry: Entry) -> None:
        """Keep the entry until it expires."""
        frame, life = self._frame(key, entry)
        await self._link().execute(*set_command(self._names.entry(key), frame, life))

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """Keep them all; one round trip to each server."""
        commands = [set_command(self._names.entry(key), *self._frame(key, entry)) for key, entry in entries.items()]
        succeeded(await self._link().pipeline(commands))

    async def remove_all(self) -> None:
        """Forget everything under our prefix; each command has the configured timeout."""
        batches = self._link().scan(self._names.entries, _SCAN_COUNT)
        while True:
            async with asyncio.timeout(self._timeout):
                names = await anext(batches, None)
                if names is None:
                    return
                await self._unlink(names)

    async def aclose(self) -> None:
        """Close the connections of all running event loops; those of loops that have ended are dropped."""
        here = asyncio.get_running_loop()
        with self._lock:
            self._forget_closed_loops()
            running = {loop: end for loop, end in self._ends.items() if loop.is_running()}
        own = running.pop(here, None)
        others = [future for loop, end in running.items() if (future := _closing_in(loop, end))]
        if own is not None:
            await _bring_about(own)
        if others:
            await asyncio.wait(others, timeout=self._timeout)  # a loop that is just ending may not answer any more

    # Inside

    async def _unlink(self, names: Sequence[bytes]) -> int:
        link = self._link()
        groups = link.split(names)
        counts = await link.pipeline([("UNLINK", *[names[position] for position in group]) for group in groups])
        return sum(succeeded(counts))

    def _link(self) -> Link:
        return self._links.get(asyncio.get_running_loop()) or self._connect()

    def _connect(self) -> Link:
        loop, link = asyncio.get_running_loop(), self._topology.link()
        end = _end_of(link, self._links, self._ends, self._lock)
        with contextlib.suppress(StopIteration):  # run up to where it waits
            end.asend(None).send(None)
        with self._lock:
            self._forget_closed_loops()
            self._links[loop], self._ends[loop] = link, end
        return link

    def _forget_closed_loops(self) -> None:
        # A client refers to its loop, so the weak keys alone would never let go of a loop that was closed.
        for loop in [loop for loop in self._ends if loop.is_closed()]:
            self._links.pop(loop, None)
            del self._ends[loop]

    async def _contained(self, operation: str, call: Awaitable[T], timeout: float | None = -1) -> T:
        try:
            async with asyncio.timeout(self._timeout if timeout == -1 else timeout):
                return await call
        except TimeoutError:
            self._incidents.met(f"{operation}: timeout", self._clock.monotonic())
            raise LayerTimeout(self.name, operation) from None
        except (RedisError, OSError) as error:
            self._incidents.met(f"{operation}: {type(error).__qualname__}", self._clock.monotonic())
            raise LayerError(self.name, operation) from error


async def _together(link: Link, names: Sequence[bytes]) -> Iterable[tuple[int, bytes, int]]:
    """Position, frame and life (ms) of the names that are there, all of one moment and of one server."""
    values: Any = None
    lives: Any = NoScriptError()
    for script in (LIVES.known(names, ()), LIVES.told(names, ())):
        if isinstance(lives, NoScriptError):
            answers = await link.pipeline([("MULTI",), ("MGET", *names), script, ("EXEC",)])
            values, lives = succeeded(answers)[-1]
    succeeded((values, lives))
    # What is there without being a string is some other program's, and no frame.
    return (
        (position, b"" if value is None else value, life)
        for position, value, life in zip(count(), values, lives, strict=False)
        if life != _ABSENT
    )


async def _by_slot(link: Link, names: Sequence[bytes]) -> Iterable[tuple[int, bytes, int]]:
    """The same of several servers."""
    groups = link.split(names)
    answers = await link.scripts(LOOKUP, [([names[position] for position in group], ()) for group in groups])
    return [
        (group[index - 1], frame, life)
        for group, found in zip(groups, succeeded(answers), strict=True)
        for index, frame, life in found
    ]


async def _end_of(
    link: Link,
    links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Link],
    ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _End],
    lock: threading.Lock,
) -> _End:
    """Waits until it is closed, and closes the link then.

    A generator, because those that have not ended when an event loop shuts down are closed by the loop.
    """
    try:
        yield
    finally:
        loop = asyncio.get_running_loop()
        with lock:
            if links.get(loop) is link:
                del links[loop], ends[loop]
        await link.aclose()


async def _bring_about(end: _End) -> None:
    with contextlib.suppress(RuntimeError):  # the loop does so at this very moment
        await end.aclose()


def _closing_in(loop: asyncio.AbstractEventLoop, end: _End) -> asyncio.Future[None] | None:
    closing = _bring_about(end)
    try:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(closing, loop))
    except RuntimeError:  # closed since, and its connections with it
        closing.close()
        return None
