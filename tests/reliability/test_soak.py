"""Mixed traffic without a pause leaves nothing behind: no task, no flight, and no more memory than at the beginning.

`AURELIS_TESTS_SOAK_SECONDS` says for how long, ten minutes unless it is set; a short one is among the ordinary tests.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from aurelis_asgi import CacheMiddleware, CacheRule, Purger
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import Visit
from tests.managers import configuration, count, eventually, is_settled

SECONDS = float(os.environ.get("AURELIS_TESTS_SOAK_SECONDS", "600"))
CLIENTS = 40
ENTRIES = 300
"""Of the cache, far fewer than there are URLs, so that entries are displaced all the time."""
MAX_GROWTH = 2_000_000
"""Bytes by which the memory of Python may grow after the first part of the traffic."""
MAX_REMEMBERED = 6_000_000
"""Bytes of keys and targets that are remembered, which a short first part does not fill."""
MAX_GROWTH_OF_PROCESS = 24_000_000
"""Bytes by which the resident memory may grow meanwhile: what malloc keeps is not given back."""
RULES = [
    CacheRule("/rule/{name}", ttl=0.05, stale_while_revalidate=0.05, stale_if_error=1, tags=["rule", "rule:{name}"]),
    CacheRule("/member/*", ttl=0.2, principal=lambda scope: dict(scope["headers"]).get(b"authorization", b"").decode()),
]
KINDS = {
    "hit": 30,
    "miss": 8,
    "rule": 15,
    "validated": 8,
    "variant": 8,
    "stream": 8,
    "uncacheable": 5,
    "member": 5,
    "range": 5,
    "head": 3,
    "conditional": 3,
    "directive": 3,
    "error": 3,
    "raise": 2,
    "unsafe": 3,
    "purge": 2,
}
LEAVES = 0.1
"""Share of the clients that leave before the end."""


class Soak:
    """The app, its clients, and what they have seen."""

    def __init__(self, manager: CacheManager, seed: int) -> None:
        self.chance = random.Random(seed)
        self.made: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.origin = Origin(self._answer)
        self.app = CacheMiddleware(self.origin, cache=manager, rules=RULES, max_body_bytes=50_000)
        self.purger = Purger(manager, rules=RULES)

    # The app

    async def _answer(self, call: Call) -> None:
        self.origin.calls.clear()  # it remembers them all, and so would grow
        kind, name = call.path.split("/")[1:3]
        body = f"{kind} {name} ".encode() * 20
        if self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.random() * 0.01)
        match kind:
            case "validated":
                fields = {"cache_control": "max-age=0, stale-while-revalidate=0", "etag": f'"{name}"'}
                if call.field("if-none-match") == f'"{name}"':
                    await call.start(304, **fields)
                    await call.chunk(b"", more=False)
                    return
                await call.answer(body, **fields)
            case "variant":
                await call.answer(body + call.field("x-a").encode(), vary="x-a", cache_control="max-age=1")
            case "stream":
                await call.start(200, cache_control="max-age=1" if int(name) % 2 else "no-store")
                for _ in range(20):
                    await call.chunk(body * (1 + int(name) % 10))
                    await asyncio.sleep(0)
                await call.chunk(b"", more=False)
            case "uncacheable":
                await call.answer(body, cache_control="private")
            case "member":
                await call.answer(body + call.field("authorization").encode())
            case "error":
                await call.answer(body, 503 if self.chance.random() < 0.5 else 200)
            case "raise" if self.chance.random() < 0.5:
                raise RuntimeError("soak")
            case "rule":
                await call.answer(body, 503 if self.chance.random() < 0.05 else 200)
            case _:
                await call.answer(body, cache_control="max-age=2, stale-if-error=5", etag='"x"')

    # Its clients

    async def client(self, until: float) -> None:
        """Asks without a pause."""
        while time.monotonic() < until:
            kind = self.chance.choices([*KINDS], [*KINDS.values()])[0]
            self.made[kind] += 1
            try:
                await self._visit(kind)
            except RuntimeError as error:
                if str(error) != "soak":
                    self.wrong.append(f"{kind}: {error!r}")
            await asyncio.sleep(0)

    async def _visit(self, kind: str) -> None:
        name, method, fields = str(self.chance.randrange(30)), "GET", dict[str, str]()
        path = kind
        match kind:
            case "purge":
                await self._purge(name)
                return
            case "miss":
                name = str(self.chance.randrange(10**9)) + "a" * self.chance.choice([0, 0, 2000])
            case "range" | "head" | "conditional" | "directive" | "unsafe":
                path = "hit"
                method = {"head": "HEAD", "unsafe": "POST"}.get(kind, "GET")
                if kind == "range":
                    fields["range"] = self.chance.choice(["bytes=0-9", "bytes=-5", "bytes=0-1,4-5", "bytes=900-"])
                elif kind == "conditional":
                    fields["if-none-match"] = self.chance.choice(['"x"', '"y"'])
                elif kind == "directive":
                    fields["cache-control"] = self.chance.choice(
                        ["no-cache", "no-store", "max-age=0", "only-if-cached"]
                    )
            case "variant":
                fields["x-a"] = str(self.chance.randrange(10**6))
            case "member":
                fields["authorization"] = f"user {self.chance.randrange(20)}"
            case _:
                pass
        visit = Visit(self.app, f"/{path}/{name}", method, fields).begin()
        if self.chance.random() < LEAVES:
            await asyncio.sleep(self.chance.random() * 0.005)
            if self.chance.random() < 0.3:
                visit.cancel()
            else:
                visit.leave()
            try:
                await visit.end()
            except asyncio.CancelledError:
                self.said["cancelled"] += 1
            return
        await visit.end()
        self._check(kind, path, name, fields, visit)

    async def _purge(self, name: str) -> None:
        soft = self.chance.random() < 0.5
        match self.chance.randrange(3):
            case 0:
                await self.purger.url(f"http://example.com/hit/{name}", soft=soft)
            case 1:
                await self.purger.tags(f"rule:{name}", soft=soft)
            case _:
                await self.purger.pattern("http://example.com/variant/1*", soft=False)

    def _check(self, kind: str, path: str, name: str, fields: dict[str, str], visit: Visit) -> None:
        self.said[visit.cache_status.partition(";")[2].strip().partition(";")[0]] += 1
        if visit.status != 200 or kind in ("head", "unsafe", "range"):
            return
        body = f"{path} {name} ".encode() * 20
        own = fields.get("x-a") or fields.get("authorization") or ""
        if not visit.complete or not visit.body.startswith(body) or not visit.body.endswith(own.encode()):
            self.wrong.append(f"{kind}: {visit.body[:60]!r}")

    async def run(self, seconds: float) -> None:
        """All clients at once."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self.client(until) for _ in range(CLIENTS)))


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("layers", ["memory", "redis"])
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(1.5, id="short"),
        pytest.param(SECONDS, id="long", marks=[pytest.mark.reliability, pytest.mark.timeout(2 * SECONDS + 120)]),
    ],
)
async def test_mixed_traffic_leaves_nothing_behind(redis_url: str, seconds: float, layers: str) -> None:
    options = {"redis_url": redis_url, "timeout": 60.0} if layers == "redis" else {}
    before = asyncio.all_tasks()
    manager = CacheManager(configuration(max_size=ENTRIES, **options))
    soak = Soak(manager, 1)

    async def settle() -> None:
        await eventually(lambda: is_settled(manager) and not soak.app.exchange._loads.refreshes)
        gc.collect()

    # First all that is filled once: keys and targets that are remembered, counters, pools.
    await soak.run(min(seconds, 60.0) / 2)
    await settle()
    resident_before = resident()
    await soak.run(seconds)
    await settle()
    grown_process = resident() - resident_before
    # Its own traffic, as tracing makes everything slower by half.
    tracemalloc.start()
    try:
        await soak.run(min(seconds, 30.0) / 2)
        await settle()
        traced = tracemalloc.get_traced_memory()[0]
        await soak.run(min(seconds, 30.0))
        await settle()
        grown = tracemalloc.get_traced_memory()[0] - traced
    finally:
        tracemalloc.stop()
    memory = manager._engine.stack.memory
    assert memory is not None
    print(
        f"{layers}: {soak.made.total()} requests, {dict(soak.said)}, "
        f"{grown_process / 1e6:.1f} MB more of the process, {grown / 1e6:.2f} MB more of Python"
    )
    assert not soak.wrong, soak.wrong[:5]
    assert soak.made.keys() == KINDS.keys()
    assert all(soak.said[word] for word in ("hit", "fwd=uri-miss", "fwd=stale", "fwd=vary-miss", "fwd=request"))
    assert count(manager, names.REFRESHES) > 0
    assert soak.origin.running == 0
    assert len(memory.entries) <= ENTRIES
    assert grown < MAX_GROWTH + (MAX_REMEMBERED if seconds < 60 else 0)
    assert grown_process < MAX_GROWTH_OF_PROCESS
    await manager.aclose()
    await eventually(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})
