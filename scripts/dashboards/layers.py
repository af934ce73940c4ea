"""Each layer, what it holds, and what processes tell each other."""

from typing import Final

from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import DISK_SAMPLE

from . import _queries as q
from . import writing
from ._records import NONE_IS_GOOD, Dashboard, Panel, Query, Row
from .overview import FULL_STEPS, HITS_TIMED, durations

FAILED: Final = {names.RESULT: "error|skipped"}
"""Lookups that a layer did not answer."""
_ANSWERED: Final = {names.RESULT: "hit|stale|negative"}
_WORKS: Final = {names.OPERATION: "set|delete|clear|invalidate|scan|tags|acquire|renew|release"}


def _lookups(where: dict[str, str]) -> str:
    return q.per_second(names.LOOKUPS, names.LAYER, where=where)


_LAYERS = (
    Panel(
        "Lookups by layer and result",
        """How often each layer is asked, and how it answers. l1 is memory, l2 Redis, l3 a disk; a layer is asked when
        those before it have nothing. `error` and `skipped`: it fails, and after that is not tried for a while; see
        "Failures".""",
        (Query(q.per_second(names.LOOKUPS, names.LAYER, names.RESULT), q.legend(names.LAYER, names.RESULT)),),
        unit="ops",
        stacked=True,
    ),
    Panel(
        "Hit ratio by layer",
        """Share of each layer's lookups that found something. Low in l1 and high in l2: memory is too small, or there
        are many processes with little traffic each. Low in l2: what is stored there is used in one place only, or lives
        too short.""",
        (Query(q.share_by(_lookups(_ANSWERED), _lookups({})), q.legend(names.LAYER)),),
        unit="percentunit",
        maximum=1,
    ),
    Panel(
        "Latency of reads by layer",
        f"""How long a lookup takes in each layer; of hits in memory one in {HITS_TIMED} is timed, of reads of the disk
        one in {DISK_SAMPLE}. If l2 grows: Redis is busy, the network is slow, entries are large, or the event loop is
        blocked by something else.""",
        durations(q.GET, names.LAYER),
        unit="s",
        logarithmic=True,
        traced=True,
    ),
    Panel(
        "Latency of other operations",
        """95th percentile of writes, deletions and all else that waits for a layer. `acquire`, `renew` and `release`
        are of a lease, `tags` asks for generations that are new here. No data: there is memory only. If all grow, the
        server is slow; if one does, look at what is special about it.""",
        (
            Query(
                q.quantile(0.95, _WORKS, names.OPERATION),
                f"p95 {q.legend(names.OPERATION)}",
                exemplars=True,
            ),
        ),
        unit="s",
        traced=True,
    ),
    Panel(
        "Failures",
        """Failures of a layer or of a frame in it, around each point, which were handled and reached no caller.
        `timeout`: slow server or network, or a blocked event loop. Connection errors: is Redis up, is the
        password right? Frames: another version writes there, or something else does.""",
        (
            Query(
                q.or_zero(q.events(names.ERRORS, names.LAYER, names.ERROR_TYPE)),
                q.legend(names.LAYER, names.ERROR_TYPE),
            ),
        ),
        steps=NONE_IS_GOOD,
    ),
    Panel(
        "Breaker",
        """Red while a process does without a layer, since it has failed several times in a row. Nothing has to be
        restarted: a probe closes the breaker when the layer works again. One process only: its network or password.
        All of them: the server.""",
        (
            Query(
                q.or_zero(q.breaker_open(names.NAME, names.LAYER)),
                f"{{{{instance}}}} {q.legend(names.NAME, names.LAYER)}",
            ),
        ),
        kind="states",
        states={"0": ("closed", "green"), "1": ("open", "red")},
        steps=NONE_IS_GOOD,
        to="aurelis-cache-reliability",
    ),
    Panel(
        "Breaker changes",
        """Changes of state of breakers, around each point. `open` again and again: the layer works just long enough
        to be tried. Look at its load, and at timeouts that are too short for it.""",
        (
            Query(
                q.or_zero(q.events(names.BREAKER, names.LAYER, names.BREAKER_STATE)),
                q.legend(names.LAYER, names.BREAKER_STATE),
            ),
        ),
    ),
    Panel(
        "Lookups that failed, by layer",
        """Share of each layer's lookups that failed or were not tried. From one in a hundred on there is an alert. It
        costs loads, not answers.""",
        (Query(q.share_by(_lookups(FAILED), _lookups({})), q.legend(names.LAYER)),),
        unit="percentunit",
        steps=((None, "green"), (0.01, "red")),
        to="aurelis-cache-reliability",
    ),
)

