"""Spans around what leaves memory, and what of OpenTelemetry's context the others need."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from hashlib import blake2b
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context, create_key, set_value
from opentelemetry.trace import (
    Link,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
)

from aurelis.cache._clock import SYSTEM_CLOCK
from aurelis.cache._forking import renew_in_children

from . import names
from ._bounded import is_type
from ._switch import SWITCH
from ._unheard import unheard

Attributes = dict[str, str | bool | int | float]
Made = Span | None
"""A span, where there is one."""

get_current_span = trace.get_current_span
"""For the hot path, which cannot afford a frame around it."""


def _reader_of_context() -> Callable[[], Mapping[str, object]]:
    """`get_current` of OpenTelemetry without its two frames, which cost as much as all other counting of a hit."""
    variable = getattr(getattr(otel_context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    return variable.get if isinstance(variable, ContextVar) else otel_context.get_current


get_current_context = _reader_of_context()
"""Likewise. It is empty where nobody has set anything, so there is no span; this costs a tenth of asking for one."""


class Spans:
    """The spans of one cache.

    Args:
        wanted: of `CacheConfig.spans`.
        attributes: whether what became of a request that waited for nothing is set on the current span.
        hash_key: of the hashes that stand for keys; `None`: nothing does.
    """

    def __init__(
        self, name: str, tracer: Tracer, wanted: str, *, attributes: bool, hash_key: bytes | None = None
    ) -> None:
        self._name = name
        self._tracer = tracer
        self._wanted = wanted != "none"
        self._hash_key = hash_key
        self.on_hit = wanted == "all"
        self.attributes = attributes

    # Spans

    def around(self, verb: str, key: str | None = None) -> AbstractContextManager[Made]:
        """A span `{verb} {cache name}` around I/O, or `None` where nothing would record it.

        Without an SDK, and below a parent that is not sampled, no span is made at all: making one that records nothing
        costs as much as a hit in memory twenty times over.

        Args:
            key: that it is about; `None`: several.
        """
        if not self._wanted or not _would_record():
            return _NO_SPAN
        span = self._start(verb, key)
        return _NO_SPAN if span is None else self._lived(span, current_in(span))

    def open(self, verb: str, key: str | None = None) -> Span | None:
        """The same for what begins and ends in different calls: `current_in` and `close_span` go with it."""
        return self._start(verb, key) if self._wanted and _would_record() else None

    def apart(
        self, verb: str, started_by: object, key: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Made]:
        """A span for work in the background: the first of a trace of its own.

        Inside nothing is left of the trace and the baggage in which it begins, also where no span is made. Whether the
        new trace is sampled is for the sampler, whatever it has said of the request.

        Args:
            started_by: what `here` has said where the work was begun, to link to; `None`: nothing.
            attributes: beside the cache's name.
        """
        nothing = Context()
        if not self._wanted or not _has_provider():
            return _attached(nothing) if get_current_context() else _NO_SPAN
        span = self._start(verb, key, nothing, started_by, attributes)
        return _attached(nothing) if span is None else self._lived(span, _attached(_inside(span, nothing)))

    def here(self) -> object:
        """Where something in the background is begun: for `apart`; `None`: there is no span."""
        return current_span_context() if self._wanted and get_current_context() else None

    def lose(self, span: Span, error_type: str) -> None:
        """What `open` began was dropped, and ends now. Takes no lock: a garbage collector calls this.

        It is told by whoever makes the next span, for any cache, or by `end_lost`.
        """
        _LOST.spans.append((span, error_type, int(SYSTEM_CLOCK.time() * 1e9)))

    def end_lost(self) -> None:
        """End what was dropped."""
        while _LOST.spans:
            try:
                span, error_type, at = _LOST.spans.popleft()
            except IndexError:  # another thread has it
                return
            close_span(span, error_type, at)

    @contextlib.contextmanager
    def _lived(self, span: Span, inside: AbstractContextManager[object]) -> Iterator[Span]:
        error_type: str | None = None
        dropped = False
        try:
            with inside:
                yield span
        except GeneratorExit as error:
            # A task that its event loop has dropped: the garbage collector is here, perhaps inside of a lock of the
            # span processor that is to be told.
            self.lose(span, type(error).__qualname__)
            dropped = True
            raise
        except BaseException as error:
            error_type = type(error).__qualname__
            raise
        finally:
            if not dropped:
                close_span(span, error_type)

    def _start(
        self,
        verb: str,
        key: str | None,
        context: Context | None = None,
        started_by: object = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Made:
        if _LOST.spans:
            self.end_lost()
        try:
            return (SWITCH.tracer or self._tracer).start_span(
                f"{verb} {self._name}",
                context,
                SpanKind.INTERNAL,
                {names.NAME: self._name, **(attributes or {}), **self.named(key)},
                [Link(started_by)] if isinstance(started_by, SpanContext) else None,
            )
        except Exception as error:  # noqa: BLE001  # of a sampler or a span processor, whoever has made it
            unheard(error)
            return None

    # Attributes

    def note(
        self,
        result: str,
        layer: str = "",
        key: str | None = None,
        *,
        ttl: float = math.inf,
        age: int | None = None,
        fwd: str = "",
        stale: str = "",
    ) -> None:
        """Tell the current span what became of a request that waited for nothing. Arguments as those of `described`.

        Unless that is one of ours: it is about another request, within whose load this one is.
        """
        span = get_current_span() if self.attributes and SWITCH.on else None
        if span is not None and span.is_recording() and not _is_apart(span):
            told = described(result, layer, ttl=ttl, age=age, fwd=fwd, stale=stale)
            tell(span, {names.NAME: self._name, **told, **self.named(key)})
        if self.on_hit:
            with self.around("get", key) as own:
                if own is not None:
                    tell(own, described(result, layer, ttl=ttl, age=age, fwd=fwd, stale=stale))

    def named(self, key: str | None) -> dict[str, str]:
        """The attribute that stands for a key; empty where none shall."""
        if self._hash_key is None or key is None:
            return {}
        # Apart from the hashes of credentials, which are made with the same key.
        source = key.encode("utf-8", "surrogatepass")
        return {names.KEY_HASH: blake2b(source, key=self._hash_key, digest_size=16, person=b"span-key").hexdigest()}


def described(
    result: str,
    layer: str = "",
    *,
    ttl: float = math.inf,
    age: int | None = None,
    fwd: str = "",
    collapsed: bool | None = None,
    stored: bool | None = None,
    stale: str = "",
) -> Attributes:
    """What a span says of a request. What is left out is not said.

    Args:
        layer: that has answered.
        ttl: seconds of freshness left, negative when stale.
        age: seconds.
        fwd: why it went forward, a token of RFC 9211 §2.2.
        stale: why it got something stale.
    """
    attributes: Attributes = {names.RESULT: result}
    if layer:
        attributes[names.LAYER] = layer
    if stale:
        attributes[names.STALE_REASON] = stale
    if math.isfinite(ttl):
        attributes[names.TTL] = round(ttl, 3)
    if age is not None:
        attributes[names.AGE] = age
    if fwd:
        attributes[names.FWD] = fwd
    if collapsed is not None:
        attributes[names.COLLAPSED] = collapsed
    if stored is not None:
        attributes[names.STORED] = stored
    return attributes


def current_in(span: Span | None) -> AbstractContextManager[object]:
    """Inside, the span is the current one; `None` changes nothing."""
    if span is None:
        return _NO_SPAN
    return _attached(_inside(span))


def _inside(span: Span, context: Context | None = None) -> Context:
    return set_value(_OURS, span, trace.set_span_in_context(span, context))


def tell(span: Span, attributes: Attributes) -> None:
    """Set attributes of a span."""
    try:
        span.set_attributes(attributes)
    except Exception as error:  # noqa: BLE001  # a span of any tracer
        unheard(error)


def mark_failed(span: Made, error_type: str) -> None:
    """Say of a span that it failed."""
    if span is None:
        return
    # The type only: the text of a foreign exception may carry what must not leave the process, and so may the name of a
    # type that was made at run time.
    tell(span, {names.ERROR_TYPE: error_type if is_type(error_type) else names.OTHER})
    try:
        span.set_status(Status(StatusCode.ERROR))
    except Exception as error:  # noqa: BLE001  # likewise
        unheard(error)


def close_span(span: Made, error_type: str | None, at: int | None = None) -> None:
    """End what `Spans.open` began. `at`: nanoseconds since the epoch; `None`: now."""
    if span is None:
        return
    if error_type is not None:
        mark_failed(span, error_type)
    try:
        span.end(at)
    except Exception as error:  # noqa: BLE001  # of a span processor, whoever has made it
        unheard(error)


@contextlib.contextmanager
def _attached(context: Context) -> Iterator[None]:
    token: object = otel_context.attach(context)
    try:
        yield
    except GeneratorExit:
        # A task that its event loop has dropped ends wherever the garbage collector comes, so perhaps in the context of
        # another one, where OpenTelemetry would complain of this token in the log. Its own context is gone then.
        if isinstance(token, Token):
            with contextlib.suppress(ValueError):
                token.var.reset(token)
            token = None
        raise
    finally:
        if token is not None:
            otel_context.detach(token)  # type: ignore[arg-type]  # what `attach` gave


class _Lost:
    """Spans that are still to be ended. Those of all caches, since what drops a load often drops its cache as well."""

    def __init__(self) -> None:
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """What is left unended is the parent's to end."""
        self.spans: deque[tuple[Span, str, int]] = deque()


