"""A run of the demo that a real Prometheus has watched, and what can be asked about it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurelis.cache.telemetry import names
from aurelis_cli.demo.driver import WRITES
from aurelis_cli.demo.metrics import label, series
from tests import servers
from tests.conftest import ROOT
from tests.demo.command import await_true, start
from tests.servers import ServerProcess, query_prometheus

DASHBOARDS = ROOT / "grafana" / "dashboards"

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str) -> Any:
    """JSON from a process of the demo, or from Prometheus."""
    with _opener.open(url, timeout=10) as response:
        return json.load(response)


@dataclass
class Observed:
    """A demo whose traffic has ended, and a Prometheus that has seen all of it."""

    prometheus: ServerProcess
    places: dict[str, Any]
    driver: dict[str, Any]
    faults: list[dict[str, Any]]
    began: float

    def total(self, metric: names.Metric, cache: str | None = None, **labels: str) -> float:
        """The sum over all series, as Prometheus computes it."""
        every = {f"aurelis_cache_{name}": value for name, value in labels.items()}
        if cache is not None:
            every[label(names.NAME)] = cache
        matchers = ",".join(f'{name}="{value}"' for name, value in every.items())
        # The last word of each worker: when it is busy, a scrape may fail.
        found = query_prometheus(self.prometheus, f"sum(last_over_time({series(metric)}{{{matchers}}}[1m]))")
        return found[0][1] if found else 0.0

    def loads(self, cache: str) -> float:
        """How often the origin was asked, as the metrics say."""
        missed = [self.total(names.REQUESTS, cache, result=result) for result in ("miss", "bypass")]
        return sum(missed) - self.total(names.COALESCED, cache) + self.total(names.REFRESHES, cache)

    def sent(self) -> int:
        """Requests of the driver that a cache could answer."""
        return sum(kind["sent"] for name, kind in self.driver["kinds"].items() if name not in WRITES)

    def origin(self) -> int:
        """Such requests that reached the app, over all workers."""
        calls = [fetch(url).items() for url in self.places["origin"]]
        return sum(count for found in calls for kind, count in found if kind not in WRITES)

    def model_calls(self) -> int:
        """Calls of models that the app made, over all workers."""
        return sum(fetch(url)["model_calls"] for url in self.places["client"])

    def over(self, query: str, start: float, end: float, step: float = 1.0) -> list[dict[str, Any]]:
        """The series of an expression over a time."""
        asked = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": step})
        found: list[dict[str, Any]] = fetch(f"{self.prometheus.url}/api/v1/query_range?{asked}")["data"]["result"]
        return found

    def drawn(self, expression: str) -> list[float]:
        """All numbers that a panel draws of the run."""
        found = self.over(expression, self.began, time.time())
        points = [float(value) for each in found for _, value in each["values"]]
        return [value for value in points if math.isfinite(value)]


@contextlib.contextmanager
def observe(
    folder: Path, seconds: float, *options: str, rules: Sequence[Path] = (), every: str = "1s"
) -> Iterator[Observed]:
    """Runs the demo for so long, with a Prometheus; inside, the traffic is over and everything is still there."""
    state = folder / "state"
    state.mkdir()
    prometheus = servers.prometheus(folder, [state / "targets.json"], rules, every)
    log = folder / "demo.log"
    with log.open("w") as output:
        arguments = ("--seconds", str(seconds), "--hold", "120", "--state-dir", str(state), *options)
        demo = start(*arguments, output=output)
    try:
        prometheus.start()
        began = time.time()
        await_true((state / "driver.json").exists, "the traffic did not end", seconds=seconds + 45)
        ended = time.time()
        places = json.loads((state / "demo.json").read_text())

        def has_seen_the_end() -> bool:
            # Of an expression that is no plain selector, `timestamp` gives the time of the query.
            scraped = query_prometheus(prometheus, 'timestamp(up{job="aurelis-cache"})')
            up = query_prometheus(prometheus, 'up{job="aurelis-cache"} == 1')
            workers = len(places["metrics"])
            return len(scraped) == len(up) == workers and all(moment > ended for _, moment in scraped)

        await_true(has_seen_the_end, "Prometheus did not scrape the workers")
        faults = state / "faults.json"
        yield Observed(
            prometheus,
            places,
            json.loads((state / "driver.json").read_text()),
            json.loads(faults.read_text()) if faults.exists() else [],
            began,
        )
    finally:
        prometheus.stop()
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=30)
    assert demo.returncode == 0, log.read_text()


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
SELECTOR = re.compile(r'[a-zA-Z_:][\w:]*\{(?:[^{}"]|"(?:\\.|[^"\\])*")*\}|\{__name__(?:[^{}"]|"(?:\\.|[^"\\])*")*\}')


def selectors(expression: str) -> list[str]:
    """What an expression asks Prometheus for, without the zeros that stand in for what is not there."""
    found = SELECTOR.findall(expression)
    assert found, expression
    assert "{" not in SELECTOR.sub("", expression), expression
    return found