_TALL: Final = 10
"""Rows of the grid for panels whose legends name each cache and layer."""
_SIZES = (
    Panel(
        "Entries by layer",
        """Entries that are held now, where a layer can tell: in memory over all instances, on disks in the fullest. If
        they fall at once, something cleared the cache; if they stand at their bound while the hit ratio is low, allow
        more (max_size).""",
        (Query(q.held(names.ENTRIES), q.legend(names.NAME, names.LAYER)),),
        height=_TALL,
    ),
    Panel(
        "Bytes, of their limit",
        """Bytes that are held now and may be held: in memory over all instances, on disks in the fullest. If usage
        stays at the limit and the hit ratio is low, raise max_bytes or shorten lives.""",
        (
            Query(q.held(names.USAGE), f"{q.legend(names.NAME, names.LAYER)}: used"),
            Query(q.held(names.LIMIT), f"{q.legend(names.NAME, names.LAYER)}: limit"),
        ),
        unit="bytes",
        logarithmic=True,  # otherwise limits leave no room for what is used
        dashed=".*: limit",
        height=_TALL,
    ),
    Panel(
        "How full",
        """Share of the bytes that are used. Full is no fault by itself: see "Evictions" for what has to go, and whether
        the hit ratio suffers.""",
        (
            Query(
                f"({q.held(names.USAGE)}) / (({q.held(names.LIMIT)}) > 0)",
                q.legend(names.NAME, names.LAYER),
            ),
        ),
        unit="percentunit",
        maximum=1,
        steps=FULL_STEPS,
        width=8,
        height=_TALL,
    ),
    Panel(
        "Evictions",
        """Entries per second that a layer dropped. `capacity`: for want of room; if it is much beside "Stores", entries
        go before they are used again. `expired` is the ordinary end. `invalidated`: see "Invalidations" for who asks
        for it.""",
        (
            Query(
                q.per_second(names.EVICTIONS, names.LAYER, names.REASON),
                q.legend(names.LAYER, names.REASON),
            ),
        ),
        unit="ops",
        width=8,
        height=_TALL,
    ),
    Panel(
        "Stores",
        """What is kept per second, by result. `layer_failed`: memory has it and a layer below did not take it, see
        "Failures". `beyond_memory` and `too_large`: raise max_bytes, or do not cache what is so large. `fenced`:
        something newer has overtaken it.""",
        (Query(q.or_zero(q.per_second(names.STORES, names.STORE_RESULT)), q.legend(names.STORE_RESULT)),),
        unit="ops",
        width=8,
        height=_TALL,
    ),
    Panel(
        "Invalidations",
        """Keys, tags and patterns per second that were named to be put out of date, here (`local`) or by another
        process (`remote`, of keys also those that it has set). Many beside few stores: somebody invalidates more than
        is used. `everything` or `pattern` again and again: use tags.""",
        (
            Query(
                q.or_zero(
                    q.per_second(
                        names.INVALIDATIONS,
                        names.INVALIDATION_SCOPE,
                        names.INVALIDATION_MODE,
                        names.INVALIDATION_SOURCE,
                    )
                ),
                q.legend(names.INVALIDATION_SCOPE, names.INVALIDATION_MODE, names.INVALIDATION_SOURCE),
            ),
        ),
        unit="ops",
    ),
    Panel(
        "Size of what is stored",
        """Median and 95th percentile of key and value, before they are compressed, of a sample of stores in each layer.
        If few large ones fill the memory, the hit ratio suffers: keep less in them, or compress them; what is larger
        than a mebibyte is slow in Redis.""",
        tuple(
            Query(q.quantile(rank, {}, names.LAYER, names.SIZE), f"{said} {q.legend(names.LAYER)}")
            for rank, said in ((0.5, "p50"), (0.95, "p95"))
        ),
        unit="bytes",
    ),
)

_CLUSTER = (
    Panel(
        "Word of changes",
        """Messages of changes per second among processes. `beat` says only that somebody is there. None received
        although others send: connections are gone, see "Gaps". Many of `keys`: somebody invalidates all the time.""",
        (
            Query(
                q.or_zero(q.per_second(names.MESSAGES, names.DIRECTION, names.KIND)),
                q.legend(names.DIRECTION, names.KIND),
            ),
        ),
        unit="ops",
        width=8,
    ),
    Panel(
        "How late word of changes comes",
        """How long a message takes from one process to the others: each times its own signs of life, which come back to
        it. Until word comes, memory may have the old value. If it grows: Redis or the network is slow, or a process is
        short of CPU. No data: no messages among processes, or none comes back.""",
        tuple(
            Query(q.quantile(rank, {}, names.NAME, names.LAG), f"{said} {q.legend(names.NAME)}")
            for rank, said in ((0.5, "p50"), (0.99, "p99"))
        ),
        unit="s",
        width=8,
    ),
    Panel(
        "Gaps",
        """Times when messages may have been lost. Nothing out of date is served for it: entries in memory are verified
        before they are used, a round trip each. `connection`: connections end, look at proxies and
        client-output-buffer-limit; `hole`: single messages; `subscription`: new connections, usual at a start.""",
        (Query(q.or_zero(q.events(names.GAPS, names.GAP_REASON)), q.legend(names.GAP_REASON)),),
        width=8,
    ),
    Panel(
        "Changes that a layer was not told",
        """Deletions and invalidations that wait in a process until Redis is back. They are lost if it ends, so bring
        Redis back before you restart anything.""",
        (Query(q.or_zero(q.level(names.PENDING, names.NAME)), q.legend(names.NAME)),),
        steps=NONE_IS_GOOD,
        width=8,
    ),
    Panel(
        "Changes told later",
        """Changes that a layer was told after it had been away, around each point, by what was done. A burst after
        an outage is right. If it goes on, the layer comes and goes.""",
        (Query(q.or_zero(q.events(names.RECOVERED, names.RECOVERY_RESULT)), q.legend(names.RECOVERY_RESULT)),),
        width=8,
    ),
    Panel(
        "Waiting for a load",
        """Requests that wait now for the load of another, over all instances. If they pile up, the origin is slow on
        something popular: refresh it early (early_beta) or serve it stale meanwhile.""",
        (Query(q.level(names.WAITING, names.NAME), q.legend(names.NAME)),),
        width=8,
    ),
)

DASHBOARD: Final = Dashboard(
    uid="aurelis-cache-layers",
    title="Aurelis Cache: layers and cluster",
    description="How memory, Redis and the disk answer, what they hold, whether they fail, and what processes tell "
    "each other.",
    rows=(
        Row(title="Layers", panels=_LAYERS),
        Row(title="What they hold", panels=_SIZES),
        Row(title="Among processes", panels=_CLUSTER),
        writing.ROW,
    ),
)
