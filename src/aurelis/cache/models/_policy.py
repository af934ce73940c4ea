"""The caching policy for model calls: the model rules alone decide, not those of HTTP.

Providers mark every answer as uncacheable or say nothing, so `Cache-Control`, `Vary` and `Set-Cookie` of the
response and the request's `Cache-Control` are not considered; one switch honours the response's `no-store`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from aurelis.cache import _tags
from aurelis.cache._call_options import NO_CALL_OPTIONS, CallOptions
from aurelis.cache._decisions import Bypass, Discard, Load, Pass, Record, Refuse, Reraise, Serve, Store
from aurelis.cache._entry import Entry
from aurelis.cache._shared_errors import is_timeout
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import (
    LoadedResponse,
    ResponseHead,
    StoredResponse,
    combine,
    date_of,
    http_date,
    is_complete,
    response_directives,
)
from aurelis.cache.typing import Terminator

from ._answer import FILTERED, INCOMPLETE, LENGTH, AnswerSummary, Dialect
from ._cost import BilledCall, Cost
from ._partition import selecting_fields
from ._pricing import pricing
from ._recognise import ModelCall
from ._replay import replay_fields

CATEGORY = "model"
"""Category of the keys of model calls."""

UNTERMINATED: Final = "unterminated"
"""Kind of a stream that its server ends without the protocol's own end, though all choices have finished."""
KEEPABLE: Final = frozenset({LENGTH, FILTERED, INCOMPLETE, UNTERMINATED})
"""Kinds of answers that are kept only where that is wanted."""


_NUMBER: Final = re.compile(rb"[0-9]{1,15}(?:\.[0-9]{0,15})?")
_MAX_FAILURE_BYTES: Final = 16 * 1024
"""Longer failures are not kept to be given again."""


@dataclass(slots=True)
class ModelRequest:
    """A model call as the rules see it.

    Attributes:
        url: as `clean_url` gives it.
        fields: header fields by lower-case name, lines of one name joined.
        call: what was recognised.
        partition: token that keeps this call's entries apart from others' (`partition`), empty where all
            share.
        options: what the caller wants for this call.
        variant: which of several answers to the call is wanted, ≥ 0; negative: something that is no answer.
        patience: seconds for which the caller waits for an answer to begin at most; `None`: as long as it takes.
        pool_patience: the same for a connection that others have.
    """

    url: str = field(repr=False)
    fields: Mapping[bytes, bytes] = field(repr=False)  # credentials are among them
    call: ModelCall
    partition: str = ""
    options: CallOptions = NO_CALL_OPTIONS
    variant: int = 0
    patience: float | None = None
    pool_patience: float | None = None


