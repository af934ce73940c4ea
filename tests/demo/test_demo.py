"""The demo for real: its processes, its traffic, a Prometheus that scrapes it, and what is left afterwards.

What the caches report has to be exactly what everybody else counted: the driver, the app below its cache, and
the stand-in for the model.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.demo.command import await_true, children, first_lines, left_over, start
from tests.servers import ServerProcess, query_prometheus

ROOT = Path(__file__).resolve().parent.parent.parent
DASHBOARDS = ROOT / "grafana" / "dashboards"
RULES = sorted((ROOT / "grafana" / "prometheus").glob("*.rules.yml"))
TRAFFIC = 8  # seconds, in which a Redis goes away and comes back

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str) -> Any:
    """JSON from a process of the demo."""
    with _opener.open(url, timeout=10) as response:
        return json.load(response)


@dataclass
class Observed:
    """A demo whose traffic has ended, and a Prometheus that has seen all of it."""

    prometheus: ServerProcess
    places: dict[str, Any]
    driver: dict[str, Any]
    workers: int

    def total(self, metric: str, **labels: str) -> float:
        """The sum over all series, as Prometheus computes it."""
        matchers = ",".join(f'{name}="{value}"' for name, value in labels.items())
        found = query_prometheus(self.prometheus, f"sum(aurelis_cache_{metric}{{{matchers}}})")
        return found[0][1] if found else 0.0

    def loads(self, cache: str) -> float:
        results = [
            self.total("requests_total", aurelis_cache_name=cache, aurelis_cache_result=result)
            for result in ("miss", "bypass")
        ]
        return sum(results) - self.total("coalesced_total", aurelis_cache_name=cache)

    def origin(self) -> dict[str, int]:
        """What reached the app, by kind, over all workers."""
        calls: dict[str, int] = {}
        for url in self.places["origin"]:
            for kind, count in fetch(url).items():
                calls[kind] = calls.get(kind, 0) + count
        return calls


@pytest.fixture(scope="module", params=["memory", "redis"])
def observed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: Callable[[], ServerProcess],
) -> Iterator[Observed]:
    """A demo in one process, and one with two workers that share a Redis, which goes and comes back."""
    redis = redis_server() if request.param == "redis" else None
    state = tmp_path_factory.mktemp("state")
    options = [] if redis is None else ["--redis", redis.url]
    prometheus = servers.prometheus(tmp_path_factory.mktemp("prometheus"), [state / "targets.json"], RULES)
    demo = start("--seconds", str(TRAFFIC), "--hold", "60", "--state-dir", str(state), *options)
    try:
        prometheus.start()
        ended_already = (state / "driver.json").exists

        def reports(expression: str) -> bool:
            return ended_already() or bool(query_prometheus(prometheus, expression))

        if redis is not None:
            await_true(lambda: reports("sum(aurelis_cache_stores_total) > 50"), "there is no traffic")
            redis.stop()
            opened = 'aurelis_cache_breaker_changes_total{aurelis_cache_breaker_state="open"}'
            await_true(lambda: reports(opened), "no breaker opened")
            redis.start()
        await_true(ended_already, "the traffic did not end")
        ended = time.time()
        workers = 1 if redis is None else 2

        def has_seen_the_end() -> bool:
            # Of an expression that is no plain selector, `timestamp` gives the time of the query.
            scraped = query_prometheus(prometheus, 'timestamp(up{job="aurelis-cache"})')
            up = query_prometheus(prometheus, 'up{job="aurelis-cache"} == 1')
            return len(scraped) == len(up) == workers and all(moment > ended for _, moment in scraped)

        await_true(has_seen_the_end, "Prometheus did not scrape the workers")
        places = json.loads((state / "demo.json").read_text())
        yield Observed(prometheus, places, json.loads((state / "driver.json").read_text()), workers)
    finally:
        prometheus.stop()
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=20)
    assert demo.returncode == 0, output


def test_the_web_cache_reports_exactly_the_requests_that_the_driver_sent(observed: Observed) -> None:
    """Each request once, with its final result; over all workers."""
    sent = observed.driver["sent"]
    assert sent > 100
    assert observed.total("requests_total", aurelis_cache_name="web") == sent
    assert observed.driver["answered"] == sent
    statuses = [kind["statuses"] for kind in observed.driver["kinds"].values()]
    assert {status for found in statuses for status in found} == {"200"}


def test_the_model_cache_reports_exactly_the_runs_of_ask(observed: Observed) -> None:
    """Each run of the handler makes one call through the transport."""
    asked = observed.origin()["ask"]
    assert asked > 0
    assert observed.total("requests_total", aurelis_cache_name="models") == asked
    assert observed.driver["kinds"]["ask"]["sent"] == asked  # never answered from the web cache


def test_the_app_and_the_model_were_called_as_often_as_the_caches_report_loads(observed: Observed) -> None:
    """Loads are misses without those who waited for the load of another."""
    assert observed.loads("web") == sum(observed.origin().values())
    called = fetch(observed.places["model_calls"])
    assert called["started"] == called["finished"] == observed.loads("models")


def test_what_clients_read_in_cache_status_is_what_the_cache_reports(observed: Observed) -> None:
    """The header and the metrics say the same."""
    read: dict[str, int] = {}
    for kind in observed.driver["kinds"].values():
        for result, count in kind["cache"].items():
            read[result] = read.get(result, 0) + count
    hits = observed.total("requests_total", aurelis_cache_name="web", aurelis_cache_result="hit")
    assert read.pop("hit") == hits > 0
    assert read.pop("collapsed", 0) == observed.total("coalesced_total", aurelis_cache_name="web")
    assert sum(read.values()) == observed.loads("web")


def test_repeated_questions_save_tokens_and_time(observed: Observed) -> None:
    assert observed.total("requests_total", aurelis_cache_name="models", aurelis_cache_result="hit") > 0
    for kind in ("input", "output"):
        saved = observed.total("saved_tokens_total", aurelis_cache_name="models", aurelis_cache_token_type=kind)
        assert saved > 0
    assert observed.total("saved_time_seconds_total", aurelis_cache_name="models") > 0.25


def test_with_redis_one_worker_answers_from_what_the_other_loaded(observed: Observed) -> None:
    """Hits in the second layer; none where there is no such layer."""
    owed = observed.total("requests_total", aurelis_cache_result="hit", aurelis_cache_layer="l2")
    assert (owed > 0) == (observed.workers == 2)


def expressions() -> Iterator[tuple[str, str]]:
    """Each query of each panel, with its variables at All or at their first value, by dashboard, panel and letter."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text())
        values = {"__rate_interval": "5s", "__range": "60s"}
        for each in dashboard["templating"]["list"]:
            values[each["name"]] = each["current"]["value"] if each["type"] == "custom" else ".+"
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                parts = re.split(r"\$(\w+)", target["expr"])
                parts[1::2] = [values[name] for name in parts[1::2]]
                yield f"{path.stem} {panel['title']} {target['refId']}", "".join(parts)


