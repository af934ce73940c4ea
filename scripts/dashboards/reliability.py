"""Objectives: how much may go wrong, how much does, and what to do about each alert."""

from typing import Final

from aurelis.cache.telemetry import names

from . import _queries as q
from ._records import NONE_IS_GOOD, PLAIN, Choice, Dashboard, Panel, Query, Row, Steps
from .http import MEANT, STALE
from .layers import FAILED
from .writing import of_journal

_RULES: Final = "It needs the recording rules and alerts of grafana/prometheus."
_ALLOWED: Final = "($allowed / 10000)"
_OBJECTIVES: Final = ("99 % : 100", "90 % : 1000", "95 % : 500", "99.5 % : 50", "99.9 % : 10")
"""What of ten thousand may be bad: whole numbers, which no way of putting them into a query changes."""
_LEFT: Final = ((None, "red"), (0, "yellow"), (0.25, "green"))
_BURN: Final = ((None, "green"), (1, "yellow"), (14.4, "red"))
"""1: the budget lasts as long as it is meant to; 14.4: one of thirty days is gone after two, a fiftieth in an hour."""


def _left(part: str, whole: str) -> str:
    """What is left of a budget in the time range; all of it where there was nothing."""
    return f"1 - (({q.share(part, whole)}) or {q.ZERO}) / {_ALLOWED}"


def _burn(part: str, whole: str) -> str:
    return f"(({q.share(part, whole)}) or {q.ZERO}) / {_ALLOWED}"


def _lasting(recorded: str, said: str) -> Query:
    """The burn rates of caches over five minutes or over an hour, whichever is less, from recorded ratios."""
    by = f"max by ({q.label(names.NAME)})"
    short, long = (f"{by} (cache:{recorded}:ratio_rate{window}{{{q.RECORDED}}})" for window in ("5m", "1h"))
    return Query(f"({short} < {long} or {long} <= {short}) / {_ALLOWED}", f"{q.legend(names.NAME)}: {said}")


def _stat(title: str, description: str, expression: str, steps: Steps, width: int = 5) -> Panel:
    return Panel(title, description, (Query(expression, title),), kind="stat", steps=steps, width=width)


_NOW = (
    _stat(
        "Alerts firing",
        f"""Alerts of the chosen caches that fire now. Below is which; docs/alerts.md says what to do about each.
        {_RULES} No data: they are not loaded.""",
        f'count(ALERTS{{alertstate="firing", alertname=~"AurelisCache.+", {q.RECORDED}}}) or {q.ZERO_BY_RULES}',
        NONE_IS_GOOD,
    ),
    _stat(
        "Open breakers",
        """Layers that processes do without now. Look at the layers: is Redis reachable from all of them, is the disk
        full? They close by themselves.""",
        q.open_breakers(),
        NONE_IS_GOOD,
    ),
    _stat(
        "Dead letters",
        """Writes that the stores of write-behinds have refused for good. They are kept: dead_letters() tells why, and
        replay_dead_letters() sends them again once the store is repaired.""",
        f"sum({of_journal(names.DEAD_LETTERS)}) or {q.ZERO}",
        NONE_IS_GOOD,
    ),
    _stat(
        "Changes not told",
        """Deletions and invalidations that wait in processes until a shared layer is back. Do not restart these
        processes before, or invalidate again afterwards.""",
        f"{q.level(names.PENDING)} or {q.ZERO}",
        NONE_IS_GOOD,
    ),
    _stat(
        "Processes",
        """Processes that report now. Fewer than there should be: one has ended, or is not scraped. Workers that share a
        port for metrics count as one and report each other's figures: give each its own.""",
        f"count(count by (job, instance) ({q.selector(names.REQUESTS, raw=True)}))",
        PLAIN,
        width=4,
    ),
)

_BUDGETS = (
    Panel(
        "Budget left: layers answer",
        """What is left of the failures that the objective allows to lookups in shared layers (l2, l3) in the time
        range. Below zero it is spent: hold back changes to Redis, the network and the disk, and see which failures
        there are. Without shared layers it is whole.""",
        (
            Query(
                _left(
                    q.in_range(names.LOOKUPS, where={**q.SHARED, **FAILED}), q.in_range(names.LOOKUPS, where=q.SHARED)
                ),
                "left",
            ),
        ),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=_LEFT,
        width=8,
        to="aurelis-cache-layers",
    ),
    Panel(
        "Budget left: answers are fresh",
        """What is left of the stale answers that the objective allows in the time range, without those that are meant:
        while they are revalidated, or as the client asked. Below zero it is spent: the origin fails or is too slow,
        repair it or give it longer time-outs.""",
        (Query(_left(q.in_range(names.REQUESTS, where=STALE, but=MEANT), q.in_range(names.REQUESTS)), "left"),),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=_LEFT,
        width=8,
        to="aurelis-cache-http",
    ),
    Panel(
        "Budget left: loads succeed",
        """What is left of the loads that the objective allows to fail in the time range. Below zero it is spent: the
        origin raises, or callers give up. stale_if_error serves the last good value instead.""",
        (
            Query(
                _left(
                    q.events_in_range(names.DURATION, where=q.FAILED_LOADS),
                    q.events_in_range(names.DURATION, where=q.FILL),
                ),
                "left",
            ),
        ),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=_LEFT,
        width=8,
        to="aurelis-cache-http",
    ),
    Panel(
        "Burn rate",
        """How many times faster than allowed the budgets are spent around each point: at 1 a budget lasts exactly, at
        14.4 that of thirty days is gone in two. It shows when something began and ended, and of which kind it is. A
        peak that is soon over costs little: "Burn rate that lasts" says whether to act.""",
        (
            Query(
                _burn(
                    q.per_second(names.LOOKUPS, where={**q.SHARED, **FAILED}),
                    q.per_second(names.LOOKUPS, where=q.SHARED),
                ),
                "layers answer",
            ),
            Query(
                _burn(q.per_second(names.REQUESTS, where=STALE, but=MEANT), q.per_second(names.REQUESTS)),
                "answers are fresh",
            ),
            Query(
                _burn(q.events(names.DURATION, where=q.FAILED_LOADS), q.events(names.DURATION, where=q.FILL)),
                "loads succeed",
            ),
        ),
        steps=_BURN,
    ),
    Panel(
        "Burn rate that lasts",
        f"""The same by cache, over five minutes or over an hour, whichever is less: what has only begun does not count,
        and what is over is gone soon. Above the red line a fiftieth of a month's budget goes in an hour: act now, by
        the alert that fires or the panel of the budget. Between the lines it can wait for working hours. Of a few
        requests in an hour a single failure is much. {_RULES}""",
        (
            _lasting("aurelis_cache_lookups_failed", "layers answer"),
            _lasting("aurelis_cache_stale", "answers are fresh"),
            _lasting("aurelis_cache_loads_failed", "loads succeed"),
        ),
        steps=_BURN,
    ),
)