class ModelPolicy:
    """Rules for model calls: an `ExchangePolicy` over `ModelRequest`, `ResponseHead` and `LoadedResponse`.

    Args:
        keys: makes a full key of category and identifier: `CacheKeyBuilder.build_key`.
        ttl: seconds for which an answer is served, may be infinite; 0 keeps nothing.
        honour_cache_control: keep no answer whose `Cache-Control` says `no-store`.
        keep: kinds of answers that are kept although they are not whole: `length`, `filtered`, `incomplete`,
            `unterminated`.
        max_temperature: calls of a higher temperature pass by the cache; `None`: there is no limit.
        key_headers: names of more request fields that are part of the key.
        stale_while_revalidate: seconds ≥ 0 after its ttl in which an answer is still served while it is loaded anew.
        stale_if_error: the same where the provider fails. Like the one before and `negative_ttl` it is for calls whose
            own options say nothing else.
        throttle: seconds ≥ 0 after such a failure in which the answer is served without trying again.
        negative_ttl: seconds ≥ 0 at most for which a failure is given again, where there is no answer to serve.
        cost: says what an answer has cost that is stored.
        linger: seconds ≥ 0 for which a stream that lacks nothing but its terminator is read on for nobody.

    Raises:
        ConfigurationError: `keep` holds something else, `max_temperature` is no number ≥ 0, or `cost` gives no prices.
        MissingExtraError: `cost` is a price list that is not installed.
        TypeError: `keep` or `key_headers` is a string.
        ValueError: `ttl` is negative or NaN.
    """

    __slots__ = (
        *("_cost", "_honour_cache_control", "_keep", "_key_headers", "_keys", "_linger", "_max_temperature"),
        *("_negative_ttl", "_stale_if_error", "_stale_while_revalidate", "_throttle", "_ttl"),
    )

    def __init__(
        self,
        *,
        keys: Callable[[str, str], str],
        ttl: float = 3600.0,
        honour_cache_control: bool = False,
        keep: Collection[str] = (),
        max_temperature: float | None = None,
        key_headers: Collection[str] = (),
        stale_while_revalidate: float = 0.0,
        stale_if_error: float = 0.0,
        throttle: float = 0.0,
        negative_ttl: float = 0.0,
        cost: Cost = None,
        linger: float = 0.0,
    ) -> None:
        if math.isnan(ttl) or ttl < 0:
            raise ValueError(f"ttl must be a number of seconds ≥ 0, not {ttl!r}")
        for name, several in (("keep", keep), ("key_headers", key_headers)):
            if isinstance(several, str):
                raise TypeError(f"{name} must be several names; write {name}=[{several!r}]")
        unknown = sorted(set(keep) - KEEPABLE)
        if unknown:
            raise ConfigurationError(f"keep: {unknown[0]!r} is none of {', '.join(sorted(KEEPABLE))}")
        if max_temperature is not None and not _is_temperature(max_temperature):
            raise ConfigurationError(f"max_temperature must be a number ≥ 0, not {max_temperature!r}")
        self._cost = pricing(cost)
        self._keys = keys
        self._ttl = float(ttl)
        self._honour_cache_control = honour_cache_control
        self._keep = frozenset(keep)
        self._max_temperature = max_temperature
        self._stale_while_revalidate = stale_while_revalidate
        self._stale_if_error = stale_if_error
        self._throttle = throttle
        self._negative_ttl = negative_ttl
        self._linger = linger
        self._key_headers = tuple(sorted({name.lower().encode("ascii") for name in key_headers}))

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
            selecting_fields(request.fields, (*profile.key_fields, *self._key_headers)),
            request.options.namespace or "",
            request.variant,
        )
        # ascii() tells different parts apart whatever they contain, and alike on every version of Python
        digest = blake2b(ascii(parts).encode("ascii"), digest_size=16, person=b"model call 1")
        return self._keys(CATEGORY, digest.hexdigest())

    def on_lookup(self, request: ModelRequest, entry: Entry | None, now: float) -> Serve | Load | Bypass | Refuse:
        """Serve what is fresh, or stale where that is allowed, unless the caller wants something else."""
        mode = request.options.mode
        if mode == "bypass":
            return Bypass(detail="option")
        limit, temperature = self._max_temperature, request.call.temperature
        if limit is not None and temperature is not None and temperature > limit:
            return Bypass(detail="temperature")
        if mode == "refresh":
            return Load("request")
        if entry is not None:
            if now < entry.fresh_until:
                return Serve(entry)
            asks = mode != "only_if_cached"
            if now < entry.details.retry_at and self._may_stand_in(request, entry, now):
                return Serve(entry)  # it was tried a moment ago
            if now < entry.fresh_until + self._window(request):
                return Serve(entry, "revalidate" if asks else "")
        if mode == "only_if_cached":
            return Refuse()
        return Load("miss" if entry is None else "stale")

    def on_response(self, request: ModelRequest, head: ResponseHead, response_time: float) -> Record | Pass:
        """Record what the call asked for, and a failure that is to be given again.

        `Pass` with `ttl`, `status`, `media-type` or `no-store` else.
        """
        if head.status != 200 and self._is_negative(request, head, response_time):
            return Record(max_body_bytes=_MAX_FAILURE_BYTES)
        refusal = self._refusal(request, head)
        if refusal is not None:
            return Pass(refusal)
        # What is read on has a connection that another call may wait for, and must not fail for.
        most = math.inf if request.pool_patience is None else max(request.pool_patience, 0.0) / 2
        return Record(tags=_tags.tags(request.options.tags), linger=min(self._linger, most))

    def on_shared(self, request: ModelRequest, leader: ModelRequest, head: ResponseHead, response_time: float) -> None:
        """Whoever waits may have the answer: the same key means the same call by the same caller."""
        return

    def keeps(self, request: ModelRequest) -> bool:
        """Whether answers to the call are kept at all."""
        return self._ttl_of(request) > 0

    def conditions(self, request: ModelRequest, entry: Entry | None) -> tuple[()]:
        """Answers of models have no validators."""
        return ()

    def on_validated(self, request: ModelRequest, entry: Entry, loaded: LoadedResponse) -> None:
        """Never asked."""
        return

    def on_refused(self, request: ModelRequest, entry: Entry | None, head: ResponseHead, now: float) -> Serve | None:
        """What was stored where the provider has failed and that is allowed; otherwise its error as it was."""
        return self._stand_in(request, entry, now) if _has_failed(head) else None

    def on_indexed(self, request: ModelRequest, index: object, known: object) -> tuple[object, tuple[str, ...]]:
        """Never asked."""
        return index, ()

    def terminator(self, request: ModelRequest, head: ResponseHead) -> Terminator | None:
        """The watcher of the call's protocol if the response is a stream."""
        call = request.call
        if head.status != 200:
            return None
        media_type = _media_type(_fields(head))
        return call.profile.terminator(media_type, call.choices, self._keep) if call.stream else None

    def on_loaded(self, request: ModelRequest, loaded: LoadedResponse) -> Store | Discard:
        """Keep a whole and good answer.

        Discards for the reasons of `on_response`, and with `truncated`, `malformed`, `error`, `no-choices`, or the kind
        of an answer that is not whole: `length`, `filtered`, `incomplete`.
        """
        refusal = self._refusal(request, loaded.head)
        if refusal is not None:
            if self._is_negative(request, loaded.head, loaded.response_time) and _has_announced_length(loaded):
                remember_for = min(self._negative(request), _retry_after(loaded.head, loaded.response_time))
                return Discard(refusal, _failure(loaded, remember_for), remember_for)
            return Discard(refusal)
        # A stream says itself where it ends, and something may follow.
        if not request.call.stream and not _has_announced_length(loaded):
            return Discard("truncated")
        profile = request.call.profile
        if request.call.stream:
            summary = profile.read_stream(_media_type(_fields(loaded.head)), loaded.chunks)
        else:
            summary = profile.read_answer(b"".join(loaded.chunks))
        flaw = _flaw(summary, profile.dialect, self._keep)
        if flaw is not None:
            return Discard(flaw)
        ttl = self._ttl_of(request)
        stored = StoredResponse(
            status=loaded.head.status,
            headers=replay_fields(loaded.head),
            chunks=loaded.chunks,
            lifetime=ttl,
            source="model",
            input_tokens=None if loaded.part else summary.usage.input_tokens,
            output_tokens=None if loaded.part else summary.usage.output_tokens,
            load_seconds=loaded.seconds,
            route=loaded.route,
            pauses=_pauses(loaded.times),
            model=request.call.model or summary.model or "",
            cost=None if loaded.part else self._price(request, summary),
        )
        return Store(stored, fresh_for=ttl, stale_for=self._stale_for(request), tags=_tags.tags(request.options.tags))

    def on_error(self, request: ModelRequest, entry: Entry | None, error: BaseException, now: float) -> Serve | Reraise:
        """What was stored where that is allowed; otherwise the failure as it was."""
        if not isinstance(error, Exception):  # cancelled, or the process ends: the provider has not failed
            return Reraise()
        stand_in = self._stand_in(request, entry, now)
        if stand_in is not None:
            return stand_in
        return Reraise(self._negative(request), request.patience if is_timeout(error) else None)

    # What may be stale, and for how long a failure lasts

    def _window(self, request: ModelRequest) -> float:
        own = request.options.stale_while_revalidate
        return self._stale_while_revalidate if own is None else own

    def _stale_for(self, request: ModelRequest) -> float:
        own = request.options.stale_if_error
        return max(self._window(request), self._stale_if_error if own is None else own)

    def _negative(self, request: ModelRequest) -> float:
        own = request.options.negative_ttl
        return self._negative_ttl if own is None else own

    def _may_stand_in(self, request: ModelRequest, entry: Entry, now: float) -> bool:
        return now < entry.fresh_until + self._stale_for(request)

    def _stand_in(self, request: ModelRequest, entry: Entry | None, now: float) -> Serve | None:
        # Whoever asks for a new answer does not want the one that there is.
        if entry is None or request.options.mode == "refresh" or not self._may_stand_in(request, entry, now):
            return None
        return Serve(entry, retry_in=self._throttle)

    def _is_negative(self, request: ModelRequest, head: ResponseHead, response_time: float) -> bool:
        """Whether this is a failure that is to be given again."""
        return _has_failed(head) and min(self._negative(request), _retry_after(head, response_time)) > 0

    def _price(self, request: ModelRequest, summary: AnswerSummary) -> float | None:
        """US dollars; `None`: not known, or nobody asks."""
        if self._cost is None:
            return None
        call = request.call
        name, operation = call.profile.name, call.operation
        return self._cost(BilledCall(name, operation, request.url, call.model, summary.model or "", summary.usage))

    def _ttl_of(self, request: ModelRequest) -> float:
        ttl = request.options.ttl
        return min(self._ttl if ttl is None else ttl, request.call.longest)

    def _refusal(self, request: ModelRequest, head: ResponseHead) -> str | None:
        """Why a response with this head is not kept, if it is not."""
        if self._ttl_of(request) == 0:
            return "ttl"
        if head.status != 200:
            return "status"
        fields = _fields(head)
        if not _is_expected(request.call, _media_type(fields)):
            return "media-type"
        if self._honour_cache_control and response_directives(fields.get(b"cache-control")).no_store:
            return "no-store"
        return None


