"""The layer that all processes share: framed values in Redis, with a client of our own settings.

redis-py's defaults suit a database: ten retries and timeouts of seconds. A cache that waits that long is worse than
none, so there are no retries here, and the caller sets the deadline (no `socket_timeout`: on Python 3.11 it can swallow
the cancellation of a task that is sending).
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from aurelis.cache._clock import SYSTEM_CLOCK, Clock
from aurelis.cache._entry import Entry
from aurelis.cache._keys import escape
from aurelis.cache._options import Duration, seconds
from aurelis.cache.codecs import Frame, ValueCodec, decode_frame, encode_frame, is_immutable
from aurelis.cache.config import CacheConfig
from aurelis.cache.exceptions import ConfigurationError, FrameError, LayerError, LayerTimeout, MissingExtraError

try:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

    from ._link import Link, Script
except ImportError as error:
    raise MissingExtraError("redis", "RedisBackend") from error

_LOG = logging.getLogger("aurelis.cache")
T = TypeVar("T")

# Value and remaining life in one command, for one key or many. A key that holds something else than a string is some
# other program's: it is reported as an empty frame, which no frame of ours is.
_LOOKUP: Final = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if type(value) == 'string' then
    found[#found + 1] = {i, value, redis.call('PTTL', key)}
  elseif type(value) == 'table' then
    found[#found + 1] = {i, '', -1}
  end
end
return found
""")

_FOREVER: Final = 10 * 365 * 86_400.0
"""Lives longer than this many seconds are stored without an expiry."""
_SCAN_COUNT: Final = 500


