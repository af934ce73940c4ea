"""Every name that telemetry emits: instruments, units, attributes and their values.

OpenTelemetry has no convention for application caches, so the names carry the project's prefix. They live in this one
module: if a convention comes, it is one edit. A stored dashboard depends on them, so changing one is a breaking change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SCOPE: Final = "aurelis.cache"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
_P: Final = "aurelis.cache."

Kind = Literal["counter", "gauge", "histogram"]
"""`counter`: observable counter. `gauge`: observable up-down counter. `histogram`: recorded directly."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument: its name, kind, UCUM unit and what it counts."""

    name: str
    kind: Kind
    unit: str
    description: str


# Attributes. `name` is the configured name of the cache and is on every series.
NAME: Final = _P + "name"
RESULT: Final = _P + "result"
LAYER: Final = _P + "layer"
OPERATION: Final = _P + "operation"
REASON: Final = _P + "eviction.reason"
STORE_RESULT: Final = _P + "store.result"
BREAKER_STATE: Final = _P + "breaker.state"
REFRESH_REASON: Final = _P + "refresh.reason"
DIRECTION: Final = _P + "message.direction"
KIND: Final = _P + "message.kind"
GAP_REASON: Final = _P + "gap.reason"
RECOVERY_RESULT: Final = _P + "recovery.result"
JOURNAL: Final = _P + "journal"
WRITE_RESULT: Final = _P + "write.result"
TOKEN_TYPE: Final = _P + "token.type"
MODEL: Final = "gen_ai.request.model"  # of OpenTelemetry's conventions, that it agrees with what SDKs report
SIMILARITY_MODE: Final = _P + "similarity.mode"
SIMILARITY_RESULT: Final = _P + "similarity.result"
VERDICT: Final = _P + "similarity.verdict"
ERROR_TYPE: Final = "error.type"
# Attributes of spans only; they say the same as the parameters of the Cache-Status field (RFC 9211).
FWD: Final = _P + "fwd"
STORED: Final = _P + "stored"
COLLAPSED: Final = _P + "collapsed"
TTL: Final = _P + "ttl"
AGE: Final = _P + "age"

# Values of RESULT: the final result of one request.
HIT: Final = "hit"
MISS: Final = "miss"
STALE: Final = "stale"
REVALIDATED: Final = "revalidated"
BYPASS: Final = "bypass"

# Of an item that another load has brought, as `collapsed` says of a request.
JOINED: Final = "collapsed"
# A value of MODEL: the names beyond `MAX_MODELS`, which whoever calls may choose.
OTHER_MODELS: Final = "_OTHER"
MAX_MODELS: Final = 100
"""Models that a cache keeps apart in its counts."""

BREAKER_STATES: Final = ("open", "half_open", "closed")
GAP_REASONS: Final = ("hole", "connection", "subscription")
"""All of them: what is rare and bounded is reported from the beginning."""

# Values of LAYER.
L1: Final = "l1"
L2: Final = "l2"
L3: Final = "l3"
NEGATIVE: Final = "negative"  # a failure that is remembered
JOURNALED: Final = "journal"
"""In errors: what a write-behind has not written yet."""
STORE: Final = "store"
"""In errors: the data store behind it."""
SIMILARITY: Final = "similarity"
"""What a process has at hand to find similar prompts; no layer, and never what has answered a request."""

