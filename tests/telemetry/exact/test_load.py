"""A load over two workers and Redis: what a real Prometheus has of each worker is what those know who sent it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from aurelis.cache.telemetry import names
from tests.asgi.sockets import Connection, connect
from tests.fleet import Fleet, Json
from tests.managers import eventually_blocking
from tests.servers import HOST, ServerProcess, query_prometheus
from tests.telemetry.exact import origin
from tests.telemetry.exact.seen import COLLAPSED, CONFIRMED, RAISED, STOOD_IN, Seen
from tests.telemetry.exact.worker import CACHES, CLIENT, MODEL, OWN, SHARED, WEB, work

WORKERS = 2
CONNECTIONS = 8
"""Of the driver, to each worker."""
KINDS = [
    *(["kept"] * 6 + ["rule"] * 2 + ["shared"] * 2 + ["asked", "behind", "behind", "standing-in", "standing-in"]),
    *("failing", "raising", "breaking", "never", "own"),
]
RESULTS = {names.HIT, names.STALE, names.REVALIDATED, names.MISS, names.BYPASS}
PATIENCE = 300.0


class Drive:
    """What the driver has sent to one worker, and seen."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen = Seen()
        self.sent = 0

    async def run(self, number: int, seed: int) -> None:
        """Send so many requests."""
        chances = [random.Random(seed * 100 + connection) for connection in range(CONNECTIONS)]
        await asyncio.gather(*(self._run(number // CONNECTIONS, chance) for chance in chances))

    async def _run(self, number: int, chance: random.Random) -> None:
        connection = await connect(self.port)
        for _ in range(number):
            self.sent += 1
            target = f"/page/{chance.choice(KINDS)}/{chance.randrange(10)}"
            if not await self._ask(connection, target, origin.wishes(chance)):
                await connection.close()
                connection = await connect(self.port)
        await connection.close()

    async def _ask(self, connection: Connection, target: str, fields: dict[str, str]) -> bool:
        """Whether the connection is of use still."""
        await connection.send(target, fields)
        status, answer = await connection.read_head()
        self.seen.note(status, answer.get("cache-status", ""))
        with contextlib.suppress(asyncio.IncompleteReadError):
            await connection.read_body(answer)
            return answer.get("connection") != "close"
        return False


class Prometheus:
    """What it has scraped of the workers."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server

    def wait(self, count: int) -> None:
        """Returns when all have been scraped after now."""
        now = time.time()
        eventually_blocking(lambda: sum(at > now for _, at in query_prometheus(self._server, "timestamp(up)")) == count)

    def of(self, cache: str, instance: str, metric: names.Metric, *attributes: str) -> dict[str, int]:
        """Returns the sums by the values of these attributes, zeros left out; `instance` may be empty: of all."""
        name = metric.name.replace(".", "_") + ("_total" if metric.kind == "counter" else "")
        where = f'aurelis_cache_name="{cache}"' + (f',instance="{instance}"' if instance else "")
        labels = [attribute.replace(".", "_") for attribute in attributes]
        sums: Counter[str] = Counter()
        for found, value in query_prometheus(self._server, f"{name}{{{where}}}"):
            sums[" ".join(found[label] for label in labels if label in found)] += round(value)
        return {key: number for key, number in sums.items() if number}

    def total(self, cache: str, instance: str, metric: names.Metric) -> int:
        """Returns the sum."""
        return sum(self.of(cache, instance, metric).values())

    def loads(self, cache: str, instance: str) -> int:
        """Returns how often the origin was asked."""
        missed = self.of(cache, instance, names.REQUESTS, names.RESULT).get(names.MISS, 0)
        coalesced, refreshes = (self.total(cache, instance, metric) for metric in (names.COALESCED, names.REFRESHES))
        return missed - coalesced + refreshes


def test_a_small_load(
    own_redis: ServerProcess, tmp_path: Path, prometheus_server: Callable[[Sequence[str | Path]], ServerProcess]
) -> None:
    load(3_000, own_redis, tmp_path, prometheus_server)


@pytest.mark.reliability
@pytest.mark.timeout(900)
def test_a_load_of_100_000_requests(
    own_redis: ServerProcess, tmp_path: Path, prometheus_server: Callable[[Sequence[str | Path]], ServerProcess]
) -> None:
    load(100_000, own_redis, tmp_path, prometheus_server)


def load(
    number: int,
    redis: ServerProcess,
    folder: Path,
    prometheus_server: Callable[[Sequence[str | Path]], ServerProcess],
) -> None:
    """So many requests and some more, while Redis is stopped and started; then all counts are compared."""
    with Fleet(origin.serve, [{}]) as origins:
        origin_port = origins.report(0)
        arguments = [
            {"number": worker, "redis_url": redis.url, "origin_port": origin_port} for worker in range(WORKERS)
        ]
        with Fleet(work, arguments) as fleet:
            ports = [fleet.report(worker) for worker in range(WORKERS)]
            instances = [f"{HOST}:{metrics}" for _, metrics in ports]
            targets = folder / "targets.json"
            targets.write_text(json.dumps([{"targets": instances, "labels": {"job": "aurelis-cache"}}]))
            prometheus = Prometheus(prometheus_server([targets]))
            drives = [Drive(port) for port, _ in ports]

            share = number // 4
            asyncio.run(phase(drives, share, 1))
            redis.stop()
            asyncio.run(phase(drives, share, 2))
            redis.start()
            asyncio.run(phase(drives, share, 3))
            asyncio.run(phase(drives, share, 4))

            said = [httpx.get(f"http://{HOST}:{port}/do/report", timeout=PATIENCE).json() for port, _ in ports]
            asked = httpx.get(f"http://{HOST}:{origin_port}/counts").json()
            prometheus.wait(WORKERS)
            for instance, drive, one in zip(instances, drives, said, strict=True):
                check_web(prometheus, instance, drive, one)
                check_client(prometheus, instance, drives.index(drive), one, asked)
                check_own(prometheus, instance, one)
                check_shared(prometheus, instance, one)
            check_all(prometheus, number)


async def phase(drives: list[Drive], number: int, seed: int) -> None:
    """A part of the load: a third through the middleware, a fifth through transports, the rest are values."""
    share = number // len(drives)
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:

        async def order(drive: Drive, what: str, share: int) -> None:
            response = await client.get(f"http://{HOST}:{drive.port}/do/{what}", params={"number": share})
            assert response.status_code == 200, response.text

        await asyncio.gather(
            *(drive.run(share // 3, seed) for drive in drives),
            *(order(drive, "call", share // 5) for drive in drives),
            *(order(drive, "keep", share // 2 + 100) for drive in drives),
        )


def check_web(prometheus: Prometheus, instance: str, drive: Drive, said: Json) -> None:
    """What was sent through the middleware of one worker."""
    seen, app = drive.seen, Counter(said["app"])
    assert sum(seen.results().values()) == drive.sent
    # Who waits for what the app raises cannot see who has asked the app.
    coalesced = seen[COLLAPSED] + seen[RAISED] - app[" raising"]
    # Responses that are for somebody who is not known are made without the cache.
    check_responses(prometheus, WEB, instance, seen, sum(app.values()) - app[" own"], coalesced)
    assert 0 < prometheus.total(WEB, instance, names.STORES) <= sum(app.values())


def check_client(prometheus: Prometheus, instance: str, worker: int, said: Json, asked: Json) -> None:
    """What one worker has asked through transports."""
    seen, known = Seen(said["seen"]), Counter(said["known"])
    calls = sum(number for who, number in asked["calls"].items() if who.split()[0] == str(worker))
    assert seen[RAISED] == known["slow"] + known["nowhere"], known  # none that somebody else may have shared
    check_responses(prometheus, CLIENT, instance, seen, calls + known["nowhere"], seen[COLLAPSED])
    texts = asked["texts"][str(worker)]
    items = prometheus.of(CLIENT, instance, names.ITEMS, names.RESULT)
    assert items == {names.HIT: known["texts"] - texts, names.MISS: texts}
    tokens = prometheus.of(CLIENT, instance, names.SAVED_TOKENS, names.MODEL, names.TOKEN_TYPE)
    assert tokens[f"{MODEL} input"] == known["answers_again"] * origin.INPUT
    assert tokens[f"{MODEL} output"] == known["answers_again"] * origin.OUTPUT


def check_responses(prometheus: Prometheus, cache: str, instance: str, seen: Seen, loads: int, coalesced: int) -> None:
    """Requests answered by responses.

    Args:
        seen: their results.
        loads: how often the origin was asked for those that a cache could answer.
        coalesced: how many of them another one's load has answered.
    """
    assert prometheus.of(cache, instance, names.REQUESTS, names.RESULT) == seen.results()
    assert prometheus.total(cache, instance, names.COALESCED) == coalesced
    refreshes = prometheus.of(cache, instance, names.REFRESHES, names.REFRESH_REASON)
    assert refreshes.get("error", 0) == seen[STOOD_IN]
    assert refreshes.get("validated", 0) == seen[CONFIRMED]
    behind = loads - (seen[names.MISS] - coalesced) - seen[STOOD_IN] - seen[CONFIRMED]
    assert refreshes.get("revalidate", 0) == behind
    assert refreshes.keys() <= {"error", "validated", "revalidate"}
    check_identities(prometheus, cache, instance)


def check_own(prometheus: Prometheus, instance: str, said: Json) -> None:
    """Values that one caller had for itself, who therefore has seen what each request was."""
    seen, known = Seen(said["own"]), Counter(said["known"])
    assert prometheus.of(OWN, instance, names.REQUESTS, names.RESULT) == seen.results()
    assert seen[names.MISS] == known["own_loads"] + known["own_looks"]
    assert prometheus.total(OWN, instance, names.COALESCED) == 0
    assert prometheus.total(OWN, instance, names.REFRESHES) == 0
    named = prometheus.of(OWN, instance, names.INVALIDATIONS, names.INVALIDATION_SCOPE, names.INVALIDATION_SOURCE)
    assert named.get("key local", 0) == known["own_deletes"]
    assert prometheus.total(OWN, instance, names.STORES) == known["own_given"] + known["own_sets"]
    check_identities(prometheus, OWN, instance)


def check_shared(prometheus: Prometheus, instance: str, said: Json) -> None:
    """Values that all had in common: nobody knows who of those that asked at once has loaded, but how often one did."""
    known = Counter(said["known"])
    assert prometheus.total(SHARED, instance, names.REQUESTS) == known["shared_requests"]
    assert prometheus.loads(SHARED, instance) == known["shared_loads"]
    assert prometheus.total(SHARED, instance, names.STORES) == known["shared_loads"]
    check_identities(prometheus, SHARED, instance)


def check_identities(prometheus: Prometheus, cache: str, instance: str) -> None:
    """What the counts say of each other."""
    requests = prometheus.of(cache, instance, names.REQUESTS, names.RESULT, names.LAYER)
    lookups = prometheus.of(cache, instance, names.LOOKUPS, names.LAYER, names.RESULT)
    assert {result.split()[0] for result in requests} <= RESULTS
    assert requests.get("hit l1", 0) == lookups.get("l1 hit", 0)
    assert requests.get("stale", 0) >= lookups.get("l1 stale", 0)
    assert requests["miss"] >= prometheus.total(cache, instance, names.COALESCED)
    assert prometheus.of(cache, instance, names.WAITING) == {}


def check_all(prometheus: Prometheus, number: int) -> None:
    """The sums over both workers, and that everything has happened that should have."""
    total = sum(prometheus.total(cache, "", names.REQUESTS) for cache in CACHES)
    assert total >= number
    for cache in CACHES:
        lookups = prometheus.of(cache, "", names.LOOKUPS, names.LAYER, names.RESULT)
        assert lookups.keys() >= {"l1 hit", "l1 miss", "l2 miss", "l2 error"}
        assert prometheus.total(cache, "", names.ENTRIES)
    for cache in (WEB, CLIENT) if number > 10_000 else ():  # less may leave out what is rare
        assert prometheus.of(cache, "", names.REQUESTS, names.RESULT).keys() == RESULTS
        requests = prometheus.of(cache, "", names.REQUESTS, names.RESULT, names.LAYER)
        assert requests.keys() >= {"hit l1", "hit l2"}
        assert prometheus.total(cache, "", names.COALESCED)
        assert prometheus.of(cache, "", names.REFRESHES, names.REFRESH_REASON).keys() == {
            "error",
            "validated",
            "revalidate",
        }
        lookups = prometheus.of(cache, "", names.LOOKUPS, names.LAYER, names.RESULT)
        assert lookups.keys() >= {"l1 hit", "l1 stale", "l1 miss", "l2 hit", "l2 miss", "l2 error", "l2 skipped"}
        assert prometheus.of(cache, "", names.BREAKER, names.BREAKER_STATE).keys() >= {"open", "closed"}
