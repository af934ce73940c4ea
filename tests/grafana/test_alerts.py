"""The alerts and recording rules, run by Prometheus' own `promtool` on series that are written down here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aurelis.cache.telemetry import names
from aurelis_cli.demo.metrics import series as exported
from tests.conftest import ROOT

RULES = ROOT / "grafana" / "prometheus"
RECORDING, ALERTS = RULES / "recording.rules.yml", RULES / "alerts.rules.yml"
ALERT = re.compile(r"- alert: (\w+)")
GROUP = re.compile(r"- name: (\S+)")

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")


def series(name: str, instance: str = "a", **labels: str) -> str:
    """A series of the cache `web` in one process of the job `app`."""
    every = {"job": "app", "instance": instance, "aurelis_cache_name": "web"}
    every |= {f"aurelis_cache_{label}": value for label, value in labels.items()}
    return f"aurelis_cache_{name}{labelled(every)}"


def labelled(labels: Mapping[str, str]) -> str:
    """Labels as PromQL writes them."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


HIT, MISS = (series("requests_total", result=result) for result in ("hit", "miss"))
STALE, REVALIDATING = (
    series("requests_total", result="stale", stale_reason=reason) for reason in ("error", "revalidate")
)
OPEN, HALF_OPEN, CLOSED = (
    series("breaker_changes_total", layer="l2", breaker_state=state) for state in ("open", "half_open", "closed")
)
FOUND, FAILED = (series("lookups_total", layer="l2", result=result) for result in ("hit", "error"))
GAPS = series("backplane_gaps_total", gap_reason="connection")
PENDING = series("recovery_pending")
WAITING = series("write_behind_waiting", journal="orders")
WRITTEN = series("write_behind_settled_total", journal="orders", write_result="written")
DEAD = series("write_behind_dead_letter_count", journal="orders")
STORED = series("stores_total", store_result="stored")
EVICTED = series("evictions_total", layer="l1", eviction_reason="capacity")
TOKENS = series("saved_tokens_total", token_type="input")

DAY = 1560  # minutes: a day, and two hours for what looks back a day from an hour ago

HEALTHY = {
    HIT: "0+480x1600",
    STALE: "0+6x1600",
    MISS: "0+114x1600",
    series("coalesced_total"): "0+14x1600",
    series("refreshes_total", refresh_reason="early"): "0+20x1600",
    FOUND: "0+60x1600",
    FAILED: "0+0x1600",
    OPEN: "3+0x1600",  # breakers opened and closed long ago
    HALF_OPEN: "3+0x1600",
    CLOSED: "1+0x1600",
    GAPS: "1+0x1600",
    PENDING: "0+0x1600",
    WAITING: "5 0 7 0 9 0 5 0 7 0 9 0 5 0 7 0 9 0+0x1588",
    DEAD: "0+0x1600",
    STORED: "0+110x1600",
    EVICTED: "0+10x1600",
    TOKENS: "0+900x1600",
}
"""A day of which four fifths of the requests are hits, and a few stale."""


@dataclass(frozen=True)
class Case:
    """Series, one sample a minute, and when an alert is silent and when it fires; minutes."""

    alert: str
    series: Mapping[str, str]
    silent: tuple[int, ...]
    firing: tuple[int, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: {"job": "app", "aurelis_cache_name": "web"})
    severity: str = "ticket"


def after_a_day(before: int, then: int) -> str:
    """A counter that grows by so much a minute for a day, and then by so much."""
    return f"0+{before}x{DAY} {before * DAY + then}+{then}x180"


_LAYER = {"job": "app", "aurelis_cache_name": "web", "aurelis_cache_layer": "l2"}
_JOURNAL = {"job": "app", "aurelis_cache_name": "web", "aurelis_cache_journal": "orders"}
CASES = [
    Case(
        "AurelisCacheHitRatioCollapsed",
        {HIT: after_a_day(90, 10), MISS: after_a_day(30, 110)},
        (30, DAY, DAY + 5),
        (DAY + 40,),
        severity="page",
    ),
    Case(
        "AurelisCacheLayerUnavailable",
        # Closed, open, half open, open again, and in the end half open; all the time well in another process.
        {OPEN: "_x5 1 1 2 2 2 2 2 2 2 2", HALF_OPEN: "_x7 1 1 1 1 1 2 2 2", OPEN.replace('"a"', '"b"'): "0+0x14"},
        (4, 14),
        (9, 11),
        _LAYER,
        "page",
    ),
    Case("AurelisCacheLayerFails", {FOUND: "0+60x60", FAILED: "0+0x20 0+2x40"}, (20, 25), (45,), _LAYER),
    # The first one is Redis that begins anew, for all processes at once.
    Case(
        "AurelisCacheBackplaneGaps",
        {GAPS: "0+0x5 2+0x15 2+1x40", **{GAPS.replace('"a"', f'"{other}"'): "0+0x5 2+0x55" for other in "bcd"}},
        (8, 12, 15, 21),
        (40,),
    ),
    Case("AurelisCacheChangesNotTold", {PENDING: "0 3 0+0x10 2+0x30"}, (5, 15), (30,)),
    Case(
        "AurelisCacheWriteBehindBacklog",
        # A moment of much, then a queue that grows and is soon done; in the end the store takes nothing, and the
        # journal is full. Two processes see the same journal.
        {
            **dict.fromkeys((WAITING, WAITING.replace('"a"', '"b"')), "0 5 0 0 0 0 0 0 0 0 10+1x60 500+0x60"),
            WRITTEN: "0+60x71 4260+0x60",
        },
        (5, 50, 70, 80),
        (95, 120),
        _JOURNAL,
        "page",
    ),
    Case("AurelisCacheDeadLetters", {DEAD: "0+0x10 1+0x10"}, (9,), (13,), _JOURNAL, "page"),
    Case(
        "AurelisCacheEvictionPressure",
        {HIT: "0+50x200", MISS: "0+50x200", STORED: "0+50x200", EVICTED: "0+0x60 0+45x140"},
        (60, 70),
        (160,),
    ),
    Case(
        "AurelisCacheStaleForLong",
        # Much is stale while it is revalidated, as it is meant; then the origin fails.
        {HIT: "0+50x200", REVALIDATING: "0+20x200", STALE: "0+0x60 0+10x140", MISS: "0+5x200"},
        (50, 60, 80),
        (120,),
    ),
    Case(
        "AurelisCacheSavingsStopped",
        # New processes, whose calls are never answered from the cache.
        {TOKENS: f"0+900x{DAY} stale", MISS: "0+10x1800"},
        (60, DAY, DAY + 50),
        (DAY + 120,),
    ),
    Case(
        "AurelisCacheSavingsStopped",
        {TOKENS: after_a_day(900, 0), MISS: "0+10x1800"},
        (60, DAY, DAY + 50),
        (DAY + 120,),
    ),
]


