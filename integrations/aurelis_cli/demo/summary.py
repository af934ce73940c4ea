"""The last word of the demo: the figures, and whether everybody who counted came to the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from .metrics import CacheView
from .settings import MODELS, WEB
from .view import number, table


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted, and by whom."""

    caches: Mapping[str, CacheView]
    """By the caches, through OpenTelemetry."""
    driver: Mapping[str, Any] | None
    """By the driver; `None` if it could not write its counts."""
    origin: Mapping[str, int]
    """By the app below its cache, by kind of request."""
    model: int | None
    """By the stand-in for the model; `None` with a real one."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that two counted."""

    what: str
    reported: float
    """By the cache."""
    counted: float
    """By the other side."""
    other: str
    """Who the other side is."""


def checks(evidence: Evidence) -> list[Check]:
    """The comparisons that the evidence allows."""
    web, models = evidence.caches[WEB], evidence.caches[MODELS]
    found = []
    if evidence.driver is not None:
        found.append(Check("requests for web pages", web.requests, evidence.driver["sent"], "the driver sent"))
    found.append(Check("calls of the app", web.loads, sum(evidence.origin.values()), "the app answered"))
    found.append(Check("model calls", models.requests, evidence.origin.get("ask", 0), "the app ran /ask"))
    if evidence.model is not None:
        found.append(Check("calls of the model", models.loads, evidence.model, "the model received"))
    return found


def failed(driver: Mapping[str, Any]) -> str:
    """What went wrong for the driver: statuses of servers in trouble, and exceptions, with their counts."""
    found: Counter[str] = Counter()
    for kind in driver["kinds"].values():
        found.update({status: count for status, count in kind["statuses"].items() if status >= "500"})
        found.update(kind["errors"])
    return ", ".join(f"{count} × {what}" for what, count in sorted(found.items()))


def summarise(console: Console, evidence: Evidence, *, shared: bool) -> None:
    """Print the closing summary."""
    console.print()
    console.print("Summary, from the workers' own metrics", style="bold")
    console.print(table(evidence.caches, shared=shared))
    console.print()
    for check in checks(evidence):
        agrees = check.reported == check.counted
        console.print(
            f"{'✓' if agrees else '≠'} {check.what}: the cache reports {number(check.reported)},"
            f" {check.other} {number(check.counted)}",
            style="green" if agrees else "yellow",
            highlight=False,
            soft_wrap=True,
        )
    if evidence.driver is not None and (failures := failed(evidence.driver)):
        console.print(f"Requests of the driver that failed: {failures}", style="red", highlight=False, soft_wrap=True)
    if any(check.reported != check.counted for check in checks(evidence)):
        console.print("Requests that you sent yourself, or that were cut off, are in one count only.", highlight=False)