_INDICATORS = (
    Panel(
        "Lookups that failed, by cache",
        """Share of the lookups of each cache, memory included, that failed or were not tried. Anything above zero: see
        "Failures" in the layers for the type of the error.""",
        (
            Query(
                q.share_by(
                    q.per_second(names.LOOKUPS, names.NAME, where=FAILED),
                    q.per_second(names.LOOKUPS, names.NAME),
                ),
                q.legend(names.NAME),
            ),
        ),
        unit="percentunit",
        steps=((None, "green"), (0.01, "red")),
        to="aurelis-cache-layers",
    ),
    Panel(
        "Loads that failed, by type",
        """Loads that ended with an exception, or were given up by all who waited, around each point, by type. The
        origin's own exception says more than the cache can: look at its log and traces.""",
        (
            Query(
                q.or_zero(q.events(names.DURATION, names.NAME, names.ERROR_TYPE, where=q.FAILED_LOADS)),
                q.legend(names.NAME, names.ERROR_TYPE),
            ),
        ),
        steps=NONE_IS_GOOD,
        traced=True,
    ),
    Panel(
        "Reads within 10 ms, by layer",
        """Share of the timed lookups in each layer that took 10 ms at most. If it falls for l2: Redis or the network is
        slow; for l1 too: the process is short of CPU, or its event loop is blocked.""",
        (Query(q.within("0.01", q.GET, names.LAYER), q.legend(names.LAYER)),),
        unit="percentunit",
        maximum=1,
        traced=True,
    ),
    Panel(
        "Loads within a second, by cache",
        """Share of the loads that took a second at most: what those wait for who get no hit. Models take longer by
        nature; look at how it changes. If it falls, the origin is getting slow.""",
        (Query(q.within("1", q.FILL, names.NAME), q.legend(names.NAME)),),
        unit="percentunit",
        maximum=1,
        traced=True,
    ),
    Panel(
        "Hit ratio over an hour, by cache",
        f"""What the origin is spared, steady enough to compare days. Less than half of the day before is an alert: what
        was deployed, do prompts or keys contain something new? {_RULES}""",
        (
            Query(
                f"avg by ({q.label(names.NAME)}) (cache:aurelis_cache_hits:ratio_rate1h{{{q.RECORDED}}})",
                q.legend(names.NAME),
            ),
        ),
        unit="percentunit",
        maximum=1,
    ),
    Panel(
        "Loads, as the rules record them",
        f"""How often the origin is asked per second: misses, less those that share a load, and refreshes; what bypasses
        the cache comes on top. If it grows while requests do not, the cache loses its effect. {_RULES}""",
        (
            Query(
                f"sum by ({q.label(names.NAME)}) (cache:aurelis_cache_loads:rate5m{{{q.RECORDED}}})",
                q.legend(names.NAME),
            ),
        ),
        unit="ops",
    ),
)

_ALERTS = (
    Panel(
        "Alerts",
        f"""Which alerts fire, and since when. docs/alerts.md has a section for each that says what to look at and what
        to do. {_RULES}""",
        (
            Query(
                q.or_zero(
                    f"max by (alertname, severity, {q.label(names.NAME)}) "
                    f'(ALERTS{{alertstate="firing", alertname=~"AurelisCache.+", {q.RECORDED}}})',
                    q.ZERO_BY_RULES,
                ),
                f"{{{{alertname}}}} {{{{severity}}}} {q.legend(names.NAME)}",
            ),
        ),
        kind="states",
        states={"0": ("none", "green"), "1": ("firing", "red")},
        steps=NONE_IS_GOOD,
        width=24,
    ),
)

DASHBOARD: Final = Dashboard(
    uid="aurelis-cache-reliability",
    title="Aurelis Cache: reliability",
    description="How much may go wrong by the objective, how much does, and which alerts fire.",
    rows=(
        Row(title="Now", panels=_NOW),
        Row(title="Budgets of the objective, in the time range", panels=_BUDGETS),
        Row(title="What they are made of", panels=_INDICATORS),
        Row(title="What fires", panels=_ALERTS),
    ),
    choices=(Choice(name="allowed", label="Objective", values=_OBJECTIVES),),
)
