"""Requests of all kinds from one of several processes, which know the truth and check each answer against it."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import Counter
from functools import partial

from aurelis.cache import CacheManager
from aurelis.cache._clock import Clock
from aurelis.cache.exceptions import LayerError
from aurelis.cache.telemetry import names
from tests.fleet import Json, Report
from tests.managers import count, requests
from tests.reliability.board import Board, cache_of, percentile

PROCESSES = 3
KEYS = 20
"""Of each process, which alone changes them."""
CALLERS = 5
TAGS = 4
OVER = PROCESSES * KEYS
"""Position on the board of what ends the traffic: 1 ends the changes, 2 all. Before it are the versions."""
HEALED = OVER + 1
"""Positions of how often each process has found Redis to work since the last fault ended."""
EPOCH = HEALED + PROCESSES
"""Position of how many faults have ended."""
LENGTH = EPOCH + 1
_FAULTS_TOLD = 5


class Traffic:
    """The requests of one process.

    A value is the version of its key when it was loaded. Before a key is changed its version is one higher.
    """

    def __init__(self, cache: CacheManager, board: Board, number: int) -> None:
        self._cache = cache
        self._board = board
        self._number = number
        self._chance = random.Random(number)
        self._locks = [asyncio.Lock() for _ in range(KEYS)]
        self.made: Counter[str] = Counter()
        self.keys_asked = 0
        self.not_found = 0
        self.loads = 0
        self.latencies: list[float] = []
        self.slow: list[tuple[float, float, str]] = []
        self.stale: list[tuple[int, int, float]] = []
        """Answers that were older than the truth when the request began: key, version, when it began."""
        self.acknowledged: list[tuple[int, int, float]] = []
        """Changes that Redis has confirmed: key, version, when."""
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ended: dict[int, tuple[int, str]] = {}  # by key: the last change of this process that has ended

    # --- requests

    def _key(self, key: int) -> str:
        return self._cache.key_builder.build_key("things", str(key))

    def _tags(self, key: int) -> list[str]:
        return [f"group {key // KEYS} {key % TAGS}", f"all {key // KEYS}"]

    async def _load(self, key: int) -> dict[str, int]:
        self.loads += 1
        version = self._board[key]
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.random() * 0.02)
        return {"key": key, "version": version}

    async def ask(self, key: int) -> None:
        """Loads it if need be."""
        before = self._before(key)
        self.keys_asked += 1
        value = await self._cache.get_or_compute(self._key(key), partial(self._load, key), tags=self._tags(key))
        self._check(key, value, before)

    async def _look(self, key: int) -> None:
        before = self._before(key)
        self.keys_asked += 1
        value = await self._cache.get(self._key(key))
        if value is None:
            self.not_found += 1
        else:
            self._check(key, value, before)

    async def _look_at_many(self) -> None:
        keys = self._chance.sample(range(PROCESSES * KEYS), 5)
        by_name = {self._key(key): key for key in keys}
        before = {key: self._before(key) for key in keys}
        self.keys_asked += len(keys)
        found = await self._cache.get_many(by_name)
        self.not_found += len(keys) - len(found)
        for name, value in found.items():
            self._check(by_name[name], value, before[by_name[name]])

    def _before(self, key: int) -> tuple[float, int, tuple[int, str]]:
        return time.monotonic(), self._board[key], self._ended.get(key, (0, ""))

    def _check(self, key: int, value: dict[str, int], before: tuple[float, int, tuple[int, str]]) -> None:
        begin, truth, (own, how) = before
        if value["key"] != key or value["version"] > self._board[key]:
            self.wrong.append(f"{value} for key {key}, whose version is {self._board[key]}")
        if value["version"] < own:
            self.wrong.append(f"{value} at {begin:.3f} though this process has made {own} of it by {how}")
        if value["version"] < truth:
            self.stale.append((key, value["version"], begin))

    # --- changes

    async def _change(self, keys: list[int], how: str) -> None:
        """Makes new versions of own keys, of which only one change is under way at a time."""
        locks = [self._locks[key % KEYS] for key in sorted(keys)]
        for lock in locks:
            await lock.acquire()
        try:
            versions = {key: self._board[key] + 1 for key in keys}
            for key, version in versions.items():
                self._board[key] = version
            answer = ""
            try:
                done = await self._tell(keys, how, versions)
            except LayerError as error:
                if how == "set":
                    raise
                done = False
                answer = type(error).__name__
                self.refused[f"{how}: {answer}"] += 1
            how = f"{how} ({answer or done}) at {time.monotonic():.3f}"
            self._ended |= {key: (version, how) for key, version in versions.items()}
            if done:
                now = time.monotonic()
                self.acknowledged += [(key, version, now) for key, version in versions.items()]
        finally:
            for lock in locks:
                lock.release()

    async def _tell(self, keys: list[int], how: str, versions: dict[int, int]) -> bool:
        cache = self._cache
        match how:
            case "set":
                (key,) = keys
                return await cache.set(self._key(key), {"key": key, "version": versions[key]}, tags=self._tags(key))
            case "delete":
                await cache.delete(self._key(keys[0]))
            case "tags":
                await cache.invalidate_tags(self._tags(keys[0])[0])
            case "soft":
                await cache.invalidate_tags(self._tags(keys[0])[1], soft=True)
            case "category":
                await cache.invalidate_category("things")
            case _:
                await cache.clear()
        return True

    async def request(self) -> None:
        """One request; whatever it raises is noted as a failure."""
        kind = self._chance.choices(
            ["ask", "look", "many", "set", "delete", "tags", "soft", "category", "clear"],
            [60, 10, 6, 6, 6, 4, 1, 0.5, 0.5],
        )[0]
        if self._board[OVER]:
            kind = "ask"
        own = range(self._number * KEYS, self._number * KEYS + KEYS)
        begin = time.monotonic()
        self.made[kind] += 1
        try:
            match kind:
                case "ask":
                    await self.ask(self._chance.randrange(PROCESSES * KEYS))
                case "look":
                    await self._look(self._chance.randrange(PROCESSES * KEYS))
                case "many":
                    await self._look_at_many()
                case "set" | "delete":
                    await self._change([self._chance.choice(own)], kind)
                case "tags":
                    tag = self._chance.randrange(TAGS)
                    await self._change([key for key in own if key % TAGS == tag], kind)
                case _:
                    await self._change(list(own), kind)
        except Exception:  # noqa: BLE001  # nothing may be raised
            self.wrong.append(f"{kind} raised {traceback.format_exc(limit=-4)}")
        lasted = time.monotonic() - begin
        if kind in ("ask", "look", "many"):
            self.latencies.append(lasted)
            if lasted > 0.3:
                self.slow.append((begin, lasted, kind))

    async def callers(self) -> None:
        """Requests without a break."""

        async def caller() -> None:
            while self._board[OVER] < 2:
                await self.request()
                await asyncio.sleep(0.004)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    # --- afterwards

    async def watch(self) -> None:
        """Says on the board when Redis is used again, after each fault."""
        epoch = 0
        while self._board[OVER] < 2:
            if (now := self._board[EPOCH]) != epoch:
                hits, listening = self._hits(), self._cache._engine.stack.generations
                while not (self._hits() > hits and listening.in_step and self._pending() == 0):
                    await asyncio.sleep(0.005)
                    await self._look(self._chance.randrange(PROCESSES * KEYS))
                epoch = now
                self._board[HEALED + self._number] = epoch
            await asyncio.sleep(0.005)

    def _hits(self) -> float:
        return count(self._cache, names.LOOKUPS, {names.LAYER: names.L2, names.RESULT: names.HIT}) + count(
            self._cache, names.LOOKUPS, {names.LAYER: names.L2, names.RESULT: names.MISS}
        )

    def _pending(self) -> int:
        recovery = self._cache._engine.stack.recovery
        return 0 if recovery is None else recovery.pending

    async def settle(self) -> list[str]:
        """Once nothing changes any more: returns what still has an older version."""
        deadline = time.monotonic() + 10
        while True:
            behind = []
            for key in range(PROCESSES * KEYS):
                self.keys_asked += 1
                value = await self._cache.get_or_compute(self._key(key), partial(self._load, key))
                if value["version"] != self._board[key]:
                    behind.append(f"key {key}: {value}, whose version is {self._board[key]}")
            if not behind or time.monotonic() > deadline:
                return behind
            await asyncio.sleep(0.05)


# --- one process


class Jumping:
    """A wall clock that is an hour off, now in one direction, now in the other."""

    def __init__(self) -> None:
        self._chance = random.Random(1)

    def __call__(self) -> float:
        return time.time() + self._chance.uniform(-3600, 3600)


async def work(report: Report, url: str, board: str, number: int, options: dict[str, object]) -> Json:
    """Makes requests until the board says that it is over."""
    cache = cache_of(url, **options)
    if number == 0:
        config = cache.config
        cache = CacheManager(config, clock=Clock(time.monotonic, Jumping()))
    numbers = Board(board, LENGTH)
    traffic = Traffic(cache, numbers, number)
    watching = asyncio.create_task(traffic.watch())
    running = asyncio.create_task(traffic.callers())
    while not numbers[OVER]:
        await asyncio.sleep(0.01)
    await running
    await watching
    behind = await traffic.settle()
    counted = requests(cache)
    name = cache.config.name
    # A `get` that finds nothing is a miss without a load.
    loads_counted = counted.pop("loads", 0) - traffic.not_found + int(count(cache, names.REFRESHES))
    breaker = cache._engine.stack.lower[0]._breaker.kind
    await cache.aclose(1.0)
    return {
        "made": dict(traffic.made),
        "asked": traffic.keys_asked,
        "counted": sum(counted.values()),
        "results": counted,
        "loads": traffic.loads,
        "loads counted": loads_counted,
        "stale": traffic.stale,
        "acknowledged": traffic.acknowledged,
        "refused": dict(traffic.refused),
        "wrong": traffic.wrong[:_FAULTS_TOLD],
        "wrongs": len(traffic.wrong),
        "behind": behind[:_FAULTS_TOLD],
        "slow": traffic.slow,
        "median": percentile(traffic.latencies, 0.5),
        "p99": percentile(traffic.latencies, 0.99),
        "max": max(traffic.latencies),
        "breaker": breaker,
        "gaps": count(name, names.GAPS),
        "recovered": count(name, names.RECOVERED),
    }
