"""What leaves the demo: metrics and traces over OTLP, and calls of a real model with the user's key."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from aurelis_cli.demo.model import StandIn
from aurelis_cli.demo.processes import listener
from tests.demo.command import children, first_lines, start


class Collector(ThreadingHTTPServer):
    """Takes what is sent over OTLP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: dict[str, list[bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def requests(self, cache: str) -> tuple[str, int]:
        """The service, and `aurelis.cache.requests` of that cache in the last export that has it."""
        for body in reversed(self.received["/v1/metrics"]):
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        if metric.name == "aurelis.cache.requests":
                            points = [
                                point.as_int
                                for point in metric.sum.data_points
                                if any(pair.value.string_value == cache for pair in point.attributes)
                            ]
                            return attributes["service.name"], sum(points)
        raise AssertionError("aurelis.cache.requests was never sent")

    def spans(self) -> set[str]:
        """Names of all spans of the library."""
        return {
            span.name
            for body in self.received["/v1/traces"]
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            if scope.scope.name == "aurelis.cache"
            for span in scope.spans
        }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.setdefault(self.path, []).append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the standard library
        """Log nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_otlp_carries_the_same_counts(collector: Collector, tmp_path: Path) -> None:
    """The last export comes when the workers end, so that nothing is missing from it."""
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "NO_PROXY": "127.0.0.1",
    }
    demo = start("--seconds", "2", "--state-dir", str(tmp_path), environment=environment)
    output, _ = demo.communicate(timeout=40)
    assert demo.returncode == 0, output
    sent = json.loads((tmp_path / "driver.json").read_text())["sent"]
    assert collector.requests("web") == ("aurelis-cache-demo", sent)
    assert {"get web", "fill web", "fill models"} <= collector.spans()


class Upstream:
    """The stand-in behind a door that remembers the credentials shown to it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.credentials: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.credentials |= {value.decode() for name, value in scope["headers"] if name == b"authorization"}
        await self._app(scope, receive, send)


@pytest.fixture
def upstream() -> Iterator[tuple[Upstream, str]]:
    """A model that is not the demo's own, and its base URL."""
    app = Upstream(StandIn(pace=0.1).app())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_keep_alive=60))
    waiting = listener()
    port = waiting.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([waiting],))
    thread.start()
    yield app, f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


def test_a_real_model_gets_the_key_and_nobody_else_sees_it(upstream: tuple[Upstream, str], tmp_path: Path) -> None:
    """Not on a command line, in the output, in a file, or in the metrics."""
    model, url = upstream
    secret = "sk-hunter2-and-more"
    demo = start(
        *("--upstream", url, "--model", "some-model", "--seconds", "3", "--state-dir", str(tmp_path)),
        environment={**os.environ, "OPENAI_API_KEY": secret},
    )
    lines = first_lines(demo)
    started = children(demo.pid)
    places = json.loads((tmp_path / "demo.json").read_text())
    output, _ = demo.communicate(timeout=40)
    assert demo.returncode == 0, output
    assert places["model_calls"] is None
    assert len(started) == 2  # worker and driver, no stand-in
    assert model.credentials == {f"Bearer {secret}"}
    everything = ["".join(lines), output, *started.values()]
    everything += [path.read_text(errors="replace") for path in tmp_path.iterdir()]
    assert not any("hunter2" in text for text in everything)
    assert output.count("✓") == 4
