"""One load as telemetry tells of it: its span, and how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ._flight import Flight
from .telemetry._spans import Made, current_in, current_span_context
from .telemetry.otel import Telemetry


class Filling:
    """One load that goes on, or whose result is there while whoever makes it has more to do.

    Attributes:
        is_over: the result is there, or there will be none.
    """

    __slots__ = ("_begin", "_monotonic", "_span", "_telemetry", "is_over")

    def __init__(self, telemetry: Telemetry, monotonic: Callable[[], float], span: Made) -> None:
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._span = span
        self._begin = monotonic()
        self.is_over = False

    def end(self, error_type: str | None = None) -> None:
        """Record how long it took, once. What comes later is no part of the load, and no failure of it."""
        if not self.is_over:
            self.is_over = True
            with current_in(self._span):  # which makes it the exemplar, whatever is current where the result comes
                self._telemetry.duration(self._monotonic() - self._begin, "fill", error_type=error_type)


@contextmanager
def filling(
    telemetry: Telemetry, monotonic: Callable[[], float], flights: Iterable[Flight[Any]], key: str | None
) -> Iterator[Filling]:
    """Around a load: its span, to which those link who wait, and how long it took.

    Args:
        monotonic: seconds.
        key: of what is loaded; `None`: several.
    """
    later: BaseException | None = None
    with telemetry.spans.around("fill", key) as span:
        if span is not None:
            for flight in flights:
                flight.link = current_span_context(span)
        load = Filling(telemetry, monotonic, span)
        try:
            yield load
            load.end()
        except GeneratorExit:
            # Dropped with its event loop: the garbage collector is here, perhaps inside of a lock of the histogram.
            raise
        except BaseException as error:
            if not load.is_over:
                load.end(type(error).__qualname__)
                raise
            later = error  # of a background task of an app, for instance
    if later is not None:
        raise later
