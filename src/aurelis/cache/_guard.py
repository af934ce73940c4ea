"""What stands in front of a remote layer: a deadline for every call, and no calls at all while it keeps failing.

It counts what happens and turns whatever a layer raises into a `LayerError`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeVar

from . import _breaker
from ._clock import Clock
from ._deadline import Deadline
from ._entry import Entry
from ._forking import renew_in_children
from ._trouble import Trouble
from .exceptions import LayerError, LayerTimeout, LayerUnavailableError
from .telemetry import names
from .telemetry.otel import SIZE_SAMPLE, Telemetry
from .typing import Layer

_LOG = logging.getLogger("aurelis.cache")
T = TypeVar("T")

_PAUSE_JITTER = 0.2
_FAREWELL: Final = 5.0
"""Seconds that a layer may take to close."""
_LONGEST_PROBE = 30.0
"""Seconds after which a probe may be lost even if its request would wait longer, perhaps for ever."""


class Budget:
    """Seconds that one request may still spend waiting for shared layers."""

    __slots__ = ("left",)

    def __init__(self, left: float) -> None:
        self.left = left


class Guard:
    """Stands in front of one remote layer.

    Args:
        threshold: failures in a row after which the layer is left alone.
        pause: seconds for which it is.
        timed: one in so many reads that succeed is timed, the first one among them.
    """

    def __init__(
        self,
        layer: Layer,
        ttl: float,
        clock: Clock,
        telemetry: Telemetry,
        *,
        threshold: int,
        pause: float,
        timed: int = 1,
    ) -> None:
        self.layer = layer
        self.name = layer.name
        self.ttl = ttl
        self._clock = clock
        self._telemetry = telemetry
        self._threshold = threshold
        self._pause = pause
        self._timed = timed
        self._reads = 0
        self._breaker = _breaker.CLOSED
        self._lock = threading.Lock()
        self._trouble = Trouble(f"the layer {layer.name}", "requests go on without it")
        self.hit = telemetry.lookup(layer.name, names.HIT)
        self.miss = telemetry.lookup(layer.name, names.MISS)
        self.error = telemetry.lookup(layer.name, "error")
        self.skipped = telemetry.lookup(layer.name, "skipped")
        self.invalidated = telemetry.eviction(layer.name, "invalidated")
        self._sizes = telemetry.sizes(layer.name, SIZE_SAMPLE)
        telemetry.expect_layer(layer.name)
        telemetry.expect_breaker(layer.name, self, lambda guard: guard._breaker.kind)
        renew_in_children(self)

    def after_fork(self) -> None:
        """A child finds out by itself: changes of state, from which others tell the state, are counted anew in it."""
        self._lock = threading.Lock()
        self._breaker = _breaker.CLOSED

    async def call(self, operation: str, act: Callable[[], Awaitable[T]], budget: Budget | None) -> T:
        """Do it within the budget (`None`: the layer has deadlines of its own), and charge the time to it.

        Raises:
            LayerUnavailableError: the breaker is open.
            LayerTimeout: the budget was spent.
            LayerError: the layer failed; the cause is attached.
        """
        if budget is not None and budget.left <= 0:
            raise LayerTimeout(self.name, operation)
        begin = self._clock.monotonic()
        probe = self._breaker.kind != "closed"
        if probe and not self._admit(begin, budget):
            raise LayerUnavailableError(self.name, operation)
        problem: LayerError
        try:
            with Deadline(None if budget is None else budget.left):
                result = await act()
        except TimeoutError as error:
            problem = LayerTimeout(self.name, operation)
            problem.__cause__ = error
        except Exception as error:  # noqa: BLE001  # whatever a layer raises is contained here: that is the guard's task
            problem = LayerError(self.name, operation)
            problem.__cause__ = error
        except BaseException:  # cancelled, or its event loop is gone
            self._change(partial(_breaker.released, now=self._clock.monotonic(), probe=probe))
            raise
        else:
            elapsed = self._clock.monotonic() - begin
            if budget is not None:
                budget.left -= elapsed
            if self._breaker is not _breaker.CLOSED:
                self._change(partial(_breaker.succeeded, probe=probe))
                if probe:
                    self._trouble.over(begin + elapsed)
            if self._timed > 1 and operation == "get":
                self._reads += 1
                if self._reads % self._timed != 1:
                    return result
            self._telemetry.duration(elapsed, operation, self.name)
            return result
        self._failed(problem, operation, begin, budget, probe)
        raise problem

    def stored(self, entries: Mapping[str, Entry]) -> None:
        """Note the sizes of what the layer has taken."""
        for entry in entries.values():
            self._sizes.note(entry.size)

    async def aclose(self) -> None:
        """Close the layer. One that fails or hangs is left as it is: whoever closes could do nothing about it."""
        try:
            async with asyncio.timeout(_FAREWELL):
                await self.layer.aclose()
        except Exception as error:  # noqa: BLE001  # as in `call`
            kind = self._telemetry.error_kind(type(error).__qualname__)
            _LOG.warning("closing the layer %s failed: %s", self.name, kind)

    def _failed(self, problem: LayerError, operation: str, begin: float, budget: Budget | None, probe: bool) -> None:
        now = self._clock.monotonic()
        if budget is not None:
            budget.left -= now - begin
        pause = self._pause * (1 + _PAUSE_JITTER * (2 * random.random() - 1))
        self._change(partial(_breaker.failed, now=now, probe=probe, threshold=self._threshold, pause=pause))
        kind = "timeout" if isinstance(problem, LayerTimeout) else type(problem.__cause__).__qualname__
        kind = self._telemetry.error_kind(kind)  # the log has its place, too
        self._telemetry.error(self.name, operation, kind)
        self._trouble.met(kind, now)
        self._telemetry.duration(now - begin, operation, self.name, kind)

    def _admit(self, now: float, budget: Budget | None) -> bool:
        patience = 0.0 if budget is None else min(budget.left, _LONGEST_PROBE)
        with self._lock:  # of all threads exactly one becomes the probe
            state, admitted = _breaker.admit(self._breaker, now, pause=max(self._pause, patience))
            self._note(state)
        return admitted

    def _change(self, step: Callable[[_breaker.Breaker], _breaker.Breaker]) -> None:
        with self._lock:
            self._note(step(self._breaker))

    def _note(self, state: _breaker.Breaker) -> None:
        if state.kind != self._breaker.kind:
            self._telemetry.breaker(self.name, state.kind)
        self._breaker = state
