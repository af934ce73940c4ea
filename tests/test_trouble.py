"""What fails outside is in the log once, with its cause and without secrets, and so is its end."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from aurelis.cache import CacheManager
from aurelis.cache._trouble import _QUIET, Trouble
from aurelis.cache.testing import Chaos, ChaosSharedLayer, SharedMemory
from tests.managers import WITHIN, configuration, eventually, opened
from tests.servers import ServerProcess, redis_command

SECRET = "hunter2"
DEAF = "listening for changes of other processes fails ({}): what is in memory is verified before it is used"


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    """Returns the warnings of the cache."""
    return [
        record.getMessage()
        for record in log.records
        if record.name == "aurelis.cache" and record.levelno >= logging.WARNING
    ]


async def used_until(cache: CacheManager, condition: Callable[[], bool]) -> None:
    """Has the cache ask its layers until something is true."""
    async with asyncio.timeout(WITHIN):
        while not condition():
            await cache.get("none")
            await asyncio.sleep(0.001)


def test_each_cause_is_told_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble("the layer l2", "requests go on without it")
    trouble.over(0)
    assert warnings(caplog) == []
    for now in range(3):
        trouble.met("ConnectionError", now)
        trouble.met("TimeoutError", now)
    first = "the layer l2 fails (ConnectionError): requests go on without it"
    assert warnings(caplog) == [first, "the layer l2 fails (TimeoutError): requests go on without it"]
    caplog.clear()
    trouble.over(_QUIET + 5)
    trouble.over(_QUIET + 6)
    assert warnings(caplog) == ["the layer l2 works again"]
    caplog.clear()
    trouble.met("ConnectionError", _QUIET + 7)
    assert warnings(caplog) == [first]


def test_what_comes_and_goes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble("the layer l2", "requests go on without it")
    for now in range(int(_QUIET)):
        trouble.met("ConnectionError", now)
        trouble.over(now + 0.5)
    assert len(warnings(caplog)) == 2


def test_what_is_back_at_once_and_stays_is_told(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble("the layer l2", "requests go on without it")
    trouble.met("ConnectionError", 0)
    trouble.over(1)
    caplog.clear()
    for now in range(2, 10 * int(_QUIET)):
        trouble.met("ConnectionError", now)
    assert warnings(caplog) == ["the layer l2 fails (ConnectionError): requests go on without it"]
    caplog.clear()
    trouble.over(10 * _QUIET)
    assert warnings(caplog) == ["the layer l2 works again"]


def test_a_thread_that_meets_something_does_not_disturb_another_one_for_which_it_is_over() -> None:
    trouble = Trouble("the layer l2", "requests go on without it")

    class Instant(float):
        def __sub__(self, other: float) -> float:
            trouble.met("TimeoutError", 0)  # as if by another thread
            return float(self) - other

    trouble.met("ConnectionError", 0)
    trouble.over(Instant(1))


async def test_a_wrong_password_is_told_once_and_never_shown(
    own_redis: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    redis_command(own_redis.port, "CONFIG SET requirepass right")
    config = configuration(
        redis_url=own_redis.url,
        redis_password=SECRET,
        timeout=5,
        breaker_pause=0.01,
        breaker_failures=2,
        heartbeat=0.05,
    )
    async with opened(config) as cache:
        for number in range(20):
            await cache.get(f"the key {number}")
            await asyncio.sleep(0.01)
        assert sorted(warnings(caplog)) == [
            DEAF.format("AuthenticationError"),
            "the layer l2 fails (AuthenticationError): requests go on without it",
        ]
        redis_command(own_redis.port, f"AUTH right\r\nCONFIG SET requirepass {SECRET}")
        await used_until(cache, lambda: len(warnings(caplog)) == 4)
        assert sorted(warnings(caplog))[1::2] == [
            "listening for changes of other processes works again",
            "the layer l2 works again",
        ]
    assert SECRET not in caplog.text
    assert "the key" not in caplog.text


async def test_a_right_that_is_missing_is_told(
    shared_redis: ServerProcess, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis_command(shared_redis.port, f"ACL SETUSER deaf on >{SECRET} ~* &* +@all -subscribe")
    try:
        url = redis_url.replace("//", f"//deaf:{SECRET}@")
        async with opened(configuration(redis_url=url, timeout=5, heartbeat=0.05)) as cache:
            await cache.set("k", 1)
            await eventually(lambda: warnings(caplog))
            await asyncio.sleep(0.2)
        assert warnings(caplog) == [DEAF.format("NoPermissionError")]
    finally:
        redis_command(shared_redis.port, "ACL DELUSER deaf")


async def test_an_outage_is_told_with_its_end(caplog: pytest.LogCaptureFixture) -> None:
    redis, chaos = SharedMemory(), Chaos()
    config = configuration(breaker_pause=0.01, breaker_failures=2)
    async with CacheManager(config, lower=[ChaosSharedLayer(redis.node(), chaos)]) as cache:
        await cache.set("k", 1)
        chaos.cut()
        for _ in range(30):
            await cache.get("other")
            await asyncio.sleep(0.001)
        told = [text for text in warnings(caplog) if text.startswith("the layer")]
        assert len(told) == len(set(told)) >= 1
        chaos.heal()

        await used_until(cache, lambda: "the layer l2 works again" in warnings(caplog))
        assert warnings(caplog).count("the layer l2 works again") == 1


async def test_closing_is_no_trouble(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(configuration(redis_url=redis_url, timeout=5, heartbeat=0.05)) as cache:
        await cache.set("k", 1)
    assert warnings(caplog) == []
