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
"""An hour is twelve seconds then, and half an hour is six."""
SHORTEST = 3
"""Seconds that no duration is shorter than: a rate needs several scrapes, one a second; and what alerts are to sit out,
such as the pause of a breaker or a moment in which this machine has no time, is not quicker with the clock."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_IN_QUERY = re.compile(r"(\[|offset )(\d+[smhd])\b")


def scaled(folder: Path) -> Sequence[Path]:
    """Copies of the rules in which each duration is shorter: windows, offsets and `for`.

    Nothing else differs: thresholds are those of ratios and of rates in a second, which have no part in it.
    """
    written = []
    for path in RULES:
        document = yaml.safe_load(path.read_text())
        for rule in (rule for group in document["groups"] for rule in group["rules"]):
            rule["expr"] = _IN_QUERY.sub(lambda found: found[1] + _shorter(found[2]), rule["expr"])
            if "for" in rule:
                rule["for"] = _shorter(rule["for"])
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


def _shorter(duration: str) -> str:
    seconds = int(duration[:-1]) * _SECONDS[duration[-1]] / FACTOR
    return f"{round(1000 * max(seconds, SHORTEST))}ms"
