"""Redis as one server, over TLS, behind sentinels and as a cluster: what moves, and what goes on meanwhile."""

import asyncio
import contextlib
import gc
import itertools
import ssl
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import ReadOnlyError, ResponseError

from aurelis.cache import CacheConfig, CacheLayer, CacheManager, RedisBackend
from aurelis.cache._entry import Entry
from aurelis.cache.exceptions import ConfigurationError, LayerError
from aurelis.cache.layers._cluster import ClusterLink
from aurelis.cache.layers._link import Link, Script, ServerLink
from aurelis.cache.layers._topology import Topology
from aurelis.cache.telemetry import names
from tests import servers
from tests.conftest import ROOT, TOPOLOGIES
from tests.managers import WITHIN, configuration, count, eventually, opened, series
from tests.servers import HOST, ClusterSetup, SentinelSetup, ServerProcess, redis_command
from tests.test_faults import Load, heals

# Servers are killed here while connections to them are being opened, and on a busy machine one of those may be left to
# the garbage collector; it says so, which is no reason for the next test to fail.
pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def leavings() -> Iterator[None]:
    """What the tests of this module leave is collected before others begin."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


PATIENT = 10.0
ECHO = Script("return {KEYS[1], ARGV[1]}")
KEEP = Script("return redis.call('SET', KEYS[1], ARGV[1])")


@contextlib.asynccontextmanager
async def backend(url: str, **options: Any) -> AsyncIterator[RedisBackend]:
    """A layer that is closed at the end."""
    layer = RedisBackend(configuration(redis_url=url, **{"timeout": PATIENT, **options}))
    try:
        yield layer
    finally:
        await layer.aclose()


@contextlib.asynccontextmanager
async def linked(url: str, **options: Any) -> AsyncIterator[Link]:
    """The connections alone."""
    link = Topology.parse(CacheConfig(redis_url=url, **options)).link()
    try:
        yield link
    finally:
        await link.aclose()


@pytest.fixture(params=TOPOLOGIES)
def url(request: pytest.FixtureRequest, topology_url: Callable[[str], str]) -> str:
    """The URL of each topology in turn, empty."""
    return topology_url(request.param)


@pytest.fixture
async def link(url: str) -> AsyncIterator[Link]:
    """A link to each topology in turn."""
    async with linked(url) as made:
        yield made


@pytest.fixture
def nodes(shared_cluster: ClusterSetup, topology_url: Callable[[str], str]) -> Iterator[list[redis.Redis]]:
    """Clients of the nodes of the cluster, which is empty."""
    topology_url("cluster")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(redis.Redis(HOST, node.port)) for node in shared_cluster.primaries]


def entries(layer: RedisBackend, keys: list[str]) -> dict[str, Entry]:
    """Returns an entry for each key, with the key in its value."""
    now = layer._clock.monotonic()
    return {key: Entry(f"value of {key}", None, now + 60, now + 60, 0) for key in keys}


def name(number: int) -> bytes:
    """Returns a name in a slot of its own."""
    return f"n{{{number}}}".encode()


# --- links


async def test_a_link_says_whether_one_server_has_all_keys(link: Link, url: str) -> None:
    assert link.single == ("cluster" not in url)
    assert link.split([]) == []
    groups = link.split([name(1), name(2), b"other{1}"])
    assert sorted(itertools.chain(*groups)) == [0, 1, 2]
    assert groups == ([[0, 1, 2]] if link.single else [[0, 2], [1]])


async def test_commands_are_answered_in_their_order(link: Link) -> None:
    commands = [("SET", name(number), number) for number in range(100)]
    assert await link.pipeline(commands) == [b"OK"] * 100
    assert await link.pipeline([("GET", name(number)) for number in range(100)]) == [b"%d" % n for n in range(100)]
    assert await link.execute("GET", name(7)) == b"7"
    assert await link.execute("PING") == b"PONG"
    assert await link.pipeline([]) == []
    assert await link.scripts(ECHO, []) == []


async def test_a_refused_command_has_the_error_as_its_answer(link: Link) -> None:
    await link.execute("SET", name(1), "text")
    answers = await link.pipeline([("GET", name(1)), ("LPUSH", name(1), 1), ("GET", name(1))])
    assert answers[::2] == [b"text"] * 2
    assert isinstance(answers[1], ResponseError)
    with pytest.raises(ResponseError):
        await link.execute("LPUSH", name(1), 1)
    failing = Script("return redis.call('LPUSH', KEYS[1], 1)")
    (answer,) = await link.scripts(failing, [([name(1)], ())])
    assert isinstance(answer, ResponseError)
    with pytest.raises(ResponseError):
        await link.script(failing, [name(1)])


async def test_scripts_become_known_where_they_are_not(link: Link, url: str, request: pytest.FixtureRequest) -> None:
    calls = [([name(number)], (number,)) for number in range(50)]
    expected = [[name(number), b"%d" % number] for number in range(50)]
    for _ in range(2):
        assert await link.scripts(ECHO, calls) == expected
        assert [await link.script(ECHO, *call) for call in calls] == expected
        if isinstance(link, ClusterLink):
            for node in request.getfixturevalue("shared_cluster").primaries:
                assert redis_command(node.port, "SCRIPT FLUSH").startswith(b"+OK")
        else:
            assert await link.execute("SCRIPT", "FLUSH") == b"OK"


async def test_names_are_found_on_all_servers(link: Link) -> None:
    mine = {b"mine:{%d}" % number for number in range(1000)}
    await link.pipeline([("SET", one, 1) for one in mine])
    await link.pipeline([("SET", b"other:{%d}" % number, 1) for number in range(500)])
    found = [one async for batch in link.scan(b"mine:*", 100) for one in batch]
    assert set(found) == mine


async def test_what_is_published_reaches_subscribers(link: Link) -> None:
    subscriber = link.pubsub()
    await subscriber.subscribe("news")
    assert (await subscriber.get_message(timeout=PATIENT) or {})["type"] == "subscribe"
    await link.execute("PUBLISH", "news", "hello")
    assert (await subscriber.get_message(timeout=PATIENT) or {})["data"] == b"hello"
    await subscriber.aclose()  # type: ignore[no-untyped-call]  # redis-py has no types there


async def test_subscribers_do_not_count_as_commands_under_way(url: str) -> None:
    async with linked(url, redis_max_connections=1) as link:
        subscriber = link.pubsub()
        await subscriber.subscribe("news")
        async with asyncio.timeout(PATIENT):
            assert await link.pipeline([("SET", name(number), 1) for number in range(20)]) == [b"OK"] * 20
        await subscriber.aclose()  # type: ignore[no-untyped-call]  # redis-py has no types there


async def test_after_its_end_a_link_keeps_no_connection(url: str) -> None:
    link = Topology.parse(CacheConfig(redis_url=url)).link()
    slow = asyncio.gather(*(link.execute("SET", name(number), 1) for number in range(50)), return_exceptions=True)
    await asyncio.sleep(0.01)
    nodes = list(link._primaries.values()) if isinstance(link, ClusterLink) else [link]
    await link.aclose()
    await slow
    for node in nodes:
        assert isinstance(node, ServerLink)
        assert not any(connection.is_connected for connection in node._connections)


async def test_a_server_that_was_the_primary_is_left(own_redis: ServerProcess) -> None:
    """Its name may lead to another one by now."""
    async with linked(own_redis.url) as link:
        await link.execute("SET", "k", 1)
        await link.script(KEEP, [b"k"], [2])
        assert redis_command(own_redis.port, f"REPLICAOF {HOST} 1").startswith(b"+OK")

        async def connections() -> int:
            return int(redis_command(own_redis.port, "INFO stats").split(b"received:")[1].split()[0])

        (answer,) = await link.pipeline([("SET", "k", 3)])
        assert isinstance(answer, ReadOnlyError)
        for call in (link.execute("SET", "k", 3), link.script(KEEP, [b"k"], [3])):
            before = await connections()
            with pytest.raises(ResponseError):
                await call
            assert await connections() == before + 2  # this one and ours


# --- layers


async def test_a_hundred_keys_are_one_round_trip_to_each_node(nodes: list[redis.Redis], shared_cluster: Any) -> None:
    keys = [f"k{number}" for number in range(100)]
    async with backend(shared_cluster.url) as layer:
        values = entries(layer, keys)
        await layer.store_many(values)
        await layer.lookup_many(keys)  # connected, and the script is known

        def reads() -> list[int]:
            stats: list[Any] = [node.info("stats") for node in nodes]
            return [stat["total_reads_processed"] for stat in stats]

        before = reads()
        found = await layer.lookup_many(keys)
        assert {key: entry.value for key, entry in found.items()} == {key: f"value of {key}" for key in keys}
        between = reads()
        await layer.store_many(values)
        after = reads()
        # One read is that of INFO.
        assert [two - one for one, two in zip(before, between, strict=True)] == [2, 2, 2]
        assert [two - one for one, two in zip(between, after, strict=True)] == [2, 2, 2]


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_clearing_touches_nothing_of_the_neighbours(topology: str, topology_url: Callable[[str], str]) -> None:
    url = topology_url(topology)
    foreign = [
        b"shop",
        b"shop:",
        b"shop:e",
        b"*",
        b"sh?p:e:{1}",
        b"[s]hop:e:*",
        b"shop:l:{1}",
        b"{shop:e:}",
        b"other:e:{1}",
    ]
    async with (
        linked(url) as link,
        backend(url, namespace="shop") as layer,
        backend(url, namespace="sho?") as neighbour,
    ):
        await link.pipeline([("SET", one, "foreign") for one in foreign])
        for each in (layer, neighbour):
            await each.store_many(entries(each, [f"k{number}" for number in range(1500)]))
        assert await layer.clear()
        assert await layer.lookup_many([f"k{number}" for number in range(1500)]) == {}
        assert len(await neighbour.lookup_many([f"k{number}" for number in range(1500)])) == 1500
        assert await link.pipeline([("GET", one) for one in foreign]) == [b"foreign"] * len(foreign)
        assert await neighbour.clear()


async def test_no_more_commands_are_under_way_than_configured(nodes: list[redis.Redis], shared_cluster: Any) -> None:
    def received() -> int:
        stats: list[Any] = [node.info("stats") for node in nodes]
        return sum(stat["total_connections_received"] for stat in stats)

    async with backend(shared_cluster.url, redis_max_connections=2) as layer:
        await layer.connect()
        before = received()
        found = await asyncio.gather(*(layer.get(f"k{number}", number) for number in range(500)))
        assert found == list(range(500))
        assert received() - before <= 2 * 3
        link = layer._links[asyncio.get_running_loop()]
        assert isinstance(link, ClusterLink)
        assert not link._slots.locked()


# --- a cluster that changes


def key_in(slot_of: Callable[[int], bool], namespace: str = "aurelis") -> str:
    """Returns a key whose slot is the wanted one."""
    return next(
        f"k{number}" for number in itertools.count() if slot_of(key_slot(f"{namespace}:e:{{k{number}}}".encode()))
    )


async def test_commands_follow_a_slot_that_moves(nodes: list[redis.Redis], shared_cluster: ClusterSetup) -> None:
    slot = key_slot(b"{moving}")
    home = shared_cluster.owner_of(slot)
    target = next(node for node in shared_cluster.primaries if node is not home)
    here, there, late = b"{moving}here", b"{moving}there", b"{moving}late"
    async with linked(shared_cluster.url) as link:
        await link.pipeline([("SET", here, "here"), ("SET", name(1), "elsewhere")])
        await link.script(ECHO, [here], [b"known"])
        source = shared_cluster.begin_move(slot, target)
        try:
            # New keys are made at the target, old ones are found at the source.
            assert await link.execute("SET", there, "there") == b"OK"
            gets = [("GET", one) for one in (here, there, name(1), late)]
            for _ in range(3):
                assert await link.pipeline(gets) == [b"here", b"there", b"elsewhere", None]
                # The target does not know the script yet.
                redis_command(target.port, "SCRIPT FLUSH")
                assert await link.script(ECHO, [there], [b"x"]) == [there, b"x"]
                assert await link.scripts(ECHO, [([late], [b"y"]), ([here], [b"z"])]) == [[late, b"y"], [here, b"z"]]
            # Many at once: none may take the permission that another one got for its command.
            many = await asyncio.gather(*(link.execute("GET", one) for one in (there, here) * 50))
            assert many == [b"there", b"here"] * 50
            # Keys of both sides in one command: it has to wait, and does not wait for long.
            (answer,) = await link.pipeline([("MGET", here, there)])
            assert isinstance(answer, ResponseError)
            moving = asyncio.create_task(link.execute("MGET", here, there))
            await asyncio.sleep(0.005)
            shared_cluster.move_keys(slot, source, target)
            assert await moving == [b"here", b"there"]
            shared_cluster.end_move(slot, source, target)
            assert await link.pipeline(gets) == [b"here", b"there", b"elsewhere", None]
            assert await link.script(ECHO, [here], [b"x"]) == [here, b"x"]
        finally:
            if shared_cluster.owner_of(slot) is not home:
                shared_cluster.move(slot, home)
        assert await link.pipeline(gets) == [b"here", b"there", b"elsewhere", None]
        assert await link.execute("GET", here) == b"here"


async def test_one_node_that_is_known_is_enough(shared_cluster: ClusterSetup) -> None:
    port = shared_cluster.primaries[1].port
    async with linked(f"redis+cluster://{HOST}:1,{HOST}:{port}") as link:
        assert await link.pipeline([("SET", name(number), 1) for number in range(100)]) == [b"OK"] * 100


async def test_a_server_that_is_no_cluster_fails_the_layer(redis_url: str) -> None:
    async with backend(redis_url.replace("redis://", "redis+cluster://")) as layer:
        with pytest.raises(LayerError):
            await layer.connect()
        assert await layer.get("k", "nothing") == "nothing"


def only_redis(url: str, **options: Any) -> CacheConfig:
    """Returns a configuration of a cache in Redis alone, so that every request goes there."""
    return configuration(
        redis_url=url, layers=[CacheLayer("L2", "redis", 60)], breaker_pause=0.3, **{"timeout": 0.25, **options}
    )


async def test_no_request_fails_while_slots_move(nodes: list[redis.Redis], shared_cluster: ClusterSetup) -> None:
    async with opened(only_redis(shared_cluster.url, timeout=2)) as cache:
        load = Load(cache)
        await load.burst()
        # Slots that the load uses.
        slots = sorted({key_slot(f"aurelis:e:{{key {number}}}".encode()) for number in range(100)})[::10]
        homes = {slot: shared_cluster.owner_of(slot) for slot in slots}

        def there_and_back() -> None:
            for slot, home in homes.items():
                shared_cluster.move(slot, next(node for node in shared_cluster.primaries if node is not home))
            for slot, home in homes.items():
                shared_cluster.move(slot, home)

        moved = asyncio.ensure_future(asyncio.to_thread(there_and_back))
        await load.during(lambda: None, until=moved.done)
        await moved
        await heals(load)
        assert series(cache, names.ERRORS) == {}


@pytest.mark.parametrize("fault", ["stop", pytest.param("pause", marks=pytest.mark.reliability)])
async def test_no_request_fails_while_a_primary_of_the_cluster_is_replaced(
    own_cluster: ClusterSetup, fault: str
) -> None:
    async with opened(only_redis(own_cluster.url)) as cache:
        load = Load(cache)
        await load.burst()
        victim = own_cluster.primaries[0]
        others = [node for node in own_cluster.nodes if node is not victim]
        subscriber = await subscribed(cache)

        def replaced() -> bool:
            seen = redis_command(others[0].port, "CLUSTER NODES").splitlines()
            has_failed = any(b":%d@" % victim.port in line and b"master,fail " in line for line in seen)
            return has_failed and b"cluster_state:ok" in redis_command(others[0].port, "CLUSTER INFO")

        await load.during(victim.stop if fault == "stop" else victim.pause, until=replaced)
        load.latencies.clear()
        await heals(load)
        await until_found(load)
        await heard(cache, subscriber)
        before = count(cache, names.ERRORS)
        await load.burst()
        assert count(cache, names.ERRORS) == before
        await load.during(victim.start if fault == "stop" else victim.resume, until=lambda: True)
        await heals(load)
        await subscriber.aclose()


async def subscribed(cache: CacheManager, channel: str = "news") -> Any:
    """Returns a subscriber on the connections of the cache."""
    subscriber = redis_link(cache).pubsub()
    await subscriber.subscribe(channel)
    await subscriber.get_message(timeout=PATIENT)
    return subscriber


async def heard(cache: CacheManager, subscriber: Any) -> None:
    """A message arrives, once the subscriber is where the server is."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while True:
        assert asyncio.get_running_loop().time() < deadline
        with contextlib.suppress(redis.RedisError, OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                await redis_link(cache).execute("PUBLISH", "news", "hello")
                message = await subscriber.get_message(timeout=0.2)
                if message is not None and message["data"] == b"hello":
                    return
                if message is None:  # as somebody who misses a heartbeat does
                    await subscriber.connection.disconnect(nowait=True)


def redis_link(cache: CacheManager) -> Link:
    """Returns the connections of the cache."""
    (guard,) = cache._engine.stack.lower
    layer = guard.layer
    assert isinstance(layer, RedisBackend)
    return layer._link()


async def until_found(load: Load) -> None:
    """Every key is kept and found again."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    for key in [f"key {number}" for number in range(100)]:
        while not (await load.cache.set(key, {"key": key, "rows": [key] * 5}) and await load.cache.get(key)):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)


async def without_errors(load: Load) -> None:
    """Hundreds of requests at once succeed, once new connections are there: on a busy machine that takes time."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while True:
        errors = count(load.cache, names.ERRORS)
        await load.burst()
        if count(load.cache, names.ERRORS) == errors:
            return
        assert asyncio.get_running_loop().time() < deadline


# --- sentinels


@pytest.mark.reliability
async def test_a_failover_that_was_asked_for_fails_no_request(
    shared_sentinels: SentinelSetup, topology_url: Callable[[str], str]
) -> None:
    async with opened(only_redis(topology_url("sentinel"))) as cache:
        load = Load(cache)
        await load.burst()
        old = shared_sentinels.primary
        subscriber = await subscribed(cache)
        sentinel = shared_sentinels.sentinels[0]

        def fail_over() -> None:
            # The replica may be as good as nobody for a moment, after another failover.
            servers.until(
                lambda: redis_command(sentinel.port, "SENTINEL FAILOVER main").startswith(b"+OK"), "a failover"
            )

        def moved() -> bool:
            address = redis_command(sentinel.port, "SENTINEL GET-MASTER-ADDR-BY-NAME main")
            return str(old.port).encode() not in address

        await load.during(fail_over, until=moved)
        await heals(load)
        await until_found(load)
        await heard(cache, subscriber)
        # The sentinels leave the old one as it is for eight seconds; what is written to it meanwhile is lost.
        primary = await asyncio.to_thread(lambda: shared_sentinels.primary)
        assert primary is not old
        await load.burst()
        await load.burst()
        link = redis_link(cache)
        assert isinstance(link, ServerLink)
        ports = {connection.port for connection in link._connections if connection.is_connected}
        assert ports == {primary.port}
        await subscriber.aclose()
    await asyncio.to_thread(shared_sentinels.until_replicated)


async def test_no_request_fails_while_sentinels_replace_a_primary_that_died(
    shared_sentinels: SentinelSetup, topology_url: Callable[[str], str]
) -> None:
    async with opened(only_redis(topology_url("sentinel"))) as cache:
        load = Load(cache)
        await load.burst()
        victim, other = await replaced_under(load, shared_sentinels, "stop")
        await heals(load)
        await until_found(load)
        await without_errors(load)
    victim.start()
    # What the sentinels would do after some seconds.
    assert redis_command(victim.port, f"REPLICAOF {HOST} {other.port}").startswith(b"+OK")
    shared_sentinels.until_replicated()


@pytest.mark.reliability
@pytest.mark.parametrize("fault", ["stop", "pause"])
async def test_nobody_asks_a_primary_of_the_past_that_comes_back(
    shared_sentinels: SentinelSetup, topology_url: Callable[[str], str], fault: str
) -> None:
    """It is the primary that it was, until the sentinels tell it otherwise."""
    async with opened(only_redis(topology_url("sentinel"))) as cache:
        load = Load(cache)
        await load.burst()
        victim, _ = await replaced_under(load, shared_sentinels, fault)
        await heals(load)
        await load.during(victim.start if fault == "stop" else victim.resume, until=lambda: True)
        before = redis_command(victim.port, "INFO commandstats")
        await without_errors(load)
        await until_found(load)
        after = redis_command(victim.port, "INFO commandstats")
        assert evals(before) == evals(after)
    await asyncio.to_thread(shared_sentinels.until_replicated)


def evals(stats: bytes) -> list[bytes]:
    """Returns how often scripts were called, from `INFO commandstats`."""
    return [line.partition(b",")[0] for line in stats.splitlines() if line.startswith(b"cmdstat_eval")]


async def replaced_under(load: Load, setup: SentinelSetup, fault: str) -> tuple[ServerProcess, ServerProcess]:
    """Stops or pauses the primary under load; returns it and the new one, which the sentinels made."""
    victim = setup.primary
    other = next(server for server in setup.servers if server is not victim)

    def replaced() -> bool:
        return b"role:master" in redis_command(other.port, "INFO replication")

    await load.during(victim.stop if fault == "stop" else victim.pause, until=replaced)
    return victim, other


async def test_a_sentinel_that_hangs_delays_nobody(
    shared_sentinels: SentinelSetup, topology_url: Callable[[str], str]
) -> None:
    url = topology_url("sentinel")
    shared_sentinels.sentinels[0].pause()
    try:
        async with backend(url, timeout=2) as layer:
            assert await layer.set("k", 1)
            assert await layer.get("k") == 1
    finally:
        shared_sentinels.sentinels[0].resume()


async def test_sentinels_have_credentials_of_their_own(
    shared_sentinels: SentinelSetup, topology_url: Callable[[str], str]
) -> None:
    url = topology_url("sentinel")
    for sentinel in shared_sentinels.sentinels:
        for rule in (f"watcher on >se@cret {documented('sentinels')}", "default -sentinel|master"):
            assert redis_command(sentinel.port, f"ACL SETUSER {rule}").startswith(b"+OK")
    try:
        async with backend(f"{url}?sentinel_username=watcher&sentinel_password=se%40cret") as layer:
            assert await layer.set("k", 1)
        for wrong in (url, f"{url}?sentinel_username=watcher&sentinel_password=wrong"):
            async with backend(wrong) as layer:
                with pytest.raises(LayerError) as caught:
                    await layer.connect()
                assert "wrong" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__cause__}"
    finally:
        for sentinel in shared_sentinels.sentinels:
            assert redis_command(sentinel.port, "ACL SETUSER default +sentinel|master").startswith(b"+OK")


