"""However many keys, addresses, hosts, tenants, methods, models and kinds of errors there are, the series are few.

And what tells of caches does not grow with those that were.
"""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import generate_latest

from aurelis.cache import CacheConfig, CacheManager, CacheStats, FileCacheManager, SimilarityCache, WriteBehind
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._cells import REGISTRY
from aurelis.cache.telemetry.otel import _PROVIDERS, instrument
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, SharedMemory
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx2 import AsyncCacheTransport
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import ask
from tests.managers import configuration, own_counts
from tests.telemetry.collecting import Metrics

SERIES = 120
"""At most of one cache without its errors and durations: results, layers, reasons, directions, each a few words."""
MODELS = 6 * (names.MAX_MODELS + 1)
"""At most of what models save: tokens of two types, answers without usage, cost or price, and time."""
ERRORS = 8 * (names.MAX_ERROR_TYPES + 1)
"""At most of failures: the types that are kept apart by operation, of which each fault meets a few."""
MANY = [
    pytest.param(3_000, id="some"),
    pytest.param(100_000, id="many", marks=[pytest.mark.reliability, pytest.mark.timeout(900)]),
]
SOME = 300
"""Of what costs more: requests of their own to layers, classes, models."""
PLANTED = ("planted", "://", "example")
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """A reader of this test's caches alone."""
    with own_counts():
        yield Metrics()


class Error(Exception):
    """What is raised here, under many names."""


async def loaded() -> int:
    """A load."""
    return 1


def error(number: int) -> Exception:
    """An error of a class that is made for it, whose name says what must not be told."""
    name = f"Error{number}" if number % 2 else f"https://planted/{number}"
    made: type[Error] = type(name, (Error,), {})
    return made("planted")


@asynccontextmanager
async def failing(**options: object) -> AsyncIterator[tuple[CacheManager, Chaos]]:
    """A manager over a shared layer whose failures are all of other classes."""
    numbers = iter(range(10**9))
    chaos = Chaos(error=lambda: error(next(numbers)))
    lower = [ChaosSharedLayer(SharedMemory().node(), chaos)]
    async with CacheManager(configuration(breaker_failures=10**9, **options), lower=lower) as manager:
        yield manager, chaos


def series(metrics: Metrics, cache: CacheManager) -> dict[str, int]:
    """The number of series of each metric; none may tell what was planted."""
    found = {metric: metrics.points(metric, cache.config.name) for metric in names.METRICS}
    texts = [str(value) for points in found.values() for attributes, _ in points for value in attributes.values()]
    assert texts
    assert [text for text in texts if any(planted in text for planted in PLANTED)] == []
    assert max(map(len, texts)) <= 128
    assert [text for text in texts if not text.isprintable()] == []
    return {metric.name: len(points) for metric, points in found.items()}


def check(found: dict[str, int], *, errors: int = 0, models: int = 0) -> None:
    """They are no more than is said."""
    saved = sum(number for name, number in found.items() if ".saved." in name)
    failures = found[names.ERRORS.name] + found[names.DURATION.name]
    assert saved <= models + 2
    assert failures <= errors + 30
    assert sum(found.values()) - saved - failures <= SERIES


@pytest.mark.parametrize("distinct", MANY)
async def test_keys(metrics: Metrics, distinct: int) -> None:
    async def value() -> int:
        return 1

    async with CacheManager(configuration()) as cache:
        for number in range(distinct):
            await cache.get_or_compute(f"planted {number}", value, tags=(f"planted {number % 1000}",))
        check(series(metrics, cache))


@pytest.mark.parametrize("distinct", MANY)
async def test_addresses_through_the_middleware(metrics: Metrics, distinct: int) -> None:
    async def page(call: Call) -> None:
        await call.answer("page", cache_control="max-age=60")

    async with CacheManager(configuration()) as cache:
        rules = [CacheRule(f"/planted/{number}/{{name}}", ttl=60, tags=["{name}"]) for number in range(50)]
        app = CacheMiddleware(Origin(page), cache=cache, rules=rules)
        for number in range(distinct):
            fields = {"host": f"planted-{number % 5000}.example", "authorization": f"planted {number % 7000}"}
            method = f"PLANTED{number}" if number % 20 == 0 else "GET"
            target = f"/planted/{number % 60}/{number}?token=planted{number}"
            await ask(app, target, method, fields if number % 2 else {"host": fields["host"]})
        check(series(metrics, cache))


