"""Servers with several workers: each is a process of its own for a backend, and their sum is what was sent."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.managers import eventually_blocking
from tests.telemetry.integration.collector import Collector, Received
from tests.telemetry.integration.running import APP, GUNICORN, INSTRUMENT, UVICORN, Running, environment, serving

pytestmark = pytest.mark.reliability

REQUESTS = "aurelis.cache.requests"
UVICORN_WORKERS = [
    *(UVICORN, APP, "--workers", "2", "--host", "{host}", "--port", "{port}", "--log-level", "warning"),
    *("--timeout-worker-healthcheck", "60"),  # of one that pauses
]
GUNICORN_WORKERS = [
    *(GUNICORN, APP, "--workers", "2", "--bind", "{host}:{port}", "--log-level", "warning", "--no-control-socket"),
    *("--worker-class", "uvicorn_worker.UvicornWorker", "--preload"),
]
SERVERS = {
    # The app's lifespan sets the providers, in each worker.
    "uvicorn": (UVICORN_WORKERS, {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}),
    "gunicorn-preload": (GUNICORN_WORKERS, {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}),
    "instrumented-uvicorn": ([INSTRUMENT, *UVICORN_WORKERS], {}),
}


def drive(server: Running, is_up: Callable[[], bool] = lambda: True) -> set[int]:
    """Sends requests to both workers; returns them. The one that is up first takes all that come, so it has to pause.

    Args:
        is_up: whether the other one is there, too.
    """
    server.visit()
    eventually_blocking(is_up)
    (answer,) = server.get("/process")
    worker = answer.json()["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        (answer,) = server.get("/process")
        server.visit()
    finally:
        os.kill(worker, signal.SIGCONT)
    return {worker, answer.json()["pid"]}


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("case", SERVERS)
def test_all_workers_add_up_also_when_one_was_killed(
    case: str, temporality: str, collector: Collector, tmp_path: Path
) -> None:
    command, more = SERVERS[case]
    variables = {**collector.environment(temporality), **more, "OTEL_LOGS_EXPORTER": "none"}
    with serving(command, environment(tmp_path, **variables), tmp_path) as server:
        first = drive(server, lambda: len(collector.received().processes(REQUESTS)) >= 2)
        sent = server.sent
        eventually_blocking(lambda: totals(collector.received()) == (sent, sent))
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        eventually_blocking(gone(killed))
        second = drive(server, lambda: len(collector.received().processes(REQUESTS)) >= 3)
        server.end()
    assert killed not in second
    received = collector.received()
    by_process = {each: received.sum(REQUESTS, each) for each in received.processes(REQUESTS)}
    assert sum(count > 0 for count in by_process.values()) == 3  # two at first, and one in the place of another
    check(received, server.sent)


def test_providers_that_were_there_before_the_fork_report_for_each_worker(collector: Collector, tmp_path: Path) -> None:
    """The parent has the app, too, and reports that it has counted nothing."""
    variables = {**collector.environment(interval=60), "OTEL_LOGS_EXPORTER": "none"}
    with serving([INSTRUMENT, *GUNICORN_WORKERS], environment(tmp_path, **variables), tmp_path) as server:
        drive(server)
        server.end()
    received = collector.received()
    by_process = sorted(received.sum(REQUESTS, each) for each in received.processes(REQUESTS))
    assert [count > 0 for count in by_process] == [False, True, True]
    check(received, server.sent)


def totals(received: Received) -> tuple[float, float]:
    """Requests as the cache has counted them, and as the server has."""
    durations = {name for _, name in received.names() if name.startswith("http.server.") and "duration" in name}
    return received.sum(REQUESTS), sum(received.sum(name) for name in durations)


def check(received: Received, sent: int) -> None:
    """All processes together tell what was sent, and no series goes back."""
    assert totals(received) == (sent, sent)
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
