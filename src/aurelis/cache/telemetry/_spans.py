"""Spans around what leaves memory, and what of OpenTelemetry's context the others need."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from . import names

get_current_span = trace.get_current_span
"""For the hot path, which cannot afford a frame around it."""

get_current_context = otel_context.get_current
"""Likewise. It is empty where nobody has set anything, so there is no span; this costs a third of asking for one."""


class Spans:
    """The spans of one cache.

    Args:
        wanted: of `CacheConfig.spans`.
        attributes: whether the result of a hit in memory is set on the current span.
    """

    def __init__(self, name: str, tracer: Tracer, wanted: str, *, attributes: bool) -> None:
        self._name = name
        self._tracer = tracer
        self._wanted = wanted != "none"
        self.on_hit = wanted == "all"
        self.attributes = attributes

    def around(self, verb: str) -> AbstractContextManager[Span | None]:
        """A span `{verb} {cache name}` around I/O, or `None` where nothing would record it.

        Without an SDK, and below a parent that is not sampled, no span is made at all: making one that records nothing
        costs as much as a hit in memory twenty times over.
        """
        return self._recorded(verb) if self._wanted and _would_record() else _NO_SPAN

    def open(self, verb: str) -> Span | None:
        """The same for what begins and ends in different calls: `current_in` and `close_span` go with it."""
        return self._start(verb) if self._wanted and _would_record() else None

    @contextlib.contextmanager
    def _recorded(self, verb: str) -> Iterator[Span]:
        span = self._start(verb)
        error_type: str | None = None
        try:
            with current_in(span):
                yield span
        except BaseException as error:
            error_type = type(error).__qualname__
            raise
        finally:
            close_span(span, error_type)

    def _start(self, verb: str) -> Span:
        return self._tracer.start_span(
            f"{verb} {self._name}", kind=SpanKind.INTERNAL, attributes={names.NAME: self._name}
        )


def current_in(span: Span | None) -> AbstractContextManager[object]:
    """Inside, the span is the current one; `None` changes nothing."""
    if span is None:
        return _NO_SPAN
    return trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)


def close_span(span: Span | None, error_type: str | None) -> None:
    """End what `Spans.open` began."""
    if span is None:
        return
    if error_type is not None:
        # The type only: the text of a foreign exception may carry what must not leave the process.
        span.set_attribute(names.ERROR_TYPE, error_type)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


_NO_SPAN: AbstractContextManager[None] = contextlib.nullcontext()
# As long as there is no provider, `get_tracer_provider` looks into the environment at each call, which costs more than
# all else that happens on the way to a shared layer. So the variable behind it is asked first, where there is one.
_API = vars(trace)
_NAMED_BY_ENVIRONMENT = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


def _would_record() -> bool:
    if get_current_context():
        parent = trace.get_current_span().get_span_context()
        if parent.is_valid:
            return parent.trace_flags.sampled
    if _API.get("_TRACER_PROVIDER", _API) is None and not _NAMED_BY_ENVIRONMENT:
        return False
    return not isinstance(_tracer_provider(), (ProxyTracerProvider, trace.NoOpTracerProvider))


def _tracer_provider() -> Any:  # `get_tracer_provider` is typed with the interface, which hides the proxy
    return trace.get_tracer_provider()


def current_span_context(span: Span | None = None) -> SpanContext | None:
    """Context of a span or of the current one, for links from those who wait for it; `None` without one."""
    context = (trace.get_current_span() if span is None else span).get_span_context()
    return context if context.is_valid else None


def link(span: Span, context: object) -> None:
    """Link the span to what it waited for: a `current_span_context`, or `None`, which changes nothing."""
    if isinstance(context, SpanContext):
        span.add_link(context)
