"""The caching policy for model calls: the model rules alone decide, not those of HTTP.

Providers mark every answer as uncacheable or say nothing, so `Cache-Control`, `Vary` and `Set-Cookie` of the
response and the request's `Cache-Control` are not considered; one switch honours the response's `no-store`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from aurelis.cache._decisions import Discard, Load, Pass, Record, Reraise, Serve, Store
from aurelis.cache._entry import Entry
from aurelis.cache.http import (
    LoadedResponse,
    ResponseHead,
    StoredResponse,
    combine,
    is_complete,
    response_directives,
)
from aurelis.cache.typing import Terminator

from ._answer import AnswerSummary
from ._partition import selecting_fields
from ._recognise import ModelCall
from ._replay import replay_fields

CATEGORY = "model"
"""Category of the keys of model calls."""

_JSON = b"application/json"
_EVENT_STREAM = b"text/event-stream"


@dataclass(slots=True)
class ModelRequest:
    """A model call as the rules see it.

    Attributes:
        url: as `clean_url` gives it.
        fields: header fields by lower-case name, lines of one name joined.
        call: what was recognised.
        partition: token that keeps this call's entries apart from others' (`partition`), empty where all
            share.
    """

    url: str
    fields: Mapping[bytes, bytes] = field(repr=False)  # credentials are among them
    call: ModelCall
    partition: str = ""


class ModelPolicy:
    """Rules for model calls: an `ExchangePolicy` over `ModelRequest`, `ResponseHead` and `LoadedResponse`.

    Args:
        keys: makes a full key of category and identifier: `CacheKeyBuilder.build_key`.
        ttl: seconds for which an answer is served, may be infinite; 0 keeps nothing.
        honour_cache_control: keep no answer whose `Cache-Control` says `no-store`.

    Raises:
        ValueError: `ttl` is negative or NaN.
    """

    __slots__ = ("_honour_cache_control", "_keys", "_ttl")

    def __init__(
        self, *, keys: Callable[[str, str], str], ttl: float = 3600.0, honour_cache_control: bool = False
    ) -> None:
        if math.isnan(ttl) or ttl < 0:
            raise ValueError(f"ttl must be a number of seconds ≥ 0, not {ttl!r}")
        self._keys = keys
        self._ttl = float(ttl)
        self._honour_cache_control = honour_cache_control

    def key(self, request: ModelRequest) -> str:
        """The key of the call: a digest, so nothing of the request can be read from it."""
        call = request.call
        profile = call.profile
        parts = (
            profile.name,
            profile.operation,
            request.url,
            request.partition,
            call.digest,
            selecting_fields(request.fields, profile.key_fields),
        )
        # ascii() tells different parts apart whatever they contain, and alike on every version of Python
        digest = blake2b(ascii(parts).encode("ascii"), digest_size=16, person=b"model call 1")
        return self._keys(CATEGORY, digest.hexdigest())

    def on_lookup(self, request: ModelRequest, entry: Entry | None, now: float) -> Serve | Load:
        """Serve what is fresh."""
        if entry is None:
            return Load("miss")
        return Serve(entry) if now < entry.fresh_until else Load("stale")

    def on_response(self, request: ModelRequest, head: ResponseHead, response_time: float) -> Record | Pass:
        """Record what the call asked for; `Pass` with `ttl`, `status`, `media-type` or `no-store` else."""
        refusal = self._refusal(request, head)
        return Record() if refusal is None else Pass(refusal)

    def on_shared(self, request: ModelRequest, leader: ModelRequest, head: ResponseHead, response_time: float) -> None:
        """Whoever waits may have the answer: the same key means the same call by the same caller."""
        return

    def conditions(self, request: ModelRequest, entry: Entry | None) -> tuple[()]:
        """Answers of models have no validators."""
        return ()

    def on_validated(self, request: ModelRequest, entry: Entry, loaded: LoadedResponse) -> None:
        """Never asked."""
        return

    def on_refused(self, request: ModelRequest, entry: Entry | None, head: ResponseHead, now: float) -> None:
        """The callers get the provider's error as it was."""
        return

    def terminator(self, request: ModelRequest, head: ResponseHead) -> Terminator | None:
        """The watcher of the call's protocol if the response is a stream."""
        call = request.call
        is_stream = call.stream and _media_type(_fields(head)) == _EVENT_STREAM
        return call.profile.terminator() if is_stream else None

    def on_loaded(self, request: ModelRequest, loaded: LoadedResponse) -> Store | Discard:
        """Keep a whole and good answer.

        Discards for the reasons of `on_response`, and with `truncated`, `malformed`, `error`, `no-choices`,
        or the finish reason of an incomplete answer.
        """
        refusal = self._refusal(request, loaded.head)
        if refusal is not None:
            return Discard(refusal)
        # A stream says itself where it ends, and something may follow.
        if not request.call.stream and not _has_announced_length(loaded):
            return Discard("truncated")
        profile = request.call.profile
        if request.call.stream:
            summary = profile.read_stream(loaded.chunks)
        else:
            summary = profile.read_answer(b"".join(loaded.chunks))
        flaw = _flaw(summary, profile.incomplete)
        if flaw is not None:
            return Discard(flaw)
        stored = StoredResponse(
            status=loaded.head.status,
            headers=replay_fields(loaded.head),
            chunks=loaded.chunks,
            lifetime=self._ttl,
            source="model",
            input_tokens=summary.usage.input_tokens,
            output_tokens=summary.usage.output_tokens,
            load_seconds=loaded.seconds,
            route=loaded.route,
        )
        return Store(stored, fresh_for=self._ttl)

    def on_error(self, request: ModelRequest, entry: Entry | None, error: BaseException, now: float) -> Reraise:
        """The callers get the failure as it was."""
        return Reraise()

    def _refusal(self, request: ModelRequest, head: ResponseHead) -> str | None:
        """Why a response with this head is not kept, if it is not."""
        if self._ttl == 0:
            return "ttl"
        if head.status != 200:
            return "status"
        fields = _fields(head)
        if _media_type(fields) != (_EVENT_STREAM if request.call.stream else _JSON):
            return "media-type"
        if self._honour_cache_control and response_directives(fields.get(b"cache-control")).no_store:
            return "no-store"
        return None


def _fields(head: ResponseHead) -> Mapping[bytes, bytes]:
    return combine([(name.lower(), value) for name, value in head.headers])


def _media_type(fields: Mapping[bytes, bytes]) -> bytes:
    return fields.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _has_announced_length(loaded: LoadedResponse) -> bool:
    """Whether the body is as long as announced; true where the announcement is of encoded bytes."""
    coding = _fields(loaded.head).get(b"content-encoding", b"identity")
    return coding.strip().lower() != b"identity" or is_complete(loaded.head, loaded.chunks)


def _flaw(summary: AnswerSummary, incomplete: frozenset[str]) -> str | None:
    """What keeps an answer from being kept."""
    if summary.error:
        return "error"
    if not summary.complete:
        return "truncated"
    if summary.malformed:
        return "malformed"
    if not summary.answered:
        return "no-choices"
    return next((reason for reason in summary.finish_reasons if reason in incomplete), None)
