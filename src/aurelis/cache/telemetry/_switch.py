"""Whether this library reports by itself, and to whom its spans go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

INSTRUMENTATION: Final = "aurelis_cache"
"""Our name among the instrumentations of a process."""
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_PROVIDER: Final = "OTEL_PYTHON_TRACER_PROVIDER"


class Switch:
    """What an operator and `AurelisCacheInstrumentor` have chosen for the process.

    Attributes:
        on: whether there are spans and attributes of ours at all.
        tracer: where spans go in place of the global provider; `None`: there. (`Any`: one of OpenTelemetry's, of which
            only `otel` knows.)
        tracers_named: the environment names a tracer provider, which the API makes when it is asked for one.
        meters_broken: it names a meter provider that cannot be made.
    """

    __slots__ = ("meters_broken", "on", "tracer", "tracers_named")

    def __init__(self, environ: Mapping[str, str]) -> None:
        disabled = {name.strip() for name in environ.get(_DISABLED, "").split(",")}
        self.on = disabled.isdisjoint({INSTRUMENTATION, "*"})
        self.tracer: Any = None
        self.tracers_named = _PROVIDER in environ
        self.meters_broken = False


SWITCH = Switch(os.environ)
"""Module-level state on purpose: instrumentations are switched on and off for a process."""