@pytest.mark.parametrize("distinct", MANY)
async def test_addresses_and_tenants_through_a_transport(metrics: Metrics, distinct: int) -> None:
    def page(request: httpx2.Request) -> httpx2.Response:
        reason = f"max-age=60, planted-{request.url.path[1:]}"
        return httpx2.Response(200, headers={"cache-control": reason}, text="page")

    async with CacheManager(configuration()) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(page), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            for number in range(distinct):
                method = f"PLANTED{number}" if number % 20 == 0 else "GET"
                fields = {"x-api-key": f"planted {number % 7000}"}
                url = f"http://planted-{number % 5000}.example/{number}?key=planted{number}"
                await client.request(method, url, headers=fields)
        check(series(metrics, cache))


async def test_models_and_what_their_answers_say(metrics: Metrics) -> None:
    """Names of models, reasons to end, and how an answer is billed are whatever a provider or a caller writes."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        model = json.loads(request.content)["model"]
        message = {"role": "assistant", "content": "planted"}
        reason = "stop" if not model.endswith("7") else model
        choice = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, model: 3}
        tier = {"service_tier": model, "object": "chat.completion", "id": model}
        return httpx2.Response(200, json={**tier, "model": model, "choices": [choice], "usage": usage})

    async with CacheManager(configuration()) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(answer), cache=cache, cost=lambda *_: None)
        async with httpx2.AsyncClient(transport=transport) as client:
            for number in range(SOME):
                for model in (f"model-{number}", f"https://planted/{number}", f"planted?key={number}"):
                    question = {"role": "user", "content": "planted"}
                    for _ in range(2):
                        body = {"model": model, "messages": [question], "temperature": 0}
                        await client.post("http://planted.example/v1/chat/completions", json=body)
        found = series(metrics, cache)
        check(found, models=MODELS)
        assert found[names.SAVED_TOKENS.name] == 2 * (names.MAX_MODELS + 1)


async def test_kinds_of_errors(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    """Of loads, of the app, of what is below a transport, of values that cannot be stored, and of a layer."""
    async with failing() as (cache, chaos):

        async def app(call: Call) -> None:
            raise error(call.number)

        def broken(request: httpx2.Request) -> httpx2.Response:
            raise type(f"Broken{request.url.path[1:]}", (httpx2.ConnectError,), {})("planted")

        middleware = CacheMiddleware(Origin(app), cache=cache)
        transport = AsyncCacheTransport(httpx2.MockTransport(broken), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            for number in range(SOME):
                chaos.faults = Faults(fail=1.0) if number % 3 == 0 else Faults()

                async def load(number: int = number) -> object:
                    if number % 2:
                        raise error(number + 10**6)
                    return type(f"Session{number}" if number % 4 else f"https://planted/{number}", (), {})()

                with suppress(Error):
                    await cache.get_or_compute(f"planted {number}", load)
                with suppress(Error):
                    await ask(middleware, f"/planted/{number}")
                with suppress(httpx2.ConnectError):
                    await client.get(f"http://planted.example/{number}")
                await cache.set(f"planted {number}", 1)
        check(series(metrics, cache), errors=ERRORS)
        table = cache._engine.telemetry
        assert len(table._durations) <= ERRORS
    # What cannot be stored is told by its type, for some types.
    assert len(caplog.records) < 3 * names.MAX_ERROR_TYPES
    assert "a loaded value is not cached" in caplog.text
    assert [word for word in PLANTED if word in caplog.text] == []


UNPRINTABLE = ("\ud800", "\n", "\x1b[31m", "\x9b31m", "\u202e", "\u2028", "\x00")
"""The first one cannot be encoded, so that an exporter would export nothing any more; terminals obey others."""


@pytest.fixture
def prometheus() -> Iterator[None]:
    """The exporter for Prometheus reads this test's caches."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument(provider)
    yield
    provider.shutdown()


