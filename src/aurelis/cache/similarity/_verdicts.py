"""Answers to similar prompts, held against what the model says: who was right, how often."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Literal

from aurelis.cache._forking import renew_in_children
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry

from ._intervals import Interval, wilson
from ._view import Row

Verdict = Literal["correct", "false_hit", "unverified"]
Judge = Callable[[Any, Any], bool | Awaitable[bool]]
"""Given the answer to a similar prompt and the model's own: would the first have done?"""

_MAX_PENDING: Final = 1024
PATIENCE: Final = 900.0
"""Seconds within which a model is expected to answer."""
_MAX_TASKS: Final = 64


@dataclass(frozen=True, slots=True)
class SimilarityReport:
    """What was measured in this process since the manager was made, in one mode.

    Attributes:
        correct: comparisons in which the answer to the similar prompt would have done.
        false_hits: those in which it would have been wrong.
        unverified: those that could not be made: the answer came too late or not at all, or the judge failed.
        false_hit_rate: between what the part of false hits lies, with a confidence of 95 % (Wilson).
    """

    correct: int
    false_hits: int
    unverified: int
    false_hit_rate: Interval


@dataclass(frozen=True, slots=True)
class Pending:
    """A similar prompt was found, and its answer not given.

    Attributes:
        partition: in which.
        row: the similar prompt.
        similarity: in [0, 1].
        key: of its answer.
        until: monotonic instant; after it nobody waits for the model's answer.
    """

    partition: str
    row: Row
    similarity: float
    key: str
    until: float


class Verdicts:
    """Those of one cache, in one mode.

    Args:
        judge: compares two answers.
        timeout: seconds for one comparison.
    """

    def __init__(self, telemetry: Telemetry, mode: str, judge: Judge, timeout: float) -> None:
        self._telemetry = telemetry
        self._mode = mode
        if mode != "threshold":  # which compares nothing
            for verdict in names.VERDICTS:
                self._cell(verdict)
        self._judge = judge
        self._timeout = timeout
        self._closed = False
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """What is compared is compared by the parent."""
        self._lock = threading.Lock()
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def expect(self, key: str, pending: Pending, now: float) -> None:
        """Compare when the answer under this key has come."""
        with self._lock:
            self._pending.pop(key, None)
            self._pending[key] = pending
            lost = 0
            while len(self._pending) > _MAX_PENDING or next(iter(self._pending.values())).until <= now:
                self._pending.popitem(last=False)  # the oldest
                lost += 1
        self._count("unverified", lost)

    def expected(self, key: str, now: float) -> Pending | None:
        """What the answer under this key is to be compared with, once."""
        with self._lock:
            pending = self._pending.pop(key, None)
        if pending is not None and pending.until <= now:
            self._count("unverified")
            return None
        return pending

    def begin(self, compare: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Compare in the background; false if there is too much of that already, or it was closed."""
        if not self._has_room():
            return False
        # What belongs to the request that happens to be here is over before this is. Not under the lock, as a loop with
        # eager tasks runs the judge at once, and that may ask this cache something.
        work = self._compare(compare, self._telemetry.spans.here())
        task = asyncio.get_running_loop().create_task(work, context=Context())
        with self._lock:
            self._tasks.add(task)
            closed = self._closed
        task.add_done_callback(self._done, context=Context())
        if closed:  # meanwhile, by another thread
            task.cancel()
        return True

    async def _compare(self, compare: Callable[[], Coroutine[Any, Any, None]], started_by: object) -> None:
        with self._telemetry.spans.apart("compare", started_by):
            await compare()

    def _has_room(self) -> bool:
        with self._lock:
            self._tasks = {task for task in self._tasks if not task.get_loop().is_closed()}
            return not self._closed and len(self._tasks) < _MAX_TASKS

    async def judge(self, known: object, own: object) -> Verdict:
        """Compare the answer to the similar prompt with the model's own."""
        verdict: Verdict = "unverified"
        try:
            async with asyncio.timeout(self._timeout):
                answer = self._judge(known, own)
                right = await answer if inspect.isawaitable(answer) else answer
            verdict = "correct" if right else "false_hit"
        except Exception as error:  # noqa: BLE001  # a judge may raise anything, and nobody waits for it
            self._telemetry.incident(names.SIMILARITY, "judge", type(error).__qualname__)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled this: the judge waited for something that was.
            self._telemetry.incident(names.SIMILARITY, "judge", "CancelledError")
        self._count(verdict)
        return verdict

    def unverified(self) -> Verdict:
        """Count one that nobody compares."""
        self._count("unverified")
        return "unverified"

    def report(self) -> SimilarityReport:
        """What was counted."""
        correct, false_hits, unverified = (self._cell(verdict).n for verdict in ("correct", "false_hit", "unverified"))
        return SimilarityReport(correct, false_hits, unverified, wilson(false_hits, correct + false_hits))

    async def settle(self, timeout: float) -> None:
        """Wait for what is being compared in this event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            own = [task for task in self._tasks if task.get_loop() is loop and not task.done()]
        if own:
            await asyncio.wait(own, timeout=timeout)

    async def aclose(self, timeout: float) -> None:
        """`settle`, cancel what is left, and compare no more."""
        await self.settle(timeout)
        loop = asyncio.get_running_loop()
        with self._lock:
            self._closed = True
            self._pending.clear()
            left = [task for task in self._tasks if not task.done() and not task.get_loop().is_closed()]
        for task in left:
            if task.get_loop() is loop:
                task.cancel()
            else:
                with contextlib.suppress(RuntimeError):  # it has just been closed
                    task.get_loop().call_soon_threadsafe(task.cancel)
        await asyncio.gather(*(task for task in left if task.get_loop() is loop), return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        with self._lock:
            self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._telemetry.incident(names.SIMILARITY, "index", type(error).__qualname__)

    def _count(self, verdict: Verdict, count: int = 1) -> None:
        if count:
            self._cell(verdict).n += count

    def _cell(self, verdict: str) -> Any:  # a cell, which only telemetry names
        return self._telemetry.table.cell(
            names.SIMILARITY_VERDICTS, **{names.VERDICT: verdict, names.SIMILARITY_MODE: self._mode}
        )
