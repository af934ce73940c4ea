"""The demo with two workers and Redis, first undisturbed and then with everything failing that it can let fail.

The figures stay exact, every panel of every dashboard draws, and the alerts are silent until there is trouble. The
rules run with a quicker clock; see `rules`.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aurelis.cache.telemetry import names
from aurelis_cli.demo.faults import SCRIPT
from tests.demo.observed import DASHBOARDS, EXPRESSIONS, Observed, fetch, observe, selectors
from tests.demo.rules import alerts, recorded, scaled
from tests.servers import ServerProcess

HEALTHY = 19  # seconds: an hour and a half of the quicker clock, so that each alert could fire
FAULTY = max(fault.ends for fault in SCRIPT) + 2

ALERTS_OF_FAULTS = {
    "AurelisCacheDeadLetters",
    "AurelisCacheLayerFails",
    "AurelisCacheLayerUnavailable",
}
"""Those that the faults last long enough for."""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, redis_server: Callable[[], ServerProcess]) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "rules").mkdir()
    options = ("--redis", redis_server().url, "--faults", str(HEALTHY))
    with observe(folder, HEALTHY + FAULTY, *options, rules=scaled(folder / "rules")) as seen:
        yield seen


def test_the_figures_are_exact_in_spite_of_the_faults(observed: Observed) -> None:
    """Of all workers together, whatever had failed."""
    assert observed.driver["answered"] == observed.driver["sent"]
    assert observed.total(names.REQUESTS, "web") == observed.sent()
    assert observed.loads("web") == observed.origin()
    assert observed.total(names.REQUESTS, "models") == observed.model_calls()
    assert observed.loads("models") == fetch(observed.places["model_calls"])["started"]
    assert observed.total(names.WRITES_ACCEPTED) == observed.driver["kinds"]["ratings"]["statuses"]["200"]


def test_one_worker_answers_from_what_the_other_loaded(observed: Observed) -> None:
    assert observed.total(names.REQUESTS, result="hit", layer="l2") > 0


def test_everything_has_failed_that_the_script_names(observed: Observed) -> None:
    assert [fault["name"] for fault in observed.faults] == [fault.name for fault in SCRIPT]
    assert all(fault["ended"] > fault["began"] for fault in observed.faults)


def test_stale_pages_and_dead_letters_come_of_it(observed: Observed) -> None:
    """An app that fails is stood in for, and what a table refuses is kept, and written when it is well again."""
    assert observed.total(names.REQUESTS, "web", result="stale") > 0
    dead = observed.total(names.WRITES_SETTLED, "ratings", write_result="dead")
    assert dead > 0
    assert observed.total(names.WRITES_REPLAYED, "ratings") > 0
    assert observed.total(names.DEAD_LETTERS, "ratings") < dead


@pytest.mark.parametrize("panel", EXPRESSIONS)
def test_every_query_of_every_panel_has_series_of_its_own(observed: Observed, panel: str) -> None:
    """Whatever it asks for is there, without a zero that stands in for it; and what is drawn is a number."""
    missing = [asked for asked in selectors(EXPRESSIONS[panel]) if not observed.drawn(asked)]
    assert not missing
    assert observed.drawn(EXPRESSIONS[panel]), EXPRESSIONS[panel]


@pytest.mark.parametrize(
    "panel",
    [
        "overview Failures and breaker A",
        "overview Failures and breaker B",
        "layers Failures A",
        "layers Breaker changes A",
        "layers Gaps A",
        "layers Lookups that failed, by layer A",
        "layers Word of changes A",
        "models Failed calls A",
        "models False hits A",
        "models Streams that broke off A",
        "reliability Alerts firing A",
        "reliability Burn rate A",
        "reliability Burn rate B",
        "reliability Burn rate that lasts A",
        "reliability Lookups that failed, by cache A",
    ],
)
def test_panels_of_faults_draw_more_than_zero(observed: Observed, panel: str) -> None:
    assert max(observed.drawn(EXPRESSIONS[panel])) > 0


@pytest.mark.parametrize("name", recorded())
def test_every_recording_rule_has_data(observed: Observed, name: str) -> None:
    assert observed.drawn(name)


def firing(observed: Observed, start: float, end: float) -> list[dict[str, str]]:
    """The labels of alerts that have fired in a time."""
    found = observed.over('ALERTS{alertstate="firing"}', start, end, step=1)
    return [each["metric"] for each in found]


def test_no_alert_fires_while_all_is_well(observed: Observed) -> None:
    """All that are there have been looked at, with all that they look at."""
    trouble = observed.faults[0]["began"]
    (requests,) = observed.over("count(cache:aurelis_cache_requests:rate1h)", observed.began, trouble)
    assert len(requests["values"]) > HEALTHY / 2
    assert firing(observed, observed.began, trouble) == []
    loaded = fetch(f"{observed.prometheus.url}/api/v1/rules?type=alert")["data"]["groups"]
    assert sorted(rule["name"] for group in loaded for rule in group["rules"]) == sorted(alerts())
    assert {rule["health"] for group in loaded for rule in group["rules"]} == {"ok"}


def test_alerts_fire_when_what_they_are_for_happens(observed: Observed) -> None:
    trouble = observed.faults[0]["began"]
    fired = {alert["alertname"] for alert in firing(observed, trouble, observed.faults[-1]["ended"] + 2)}
    assert fired >= ALERTS_OF_FAULTS


def test_the_checker_of_dashboards_finds_nothing(observed: Observed, shared_dir: Path) -> None:
    """Structure, house rules, and every query on the real Prometheus, for each value of each variable."""
    checker = shared_dir / "tools" / "check_dashboards.py"
    command = [sys.executable, str(checker), str(DASHBOARDS), "--prometheus", observed.prometheus.url]
    command += ["--each", "--strict"]
    pace = ["--range", "60s", "--step", "1s", "--scrape", "1s"]
    checked = subprocess.run([*command, *pace], capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
