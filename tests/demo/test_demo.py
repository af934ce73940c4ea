"""The demo for real: its processes, its traffic, a Prometheus that scrapes it, and what is left afterwards.

What the caches report has to be exactly what everybody else counted: the driver, the app around its caches, and
the stand-in for the model. With Redis, and with faults: see `test_faults`.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aurelis.cache.telemetry import names
from tests.demo.command import await_true, children, first_lines, left_over, start
from tests.demo.observed import EXPRESSIONS, Observed, fetch, observe
from tests.demo.rules import RULES

TRAFFIC = 8  # seconds
RARE = {"layers How late word of changes comes A", "layers How late word of changes comes B", "models False hits A"}
"""What need not have happened yet in so short a time. Then there is no data, as a zero would be wrong."""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """A demo in one process, without Redis and without faults."""
    with observe(tmp_path_factory.mktemp("demo"), TRAFFIC, rules=RULES) as seen:
        yield seen


def test_the_web_cache_reports_exactly_the_requests_that_the_driver_sent(observed: Observed) -> None:
    """Each request once, with its final result."""
    assert observed.sent() > 100
    assert observed.total(names.REQUESTS, "web") == observed.sent()
    assert observed.driver["answered"] == observed.driver["sent"]
    statuses = [kind["statuses"] for kind in observed.driver["kinds"].values()]
    assert {status for found in statuses for status in found} == {"200"}


def test_the_model_cache_reports_exactly_the_calls_that_the_app_made(observed: Observed) -> None:
    assert observed.model_calls() > 0
    assert observed.total(names.REQUESTS, "models") == observed.model_calls()


def test_the_app_and_the_model_were_called_as_often_as_the_caches_report_loads(observed: Observed) -> None:
    """Loads are misses without those who waited for the load of another, and refreshes."""
    assert observed.loads("web") == observed.origin()
    called = fetch(observed.places["model_calls"])
    assert called["started"] == called["finished"] == observed.loads("models")


def test_what_clients_read_in_cache_status_is_what_the_cache_reports(observed: Observed) -> None:
    """The header and the metrics say the same."""
    read: dict[str, int] = {}
    for kind in observed.driver["kinds"].values():
        for result, count in kind["cache"].items():
            read[result] = read.get(result, 0) + count
    assert read.pop("method") == observed.driver["kinds"]["ratings"]["sent"]
    answered = [observed.total(names.REQUESTS, "web", result=result) for result in ("hit", "stale")]
    assert read.pop("hit") == sum(answered) > 0
    assert read.pop("collapsed", 0) == observed.total(names.COALESCED, "web")
    assert sum(read.values()) == observed.loads("web") - observed.total(
        names.REFRESHES, "web", refresh_reason="revalidate"
    )


def test_repeated_questions_save_tokens_money_and_time(observed: Observed) -> None:
    assert observed.total(names.REQUESTS, "models", result="hit") > 0
    for kind in ("input", "output"):
        assert observed.total(names.SAVED_TOKENS, "models", token_type=kind) > 0
    assert observed.total(names.SAVED_COST, "models") > 0
    assert observed.total(names.SAVED_TIME, "models") > 0.25


def test_embeddings_are_asked_for_once(observed: Observed) -> None:
    """Nearly all that a call asks for, an earlier one has brought."""
    new = observed.total(names.ITEMS, "models", result="miss")
    assert 0 < new < 0.5 * observed.total(names.ITEMS, "models")


def test_similar_questions_are_found_and_what_is_found_is_compared(observed: Observed) -> None:
    assert observed.total(names.SIMILARITY_LOOKUPS, "faq", similarity_result="explored") > 0
    assert observed.total(names.SIMILARITY_VERDICTS, "faq", similarity_verdict="correct") > 0
    assert observed.total(names.SIMILARITY_VERDICTS, "faq", similarity_verdict="false_hit") == 0


def test_ratings_that_were_taken_are_written(observed: Observed) -> None:
    taken = observed.driver["kinds"]["ratings"]["statuses"]["200"]
    assert observed.total(names.WRITES_ACCEPTED, "ratings") == taken > 0
    assert observed.total(names.WRITES_SETTLED, "ratings", write_result="written") > 0
    assert observed.total(names.DEAD_LETTERS, "ratings") == 0


@pytest.mark.parametrize("panel", sorted(EXPRESSIONS.keys() - RARE))
def test_every_panel_of_the_dashboards_has_data(observed: Observed, panel: str) -> None:
    """Where there is no Redis and nothing fails: at least one point is a number, and zero is one."""
    assert observed.drawn(EXPRESSIONS[panel]), EXPRESSIONS[panel]


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """`start`, and nothing of it outlives a test that fails."""
    started: list[subprocess.Popen[str]] = []

    def launched(*arguments: str) -> subprocess.Popen[str]:
        started.append(start(*arguments))
        return started[-1]

    yield launched
    for demo in started:
        demo.kill()
        demo.communicate()


def folder_of(lines: list[str]) -> Path:
    """The temporary folder of a demo, as it says itself."""
    found = re.search(r"file_sd.*: (\S+)/targets\.json", "".join(lines))
    assert found is not None
    return Path(found[1])


def test_it_runs_for_its_seconds_and_ends_with_a_summary_that_adds_up(launch: Launch) -> None:
    demo = launch("--seconds", "2")
    lines = first_lines(demo)
    started = children(demo.pid)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0, output
    assert len(started) == 3  # worker, model, driver
    assert left_over(started) == []
    assert not folder_of(lines).exists()
    assert output.count("✓") == 5, output
    assert "≠" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_in_the_middle_leaves_no_process_and_no_file(launch: Launch, number: signal.Signals) -> None:
    """Requests under way are answered, the summary comes, and the exit status says that all is well."""
    demo = launch()
    lines = first_lines(demo)
    started = children(demo.pid)
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=20)
    assert demo.returncode == 0, output
    assert "Summary" in output
    assert len(started) == 3
    assert left_over(started) == []
    assert not folder_of(lines).exists()


def test_when_it_is_killed_its_processes_and_files_go_as_well(launch: Launch) -> None:
    demo = launch()
    lines = first_lines(demo)
    started = children(demo.pid)
    demo.kill()
    demo.wait()
    assert len(started) == 3
    await_true(lambda: not left_over(started), "processes outlived the demo", seconds=10)
    assert not folder_of(lines).exists()


def test_a_process_that_dies_ends_the_demo_with_an_error(launch: Launch, tmp_path: Path) -> None:
    demo = launch("--state-dir", str(tmp_path))
    first_lines(demo)
    started = children(demo.pid)
    os.kill(min(started), signal.SIGKILL)
    output, _ = demo.communicate(timeout=20)
    assert demo.returncode == 1
    assert "ended unexpectedly" in output
    assert left_over(started) == []
    assert json.loads((tmp_path / "targets.json").read_text()) == []