def run(folder: Path, *tests: Mapping[str, object]) -> None:
    """Lets promtool run the rules over series. What it reads as YAML may be JSON."""
    file = folder / "rules.test.yml"
    document = {
        "rule_files": [str(RECORDING), str(ALERTS)],
        "evaluation_interval": "1m",
        # Otherwise an alert may be looked at before what it looks at is recorded.
        "group_eval_order": GROUP.findall(RECORDING.read_text() + ALERTS.read_text()),
        "tests": tests,
    }
    file.write_text(json.dumps(document))
    ran = subprocess.run(["promtool", "test", "rules", str(file)], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def about(values: Mapping[str, str], checks: Mapping[str, Mapping[int, list[dict[str, object]]]]) -> dict[str, object]:
    """A test of promtool: for each expression and minute, the samples that are expected."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": value} for name, value in values.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}
            for expression, moments in checks.items()
            for minute, samples in moments.items()
        ],
    }


def firing(alert: str) -> str:
    """The series that Prometheus keeps of an alert that fires."""
    return f'ALERTS{{alertname="{alert}",alertstate="firing"}}'


@promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_should_and_not_before(case: Case, tmp_path: Path) -> None:
    labels = {"alertname": case.alert, "alertstate": "firing", "severity": case.severity, **case.labels}
    expected = f"ALERTS{labelled(labels)}"
    moments: dict[int, list[dict[str, object]]] = {minute: [] for minute in case.silent}
    moments |= {minute: [{"labels": expected, "value": 1}] for minute in case.firing}
    run(tmp_path, about(case.series, {firing(case.alert): moments}))


@promtool
def test_on_a_healthy_day_all_are_silent(tmp_path: Path) -> None:
    moments: dict[int, list[dict[str, object]]] = {minute: [] for minute in (3, 10, 30, 120, 600, 1500, 1590)}
    run(tmp_path, about(HEALTHY, {'ALERTS{alertstate="firing"}': moments}))


@promtool
def test_the_ratios_are_those_of_the_counts(tmp_path: Path) -> None:
    """600 requests a minute: 480 hits, 6 stale, 114 misses of which 14 waited for another; 20 refreshes."""
    labels = 'job="app",aurelis_cache_name="web"'
    values = {
        "cache:aurelis_cache_requests:rate5m": (f"{{{labels}}}", 10),
        "cache:aurelis_cache_hits:ratio_rate5m": (f"{{{labels}}}", 0.81),
        "cache:aurelis_cache_stale:ratio_rate5m": (f"{{{labels}}}", 0.01),
        "cache:aurelis_cache_loads:rate5m": (f"{{{labels}}}", 2),
        "instance:aurelis_cache_breaker_open": (f'{{{labels},instance="a",aurelis_cache_layer="l2"}}', 0),
        "cache:aurelis_cache_saved_tokens:increase1h": (f"{{{labels}}}", 54_000),
    }
    checks: dict[str, Mapping[int, list[dict[str, object]]]] = {
        f"round({name}, 0.0001)": {120: [{"labels": at, "value": value}]} for name, (at, value) in values.items()
    }
    run(tmp_path, about(HEALTHY, checks))


@promtool
def test_a_cache_without_hits_has_a_ratio_of_zero(tmp_path: Path) -> None:
    at = '{job="app",aurelis_cache_name="web"}'
    checks = {
        "cache:aurelis_cache_hits:ratio_rate5m": {
            30: [{"labels": f"cache:aurelis_cache_hits:ratio_rate5m{at}", "value": 0}]
        }
    }
    run(tmp_path, about({MISS: "0+10x60"}, checks))


@promtool
def test_the_rules_are_well_formed() -> None:
    ran = subprocess.run(
        ["promtool", "check", "rules", str(RECORDING), str(ALERTS)], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_has_a_case_and_a_section_of_the_runbook() -> None:
    alerts = ALERT.findall(ALERTS.read_text())
    assert sorted(alerts) == sorted({case.alert for case in CASES})
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert set(alerts) <= set(sections)
    links = re.findall(r"runbook: docs/alerts\.md#(\w+)", ALERTS.read_text())
    assert links == [alert.lower() for alert in alerts]


def test_the_rules_name_only_metrics_that_are_emitted() -> None:
    parts = {"histogram": "_bucket"}
    emitted = {exported(metric) + parts.get(metric.kind, "") for metric in names.METRICS}
    used = set(re.findall(r"\b(?<!:)aurelis_cache_[a-z_]+(?=[{\[])", RECORDING.read_text() + ALERTS.read_text()))
    assert used <= emitted, used - emitted
