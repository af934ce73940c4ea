"""What OpenTelemetry raises: it is for the log, and no request fails for it."""

from __future__ import annotations

import contextlib

from aurelis.cache._clock import SYSTEM_CLOCK
from aurelis.cache._trouble import Incidents

from . import names
from ._bounded import is_type

_INCIDENTS = Incidents("OpenTelemetry failed, and is done without")
"""Of the process, as providers are."""


def unheard(error: Exception) -> None:
    """Tell the log that OpenTelemetry has raised something.

    The API promises that it does not. But samplers, span processors and reservoirs are anybody's, and the SDK passes on
    what they raise.
    """
    kind = type(error).__qualname__
    with contextlib.suppress(Exception):  # the log may lead to OpenTelemetry as well
        _INCIDENTS.met(kind if is_type(kind) else names.OTHER, SYSTEM_CLOCK.monotonic())
