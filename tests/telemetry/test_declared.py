"""What a run of nearly everything emits is what is declared, and the examples are queries that Prometheus reads."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Histogram, Sum

from aurelis.cache.telemetry import names
from scripts.telemetry_page import query
from tests.managers import own_counts
from tests.servers import ServerProcess
from tests.telemetry.collecting import Metrics
from tests.telemetry.whole_run import whole_run

JOURNAL = "tests/strategies/test_write_behind.py counts failures of a journal; all operations go through `Asking.ask`"
REDIS = "tests/test_stack.py counts failures of a layer; all operations go through `Guard.call`"
LATE = "tests/asgi/test_late_bodies.py counts requests over HTTP/2 whose body comes when the app is at work"
NOT_HERE: dict[tuple[str, str], dict[str, str]] = {
    (names.REFRESHES.name, names.REFRESH_REASON): {"body": LATE},
    (names.ERRORS.name, names.LAYER): {names.JOURNALED: JOURNAL},
    (names.ERRORS.name, names.OPERATION): {
        **dict.fromkeys(("append", "backlog", "leave", "letters", "pending", "replay", "settle", "take"), JOURNAL),
        **dict.fromkeys(("acquire", "clear", "release", "renew", "scan", "tags"), REDIS),
        "index": "what is caught there is a defect of ours, and none is known",
    },
}
"""Values that the run need not bring about, and why."""


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    """A reader of what this module's caches report."""
    with own_counts():
        yield Metrics()


class Seen:
    """What was emitted until now, held against what is declared.

    Attributes:
        metrics: names of metrics.
        attributes: of metrics, with their names.
        values: of attributes, by metric and attribute, in series that are not zero.
        undeclared: what is not declared.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.metrics: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.values: dict[tuple[str, str], set[str]] = {}
        self.undeclared: set[str] = set()

    def look(self) -> None:
        """Look at what is reported now."""
        declared = {metric.name: metric for metric in names.METRICS}
        for name, found in self._metrics.all().items():
            self.metrics.add(name)
            if name in declared:
                self._look_at(declared[name], found)

    def _look_at(self, metric: names.Metric, found: Any) -> None:
        assert (found.unit, found.description) == (metric.unit, metric.description)
        assert isinstance(found.data, Histogram if metric.kind == "histogram" else Sum)
        if isinstance(found.data, Sum):
            assert found.data.is_monotonic == (metric.kind == "counter")
        uses = {use.attribute: use for use in metric.attributes}
        for point in found.data.data_points:
            attributes = {key: value for key, value in (point.attributes or {}).items() if key != names.NAME}
            missing = {use.attribute for use in metric.attributes if not use.only} - attributes.keys()
            self.undeclared |= {f"{metric.name} without {attribute}" for attribute in missing}
            amount = getattr(point, "value", None) or getattr(point, "count", 0)
            self.attributes |= {(metric.name, attribute) for attribute in attributes}
            for attribute, value in attributes.items():
                use = uses.get(attribute)
                allowed = () if use is None else use.values or tuple(names.ATTRIBUTES[attribute].values)
                if use is None or (allowed and value not in allowed):
                    self.undeclared.add(f"{metric.name} {attribute}={value}")
                elif amount:
                    self.values.setdefault((metric.name, attribute), set()).add(str(value))


async def test_what_is_emitted_is_what_is_declared(
    metrics: Metrics, tmp_path: Path, redis_url: str, own_redis: ServerProcess
) -> None:
    seen = Seen(metrics)
    await whole_run(
        tmp_path,
        redis_url,
        own_redis,
        seen.look,
        lambda cache: [attributes for attributes, _ in metrics.points(names.DURATION, cache.config.name)],
    )
    seen.look()
    assert seen.undeclared == set()
    assert seen.metrics == {metric.name for metric in names.METRICS}
    lacking = {}
    for metric in names.METRICS:
        for use in metric.attributes:
            allowed = set(use.values or names.ATTRIBUTES[use.attribute].values)
            marked = NOT_HERE.get((metric.name, use.attribute), {})
            assert marked.keys() <= allowed, "what is not declared need not be marked"
            if left := allowed - seen.values.get((metric.name, use.attribute), set()) - marked.keys():
                lacking[metric.name, use.attribute] = left
            assert (metric.name, use.attribute) in seen.attributes
    assert lacking == {}


def test_the_examples_ask_for_attributes_and_values_that_there_are() -> None:
    for metric in names.METRICS:
        uses = {use.attribute.replace(".", "_"): use for use in metric.attributes}
        asked = query(metric)
        for listed in re.findall(r"by \((.*?)\)", asked):
            known = {*uses, "aurelis_cache_name", "instance"} | ({"le"} if metric.kind == "histogram" else set())
            assert set(listed.split(", ")) <= known, asked
        for name, value in re.findall(r'(\w+)!?="(.*?)"', asked):
            use = uses[name]
            assert value in (use.values or names.ATTRIBUTES[use.attribute].values), asked


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")
def test_the_examples_are_queries_that_prometheus_reads(tmp_path: Path) -> None:
    rules = [{"record": f"example:{number}", "expr": query(metric)} for number, metric in enumerate(names.METRICS)]
    file = tmp_path / "examples.yml"
    file.write_text(json.dumps({"groups": [{"name": "examples", "rules": rules}]}))
    ran = subprocess.run(["promtool", "check", "rules", str(file)], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