async def test_a_name_that_cannot_be_exported_ends_no_export(metrics: Metrics, prometheus: None) -> None:
    """Whoever may choose a model of a gateway could end all metrics of its process."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        message = {"role": "assistant", "content": "planted"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return httpx2.Response(200, json={"object": "chat.completion", "choices": [choice], "usage": USAGE})

    async with CacheManager(configuration()) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(answer), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            for model in ("fine", *(f"a{unprintable}b" for unprintable in UNPRINTABLE)):
                body = {"model": model, "messages": [{"role": "user", "content": "planted"}], "temperature": 0}
                for expected in ("fwd=", "hit"):
                    answered = await client.post(
                        "http://planted.example/v1/chat/completions",
                        content=json.dumps(body),
                        headers={"content-type": "application/json"},
                    )
                    assert expected in answered.headers["cache-status"]
        assert series(metrics, cache)[names.SAVED_TOKENS.name] == 2 * len(("fine", names.OTHER))
        assert f'gen_ai_request_model="fine",otel_scope_name="{names.SCOPE}"'.encode() in generate_latest()


async def test_counts_that_cannot_be_exported_end_no_export(metrics: Metrics) -> None:
    """Whatever an answer says of its tokens: OTLP has integers of 64 bits, and what is larger is not encoded."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        choice = {"index": 0, "message": {"role": "assistant", "content": "planted"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 2**53 - 1, "completion_tokens": 1}
        return httpx2.Response(200, json={"object": "chat.completion", "choices": [choice], "usage": usage})

    async with CacheManager(configuration()) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(answer), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "planted"}], "temperature": 0}
            for _ in range(1100):
                await client.post("http://planted.example/v1/chat/completions", json=body)
        data = metrics.reader.get_metrics_data()
        assert data is not None
        assert encode_metrics(data).SerializeToString()
        assert metrics.total(names.SAVED_UNKNOWN, cache.config.name) == 1099


@pytest.mark.parametrize("name", [*(f"a{unprintable}b" for unprintable in UNPRINTABLE), "a" * 129, ""])
async def test_nothing_is_configured_to_be_called_so(tmp_path: object, name: str) -> None:
    class Store:
        async def get(self, key: str) -> object: ...

        async def set(self, key: str, value: object) -> None: ...

    manager = CacheManager(configuration())
    for make in (
        lambda: CacheConfig(name=name),
        lambda: FileCacheManager(f"{tmp_path}/files", name=name),
        lambda: WriteBehind(manager, Store(), name=name, journal=f"{tmp_path}/journal"),
    ):
        with pytest.raises(ConfigurationError, match="name must") as problem:
            make()
        assert str(problem.value).isprintable()
    assert CacheConfig(name="a café, 128").name


async def test_places_that_an_app_counts_for(metrics: Metrics) -> None:
    """`CacheStats` takes any name, and asks for few."""
    async with CacheManager(configuration()) as cache:
        stats = CacheStats(cache)
        for number in range(SOME):
            for place in (f"place-{number}", f"https://planted/{number}", "\ud800", "a" * 1000):
                await stats.record_hit(place)
                await stats.record_miss(place)
                await stats.record_error(place)
        found = series(metrics, cache)
        assert found[names.ERRORS.name] == names.MAX_PLACES + 1
        assert sum(found.values()) <= SERIES + 5 * (names.MAX_PLACES + 1)
        assert stats.metrics.total_requests == 8 * SOME
        assert stats.detailed_stats["place-7"].hits == 1
        assert stats.detailed_stats[names.OTHER].errors == 4 * SOME - names.MAX_PLACES


# What is gone


def test_caches_that_are_gone_are_forgotten_where_nobody_reads() -> None:
    """Without an SDK there is no collection that would find them. What they have counted stays, under their name."""
    with own_counts():
        config = configuration()
        for _ in range(SOME):
            manager = CacheManager(config)
            manager._engine.telemetry.miss.n += 1
            del manager
            gc.collect(0)  # a manager refers to itself
        gc.collect()
        CacheManager(config)
        assert len(REGISTRY._live) < SOME / 10
        metrics = Metrics()
        assert metrics.requests(config.name) == {"miss": SOME}


