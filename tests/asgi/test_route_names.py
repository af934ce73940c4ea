"""Requests have the names of their routes in telemetry outside of the cache, also where no router has run."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.visits import Visit, ask
from tests.managers import eventually

FIELDS = {"cache-control": "max-age=60, stale-while-revalidate=60", "etag": '"a"'}
DURATIONS = ("http.server.request.duration", "http.server.duration")


@dataclass
class Seen:
    """What telemetry has seen of the requests."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def requests(self) -> list[tuple[str, object]]:
        """Names of the spans of requests, and their routes."""
        spans = [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
        return [(span.name, (span.attributes or {}).get("http.route")) for span in spans]

    def durations(self) -> list[HistogramDataPoint]:
        """The series in which requests are counted."""
        data = self.reader.get_metrics_data()
        found: list[Any] = []
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                found += [point for each in scope.metrics if each.name in DURATIONS for point in each.data.data_points]
        return found


def fastapi(cached: Middleware, **options: Any) -> FastAPI:
    """An app of FastAPI, with a route of its own, one that is included, and one of an app that is mounted."""

    async def read(response: Response, item: int) -> dict[str, int]:
        await asyncio.sleep(0)
        response.headers.update(FIELDS)
        return {"item": item}

    app, inner, router = FastAPI(middleware=[cached], **options), FastAPI(), APIRouter()
    for each in (app, inner, router):
        each.get("/items/{item}")(read)
    app.include_router(router, prefix="/included")
    app.mount("/mounted", inner)
    return app


def starlette(*middleware: Middleware) -> Starlette:
    """An app of Starlette, with a route of its own, and one that is mounted."""

    async def read(_: Request) -> PlainTextResponse:
        await asyncio.sleep(0)
        return PlainTextResponse("body", headers=FIELDS)

    route = Route("/items/{item}", read)
    return Starlette(routes=[route, Mount("/mounted", routes=[route])], middleware=middleware)


def of_fastapi(seen: Seen, cached: Middleware) -> ASGIApp:
    """FastAPI's own telemetry."""
    return fastapi(cached, telemetry={"tracer_provider": seen.tracers, "meter_provider": seen.meters, "logs": False})


def of_contrib_for_fastapi(seen: Seen, cached: Middleware) -> ASGIApp:
    """OpenTelemetry's instrumentation of FastAPI."""
    app = fastapi(cached)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=seen.tracers, meter_provider=seen.meters)
    return app


def of_starlette(seen: Seen, cached: Middleware) -> ASGIApp:
    """Starlette's own telemetry, which has no metrics."""
    return starlette(Middleware(OpenTelemetryMiddleware, tracer_provider=seen.tracers), cached)


def of_contrib(seen: Seen, cached: Middleware) -> ASGIApp:
    """OpenTelemetry's instrumentation of any ASGI app, which names no route on spans."""
    return ContribMiddleware(starlette(cached), tracer_provider=seen.tracers, meter_provider=seen.meters)


