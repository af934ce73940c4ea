"""Resolves a dashboard as Grafana does: places of panels, variables, intervals, queries and the names of series."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ._prometheus import Prometheus, Series, Window

WIDTH: Final = 1400
"""Pixels of a picture."""
TOP: Final = 112
"""Pixels above the panels: the name, the variables, the time range."""
_EDGE: Final = 16
_GAP: Final = 8
_ROW: Final = 30
_COLUMNS: Final = 24
_FRAME: Final = 18
"""Pixels that the frame of a panel takes from its width."""

_STEPS: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)
"""Seconds between two points of a graph: an interval is rounded to one of these."""
_VARIABLE: Final = re.compile(r"\$(\w+)|\$\{(\w+)\}")
_LABEL_VALUES: Final = re.compile(r"label_values\((.+), *(\w+)\)")
_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SPECIAL: Final = re.compile(r"[\\^$*+?.()|\[\]{}]")


def resolved(dashboard: Mapping[str, Any], prometheus: Prometheus, window: Window, scrape: int) -> dict[str, Any]:
    """Returns what the page draws, as JSON values.

    Args:
        dashboard: of the classic model.
        prometheus: has the data of the window.
        window: the time range that is looked at.
        scrape: seconds between two samples, as a data source says (`timeInterval`).

    Raises:
        ValueError: The dashboard uses something that is not understood here.
    """
    chosen, variables = _chosen(dashboard, prometheus, window)
    panels = []
    for panel in dashboard["panels"]:
        place = box(panel["gridPos"])
        queries = list(_answers(panel, place["width"], chosen, prometheus, window, scrape))
        panels.append({**panel, "box": place, "queries": queries})
    return {
        "title": dashboard["title"],
        "width": WIDTH,
        "height": height([panel["gridPos"] for panel in panels]),
        "top": TOP,
        "from": window.start * 1000,
        "to": window.end * 1000,
        "refresh": dashboard["refresh"],
        "variables": variables,
        "links": dashboard["links"],
        "panels": panels,
    }


def empty(dashboard: Mapping[str, Any]) -> list[str]:
    """The titles of panels without a single number, of a dashboard that was resolved."""
    return [
        panel["title"]
        for panel in dashboard["panels"]
        if panel["type"] != "row"
        and not any(
            value is not None for query in panel["queries"] for series in query["series"] for value in series["values"]
        )
    ]


# Places


def height(places: Iterable[Mapping[str, int]]) -> int:
    """Pixels of the picture of a dashboard, by the places of its panels."""
    return TOP + max(place["y"] + place["h"] for place in places) * (_ROW + _GAP) - _GAP + _EDGE


def box(place: Mapping[str, int]) -> dict[str, float]:
    """A place in the grid, in pixels."""
    column = (WIDTH - 2 * _EDGE - _GAP * (_COLUMNS - 1)) / _COLUMNS
    return {
        "x": _EDGE + place["x"] * (column + _GAP),
        "y": TOP + place["y"] * (_ROW + _GAP),
        "width": place["w"] * (column + _GAP) - _GAP,
        "height": place["h"] * (_ROW + _GAP) - _GAP,
    }


# Variables


def _chosen(
    dashboard: Mapping[str, Any], prometheus: Prometheus, window: Window
) -> tuple[dict[str, str], list[dict[str, str]]]:
    """What each variable stands for in a query; and which are shown, with their text."""
    values: dict[str, str] = {}
    shown = []
    for variable in dashboard["templating"]["list"]:
        name = variable["name"]
        match variable["type"]:
            case "datasource":
                text = variable["query"].capitalize()
            case "custom":
                text, values[name] = variable["current"]["text"], variable["current"]["value"]
            case "query" if variable["current"]["value"] == ["$__all"]:
                text = "All"
                values[name] = variable.get("allValue") or everything(variable, values, prometheus, window)
            case kind:
                raise ValueError(f"variable {name} of type {kind}: what it stands for is not known here")
        shown.append({"name": name, "label": variable["label"], "text": text})
    return values, shown


def everything(variable: Mapping[str, Any], values: Mapping[str, str], prometheus: Prometheus, window: Window) -> str:
    """A pattern for all values of a variable."""
    found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
    if found is None:
        raise ValueError(f"variable {variable['name']}: its query is no label_values(…)")
    each = prometheus.values(found[2], _filled(found[1], values), window)
    return f"({'|'.join(map(_escaped, each))})"


def _escaped(value: str) -> str:
    """A value as a part of a pattern within a string of PromQL."""
    return _SPECIAL.sub(lambda found: "\\" * 4 if found[0] == "\\" else f"\\\\{found[0]}", value)


def _filled(text: str, values: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in values:
            raise ValueError(f"${name} is no variable that is known here")
        return values[name]

    return _VARIABLE.sub(value, text)


# Queries


def interval(window: Window, points: float, scrape: int) -> int:
    """Seconds between two points of a graph of so many pixels; never less than between two samples."""
    wanted = window.seconds / points
    rounded = min(_STEPS, key=lambda step: abs(step - wanted))
    return max(rounded, scrape)


def times(window: Window, step: int, scrape: int) -> dict[str, str]:
    """The variables of Grafana itself that stand for durations."""
    return {
        "__interval": f"{step}s",
        # Four samples, so that a rate has two even where one is missing.
        "__rate_interval": f"{max(step + scrape, 4 * scrape)}s",
        "__range": f"{window.seconds}s",
        "__range_s": str(window.seconds),
    }


def _answers(
    panel: Mapping[str, Any],
    width: float,
    chosen: Mapping[str, str],
    prometheus: Prometheus,
    window: Window,
    scrape: int,
) -> Iterator[dict[str, Any]]:
    step = interval(window, width - _FRAME, scrape)
    values = {**chosen, **times(window, step, scrape)}
    # Grafana asks for whole steps, so that a graph does not flicker when it is drawn again.
    aligned = Window(window.start // step * step, window.end // step * step)
    for target in panel.get("targets", []):
        expression = _filled(target["expr"], values)
        if target.get("instant"):
            found, moments = prometheus.at(expression, window.end), [window.end]
        else:
            found = prometheus.over(expression, aligned, step)
            moments = list(range(aligned.start, aligned.end + 1, step))
        yield {
            "refId": target["refId"],
            "interval": step * 1000,
            "times": [moment * 1000 for moment in moments],
            "series": [_named(series, target["legendFormat"], moments) for series in found],
        }


def _named(series: Series, legend: str, moments: Sequence[int]) -> dict[str, Any]:
    # With nothing where nothing is: a graph would draw a line from the last value to the next.
    known = dict(zip(map(int, series.times), series.values, strict=True))
    return {
        "name": _LABEL.sub(lambda found: series.labels.get(found[1], ""), legend).strip(),
        "labels": series.labels,
        "values": [known.get(moment) for moment in moments],
    }
