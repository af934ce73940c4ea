"""Time that moves only when it is told to."""

from __future__ import annotations

from aurelis.cache._clock import Clock
from aurelis.cache._options import Duration, seconds

_START = 1_000_000.0
_EPOCH = 1_800_000_000.0


class ManualClock(Clock):
    """A clock that stands still until `advance` moves it: both its clocks at once, by the same amount.

    Threads may read it while one of them advances it. It moves no clock but its own: Redis goes by the server's time,
    and timeouts by the event loop's.

    Args:
        monotonic: seconds since an arbitrary instant, at which it starts.
        time: seconds since the Unix epoch, at which it starts.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import CacheManager
        >>> async def main() -> list[object]:
        ...     clock = ManualClock()
        ...     async with CacheManager(clock=clock) as cache:
        ...         await cache.set("greeting", "hello", ttl=60)
        ...         clock.advance(59)
        ...         before = await cache.get("greeting")
        ...         clock.advance(1)
        ...         return [before, await cache.get("greeting")]
        >>> asyncio.run(main())
        ['hello', None]
    """

    __slots__ = ("_elapsed",)

    def __init__(self, monotonic: float = _START, time: float = _EPOCH) -> None:
        self._elapsed = 0.0
        super().__init__(lambda: monotonic + self._elapsed, lambda: time + self._elapsed)

    def advance(self, duration: Duration) -> None:
        """Let time pass.

        Args:
            duration: seconds or timedelta, ≥ 0.

        Raises:
            ValueError: it is negative or not a number.
        """
        self._elapsed += seconds(duration, "duration")
