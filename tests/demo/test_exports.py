"""What leaves the demo: metrics and traces over OTLP, and calls of a real model with the user's key."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from aurelis_cli.demo.driver import WRITES
from aurelis_cli.demo.model import StandIn
from aurelis_cli.demo.processes import listener
from tests.demo.command import children, first_lines, start
from tests.telemetry.integration.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    """What takes OTLP."""
    with collecting() as server:
        yield server


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
    kinds = json.loads((tmp_path / "driver.json").read_text())["kinds"]
    sent = sum(kind["sent"] for name, kind in kinds.items() if name not in WRITES)
    received = collector.received()
    workers = received.processes("aurelis.cache.requests")
    assert {received.resources[worker]["service.name"] for worker in workers} == {"aurelis-cache-demo"}
    assert received.sum("aurelis.cache.requests", name="web") == sent
    caches = {dict(labels)["aurelis.cache.name"] for _, scope, _, labels in received.series if scope == "aurelis.cache"}
    assert caches == {"web", "models", "faq", "ratings", "files"}
    assert {"get web", "fill web", "fill models"} <= {
        span.name for _, scope, span in received.spans if scope == "aurelis.cache"
    }


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
