"""One worker: an app behind the middleware, clients with transports, values and decorated functions.

Each part writes down what it did and saw. Nothing of that is read from the cache's own counts.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httpx
import httpx2
import prometheus_client
import uvicorn
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aurelis.cache import CacheConfig, CacheManager, cached
from aurelis.cache.telemetry import names
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx import CacheTransport
from aurelis_httpx2 import AsyncCacheTransport
from tests.asgi.sockets import listening_socket
from tests.fleet import Json, Report
from tests.managers import eventually, is_settled
from tests.servers import HOST
from tests.telemetry.exact import origin
from tests.telemetry.exact.seen import Seen

WEB, CLIENT, OWN, SHARED = CACHES = ("exact-web", "exact-client", "exact-own", "exact-shared")
"""The caches of a worker: of the middleware, of the transports, of values that one caller has for itself, of others."""

THREADS: Final = 4
TASKS: Final = 8
MODEL: Final = "model-1"
PAGES: Final = ("kept", "kept", "kept", "shared", "asked", "behind", "standing-in", "failing", "never")
IMPATIENT: Final = origin.SLOW / 3
SEVERAL: Final = 12
"""Who ask for the same at once."""


class Worker:
    """Its caches, and what it knows."""

    def __init__(self, number: int, redis_url: str, origin_port: int) -> None:
        self.number = number
        self.origin = f"http://{HOST}:{origin_port}"
        options: dict[str, Any] = {
            "redis_url": redis_url,
            "l1_ttl": 2.0,
            "breaker_pause": 0.3,
            "heartbeat": 0.5,
            "secret": "s",
        }
        self.web, self.client, self.own, self.shared = (
            CacheManager(CacheConfig(name=name, namespace=name, **options)) for name in CACHES
        )
        self.seen = Seen()  # of the transports
        self.own_seen = Seen()
        self.known: Counter[str] = Counter()
        self._lock = threading.Lock()  # what several threads count
        self._turn = 0

    @property
    def managers(self) -> tuple[CacheManager, ...]:
        """All of them."""
        return (self.web, self.client, self.own, self.shared)

    def know(self, **what: int) -> None:
        """Write something down, from any thread."""
        with self._lock:
            self.known.update(what)

    # Transports

    async def call(self, number: int) -> None:
        """So many requests through the transports, some in an event loop, some in threads."""
        self._turn += 1
        transport = AsyncCacheTransport(cache=self.client)
        fields = {origin.SENDER: str(self.number)}
        async with httpx2.AsyncClient(transport=transport, timeout=20, trust_env=False, headers=fields) as client:
            chance = random.Random(self.number * 1000 + self._turn)
            share = number // (TASKS + THREADS)
            inside = [self._calls(client, random.Random(chance.random()), share) for _ in range(TASKS)]
            outside = [
                asyncio.to_thread(self._calls_blocking, random.Random(chance.random()), share) for _ in range(THREADS)
            ]
            await asyncio.gather(*inside, *outside)
            await self._at_once(client)
            await self._embed(client, chance)

    async def _calls(self, client: httpx2.AsyncClient, chance: random.Random, number: int) -> None:
        for _ in range(number):
            if chance.random() < 0.3:
                await self._ask(client, f"{chance.randrange(200)}", stream=chance.random() < 0.5)
                continue
            kind, page = self._page(chance, httpx2.Timeout(20, read=IMPATIENT))
            try:
                response = await client.get(**page)
            except httpx2.TransportError as error:
                self._note_raised(kind, error)
            else:
                self._note(response.status_code, response.headers["cache-status"])

    def _calls_blocking(self, chance: random.Random, number: int) -> None:
        transport, fields = CacheTransport(cache=self.client), {origin.SENDER: str(self.number)}
        with httpx.Client(transport=transport, timeout=20, trust_env=False, headers=fields) as client:
            for _ in range(number):
                kind, page = self._page(chance, httpx.Timeout(20, read=IMPATIENT))
                try:
                    response = client.get(**page)
                except httpx.TransportError as error:
                    self._note_raised(kind, error)
                else:
                    self._note(response.status_code, response.headers["cache-status"])

    def _page(self, chance: random.Random, impatient: object) -> tuple[str, dict[str, Any]]:
        """What to ask for, and its kind."""
        if chance.random() < 0.01:  # nobody waits so long, if the machine is not late itself
            url = f"{self.origin}/page/slow/{chance.randrange(10**12)}"
            return "slow", {"url": url, "timeout": impatient}
        if chance.random() < 0.01:  # nobody is there
            return "nowhere", {"url": f"http://{HOST}:1/page/kept/{chance.randrange(10**12)}"}
        kind = chance.choice(PAGES)
        return kind, {"url": f"{self.origin}/page/{kind}/{chance.randrange(10)}", "headers": origin.wishes(chance)}

    async def _ask(self, client: httpx2.AsyncClient, prompt: str, *, stream: bool = False) -> None:
        question = {"role": "user", "content": prompt}
        body: dict[str, Any] = {"model": MODEL, "messages": [question], "temperature": 0}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        response = await client.post(f"{self.origin}/v1/chat/completions", json=body)
        if self._note(response.status_code, response.headers["cache-status"]) == names.HIT:
            self.know(answers_again=1)

    async def _at_once(self, client: httpx2.AsyncClient) -> None:
        """Several ask for the same at once, of a model and of a page."""
        mine = f"{self.number} {self._turn}"
        await asyncio.gather(*(self._ask(client, f"at once {mine}") for _ in range(SEVERAL)))

        async def get() -> None:
            response = await client.get(f"{self.origin}/page/shared/{mine}")
            self._note(response.status_code, response.headers["cache-status"])

        await asyncio.gather(*(get() for _ in range(SEVERAL)))

    async def _embed(self, client: httpx2.AsyncClient, chance: random.Random) -> None:
        """Embeddings of several texts, some of which were asked for before."""
        for _ in range(10):
            texts = [f"{self.number} {one}" for one in chance.sample(range(50), chance.randint(2, 5))]
            body = {"model": "embedding-1", "input": texts}
            response = await client.post(f"{self.origin}/v1/embeddings", json=body)
            self._note(response.status_code, response.headers["cache-status"])
            self.know(texts=len(texts))

    def _note(self, status: int, cache_status: str) -> str:
        with self._lock:
            return self.seen.note(status, cache_status)

    def _note_raised(self, kind: str, error: Exception) -> None:
        """What raises is asked for by nobody else; of anything else it is not known whose load that was."""
        self._note(0, "")
        self.know(**{kind if kind in ("slow", "nowhere") else f"{kind} {type(error).__name__}": 1})

    # Values

    async def keep(self, number: int) -> None:
        """So many requests for values and results of functions, from threads and from the event loop."""
        self._turn += 1
        share = number // (2 * THREADS + 2)
        await asyncio.gather(
            *(asyncio.to_thread(self._own_values, f"{self._turn} {thread}", share) for thread in range(THREADS)),
            *(asyncio.to_thread(self._shared_values, random.Random(thread), share) for thread in range(THREADS)),
            self._own_values_here(share),
            self._shared_values_here(share),
        )

    def _own_values(self, name: str, number: int) -> None:
        """A function that nobody else calls with these arguments: who calls it sees whether it was called."""
        called = 0

        @cached(ttl=3600, cache=self.own, category=f"{self.number} {name}")
        def square(root: int) -> int:
            nonlocal called
            called += 1
            if root % 50 == 49:
                raise LookupError("no square")
            return root * root

        seen, chance, failed, deletes = Seen(), random.Random(name), 0, 0
        for turn in range(number):
            root, before = chance.randrange(100), called
            try:
                assert square(root) == root * root
            except LookupError:
                failed += 1
            seen[names.MISS if called > before else names.HIT] += 1
            if turn % 100 == 99:
                deletes += 1
                self._forget(partial(square.invalidate, root))
        self._add(seen, loads=called, given=called - failed, deletes=deletes)

    def _forget(self, forget: Callable[[], object]) -> None:
        try:
            forget()
        except Exception:  # noqa: BLE001  # Redis is down, and is told later
            self.know(refused=1)

    def _add(self, seen: Seen, **what: int) -> None:
        with self._lock:
            self.own_seen.update(seen)
        self.know(**{f"own_{name}": number for name, number in what.items()})

    async def _own_values_here(self, number: int) -> None:
        seen, chance, cache = Seen(), random.Random(self._turn), self.own
        prefix, sets, deletes, loads = f"{self.number} {self._turn} here", 0, 0, 0

        async def load() -> int:
            nonlocal loads
            loads += 1
            return 1

        for _ in range(number):
            key = cache.key_builder.build_key(prefix, str(chance.randrange(100)))
            match chance.randrange(20):
                case 0:
                    await cache.set(key, 1)
                    sets += 1
                case 1:
                    deletes += 1
                    try:
                        await cache.delete(key)
                    except Exception:  # noqa: BLE001  # as in `_forget`
                        self.know(refused=1)
                case 2:
                    keys = [cache.key_builder.build_key(prefix, str(chance.randrange(100))) for _ in range(5)]
                    found = await cache.get_many(keys)
                    seen[names.HIT] += len(found)
                    seen[names.MISS] += len(set(keys)) - len(found)
                    self.know(own_looks=len(set(keys)) - len(found))
                case 3:
                    await cache.set_many({key: 1, f"{key} too": 2})
                    sets += 2
                case number if number < 10:
                    value = await cache.get(key)
                    seen[names.MISS if value is None else names.HIT] += 1
                    self.know(own_looks=value is None)
                case _:
                    before = loads
                    assert await cache.get_or_compute(key, load) == 1
                    seen[names.MISS if loads > before else names.HIT] += 1
        self._add(seen, loads=loads, given=loads, sets=sets, deletes=deletes)

    def _shared_values(self, chance: random.Random, number: int) -> None:
        """A function that all threads of all workers call: which of them loads is not known, how often is."""

        @cached(ttl=1, cache=self.shared, category="square", key_func=lambda root: f"square {root}")
        def square(root: int) -> int:
            self.know(shared_loads=1)
            return root * root

        for _ in range(number):
            root = chance.randrange(30)
            assert square(root) == root * root
        self.know(shared_requests=number)

    async def _shared_values_here(self, number: int) -> None:
        async def load(root: int) -> int:
            self.know(shared_loads=1)
            await asyncio.sleep(0.001)
            return root * root

        chance = random.Random(self._turn)
        done = 0
        while done < number:
            root = chance.randrange(30)
            key = self.shared.key_builder.build_key("cube", str(root))
            together = min(SEVERAL, number - done)
            calls = (self.shared.get_or_compute(key, partial(load, root), ttl=1) for _ in range(together))
            assert await asyncio.gather(*calls) == [root * root] * together
            done += together
        self.know(shared_requests=number)

    # What it says

    async def report(self) -> Json:
        """What it knows, once nothing goes on any more."""
        for manager in self.managers:
            await eventually(partial(is_settled, manager))
        return {
            "seen": self.seen,
            "own": self.own_seen,
            "known": self.known,
            "app": origin.CALLS,
        }


def work(report: Report, number: int, redis_url: str, origin_port: int) -> None:
    """Serves until it is ended; reports its ports."""
    registry = prometheus_client.CollectorRegistry()
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader(registry=registry)]))
    worker = Worker(number, redis_url, origin_port)
    rules = [CacheRule("/page/rule/*", ttl=3600), CacheRule("/page/own/*", ttl=3600, principal=lambda _: None)]
    pages = Starlette(routes=[Route("/page/{kind}/{name}", origin.page)])

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/page/raising/"):  # the framework would answer before it raises
            origin.count("", "raising")
            raise LookupError("broken")
        await pages(scope, receive, send)

    behind = CacheMiddleware(inner, cache=worker.web, rules=rules)

    async def call(request: Request) -> JSONResponse:
        await worker.call(int(request.query_params["number"]))
        return JSONResponse({})

    async def keep(request: Request) -> JSONResponse:
        await worker.keep(int(request.query_params["number"]))
        return JSONResponse({})

    async def told(_: Request) -> JSONResponse:
        return JSONResponse(await worker.report())

    beside = Starlette(debug=True, routes=[Route("/do/call", call), Route("/do/keep", keep), Route("/do/report", told)])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (beside if scope["path"].startswith("/do/") else behind)(scope, receive, send)

    server, _ = prometheus_client.start_http_server(0, HOST, registry)
    with listening_socket() as listener:
        report([listener.getsockname()[1], server.server_port])
        uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off")).run(sockets=[listener])
