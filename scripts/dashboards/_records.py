"""What a dashboard consists of, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

Kind = Literal["stat", "graph", "states"]

Steps = tuple[tuple[float | None, str], ...]
"""Colours from each value on; the first one begins nowhere (`None`)."""

PLAIN: Steps = ((None, "text"), (1, "green"))
"""More is better, and nothing is bad."""
MONEY: Steps = ((None, "text"), (0.01, "green"))
"""The same, from a cent on."""
NONE_IS_GOOD: Steps = ((None, "green"), (1, "red"))
RESULTS: Mapping[str, str] = {
    "hit( l1)? *": "green",
    "hit files": "light-green",
    "hit l2": "dark-green",
    "hit l3": "super-light-green",
    "hit negative": "dark-yellow",
    "stale *": "yellow",
    "revalidated *": "blue",
    "collapsed *": "light-blue",
    "miss *": "orange",
    "bypass *": "purple",
}
"""Each result has its colour on all dashboards; a name may end with the blank before a label that is not there."""


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, and how its series are called."""

    expression: str
    legend: str
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: its name.
        description: what it shows, and what to do when it is bad. Lines are joined.
        queries: what is drawn.
        kind: `stat` is the value over the time range, `graph` lines, `states` a band for each series.
        unit: by Grafana's name.
        steps: colours by value; a graph draws them as lines.
        width: of 24 columns; 0: what is usual for its kind.
        height: rows of the grid, likewise.
        stacked: the lines add up.
        maximum: of the axis.
        logarithmic: the axis is.
        decimals: digits behind the point.
        dashed: pattern of the names of series that are bounds.
        colors: by pattern of the names of series; those that match none get what is left.
        states: words and colours for values.
        to: uid of the dashboard with more about it.
        traced: there are traces of it.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    _: KW_ONLY
    kind: Kind = "graph"
    unit: str = "short"
    steps: Steps = ()
    width: int = 0
    height: int = 0
    stacked: bool = False
    maximum: float | None = None
    logarithmic: bool = False
    decimals: int | None = None
    dashed: str | None = None
    colors: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    to: str | None = None
    traced: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        width, height = (6, 4) if self.kind == "stat" else (12, 8)
        return self.width or width, self.height or height


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under a heading; `None`: under none."""

    title: str | None = None
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A variable of one dashboard.

    Attributes:
        name: as in `$name`.
        label: what the reader sees.
        query: where its values come from; empty: `values`.
        values: the only ones, each as `text : value`; the first is chosen.
        every: what All stands for in a query; `None`: all values that there are.
    """

    name: str
    label: str
    query: str = ""
    values: tuple[str, ...] = ()
    every: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One dashboard.

    Attributes:
        uid: its name in links; it never changes.
        title: what the reader sees.
        description: what it answers.
        rows: its panels.
        caches: query for the names of caches; `None`: of all.
        choices: variables beside those that every dashboard has.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    caches: str | None = None
    choices: tuple[Choice, ...] = ()
