"""Responses over HTTP: what clients got, why responses are not kept, and each route."""

from typing import Final

from aurelis.cache.telemetry import names

from . import _queries as q
from ._records import PLAIN, RESULTS, Dashboard, Panel, Query, Row
from .overview import HIT_RATIO, HIT_RATIO_BY_CACHE, RATIO_STEPS, durations

STALE_STEPS: Final = ((None, "green"), (0.01, "yellow"), (0.05, "red"))
"""The last is where the alert is."""
STALE: Final = {names.RESULT: names.STALE}
MEANT: Final = {names.STALE_REASON: "revalidate|request"}
"""What is stale as it is meant: while it is revalidated, or as the client asked."""

# What FastAPI's own telemetry and that of ASGI report, by OpenTelemetry's conventions. The middleware names the route
# for hits too. These have no name of a cache.
_SERVER: Final = "http_server_request_duration_seconds"
_FAILED: Final = 'http_response_status_code=~"5.."'


def _named(expression: str) -> str:
    """Says what it is where a response came from no route; an empty name would be none in a legend."""
    return f'label_replace({expression}, "http_route", "no route", "http_route", "")'


def _served(*labels: str, matchers: str = "") -> str:
    matchers = f"{q.PROCESSES}, {matchers}" if matchers else q.PROCESSES
    return f"sum by ({', '.join(labels)}) (rate({_SERVER}_count{{{matchers}}}[$__rate_interval]))"


_STATS = (
    Panel(
        "Hit ratio",
        """Share of all requests in the time range that a stored entry answered; choose the caches of the middleware
        under Cache. If it is low: many misses are short lives or keys that differ for the same thing (ignore_query and
        sort_query of the rules help), many bypasses are requests with credentials. "Not kept, by reason" says what
        responses lack.""",
        (Query(HIT_RATIO, "Hit ratio"),),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=RATIO_STEPS,
    ),
    Panel(
        "Collapsed",
        """Requests in the time range that asked for what was being loaded already, and got the same response:
        `collapsed` in Cache-Status. Many are good under load. If the origin suffers from many equal requests and this
        is zero, their responses differ by a field in Vary, or may not be shared.""",
        (Query(f"round({q.in_range(names.COALESCED)}) or {q.ZERO}", "Collapsed"),),
        kind="stat",
        steps=PLAIN,
    ),
    Panel(
        "Stale for want of better",
        """Share of all requests in the time range that got something old since the app behind the cache failed or
        was too slow, or since another process takes long to load it. What is stale as it is meant, while it
        is revalidated or as the client asked, does not count. From one in twenty on there is an alert: see "Stale
        answers, by reason".""",
        (
            Query(
                q.share(q.in_range(names.REQUESTS, where=STALE, but=MEANT), q.in_range(names.REQUESTS)),
                "Stale for want of better",
            ),
        ),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=STALE_STEPS,
    ),
    Panel(
        "Bypassed",
        """Share of all requests in the time range that the cache had no part in: `fwd=bypass` in Cache-Status. These
        have credentials, or ask for it. If it grows, a new header or cookie makes requests private: see the rules.""",
        (
            Query(
                q.share(q.in_range(names.REQUESTS, where={names.RESULT: names.BYPASS}), q.in_range(names.REQUESTS)),
                "Bypassed",
            ),
        ),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=((None, "green"), (0.2, "yellow"), (0.5, "red")),
    ),
)