KINDS = [of_fastapi, of_contrib_for_fastapi, of_starlette, of_contrib]
TARGETS = ["/items/7", "/included/items/7", "/mounted/items/7"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", KINDS)
async def test_whoever_answers_the_route_has_the_same_name(
    manager: CacheManager, clock: ManualClock, make: Callable[[Seen, Middleware], ASGIApp], target: str
) -> None:
    """Misses, those who share one, hits, what is confirmed, stale answers, and what no cache answers."""
    if "included" in target and make in (of_starlette, of_contrib):
        target = "/items/8"
    seen = Seen()
    app = make(seen, Middleware(CacheMiddleware, cache=manager))
    await ask(app, target, "GET", {"cache-control": "no-store"})  # the app alone
    alone = seen.requests()
    crowd = [Visit(app, target).begin() for _ in range(5)]
    answers = [await visit.end() for visit in crowd]
    answers.append(await ask(app, target))
    answers.append(await ask(app, target, "GET", {"range": "bytes=0-1"}))
    answers.append(await ask(app, target, "GET", {"if-none-match": '"a"'}))
    answers.append(await ask(app, target, "GET", {"cache-control": "no-cache"}))
    clock.advance(70)
    answers.append(await ask(app, target))
    await eventually(lambda: manager._engine.flights.waiting == 0 and not manager._engine.flights._tasks)
    said = " ".join(answer.cache_status for answer in answers)
    assert all(word in said for word in ("collapsed", "hit; ttl=60", "fwd=request", "hit; ttl=-10")), said
    assert [answer.status for answer in answers] == [200] * 6 + [206, 304, 200, 200]
    assert seen.requests() == alone * 11
    if make in (of_fastapi, of_contrib_for_fastapi, of_starlette):
        route = alone[0][1]
        assert isinstance(route, str)
        assert route.startswith(target[: target.rindex("items")]) or make is of_contrib_for_fastapi
    if make is not of_starlette:
        points = seen.durations()
        described = [point.attributes or {} for point in points]
        named = {(each.get("http.route"), each.get("http.target")) for each in described}
        assert len(named) == 1, described
        assert sum(point.count for point in points) == 11


async def test_a_refresh_says_nothing_of_a_request_that_is_over(
    manager: CacheManager, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK warns of attributes for a span that has ended."""
    seen = Seen()
    app = of_fastapi(seen, Middleware(CacheMiddleware, cache=manager))
    await ask(app, "/items/7")
    clock.advance(70)
    assert "ttl=-10" in (await ask(app, "/items/7")).cache_status
    await eventually(lambda: not manager._engine.flights._tasks)
    assert "hit; ttl=60" in (await ask(app, "/items/7")).cache_status
    assert not caplog.records


@pytest.mark.parametrize("target", TARGETS)
async def test_a_refresh_leaves_the_name_of_the_route(manager: CacheManager, clock: ManualClock, target: str) -> None:
    seen = Seen()
    app = of_fastapi(seen, Middleware(CacheMiddleware, cache=manager))
    await ask(app, target)
    for _ in range(2):
        clock.advance(70)
        assert "ttl=-10" in (await ask(app, target)).cache_status
        await eventually(lambda: not manager._engine.flights._tasks)
        assert "hit; ttl=60" in (await ask(app, target)).cache_status
    assert seen.requests() == seen.requests()[:1] * 5
    assert [point.count for point in seen.durations()] == [5]


@pytest.mark.parametrize("outside", [of_contrib_for_fastapi, of_fastapi])
async def test_telemetry_of_the_app_below_does_not_name_the_route_for_that_outside(
    manager: CacheManager, outside: Callable[[Seen, Middleware], ASGIApp]
) -> None:
    """A FastAPI app that is mounted counts its own requests where a global provider is set, by routes of its own."""
    seen, below = Seen(), Seen()
    app = outside(seen, Middleware(CacheMiddleware, cache=manager))
    inner = FastAPI(telemetry={"tracer_provider": below.tracers, "meter_provider": below.meters, "logs": False})

    async def read(response: Response, item: int) -> dict[str, int]:
        response.headers.update(FIELDS)
        return {"item": item}

    inner.get("/items/{item}")(read)
    assert isinstance(app, FastAPI)
    app.mount("/below", inner)
    for expected in ("fwd", "hit"):
        assert expected in (await ask(app, "/below/items/7")).cache_status
    assert seen.requests() == seen.requests()[:1] * 2
    points = seen.durations()
    assert [point.count for point in points] == [2]
    assert "/below/items/{item}" in (points[0].attributes or {}).values()


async def test_below_a_mount_of_fastapi_a_hit_has_the_name_of_a_miss(manager: CacheManager) -> None:
    """The cache stands in the app that is mounted; the telemetry is that of the app around it."""
    seen = Seen()
    rules = [CacheRule("/items/*", ttl=60)]
    inner = fastapi(Middleware(CacheMiddleware, cache=manager, rules=rules))
    app = FastAPI(telemetry={"tracer_provider": seen.tracers, "meter_provider": seen.meters, "logs": False})
    app.mount("/{tenant}", inner)
    for expected in ("fwd", "hit"):
        assert expected in (await ask(app, "/acme/items/7")).cache_status
    assert seen.requests() == [("GET /{tenant}/items/{item}", "/{tenant}/items/{item}")] * 2
    assert [point.count for point in seen.durations()] == [2]


class Otherwise:
    """Names its route by something else than a text."""

    route = object()


class Raising:
    """Raises whatever it is asked to."""

    route = None
    span_method = "GET"

    @property
    def span(self) -> object:
        raise ValueError


@pytest.mark.parametrize("known", [object(), None, 1, Otherwise(), Raising()])
async def test_telemetry_of_another_release_is_left_alone(manager: CacheManager, known: object) -> None:
    """What FastAPI keeps in the scope has no public interface; a request must not depend on it."""
    app = starlette(Middleware(CacheMiddleware, cache=manager))
    more: dict[str, Any] = {"fastapi.telemetry": known}
    for expected in ("fwd", "hit"):
        visit = await ask(app, "/items/7", **more)
        assert expected in visit.cache_status
        assert visit.scope["route"].path_format == "/items/{item}"
