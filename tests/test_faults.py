"""Redis away, hanging, restarted and interrupted, under load: nobody's request fails, and it heals by itself."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis

from aurelis.cache import CacheLayer, CacheManager
from aurelis.cache.exceptions import LayerError, LayerTimeout, LayerUnavailableError
from aurelis.cache.telemetry import names
from tests.managers import WITHIN, configuration, count, eventually, opened, requests, series
from tests.servers import ServerProcess

TIMEOUT = 0.25
SLACK = 0.75
"""Seconds that hundreds of tasks may take to get their turns on a busy machine."""
CALLERS = 300
KEYS = [f"key {number}" for number in range(100)]


def value_of(key: str) -> dict[str, Any]:
    """Returns what belongs under the key."""
    return {"key": key, "rows": [key] * 5}


@pytest.fixture
async def cache(own_redis: ServerProcess) -> AsyncIterator[CacheManager]:
    """A cache in Redis alone, so that every request goes there."""
    config = configuration(
        redis_url=own_redis.url, layers=[CacheLayer("L2", "redis", 60)], timeout=TIMEOUT, breaker_pause=0.3
    )
    async with opened(config) as manager:
        yield manager


class Load:
    """Requests of all kinds, hundreds at a time, that check their answers and measure how long each took."""

    def __init__(self, cache: CacheManager) -> None:
        self.cache = cache
        self.latencies: list[float] = []
        self.made = 0
        self._chance = random.Random(3)

    async def request(self) -> None:
        """One request; any exception is a failure of the test."""
        key = self._chance.choice(KEYS)

        async def load() -> dict[str, Any]:
            return value_of(key)

        begin = asyncio.get_running_loop().time()
        kind = self._chance.randrange(10)
        self.made += {0: 0, 3: 5}.get(kind, 1)
        match kind:
            case 0:
                await self.cache.set(key, value_of(key))
            case 1 | 2:
                assert await self.cache.get(key) in (None, value_of(key))
            case 3:
                wanted = self._chance.sample(KEYS, 5)
                found = await self.cache.get_many(wanted)
                assert found == {one: value_of(one) for one in wanted if one in found}
            case _:
                assert await self.cache.get_or_compute(key, load) == value_of(key)
        self.latencies.append(asyncio.get_running_loop().time() - begin)

    async def burst(self) -> None:
        """Many requests at once."""
        await asyncio.gather(*(self.request() for _ in range(CALLERS)))

    async def during(self, change: Callable[[], object], *, until: Callable[[], object]) -> None:
        """Requests without a break, while something happens to Redis and until it shows."""
        over = asyncio.Event()

        async def bursts() -> None:
            while not over.is_set():
                await self.burst()

        running = asyncio.create_task(bursts())
        await asyncio.to_thread(change)
        await eventually(lambda: until() or running.done())
        over.set()
        await running

    async def seconds_for_many(self) -> float:
        """Returns how long a hundred requests take one after the other."""
        begin = asyncio.get_running_loop().time()
        for _ in range(100):
            await self.request()
        return asyncio.get_running_loop().time() - begin


def changes(cache: CacheManager, state: str) -> float:
    """Returns how often the breaker has changed to a state."""
    return count(cache, names.BREAKER, {names.BREAKER_STATE: state})


async def heals(load: Load) -> None:
    """Redis is used again, without anybody doing anything but asking."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    hits = requests(load.cache).get("hit l2", 0)
    while not await load.cache.set("probe", 1):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    while requests(load.cache).get("hit l2", 0) == hits:
        assert asyncio.get_running_loop().time() < deadline
        load.made += 1
        assert await load.cache.get("probe") in (None, 1)
    await load.burst()


def assert_counted(load: Load) -> None:
    """Requests are counted once each, whatever happened to Redis."""
    results = requests(load.cache)
    assert sum(number for result, number in results.items() if result != "loads") == load.made


async def test_redis_down_from_the_start_costs_nearly_nothing(own_redis: ServerProcess, cache: CacheManager) -> None:
    own_redis.stop()
    load = Load(cache)
    await load.burst()
    assert max(load.latencies) < TIMEOUT + SLACK
    assert changes(cache, "open") == 1 + changes(cache, "half_open")
    assert await load.seconds_for_many() < TIMEOUT + SLACK
    assert not await cache.set("k", 1)
    own_redis.start()
    await heals(load)
    assert changes(cache, "closed") >= 1
    assert_counted(load)


