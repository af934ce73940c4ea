"""What `opentelemetry-instrument` and other distributions of OpenTelemetry look for: an instrumentor.

Nothing needs it, since the library speaks to OpenTelemetry by itself. It names other providers than the global ones,
and switches the library's telemetry on where `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` has switched it off.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from aurelis.cache.exceptions import ConfigurationError, MissingExtraError

from .otel import begin_reporting

try:
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped
except ModuleNotFoundError as error:
    raise MissingExtraError("instrument", "AurelisCacheInstrumentor") from error


class AurelisCacheInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # likewise
    """The instrumentor of this library; there is one in a process, however often it is made.

    Options of `instrument`, all of which may be left out:

    * `meter_provider`: metrics are reported to it as well as to the global provider.
    * `tracer_provider`: spans go to it in place of the global provider.

    Others are ignored, as each instrumentor ignores those of the others. What has a span is said for each cache, by
    `CacheConfig(spans=..., span_attributes=...)`.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> AurelisCacheInstrumentor().instrument(tracer_provider=TracerProvider())
        >>> AurelisCacheInstrumentor().uninstrument()
    """

    _undo: Callable[[], None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing: what is instrumented is the distribution that this class is in."""
        return ()

    def _instrument(self, **options: Any) -> None:
        meters, tracers = options.get("meter_provider"), options.get("tracer_provider")
        for name, provider, method in (
            ("meter_provider", meters, "get_meter"),
            ("tracer_provider", tracers, "get_tracer"),
        ):
            if provider is not None and not callable(getattr(provider, method, None)):
                raise ConfigurationError(f"{name} must have a method {method}, which {type(provider).__name__} has not")
        self._undo = begin_reporting(meters, tracers)

    def _uninstrument(self, **options: Any) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()
