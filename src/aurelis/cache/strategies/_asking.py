"""A journal behind a deadline: what it raises is counted, and becomes a `LayerError`. And its counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from aurelis.cache._clock import Clock
from aurelis.cache._deadline import Deadline
from aurelis.cache._trouble import Trouble
from aurelis.cache.exceptions import CacheClosedError, CacheError, LayerError, LayerTimeout
from aurelis.cache.journals._journal import Backlog, Outcome
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._spans import Made
from aurelis.cache.telemetry.otel import Telemetry

_LOG = logging.getLogger("aurelis.cache")
T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds that a journal may take to answer. It is no cache, which one can do without."""


class Asking:
    """Asks one journal.

    Args:
        name: of the journal.
        place: as that of `Journal`.

    Attributes:
        backlog: what was in it when it was last looked at; `None`: nobody has.
        closed: the journal is closed, and would be opened again by asking it.
    """

    def __init__(self, name: str, place: str, telemetry: Telemetry, clock: Clock) -> None:
        self._telemetry = telemetry
        self._clock = clock
        journal = self._journal = {names.JOURNAL: name}
        table = telemetry.table
        self._accepted = table.cell(names.WRITES_ACCEPTED, **journal)
        self._written, self._coalesced, self._dead = (
            table.cell(names.WRITES_SETTLED, **journal, **{names.WRITE_RESULT: result})
            for result in ("written", "coalesced", "dead")
        )
        self._retries = table.cell(names.WRITE_RETRIES, **journal)
        self._replayed = table.cell(names.WRITES_REPLAYED, **journal)
        self._journal_trouble = Trouble(
            "the journal of a write-behind", "what does not come into it is not acknowledged"
        )
        self._store_trouble = Trouble("the data store of a write-behind", "what it does not take is tried again")
        self.backlog: Backlog | None = None
        self.closed = False
        telemetry.gauge(
            names.WRITES_WAITING, self, lambda asking: asking._seen(lambda found: found.waiting), place, **journal
        )
        telemetry.gauge(
            names.DEAD_LETTERS, self, lambda asking: asking._seen(lambda found: found.dead), place, **journal
        )

    def _seen(self, part: Callable[[Backlog], int]) -> int | None:
        return None if self.backlog is None else part(self.backlog)

    async def ask(self, operation: str, answer: Coroutine[Any, Any, T]) -> T:
        """The answer.

        Raises:
            LayerTimeout: it did not come in time; whether it was done is not known.
            LayerError: the journal failed; the cause is attached.
            CacheClosedError: it is closed.
        """
        if self.closed:
            answer.close()
            raise CacheClosedError("this write-behind was closed; make a new one")
        problem: LayerError
        begin = self._clock.monotonic()
        try:
            with Deadline(PATIENCE):
                result = await answer
        except TimeoutError as error:
            problem = LayerTimeout(names.JOURNALED, operation)
            problem.__cause__ = error
        except CacheError:  # ours: the call is wrong
            raise
        except Exception as error:  # noqa: BLE001  # whatever a medium raises
            problem = LayerError(names.JOURNALED, operation)
            problem.__cause__ = error
        else:
            now = self._clock.monotonic()
            self._telemetry.duration(now - begin, operation, names.JOURNALED)
            self._journal_trouble.over(now)
            return result
        kind = "timeout" if isinstance(problem, LayerTimeout) else type(problem.__cause__).__qualname__
        kind = self.kind(kind)  # the log has its place, too
        self._telemetry.error(names.JOURNALED, operation, kind)
        self._journal_trouble.met(kind, self._clock.monotonic())
        raise problem

    def kind(self, error_type: str) -> str:
        """What may be said of the type of an error, one made at run time perhaps."""
        return self._telemetry.error_kind(error_type)

    def batch(self, count: int) -> AbstractContextManager[Made]:
        """Around bringing so many writes to the store. They come from many requests, perhaps of other processes."""
        return self._telemetry.spans.apart("write", None, attributes={**self._journal, names.WRITES: count})

    def accepted(self) -> None:
        """A write was acknowledged."""
        self._accepted.n += 1

    def replayed(self, count: int) -> None:
        """Dead letters wait again."""
        self._replayed.n += count

    def settled(self, outcome: Outcome) -> None:
        """A batch is done with."""
        self._written.n += outcome.written
        self._coalesced.n += outcome.coalesced
        self._dead.add(len(outcome.buried))
        self._retries.n += outcome.retried

    def lost(self) -> None:
        """Others may write a batch, too, since this process was not heard of for too long."""
        self._telemetry.error(names.JOURNALED, "renew", "lost")
        _LOG.warning("write-behind: a batch was lost, as this process was not heard of in time; others write it")

    def stored(self, elapsed: float, error: str | None) -> None:
        """The store was asked for something, which took so many seconds. `error`: type of what it raised."""
        error = None if error is None else self.kind(error)
        self._telemetry.duration(elapsed, "write", names.STORE, error)
        if error is None:
            self._store_trouble.over(self._clock.monotonic())
        else:
            self._telemetry.error(names.STORE, "write", error)
            self._store_trouble.met(error, self._clock.monotonic())