@pytest.mark.parametrize("fault", ["stop", "pause"])
async def test_redis_going_away_under_load_fails_no_request_and_it_heals(
    own_redis: ServerProcess, cache: CacheManager, fault: str
) -> None:
    load = Load(cache)
    await load.burst()
    load.latencies.clear()
    await load.during(own_redis.stop if fault == "stop" else own_redis.pause, until=lambda: changes(cache, "open"))
    # Nobody waited for longer than the timeout, and then nobody waits at all.
    assert max(load.latencies) < TIMEOUT + SLACK
    assert await load.seconds_for_many() < 2 * TIMEOUT + SLACK
    assert count(cache, names.LOOKUPS, {names.LAYER: names.L2, names.RESULT: "skipped"}) > 0
    await load.during(own_redis.start if fault == "stop" else own_redis.resume, until=lambda: changes(cache, "closed"))
    await heals(load)
    states = {dict(attributes)[names.BREAKER_STATE] for attributes in series(cache, names.BREAKER)}
    assert states == {"open", "half_open", "closed"}
    assert changes(cache, "half_open") >= changes(cache, "closed") >= 1
    errors = {dict(attributes)[names.ERROR_TYPE] for attributes in series(cache, names.ERRORS)}
    # On a machine that is busy with other things a refused connection may be heard of too late.
    assert errors & {"timeout", "ConnectionError"}
    assert_counted(load)


async def test_a_redis_that_comes_back_empty_is_filled_again(own_redis: ServerProcess, cache: CacheManager) -> None:
    """Its scripts are gone, too."""
    load = Load(cache)
    await load.burst()

    def restart() -> None:
        own_redis.stop()
        own_redis.start()

    await load.during(restart, until=lambda: True)
    await heals(load)
    async with opened(configuration(redis_url=own_redis.url, timeout=WITHIN)) as other:
        assert await other.get_many(KEYS)


async def test_while_redis_hangs_loads_are_still_shared(own_redis: ServerProcess, cache: CacheManager) -> None:
    own_redis.pause()
    loads = 0

    async def load() -> int:
        nonlocal loads
        loads += 1
        return loads

    assert await asyncio.gather(*(cache.get_or_compute("k", load) for _ in range(CALLERS))) == [1] * CALLERS
    assert requests(cache) == {"miss": CALLERS, "loads": 1}
    own_redis.resume()


async def test_memory_answers_as_ever_while_redis_hangs(own_redis: ServerProcess) -> None:
    async with opened(configuration(redis_url=own_redis.url, timeout=TIMEOUT)) as cache:
        await cache.set_many({key: value_of(key) for key in KEYS})
        own_redis.pause()
        begin = asyncio.get_running_loop().time()
        for _ in range(20):
            assert await cache.get_many(KEYS) == {key: value_of(key) for key in KEYS}
        assert asyncio.get_running_loop().time() - begin < TIMEOUT + SLACK
        assert requests(cache) == {"hit l1": 2000}
        assert count(cache, names.ERRORS) == 0
        own_redis.resume()


@pytest.mark.parametrize("fault", ["stop", "pause"])
async def test_what_could_not_be_invalidated_everywhere_raises(own_redis: ServerProcess, fault: str) -> None:
    async with opened(configuration(redis_url=own_redis.url, timeout=0.1, breaker_failures=3)) as cache:
        await cache.set_many({"a": 1, "b": 1})
        own_redis.stop() if fault == "stop" else own_redis.pause()
        with pytest.raises(LayerError) as caught:
            await cache.delete("a")
        assert (caught.value.layer, caught.value.operation) == ("l2", "delete")
        assert isinstance(caught.value, LayerTimeout) == (fault == "pause")
        with pytest.raises(LayerError) as caught:
            await cache.clear()
        assert caught.value.operation == "clear"
        # In this process at least it is gone.
        assert await cache.get_many("ab") == {}
        assert not await cache.set("a", 2, ttl=0)
        with pytest.raises(LayerUnavailableError):
            await cache.delete("a")
        if fault == "pause":
            own_redis.resume()


async def test_a_load_is_not_kept_waiting_twice(own_redis: ServerProcess, cache: CacheManager) -> None:
    """Reading and storing share one budget."""
    own_redis.pause()

    async def load() -> int:
        return 1

    begin = asyncio.get_running_loop().time()
    assert await cache.get_or_compute("k", load) == 1
    assert TIMEOUT * 0.9 < asyncio.get_running_loop().time() - begin < 2 * TIMEOUT
    own_redis.resume()


