"""Every name that telemetry emits: instruments, units, attributes and their values, spans.

OpenTelemetry has no convention for application caches, so the names carry the project's prefix. They are declared here
and nowhere else, with what they mean, and the documentation is made of that: if a convention comes, it is one edit. A
stored dashboard depends on them, so changing one is a breaking change.
"""

from __future__ import annotations

from typing import Final

from ._attributes import AGE as AGE
from ._attributes import ATTRIBUTES as ATTRIBUTES
from ._attributes import BEYOND_MEMORY as BEYOND_MEMORY
from ._attributes import BREAKER_STATE as BREAKER_STATE
from ._attributes import BREAKER_STATES as BREAKER_STATES
from ._attributes import BYPASS as BYPASS
from ._attributes import COLLAPSED as COLLAPSED
from ._attributes import COMPRESSED as COMPRESSED
from ._attributes import DIRECTION as DIRECTION
from ._attributes import ERROR_TYPE as ERROR_TYPE
from ._attributes import FENCED as FENCED
from ._attributes import FILES as FILES
from ._attributes import FWD as FWD
from ._attributes import GAP_REASON as GAP_REASON
from ._attributes import GAP_REASONS as GAP_REASONS
from ._attributes import HIT as HIT
from ._attributes import INVALIDATION_MODE as INVALIDATION_MODE
from ._attributes import INVALIDATION_SCOPE as INVALIDATION_SCOPE
from ._attributes import INVALIDATION_SOURCE as INVALIDATION_SOURCE
from ._attributes import JOINED as JOINED
from ._attributes import JOURNAL as JOURNAL
from ._attributes import JOURNALED as JOURNALED
from ._attributes import KEPT as KEPT
from ._attributes import KEY_HASH as KEY_HASH
from ._attributes import KIND as KIND
from ._attributes import L1 as L1
from ._attributes import L2 as L2
from ._attributes import L3 as L3
from ._attributes import LAYER as LAYER
from ._attributes import LAYER_FAILED as LAYER_FAILED
from ._attributes import MAX_ERROR_TYPES as MAX_ERROR_TYPES
from ._attributes import MAX_MODELS as MAX_MODELS
from ._attributes import MAX_PLACES as MAX_PLACES
from ._attributes import MESSAGE_KINDS as MESSAGE_KINDS
from ._attributes import MISS as MISS
from ._attributes import MODEL as MODEL
from ._attributes import NAME as NAME
from ._attributes import NEGATIVE as NEGATIVE
from ._attributes import OPERATION as OPERATION
from ._attributes import OTHER as OTHER
from ._attributes import OTHER_MODELS as OTHER_MODELS
from ._attributes import REASON as REASON
from ._attributes import RECOVERY_RESULT as RECOVERY_RESULT
from ._attributes import RECOVERY_RESULTS as RECOVERY_RESULTS
from ._attributes import REFRESH_REASON as REFRESH_REASON
from ._attributes import REFRESH_REASONS as REFRESH_REASONS
from ._attributes import RESULT as RESULT
from ._attributes import REVALIDATED as REVALIDATED
from ._attributes import SIMILARITY as SIMILARITY
from ._attributes import SIMILARITY_MODE as SIMILARITY_MODE
from ._attributes import SIMILARITY_RESULT as SIMILARITY_RESULT
from ._attributes import SIMILARITY_RESULTS as SIMILARITY_RESULTS
from ._attributes import STALE as STALE
from ._attributes import STALE_REASON as STALE_REASON
from ._attributes import STALE_REASONS as STALE_REASONS
from ._attributes import STORE as STORE
from ._attributes import STORE_RESULT as STORE_RESULT
from ._attributes import STORE_RESULTS as STORE_RESULTS
from ._attributes import STORED as STORED
from ._attributes import TOKEN_TYPE as TOKEN_TYPE
from ._attributes import TOO_LARGE as TOO_LARGE
from ._attributes import TTL as TTL
from ._attributes import VERDICT as VERDICT
from ._attributes import VERDICTS as VERDICTS
from ._attributes import WRITE_RESULT as WRITE_RESULT
from ._attributes import WRITES as WRITES
from ._declared import Attribute as Attribute
from ._declared import Kind as Kind
from ._declared import Metric as Metric
from ._declared import SpanKind as SpanKind
from ._declared import Use as Use
from ._metrics import BREAKER as BREAKER
from ._metrics import BREAKERS as BREAKERS
from ._metrics import COALESCED as COALESCED
from ._metrics import DEAD_LETTERS as DEAD_LETTERS
from ._metrics import DURATION as DURATION
from ._metrics import DURATION_BUCKETS as DURATION_BUCKETS
from ._metrics import ENTRIES as ENTRIES
from ._metrics import ERRORS as ERRORS
from ._metrics import EVICTIONS as EVICTIONS
from ._metrics import GAPS as GAPS
from ._metrics import INVALIDATIONS as INVALIDATIONS
from ._metrics import ITEMS as ITEMS
from ._metrics import LAG as LAG
from ._metrics import LAG_BUCKETS as LAG_BUCKETS
from ._metrics import LIMIT as LIMIT
from ._metrics import LOOKUPS as LOOKUPS
from ._metrics import MESSAGES as MESSAGES
from ._metrics import METRICS as METRICS
from ._metrics import PENDING as PENDING
from ._metrics import RECOVERED as RECOVERED
from ._metrics import REFRESHES as REFRESHES
from ._metrics import REQUESTS as REQUESTS
from ._metrics import SAVED_COST as SAVED_COST
from ._metrics import SAVED_IO as SAVED_IO
from ._metrics import SAVED_TIME as SAVED_TIME
from ._metrics import SAVED_TOKENS as SAVED_TOKENS
from ._metrics import SAVED_UNKNOWN as SAVED_UNKNOWN
from ._metrics import SAVED_UNPRICED as SAVED_UNPRICED
from ._metrics import SIMILARITY_LOOKUPS as SIMILARITY_LOOKUPS
from ._metrics import SIMILARITY_VERDICTS as SIMILARITY_VERDICTS
from ._metrics import SIZE as SIZE
from ._metrics import SIZE_BUCKETS as SIZE_BUCKETS
from ._metrics import STORES as STORES
from ._metrics import USAGE as USAGE
from ._metrics import WAITING as WAITING
from ._metrics import WRITE_RETRIES as WRITE_RETRIES
from ._metrics import WRITES_ACCEPTED as WRITES_ACCEPTED
from ._metrics import WRITES_REPLAYED as WRITES_REPLAYED
from ._metrics import WRITES_SETTLED as WRITES_SETTLED
from ._metrics import WRITES_WAITING as WRITES_WAITING