_LOST = _Lost()
_OURS = create_key("aurelis-cache-span")
"""Where a context has the span, if it is one of ours, that is current in it."""
_SUPPRESSED: str = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
"""Where the SDK says of a context that it exports in it: whatever is told of there would be exported next."""
_NO_SPAN: AbstractContextManager[None] = contextlib.nullcontext()
# As long as there is no provider, `get_tracer_provider` looks into the environment at each call, which costs more than
# all else that happens on the way to a shared layer. So the variable behind it is asked first, where there is one.
_API = vars(trace)


def _is_apart(span: Span) -> bool:
    """Whether the current span is to be told nothing: it is one of ours, or there shall be no telemetry here."""
    context = get_current_context()
    return context.get(_OURS) is span or bool(context.get(_SUPPRESSED))


def _would_record() -> bool:
    if not SWITCH.on:
        return False
    if context := get_current_context():
        if context.get(_SUPPRESSED):
            return False
        parent = current_span_context()
        if parent is not None:
            return parent.trace_flags.sampled
    return _has_provider()


def _has_provider() -> bool:
    if not SWITCH.on:
        return False
    if SWITCH.tracer is not None:
        return True
    if _API.get("_TRACER_PROVIDER", _API) is None and not SWITCH.tracers_named:
        return False
    return not isinstance(_tracer_provider(), (ProxyTracerProvider, trace.NoOpTracerProvider))


def _tracer_provider() -> Any:  # `get_tracer_provider` is typed with the interface, which hides the proxy
    try:
        return trace.get_tracer_provider()
    except Exception as error:  # noqa: BLE001  # whatever an entry point raises
        SWITCH.tracers_named = False  # it would be looked for again at each request
        unheard(error)
        return ProxyTracerProvider()


def current_span_context(span: Made = None) -> SpanContext | None:
    """Context of a span or of the current one, for links from those who wait for it; `None` without one."""
    try:
        context = (trace.get_current_span() if span is None else span).get_span_context()
        return context if context.is_valid else None
    except Exception as error:  # noqa: BLE001  # a span of any tracer
        unheard(error)
        return None


def link(span: Made, context: object) -> None:
    """Link the span to what it waited for: a `current_span_context`, or `None`, which changes nothing."""
    if span is not None and isinstance(context, SpanContext):
        try:
            span.add_link(context)
        except Exception as error:  # noqa: BLE001  # a span of any tracer
            unheard(error)


def shared(span: Made, context: object) -> None:
    """Say of the span of a request that it has waited for the load of another one. `context`: as for `link`."""
    if span is not None:
        tell(span, {names.COLLAPSED: True})
        link(span, context)
