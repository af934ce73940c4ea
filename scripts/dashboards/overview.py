"""What the caches save, how quick they are, and whether they are well."""

from typing import Final

from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import SAMPLE_MASK

from . import _queries as q
from ._records import MONEY, NONE_IS_GOOD, PLAIN, RESULTS, Dashboard, Panel, Query, Row

HIT_RATIO: Final = q.share(q.in_range(names.REQUESTS, where=q.HITS), q.in_range(names.REQUESTS))
RATIO_STEPS: Final = ((None, "red"), (0.5, "yellow"), (0.8, "green"))
HITS_TIMED: Final = SAMPLE_MASK + 1
"""Of so many hits in memory one is timed."""
FULL_STEPS: Final = ((None, "green"), (0.9, "yellow"))
TOKENS: Final = f"{q.in_range(names.SAVED_TOKENS)} or {q.ZERO}"
COST: Final = f"{q.in_range(names.SAVED_COST)} or {q.ZERO}"
SECONDS: Final = q.in_range(names.SAVED_TIME)
_AVOIDED: Final = (
    f"round(({q.in_range(names.REQUESTS, where=q.HITS)} or {q.ZERO}) + ({q.in_range(names.COALESCED)} or {q.ZERO}))"
)


def durations(operation: dict[str, str], by: str) -> tuple[Query, ...]:
    """Median and 95th percentile."""
    return tuple(
        Query(q.quantile(rank, operation, by), f"{said} {q.legend(by)}", exemplars=True)
        for rank, said in ((0.5, "p50"), (0.95, "p95"))
    )


HIT_RATIO_BY_CACHE: Final = Panel(
    "Hit ratio by cache",
    """Share of each cache's requests that a stored entry answered. A sudden drop: a deployment or an invalidation
    emptied the cache, or keys changed. A ratio that never rises: see whether responses may be stored at all.""",
    (
        Query(
            q.share_by(
                q.per_second(names.REQUESTS, names.NAME, where=q.HITS), q.per_second(names.REQUESTS, names.NAME)
            ),
            q.legend(names.NAME),
        ),
    ),
    unit="percentunit",
    maximum=1,
)

_STATS = (
    Panel(
        "Hit ratio",
        """Share of all requests in the time range that a stored entry answered. Bypassed requests count as requests.
        If it is low, see below which results the requests had: many misses mean short lives, too little memory or keys
        that differ for the same thing; many bypasses mean requests with credentials that no rule covers.""",
        (Query(HIT_RATIO, "Hit ratio"),),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=RATIO_STEPS,
        width=4,
        to="aurelis-cache-http",
    ),
    Panel(
        "Calls avoided",
        """Calls of the app, of a model or of another server that were not made in the time range: hits, and requests
        that waited for the load of another. If it stays near zero, the cache earns nothing: look at the hit ratio
        first.""",
        (Query(_AVOIDED, "Calls avoided"),),
        kind="stat",
        steps=PLAIN,
        width=4,
        to="aurelis-cache-http",
    ),
    Panel(
        "Tokens saved",
        """Tokens in the time range that a model neither had to read nor to write again. Zero is right where no model
        is called; where one is, see whether the cache of its calls gets hits, and whether its answers carry their
        usage.""",
        (Query(TOKENS, "Tokens saved"),),
        kind="stat",
        steps=PLAIN,
        width=4,
        to="aurelis-cache-models",
    ),
    Panel(
        "US dollars saved",
        """What the calls of models have cost in their time whose answers were used again in the time range. Zero
        although tokens are saved: the transport has no prices (cost=), or knows none of this model.""",
        (Query(COST, "US dollars saved"),),
        kind="stat",
        unit="currencyUSD",
        decimals=2,
        steps=MONEY,
        width=4,
        to="aurelis-cache-models",
    ),
    Panel(
        "Time saved",
        """How long origins once took for the answers that were reused in the time range: what callers and servers did
        not wait for or work on. If it is small in spite of many hits, what is cached was quick anyway.""",
        (Query(SECONDS, "Time saved"),),
        kind="stat",
        unit="s",
        steps=PLAIN,
        width=4,
        to="aurelis-cache-models",
    ),
    Panel(
        "Open breakers",
        """Layers that processes do without now, since they fail: requests go on, and what these layers would have
        answered goes to the origin. Above zero: is Redis reachable from all of them, is the disk full? "Failures and
        breaker" shows since when.""",
        (Query(q.open_breakers(), "Open breakers"),),
        kind="stat",
        steps=NONE_IS_GOOD,
        width=4,
        to="aurelis-cache-reliability",
    ),
)