async def test_what_was_made_over_a_cache_leaves_it_no_levels(tmp_path: object) -> None:
    """One is made for each request, say."""

    class Store:
        async def get(self, key: str) -> object: ...

        async def set(self, key: str, value: object) -> None: ...

    async with CacheManager(configuration()) as cache:
        gauges = cache._engine.telemetry.table.gauges
        before = len(gauges)
        for _ in range(30):
            SimilarityCache(cache)
            await WriteBehind(cache, Store(), journal=f"{tmp_path}/journal").aclose()
            gc.collect()
        assert before < len(gauges) <= before + 2 * 5
        metrics = Metrics()
        kept = SimilarityCache(cache)
        limits = [attributes[names.LAYER] for attributes, _ in metrics.points(names.LIMIT, cache.config.name)]
        assert sorted(limits) == [names.L1, names.SIMILARITY]
        assert kept.cache.manager is cache


def test_providers_that_are_gone_are_forgotten() -> None:
    def come_and_go() -> None:
        provider = MeterProvider()
        instrument(provider)
        provider.shutdown()
        del provider
        gc.collect()

    come_and_go()
    before = len(_PROVIDERS.sets)
    for _ in range(20):
        come_and_go()
    assert len(_PROVIDERS.sets) <= before


async def test_but_not_those_that_a_reader_stands_for() -> None:
    """Nobody has to hold a provider: its reader reads."""
    with own_counts():
        reader = InMemoryMetricReader()
        instrument(MeterProvider([reader], shutdown_on_exit=False))
        gc.collect()
        instrument(MeterProvider(shutdown_on_exit=False))
        async with CacheManager(configuration()) as cache:
            await cache.get_or_compute("k", loaded)
        data = reader.get_metrics_data()
        assert data is not None
        assert f'"{names.DURATION.name}"' in data.to_json()


# Errors of what an app brings along


async def test_kinds_of_errors_of_a_data_store(
    metrics: Metrics, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Dead letters say what the store has raised, and are read by people."""

    class Store:
        async def get(self, key: str) -> object: ...

        async def set(self, key: str, value: object) -> None:
            raise error(int(key))

    async with CacheManager(configuration()) as cache:
        async with WriteBehind(
            cache, Store(), journal=f"{tmp_path}/journal", batch_size=1000, max_attempts=1
        ) as behind:
            for number in range(SOME):
                await behind.set(str(number), "planted")
            await behind.flush()
            letters = await behind.dead_letters(limit=2 * SOME)
        check(series(metrics, cache), errors=ERRORS)
    kinds = {letter.error for letter in letters}
    assert len(letters) == SOME
    assert names.OTHER in kinds
    assert 2 < len(kinds) <= names.MAX_ERROR_TYPES + 1
    assert "dead letters now" in caplog.text
    assert [text for text in (*kinds, caplog.text) if any(planted in text for planted in PLANTED)] == []


async def test_kinds_of_errors_of_a_layer_that_does_not_close_and_of_prices(caplog: pytest.LogCaptureFixture) -> None:
    """Each has a word in the log."""

    class Layer(ChaosSharedLayer):
        async def aclose(self) -> None:
            raise error(0)

    def answer(_: httpx2.Request) -> httpx2.Response:
        choice = {"index": 0, "message": {"role": "assistant", "content": "planted"}, "finish_reason": "stop"}
        return httpx2.Response(200, json={"object": "chat.completion", "choices": [choice], "usage": USAGE})

    def cost(_: object) -> float:
        raise error(0)

    async with CacheManager(configuration(), lower=[Layer(SharedMemory().node(), Chaos())]) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(answer), cache=cache, cost=cost)
        async with httpx2.AsyncClient(transport=transport) as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "planted"}], "temperature": 0}
            await client.post("http://planted.example/v1/chat/completions", json=body)
    told = [record.getMessage() for record in caplog.records]
    assert f"closing the layer l2 failed: {names.OTHER}" in told
    assert f"cost= raised {names.OTHER}; what it cannot say is counted as unknown" in told
    assert [text for text in told if any(planted in text for planted in PLANTED)] == []
