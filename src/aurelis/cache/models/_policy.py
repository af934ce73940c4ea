"""The caching policy for model calls: the model rules alone decide, not those of HTTP.

Providers mark every answer as uncacheable or say nothing, so `Cache-Control`, `Vary` and `Set-Cookie` of the
response and the request's `Cache-Control` are not considered; one switch honours the response's `no-store`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from aurelis.cache import _tags
from aurelis.cache._call_options import NO_CALL_OPTIONS, CallOptions
from aurelis.cache._decisions import Bypass, Discard, Load, Pass, Record, Refuse, Reraise, Serve, Store
from aurelis.cache._entry import Entry
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import (
    LoadedResponse,
    ResponseHead,
    StoredResponse,
    combine,
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
        variant: which of several answers to the call is wanted, ≥ 0.
    """

    url: str
    fields: Mapping[bytes, bytes] = field(repr=False)  # credentials are among them
    call: ModelCall
    partition: str = ""
    options: CallOptions = NO_CALL_OPTIONS
    variant: int = 0


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
        cost: says what an answer has cost that is stored.

    Raises:
        ConfigurationError: `keep` holds something else, `max_temperature` is no number ≥ 0, or `cost` gives no prices.
        MissingExtraError: `cost` is a price list that is not installed.
        TypeError: `keep` or `key_headers` is a string.
        ValueError: `ttl` is negative or NaN.
    """

    __slots__ = ("_cost", "_honour_cache_control", "_keep", "_key_headers", "_keys", "_max_temperature", "_ttl")

    def __init__(
        self,
        *,
        keys: Callable[[str, str], str],
        ttl: float = 3600.0,
        honour_cache_control: bool = False,
        keep: Collection[str] = (),
        max_temperature: float | None = None,
        key_headers: Collection[str] = (),
        cost: Cost = None,
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
        """Serve what is fresh, unless the caller wants something else."""
        mode = request.options.mode
        if mode == "bypass":
            return Bypass(detail="option")
        limit, temperature = self._max_temperature, request.call.temperature
        if limit is not None and temperature is not None and temperature > limit:
            return Bypass(detail="temperature")
        if mode == "refresh":
            return Load("request")
        if entry is not None and now < entry.fresh_until:
            return Serve(entry)
        if mode == "only_if_cached":
            return Refuse()
        return Load("miss" if entry is None else "stale")

    def on_response(self, request: ModelRequest, head: ResponseHead, response_time: float) -> Record | Pass:
        """Record what the call asked for; `Pass` with `ttl`, `status`, `media-type` or `no-store` else."""
        refusal = self._refusal(request, head)
        return Record(tags=_tags.tags(request.options.tags)) if refusal is None else Pass(refusal)

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

    def on_indexed(self, request: ModelRequest, index: object, known: object) -> tuple[object, tuple[str, ...]]:
        """Never asked."""
        return index, ()

    def terminator(self, request: ModelRequest, head: ResponseHead) -> Terminator | None:
        """The watcher of the call's protocol if the response is a stream."""
        call = request.call
        return call.profile.terminator(_media_type(_fields(head)), call.choices) if call.stream else None

    def on_loaded(self, request: ModelRequest, loaded: LoadedResponse) -> Store | Discard:
        """Keep a whole and good answer.

        Discards for the reasons of `on_response`, and with `truncated`, `malformed`, `error`, `no-choices`, or the kind
        of an answer that is not whole: `length`, `filtered`, `incomplete`.
        """
        refusal = self._refusal(request, loaded.head)
        if refusal is not None:
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
            input_tokens=summary.usage.input_tokens,
            output_tokens=summary.usage.output_tokens,
            load_seconds=loaded.seconds,
            route=loaded.route,
            pauses=_pauses(loaded.times),
            model=request.call.model or summary.model or "",
            cost=self._price(request, summary),
        )
        return Store(stored, fresh_for=ttl, tags=_tags.tags(request.options.tags))

    def on_error(self, request: ModelRequest, entry: Entry | None, error: BaseException, now: float) -> Reraise:
        """The callers get the failure as it was."""
        return Reraise()

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
