"""The rules and alerts with a quicker clock, so that what takes hours can be seen in a run of seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

RULES = sorted((ROOT / "grafana" / "prometheus").glob("*.rules.yml"))
FACTOR = 300
"""An hour is twelve seconds then, five minutes are one, and half an hour is six."""
EVERY = "300ms"
"""How often to scrape and to evaluate: several times in the shortest window, as in the long run."""
SHORTEST = 3
"""Seconds that every alert waits at least: what its `for` is to sit out, such as the pause of a breaker or a moment in
which this machine has no time, is not quicker with the clock."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<before>\[|offset )(?P<number>\d+)(?P<unit>[smhd])\b")


def scaled(folder: Path, factor: int = FACTOR) -> Sequence[Path]:
    """Copies of the rules in which each duration is shorter by that factor: windows, offsets and, to a bound, `for`.

    Nothing else differs: thresholds are those of ratios and of rates in a second, which have no part in it.
    """
    written = []
    for path in RULES:
        document = yaml.safe_load(path.read_text())
        for rule in (rule for group in document["groups"] for rule in group["rules"]):
            rule["expr"] = _DURATION.sub(lambda found: found["before"] + _shorter(found, factor), rule["expr"])
            if "for" in rule:
                waits = re.fullmatch(r"(?P<number>\d+)(?P<unit>[smhd])", rule["for"])
                assert waits is not None, rule
                rule["for"] = _shorter(waits, factor, SHORTEST)
        target = folder / path.name
        target.write_text(yaml.safe_dump(document, sort_keys=False))
        written.append(target)
    return written


def recorded() -> list[str]:
    """The names of all recorded series."""
    return [rule["record"] for rule in _rules() if "record" in rule]


def alerts() -> list[str]:
    """The names of all alerts."""
    return [rule["alert"] for rule in _rules() if "alert" in rule]


def _rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def _shorter(duration: re.Match[str], factor: int, shortest: float = 0) -> str:
    seconds = int(duration["number"]) * _SECONDS[duration["unit"]] / factor
    return f"{round(1000 * max(seconds, shortest))}ms"