async def test_an_unknown_service_fails_the_layer(topology_url: Callable[[str], str]) -> None:
    async with backend(topology_url("sentinel").replace("/main/", "/other/")) as layer:
        with pytest.raises(LayerError):
            await layer.connect()


# --- TLS and permissions


async def test_a_certificate_of_an_unknown_authority_fails_the_layer_and_no_request(
    tls_redis: ServerProcess, tmp_path: Path
) -> None:
    stranger = servers.certificates(tmp_path).authority
    for query in (f"?ssl_ca_certs={stranger}", ""):
        url = f"rediss://{HOST}:{tls_redis.port}/0{query}"
        async with backend(url) as layer:
            with pytest.raises(LayerError):
                await layer.connect()
        async with opened(configuration(redis_url=url)) as cache:

            async def load() -> str:
                return "loaded"

            assert await cache.get_or_compute("k", load) == "loaded"
            assert not await cache.set("l", 1)
            assert count(cache, names.ERRORS) > 0


async def test_a_name_that_is_not_in_the_certificate_fails_the_layer(tls_redis: ServerProcess) -> None:
    url = tls_redis.url.replace(HOST, "localhost")
    async with backend(url) as layer:
        with pytest.raises(LayerError):
            await layer.connect()
    async with backend(f"{url}&ssl_check_hostname=false") as layer:
        await layer.connect()


