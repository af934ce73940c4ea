"""The last word of the demo: the figures, and whether everybody who counted came to the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from .driver import WRITES
from .metrics import CacheView, Snapshot, journal, similar, view
from .settings import MODELS, WEB
from .view import number, table


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted, and by whom."""

    snapshot: Snapshot
    """By the caches, through OpenTelemetry."""
    driver: Mapping[str, Any] | None
    """By the driver; `None` if it could not write its counts."""
    origin: Mapping[str, int]
    """By the app below its cache, by kind of request."""
    client: int
    """By the app above its client's cache: calls of models."""
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


def caches_of(snapshot: Snapshot) -> Mapping[str, CacheView]:
    """What is reported of the caches that have a column."""
    return {name: view(snapshot, name) for name in (WEB, MODELS)}


def checks(evidence: Evidence) -> list[Check]:
    """The comparisons that the evidence allows."""
    web, models = caches_of(evidence.snapshot).values()
    found = []
    if evidence.driver is not None:
        read = sum(kind["sent"] for name, kind in evidence.driver["kinds"].items() if name not in WRITES)
        found.append(Check("requests for web pages", web.requests, read, "the driver sent"))
    read = sum(calls for name, calls in evidence.origin.items() if name not in WRITES)
    found.append(Check("calls of the app", web.loads, read, "the app answered"))
    found.append(Check("model calls", models.requests, evidence.client, "the app made"))
    if evidence.model is not None:
        found.append(Check("calls of the model", models.loads, evidence.model, "the model received"))
    if evidence.driver is not None:
        taken = sum(evidence.driver["kinds"][name]["statuses"].get("200", 0) for name in WRITES)
        accepted = journal(evidence.snapshot).accepted
        found.append(Check("ratings", accepted, taken, "the driver got an answer to"))
    return found


def failed(driver: Mapping[str, Any]) -> str:
    """What went wrong for the driver: statuses of servers in trouble, and exceptions, with their counts."""
    found: Counter[str] = Counter()
    for kind in driver["kinds"].values():
        found.update({status: count for status, count in kind["statuses"].items() if status >= "500"})
        found.update(kind["errors"])
    return ", ".join(f"{count} × {what}" for what, count in sorted(found.items()))


def behind(snapshot: Snapshot) -> str:
    """What became of the ratings."""
    writes = journal(snapshot)
    written, newer, dead = (writes.settled.get(result, 0) for result in ("written", "coalesced", "dead"))
    parts = [
        f"{number(written)} written behind the cache",
        f"{number(newer)} replaced by newer ones",
        f"{number(dead)} given up and {number(writes.replayed)} tried again" if dead else "",
        f"{number(writes.waiting)} waiting",
    ]
    return "ratings: " + ", ".join(filter(None, parts))


def similarity(snapshot: Snapshot) -> str:
    """What became of the frequent questions; empty where there were none."""
    searches, verdicts = similar(snapshot)
    if not sum(searches.values()):
        return ""
    wrong = verdicts.get("false_hit", 0)
    return (
        f"frequent questions: {number(searches.get('hit', 0))} answered by a similar one, "
        f"{number(verdicts.get('correct', 0) + wrong)} compared with the model's answer, {number(wrong)} of them wrong"
    )


def summarise(console: Console, evidence: Evidence, *, shared: bool) -> None:
    """Print the closing summary."""
    console.print()
    console.print("Summary, from the workers' own metrics", style="bold")
    console.print(table(caches_of(evidence.snapshot), shared=shared))
    for line in filter(None, (similarity(evidence.snapshot), behind(evidence.snapshot))):
        console.print(line, highlight=False, soft_wrap=True)
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
