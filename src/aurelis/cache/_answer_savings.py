"""What answers of models save that an app has in hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from ._engine import Engine
from ._forking import renew_in_children
from .models import BilledCall, Cost, pricing, reported_usage

_MAX_TIMES: Final = 10_000
"""Answers of which is known how long they took; the oldest go."""


class AnswerSavings:
    """Counts what each hit of one face saves, by model: never more than is known.

    Seconds are those of loads that this object was told of. Tokens are what the answer says by itself.

    Args:
        cost: as that of transports.

    Raises:
        ConfigurationError: `cost` gives no prices.
        MissingExtraError: `cost` is a price list that is not installed.
    """

    def __init__(self, cost: Cost = None) -> None:
        self._price: Callable[[BilledCall], float | None] | None = pricing(cost)
        self._seconds: dict[str, float] = {}
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """A thread that does not exist here may have held it."""
        self._lock = threading.Lock()

    def took(self, key: str, seconds: float) -> None:
        """The answer under a key was computed in this time."""
        with self._lock:
            self._seconds.pop(key, None)
            self._seconds[key] = seconds
            if len(self._seconds) > _MAX_TIMES:
                del self._seconds[next(iter(self._seconds))]

    def forget(self, key: str) -> None:
        """It is another answer now, and nobody has said how long that took."""
        with self._lock:
            self._seconds.pop(key, None)

    def hit(self, engine: Engine, key: str, model: str, provider: str | None, response: object) -> None:
        """The answer under a key was used again."""
        telemetry = engine.telemetry
        if self._price is not None and not telemetry.prices:
            telemetry.count_costs()
        saved = telemetry.saved.get(model) or telemetry.saved_by(model)
        seconds = self._seconds.get(key, 0.0)
        saved.seconds.n += seconds
        usage = reported_usage(response)
        if usage.input_tokens is None or usage.output_tokens is None:
            saved.unknown.n += 1
        else:
            saved.input.n += usage.input_tokens
            saved.output.n += usage.output_tokens
        if not telemetry.prices:
            return
        call = BilledCall(provider or "", "chat", "", model, "", usage)
        price = None if self._price is None else self._price(call)
        if price is None:
            saved.unpriced.n += 1
        else:
            saved.cost.n += price
