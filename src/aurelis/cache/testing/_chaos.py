"""Layers that fail as they do in production: at random, replayed by a seed, and healed at a word."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from aurelis.cache._entry import Entry
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.typing import Acquired, Layer, Message, Newsroom, SearchableLayer, SharedLayer

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, and how often. All but the delays are probabilities, between 0 and 1; by default nothing does.

    Attributes:
        fail: a call raises before anything is done.
        fail_after: it is done, and then the call raises.
        hang: a call never returns unless it is cancelled, and nothing is done.
        hang_after: likewise, but it is done.
        delay: from and to how many seconds a call is on its way, and its answer as long again.
        drop: a message does not arrive.
        duplicate: it arrives twice, the second time at a moment of its own.
        lag: from and to how many seconds a message is late. Each has its own, so that they overtake each other.
        beats: whether signs of life are dropped, too.
        disconnect: in the place of a message, its connection ends.
        refuse: listening cannot begin.

    Raises:
        ConfigurationError: a probability is out of range, or a delay is none.
    """

    fail: float = 0.0
    fail_after: float = 0.0
    hang: float = 0.0
    hang_after: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)
    drop: float = 0.0
    duplicate: float = 0.0
    lag: tuple[float, float] = (0.0, 0.0)
    beats: bool = True
    disconnect: float = 0.0
    refuse: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fail", "fail_after", "hang", "hang_after", "drop", "duplicate", "disconnect", "refuse"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"Faults: {name} is a probability, between 0 and 1")
        for name in ("delay", "lag"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ConfigurationError(f"Faults: {name} is a pair of seconds, the smaller one first")


NONE = Faults()
DOWN = Faults(fail=1.0, drop=1.0, refuse=1.0)


class Chaos:
    """Decides what goes wrong in the layers that are given it.

    Args:
        faults: what goes wrong now; `None`: nothing.
        seed: the same calls in the same order with the same seed go wrong in the same way.
        error: makes what is raised; `None`: a `ConnectionError`.

    Attributes:
        faults: may be replaced at any time.
        happened: how often each fault was used.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import CacheManager
        >>> async def main() -> list[object]:
        ...     chaos = Chaos(Faults(fail=1.0))
        ...     async with CacheManager(lower=[ChaosSharedLayer(SharedMemory().node(), chaos)]) as cache:
        ...         stored = await cache.set("greeting", "hello")  # in memory only
        ...         chaos.heal()
        ...         return [stored, await cache.set("greeting", "hello")]
        >>> from aurelis.cache.testing import SharedMemory
        >>> asyncio.run(main())
        [False, True]
    """

    def __init__(
        self,
        faults: Faults | None = None,
        *,
        seed: int = 0,
        error: Callable[[], Exception] | None = None,
    ) -> None:
        self.faults = faults or NONE
        self.happened: dict[str, int] = {}
        self._random = random.Random(seed)
        self._error = error or partial(ConnectionError, "chaos")
        self._lines: list[asyncio.Queue[Message | Exception | None]] = []

    def heal(self) -> None:
        """From now on nothing goes wrong. What hangs already goes on hanging."""
        self.faults = NONE

    def cut(self) -> None:
        """From now on every call fails, and no message arrives."""
        self.faults = DOWN
        self.disconnect()

    def disconnect(self) -> None:
        """End the connections on which messages come."""
        for line in self._lines:
            line.put_nowait(self._error())

    # For layers

    async def act(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do it, if nothing goes wrong, and return its answer, if it is not lost."""
        faults = self.faults
        await self._pass(faults.delay)
        if self._does("fail", faults.fail):
            raise self._error()
        if self._does("hang", faults.hang):
            await _hang()
        answer = await call()
        await self._pass(faults.delay)
        if self._does("fail_after", faults.fail_after):
            raise self._error()
        if self._does("hang_after", faults.hang_after):
            await _hang()
        return answer

    async def carry(self, news: AsyncGenerator[Message | None, None]) -> AsyncGenerator[Message | None, None]:
        """The messages that arrive, when they do."""
        if self._does("refuse", self.faults.refuse):
            raise self._error()
        line: asyncio.Queue[Message | Exception | None] = asyncio.Queue()
        timers: set[asyncio.TimerHandle] = set()
        self._lines.append(line)
        pump = asyncio.create_task(self._pump(news, line, timers))
        try:
            while True:
                message = await line.get()
                if isinstance(message, Exception):
                    raise message
                yield message
        finally:
            self._lines.remove(line)
            for timer in timers:
                timer.cancel()
            pump.cancel()
            await asyncio.wait((pump,))

    async def _pump(
        self,
        news: AsyncGenerator[Message | None, None],
        line: asyncio.Queue[Message | Exception | None],
        timers: set[asyncio.TimerHandle],
    ) -> None:
        try:
            async with contextlib.aclosing(news):
                async for message in news:
                    if message is None:
                        line.put_nowait(None)
                        continue
                    faults = self.faults
                    if self._does("disconnect", faults.disconnect):
                        raise self._error()
                    if (message.kind != "beat" or faults.beats) and self._does("drop", faults.drop):
                        continue
                    for _ in range(2 if self._does("duplicate", faults.duplicate) else 1):
                        self._later(line, message, timers)
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the listener
            line.put_nowait(error)

    def _later(
        self,
        line: asyncio.Queue[Message | Exception | None],
        message: Message,
        timers: set[asyncio.TimerHandle],
    ) -> None:
        lag = self._random.uniform(*self.faults.lag)
        if not lag:
            line.put_nowait(message)
            return

        def arrive() -> None:
            timers.discard(timer)
            line.put_nowait(message)

        timer = asyncio.get_running_loop().call_later(lag, arrive)
        timers.add(timer)

    async def _pass(self, delay: tuple[float, float]) -> None:
        if delay[1]:
            await asyncio.sleep(self._random.uniform(*delay))

    def _does(self, fault: str, probability: float) -> bool:
        # Without a draw where nothing can go wrong, so that what heals does not shift what is drawn elsewhere.
        if not probability or self._random.random() >= probability:
            return False
        self.happened[fault] = self.happened.get(fault, 0) + 1
        return True


class ChaosLayer:
    """A layer with faults.

    Args:
        layer: what is called when nothing goes wrong.
        chaos: decides; several layers may have the same one.
    """

    def __init__(self, layer: Layer, chaos: Chaos) -> None:
        self._layer = layer
        self._chaos = chaos

    @property
    def name(self) -> str:
        """That of the layer."""
        return self._layer.name

    async def lookup(self, key: str) -> Entry | None:
        """See `Layer.lookup`."""
        return await self._chaos.act(partial(self._layer.lookup, key))

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """See `Layer.lookup_many`."""
        return await self._chaos.act(partial(self._layer.lookup_many, keys))

    async def store(self, key: str, entry: Entry) -> None:
        """See `Layer.store`."""
        await self._chaos.act(partial(self._layer.store, key, entry))

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """See `Layer.store_many`."""
        await self._chaos.act(partial(self._layer.store_many, entries))

    async def remove(self, key: str) -> bool:
        """See `Layer.remove`."""
        return await self._chaos.act(partial(self._layer.remove, key))

    async def remove_all(self) -> None:
        """See `Layer.remove_all`."""
        await self._chaos.act(self._layer.remove_all)

    async def aclose(self) -> None:
        """Close the layer, which never goes wrong."""
        await self._layer.aclose()


class SharedNews(SharedLayer, Newsroom, SearchableLayer, Protocol):
    """A shared layer that carries messages and whose keys can be looked through."""


class ChaosSharedLayer(ChaosLayer):
    """A shared layer with faults, such as `RedisBackend` or a node of `SharedMemory`, and its messages.

    Args:
        layer: as for `ChaosLayer`.
        chaos: decides about calls.
        news: decides about messages; `None`: the same.
    """

    def __init__(self, layer: SharedNews, chaos: Chaos, news: Chaos | None = None) -> None:
        super().__init__(layer, chaos)
        self._shared = layer
        self._news = news or chaos

    @property
    def node(self) -> str:
        """Name of this process there."""
        return self._shared.node

    @property
    def own_thread(self) -> bool:
        """Whether messages can be listened to in a thread of its own: they cannot, as faults belong to one loop."""
        return False

    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        """See `SharedLayer.acquire`."""
        return await self._chaos.act(partial(self._shared.acquire, key, own, again=again, life=life))

    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        """See `SharedLayer.renew`."""
        return await self._chaos.act(partial(self._shared.renew, key, lease, life))

    async def release(self, key: str, lease: bytes) -> None:
        """See `SharedLayer.release`."""
        await self._chaos.act(partial(self._shared.release, key, lease))

    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        """See `SharedLayer.publish`."""
        return await self._chaos.act(partial(self._shared.publish, key, lease, entries, release=release))

    async def assign(self, entries: Mapping[str, Entry]) -> int:
        """See `SharedLayer.assign`."""
        return await self._chaos.act(partial(self._shared.assign, entries))

    async def take(self, key: str) -> Entry | None:
        """See `SharedLayer.take`."""
        return await self._chaos.act(partial(self._shared.take, key))

    async def announce(self, keys: Sequence[str]) -> int:
        """See `SharedLayer.announce`."""
        return await self._chaos.act(partial(self._shared.announce, keys))

    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """See `SharedLayer.generations`."""
        return await self._chaos.act(partial(self._shared.generations, tags))

    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        """See `SharedLayer.invalidate`."""
        return await self._chaos.act(partial(self._shared.invalidate, tags, soft=soft, known=known))

    async def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        """See `SearchableLayer.keys`."""
        async with contextlib.aclosing(self._shared.keys(start)) as batches:
            while (batch := await self._chaos.act(partial(anext, batches, None))) is not None:
                yield batch

    async def discard(self, keys: Sequence[str]) -> int:
        """See `SearchableLayer.discard`."""
        return await self._chaos.act(partial(self._shared.discard, keys))

    async def beat(self) -> None:
        """Send a sign of life."""
        await self._chaos.act(self._shared.beat)

    async def news(self) -> AsyncGenerator[Message | None, None]:
        """Messages, those that arrive."""
        async with contextlib.aclosing(self._news.carry(self._shared.news())) as messages:
            async for message in messages:
                yield message


async def _hang() -> None:
    await asyncio.get_running_loop().create_future()
