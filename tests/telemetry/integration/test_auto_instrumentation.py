"""`opentelemetry-instrument` in front of a program: nothing of it in the program itself."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.telemetry.integration.collector import Collector
from tests.telemetry.integration.running import APP, INSTRUMENT, UVICORN, environment, serving

PROGRAM = """
    import asyncio
    from aurelis.cache import CacheConfig, CacheManager

    async def load():
        return 1

    async def main():
        async with CacheManager(CacheConfig(name="program")) as cache:
            for _ in range(10):
                await cache.get_or_compute("k", load)

    asyncio.run(main())
    from aurelis.cache.telemetry.instrumentor import AurelisCacheInstrumentor
    print("instrumented:", AurelisCacheInstrumentor().is_instrumented_by_opentelemetry)
"""


OTHERS = "asgi,fastapi,httpx,httpx2,openai,redis"
"""Instrumentations that the program has no use for, and which take long to import."""


def run_program(folder: Path, *options: str, disabled: str = OTHERS, **variables: str) -> str:
    """Runs the program below `opentelemetry-instrument`; returns what it printed."""
    variables["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = disabled
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
    completed = subprocess.run(
        [INSTRUMENT, *options, sys.executable, str(folder / "program.py")],
        env=environment(folder, **variables),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert completed.returncode == 0, completed.stderr
    assert "Traceback" not in completed.stderr
    return completed.stdout


def test_metrics_and_spans_are_on_the_console(tmp_path: Path) -> None:
    printed = run_program(
        tmp_path, "--traces_exporter", "console", "--metrics_exporter", "console", "--logs_exporter", "none"
    )
    assert "instrumented: True" in printed
    decoder, found, rest = json.JSONDecoder(), [], printed
    while "{" in rest:
        each, end = decoder.raw_decode(rest, rest.index("{"))
        found.append(each)
        rest = rest[end:]
    assert {each["name"] for each in found if "name" in each} == {"get program", "fill program"}
    metrics = [
        metric
        for each in found
        for resource in each.get("resource_metrics", ())
        for scope in resource["scope_metrics"]
        if scope["scope"]["name"] == "aurelis.cache"
        for metric in scope["metrics"]
        if metric["name"] == "aurelis.cache.requests"
    ]
    points = metrics[-1]["data"]["data_points"]
    counts = {point["attributes"]["aurelis.cache.result"]: point["value"] for point in points if point["value"]}
    assert counts == {"hit": 9, "miss": 1}


def test_it_can_be_disabled_by_its_name(collector: Collector, tmp_path: Path) -> None:
    """Nothing of the library leaves the process then, although it needs no instrumentor to speak."""
    variables = {**collector.environment(interval=60), "OTEL_LOGS_EXPORTER": "none"}
    assert "instrumented: True" in run_program(tmp_path, **variables)
    assert collector.received().sum("aurelis.cache.requests") == 10
    printed = run_program(tmp_path, disabled=f"{OTHERS}, aurelis_cache", **variables)
    assert "instrumented: False" in printed
    received = collector.received()
    assert len(received.processes("aurelis.cache.requests")) == 1
    assert len([scope for _, scope, _ in received.spans if scope == "aurelis.cache"]) == 2


def test_the_sdk_can_be_disabled(collector: Collector, tmp_path: Path) -> None:
    variables = {**collector.environment(), "OTEL_SDK_DISABLED": "true"}
    run_program(tmp_path, **variables)
    assert not collector.received().names()
    assert not collector.received().spans


def test_a_server_reports_each_request_once(collector: Collector, tmp_path: Path) -> None:
    """All instrumentations that are installed are at work, among them those of FastAPI, ASGI, httpx and Redis."""
    variables = {**collector.environment(), "OTEL_LOGS_EXPORTER": "none", "OTEL_SERVICE_NAME": "shop"}
    command = [INSTRUMENT, UVICORN, APP, "--host", "{host}", "--port", "{port}", "--log-level", "warning"]
    with serving(command, environment(tmp_path, **variables), tmp_path) as server:
        server.visit()
        sent = server.sent
        written = server.end()
    assert "Traceback" not in written
    received = collector.received()
    (instance,) = received.processes("aurelis.cache.requests")
    assert received.resources[instance]["service.name"] == "shop"
    assert received.sum("aurelis.cache.requests") == sent
    assert received.sum("aurelis.cache.requests", result="hit") == 30
    durations = [name for _, name in received.names() if name.startswith("http.server.") and "duration" in name]
    assert len(durations) == 1
    assert received.sum(durations[0]) == sent
    by_route = received.of(durations[0], target="/items/{item}") or received.of(durations[0], route="/items/{item}")
    assert sum(series.value for series in by_route) == 40
    requests = [span for _, _, span in received.spans if span.kind == span.SPAN_KIND_SERVER]
    assert len(requests) == sent
    assert len([span for span in requests if span.name == "GET /items/{item}"]) == 40
    fills = [span for _, _, span in received.spans if span.name == "fill web"]
    gets = {span.span_id: span for _, _, span in received.spans if span.name == "get web"}
    servers = {span.span_id for span in requests}
    assert len(fills) == 10
    assert all(gets[span.parent_span_id].parent_span_id in servers for span in fills)
    (loads,) = received.of("aurelis.cache.operation.duration", operation="fill")
    assert loads.value == 10
    assert loads.exemplars
    assert loads.exemplars <= {(span.trace_id, span.span_id) for span in fills}
