"""Telemetry of web frameworks around the cache and below it; the names of routes are in tests/asgi."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.visits import Visit, ask
from tests.telemetry.integration.collector import Collector
from tests.telemetry.integration.running import APP, UVICORN, environment, serving
from tests.telemetry.integration.seen import Seen

RULES = [CacheRule("/items/*", ttl=60)]
DURATIONS = ("http.server.duration", "http.server.request.duration")
REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def read(_: Request) -> PlainTextResponse:
    """The route."""
    await asyncio.sleep(0)
    return PlainTextResponse("body")


def of_fastapi(seen: Seen, cached: Middleware, outside: bool) -> ASGIApp:
    """FastAPI's own, which is outside of all middleware."""
    app = FastAPI(
        middleware=[cached], telemetry={"tracer_provider": seen.tracers, "meter_provider": seen.meters, "logs": False}
    )
    app.get("/items/{item}")(lambda item: item)
    return app


def of_starlette(seen: Seen, cached: Middleware, outside: bool) -> ASGIApp:
    """Starlette's middleware."""
    own = Middleware(OpenTelemetryMiddleware, tracer_provider=seen.tracers)
    return Starlette(routes=[Route("/items/{item}", read)], middleware=[own, cached] if outside else [cached, own])


def of_contrib(seen: Seen, cached: Middleware, outside: bool) -> ASGIApp:
    """OpenTelemetry's middleware for any ASGI app."""
    own = Middleware(ContribMiddleware, tracer_provider=seen.tracers, meter_provider=seen.meters)
    return Starlette(routes=[Route("/items/{item}", read)], middleware=[own, cached] if outside else [cached, own])


async def visits(app: ASGIApp, manager: CacheManager) -> int:
    """Sends a crowd that shares one load, hits, and another miss; returns how many requests that is."""
    crowd = [Visit(app, "/items/1", "GET", {"traceparent": REMOTE}).begin() for _ in range(4)]
    answers = [await visit.end() for visit in crowd]
    answers += [await ask(app, "/items/1", "GET", {"traceparent": REMOTE}) for _ in range(5)]
    answers.append(await ask(app, "/items/2"))
    assert [answer.status for answer in answers] == [200] * 10
    said = [answer.cache_status for answer in answers]
    assert sum("collapsed" in each for each in said) == 3
    assert sum("; hit" in each for each in said) == 5
    return len(answers)


@pytest.mark.parametrize("make", [of_fastapi, of_starlette, of_contrib])
async def test_outside_of_the_cache_each_request_is_one_and_loads_are_within_ours(
    make: Callable[[Seen, Middleware, bool], ASGIApp], seen: Seen, manager: CacheManager
) -> None:
    name = manager.config.name
    app = make(seen, Middleware(CacheMiddleware, cache=manager, rules=RULES), True)
    sent = await visits(app, manager)
    requests = seen.spans(SpanKind.SERVER)
    assert len(requests) == sent
    assert [span.parent.trace_id for span in requests if span.parent] == [0x0AF7651916CD43DD8448EB211C80319C] * 9
    # A hit in memory has no span; it is noted on that of the request.
    noted = [(span.attributes or {}).get("aurelis.cache.result") for span in requests]
    assert noted.count("hit") == 5
    fills = [span for span in seen.spans() if span.name == f"fill {name}"]
    assert [seen.lineage(fill) for fill in fills] == [
        [f"get {name}", "GET /items/{item}" if make is not of_contrib else "GET /items/1"],
        [f"get {name}", "GET /items/{item}" if make is not of_contrib else "GET /items/2"],
    ]
    below = [span for span in seen.spans() if f"fill {name}" in seen.lineage(span)]
    if make is of_fastapi:
        assert {"fastapi.endpoint"} <= {span.name.split(" ")[0] for span in below}, below
    counts = [seen.recorded(metric) for metric in DURATIONS]
    assert sorted(counts) == ([0, sent] if make is not of_starlette else [0, 0])


@pytest.mark.parametrize("make", [of_starlette, of_contrib])
async def test_inside_of_the_cache_it_sees_what_the_app_sees(
    make: Callable[[Seen, Middleware, bool], ASGIApp], seen: Seen, manager: CacheManager
) -> None:
    """Neither hits nor those who share a load reach the app."""
    name = manager.config.name
    app = make(seen, Middleware(CacheMiddleware, cache=manager, rules=RULES), False)
    await visits(app, manager)
    requests = [span for span in seen.spans() if span.name in ("GET /items/{item}", "GET /items/1", "GET /items/2")]
    assert len(requests) == 2
    if make is of_contrib:  # which says INTERNAL of what is within another span
        assert [seen.lineage(span) for span in requests] == [[f"fill {name}", f"get {name}"]] * 2
    else:  # which knows the trace of the client alone
        assert [span.parent is not None and span.parent.is_remote for span in requests] == [True, False]
    counts = [seen.recorded(metric) for metric in DURATIONS]
    assert sorted(counts) == ([0, 2] if make is of_contrib else [0, 0])


def test_fastapi_sets_its_providers_when_the_cache_has_been_there_for_long(
    collector: Collector, tmp_path: Path
) -> None:
    """In its lifespan, by `FASTAPI_OTEL_AUTO_CONFIGURE`; the manager is made when the app is imported."""
    variables = {**collector.environment(), "FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_SERVICE_NAME": "shop"}
    command = [UVICORN, APP, "--host", "{host}", "--port", "{port}", "--log-level", "warning"]
    with serving(command, environment(tmp_path, **variables), tmp_path) as server:
        server.visit()
        sent = server.sent
        written = server.end()
    assert "Traceback" not in written
    received = collector.received()
    (instance,) = received.processes("aurelis.cache.requests")
    assert received.processes("http.server.request.duration") == {instance}
    assert received.resources[instance]["service.name"] == "shop"
    assert received.sum("aurelis.cache.requests") == received.sum("http.server.request.duration") == sent
    assert received.sum("aurelis.cache.requests", result="hit") == 30
    assert received.sum("http.server.request.duration", route="/items/{item}") == 40
    requests = {span.span_id: span for _, _, span in received.spans if span.kind == span.SPAN_KIND_SERVER}
    assert len(requests) == sent
    gets = {span.span_id: span for _, _, span in received.spans if span.name == "get web"}
    assert len(gets) == 10
    assert all(span.parent_span_id in requests for span in gets.values())
    endpoints = [span for _, scope, span in received.spans if scope == "fastapi" and "endpoint" in span.name]
    fills = {span.span_id for _, _, span in received.spans if span.name == "fill web"}
    assert len(endpoints) == sent - 30
    # What passes the cache is right below the request.
    assert sum(span.parent_span_id in fills for span in endpoints) == len(fills) == 10
    assert sum(span.parent_span_id in requests for span in endpoints) == sent - 40
