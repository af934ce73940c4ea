"""Questions to a Prometheus."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

_PATIENCE: Final = 30.0
"""Seconds for one answer."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time range, in whole seconds since the epoch."""

    start: int
    end: int

    @property
    def seconds(self) -> int:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels, times in seconds, and values; `None` is no finite number."""

    labels: dict[str, str]
    times: list[float]
    values: list[float | None]


class Prometheus:
    """A server.

    All that is asked raises `ValueError` where it is not understood, and `OSError` where nothing answers.
    """

    def __init__(self, url: str) -> None:
        """Connect to nothing yet."""
        self._url = url
        # It is on this machine, whatever proxy the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def over(self, expression: str, window: Window, step: int) -> list[Series]:
        """How an expression was, every `step` seconds."""
        found = self._get("query_range", query=expression, start=window.start, end=window.end, step=step)
        return [_series(each["metric"], each["values"]) for each in found["result"]]

    def at(self, expression: str, moment: int) -> list[Series]:
        """What an expression was at a moment."""
        found = self._get("query", query=expression, time=moment)
        if found["resultType"] == "scalar":
            return [_series({}, [found["result"]])]
        return [_series(each["metric"], [each["value"]]) for each in found["result"]]

    def values(self, label: str, selector: str, window: Window) -> list[str]:
        """The values of a label among some series, in order."""
        arguments = {"match[]": selector, "start": window.start, "end": window.end}
        found: list[str] = self._get(f"label/{label}/values", **arguments)
        return sorted(found)

    def _get(self, what: str, **arguments: object) -> Any:  # JSON
        query = urllib.parse.urlencode(arguments)
        try:
            with self._opener.open(f"{self._url}/api/v1/{what}?{query}", timeout=_PATIENCE) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"Prometheus refuses {arguments}: {error.read().decode()}") from None


def _series(labels: dict[str, str], points: list[tuple[float, str]]) -> Series:
    values = [float(value) for _, value in points]
    return Series(labels, [time for time, _ in points], [each if math.isfinite(each) else None for each in values])