async def test_closing_does_not_wait_for_a_server_that_hangs(
    tls_redis: ServerProcess, certificates: servers.Certificates
) -> None:
    """TLS says farewell, and waits for an answer."""
    tls = ssl.create_default_context(cafile=certificates.authority)
    async with backend(tls_redis.url) as layer:
        await layer.connect()
        tls_redis.pause()
        try:
            async with asyncio.timeout(PATIENT):
                await layer.aclose()
        finally:
            tls_redis.resume()
    # What is under way still ends in this loop, and not in the garbage collector.
    await eventually(lambda: b"connected_clients:1\r\n" in redis_command(tls_redis.port, "INFO clients", tls))


async def test_redis_ssl_encrypts_the_connections_of_any_url(tls_redis: ServerProcess) -> None:
    async with backend(tls_redis.url.replace("rediss://", "redis://"), redis_ssl=True) as layer:
        await layer.connect()


async def test_certificates_are_loaded_once_and_again_when_the_file_is_new(
    tls_redis: ServerProcess, certificates: servers.Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading takes milliseconds in which no other request goes on."""
    authority = tmp_path / "authority.pem"
    authority.write_bytes(certificates.authority.read_bytes())
    (tmp_path / "other").mkdir()
    other = servers.certificates(tmp_path / "other").authority
    loaded: list[object] = []
    make = ssl.create_default_context

    def counted() -> ssl.SSLContext:
        loaded.append(1)
        return make()

    monkeypatch.setattr(ssl, "create_default_context", counted)
    async with backend(f"rediss://{HOST}:{tls_redis.port}/0?ssl_ca_certs={authority}") as layer:
        await asyncio.gather(*(layer.get(f"k{number}") for number in range(50)))
        assert len(loaded) == 1
        authority.write_bytes(other.read_bytes())
        redis_command(tls_redis.port, "CLIENT KILL TYPE normal", make(cafile=certificates.authority))
        with pytest.raises(LayerError):
            await layer.connect()
        with pytest.raises(LayerError):  # the first was perhaps a connection that had just ended
            await layer.connect()
        assert len(loaded) == 2


def documented(what: str) -> str:
    """Returns the permissions that docs/redis.md says a user needs."""
    page = (ROOT / "docs" / "redis.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"* {what}: ")]
    return line.split("`")[1].replace("shop", "aurelis")


async def everything(cache: CacheManager) -> None:
    """Whatever a cache may ask Redis for."""

    async def load() -> str:
        return "loaded"

    await redis_link(cache).execute("PING")
    assert await cache.set("k", 1, tags=["t"])
    assert await cache.get("k") == 1
    assert await cache.set_many({f"k{number}": number for number in range(10)})
    assert len(await cache.get_many([f"k{number}" for number in range(10)])) == 10
    assert await cache.get_or_compute("other", load) == "loaded"
    assert await cache.delete("k")
    await cache.invalidate_tags("t", "u")
    await cache.invalidate_tags("t", soft=True)
    await cache.clear()
    assert await cache.set("tagged", 1, tags=["t"])
    subscriber = await subscribed(cache, "aurelis:news:1")
    await subscriber.aclose()


@pytest.mark.parametrize("topology", ["server", "cluster"])
async def test_the_documented_permissions_are_what_a_user_needs(
    topology: str, topology_url: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    url = topology_url(topology)
    if topology == "server":
        nodes = [request.getfixturevalue("shared_redis")]
        rules = f"{documented('every server')} {documented('also one server, and those behind sentinels')}"
    else:
        nodes = request.getfixturevalue("shared_cluster").primaries
        rules = f"{documented('every server')} {documented('also nodes of a cluster')}"
    for node in nodes:
        for command in (f"ACL SETUSER app reset on >secret {rules}", "ACL LOG RESET", "CONFIG RESETSTAT"):
            assert redis_command(node.port, command).startswith(b"+OK")
    try:
        config = only_redis(url.replace("://", "://app:secret@"), timeout=PATIENT)
        async with opened(config) as cache:
            await everything(cache)
            async with opened(only_redis(config.redis_url or "", timeout=PATIENT)) as other:
                assert await other.get("tagged") == 1
            async with backend(config.redis_url or "") as layer:
                assert await layer.clear()
            assert series(cache, names.ERRORS) == {}
            refusals = [redis_command(node.port, "ACL LOG") for node in nodes]
            assert refusals == [b"*0\r\n"] * len(nodes)
            stats = b"".join(redis_command(node.port, "INFO commandstats") for node in nodes)
            unused = {rule for rule in rules.split() if f"cmdstat_{rule.removeprefix('+')}:".encode() not in stats}
            # One is for slots that move, the other for loads that take long.
            assert {rule for rule in unused if rule.startswith("+")} <= {"+asking", "+pexpire"}
            for foreign in (("GET", "foreign"), ("DEL", "aurelis:e:{k}"), ("PUBLISH", "foreign", "word")):
                with pytest.raises(ResponseError):
                    await redis_link(cache).execute(*foreign)
    finally:
        for node in nodes:
            redis_command(node.port, "ACL DELUSER app")


# --- options


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+cluster://:hunter2@a?db=1", "a cluster has no databases; leave db= out"),
        ("redis+cluster://:hunter2@a?hunter2=1", "check the options after the"),
        ("redis+cluster://:hunter2@a?host=hunter2", None),
        ("redis+cluster://:hunter2@a?sentinel_password=hunter2", "check the options"),
        ("redis://:hunter2@a?port=1", "check the options"),
        ("redis+sentinel://:hunter2@a/main?sentinel_hunter2=1", "check the options"),
        ("redis+sentinel://:hunter2@a/main?sentinel_password=hunter2", None),
        ("rediss://:hunter2@a?ssl_ca_certs=/hunter2", "a file for TLS that cannot be used"),
        ("rediss+cluster://:hunter2@a?ssl_cert_reqs=hunter2", "check the options"),
        ("redis://:hunter2@a?protocol=hunter2", "check the options"),
    ],
)
def test_options_are_checked_by_redis_py_and_no_error_repeats_the_url(url: str, message: str | None) -> None:
    config = CacheConfig(redis_url=url)
    if message is None:
        assert "hunter2" not in repr(Topology.parse(config))
        return
    with pytest.raises(ConfigurationError, match=message) as caught:
        Topology.parse(config)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_of_the_url_come_before_the_others() -> None:
    def options(url: str) -> tuple[Any, Any]:
        found = Topology.parse(CacheConfig(redis_url=url, redis_password="other")).options
        return found.get("username"), found.get("password")

    assert options("redis+cluster://user:own@a") == ("user", "own")
    assert options("redis+sentinel://user@a/main") == ("user", "other")
    assert options("unix:///socket?password=own") == (None, "own")