def _has_failed(head: ResponseHead) -> bool:
    """Whether the provider says that it cannot answer now. Other errors say something about the call."""
    return head.status >= 500 or head.status in (408, 429)


def _retry_after(head: ResponseHead, response_time: float) -> float:
    """Seconds after which the provider says that it may be asked again; infinite where it does not say it.

    Args:
        response_time: when the head came, seconds since the epoch.
    """
    fields = _fields(head)
    for name, scale in ((b"retry-after-ms", 1000), (b"retry-after", 1)):
        value = fields.get(name, b"").strip()
        if _NUMBER.fullmatch(value):
            return float(value) / scale
    instant = http_date(fields.get(b"retry-after"), response_time)  # RFC 9110 §10.2.3
    return math.inf if instant is None else max(instant - date_of(fields, response_time), 0.0)


def _failure(loaded: LoadedResponse, lifetime: float) -> StoredResponse:
    """A response that says that the provider has failed, as it is given again."""
    return StoredResponse(loaded.head.status, replay_fields(loaded.head), loaded.chunks, 0.0, lifetime, "failure")


def _is_temperature(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _fields(head: ResponseHead) -> Mapping[bytes, bytes]:
    return combine([(name.lower(), value) for name, value in head.headers])


def _media_type(fields: Mapping[bytes, bytes]) -> bytes:
    return fields.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _is_expected(call: ModelCall, media_type: bytes) -> bool:
    profile = call.profile
    if call.stream:
        return media_type in profile.streams
    return any(media_type.startswith(one) if one[-1:] == b"/" else media_type == one for one in profile.media_types)


def _has_announced_length(loaded: LoadedResponse) -> bool:
    """Whether the body is as long as announced; true where the announcement is of encoded bytes."""
    coding = _fields(loaded.head).get(b"content-encoding", b"identity")
    return coding.strip().lower() != b"identity" or is_complete(loaded.head, loaded.chunks)


def _flaw(summary: AnswerSummary, dialect: Dialect, keep: frozenset[str]) -> str | None:
    """What keeps an answer from being kept."""
    if summary.error:
        return "error"
    if not summary.complete and not (summary.finished and UNTERMINATED in keep):
        return "truncated"
    if summary.malformed:
        return "malformed"
    if not summary.answered:
        return "no-choices"
    kinds = map(dialect.kind, summary.finish_reasons)
    return next((kind for kind in kinds if kind is not None and kind not in keep), None)


def _pauses(times: tuple[float, ...]) -> tuple[int, ...]:
    """Whole milliseconds before each chunk; together they are as long as it took, up to one."""
    instants = [round(time * 1000) for time in times]
    return tuple(max(after - before, 0) for before, after in zip([0, *instants], instants, strict=False))
