"""The attributes of metrics and spans, and the values that they have."""

from __future__ import annotations

from typing import Final

from ._declared import Attribute

P: Final = "aurelis.cache."

# `name` is the configured name of the cache and is on every series and span.
NAME: Final = P + "name"
RESULT: Final = P + "result"
LAYER: Final = P + "layer"
OPERATION: Final = P + "operation"
STALE_REASON: Final = P + "stale.reason"
REASON: Final = P + "eviction.reason"
INVALIDATION_SCOPE: Final = P + "invalidation.scope"
INVALIDATION_MODE: Final = P + "invalidation.mode"
INVALIDATION_SOURCE: Final = P + "invalidation.source"
STORE_RESULT: Final = P + "store.result"
BREAKER_STATE: Final = P + "breaker.state"
REFRESH_REASON: Final = P + "refresh.reason"
DIRECTION: Final = P + "message.direction"
KIND: Final = P + "message.kind"
GAP_REASON: Final = P + "gap.reason"
RECOVERY_RESULT: Final = P + "recovery.result"
JOURNAL: Final = P + "journal"
WRITE_RESULT: Final = P + "write.result"
TOKEN_TYPE: Final = P + "token.type"
MODEL: Final = "gen_ai.request.model"  # of OpenTelemetry's conventions, that it agrees with what SDKs report
SIMILARITY_MODE: Final = P + "similarity.mode"
SIMILARITY_RESULT: Final = P + "similarity.result"
VERDICT: Final = P + "similarity.verdict"
ERROR_TYPE: Final = "error.type"
# Attributes of spans only; they say the same as the parameters of the Cache-Status field (RFC 9211).
FWD: Final = P + "fwd"
STORED: Final = P + "stored"
COLLAPSED: Final = P + "collapsed"
TTL: Final = P + "ttl"
AGE: Final = P + "age"
# And these have no counterpart there.
KEY_HASH: Final = P + "key.hash"
WRITES: Final = P + "write.count"

# Values of RESULT: the final result of one request.
HIT: Final = "hit"
MISS: Final = "miss"
STALE: Final = "stale"
REVALIDATED: Final = "revalidated"
BYPASS: Final = "bypass"

# Of an item that another load has brought, as `collapsed` says of a request.
JOINED: Final = "collapsed"
# A value of MODEL, ERROR_TYPE and LAYER: the names beyond `MAX_MODELS` and its like, which others may choose.
OTHER: Final = "_OTHER"
OTHER_MODELS: Final = OTHER
MAX_ERROR_TYPES: Final = 100
"""Types of errors that a cache keeps apart in its counts and durations."""
MAX_PLACES: Final = 100
"""Places that `CacheStats.record_hit` and its like keep apart in the counts of a cache."""
MAX_MODELS: Final = 100
"""Models that a cache keeps apart in its counts."""

# Values of LAYER.
L1: Final = "l1"
L2: Final = "l2"
L3: Final = "l3"
FILES: Final = "files"
"""The copies of a file cache."""
NEGATIVE: Final = "negative"  # a failure that is remembered
JOURNALED: Final = "journal"
"""In errors: what a write-behind has not written yet."""
STORE: Final = "store"
"""In errors: the data store behind it."""
SIMILARITY: Final = "similarity"
"""What a process has at hand to find similar prompts; no layer, and never what has answered a request."""
COMPRESSED: Final = "compressed"
"""In errors: what a `CompressedCache` has packed."""

# Values of STORE_RESULT that the layers give.
KEPT: Final = "stored"
LAYER_FAILED: Final = "layer_failed"
BEYOND_MEMORY: Final = "beyond_memory"
TOO_LARGE: Final = "too_large"
FENCED: Final = "fenced"

BREAKER_STATES: Final = ("open", "half_open", "closed")
GAP_REASONS: Final = ("hole", "connection", "subscription")
"""All of them: what is rare and bounded is reported from the beginning."""
STALE_REASONS: Final = ("revalidate", "error", "timeout", "lease", "request")
REFRESH_REASONS: Final = ("early", "revalidate", "timeout", "error")
"""Those of values; what is loaded over HTTP has further ones."""
STORE_RESULTS: Final = (KEPT, LAYER_FAILED, BEYOND_MEMORY, TOO_LARGE, FENCED, "skipped", "ttl", "unstorable")
"""Those of values; what is loaded over HTTP has further ones."""
SIMILARITY_RESULTS: Final = ("hit", "shadow", "explored", "refused", "none", "skipped")
VERDICTS: Final = ("correct", "false_hit", "unverified")
RECOVERY_RESULTS: Final = ("stored", "removed", "invalidated")
MESSAGE_KINDS: Final = ("keys", "tags", "soft", "beat")