SCOPE: Final = "aurelis.cache"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

ANSWERED: Final = (
    Use(RESULT, (HIT, STALE, REVALIDATED, MISS, BYPASS)),
    Use(LAYER, (L1, L2, L3, NEGATIVE), "of what was there"),
    Use(STALE_REASON, only="of something stale"),
    Use(TTL, only="of what was there, where its life ends"),
    Use(AGE, only="of a stored response"),
    Use(FWD, only="of a miss or bypass over HTTP"),
    Use(KEY_HASH, only='of one key, with `span_keys="hash"`'),
)
"""What is said of each request, beside the cache's name: by its own span or, where it has none, by the current one."""
_FAILED: Final = Use(ERROR_TYPE, only="of one that failed")
_ONE_KEY: Final = Use(KEY_HASH, only='of one key, with `span_keys="hash"`')

SPANS: Final = (
    SpanKind(
        "get {name}",
        "One request that leaves memory, until it is answered. It links to the load of another that it has shared.",
        'Each request that leaves memory; with `spans="all"` each request.',
        (
            *ANSWERED,
            Use(COLLAPSED, only="of what could be waited for"),
            Use(STORED, only="of a load over HTTP"),
            _FAILED,
        ),
    ),
    SpanKind(
        "fill {name}",
        "One load. What the app or the client does for it is inside.",
        "Each time the origin is asked.",
        (_ONE_KEY, _FAILED),
    ),
    SpanKind(
        "revalidate {name}",
        "A refresh in the background: a trace of its own, with a link to the request that began it.",
        "Each refresh for which no request waits.",
        (Use(REFRESH_REASON, ("early", "revalidate")), _ONE_KEY, _FAILED),
    ),
    SpanKind(
        "write {name}",
        "One batch of a write-behind: a trace of its own.",
        "Each batch that is brought to the data store.",
        (Use(JOURNAL), Use(WRITES), Use(ERROR_TYPE, only="of one of which something was not taken")),
    ),
    SpanKind(
        "recover {name}",
        "An attempt to tell a shared layer what it could not be told: a trace of its own.",
        "Each attempt while something waits for that.",
        (_FAILED,),
    ),
    SpanKind(
        "compare {name}",
        "A comparison of answers to similar prompts: a trace of its own, with a link to the request that began it.",
        "Each comparison.",
        (_FAILED,),
    ),
)
"""All kinds of spans, in the order in which they are documented."""