class RedisBackend:
    """Keeps entries in Redis, framed and checked.

    Usable on its own (`get`, `set`, `delete`, `clear`, which contain failures) and as a layer of a manager (`lookup`,
    `store`, `remove`, which raise them for the guard). Works from several event loops: each has a client of its own.

    Args:
        config: its `redis_*` options, `namespace`, `types`, `timeout` and `ttl` are used.
        damaged: called with the error for each frame that is damaged or not ours.

    Raises:
        ConfigurationError: the configuration has no `redis_url`, or redis-py refuses it.
    """

    name = "l2"

    def __init__(
        self,
        config: CacheConfig,
        *,
        codec: ValueCodec | None = None,
        clock: Clock = SYSTEM_CLOCK,
        damaged: Callable[[FrameError], None] | None = None,
    ) -> None:
        if config.redis_url is None:
            raise ConfigurationError("RedisBackend needs redis_url=, for instance redis://127.0.0.1:6379/0")
        self._config = config
        self._codec = codec or ValueCodec(config.types)
        self._clock = clock
        self._damaged = damaged or _log_damage
        self._timeout = seconds(config.timeout)
        self._prefix = f"{escape(config.namespace)}:e:".encode()
        self._lock = threading.Lock()  # several threads look for the clients of their loops
        self._links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = weakref.WeakKeyDictionary()
        # A pool opens no connection by itself, so this only checks the options.
        self._make_pool()

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
        found = await self._lookup((self._physical(key),))
        return self._entry(key, found[0][1], found[0][2]) if found else None

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """The entries found; one round trip."""
        entries: dict[str, Entry] = {}
        for index, frame, life in await self._lookup([self._physical(key) for key in keys]):
            entry = self._entry(keys[index - 1], frame, life)
            if entry is not None:
                entries[keys[index - 1]] = entry
        return entries

    async def store(self, key: str, entry: Entry) -> None:
        """Keep the entry until it expires."""
        frame, life = self._frame(key, entry)
        await self._link().execute(*_set(self._physical(key), frame, life))

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """Keep them all; one round trip."""
        commands = [_set(self._physical(key), *self._frame(key, entry)) for key, entry in entries.items()]
        for answer in await self._link().pipeline(commands):
            if isinstance(answer, RedisError):
                raise answer

    async def remove(self, key: str) -> bool:
        """Forget the key; true if it was there."""
        return await self._unlink([self._physical(key)]) > 0

    async def remove_all(self) -> None:
        """Forget everything under our prefix; each command has the configured timeout."""
        async for names in self._scan():
            if names:
                async with asyncio.timeout(self._timeout):
                    await self._unlink(names)

    async def aclose(self) -> None:
        """Close the connections of all running event loops; those of loops that have ended are dropped."""
        here = asyncio.get_running_loop()
        with self._lock:
            self._forget_closed_loops()
            running = {loop: link for loop, link in self._links.items() if loop.is_running()}
            for loop in running:
                del self._links[loop]
        own = running.pop(here, None)
        others = [future for loop, link in running.items() if (future := _closing_in(loop, link))]
        if own is not None:
            await own.aclose()
        if others:
            await asyncio.wait(others, timeout=self._timeout)  # a loop that is just ending may not answer any more

    # Inside

    async def _lookup(self, names: Sequence[bytes]) -> list[tuple[int, bytes, int]]:
        found: list[tuple[int, bytes, int]] = await self._link().script(_LOOKUP, names)
        return found

    async def _scan(self) -> AsyncIterator[list[bytes]]:
        cursor = 0
        while True:
            async with asyncio.timeout(self._timeout):
                answer = await self._link().execute("SCAN", cursor, "MATCH", self._prefix + b"*", "COUNT", _SCAN_COUNT)
            cursor = int(answer[0])
            yield answer[1]
            if cursor == 0:
                return

    async def _unlink(self, names: list[bytes]) -> int:
        count: int = await self._link().execute("UNLINK", *names)
        return count

    def _physical(self, key: str) -> bytes:
        return self._prefix + key.encode("utf-8", "surrogatepass")

    def _entry(self, key: str, data: bytes, life: int) -> Entry | None:
        try:
            frame = decode_frame(data, key)
            value = self._codec.loads(frame.payload)
        except FrameError as error:
            self._damaged(error)
            return None
        now = self._clock.monotonic()
        # The server's clock says how long it has to live (-1: no expiry); ours only counts on from here.
        expires = math.inf if life < 0 else now + life / 1000
        fresh_until = expires - frame.stale_for
        size = len(frame.payload) + len(key)
        # A mutable value comes with its packed form: the value is this caller's own, the next one unpacks another.
        return Entry(value, None if is_immutable(value) else frame.payload, fresh_until, expires, size)

    def _frame(self, key: str, entry: Entry) -> tuple[bytes, int | None]:
        now = self._clock.monotonic()
        payload = self._codec.dumps(entry.value) if entry.payload is None else entry.payload
        fresh_for = max(0.0, entry.fresh_until - now)
        if fresh_for > _FOREVER:
            return encode_frame(Frame(key, self._clock.time(), fresh_for, 0.0, payload)), None
        # What is fresh for a time only gets an expiry, however long it may be served stale: freshness is read from it.
        life = min(max(0.0, entry.expires - now), _FOREVER)
        frame = Frame(key, self._clock.time(), fresh_for, max(0.0, life - fresh_for), payload)
        # At least a millisecond: what stands under the key now must go in any case.
        return encode_frame(frame), max(1, int(life * 1000))

    def _link(self) -> Link:
        return self._links.get(asyncio.get_running_loop()) or self._connect()

    def _connect(self) -> Link:
        pool = self._make_pool()
        # The URL may ask for fewer connections than we do.
        link = Link(pool, min(self._config.redis_max_connections, pool.max_connections))
        with self._lock:
            self._forget_closed_loops()
            self._links[asyncio.get_running_loop()] = link
        return link

    def _make_pool(self) -> ConnectionPool:
        config = self._config
        url = config.redis_url or ""
        if config.redis_ssl and url.startswith("redis://"):
            url = "rediss://" + url.removeprefix("redis://")
        options: dict[str, Any] = {
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "health_check_interval": 0,
            "decode_responses": False,
            "max_connections": config.redis_max_connections,
        }
        if config.redis_password is not None:
            options["password"] = config.redis_password
        try:
            pool = ConnectionPool.from_url(url, **options)
            pool.connection_class(**pool.connection_kwargs)  # opens nothing, and refuses options that it does not know
        except (ValueError, TypeError) as error:
            # The text of the cause may repeat the URL, which may hold a password.
            raise ConfigurationError(
                f"redis_url is refused by redis-py ({type(error).__name__}): check the options after the '?'"
            ) from None
        if pool.connection_kwargs.get("decode_responses"):
            raise ConfigurationError("redis_url: values are bytes, so decode_responses cannot be on")
        return pool

    def _forget_closed_loops(self) -> None:
        # A client refers to its loop, so the weak keys alone would never let go of a loop that was closed.
        for loop in [loop for loop in self._links if loop.is_closed()]:
            del self._links[loop]

    async def _contained(self, operation: str, call: Awaitable[T], timeout: float | None = -1) -> T:
        try:
            async with asyncio.timeout(self._timeout if timeout == -1 else timeout):
                return await call
        except TimeoutError:
            _LOG.warning("redis: %s took more than %s s", operation, self._timeout)
            raise LayerTimeout(self.name, operation) from None
        except (RedisError, OSError) as error:
            _LOG.warning("redis: %s failed: %s", operation, type(error).__name__)
            raise LayerError(self.name, operation) from error


def _closing_in(loop: asyncio.AbstractEventLoop, link: Link) -> asyncio.Future[None] | None:
    closing = link.aclose()
    try:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(closing, loop))
    except RuntimeError:  # closed since, and its connections with it
        closing.close()
        return None


def _set(name: bytes, frame: bytes, life: int | None) -> tuple[Any, ...]:
    return ("SET", name, frame) if life is None else ("SET", name, frame, "PX", life)


def _log_damage(error: FrameError) -> None:
    _LOG.warning("redis: an entry is damaged or not ours (%s) and counts as missing", error.reason)
