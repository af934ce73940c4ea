"""What a reader of OpenTelemetry's SDK has collected, as plain figures of one cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import names
from .names import Metric


@dataclass(frozen=True, slots=True)
class Series:
    """One data point.

    Attributes:
        attributes: those of the series.
        total: the count or level; of a histogram the sum.
        count: of a histogram how much was recorded; otherwise 1.
    """

    attributes: Mapping[str, str]
    total: float
    count: int


@dataclass(frozen=True, slots=True)
class Reading:
    """All that was reported of the caches of one name, at one moment."""

    series: Mapping[str, Sequence[Series]]

    @classmethod
    def of(cls, data: Any, name: str) -> Reading:
        """Read the SDK's records (`MetricsData`, or `None`); `Any`, because the SDK may be absent."""
        found: dict[str, list[Series]] = {}
        for metric, point in _points(data):
            if point.attributes.get(names.NAME) == name:
                histogram = hasattr(point, "sum")
                total, count = (point.sum, point.count) if histogram else (point.value, 1)
                found.setdefault(metric, []).append(Series(point.attributes, total, count))
        return cls(found)

    def has(self, metric: Metric) -> bool:
        """Whether there is any series of the metric."""
        return metric.name in self.series

    def matching(self, metric: Metric, attribute: str, *values: str) -> list[Series]:
        """The series whose attribute has one of the values."""
        return [each for each in self.series.get(metric.name, ()) if each.attributes.get(attribute) in values]

    def total(self, metric: Metric) -> int:
        """The sum over all series of a count or level."""
        return total(self.series.get(metric.name, ()))


def total(series: Sequence[Series]) -> int:
    """The sum of counts or levels."""
    return int(sum(each.total for each in series))


def _points(data: Any) -> Iterator[tuple[str, Any]]:
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    yield metric.name, point
