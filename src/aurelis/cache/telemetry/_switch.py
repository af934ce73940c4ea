"""Whether this library reports by itself, and to whom its spans go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

INSTRUMENTATION: Final = "aurelis_cache"
"""Our name among the instrumentations of a process."""
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


class Switch:
    """What an operator and `AurelisCacheInstrumentor` have chosen for the process.

    Attributes:
        on: whether there are spans and attributes of ours at all.
        tracer: where spans go in place of the global provider; `None`: there. (`Any`: one of OpenTelemetry's, of which
            only `otel` knows.)
    """

    __slots__ = ("on", "tracer")

    def __init__(self, environ: Mapping[str, str]) -> None:
        disabled = {name.strip() for name in environ.get(_DISABLED, "").split(",")}
        self.on = disabled.isdisjoint({INSTRUMENTATION, "*"})
        self.tracer: Any = None


SWITCH = Switch(os.environ)
"""Module-level state on purpose: instrumentations are switched on and off for a process."""
