"""The metrics: what each of them counts, when, and what to ask of it."""

from __future__ import annotations

from typing import Final

from . import _attributes as a
from ._attributes import P
from ._declared import Metric, Use

DURATION_BUCKETS: Final = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3,
    1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds: from a hit in memory to a slow model."""
LAG_BUCKETS: Final = (
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Seconds: from a Redis beside it to one that is hardly there."""
SIZE_BUCKETS: Final = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)
"""Bytes, powers of four."""

_STORED_IN: Final = (a.L1, a.L2, a.L3)
_HELD_IN: Final = (a.L1, a.L3, a.SIMILARITY, a.FILES)
_BY_MODEL: Final = Use(a.MODEL, only="where the model has a name")
_JOURNAL: Final = Use(a.JOURNAL)
# Values of OPERATION.
_OF_LAYERS: Final = (
    "get", "set", "delete", "clear", "invalidate", "scan", "tags", "acquire", "renew", "release",
)  # fmt: skip
_OF_JOURNALS: Final = ("append", "pending", "take", "settle", "backlog", "letters", "replay", "leave")

REQUESTS: Final = Metric(
    P + "requests",
    "counter",
    "{request}",
    "Requests to the cache, each counted once with its final result.",
    (
        Use(a.RESULT, (a.HIT, a.STALE, a.REVALIDATED, a.MISS, a.BYPASS)),
        Use(a.LAYER, (*_STORED_IN, a.FILES, a.NEGATIVE), "of a hit"),
        Use(a.STALE_REASON, only="of a stale one"),
    ),
    "A call of `get` or `get_or_compute`, a key of `get_many`, a GET or HEAD over HTTP, a call of a model, a copy of a "
    "file that is asked for; when it is answered. `set`, other methods, WebSockets and lifespan are none.",
    "sum by (aurelis_cache_result) (rate($[5m]))",
)
ITEMS: Final = Metric(
    P + "items",
    "counter",
    "{item}",
    "Items of requests that ask for several at once, each with its own result.",
    (
        Use(a.RESULT, (a.HIT, a.STALE, a.JOINED, a.MISS)),
        Use(a.LAYER, _STORED_IN, "of a hit"),
    ),
    "Each text of a call for several embeddings, when the call is over. Calls for one item are not counted here.",
    "sum by (aurelis_cache_result) (rate($[5m]))",
)
LOOKUPS: Final = Metric(
    P + "lookups",
    "counter",
    "{lookup}",
    "Lookups in one layer.",
    (
        Use(a.LAYER, (*_STORED_IN, a.FILES)),
        Use(a.RESULT, (a.HIT, a.STALE, a.NEGATIVE, a.MISS, "error", "skipped")),
    ),
    "Each look into a layer for one key; into memory one for each request, also for several items, and none for what "
    "must not be answered from there. In memory, `stale` and `negative` have answered.",
    'sum by (aurelis_cache_layer) (rate(${aurelis_cache_result="hit"}[5m])) '
    "/ sum by (aurelis_cache_layer) (rate($[5m]))",
)
DURATION: Final = Metric(
    P + "operation.duration",
    "histogram",
    "s",
    "Duration of operations: each that waits for I/O, 1 in 8 of the disk's gets, 1 in 128 hits in memory. Not a count.",
    (
        Use(a.OPERATION, (*_OF_LAYERS, "fill", "write", *_OF_JOURNALS)),
        Use(a.LAYER, (*_STORED_IN, a.FILES, a.JOURNALED, a.STORE), "unless it is a `fill`"),
        Use(a.ERROR_TYPE, only="of one that failed"),
    ),
    "Each operation that waits for I/O, when it is over; of reads of the disk one in 8, of hits in memory one in 128. "
    "Take rates from the requests.",
    "histogram_quantile(0.95, sum by (le, aurelis_cache_operation, aurelis_cache_layer) (rate($_bucket[5m])))",
    DURATION_BUCKETS,
)
COALESCED: Final = Metric(
    P + "coalesced",
    "counter",
    "{request}",
    "Requests that waited for the load of another instead of loading.",
    (),
    "A `miss` that is answered by what another one loads, or that leaves before there is an answer.",
    "sum by (aurelis_cache_name) (rate($[5m]))",
)
REFRESHES: Final = Metric(
    P + "refreshes",
    "counter",
    "{load}",
    "Loads for which no request counts as a miss: in the background, or whose callers got a stale value.",
    (Use(a.REFRESH_REASON),),
    "When such a load begins, or when its callers get something else.",
    "sum by (aurelis_cache_refresh_reason) (rate($[5m]))",
)
WAITING: Final = Metric(
    P + "fill.waiting",
    "gauge",
    "{request}",
    "Requests that wait now for the load of another.",
    (),
    "At each collection.",
    "max_over_time(sum($)[1h:])",
)
STORES: Final = Metric(
    P + "stores",
    "counter",
    "{entry}",
    "Decisions whether to keep what was loaded or set.",
    (Use(a.STORE_RESULT),),
    "Each value that is set or loaded, each response, each item and each copy of a file, when it is kept or not. An "
    "invalidation is none.",
    'sum by (aurelis_cache_store_result) (rate(${aurelis_cache_store_result!="stored"}[5m]))',
)
SIZE: Final = Metric(
    P + "entry.size",
    "histogram",
    "By",
    "Size of entries when they are stored: 1 in 61 of those in memory, 1 in 7 of those below. Not a count.",
    (Use(a.LAYER, (*_STORED_IN, a.FILES)),),
    "Key and value as a layer is given them, before they are compressed or encrypted: of stores in memory the first "
    "and then one in 61, below one in 7, of copies of files each. What memory gets from a lower layer is not counted.",
    "histogram_quantile(0.9, sum by (le, aurelis_cache_layer) (rate($_bucket[1h])))",
    SIZE_BUCKETS,
)
INVALIDATIONS: Final = Metric(
    P + "invalidations",
    "counter",
    "{invalidation}",
    "Keys, tags and patterns that were named to be put out of date, whatever there was of them.",
    (
        Use(a.INVALIDATION_SCOPE),
        Use(a.INVALIDATION_MODE),
        Use(a.INVALIDATION_SOURCE),
    ),
    "Each key, tag or pattern that is named, once, whether there was something or a layer failed; what follows from "
    "events, from HTTP and from writes of a strategy too. `remote` ones when their message comes: of keys also those "
    "that another process has set, since that takes them out of memory here; of patterns, and here of soft ones, the "
    "keys that were found. How many entries went is in `evictions`.",
    "sum by (aurelis_cache_invalidation_scope, aurelis_cache_invalidation_source) (rate($[5m]))",
)
EVICTIONS: Final = Metric(
    P + "evictions",
    "counter",
    "{entry}",
    "Entries that a layer dropped.",
    (
        Use(a.LAYER, (*_STORED_IN, a.SIMILARITY, a.FILES)),
        Use(a.REASON),
    ),
    "When an entry goes; not when a newer one takes its place. `invalidated` in memory: on request, by word of another "
    "process, or when it is found to be out of date. Below: keys that were removed one by one or by a pattern; what "
    "goes by tags and by `clear` is not looked at there, and ends with its life.",
    'sum by (aurelis_cache_layer) (rate(${aurelis_cache_eviction_reason="capacity"}[5m]))',
)
ENTRIES: Final = Metric(
    P + "entry.count",
    "gauge",
    "{entry}",
    "Entries held now.",
    (Use(a.LAYER, _HELD_IN),),
    "At each collection until it is closed, where a layer can tell; of the disk and of files as last seen, once for "
    "all caches of one name on one folder. All processes on it see the same.",
    'sum by (aurelis_cache_name) (${aurelis_cache_layer="l1"})',
)
USAGE: Final = Metric(
    P + "usage",
    "gauge",
    "By",
    "Bytes held now.",
    (Use(a.LAYER, _HELD_IN),),
    "At each collection until it is closed, where a layer can tell; of the disk and of files as last seen, once for "
    "all caches of one name on one folder. All processes on it see the same.",
    'sum by (aurelis_cache_name) (${aurelis_cache_layer="l1"})',
)
LIMIT: Final = Metric(
    P + "limit",
    "gauge",
    "By",
    "Bytes that may be held.",
    (Use(a.LAYER, _HELD_IN),),
    "At each collection until it is closed.",
    "sum by (aurelis_cache_layer) (aurelis_cache_usage_bytes) / sum by (aurelis_cache_layer) ($)",
)
ERRORS: Final = Metric(
    P + "errors",
    "counter",
    "{error}",
    "Failures of a layer, and stored frames that were refused.",
    (
        Use(a.LAYER, (a.L2, a.L3, a.FILES, a.JOURNALED, a.STORE, a.SIMILARITY, a.COMPRESSED)),
        Use(a.OPERATION, (*_OF_LAYERS, "write", *_OF_JOURNALS, "embed", "judge", "index", "recorded")),
        Use(a.ERROR_TYPE),
    ),
    "Each failure, when it is met. Reads and stores go on without the layer; whoever invalidates is told, too.",
    "sum by (aurelis_cache_layer, error_type) (increase($[1h]))",
)
BREAKER: Final = Metric(
    P + "breaker.changes",
    "counter",
    "{change}",
    "Changes of state of the breaker in front of a layer.",
    (
        Use(a.LAYER, (a.L2, a.L3, a.SIMILARITY)),
        Use(a.BREAKER_STATE),
    ),
    "When a breaker gets into this state.",
    'sum by (instance, aurelis_cache_layer) (increase(${aurelis_cache_breaker_state="open"}[1h]))',
)
BREAKERS: Final = Metric(
    P + "breaker.count",
    "gauge",
    "{breaker}",
    "Breakers that are in this state now.",
    (
        Use(a.LAYER, (a.L2, a.L3, a.SIMILARITY)),
        Use(a.BREAKER_STATE),
    ),
    "At each collection until it is closed. An open one stays so, when its pause is over, until somebody asks.",
    'sum by (aurelis_cache_layer, aurelis_cache_breaker_state) (${aurelis_cache_breaker_state!="closed"})',
)
MESSAGES: Final = Metric(
    P + "backplane.messages",
    "counter",
    "{message}",
    "Messages of changes among processes, as they arrive here.",
    (Use(a.DIRECTION), Use(a.KIND)),
    "When a message comes; one's own come back, and count as `sent`.",
    "sum by (aurelis_cache_message_direction, aurelis_cache_message_kind) (rate($[5m]))",
)
LAG: Final = Metric(
    P + "backplane.lag",
    "histogram",
    "s",
    "Time from when a process sends a sign of life until it comes back to it.",
    (),
    "Each sign of life of a process that comes back to itself, by its own clock; where it is not sure which one came "
    "back, none. What others tell takes as long.",
    "histogram_quantile(0.99, sum by (le) (rate($_bucket[15m])))",
    LAG_BUCKETS,
)
GAPS: Final = Metric(
    P + "backplane.gaps",
    "counter",
    "{gap}",
    "Times when messages may have been lost, so that entries in memory are verified before they are used.",
    (Use(a.GAP_REASON),),
    "When it is noticed.",
    "sum by (aurelis_cache_gap_reason) (increase($[1h]))",
)
PENDING: Final = Metric(
    P + "recovery.pending",
    "gauge",
    "{intent}",
    "Changes that a shared layer has not been told yet.",
    (),
    "At each collection until it is closed.",
    "sum by (aurelis_cache_name) ($)",
)
RECOVERED: Final = Metric(
    P + "recovery.told",
    "counter",
    "{intent}",
    "Changes that a shared layer was told later.",
    (Use(a.RECOVERY_RESULT),),
    "When the layer has taken it.",
    "sum by (aurelis_cache_recovery_result) (increase($[1h]))",
)
WRITES_ACCEPTED: Final = Metric(
    P + "write_behind.accepted",
    "counter",
    "{write}",
    "Writes that were acknowledged, since a journal has them.",
    (_JOURNAL,),
    "When the caller is told.",
    "sum by (aurelis_cache_journal) (rate($[5m]))",
)
WRITES_SETTLED: Final = Metric(
    P + "write_behind.settled",
    "counter",
    "{write}",
    "Writes of a journal that wait no more, each counted once.",
    (_JOURNAL, Use(a.WRITE_RESULT)),
    "When the journal has been told. Over all processes on it, what was accepted or replayed is settled or waits.",
    "sum by (aurelis_cache_write_result) (rate($[5m]))",
)
WRITE_RETRIES: Final = Metric(
    P + "write_behind.retries",
    "counter",
    "{attempt}",
    "Attempts to write that failed and that another one follows.",
    (_JOURNAL,),
    "When the attempt has failed.",
    "sum by (aurelis_cache_journal) (increase($[1h]))",
)
WRITES_REPLAYED: Final = Metric(
    P + "write_behind.replayed",
    "counter",
    "{write}",
    "Dead letters that were made to wait for the store again.",
    (_JOURNAL,),
    "When they wait again.",
    "sum by (aurelis_cache_journal) (increase($[1h]))",
)
WRITES_WAITING: Final = Metric(
    P + "write_behind.waiting",
    "gauge",
    "{key}",
    "Keys of a journal whose newest value is not in the store yet.",
    (_JOURNAL,),
    "At each collection, as last seen. All processes on a journal see the same: take the maximum, not the sum.",
    "max by (aurelis_cache_journal) ($)",
)
DEAD_LETTERS: Final = Metric(
    P + "write_behind.dead_letter.count",
    "gauge",
    "{write}",
    "Writes of a journal that were given up.",
    (_JOURNAL,),
    "At each collection, as last seen. All processes on a journal see the same: take the maximum, not the sum.",
    "max by (aurelis_cache_journal) ($)",
)
SAVED_TOKENS: Final = Metric(
    P + "saved.tokens",
    "counter",
    "{token}",
    "Tokens that a model did not have to produce or read again.",
    (Use(a.TOKEN_TYPE), _BY_MODEL),
    "Each hit on an answer of a model that says what it has used.",
    "sum by (gen_ai_request_model) (increase($[1d]))",
)
SAVED_UNKNOWN: Final = Metric(
    P + "saved.unknown",
    "counter",
    "{request}",
    "Model calls answered from the cache whose usage is not known.",
    (_BY_MODEL,),
    "Each hit on an answer of a model that does not say what it has used.",
    "sum by (gen_ai_request_model) (increase($[1d]))",
)
SAVED_COST: Final = Metric(
    P + "saved.cost",
    "counter",
    "{USD}",
    "US dollars that calls of models have cost whose answers were used again.",
    (_BY_MODEL,),
    "Each hit on an answer of a model whose cost is known, where a transport has prices.",
    "sum by (gen_ai_request_model) (increase($[1d]))",
)
SAVED_UNPRICED: Final = Metric(
    P + "saved.unpriced",
    "counter",
    "{request}",
    "Model calls answered from the cache whose cost is not known, although prices were asked for.",
    (_BY_MODEL,),
    "Each hit on an answer of a model without a price, where a transport has prices.",
    "sum by (gen_ai_request_model) (increase($[1d]))",
)
SAVED_TIME: Final = Metric(
    P + "saved.time",
    "counter",
    "s",
    "Time that origins took for answers now reused.",
    (_BY_MODEL,),
    "Each stored response that answers through the middleware or a transport: what its load took.",
    "sum by (aurelis_cache_name) (increase($[1d]))",
)
SAVED_IO: Final = Metric(
    P + "saved.io",
    "counter",
    "By",
    "Bytes of bodies that were used again and not sent by their origins.",
    (),
    "Each stored response that answers through the middleware or a transport: its body as it is stored, also where the "
    "client wants a part of it, or has it already; of a HEAD nothing.",
    "sum by (aurelis_cache_name) (rate($[5m]))",
)
SIMILARITY_LOOKUPS: Final = Metric(
    P + "similarity.lookups",
    "counter",
    "{lookup}",
    "Searches for the answer to a similar prompt.",
    (Use(a.SIMILARITY_RESULT),),
    "Each search, which begins where the exact prompt has no answer; when it is over.",
    "sum by (aurelis_cache_similarity_result) (rate($[5m]))",
)
SIMILARITY_VERDICTS: Final = Metric(
    P + "similarity.verdicts",
    "counter",
    "{verdict}",
    "Answers to similar prompts that were compared with what the model has answered.",
    (Use(a.VERDICT), Use(a.SIMILARITY_MODE)),
    "Each comparison, when it is over.",
    'sum(increase(${aurelis_cache_similarity_verdict="false_hit"}[1d])) '
    '/ sum(increase(${aurelis_cache_similarity_verdict!="unverified"}[1d]))',
)

METRICS: Final = (
    REQUESTS,
    ITEMS,
    LOOKUPS,
    DURATION,
    COALESCED,
    REFRESHES,
    WAITING,
    STORES,
    SIZE,
    INVALIDATIONS,
    EVICTIONS,
    ENTRIES,
    USAGE,
    LIMIT,
    ERRORS,
    BREAKER,
    BREAKERS,
    MESSAGES,
    LAG,
    GAPS,
    PENDING,
    RECOVERED,
    WRITES_ACCEPTED,
    WRITES_SETTLED,
    WRITE_RETRIES,
    WRITES_REPLAYED,
    WRITES_WAITING,
    DEAD_LETTERS,
    SAVED_TOKENS,
    SAVED_UNKNOWN,
    SAVED_COST,
    SAVED_UNPRICED,
    SAVED_TIME,
    SAVED_IO,
    SIMILARITY_LOOKUPS,
    SIMILARITY_VERDICTS,
)
"""All instruments, in the order in which they are documented."""
