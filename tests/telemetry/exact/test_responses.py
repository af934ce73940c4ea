"""The counts of responses are exact for any plan of requests through the middleware or a transport, whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheManager, cache_options
from aurelis.cache.exceptions import CacheError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, ManualClock, SharedMemory
from aurelis_asgi import CacheMiddleware, Purger
from aurelis_httpx2 import AsyncCacheTransport
from tests.asgi.origin import Origin
from tests.asgi.test_counts import FIELDS, RULES, TARGETS, by_path
from tests.asgi.visits import HOST, Visit
from tests.managers import configuration, eventually, is_settled
from tests.telemetry.exact.ledger import Counts, identities

EXAMPLES = settings(max_examples=50)
LAYERS = st.sampled_from(["memory", "shared", "unreliable", "down"])
FAULTS = {"shared": Faults(), "unreliable": Faults(fail=0.2, fail_after=0.1), "down": Faults(fail=1.0, refuse=1.0)}
MOMENT = st.sampled_from([None, None, None, 0, 1, 2, 3, 5, 8, 13])
"""Steps of the event loop after which a caller leaves; `None`: it stays."""
PAUSE = st.sampled_from([0, 0, 1, 6, 100])
"""Seconds between two rounds of requests at once."""


def manager_of(layers: str, clock: ManualClock, seed: int) -> CacheManager:
    """A manager over these layers; all have one name, so that they are few series."""
    if layers == "memory":
        return CacheManager(configuration(name="responses"), clock=clock)
    chaos = Chaos(FAULTS[layers], seed=seed)
    lower = [ChaosSharedLayer(SharedMemory(clock).node(clock), chaos)]
    return CacheManager(configuration(name="responses", heartbeat=1000.0), clock=clock, lower=lower)


async def steps(number: int) -> None:
    """So many turns of the event loop."""
    for _ in range(number):
        await asyncio.sleep(0)


# --- the middleware

VISIT = st.tuples(
    st.sampled_from(TARGETS), st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]), st.sampled_from(FIELDS), MOMENT
)
PURGE = st.sampled_from([None, None, None, "url", "soft", "pattern", "clear", "unsafe"])


@EXAMPLES
@given(LAYERS, st.lists(st.tuples(PAUSE, st.lists(VISIT, max_size=8), PURGE), max_size=12), st.integers(0, 1000))
async def test_any_plan_of_requests_through_the_middleware(
    layers: str, plan: list[tuple[float, list[tuple[str, str, dict[str, str], int | None]], str | None]], seed: int
) -> None:
    clock, origin = ManualClock(), Origin(by_path)
    manager = manager_of(layers, clock, seed)
    app = CacheMiddleware(origin, cache=manager, rules=RULES)
    purger = Purger(cache=manager, rules=RULES)
    counts = Counts("responses")
    sent = posted = refused = 0
    for pause, visits, purge in plan:
        clock.advance(pause)
        begun = []
        for target, method, fields, moment in visits:
            visit = Visit(app, target, method, fields).begin()
            begun.append((visit, moment))
            posted += method == "POST"
            sent += method != "POST"
        await asyncio.sleep(0)  # all have begun
        for number, (visit, moment) in enumerate(begun):
            if moment is not None:
                await steps(moment)
                [visit.leave, visit.cancel][number % 2]()
        if purge is not None:
            with contextlib.suppress(CacheError):
                await purged(purge, purger, manager)
        for visit, _ in begun:
            with contextlib.suppress(LookupError, asyncio.CancelledError):
                await visit.end()
            refused += bool(visit.messages) and visit.status == 504
    await eventually(lambda: not origin.running and is_settled(manager))
    check(counts, sent, len(origin.calls) - posted + refused)
    assert counts.total(names.STORES) <= len(origin.calls)
    await manager.aclose()


async def purged(how: str, purger: Purger, manager: CacheManager) -> None:
    """Something is taken out of use."""
    match how:
        case "url":
            await purger.url(f"http://{HOST}/kept/1")
        case "soft":
            await purger.url(f"http://{HOST}/kept/1", soft=True)
        case "pattern":
            await purger.pattern(f"http://{HOST}/*")
        case _:
            await manager.clear()


def check(counts: Counts, requests: int, asked: int) -> None:
    """Each request is counted once, and the origin was asked as often as it was.

    Args:
        asked: how often it was, and how many requests were refused, which are bypasses as those that it has answered.
    """
    results = counts.of(names.REQUESTS, names.RESULT)
    assert sum(results.values()) == requests, results
    refreshes = counts.of(names.REFRESHES, names.REFRESH_REASON)
    assert counts.loads() + results.get(names.BYPASS, 0) == asked, (results, refreshes, counts.total(names.COALESCED))
    lookups = counts.of(names.LOOKUPS, names.LAYER)
    assert lookups.get(names.L1, 0) >= requests - results.get(names.BYPASS, 0)
    identities(counts)


# --- a transport


class Provider:
    """An origin of pages, answers and embeddings without a network, which counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.embedded = 0

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answers, or fails."""
        self.asked += 1
        number = self.asked
        await steps(number % 4)
        if request.method == "POST":
            return self._model(request, number)
        fields, kind = request.headers, request.url.path.split("/")[1]
        match kind:
            case "kept":
                return httpx2.Response(200, headers={"cache-control": "max-age=60"}, text="kept")
            case "asked":
                etag = {"etag": '"1"', "cache-control": "max-age=5, stale-while-revalidate=30"}
                if fields.get("if-none-match") == '"1"' and number % 5:
                    return httpx2.Response(304, headers=etag)
                return httpx2.Response(200, headers=etag, text="asked")
            case "standing-in":
                if number % 3 == 0:
                    raise httpx2.ConnectError("broken")
                if number % 3 == 1:
                    return httpx2.Response(500, text="broken")
                return httpx2.Response(200, headers={"cache-control": "max-age=5, stale-if-error=60"}, text="yes")
            case "failing":
                raise httpx2.ReadTimeout("broken")
            case _:
                return httpx2.Response(200, headers={"cache-control": "no-store"}, text="never")

    def _model(self, request: httpx2.Request, number: int) -> httpx2.Response:
        asked = json.loads(request.content)
        if request.url.path.endswith("embeddings"):
            texts = asked["input"]
            if number % 7 == 0:
                return httpx2.Response(429, json={"error": {"message": "busy"}})
            self.embedded += len(texts)
            data = [{"object": "embedding", "index": place, "embedding": [0.5]} for place in range(len(texts))]
            usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
            return httpx2.Response(200, json={"object": "list", "data": data, "model": asked["model"], "usage": usage})
        if number % 5 == 0:
            return httpx2.Response(503, json={"error": {"message": "busy"}})
        message = {"role": "assistant", "content": "yes"}
        reason = "length" if number % 6 == 0 else "stop"
        answer = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        return httpx2.Response(
            200, json={"id": "1", "object": "chat.completion", "model": "m", "choices": [answer], "usage": usage}
        )


KIND = st.sampled_from(["kept", "asked", "standing-in", "failing", "never"])
PAGE = st.tuples(st.just("page"), KIND, st.integers(0, 1))
CHAT = st.tuples(st.just("chat"), st.sampled_from(["a", "b"]), st.integers(0, 1))
EMBED = st.tuples(st.just("embed"), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), st.just(0))
WISH = st.sampled_from([{}, {}, {}, {"only_if_cached": True}, {"refresh": True}, {"ttl": 0}])
CALL = st.tuples(st.one_of(PAGE, CHAT, EMBED), WISH, MOMENT)


@EXAMPLES
@given(LAYERS, st.lists(st.tuples(PAUSE, st.lists(CALL, max_size=8)), max_size=12), st.integers(0, 1000))
async def test_any_plan_of_calls_through_a_transport(
    layers: str, plan: list[tuple[float, list[tuple[tuple[str, Any, int], dict[str, Any], int | None]]]], seed: int
) -> None:
    clock, provider = ManualClock(), Provider()
    manager = manager_of(layers, clock, seed)
    transport = AsyncCacheTransport(
        httpx2.MockTransport(provider),
        cache=manager,
        ttl=30,
        negative_ttl=3,
        stale_while_revalidate=20,
        stale_if_error=60,
    )
    counts = Counts("responses")
    sent = refused = 0

    async with httpx2.AsyncClient(transport=transport, base_url="http://origin.example") as client:

        async def call(what: tuple[str, Any, int], wish: dict[str, Any]) -> None:
            nonlocal refused
            kind, which, number = what
            with cache_options(**wish):
                match kind:
                    case "page":
                        response = await client.get(f"/{which}/{number}")
                    case "chat":
                        question = {"role": "user", "content": which}
                        body = {"model": f"m{number}", "messages": [question], "temperature": 0}
                        response = await client.post("/v1/chat/completions", json=body)
                    case _:
                        body = {"model": "e", "input": which}
                        response = await client.post("/v1/embeddings", json=body)
            refused += response.status_code == 504

        for pause, calls in plan:
            clock.advance(pause)
            begun = []
            for what, wish, moment in calls:
                begun.append((asyncio.create_task(call(what, wish)), moment))
                sent += 1
            await asyncio.sleep(0)  # all have begun
            for task, moment in begun:
                if moment is not None:
                    await steps(moment)
                    task.cancel()
            for task, _ in begun:
                with contextlib.suppress(httpx2.HTTPError, asyncio.CancelledError):
                    await task
        await eventually(lambda: is_settled(manager))
        check(counts, sent, provider.asked + refused)
    await manager.aclose()
