"""The shared layer on a real Redis: foreign bytes, neighbours, round trips, cancellation, loops, and its options."""

import asyncio
import gc
import random
import selectors
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheConfig, CacheManager, RedisBackend
from aurelis.cache._entry import Entry
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.exceptions import ConfigurationError, FrameError, LayerError, LayerTimeout
from aurelis.cache.layers._link import ServerLink
from aurelis.cache.telemetry import names
from tests.loops import loop_threads
from tests.managers import WITHIN, configuration, count, eventually
from tests.servers import ServerProcess, redis_command

PATIENT = 10.0
"""Timeout where nothing is meant to time out, however busy the machine is."""


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """A client that sees what is really there."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def damages() -> list[str]:
    """The reasons of the frames that were reported."""
    return []


@pytest.fixture
async def layer(redis_url: str, damages: list[str]) -> AsyncIterator[RedisBackend]:
    """A layer on an empty Redis."""
    backend = RedisBackend(
        configuration(redis_url=redis_url, timeout=PATIENT), damaged=lambda error: damages.append(error.reason)
    )
    yield backend
    await backend.aclose()


def entry(value: object, now: float, life: float = 60.0) -> Entry:
    """Returns an entry that lives for `life` seconds."""
    return Entry(value, ValueCodec().dumps(value), now + life, now + life, 0)


def frame_of(raw: redis.Redis) -> tuple[bytes, bytes]:
    """Returns the only key there is, and what is stored under it."""
    (name,) = raw.keys()
    value = raw.get(name)
    assert isinstance(name, bytes)
    assert isinstance(value, bytes)
    return name, value


# --- what is stored


async def test_the_life_of_an_entry_is_that_of_its_key(layer: RedisBackend, raw: redis.Redis) -> None:
    await layer.set("a", 1, ttl=100)
    assert 99_000 < raw.pttl(frame_of(raw)[0]) <= 100_000


async def test_no_value_is_stored_without_an_expiry_unless_it_never_expires(
    layer: RedisBackend, raw: redis.Redis
) -> None:
    await layer.set("a", 1)
    name, _ = frame_of(raw)
    assert raw.pttl(name) > 0
    await layer.set("a", 1, ttl=float("inf"))
    assert raw.pttl(name) == -1


async def test_the_key_of_the_application_is_found_in_the_key_of_redis(layer: RedisBackend, raw: redis.Redis) -> None:
    """So that people who look into Redis find what they look for."""
    await layer.set("aurelis:v1:user:17", 1)
    assert frame_of(raw)[0] == b"aurelis:e:{aurelis:v1:user:17}"


async def test_remaining_life_goes_by_the_server_and_not_by_the_clock_of_who_stored_it(
    layer: RedisBackend, raw: redis.Redis
) -> None:
    await layer.set("a", 1, ttl=1000)
    raw.pexpire(frame_of(raw)[0], 5000)
    found = await layer.lookup("a")
    assert found is not None
    remaining = found.expires - layer._clock.monotonic()
    assert 0 < remaining <= 5


# --- foreign and damaged bytes


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"A",
        b"AuC",
        b"AuC\x02" + bytes(60),
        b"\x80\x04K\x01.",
        b'{"a": 1}',
        b"\x00" * 200,
        b"AuC\x01" + b"\xff" * 80,
    ],
    ids=repr,
)
async def test_garbage_under_our_key_is_a_miss_and_reported(
    layer: RedisBackend, raw: redis.Redis, damages: list[str], garbage: bytes
) -> None:
    await layer.set("k", 1)
    raw.set(frame_of(raw)[0], garbage)
    assert await layer.lookup("k") is None
    assert await layer.lookup_many(["k", "other"]) == {}
    assert len(damages) == 2


@pytest.mark.parametrize("kind", ["list", "hash", "set", "zset", "stream", "hyperloglog"])
async def test_another_type_under_our_key_is_a_miss_and_can_be_replaced(
    layer: RedisBackend, raw: redis.Redis, damages: list[str], kind: str
) -> None:
    name = b"aurelis:e:{k}"
    match kind:
        case "list":
            raw.rpush(name, "a")
        case "hash":
            raw.hset(name, "a", "b")
        case "set":
            raw.sadd(name, "a")
        case "zset":
            raw.zadd(name, {"a": 1})
        case "stream":
            raw.xadd(name, {"a": "b"})
        case _:
            raw.pfadd(name, "a")
    await layer.set("other", 2)
    assert await layer.lookup("k") is None
    assert list(await layer.lookup_many(["k", "other"])) == ["other"]
    assert len(damages) == 2
    assert await layer.set("k", "ours")
    assert await layer.get("k") == "ours"


async def test_the_frame_of_another_key_is_a_miss(layer: RedisBackend, raw: redis.Redis, damages: list[str]) -> None:
    await layer.set("a", "value of a")
    raw.rename("aurelis:e:{a}", "aurelis:e:{b}")
    assert await layer.get("b", "nothing") == "nothing"
    assert damages == ["key"]


async def test_an_object_of_a_class_that_is_not_registered_here_is_a_miss(
    redis_url: str, layer: RedisBackend, damages: list[str]
) -> None:
    import dataclasses

    @dataclasses.dataclass
    class Point:
        x: int

    other = RedisBackend(configuration(redis_url=redis_url, timeout=PATIENT, types=[Point]))
    await other.set("k", Point(1))
    assert await other.get("k") == Point(1)
    assert await layer.get("k") is None
    assert damages == ["payload"]
    await other.aclose()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_frame_with_a_flipped_bit_or_cut_or_random_is_a_miss_and_never_an_exception(
    layer: RedisBackend, raw: redis.Redis, damages: list[str], data: st.DataObject
) -> None:
    damages.clear()
    await layer.set("k", {"rows": [1, (2, "three")]})
    name, frame = frame_of(raw)
    match data.draw(st.sampled_from(["flip", "cut", "random", "append"])):
        case "flip":
            position = data.draw(st.integers(0, len(frame) * 8 - 1))
            changed = bytearray(frame)
            changed[position // 8] ^= 1 << position % 8
            damaged = bytes(changed)
        case "cut":
            damaged = frame[: data.draw(st.integers(0, len(frame) - 1))]
        case "append":
            damaged = frame + data.draw(st.binary(min_size=1))
        case _:
            damaged = data.draw(st.binary(max_size=200))
    raw.set(name, damaged)
    assert await layer.lookup("k") is None
    assert len(damages) == 1


async def test_without_a_listener_damage_is_logged_without_the_key(
    redis_url: str, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    layer = RedisBackend(configuration(redis_url=redis_url, timeout=PATIENT))
    await layer.set("secret-key", "secret-value")
    raw.set(frame_of(raw)[0], b"garbage")
    assert await layer.get("secret-key") is None
    await layer.aclose()
    (record,) = caplog.records
    assert "magic" in record.getMessage()
    assert "secret" not in record.getMessage()


# --- neighbours

NAMESPACES = ["a", "a*", "a?", "[a]", "a:e", "a:e:", "A", "%61", "a\\", "ab", "{a}"]


async def test_clearing_a_namespace_touches_nothing_else(redis_url: str, raw: redis.Redis) -> None:
    layers = {
        name: RedisBackend(configuration(redis_url=redis_url, namespace=name, timeout=PATIENT)) for name in NAMESPACES
    }
    foreign = {"a", "a:", "a:e", "a:other", "aa:e:k", "*", "a:e?k", "session:17"}
    for name in foreign:
        raw.set(name, "foreign")
    for cleared in NAMESPACES:
        for name, layer in layers.items():
            await layer.set("k", name)
            await layer.set("*", name)
        await layers[cleared].clear()
        for name, layer in layers.items():
            expected = None if name == cleared else name
            assert [await layer.get("k"), await layer.get("*")] == [expected] * 2
        assert all(raw.get(name) == b"foreign" for name in foreign)
    for layer in layers.values():
        await layer.aclose()


async def test_clearing_finds_every_key_of_many(layer: RedisBackend, raw: redis.Redis) -> None:
    now = layer._clock.monotonic()
    await layer.store_many({f"k{number}": entry(number, now) for number in range(3000)})
    raw.set("foreign", 1)
    await layer.clear()
    assert raw.keys() == [b"foreign"]


# --- round trips


def commands(url: str) -> dict[str, int]:
    """Returns how often each command was called, without what this function and new connections need."""
    with redis.Redis.from_url(url) as client:
        stats: Any = client.info("commandstats")
    ignored = {"info", "flushall", "hello", "client", "auth", "select", "config"}
    calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    return {name: number for name, number in calls.items() if name.split("|")[0] not in ignored}


async def test_each_operation_is_one_round_trip(redis_url: str, layer: RedisBackend, raw: redis.Redis) -> None:
    """The commands inside the script run in the server. Between client and server goes one EVALSHA."""
    now = layer._clock.monotonic()
    await layer.lookup("k")  # the scripts are loaded and the connection is open
    await layer.remove("k")
    raw.config_resetstat()
    await layer.store("k", entry(1, now))
    assert commands(redis_url) == {"set": 1}
    raw.config_resetstat()
    await layer.lookup("k")
    assert commands(redis_url) == {"evalsha": 1, "get": 1, "pttl": 1}
    raw.config_resetstat()
    keys = [f"k{number}" for number in range(100)] + ["k"]
    await layer.lookup_many(keys)  # the script is loaded
    raw.config_resetstat()
    await layer.lookup_many(keys)
    assert commands(redis_url) == {"multi": 1, "mget": 1, "evalsha": 1, "pttl": 101, "exec": 1}
    raw.config_resetstat()
    await layer.remove("k")
    sent = commands(redis_url)
    assert sent["evalsha"] == sent["publish"] == 1  # number, removal and word are one step


async def test_a_script_that_the_server_has_forgotten_is_loaded_again(layer: RedisBackend, raw: redis.Redis) -> None:
    await layer.set("k", 1)
    assert await layer.get("k") == 1
    raw.script_flush()
    assert await layer.get("k") == 1
    assert await layer.get("k") == 1
    for _ in range(2):
        raw.script_flush()
        assert (await layer.lookup_many(["k", "l"]))["k"].value == 1


# --- failures


async def test_used_alone_it_contains_failures_except_where_silence_would_be_wrong(
    own_redis: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    layer = RedisBackend(configuration(redis_url=own_redis.url, timeout=0.2))
    await layer.connect()
    await layer.set("k", 1)
    own_redis.stop()
    assert await layer.get("k", "default") == "default"
    assert not await layer.set("k", 2)
    for attempt in (layer.delete("k"), layer.clear(), layer.connect()):
        with pytest.raises(LayerError) as caught:
            await attempt
        assert caught.value.layer == "l2"
        assert not isinstance(caught.value, LayerTimeout)
    own_redis.start()
    own_redis.pause()
    assert await layer.get("k", "default") == "default"
    for attempt in (layer.delete("k"), layer.clear(), layer.connect()):
        with pytest.raises(LayerTimeout):
            await attempt
    own_redis.resume()
    assert await layer.get("k", "default") in (1, "default")
    await layer.aclose()
    assert all(own_redis.url not in record.getMessage() for record in caplog.records)


async def test_many_cancelled_commands_leave_every_connection_with_its_own_answers(
    redis_url: str, layer: RedisBackend
) -> None:
    """A connection given back with an answer unread would hand it to the next caller."""
    chance = random.Random(7)
    keys = [f"k{number}" for number in range(50)]
    for key in keys:
        await layer.set(key, f"value of {key}")

    async def ask(key: str) -> bool:
        return await layer.get(key) == f"value of {key}"

    for _ in range(25):
        tasks = [asyncio.create_task(ask(chance.choice(keys))) for _ in range(100)]
        for task in tasks:
            # Some before they begin, some while they connect, wait for a slot, send or read.
            if chance.random() < 0.3:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            if chance.random() < 0.7:
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is True or isinstance(outcome, asyncio.CancelledError)
    link = layer._links[asyncio.get_running_loop()]
    assert isinstance(link, ServerLink)
    assert len(link._idle) <= 64
    for key in keys * 3:
        assert await layer.get(key) == f"value of {key}"
    found = await asyncio.gather(*(layer.get(key) for key in keys * 10))
    assert found == [f"value of {key}" for key in keys] * 10


async def test_no_more_connections_are_opened_than_configured(redis_url: str, raw: redis.Redis) -> None:
    layer = RedisBackend(configuration(redis_url=redis_url, timeout=PATIENT, redis_max_connections=5))
    before: Any = raw.info("stats")
    found = await asyncio.gather(*(layer.get(f"k{number}", number) for number in range(500)))
    after: Any = raw.info("stats")
    assert found == list(range(500))
    assert after["total_connections_received"] - before["total_connections_received"] == 5
    await layer.aclose()


async def test_where_there_is_nothing_to_do_nothing_is_sent(redis_url: str) -> None:
    """From Python 3.12 on, an event loop tries for ever to send nothing, and its connection never ends."""
    layer = RedisBackend(configuration(redis_url=redis_url, timeout=PATIENT))
    await layer.store_many({})
    assert await layer.lookup_many([]) == {}
    (link,) = layer._links.values()
    assert isinstance(link, ServerLink)
    assert await link.pipeline([]) == []
    assert link._connections == []
    await layer.clear()
    (connection,) = link._idle
    assert not is_writing(connection)
    await layer.aclose()


def is_writing(connection: Any) -> bool:
    """Whether the event loop waits until more can be sent."""
    selector: Any = asyncio.get_running_loop()
    events = selector._selector.get_key(connection._writer.get_extra_info("socket").fileno()).events
    return bool(events & selectors.EVENT_WRITE)


async def test_closing_opens_no_further_connection(redis_url: str, raw: redis.Redis) -> None:
    """Who listens to other processes must not take the end for a loss."""

    def received() -> int:
        stats: Any = raw.info("stats")
        return int(stats["total_connections_received"])

    manager = CacheManager(configuration(redis_url=redis_url))
    await manager.get("k")
    await eventually(lambda: count(manager, names.MESSAGES))
    before = received()
    await manager.aclose()
    assert received() == before


async def test_a_url_that_allows_fewer_connections_is_obeyed(redis_url: str) -> None:
    layer = RedisBackend(configuration(redis_url=f"{redis_url}?max_connections=2", timeout=PATIENT))
    await layer.set("k", 1)
    assert await asyncio.gather(*(layer.get("k") for _ in range(100))) == [1] * 100
    await layer.aclose()


# --- event loops


def test_each_event_loop_has_connections_of_its_own(redis_url: str) -> None:
    layer = RedisBackend(configuration(redis_url=redis_url, timeout=PATIENT))

    async def work(number: int) -> object:
        await layer.set(f"k{number}", number)
        return await layer.get(f"k{number}")

    with loop_threads(4) as loops:
        futures = [(number, loop.submit(work(number))) for number in range(200) for loop in loops]
        assert all(future.result(WITHIN) == number for number, future in futures)
        assert len(layer._links) == 4
        for loop in loops:
            loop.run(layer.aclose())
    assert len(layer._links) == 0


def test_it_lets_go_of_loops_that_were_closed(redis_url: str) -> None:
    """Also of those that never closed the connections, at the cost of a warning."""
    layer = RedisBackend(configuration(redis_url=redis_url, timeout=PATIENT))
    watched = []
    for number in range(3):
        loop = asyncio.new_event_loop()
        watched.append(weakref.ref(loop))
        loop.run_until_complete(layer.set("k", number))
        if number < 2:
            loop.run_until_complete(layer.aclose())
        loop.close()
        del loop
    loop = asyncio.new_event_loop()
    with pytest.warns(ResourceWarning):  # noqa: PT031
        assert loop.run_until_complete(layer.get("k")) == 2
        gc.collect()
    loop.run_until_complete(layer.aclose())
    loop.close()
    assert [reference() for reference in watched] == [None] * 3


def test_threads_that_begin_and_end_loops_at_once_do_not_disturb_each_other(redis_url: str) -> None:
    layer = RedisBackend(configuration(redis_url=redis_url, timeout=PATIENT))
    results: list[object] = []

    def work(number: int) -> None:
        async def once(turn: int) -> None:
            await layer.store(f"k{number}", entry(turn, layer._clock.monotonic()))
            found = await layer.lookup(f"k{number}")
            results.append(found is not None and found.value == turn)
            # Not `aclose`, which takes the connections of all loops.
            await layer._links.pop(asyncio.get_running_loop()).aclose()

        for turn in range(10):
            asyncio.run(once(turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert results == [True] * 60
    assert len(layer._links) == 0


# --- options


@pytest.mark.parametrize(
    "query",
    ["?unknown_option=1", "?db=first", "?socket_timeout=soon", "?decode_responses=true", "?max_connections=-1"],
)
def test_options_that_cannot_work_are_refused_at_construction_without_repeating_the_url(query: str) -> None:
    config = CacheConfig(redis_url=f"redis://user:hunter2@127.0.0.1:6379/0{query}")
    with pytest.raises(ConfigurationError, match="redis_url") as caught:
        RedisBackend(config)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_it_needs_a_url() -> None:
    with pytest.raises(ConfigurationError, match="redis_url="):
        RedisBackend(CacheConfig())


async def test_a_password_is_used_where_the_url_has_none(own_redis: ServerProcess) -> None:
    redis_command(own_redis.port, "CONFIG SET requirepass hunter2")
    for config in (
        configuration(redis_url=own_redis.url, redis_password="hunter2", timeout=PATIENT),
        configuration(redis_url=own_redis.url.replace("://", "://:hunter2@"), redis_password="wrong", timeout=PATIENT),
    ):
        layer = RedisBackend(config)
        await layer.connect()
        assert "hunter2" not in repr(layer) + repr(config)
        await layer.aclose()
    wrong = RedisBackend(configuration(redis_url=own_redis.url, redis_password="sesame", timeout=PATIENT))
    with pytest.raises(LayerError) as caught:
        await wrong.connect()
    assert "sesame" not in f"{caught.value!r} {caught.value.__cause__!r}"
    await wrong.aclose()


async def test_a_database_of_the_url_is_used(redis_url: str) -> None:
    first, second = (
        RedisBackend(configuration(redis_url=redis_url.removesuffix("0") + database, timeout=PATIENT))
        for database in "12"
    )
    await first.set("k", 1)
    assert await second.get("k") is None
    for layer in (first, second):
        await layer.clear()
        await layer.aclose()


def test_frame_errors_name_no_stored_data() -> None:
    assert "secret" not in str(FrameError("payload", "ValueError"))