@pytest.mark.parametrize("how", ["set", "delete"])
async def test_a_change_that_waits_for_what_is_being_stored_waits_no_longer_than_any_other(
    own_redis: ServerProcess, how: str
) -> None:
    """The wait and the change itself have one budget."""
    loaded = asyncio.Event()

    async def load() -> int:
        await asyncio.to_thread(own_redis.pause)
        loaded.set()
        return 1

    async with opened(configuration(redis_url=own_redis.url, timeout=0.5)) as cache:
        loading = asyncio.create_task(cache.get_or_compute("k", load))
        await loaded.wait()
        await asyncio.sleep(0)
        begin = asyncio.get_running_loop().time()
        if how == "set":
            assert not await cache.set("k", 2)
        else:
            with pytest.raises(LayerTimeout):
                await cache.delete("k")
        assert asyncio.get_running_loop().time() - begin < 0.9
        assert await loading == 1
        own_redis.resume()


async def test_hundreds_of_cancelled_requests_leave_every_connection_with_its_own_answers(
    own_redis: ServerProcess,
) -> None:
    """A connection given back with an answer unread would hand it to the next caller, who asked for something else."""
    chance = random.Random(5)
    config = configuration(redis_url=own_redis.url, layers=[CacheLayer("L2", "redis", 60)], timeout=WITHIN)
    async with opened(config) as cache:
        await cache.set_many({key: value_of(key) for key in KEYS})

        async def ask(key: str) -> bool:
            match chance.randrange(3):
                case 0:
                    return bool((await cache.get_many([key])) == {key: value_of(key)})
                case 1:
                    return bool(await cache.get_or_compute(key, never) == value_of(key))
                case _:
                    return bool(await cache.get(key) == value_of(key))

        async def never() -> object:
            raise AssertionError("it is there")

        cancelled = 0
        for _ in range(15):
            tasks = [asyncio.create_task(ask(chance.choice(KEYS))) for _ in range(100)]
            victims = chance.sample(tasks, 60)
            for victim in victims:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                cancelled += victim.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            ended = sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            assert all(outcome is True or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            cancelled -= ended
        # Not one cancellation was swallowed on the way.
        assert cancelled == 0
        for _ in range(3):
            for key in KEYS:
                assert await cache.get(key) == value_of(key)
            assert all(await asyncio.gather(*(ask(key) for key in KEYS * 3)))
        assert count(cache, names.ERRORS) == 0


async def test_requests_cancelled_while_redis_hangs_end_at_once_and_do_not_count_against_it(
    own_redis: ServerProcess,
) -> None:
    config = configuration(redis_url=own_redis.url, layers=[CacheLayer("L2", "redis", 60)], timeout=WITHIN)
    async with opened(config) as cache:
        await cache.set("k", 1)
        own_redis.pause()
        tasks = [asyncio.create_task(cache.get("k")) for _ in range(CALLERS)]
        await asyncio.sleep(0)
        begin = asyncio.get_running_loop().time()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        assert asyncio.get_running_loop().time() - begin < SLACK
        own_redis.resume()
        assert await cache.get("k") == 1
        assert changes(cache, "open") == 0
        assert requests(cache) == {"miss": CALLERS, "hit l2": 1, "loads": CALLERS}


async def test_each_request_that_memory_cannot_answer_is_one_round_trip(own_redis: ServerProcess) -> None:
    config = configuration(redis_url=own_redis.url, timeout=WITHIN, heartbeat=60)  # none while it is looked at
    async with opened(config) as writer, opened(config) as reader:
        await writer.set_many({key: value_of(key) for key in KEYS})
        await writer.set("warm", 0)
        await reader.get("warm")  # connection and tags are there
        await reader.get_many(["cold", "colder"])  # and so are the scripts
        with redis.Redis.from_url(own_redis.url) as raw:

            async def commands_of(act: Any) -> dict[str, int]:
                raw.config_resetstat()
                await act
                stats: Any = raw.info("commandstats")
                sent = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
                # The script's own commands run in the server.
                inside = {"get", "pttl", "info", "config|resetstat"}
                return {name: calls for name, calls in sent.items() if name not in inside}

            assert await commands_of(reader.get(KEYS[0])) == {"evalsha": 1}
            # Four commands that are sent together.
            assert await commands_of(reader.get_many(KEYS)) == {"multi": 1, "mget": 1, "evalsha": 1, "exec": 1}
            assert await commands_of(reader.get_many(KEYS)) == {}
            assert await commands_of(reader.get("missing")) == {"evalsha": 1}
            await reader.set("k", 0)  # that script, too
            # The next generation, then the change with the key's own tag and word of it. The rest is inside.
            assert await commands_of(reader.set("k", 1)) == {"evalsha": 2, "set": 2, "unlink": 1, "publish": 1}
