"""Draws what the workers report: a live board in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aurelis.cache.telemetry import names

from .metrics import Buckets, CacheView, quantile
from .settings import MODELS, WEB

WINDOW: Final = 5.0
"""Seconds over which requests per second are taken."""
LINE_EVERY: Final = 2.0
"""Seconds between plain lines."""
TITLES: Final = {WEB: "web pages", MODELS: "model calls"}

_DASH: Final = "–"


@dataclass(frozen=True, slots=True)
class Frame:
    """What is shown at one moment."""

    time: float
    """Seconds since the traffic began."""
    caches: Mapping[str, CacheView]
    state: str
    """What the demo is doing, in a few words."""


class Rates:
    """Requests per second over the last `WINDOW` seconds, from the totals that were reported."""

    def __init__(self) -> None:
        """Nothing has been reported."""
        self._past: deque[Frame] = deque()

    def add(self, frame: Frame) -> dict[str, float]:
        """The rate of each cache at `frame`; frames come in the order of time. NaN until there are two."""
        self._past.append(frame)
        while len(self._past) > 2 and self._past[1].time <= frame.time - WINDOW:
            self._past.popleft()
        first = self._past[0]
        span = frame.time - first.time
        return {
            name: (view.requests - first.caches[name].requests) / span if span > 0 else math.nan
            for name, view in frame.caches.items()
        }


class Board:
    """Shows frames. A context manager: a live board occupies the terminal inside it."""

    def __init__(self, console: Console, *, shared: bool) -> None:
        """`shared`: there is a second layer, which workers share."""
        self._console = console
        self._shared = shared
        self._rates = Rates()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        """Take the terminal over."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        if self._live is not None:
            self._live.stop()

    def show(self, frame: Frame) -> None:
        """Draw, or print a line if it is time for one."""
        rates = self._rates.add(frame)
        if self._live is not None:
            self._live.update(self._drawn(frame, rates), refresh=True)
        elif frame.time >= self._next_line:
            self._next_line = frame.time + LINE_EVERY
            for name in frame.caches:
                self._console.print(
                    line(name, frame, rates[name], shared=self._shared), highlight=False, soft_wrap=True
                )

    def _drawn(self, frame: Frame, rates: Mapping[str, float]) -> RenderableType:
        heading = Text.assemble((f"{frame.state}", "bold"), f"  {frame.time:,.0f} s", style="cyan")
        return Group(Text(), heading, table(frame.caches, shared=self._shared, rates=rates))


def table(caches: Mapping[str, CacheView], *, shared: bool, rates: Mapping[str, float] | None = None) -> RenderableType:
    """All figures, a column for each cache. It fits into 80 columns."""
    grid = Table(box=None, pad_edge=False)
    grid.add_column("", no_wrap=True)
    for name in caches:
        grid.add_column(TITLES.get(name, name), justify="right", no_wrap=True, min_width=18)

    def row(title: str, value: Callable[[CacheView], str], style: str = "") -> None:
        grid.add_row(title, *(value(view) for view in caches.values()), style=style)

    if rates is not None:
        grid.add_row("requests per second", *(number(rates[name], 1) for name in caches))
    row("requests", lambda view: number(view.requests))
    row("hit ratio", lambda view: percent(view.hit_ratio()), "bold green")
    if shared:
        row("  from the worker's memory (L1)", lambda view: percent(view.hit_ratio(names.L1)))
        row("  from Redis (L2)", lambda view: percent(view.hit_ratio(names.L2)))
        row("  hits one worker owes to the other", lambda view: number(view.hits.get(names.L2, 0)))
    row(
        "hit p50 / p95" + (" (L1)" if shared else ""),
        lambda view: quantiles(view.hit_seconds.get(names.L1, {})),
    )
    if shared:
        row("lookup in Redis p50 / p95", lambda view: quantiles(view.hit_seconds.get(names.L2, {})))
    row("miss p50 / p95", lambda view: quantiles(view.load_seconds))
    row("upstream calls avoided", lambda view: number(view.avoided), "bold green")
    row("  by waiting for another's", lambda view: number(view.coalesced))
    row("tokens saved", lambda view: number(view.tokens_saved) if view.tokens_saved else _DASH)
    row("US dollars saved", lambda view: f"{view.cost_saved:.4f}" if view.cost_saved else _DASH)
    row("upstream time saved", lambda view: f"{number(view.seconds_saved, 1)} s")
    row("embeddings not asked for again", _items)
    row("entries", lambda view: number(view.entries))
    row("memory, of its limit", lambda view: f"{size(view.usage)} of {size(view.limit)}")
    row("failures of a layer", lambda view: number(view.errors), "bold red" if _failed(caches) else "")
    return grid


def line(name: str, frame: Frame, rate: float, *, shared: bool) -> str:
    """The chief figures of one cache, in one line."""
    view = frame.caches[name]
    ratio = f"hit {percent(view.hit_ratio())}"
    hits = f"hit p50/p95 {quantiles(view.hit_seconds.get(names.L1, {}))}"
    if shared:
        ratio += f" (L1 {percent(view.hit_ratio(names.L1))}, L2 {percent(view.hit_ratio(names.L2))})"
        hits = f"L1 {hits}, L2 lookup p50/p95 {quantiles(view.hit_seconds.get(names.L2, {}))}"
    parts = [
        f"{frame.time:5.0f} s  {frame.state}  {name:6}  {number(rate, 1)}/s  {ratio}",
        hits,
        f"miss p50/p95 {quantiles(view.load_seconds)}",
        f"{number(view.avoided)} calls avoided",
    ]
    if shared:
        parts.append(f"{number(view.hits.get(names.L2, 0))} hits owed to the other worker")
    if view.tokens_saved:
        parts.append(f"{number(view.tokens_saved)} tokens saved")
    parts.append(f"{number(view.seconds_saved, 1)} s saved")
    if view.errors:
        parts.append(f"{number(view.errors)} {'failure' if view.errors == 1 else 'failures'} of a layer")
    return "  ".join(parts)


def number(value: float, digits: int = 0) -> str:
    """With thousands apart; a dash for NaN."""
    return _DASH if math.isnan(value) else f"{value:,.{digits}f}".replace(",", " ")


def percent(ratio: float) -> str:
    """A share in percent; a dash for NaN."""
    return _DASH if math.isnan(ratio) else f"{100 * ratio:.1f} %"


def duration(seconds: float) -> str:
    """In the unit that fits."""
    if math.isnan(seconds):
        return _DASH
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{_figures(seconds / factor)} {unit}"
    return f"{_figures(seconds / 1e-6)} µs"


def _figures(value: float) -> str:
    """Three figures, or as many as stand before the point."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def quantiles(buckets: Buckets) -> str:
    """Median and 95th percentile."""
    median, high = (duration(quantile(q, buckets)) for q in (0.5, 0.95))
    return _DASH if median == _DASH else f"{median} / {high}"


def size(count: float) -> str:
    """Bytes in the binary unit that fits."""
    units: Sequence[str] = ("B", "KiB", "MiB", "GiB")
    step = 0
    while count >= 1024 and step < len(units) - 1:
        count /= 1024
        step += 1
    return f"{_figures(count)} {units[step]}" if step else f"{count:.0f} B"


def _items(view: CacheView) -> str:
    """Of the items of requests for several, those that were there."""
    asked = sum(view.items.values())
    return percent(1 - view.items.get(names.MISS, 0) / asked) if asked else _DASH


def _failed(caches: Mapping[str, CacheView]) -> bool:
    return any(view.errors for view in caches.values())
