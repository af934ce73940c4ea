"""What Redis could not be told is told when it answers again, and until then it counts as told."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from aurelis.cache import CacheLayer, CacheManager
from aurelis.cache.exceptions import LayerError
from aurelis.cache.telemetry import names
from tests.managers import WITHIN, configuration, count, eventually, opened
from tests.proxies import Proxy, Refuse
from tests.servers import ServerProcess


@pytest.fixture
async def pair(own_redis: ServerProcess) -> AsyncIterator[tuple[CacheManager, CacheManager]]:
    """Two processes' caches, as it were; the second one has no memory of its own."""
    options = {"redis_url": own_redis.url, "namespace": "pair", "timeout": 0.2, "breaker_pause": 0.1, "heartbeat": 0.5}
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(opened(configuration(**options)))
        layers = [CacheLayer("L2", "redis", 600)]
        two = await stack.enter_async_context(opened(configuration(**options, layers=layers)))
        yield one, two


def pending(cache: CacheManager) -> int:
    """Returns how many changes wait."""
    recovery = cache._engine.stack.recovery
    assert recovery is not None
    return recovery.pending


async def until(read: Callable[[], Awaitable[object]], expected: object) -> None:
    """Waits until something asynchronous gives a value."""
    deadline = time.monotonic() + WITHIN
    while await read() != expected:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("timeout", [0.2, math.inf])
async def test_a_value_that_was_not_stored_is_stored_later(redis_url: str, timeout: float) -> None:
    options = {"namespace": "later", "timeout": timeout, "breaker_pause": 0.1}
    layers = [CacheLayer("L2", "redis", 600)]
    with Proxy(redis_url) as proxy:
        async with (
            opened(configuration(redis_url=proxy.url, **options)) as one,
            opened(configuration(redis_url=redis_url, layers=layers, **options)) as two,
        ):
            await one.set("k", "old")
            with proxy.during(Refuse()):
                proxy.reset()
                assert await one.set("k", "new") is False
                assert await one.get("k") == "new"
                assert pending(one) == 1
                assert await two.get("k") == "old"
            await eventually(lambda: pending(one) == 0)
            assert await two.get("k") == "new"
            assert await one.get("k") == "new"
            assert count(one, names.RECOVERED) == 1


async def test_it_is_removed_instead_when_anything_was_changed_since(
    pair: tuple[CacheManager, CacheManager], own_redis: ServerProcess
) -> None:
    one, two = pair
    await one.set("k", "old")
    own_redis.pause()
    assert await one.set("k", "of one") is False
    own_redis.resume()
    await two.set("k", "of two")  # comes first, as the other one pauses before it tries again
    await two.delete("k")
    await eventually(lambda: pending(one) == 0)
    assert await two.get("k") is None
    await until(lambda: one.get("k"), None)


async def test_after_a_restart_without_data_nobody_reads_what_was_before(
    pair: tuple[CacheManager, CacheManager], own_redis: ServerProcess
) -> None:
    one, two = pair
    await one.set("k", "old")
    own_redis.stop()
    assert await one.set("k", "new") is False
    own_redis.start()
    await eventually(lambda: pending(one) == 0)
    assert await two.get("k") in (None, "new")


async def test_a_key_that_was_not_removed_is_gone_here_at_once_and_everywhere_later(
    pair: tuple[CacheManager, CacheManager], own_redis: ServerProcess
) -> None:
    one, two = pair
    await one.set("k", "value")
    own_redis.pause()
    with pytest.raises(LayerError):
        await one.delete("k")
    own_redis.resume()
    assert await one.get("k") is None  # though it may be there
    await eventually(lambda: pending(one) == 0)
    assert await two.get("k") is None


@pytest.mark.parametrize("soft", [False, True])
async def test_a_tag_that_was_not_invalidated_is_invalid_here_at_once_and_everywhere_later(
    pair: tuple[CacheManager, CacheManager], own_redis: ServerProcess, soft: bool
) -> None:
    one, two = pair
    await one.set("k", "value", tags=["t"])
    await one.set("other", "value", tags=["u"])
    own_redis.pause()
    with pytest.raises(LayerError):
        await one.invalidate_tags("t", soft=soft)
    assert await one.get("k") is None
    own_redis.resume()
    assert await one.get("k") is None
    await eventually(lambda: pending(one) == 0)
    assert await two.get("k") is None
    assert await two.get("other") == "value"
    await one.set("k", "again", tags=["t"])
    assert await two.get("k") == "again"


async def test_the_last_intent_for_a_key_wins(
    pair: tuple[CacheManager, CacheManager], own_redis: ServerProcess
) -> None:
    one, two = pair
    await one.set("a", 0)
    await one.set("b", 0)
    own_redis.pause()
    assert await one.set("a", 1) is False
    with pytest.raises(LayerError):
        await one.delete("a")
    with pytest.raises(LayerError):
        await one.delete("b")
    assert await one.set("b", 2) is False
    assert pending(one) == 2
    own_redis.resume()
    await eventually(lambda: pending(one) == 0)
    assert await two.get("a") is None
    assert await two.get("b") in (2, None)  # the delete may have reached Redis, which changes its clock


async def test_too_many_intents_become_one_that_says_more(
    pair: tuple[CacheManager, CacheManager], own_redis: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    monkeypatch.setattr("aurelis.cache._recovery._MAX_INTENTS", 3)
    await one.set_many({f"k{number}": number for number in range(5)})
    own_redis.pause()
    for number in range(5):
        with pytest.raises(LayerError):
            await one.delete(f"k{number}")
    assert pending(one) <= 3
    own_redis.resume()
    await eventually(lambda: pending(one) == 0)
    assert await two.get_many([f"k{number}" for number in range(5)]) == {}