_ALL: Final = (
    Attribute(NAME, "Configured name of the cache.", examples=("default", "models")),
    Attribute(
        RESULT,
        "How a request, an item of one, or a lookup in one layer ended.",
        {
            HIT: "a fresh entry was there",
            STALE: "an entry was there that is no longer fresh, and was used",
            REVALIDATED: "the origin has confirmed what was stored",
            MISS: "there was nothing to answer with",
            BYPASS: "the cache must not answer, store or share it",
            JOINED: "of an item: another load brings it, or the same request asks for it more than once",
            NEGATIVE: "of a lookup: a failure that is remembered",
            "error": "of a lookup: the layer failed",
            "skipped": "of a lookup: not tried, since the breaker was open",
        },
    ),
    Attribute(
        LAYER,
        "Where an entry is, or what failed.",
        {
            L1: "memory",
            L2: "Redis",
            L3: "the disk",
            FILES: "copies of files",
            NEGATIVE: "failures that are remembered",
            JOURNALED: "the journal of a write-behind",
            STORE: "the data store behind it",
            SIMILARITY: "what a process has at hand to find similar prompts",
            COMPRESSED: "what a `CompressedCache` has packed",
        },
        open=True,
    ),
    Attribute(
        STALE_REASON,
        "Why a request was answered with something that is no longer fresh.",
        {
            "revalidate": "within its window, while it is loaded anew",
            "error": "the load has failed, just now or a moment ago",
            "timeout": "the load takes longer than this caller waits",
            "lease": "another process loads it",
            "request": "the request takes a stale answer, and nothing is loaded for it",
        },
    ),
    Attribute(
        OPERATION,
        "What was done.",
        {
            "get": "look up",
            "set": "keep",
            "delete": "remove, or tell others of a change of a key",
            "clear": "invalidate everything",
            "invalidate": "invalidate tags",
            "scan": "one batch of keys for a pattern",
            "tags": "ask for the generations of tags that are new here",
            "acquire": "take a lease",
            "renew": "keep a lease, or a batch of a journal",
            "release": "give a lease back",
            "fill": "load from the origin",
            "write": "call the data store behind a write-behind",
            "append": "of a journal: take a write",
            "pending": "of a journal: look for what waits of a key",
            "take": "of a journal: take a batch",
            "settle": "of a journal: say what became of a batch",
            "backlog": "of a journal: count what waits",
            "letters": "of a journal: read dead letters",
            "replay": "of a journal: make dead letters wait again",
            "leave": "of a journal: give up what was taken",
            "embed": "of similar prompts: make a vector",
            "judge": "of similar prompts: compare two answers",
            "index": "of similar prompts: take note of one",
            "recorded": "a failure that the app itself has counted",
        },
    ),
    Attribute(
        REASON,
        "Why a layer dropped an entry.",
        {
            "capacity": "for want of room, the longest unused ones first",
            "expired": "its life was over",
            "invalidated": "on request, here or of another process, or since an invalidation has overtaken it",
        },
    ),
    Attribute(
        INVALIDATION_SCOPE,
        "What was named to be put out of date.",
        {
            "key": "one key",
            "tag": "one tag, category or identifier, however many entries have it",
            "pattern": "one pattern of keys",
            "everything": "all there is",
        },
    ),
    Attribute(
        INVALIDATION_MODE,
        "What becomes of what an invalidation meets.",
        {"hard": "it is gone", "soft": "it is stale"},
    ),
    Attribute(
        INVALIDATION_SOURCE,
        "Who asked for an invalidation.",
        {"local": "this process", "remote": "another process, whose message has come"},
    ),
    Attribute(
        STORE_RESULT,
        "Whether something was kept, and else why not.",
        {
            KEPT: "every layer took it",
            LAYER_FAILED: "a layer below memory, or the directory of a file cache, did not take it",
            BEYOND_MEMORY: "too large for memory; layers below have it",
            TOO_LARGE: "larger than what may be kept: `max_body_bytes`, or all that a cache may hold",
            FENCED: "something newer has overtaken the load",
            "skipped": "the load asked for it: `current_load().skip()`",
            "ttl": "its time to live is 0",
            "unstorable": "of a type that cannot be stored",
            "not_fresh": "the response has no lifetime and no validator",
            "no_store": "the response forbids it",
            "private": "the response is for one user",
            "no_cache": "to be validated each time, and it has no validator",
            "status": "its status is none that is kept, or not understood",
            "authorization": "the request had credentials",
            "cookie": "the request had a cookie, and nothing says that the response is for all",
            "set_cookie": "the response sets a cookie",
            "vary": "Vary names everything",
            "invalid_field": "a header field that is not allowed in HTTP",
            "events": "server-sent events that do not say for how long",
            "incomplete": "what came was not all of it",
            "tags": "its tags are too many or too long",
            "content_encoding": "in a content coding that cannot be undone",
            "media_type": "of a media type that is none of the model's protocol",
            "truncated": "the answer of a model ended too early",
            "malformed": "the answer of a model cannot be read",
            "error": "the answer of a model is an error",
            "no_choices": "the answer of a model has nothing in it",
            "length": "the answer of a model was cut at its longest length",
            "filtered": "the answer of a model was filtered",
        },
    ),
    Attribute(
        BREAKER_STATE,
        "State of a breaker.",
        {"open": "the layer is left alone", "half_open": "one call tries it", "closed": "the layer is used"},
    ),
    Attribute(
        REFRESH_REASON,
        "Why something was loaded for which no request counts as a miss.",
        {
            "early": "in the background, while it is still fresh",
            "revalidate": "in the background, since it is no longer fresh",
            "timeout": "its callers got something stale, as it takes too long",
            "error": "its callers got something stale, as it has failed",
            "validated": "the origin has confirmed what was stored",
            "items": "a further request to the provider for one call",
            "body": "the app was asked again for one request, whose body came late",
        },
    ),
    Attribute(DIRECTION, "Who sent a message.", {"sent": "this process", "received": "another one"}),
    Attribute(
        KIND,
        "What a message tells.",
        {
            "keys": "keys that were changed or removed",
            "tags": "tags that were invalidated",
            "soft": "tags whose entries are stale",
            "beat": "that its sender lives",
        },
    ),
    Attribute(
        GAP_REASON,
        "Why messages may have been lost.",
        {
            "hole": "a number did not arrive",
            "connection": "the connection ended, or nothing came for too long",
            "subscription": "a new subscription, before which something may have been missed",
        },
    ),
    Attribute(
        RECOVERY_RESULT,
        "What a shared layer was told later.",
        {
            "stored": "a value that was set meanwhile",
            "removed": "that a key is gone",
            "invalidated": "that a tag was invalidated",
        },
    ),
    Attribute(JOURNAL, "Name of a journal.", examples=("orders",)),
    Attribute(
        WRITE_RESULT,
        "What became of a write.",
        {
            "written": "the data store has it",
            "coalesced": "a newer one took its place before it was written",
            "dead": "it was given up",
        },
    ),
    Attribute(
        TOKEN_TYPE,
        "Which tokens of a model.",
        {"input": "read, its provider's own cache included", "output": "written, its reasoning included"},
    ),
    Attribute(
        MODEL,
        "Name of the model, as the call gives it, or else the answer; beyond a hundred of them `_OTHER`.",
        examples=("gpt-4o-mini",),
        foreign=True,
    ),
    Attribute(
        SIMILARITY_RESULT,
        "How a search for a similar prompt ended.",
        {
            "hit": "an answer was served",
            "shadow": "one would have been",
            "explored": "one would have been, and the model was asked to learn from it",
            "refused": "all that was similar enough did not pass the gate",
            "none": "nothing was similar enough",
            "skipped": "the prompt was empty or too long, or there was a failure",
        },
    ),
    Attribute(
        VERDICT,
        "What a comparison of answers to similar prompts has said.",
        {
            "correct": "the stored answer would have done",
            "false_hit": "it would have been wrong",
            "unverified": "it could not be told",
        },
    ),
    Attribute(
        SIMILARITY_MODE,
        "How similar prompts are used.",
        {"shadow": "not served", "verified": "served where comparisons allow it"},
    ),
    Attribute(
        ERROR_TYPE,
        "Name of an exception, `timeout`, or `frame_…` for a stored frame that was refused and counts as missing; "
        "beyond a hundred of them `_OTHER`.",
        examples=("timeout", "ConnectionError", "frame_check"),
        foreign=True,
    ),
    Attribute(FWD, "Why the request went to the origin: `fwd` of RFC 9211.", examples=("uri-miss", "stale")),
    Attribute(STORED, "Whether the response is stored.", type="boolean"),
    Attribute(COLLAPSED, "Whether the request shared the load of another one.", type="boolean"),
    Attribute(TTL, "Seconds of freshness that are left; negative: since when it is stale.", type="double"),
    Attribute(AGE, "Seconds since the origin made it.", type="int"),
    Attribute(
        KEY_HASH,
        "Keyed hash of the full key, only on request.",
        examples=("5f0c8a6d1b2e4f7390a1b2c3d4e5f607",),
    ),
    Attribute(WRITES, "Writes of one batch.", type="int"),
)
ATTRIBUTES: Final = {each.name: each for each in _ALL}
"""All attributes by name, in the order in which they are documented."""