_GRAPHS = (
    Panel(
        "Requests by result",
        """Every request once, with its final result, and for hits the layer that answered. A growing share of misses:
        entries expire or are evicted before they are used again. Bypass: requests that a rule may not serve from a
        shared entry, such as those with credentials.""",
        (Query(q.per_second(names.REQUESTS, names.RESULT, names.LAYER), q.legend(names.RESULT, names.LAYER)),),
        unit="reqps",
        stacked=True,
        colors=RESULTS,
    ),
    HIT_RATIO_BY_CACHE,
    Panel(
        "Latency of lookups by layer",
        f"""How long it takes to read from each layer: l1 is memory, of which one hit in {HITS_TIMED} is timed, l2 is
        Redis, l3 a disk. It is no count: rates come from the requests. If l1 is slow, the process is short of CPU; if
        l2 is, look at Redis, the network and the size of entries.""",
        durations(q.GET, names.LAYER),
        unit="s",
        logarithmic=True,
        to="aurelis-cache-layers",
        traced=True,
    ),
    Panel(
        "Latency of loads by cache",
        """How long the origin takes on a miss: the app behind the middleware, a model, or the function that is cached.
        If it grows, the origin has trouble, and what the cache keeps away from it matters more.""",
        durations(q.FILL, names.NAME),
        unit="s",
        to="aurelis-cache-reliability",
        traced=True,
    ),
    Panel(
        "Failures and breaker",
        """Failures of layers, around each point, that were handled and reached no caller, and how often a breaker
        opened in front of one. Anything above zero: see whether Redis is reachable and quick enough; "Failures" of the
        layers has the types. While a breaker is open, requests are answered from memory and the origin.""",
        (
            Query(q.or_zero_by_cache(q.events(names.ERRORS, names.NAME)), f"{q.legend(names.NAME)}: failures"),
            Query(
                q.or_zero_by_cache(q.events(names.BREAKER, names.NAME, where=q.OPENED)),
                f"{q.legend(names.NAME)}: breaker opened",
            ),
        ),
        to="aurelis-cache-layers",
    ),
    Panel(
        "Entries",
        """Entries that are held in memory now, over all instances. If it falls at once, something cleared the cache;
        if it stands at its bound while the hit ratio is low, allow more entries.""",
        (Query(q.level(names.ENTRIES, names.NAME, where=q.MEMORY), q.legend(names.NAME)),),
        width=6,
        to="aurelis-cache-layers",
    ),
    Panel(
        "Memory, of its limit",
        """Share of the bytes that entries may take in memory which they take now, over all instances. If it stays at
        the limit and the hit ratio is low, raise max_bytes or shorten lives.""",
        (
            Query(
                f"{q.level(names.USAGE, names.NAME, where=q.MEMORY)} "
                f"/ ({q.level(names.LIMIT, names.NAME, where=q.MEMORY)} > 0)",
                q.legend(names.NAME),
            ),
        ),
        unit="percentunit",
        maximum=1,
        steps=FULL_STEPS,
        width=6,
        to="aurelis-cache-layers",
    ),
    Panel(
        "Tokens saved per minute, by model",
        """What each model neither had to read nor to write again. A model that is missing answers with no usage, or
        its calls are not repeated; the metric saved.unknown tells the first from the second.""",
        (Query(q.or_zero(q.per_minute(names.SAVED_TOKENS, names.MODEL)), q.legend(names.MODEL)),),
        stacked=True,
        to="aurelis-cache-models",
    ),
    Panel(
        "US dollars saved per hour, by model",
        """What the calls have cost whose answers were used again, where a transport has prices (cost=). If it is zero
        in spite of hits, look at the metric saved.unpriced: no price is known for what was asked.""",
        (Query(q.or_zero(q.per_hour(names.SAVED_COST, names.MODEL)), q.legend(names.MODEL)),),
        unit="currencyUSD",
        stacked=True,
        to="aurelis-cache-models",
    ),
)

DASHBOARD: Final = Dashboard(
    uid="aurelis-cache-overview",
    title="Aurelis Cache: overview",
    description="What the caches of aurelis-cache do, in one look: what they avoid, how quick they are, and whether "
    "they are well.",
    rows=(Row(panels=_STATS), Row(panels=_GRAPHS)),
)
