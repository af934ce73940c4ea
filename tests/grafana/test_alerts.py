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
    series("breaker_count", layer="l2", breaker_state=state) for state in ("open", "half_open", "closed")
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
LOADED = series("operation_duration_seconds_count", operation="fill")
LOAD_FAILED = f'{LOADED[:-1]},error_type="ValueError"}}'

DAY = 1560  # minutes: a day, and two hours for what looks back a day from an hour ago

HEALTHY = {
    HIT: "0+480x1600",
    STALE: "0+6x1600",
    MISS: "0+114x1600",
    series("coalesced_total"): "0+14x1600",
    series("refreshes_total", refresh_reason="early"): "0+20x1600",
    FOUND: "0+60x1600",
    FAILED: "0+0x1600",
    OPEN: "0+0x1600",
    HALF_OPEN: "0+0x1600",
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
    """Series, one sample a minute, when an alert is silent, when it fires, and when it has ended; minutes."""

    alert: str
    series: Mapping[str, str]
    silent: tuple[int, ...]
    firing: tuple[int, ...]
    over: tuple[int, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: {"job": "app", "aurelis_cache_name": "web"})
    severity: str = "ticket"


def counter(*phases: tuple[float, int]) -> str:
    """A counter from zero on; each phase is by how much it grows in a minute, and for how many minutes."""
    written, value = ["0"], 0.0
    for rate, minutes in phases:
        written.append(f"{value + rate:g}+{rate:g}x{minutes - 1}")
        value += rate * minutes
    return " ".join(written)


_LAYER = {"job": "app", "aurelis_cache_name": "web", "aurelis_cache_layer": "l2"}
_JOURNAL = {"job": "app", "aurelis_cache_name": "web", "aurelis_cache_journal": "orders"}
CASES = [
    Case(
        "AurelisCacheHitRatioCollapsed",
        {HIT: counter((90, DAY), (10, 60), (90, 60)), MISS: counter((30, DAY), (110, 60), (30, 60))},
        (30, DAY, DAY + 5),
        (DAY + 40,),
        (DAY + 75,),
        severity="page",
    ),
    Case(
        "AurelisCacheLayerUnavailable",
        # Closed, open, half open, open again, and in the end half open; all the time well in another process.
        {OPEN: "0+0x4 1 0 1 1 1 1 1 0+0x5", HALF_OPEN: "0+0x5 1 0+0x4 1 0+0x5", OPEN.replace('"a"', '"b"'): "0+0x16"},
        (4,),
        (9, 11),
        (14,),
        _LAYER,
        "page",
    ),
    Case(
        "AurelisCacheLayerFails",
        {FOUND: counter((60, 120)), FAILED: counter((0, 20), (2, 40), (0, 60))},
        (20, 25),
        (45,),
        (70,),
        _LAYER,
    ),
    # The first one is Redis that begins anew, for all processes at once.
    Case(
        "AurelisCacheBackplaneGaps",
        {GAPS: "0+0x5 2+0x15 2+1x40 42+0x40", **{GAPS.replace('"a"', f'"{other}"'): "0+0x5 2+0x95" for other in "bcd"}},
        (8, 12, 15, 21),
        (40,),
        (80,),
    ),
    Case("AurelisCacheChangesNotTold", {PENDING: "0 3 0+0x10 2+0x30 0+0x10"}, (5, 15), (30,), (45,)),
    Case(
        "AurelisCacheWriteBehindBacklog",
        # A moment of much, then a queue that grows and is soon done; then the store takes nothing, and the journal is
        # full, until it is repaired. Two processes see the same journal.
        {
            **dict.fromkeys((WAITING, WAITING.replace('"a"', '"b"')), "0 5 0 0 0 0 0 0 0 0 10+1x60 500+0x60 0+0x30"),
            WRITTEN: "0+60x71 4260+0x60 4760+60x30",
        },
        (5, 50, 70, 80),
        (95, 120),
        (140,),
        _JOURNAL,
        "page",
    ),
    Case("AurelisCacheDeadLetters", {DEAD: "0+0x10 1+0x10 0+0x10"}, (9,), (13,), (24,), _JOURNAL, "page"),
    Case(
        "AurelisCacheEvictionPressure",
        {
            HIT: counter((50, 320)),
            MISS: counter((50, 320)),
            STORED: counter((50, 320)),
            EVICTED: counter((0, 60), (45, 140), (5, 120)),
        },
        (60, 70),
        (160,),
        (300,),
    ),
    Case(
        "AurelisCacheStaleForLong",
        # Much is stale while it is revalidated, as it is meant; then the origin fails, and then it is repaired.
        {
            HIT: counter((50, 260)),
            REVALIDATING: counter((20, 260)),
            STALE: counter((0, 60), (10, 140), (0, 60)),
            MISS: counter((5, 260)),
        },
        (50, 60, 80),
        (120,),
        (215,),
    ),
    Case(
        "AurelisCacheSavingsStopped",
        # New processes, whose calls are never answered from the cache; and those that take their place.
        {
            **{name: f"0+{rate}x{DAY} stale" for name, rate in {TOKENS: 900, HIT: 5}.items()},
            MISS: counter((10, 1800)),
            TOKENS.replace('"a"', '"c"'): f"_x{DAY + 150} 0+900x80",
        },
        (60, DAY, DAY + 50),
        (DAY + 120,),
        (DAY + 170,),
    ),
    Case(
        "AurelisCacheSavingsStopped",
        {
            TOKENS: counter((900, DAY), (0, 150), (900, 80)),
            HIT: counter((5, DAY), (0, 150), (5, 80)),
            MISS: counter((10, 1800)),
        },
        (60, DAY, DAY + 50),
        (DAY + 120,),
        (DAY + 170,),
    ),
]
BY_CHANCE = {
    "AurelisCacheHitRatioCollapsed": {HIT: counter((1, DAY), (0, 120)), MISS: counter((7, DAY), (8, 120))},
    "AurelisCacheSavingsStopped": {
        TOKENS: counter((40, DAY), (0, 150)),
        HIT: counter((0.05, DAY), (0, 150)),
        MISS: counter((0.95, DAY), (1, 150)),
    },
    "AurelisCacheEvictionPressure": {
        HIT: counter((1, 300)),
        MISS: counter((2, 300)),
        STORED: counter((2, 300)),
        EVICTED: counter((2, 300)),
    },
}
"""So little traffic that what has not come has not come by chance."""


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


def expected(case: Case) -> Mapping[int, list[dict[str, object]]]:
    """The alert by minute: nothing, one for the cache, nothing again."""
    labels = {"alertname": case.alert, "alertstate": "firing", "severity": case.severity, **case.labels}
    moments: dict[int, list[dict[str, object]]] = {minute: [] for minute in (*case.silent, *case.over)}
    return moments | {minute: [{"labels": f"ALERTS{labelled(labels)}", "value": 1}] for minute in case.firing}


@promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_should_not_before_and_not_after(case: Case, tmp_path: Path) -> None:
    assert max(case.silent) < min(case.firing) <= max(case.firing) < min(case.over)
    run(tmp_path, about(case.series, {firing(case.alert): expected(case)}))


@promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_is_one_of_a_cache_however_many_processes_see_it(case: Case, tmp_path: Path) -> None:
    copies = [
        (name.replace('"a"', f'"z{number}"'), values) for number in range(3) for name, values in case.series.items()
    ]
    run(tmp_path, about({**dict(copies), **case.series}, {firing(case.alert): expected(case)}))


@promtool
@pytest.mark.parametrize("alert", BY_CHANCE)
def test_of_little_traffic_nothing_is_said(alert: str, tmp_path: Path) -> None:
    minutes = range(20, DAY + 150, 20)
    run(tmp_path, about(BY_CHANCE[alert], {firing(alert): {minute: [] for minute in minutes}}))


@promtool
def test_on_a_healthy_day_all_are_silent(tmp_path: Path) -> None:
    moments: dict[int, list[dict[str, object]]] = {minute: [] for minute in (3, 10, 30, 120, 600, 1500, 1590)}
    run(tmp_path, about(HEALTHY, {'ALERTS{alertstate="firing"}': moments}))


@promtool
def test_the_ratios_are_those_of_the_counts(tmp_path: Path) -> None:
    """600 requests a minute: 480 hits, 6 stale, 114 misses of which 14 waited for another; 20 refreshes.

    Of 75 lookups in Redis 15 fail, and of 100 loads 4.
    """
    failures = {FAILED: "0+15x200", LOADED: "0+96x200", LOAD_FAILED: "0+4x200"}
    labels = 'job="app",aurelis_cache_name="web"'
    values = {
        "cache:aurelis_cache_requests:rate5m": (f"{{{labels}}}", 10),
        "cache:aurelis_cache_hits:ratio_rate5m": (f"{{{labels}}}", 0.81),
        "cache:aurelis_cache_stale:ratio_rate5m": (f"{{{labels}}}", 0.01),
        "cache:aurelis_cache_stale:ratio_rate1h": (f"{{{labels}}}", 0.01),
        "cache:aurelis_cache_loads:rate5m": (f"{{{labels}}}", 2),
        "cache:aurelis_cache_lookups_failed:ratio_rate5m": (f"{{{labels}}}", 0.2),
        "cache:aurelis_cache_lookups_failed:ratio_rate1h": (f"{{{labels}}}", 0.2),
        "cache:aurelis_cache_loads_failed:ratio_rate5m": (f"{{{labels}}}", 0.04),
        "cache:aurelis_cache_loads_failed:ratio_rate1h": (f"{{{labels}}}", 0.04),
        "cache:aurelis_cache_saved_tokens:increase1h": (f"{{{labels}}}", 54_000),
    }
    checks: dict[str, Mapping[int, list[dict[str, object]]]] = {
        f"round({name}, 0.0001)": {120: [{"labels": at, "value": value}]} for name, (at, value) in values.items()
    }
    run(tmp_path, about({**HEALTHY, **failures}, checks))


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
def test_a_cache_whose_loads_succeed_has_a_ratio_of_zero(tmp_path: Path) -> None:
    recorded = ("cache:aurelis_cache_loads_failed:ratio_rate5m", "cache:aurelis_cache_loads_failed:ratio_rate1h")
    labels = '{job="app",aurelis_cache_name="web"}'
    checks = {name: {30: [{"labels": f"{name}{labels}", "value": 0}]} for name in recorded}
    run(tmp_path, about({LOADED: "0+10x60"}, checks))


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


def test_what_an_alert_says_names_only_labels_that_it_has() -> None:
    said = dict(zip(ALERT.findall(ALERTS.read_text()), ALERT.split(ALERTS.read_text())[2::2], strict=True))
    for case in CASES:
        assert set(re.findall(r"\$labels\.(\w+)", said[case.alert])) <= set(case.labels), case.alert
        assert "$labels.aurelis_cache_name" in said[case.alert] or "$labels.aurelis_cache_journal" in said[case.alert]


def emitted() -> set[str]:
    """The series of all metrics."""
    parts = {"histogram": ("_bucket", "_count")}
    return {exported(metric) + part for metric in names.METRICS for part in parts.get(metric.kind, ("",))}


def test_the_rules_name_only_metrics_that_are_emitted() -> None:
    used = set(re.findall(r"\b(?<!:)aurelis_cache_[a-z_]+(?=[{\[])", RECORDING.read_text() + ALERTS.read_text()))
    assert used <= emitted(), used - emitted()


@promtool
def test_the_queries_of_the_runbook_can_be_asked(tmp_path: Path) -> None:
    """Each line is one, of series that are emitted or recorded."""
    text = (ROOT / "docs" / "alerts.md").read_text()
    queries = [line for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    queries += [code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith("sum by")]
    assert len(queries) >= len(ALERT.findall(ALERTS.read_text()))
    rules = [{"record": f"line{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "runbook", "rules": rules}]}))
    ran = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    known = emitted() | set(re.findall(r"- record: (\S+)", RECORDING.read_text()))
    asked = {name for query in queries for name in re.findall(r"[\w:]*aurelis_cache_\w+(?=[{\[])", query)}
    assert asked <= known, asked - known