REQUESTS: Final = Metric(
    _P + "requests", "counter", "{request}", "Requests to the cache, each counted once with its final result."
)
ITEMS: Final = Metric(
    _P + "items", "counter", "{item}", "Items of requests that ask for several at once, each with its own result."
)
LOOKUPS: Final = Metric(_P + "lookups", "counter", "{lookup}", "Lookups in one layer.")
DURATION: Final = Metric(
    _P + "operation.duration",
    "histogram",
    "s",
    "Duration of operations: each that waits for I/O, 1 in 8 of the disk's gets, 1 in 128 hits in memory. Not a count.",
)
COALESCED: Final = Metric(
    _P + "coalesced",
    "counter",
    "{request}",
    "Requests that waited for the load of another instead of loading.",
)
REFRESHES: Final = Metric(
    _P + "refreshes",
    "counter",
    "{load}",
    "Loads for which no request counts as a miss: in the background, or whose callers got a stale value.",
)
WAITING: Final = Metric(_P + "fill.waiting", "gauge", "{request}", "Requests that wait now for the load of another.")
STORES: Final = Metric(_P + "stores", "counter", "{entry}", "Decisions whether to keep what was loaded or set.")
DELETES: Final = Metric(_P + "deletes", "counter", "{call}", "Calls of `delete`, whether there was something or not.")
EVICTIONS: Final = Metric(_P + "evictions", "counter", "{entry}", "Entries that a layer dropped by itself.")
ENTRIES: Final = Metric(_P + "entry.count", "gauge", "{entry}", "Entries held now.")
USAGE: Final = Metric(_P + "usage", "gauge", "By", "Bytes held now.")
LIMIT: Final = Metric(_P + "limit", "gauge", "By", "Bytes that may be held.")
ERRORS: Final = Metric(
    _P + "errors", "counter", "{error}", "Failures of a layer or of a frame that were handled and not raised."
)
BREAKER: Final = Metric(
    _P + "breaker.changes", "counter", "{change}", "Changes of state of the breaker in front of a layer."
)
MESSAGES: Final = Metric(
    _P + "backplane.messages", "counter", "{message}", "Messages of changes among processes, as they arrive here."
)
GAPS: Final = Metric(
    _P + "backplane.gaps",
    "counter",
    "{gap}",
    "Times when messages may have been lost, so that entries in memory are verified before they are used.",
)
PENDING: Final = Metric(
    _P + "recovery.pending", "gauge", "{intent}", "Changes that a shared layer has not been told yet."
)
RECOVERED: Final = Metric(_P + "recovery.told", "counter", "{intent}", "Changes that a shared layer was told later.")
WRITES_ACCEPTED: Final = Metric(
    _P + "write_behind.accepted", "counter", "{write}", "Writes that were acknowledged, since a journal has them."
)
WRITES_SETTLED: Final = Metric(
    _P + "write_behind.settled", "counter", "{write}", "Writes of a journal that wait no more, each counted once."
)
WRITE_RETRIES: Final = Metric(
    _P + "write_behind.retries", "counter", "{attempt}", "Attempts to write that failed and that another one follows."
)
WRITES_REPLAYED: Final = Metric(
    _P + "write_behind.replayed", "counter", "{write}", "Dead letters that were made to wait for the store again."
)
WRITES_WAITING: Final = Metric(
    _P + "write_behind.waiting", "gauge", "{key}", "Keys of a journal whose newest value is not in the store yet."
)
DEAD_LETTERS: Final = Metric(
    _P + "write_behind.dead_letter.count", "gauge", "{write}", "Writes of a journal that were given up."
)
SAVED_TOKENS: Final = Metric(
    _P + "saved.tokens", "counter", "{token}", "Tokens that a model did not have to produce or read again."
)
SAVED_UNKNOWN: Final = Metric(
    _P + "saved.unknown",
    "counter",
    "{request}",
    "Model calls answered from the cache whose usage is not known.",
)
SAVED_COST: Final = Metric(
    _P + "saved.cost", "counter", "{USD}", "US dollars that calls of models have cost whose answers were used again."
)
SAVED_UNPRICED: Final = Metric(
    _P + "saved.unpriced",
    "counter",
    "{request}",
    "Model calls answered from the cache whose cost is not known, although prices were asked for.",
)
SAVED_TIME: Final = Metric(_P + "saved.time", "counter", "s", "Time that origins took for answers now reused.")
SIMILARITY_LOOKUPS: Final = Metric(
    _P + "similarity.lookups", "counter", "{lookup}", "Searches for the answer to a similar prompt."
)
SIMILARITY_VERDICTS: Final = Metric(
    _P + "similarity.verdicts",
    "counter",
    "{verdict}",
    "Answers to similar prompts that were compared with what the model has answered.",
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
    DELETES,
    EVICTIONS,
    ENTRIES,
    USAGE,
    LIMIT,
    ERRORS,
    BREAKER,
    MESSAGES,
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
    SIMILARITY_LOOKUPS,
    SIMILARITY_VERDICTS,
)
"""All instruments, in the order in which they are documented."""

DURATION_BUCKETS: Final = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3,
    1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds: from a hit in memory to a slow model."""
