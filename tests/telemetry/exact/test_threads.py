"""The counts of a transport are exact that many threads use, whatever becomes of them and of their responses."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import pytest

from aurelis.cache import CacheManager, cache_options
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, SharedMemory
from aurelis_httpx2 import CacheTransport
from tests.managers import configuration, eventually_blocking
from tests.models.wire import ANTHROPIC
from tests.telemetry.exact.ledger import Counts
from tests.telemetry.exact.test_responses import check

THREADS, CALLS = 6, 6
WISHES: tuple[dict[str, Any], ...] = ({}, {}, {}, {"only_if_cached": True}, {"refresh": True})
LIFETIMES = ("max-age=60", "max-age=0, stale-while-revalidate=60", "no-store", "max-age=0, stale-if-error=100")


class Body(httpx2.SyncByteStream):
    """A body that comes piece by piece, and may break off."""

    def __init__(self, chunks: Sequence[bytes], breaks: int | None) -> None:
        self._chunks = chunks
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        for number, chunk in enumerate(self._chunks):
            time.sleep(0.0005)
            if number == self._breaks:
                raise httpx2.ReadError("broken")
            yield chunk


class Origin:
    """Answers, or fails, and counts how often it was asked."""

    def __init__(self, seed: int) -> None:
        self.asked = 0
        self._seed = seed
        self._lock = threading.Lock()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        with self._lock:
            self.asked += 1
            chance = random.Random(self._seed * 1000 + self.asked)
        time.sleep(chance.random() * 0.003)
        if request.url.path.endswith("embeddings"):
            return self._embeddings(request, chance)
        if request.method == "POST":
            fields = {"content-type": ANTHROPIC.content_type}
            return httpx2.Response(200, headers=fields, stream=Body(ANTHROPIC.chunks, chance.choice([None, None, 1])))
        if chance.random() < 0.15:
            raise httpx2.ConnectError("broken")
        fields = {"cache-control": chance.choice(LIFETIMES)}
        if chance.random() < 0.5:
            fields["etag"] = '"1"'
            if request.headers.get("if-none-match") == '"1"':
                return httpx2.Response(304, headers=fields)
        breaks = chance.choice([None, None, None, 0, 1])
        return httpx2.Response(200, headers=fields, stream=Body([b"x"] * chance.randrange(1, 4), breaks))

    def _embeddings(self, request: httpx2.Request, chance: random.Random) -> httpx2.Response:
        if chance.random() < 0.2:
            return httpx2.Response(429, json={"error": {"message": "busy"}})
        texts = json.loads(request.content)["input"]
        data = [{"object": "embedding", "index": place, "embedding": [0.5]} for place in range(len(texts))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return httpx2.Response(200, json={"object": "list", "data": data, "model": "m", "usage": usage})


class Callers:
    """Threads that call for the same, read what they get, or some of it, or drop it."""

    def __init__(self, client: httpx2.Client, seed: int) -> None:
        self.sent = self.refused = 0
        self._client = client
        self._seed = seed
        self._lock = threading.Lock()

    def run(self) -> None:
        """Call, and return when all have."""
        threads = [threading.Thread(target=self._call_often, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _call_often(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)
        for _ in range(CALLS):
            with contextlib.suppress(httpx2.HTTPError):
                self._call(chance)

    def _call(self, chance: random.Random) -> None:
        with cache_options(**chance.choice(WISHES)):
            with self._lock:
                self.sent += 1
            response = self._client.send(self._request(chance), stream=True)
        with self._lock:
            self.refused += response.status_code == 504
        match chance.choice(["read", "read", "some", "close", "drop"]):
            case "read":
                response.read()
            case "some":
                next(response.iter_bytes(), None)
                response.close()
            case "close":
                response.close()
            case _:
                del response

    def _request(self, chance: random.Random) -> httpx2.Request:
        match chance.choice(["page", "page", "page", "stream", "items"]):
            case "page":
                method = chance.choice(["GET", "GET", "GET", "HEAD"])
                return self._client.build_request(method, f"/page/{chance.randrange(3)}")
            case "stream":
                path, body = ANTHROPIC.call(stream=True)
                return self._client.build_request("POST", path, json=body)
            case _:
                body = {"model": "e", "input": chance.sample("abcdef", chance.randrange(1, 4))}
                return self._client.build_request("POST", "/v1/embeddings", json=body)


def run(seed: int) -> None:
    """One run."""
    faults = Faults(fail=0.2) if seed % 3 == 0 else Faults()
    lower = [ChaosSharedLayer(SharedMemory().node(), Chaos(faults, seed=seed))] if seed % 2 else []
    manager = CacheManager(configuration(heartbeat=1000.0), lower=lower)
    counts, origin = Counts(manager), Origin(seed)
    options = {"ttl": 30, "stale_while_revalidate": 20, "stale_if_error": 60, "linger": 0.02 * (seed % 2)}
    transport = CacheTransport(httpx2.MockTransport(origin), cache=manager, **options)  # type: ignore[arg-type]
    # Some wait for another's load no longer than that takes.
    with httpx2.Client(
        transport=transport, base_url="http://origin.example", timeout=[5, 0.002][seed % 5 == 4]
    ) as client:
        callers = Callers(client, seed)
        callers.run()
        eventually_blocking(lambda: is_over(manager))
        check(counts, callers.sent, origin.asked + callers.refused)
    asyncio.run(manager.aclose())


def is_over(manager: CacheManager) -> bool:
    """Whether nobody loads or waits. What was dropped is known until somebody asks for it again, but not alive."""
    gc.collect()  # what was dropped in a cycle
    flights = manager._engine.flights
    return not behind() and not flights.waiting and not any(one.alive() for one in list(flights._flights.values()))


def behind() -> list[threading.Thread]:
    """The threads that load for nobody who waits."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(("aurelis-cache-refresh", "aurelis-cache-linger"))
    ]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what is dropped unclosed
def test_any_plan_of_calls_of_many_threads() -> None:
    for seed in range(10):
        run(seed)


@pytest.mark.reliability
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_many_plans_of_calls_of_many_threads() -> None:
    for seed in range(10, 500):
        run(seed)
