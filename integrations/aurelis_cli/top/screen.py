"""Draws figures: tables that leave out what a narrow terminal has no room for, and JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aurelis.cache.telemetry import names
from aurelis_cli.demo.view import duration, number, percent, size

from .figures import CacheFigures, Latency, LayerFigures

R = TypeVar("R")

_DASH: Final = "–"
_GAP: Final = 2
"""Blanks between columns."""
_LONGEST_NAME: Final = 40
"""Characters of a name that are shown: it must leave room for figures."""
_FRAME: Final = 4
"""Lines of two tables that are no rows: a blank and the titles of each."""
_MOST_ROWS: Final = 200
"""Rows of a table: no terminal has more, and while thousands are drawn nobody could end the program."""


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """One figure of a row. `rank`: the highest go first where there is no room."""

    title: str
    text: Callable[[R], str]
    rank: int = 0
    bad: Callable[[R], bool] = lambda _: False
    """Whether it is a reason to look."""


@dataclass(frozen=True, slots=True)
class Layered:
    """A layer, and the cache that it is of."""

    cache: str
    layer: LayerFigures


def latency(value: Latency) -> str:
    """Median and 95th percentile."""
    return _DASH if math.isnan(value.median) else f"{duration(value.median)} / {duration(value.high)}"


def rate(value: float) -> str:
    """Per second."""
    return number(value, 1)


def _printable(name: str) -> str:
    """A name from elsewhere, without what a terminal would take for a command."""
    if cell_len(name) > _LONGEST_NAME:
        name = f"{set_cell_size(name, _LONGEST_NAME - 1)}…"
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def _memory(layer: LayerFigures) -> str:
    used = _DASH if math.isnan(layer.usage) else size(layer.usage)
    return used if math.isnan(layer.limit) else f"{used} of {size(layer.limit)}"


def _of(result: str) -> Callable[[CacheFigures], str]:
    return lambda cache: rate(math.nan if math.isnan(cache.requests) else cache.results.get(result, 0.0))


CACHES: Final[Sequence[Column[CacheFigures]]] = (
    Column("cache", lambda cache: _printable(cache.name)),
    Column("req/s", lambda cache: rate(cache.requests)),
    Column("hits", lambda cache: percent(cache.hit_ratio)),
    Column("hit p50 / p95", lambda cache: latency(cache.hit), 2),
    Column("load p50 / p95", lambda cache: latency(cache.load), 1),
    Column("hit/s", _of(names.HIT), 7),
    Column("stale/s", _of(names.STALE), 7),
    Column("revalidated/s", _of(names.REVALIDATED), 9),
    Column("miss/s", _of(names.MISS), 6),
    Column("bypass/s", _of(names.BYPASS), 8),
    Column("waiting", lambda cache: number(cache.waiting), 5),
    Column("errors/s", lambda cache: rate(cache.errors), 3, lambda cache: cache.errors > 0),
    Column("time saved", lambda cache: f"{number(cache.saved_seconds, 1)} s", 4),
    Column("tokens saved", lambda cache: number(cache.saved_tokens) if cache.saved_tokens else _DASH, 10),
    Column("money saved", lambda cache: f"${cache.saved_dollars:,.2f}" if cache.saved_dollars else _DASH, 10),
    Column("requests", lambda cache: number(cache.requests_total), 11),
    Column("of them hits", lambda cache: percent(cache.hit_ratio_total), 11),
)
LAYERS: Final[Sequence[Column[Layered]]] = (
    Column("cache", lambda row: _printable(row.cache)),
    Column("layer", lambda row: _printable(row.layer.name)),
    Column("hits", lambda row: percent(row.layer.hits)),
    Column("lookup p50 / p95", lambda row: latency(row.layer.lookup), 4),
    Column("entries", lambda row: number(row.layer.entries), 3),
    Column("memory", lambda row: _memory(row.layer), 2),
    Column("evicted/s", lambda row: rate(row.layer.evictions), 5),
    Column("errors/s", lambda row: rate(row.layer.errors), 1, lambda row: row.layer.errors > 0),
    Column("breaker", lambda row: row.layer.breaker or _DASH, 1, lambda row: row.layer.breaker == "open"),
)


def table(columns: Sequence[Column[R]], rows: Sequence[R], width: int) -> Table:
    """The rows, with as many columns as `width` characters hold; the first is always there."""
    widths = [max(len(column.title), *(cell_len(column.text(row)) for row in rows)) + _GAP for column in columns]
    shown = set(range(len(columns)))
    while sum(widths[index] for index in shown) - _GAP > width and len(shown) > 1:
        shown.remove(max(shown, key=lambda index: (columns[index].rank, index)))
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    kept = [columns[index] for index in sorted(shown)]
    for position, column in enumerate(kept):
        grid.add_column(Text(column.title), justify="right" if position else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(Text(column.text(row), "bold red" if column.bad(row) else "") for column in kept))
    return grid


def fitting(columns: Sequence[Column[R]], rows: Sequence[R], count: int, busy: Callable[[R], bool]) -> Sequence[R]:
    """So many rows, in their order: reasons to look before what is busy, and that before what is idle."""

    def rank(index: int) -> tuple[int, int]:
        row = rows[index]
        return (0 if any(column.bad(row) for column in columns) else 1 if busy(row) else 2), index

    return [rows[index] for index in sorted(sorted(range(len(rows)), key=rank)[:count])]


def drawn(
    caches: Sequence[CacheFigures],
    problems: Mapping[str, str],
    asked: int,
    width: int,
    height: int | None = None,
    *,
    chosen: bool = False,
) -> RenderableType:
    """All of it, or what there is room for.

    Args:
        problems: of endpoints that could not be read.
        asked: endpoints in all.
        width: of the terminal, in characters.
        height: of the terminal, in lines; `None`: there are as many as it takes.
        chosen: these are the caches of some names, and there may be others.
    """
    parts = _heads(problems, asked, None if height is None else max(height // 3, 1))
    if not caches:
        if len(problems) < asked:
            parts.append(Text(f"no cache {'of such a name ' if chosen else ''}is reported there"))
        return Group(*parts)
    layers = [Layered(cache.name, layer) for cache in caches for layer in cache.layers]
    rows = len(caches) + len(layers)
    room = rows if height is None else height - sum(-(-head.cell_len // width) for head in parts) - _FRAME
    if rows > room:
        room = max(room - 1, 2)  # a line says so
    most = max(room // 2, room - len(layers))
    shown = fitting(CACHES, caches, min(most, _MOST_ROWS), lambda cache: cache.requests > 0)
    below = fitting(
        LAYERS, layers, min(room - len(shown), _MOST_ROWS), lambda row: row.layer.hits > 0 or row.layer.evictions > 0
    )
    tables: list[RenderableType] = [Text(), table(CACHES, shown, width)]
    if below:
        tables += [Text(), table(LAYERS, below, width)]
    missing = rows - len(shown) - len(below)
    if max(len(caches), len(layers)) > _MOST_ROWS:
        tables.append(Text(f"there are {len(caches)} caches with {len(layers)} layers: choose by --cache", "bold red"))
    elif missing:
        tables.append(Text(f"{missing} more: a taller terminal, --cache or --once shows them"))
    return Group(*parts, *tables)


def _heads(problems: Mapping[str, str], asked: int, most: int | None) -> list[Text]:
    """How many endpoints answer, and so many of those that do not."""
    said = [Text(f"{name}: {problem}", "bold red") for name, problem in problems.items()]
    if most is not None and len(said) > most:
        said = [*said[: most - 1], Text(f"{len(said) - most + 1} more do not answer", "bold red")]
    return [Text(f"{asked - len(problems)} of {asked} endpoints answer", "cyan"), *said]


def document(caches: Sequence[CacheFigures], problems: Mapping[str, str], endpoints: Sequence[str]) -> dict[str, Any]:
    """The same for programs: plain values, and `None` for what is not known."""
    return {
        "endpoints": [{"name": name, "problem": problems.get(name)} for name in endpoints],
        "caches": [_plain(asdict(cache)) for cache in caches],
    }


def _plain(value: Any) -> Any:  # what `asdict` and JSON have in common
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
