"""Servers with several workers: each is a process of its own for a backend, and their sum is what was sent."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.managers import eventually_blocking
from tests.telemetry.integration.collector import Collector
from tests.telemetry.integration.running import APP, GUNICORN, INSTRUMENT, UVICORN, Running, environment, serving

pytestmark = pytest.mark.reliability

REQUESTS = "aurelis.cache.requests"
UVICORN_WORKERS = [UVICORN, APP, "--workers", "2", "--host", "{host}", "--port", "{port}", "--log-level", "warning"]
GUNICORN_WORKERS = [
    *(GUNICORN, APP, "--workers", "2", "--bind", "{host}:{port}", "--log-level", "warning", "--no-control-socket"),
    *("--worker-class", "uvicorn_worker.UvicornWorker", "--preload"),
]
SERVERS = {
    # The app's lifespan sets the providers, in each worker.
    "uvicorn": (UVICORN_WORKERS, {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}),
    "gunicorn-preload": (GUNICORN_WORKERS, {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}),
    # They are there before the fork, and so is an exporting thread.
    "instrumented-gunicorn-preload": ([INSTRUMENT, *GUNICORN_WORKERS], {}),
}


def drive(server: Running) -> set[int]:
    """Sends requests until both workers have had some; returns the workers."""
    for number in range(40):
        server.get(f"/items/{number % 10}")
    found: set[int] = set()
    while len(found) < 2:  # pytest's own time limit ends it
        found |= server.processes(1).keys()
    return found


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("case", SERVERS)
def test_all_workers_add_up_also_when_one_was_killed(
    case: str, temporality: str, collector: Collector, tmp_path: Path
) -> None:
    command, more = SERVERS[case]
    variables = {**collector.environment(temporality), **more, "OTEL_LOGS_EXPORTER": "none"}
    with serving(command, environment(tmp_path, **variables), tmp_path) as server:
        first = drive(server)
        sent_before = server.sent
        eventually_blocking(lambda: collector.received().sum(REQUESTS) == sent_before)
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        eventually_blocking(gone(killed))
        second = drive(server)
        sent = server.sent
        server.end()
    assert killed not in second
    received = collector.received()
    by_process = {each: received.sum(REQUESTS, each) for each in received.processes(REQUESTS)}
    assert sum(by_process.values()) == sent
    assert sum(count > 0 for count in by_process.values()) == 3  # two at first, and one in the place of another
    durations = [name for _, name in received.names() if name.startswith("http.server.") and "duration" in name]
    assert sum(received.sum(name) for name in durations) == sent
    misses = received.sum(REQUESTS, result="miss") - received.sum("aurelis.cache.coalesced")
    assert received.sum("aurelis.cache.operation.duration", operation="fill") == misses
    for series in received.of(REQUESTS):
        assert min(series.exported) >= 0
        assert series.delta or series.exported == sorted(series.exported)


def gone(pid: int) -> Callable[[], bool]:
    """Whether a process has ended."""

    def is_gone() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    return is_gone
