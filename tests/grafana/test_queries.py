"""What queries of panels make of series, as Prometheus computes it: rare events, shared levels, amounts per hour."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from aurelis.cache.telemetry import names
from scripts.dashboards import _queries as q
from tests.grafana.test_alerts import DEAD, GAPS, LOAD_FAILED, LOADED, about, promtool, run

RATE, RANGE = "4m", "20m"
"""Of a Prometheus that looks once a minute."""


def asked(expression: str) -> str:
    """An expression as Grafana asks it, with everything chosen."""
    values = {"__rate_interval": RATE, "__range": RANGE}
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], ".+"), expression)


def drawn(folder: Path, expression: str, values: Mapping[str, str], points: Mapping[int, float]) -> None:
    """Asserts what an expression without labels is at some minutes."""
    moments = {minute: [{"labels": "{}", "value": value}] for minute, value in points.items()}
    run(folder, about(values, {f"round({asked(expression)}, 0.01)": moments}))


@promtool
@pytest.mark.parametrize(
    ("values", "points"),
    [
        pytest.param("0+0x9 2+0x20", {9: 0, 10: 2, 13: 2, 14: 0}, id="two at once"),
        pytest.param("_x10 3+0x20", {10: 3, 13: 3, 14: 0}, id="a series that begins with its first event"),
        pytest.param("1000+0x9 stale 1000+0x20", {9: 0, 11: 0, 12: 0, 14: 0, 15: 0, 20: 0}, id="a look that failed"),
        pytest.param("1000+0x9 stale stale stale 1001+0x20", {13: 1, 15: 1, 16: 1, 17: 0, 20: 0}, id="and then one"),
        pytest.param("7+0x9 0 1+0x20", {9: 0, 10: 0, 11: 1, 13: 1, 15: 0, 20: 0}, id="a process that begins anew"),
    ],
)
def test_events_are_drawn_once_and_none_is_made_up(values: str, points: dict[int, float], tmp_path: Path) -> None:
    expression = q.events(names.GAPS)
    # Of what was there before the first look, all is new; that is said in the documentation.
    drawn(tmp_path, expression, {GAPS: values}, points)


@promtool
def test_failures_in_the_time_range_are_all_counted(tmp_path: Path) -> None:
    """A burst between two looks makes a series that does not grow."""
    failed, loads = (q.events_in_range(names.DURATION, where=where) for where in (q.FAILED_LOADS, q.FILL))
    series = {LOADED: "0+100x60", LOAD_FAILED: "_x30 500+0x40"}
    drawn(tmp_path, failed, series, {29: 0, 31: 500, 45: 500, 60: 0})
    drawn(tmp_path, q.share(failed, loads), series, {29: 0, 40: 0.2, 60: 0})


@promtool
def test_a_look_that_failed_where_the_time_range_begins_makes_no_failures_up(tmp_path: Path) -> None:
    expression = q.events_in_range(names.DURATION, where=q.FAILED_LOADS)
    drawn(tmp_path, expression, {LOAD_FAILED: "900+0x9 stale 900+0x40"}, {29: 0, 30: 0, 31: 0, 35: 0})


@promtool
def test_a_level_that_processes_share_is_there_once_for_each_job(tmp_path: Path) -> None:
    """Two processes on one journal see the same; another job has a journal of the same name."""
    other = DEAD.replace('job="app"', 'job="other"')
    series = {DEAD: "3+0x5", DEAD.replace('"a"', '"b"'): "3+0x5", other: "2+0x5"}
    drawn(tmp_path, f"sum({q.shared(names.DEAD_LETTERS, names.NAME, names.JOURNAL)})", series, {5: 5})


@promtool
@pytest.mark.parametrize("step", [RATE, "10m"])
def test_what_is_saved_per_hour_stays_when_somebody_zooms(step: str, tmp_path: Path) -> None:
    series = {'aurelis_cache_saved_cost_total{job="app",instance="a",aurelis_cache_name="web"}': "0+0.5x60"}
    expression = q.per_hour(names.SAVED_COST).replace("$__rate_interval", step)
    drawn(tmp_path, expression, series, {40: 30})