EXPRESSIONS: Mapping[str, str] = dict(expressions())


def drawn(prometheus: ServerProcess, expression: str) -> list[float]:
    """All numbers that a panel draws of the last minute."""
    now = time.time()
    query = urllib.parse.urlencode({"query": expression, "start": now - 60, "end": now, "step": 1})
    answer = fetch(f"{prometheus.url}/api/v1/query_range?{query}")
    points = [float(value) for series in answer["data"]["result"] for _, value in series["values"]]
    return [value for value in points if math.isfinite(value)]


@pytest.mark.parametrize("panel", EXPRESSIONS)
def test_every_panel_of_the_dashboards_has_data(observed: Observed, panel: str) -> None:
    """Over the time of the traffic at least one point is a number."""
    assert drawn(observed.prometheus, EXPRESSIONS[panel]), EXPRESSIONS[panel]


@pytest.mark.parametrize(
    "panel",
    [
        "overview Failures and breaker A",
        "overview Failures and breaker B",
        "layers Failures A",
        "layers Breaker A",
        "layers Breaker changes A",
        "layers Gaps A",
        "layers Lookups that failed, by layer A",
        "layers Word of changes A",
        "reliability Burn rate A",
        "reliability Open breakers A",
        "reliability Lookups that failed, by cache A",
    ],
)
def test_panels_of_faults_draw_a_redis_that_went_away(observed: Observed, panel: str) -> None:
    """Where there is none, they draw zero."""
    assert (max(drawn(observed.prometheus, EXPRESSIONS[panel])) > 0) == (observed.workers == 2)


def test_the_checker_of_dashboards_finds_no_error(observed: Observed, shared_dir: Path) -> None:
    """Structure, house rules, and every query on the real Prometheus, for each value of each variable."""
    checker = shared_dir / "tools" / "check_dashboards.py"
    command = [
        sys.executable,
        str(checker),
        str(DASHBOARDS),
        "--prometheus",
        observed.prometheus.url,
        "--each",
    ]
    pace = ["--range", "60s", "--step", "1s", "--scrape", "1s"]
    checked = subprocess.run([*command, *pace], capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


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
    began = time.monotonic()
    demo = launch("--seconds", "2")
    lines = first_lines(demo)
    drawing = time.monotonic() - began
    started = children(demo.pid)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0, output
    assert drawing < 10
    assert len(started) == 3  # worker, model, driver
    assert left_over(started) == []
    assert not folder_of(lines).exists()
    assert output.count("✓") == 4, output
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