_CACHED = (
    Panel(
        "Requests by result",
        """Every request once: `hit`, `stale`, `revalidated` (the app said that what was there is still right), `miss`
        and `bypass`; Cache-Status says the same to the client. If misses grow without more requests, entries expire or
        are evicted too early, or somebody invalidates all the time.""",
        (Query(q.per_second(names.REQUESTS, names.RESULT), q.legend(names.RESULT)),),
        unit="reqps",
        stacked=True,
        colors=RESULTS,
    ),
    HIT_RATIO_BY_CACHE,
    Panel(
        "Not kept, by reason",
        """Responses per second that were loaded and not stored. `no_store`, `private`, `no_cache`: the app forbids it.
        `not_fresh`: it gives no lifetime, so write a rule with ttl. `set_cookie`, `authorization`, `cookie`: it would
        be somebody's own. `vary`: Vary has a star. `too_large`: raise max_body_bytes. `fenced`: it was invalidated
        while it was loaded. `incomplete`: the app did not end it. `layer_failed`: memory has it, and Redis or the disk
        did not take it, see "Failures" of the layers.""",
        (
            Query(
                q.or_zero(q.per_second(names.STORES, names.STORE_RESULT, but={names.STORE_RESULT: "stored"})),
                q.legend(names.STORE_RESULT),
            ),
        ),
        unit="ops",
        stacked=True,
    ),
    Panel(
        "Loads beside requests",
        """Loads per second for which no request counts as a miss. `early` and `revalidate` ran in the background,
        `validated` were answered by 304. `error` and `timeout` mean that the app failed or was too slow and a stale
        response took its place: look at the app.""",
        (Query(q.or_zero(q.per_second(names.REFRESHES, names.REFRESH_REASON)), q.legend(names.REFRESH_REASON)),),
        unit="ops",
        stacked=True,
    ),
    Panel(
        "Stale answers, by reason",
        """Requests per second that got something older than it should be. `revalidate` is as meant: it is loaded anew
        meanwhile. `error` and `timeout`: the app fails or is too slow, repair it. `lease`: another process loads it.
        `request`: clients ask for it by max-stale.""",
        (
            Query(
                q.or_zero(q.per_second(names.REQUESTS, names.STALE_REASON, where=STALE)), q.legend(names.STALE_REASON)
            ),
        ),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Bytes not fetched again",
        """Bytes per second of bodies that stored responses had, so that their origins did not send them. If it is small
        in spite of many hits, what is cached is small; look for large responses in "Not kept, by reason".""",
        (Query(q.or_zero(q.per_second(names.SAVED_IO, names.NAME)), q.legend(names.NAME)),),
        unit="Bps",
        stacked=True,
    ),
    Panel(
        "Collapsed and waiting",
        """Requests per second that share the load of another, and those that wait for one now. If many wait for long,
        the app is slow on something popular: refresh it early (early_beta), or serve it stale meanwhile.""",
        (
            Query(q.per_second(names.COALESCED, names.NAME), f"{q.legend(names.NAME)}: collapsed per second"),
            Query(q.level(names.WAITING, names.NAME), f"{q.legend(names.NAME)}: waiting now"),
        ),
        traced=True,
    ),
    Panel(
        "Latency of loads by cache",
        """How long the app behind the cache takes to answer a miss. If it grows, the app has trouble; hits do not feel
        it. Points are exemplars where a trace was recorded.""",
        durations(q.FILL, names.NAME),
        unit="s",
        traced=True,
    ),
)

_ROUTES = (
    Panel(
        "Requests by route",
        """Requests per second by route, hits included, as the framework's own telemetry reports them; of all caches and
        of what has none. Empty: the app has no instrumentation for HTTP, or one that gives the older names unless
        OTEL_SEMCONV_STABILITY_OPT_IN=http. The busiest routes are those where a rule earns most.""",
        (Query(_named(_served("http_route")), "{{http_route}}"),),
        unit="reqps",
        stacked=True,
        width=8,
    ),
    Panel(
        "Latency by route, p95",
        """95th percentile of the time to answer, hits and misses together. A route that is slow although its cache has
        hits waits for what is not cached: compare with "Not kept, by reason".""",
        (
            Query(
                _named(
                    "histogram_quantile(0.95, sum by (le, http_route) "
                    f"(rate({_SERVER}_bucket{{{q.PROCESSES}}}[$__rate_interval]))) >= 0"
                ),
                "{{http_route}}",
                exemplars=True,
            ),
        ),
        unit="s",
        width=8,
        traced=True,
    ),
    Panel(
        "Server errors by route",
        """Share of each route's responses with status 500 and above; `no route` is of those that no route answered,
        which may be few: see "Requests by route". With stale_if_error a rule serves the last good
        response instead. If it grows: look at the app's log and traces.""",
        (
            Query(
                _named(q.share_by(_served("http_route", matchers=_FAILED), _served("http_route"))),
                "{{http_route}}",
            ),
        ),
        unit="percentunit",
        steps=((None, "green"), (0.01, "red")),
        width=8,
        traced=True,
    ),
)

DASHBOARD: Final = Dashboard(
    uid="aurelis-cache-http",
    title="Aurelis Cache: HTTP responses",
    description="What clients get through the middleware and through transports, why responses are not kept, and how "
    "each route is doing.",
    rows=(
        Row(title="In the time range", panels=_STATS),
        Row(title="Responses", panels=_CACHED),
        Row(title="Routes, as the framework reports them", panels=_ROUTES),
    ),
)
