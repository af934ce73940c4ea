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
from aurelis.cache.http._messages import LoadedResponse, ResponseHead, StoredResponse, combine
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
        build_key: makes a full key from a category and an identifier.
        ttl: seconds for which an answer is served, may be infinite; 0 keeps nothing.
        honour_cache_control: keep no answer whose `Cache-Control` says `no-store`.

    Raises:
        ValueError: `ttl` is negative or NaN.
    """

    __slots__ = ("_build_key", "_honour_cache_control", "_ttl")

    def __init__(
        self, *, build_key: Callable[[str, str], str], ttl: float = 3600.0, honour_cache_control: bool = False
    ) -> None:
        if math.isnan(ttl) or ttl < 0:
            raise ValueError(f"ttl must be a number of seconds ≥ 0, not {ttl!r}")
        self._build_key = build_key
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
        return self._build_key(CATEGORY, digest.hexdigest())

    def on_lookup(self, request: ModelRequest, entry: Entry | None, now: float) -> Serve | Load:
        """Serve what is fresh."""
        if entry is None:
            return Load("miss")
        return Serve(entry) if now < entry.fresh_until else Load("stale")

    def on_response(self, request: ModelRequest, head: ResponseHead, response_time: float) -> Record | Pass:
        """Record what the call asked for; `Pass` with `ttl`, `status`, `media-type` or `no-store` else."""
        refusal = self._refusal(request, head)
        return Record() if refusal is None else Pass(refusal)

    def terminator(self, request: ModelRequest, head: ResponseHead) -> Terminator | None:
        """The watcher of the call's protocol if the response is a stream."""
        call = request.call
        return call.profile.terminator() if call.stream and _media_type(head) == _EVENT_STREAM else None

    def on_loaded(self, request: ModelRequest, loaded: LoadedResponse) -> Store | Discard:
        """Keep a whole and good answer.

        Discards for the reasons of `on_response`, and with `truncated`, `malformed`, `error`, `no-choices`,
        or the finish reason of an incomplete answer.
        """
        refusal = self._refusal(request, loaded.head)
        if refusal is not None:
            return Discard(refusal)
        if _is_cut_short(loaded):
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
            headers=replay_fields(loaded.head.headers),
            chunks=loaded.chunks,
            lifetime=self._ttl,
            source="model",
            input_tokens=summary.usage.input_tokens,
            output_tokens=summary.usage.output_tokens,
            load_seconds=loaded.seconds,
            route=loaded.route,
        )
        return Store(stored, fresh_for=self._ttl)

    def on_error(
        self, request: ModelRequest, entry: Entry | None, error: BaseException, now: float
    ) -> Reraise:
        """The callers get the failure as it was."""
        return Reraise()

    def _refusal(self, request: ModelRequest, head: ResponseHead) -> str | None:
        """Why a response with this head is not kept, if it is not."""
        if self._ttl == 0:
            return "ttl"
        if head.status != 200:
            return "status"
        if _media_type(head) != (_EVENT_STREAM if request.call.stream else _JSON):
            return "media-type"
        if self._honour_cache_control and _says_no_store(head):
            return "no-store"
        return None


def _media_type(head: ResponseHead) -> bytes:
    return combine(head.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()


def _says_no_store(head: ResponseHead) -> bool:
    directives = combine(head.headers).get(b"cache-control", b"").lower().split(b",")
    return any(directive.partition(b"=")[0].strip() == b"no-store" for directive in directives)


def _is_cut_short(loaded: LoadedResponse) -> bool:
    """Whether the body is not as long as announced; unknown where that was said of encoded bytes."""
    fields = combine(loaded.head.headers)
    length = fields.get(b"content-length")
    coding = fields.get(b"content-encoding", b"identity").strip().lower()
    if length is None or coding != b"identity" or b"transfer-encoding" in fields:
        return False
    return length.strip() != b"%d" % sum(map(len, loaded.chunks))


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
