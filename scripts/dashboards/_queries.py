"""PromQL over the project's metrics. Names come from the one module that has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.names import Metric
from aurelis_cli.demo.metrics import label as label
from aurelis_cli.demo.metrics import series as series

PROCESSES: Final = 'job=~"$job", instance=~"$instance"'
"""Matchers that every query has."""
CACHES: Final = f'{PROCESSES}, {label(names.NAME)}=~"$name"'
"""Those of metrics of a cache."""
RECORDED: Final = f'job=~"$job", instance=~"$instance|", {label(names.NAME)}=~"$name"'
"""Those of recorded series, most of which are sums over instances and have no such label."""
_LABELS: Final = re.compile(r"by \((?:\w+, )*(\w+)\)")
_NOTHING: Final[Mapping[str, str]] = {}

HITS: Final = {names.RESULT: f"{names.HIT}|{names.STALE}"}
"""Requests that a stored entry answered."""
MEMORY: Final = {names.LAYER: names.L1}
SHARED: Final = {names.LAYER: f"{names.L2}|{names.L3}"}
_ON_DISK: Final = {names.LAYER: f"{names.L3}|{names.FILES}"}
GET: Final = {names.OPERATION: "get"}
FILL: Final = {names.OPERATION: "fill"}
OPENED: Final = {names.BREAKER_STATE: "open"}
FAILED_LOADS: Final = {**FILL, names.ERROR_TYPE: ".+"}


_REPORTED: Final = f'{{__name__="{series(names.REQUESTS)}", {PROCESSES}}}'
ZERO: Final = f"0 * count({_REPORTED})"
"""Zero while there are processes that report. Where there are none, nothing is known, and a zero would look well."""
ZERO_BY_RULES: Final = f"0 * count(cache:aurelis_cache_requests:rate5m{{{RECORDED}}})"
"""Zero while the recording rules are loaded, without which no alert can fire."""


def selector(
    metric: Metric, where: Mapping[str, str] = _NOTHING, but: Mapping[str, str] = _NOTHING, *, raw: bool = False
) -> str:
    """The series of a metric; a histogram's buckets.

    Args:
        metric: what is asked for.
        where: patterns that whole attributes must match.
        but: patterns that they must not match.
        raw: a counter is meant as it stands, and not how it grows.
    """
    if metric.kind == "histogram":
        return _matching(f"{series(metric)}_bucket", where, but)
    name = series(metric)
    # What reads dashboards takes each name that ends so for a counter, and asks for its rate.
    if raw or (metric.kind == "gauge" and name.endswith("_count")):
        return f'{{__name__="{name}", {_matching("", where, but)[1:]}'
    return _matching(name, where, but)


def _matching(name: str, where: Mapping[str, str], but: Mapping[str, str] = _NOTHING) -> str:
    matchers = [CACHES]
    matchers += [f'{label(attribute)}=~"{pattern}"' for attribute, pattern in where.items()]
    matchers += [f'{label(attribute)}!~"{pattern}"' for attribute, pattern in but.items()]
    return f"{name}{{{', '.join(matchers)}}}"


def total(expression: str, *by: str) -> str:
    """The sum by attributes."""
    return f"sum{_by(by)} ({expression})" if by else f"sum({expression})"


def per_second(metric: Metric, *by: str, where: Mapping[str, str] = _NOTHING, but: Mapping[str, str] = _NOTHING) -> str:
    """How often a counter counts."""
    return total(f"rate({selector(metric, where, but)}[$__rate_interval])", *by)


def per_minute(metric: Metric, *by: str, where: Mapping[str, str] = _NOTHING, but: Mapping[str, str] = _NOTHING) -> str:
    """How much a counter grows in a minute: unlike what comes between two points, it stays when somebody zooms."""
    return f"60 * {per_second(metric, *by, where=where, but=but)}"


def per_hour(metric: Metric, *by: str, where: Mapping[str, str] = _NOTHING) -> str:
    """How much a counter grows in an hour."""
    return f"3600 * {per_second(metric, *by, where=where)}"


def events(metric: Metric, *by: str, where: Mapping[str, str] = _NOTHING) -> str:
    """How often something rare happened around each point of a graph; of durations, how many were recorded.

    A series that begins with its first event has no increase by it, so all of one that was not there before, or that
    has begun anew, is new. What was there is looked for during an hour: after a single look that failed, all that a
    process has ever counted would seem to have come at once.
    """
    now = _counted(metric, where)
    return total(f"({now} - last_over_time({now}[1h] offset $__rate_interval) >= 0) or {now}", *by)


def events_in_range(metric: Metric, *, where: Mapping[str, str] = _NOTHING) -> str:
    """The same for panels of one value: how often it happened in the time range."""
    name, now = _counting(metric), _counted(metric, where)
    grown = total(f"increase({_matching(name, where)}[$__range])")
    first = total(f"min_over_time({now}[$__range]) unless last_over_time({now}[1h] offset $__range)")
    return f"({grown} or vector(0)) + ({first} or vector(0))"


def _counting(metric: Metric) -> str:
    return series(metric) + ("_count" if metric.kind == "histogram" else "")


def _counted(metric: Metric, where: Mapping[str, str]) -> str:
    return _matching("", where).replace("{", f'{{__name__="{_counting(metric)}", ', 1)


def in_range(metric: Metric, *by: str, where: Mapping[str, str] = _NOTHING, but: Mapping[str, str] = _NOTHING) -> str:
    """How much a counter grew in the time range, for panels of one value."""
    return total(f"increase({selector(metric, where, but)}[$__range])", *by)


def level(metric: Metric, *by: str, where: Mapping[str, str] = _NOTHING) -> str:
    """What a gauge says now, over all instances."""
    return total(selector(metric, where), *by)


def held(metric: Metric) -> str:
    """What caches hold now, by layer: in memory over all instances, on a disk as one says, since they share it."""
    own, by = selector(metric, but=_ON_DISK), (names.NAME, names.LAYER)
    return f"{total(own, *by)} or {shared(metric, *by, where=_ON_DISK)}"


def shared(metric: Metric, *by: str, where: Mapping[str, str] = _NOTHING) -> str:
    """A level that all processes of a job report alike."""
    return total(f"max by (job, {', '.join(map(label, by))}) ({selector(metric, where)})", *by)


def timed(where: Mapping[str, str], *by: str) -> str:
    """How many durations were recorded in a second: a count of loads and of I/O, and of nothing in memory."""
    return total(f"rate({_matching(_counting(names.DURATION), where)}[$__rate_interval])", *by)


def quantile(q: float, where: Mapping[str, str], by: str, metric: Metric = names.DURATION) -> str:
    """A quantile of durations in seconds, or of another histogram."""
    buckets = f"rate({selector(metric, where)}[$__rate_interval])"
    # Comparing leaves out what is no number, where nothing was timed.
    return f"histogram_quantile({q}, sum by (le, {label(by)}) ({buckets})) >= 0"


def within(seconds: str, where: Mapping[str, str], by: str) -> str:
    """The share of durations up to a bound of the histogram."""
    bound = {"le": seconds.replace(".", r"\\.") + (r"(\\.0)?" if "." not in seconds else "")}
    fast = total(f"rate({selector(names.DURATION, {**where, **bound})}[$__rate_interval])", by)
    return f"{fast} / ({timed(where, by)} > 0)"


def share(part: str, whole: str) -> str:
    """A ratio; nothing where there was nothing. `part` may be absent, which is 0."""
    return f"(({part}) or vector(0)) / ({whole} > 0)"


def share_by(part: str, whole: str) -> str:
    """A ratio for each value of the attributes that both are summed by."""
    return f"(({part}) or 0 * {whole}) / ({whole} > 0)"


def or_zero(expression: str, zero: str = ZERO) -> str:
    """A true zero where the metric has not begun yet; it is called `none` by the last of the labels summed by."""
    found = _LABELS.search(expression)
    assert found is not None, expression
    return f'{expression} or on () label_replace({zero}, "{found[1]}", "none", "", "")'


def or_zero_by_cache(expression: str) -> str:
    """A true zero for each cache for which it has not begun yet."""
    return f"{expression} or on ({label(names.NAME)}) 0 * {per_second(names.REQUESTS, names.NAME)}"


def breaker_open(*by: str) -> str:
    """1 while a breaker of a process is open, else 0."""
    labels = ", ".join(["job", "instance", *map(label, by)])
    return f"clamp_max(sum by ({labels}) ({selector(names.BREAKERS, OPENED)}), 1)"


def open_breakers() -> str:
    """How many are open now, over all processes."""
    return f"{level(names.BREAKERS, where=OPENED)} or {ZERO}"


def legend(*attributes: str) -> str:
    """The values of attributes."""
    return " ".join(f"{{{{{label(attribute)}}}}}" for attribute in attributes)


def _by(attributes: tuple[str, ...]) -> str:
    return f" by ({', '.join(label(attribute) for attribute in attributes)})"
