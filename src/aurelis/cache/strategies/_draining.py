"""Brings what a journal has to the data store: batches, attempts, dead letters.

One task does it, in the event loop of the app, where the store is at home. Another loop that uses the strategy when
that one has stopped begins one of its own; a journal lets sessions of one process have different keys as well as
those of several.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Final

from aurelis.cache._clock import Clock
from aurelis.cache._gate import Gate
from aurelis.cache.exceptions import CacheError, FrameError, LayerError
from aurelis.cache.journals._journal import Failure, Journal, Session, Ticket
from aurelis.cache.telemetry._spans import mark_failed

from . import _retries
from ._asking import Asking
from ._letters import DELETION, Envelopes
from ._store import DataStore, deleting

_LOG = logging.getLogger("aurelis.cache")

POLL: Final = 1.0
"""Seconds between two looks for what other processes have left, at most."""
_SHORTEST_POLL: Final = 0.05
_LAST_PAUSE: Final = 5.0
"""Seconds for which a journal that fails is left alone, at most."""
_FAREWELL: Final = 2.0
"""Seconds that a store may take to notice that it is not waited for."""


_SAFE: Final = 0.6
"""Part of a lease for which a session is sure of its tickets."""

Errors = dict[str, FrameError | str]


class BatchLost(Exception):
    """Others may have the tickets by now."""


class Draining:
    """Drains one journal into one store.

    Args:
        interval: seconds that a write waits at most while there is no batch.
        timeout: seconds that a call of the store may take.
        buried: called with each key whose write became a dead letter.

    Attributes:
        wanted: writes with a number up to this one are not to wait for a batch.
    """

    def __init__(
        self,
        journal: Journal,
        store: DataStore,
        envelopes: Envelopes,
        asking: Asking,
        clock: Clock,
        *,
        batch_size: int,
        interval: float,
        max_attempts: int,
        timeout: float,
        buried: Callable[[str], Awaitable[object]],
    ) -> None:
        self._journal = journal
        self._store = store
        self._envelopes = envelopes
        self._asking = asking
        self._clock = clock
        self._batch_size = batch_size
        self._interval = interval
        self._max_attempts = max_attempts
        self._timeout = None if timeout == math.inf else timeout
        self._buried = buried
        self._poll = min(max(interval / 4, _SHORTEST_POLL), POLL)
        self.first_delay = _retries.FIRST
        self._task: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._stopped = False
        self._inherited: list[object] = []
        self.after_fork()

    def after_fork(self) -> None:
        """What is under way is the parent's; it is kept, since its end would be seen."""
        self._lock = threading.Lock()
        self._inherited += [self._task, self._session]
        self._task = self._session = None
        self._wake, self._progress = Gate(), Gate()
        self._forgotten: Gate | None = None
        self.wanted = -1

    def start(self) -> None:
        """Until it is stopped, see to it that somebody drains: a task of this event loop, unless another has one."""
        task = self._task
        loop = asyncio.get_running_loop()
        if task is not None and not task.done() and task.get_loop() is loop:
            return
        with self._lock:
            if self._stopped:
                return
            task = self._task
            if task is not None and not task.done():
                other = task.get_loop()
                if other is loop or other.is_running():
                    return
                if other.is_closed() and self._session is not None:
                    self._session.abandon()  # it was closed under a batch, which nobody goes on with
            self._task = loop.create_task(self._run(), name="aurelis-write-behind", context=Context())

    def wake(self, upto: int = -1) -> None:
        """Look now. Writes with a number up to `upto` need not wait for a batch."""
        with self._lock:
            self.wanted = max(self.wanted, upto)
        gate, self._wake = self._wake, Gate()
        gate.open()

    async def progress(self, seconds: float) -> None:
        """Wait until something has been settled here, or for so many seconds."""
        gate = self._progress
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await gate.wait()

    async def forgotten(self, seconds: float) -> None:
        """Wait until what was given up here is in no cache, or for so many seconds."""
        if (gate := self._forgotten) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await gate.wait()

    async def stop(self) -> None:
        """End what is under way, and begin nothing more; what is not settled stays in the journal."""
        with self._lock:
            self._stopped = True
            task, self._task = self._task, None
        if task is None or task.done():
            return
        loop = task.get_loop()
        if loop is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait((task,), timeout=_FAREWELL * 2)  # for the store, and then for the journal
            return
        with contextlib.suppress(RuntimeError):  # that loop is closed, and the task with it
            loop.call_soon_threadsafe(task.cancel)
        deadline = self._clock.monotonic() + _FAREWELL * 2
        while not task.done() and loop.is_running() and self._clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    # The task

    async def _run(self) -> None:
        session = self._session = self._journal.session()
        own = asyncio.current_task()
        pause = 0.0
        begun = left = False
        try:
            while self._task is own:
                gate = self._wake
                try:
                    if not begun:  # what others have left waits for nothing more
                        backlog = await self._asking.ask("backlog", self._journal.backlog())
                        self.wanted, begun = max(self.wanted, backlog.last), True
                    taken = await self._step(session)
                except (LayerError, BatchLost):
                    pause = min(max(pause * 2, self._poll), _LAST_PAUSE)
                    await asyncio.sleep(pause * (0.5 + random.random()))
                    continue
                pause = 0.0
                if not taken:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._poll):
                            await gate.wait()
        except GeneratorExit:
            left = True  # its event loop was closed under it, and nothing can be waited for
            raise
        finally:
            session.abandon()
            if not left:
                with contextlib.suppress(CacheError, TimeoutError):
                    async with asyncio.timeout(_FAREWELL / 2):
                        await self._asking.ask("leave", session.leave())

    async def _step(self, session: Session) -> bool:
        """Take a batch and write it; whether there was one."""
        begin = self._clock.monotonic()
        taking = session.take(self._batch_size, self._interval, self.wanted)
        tickets = await self._asking.ask("take", taking)
        if not tickets:
            self._asking.backlog = await self._asking.ask("backlog", self._journal.backlog())
            return False
        with self._asking.batch(len(tickets)) as span:
            errors = await self._bring(session, tickets, begin)
            if errors:  # the first one stands for all; the counts have the others
                mark_failed(span, _kind(next(iter(errors.values()))))
        gate, self._progress = self._progress, Gate()
        gate.open()
        return True

    async def _bring(self, session: Session, tickets: Sequence[Ticket], begin: float) -> Errors:
        """Write a batch, and have the journal know of it; what went wrong, by key."""
        try:
            errors = await self._write(session, tickets, begin)
        except BatchLost:
            self._asking.lost()
            raise
        written = [ticket for ticket in tickets if ticket.key not in errors]
        failed = [self._failure(ticket, errors[ticket.key]) for ticket in tickets if ticket.key in errors]
        forgotten = Gate()
        if any(failure.last for failure in failed):  # noted before the journal says that they wait no more
            self._forgotten = forgotten
        try:
            outcome = await self._asking.ask("settle", session.settle(written, failed))
            self._asking.settled(outcome)
            if outcome.buried:
                types = ", ".join(sorted({failure.error for failure in failed if failure.last}))
                _LOG.error("write-behind: %d writes are dead letters now (%s)", len(outcome.buried), types)
                await self._forget(outcome.buried)
        finally:
            forgotten.open()
        return errors

    async def _forget(self, keys: Sequence[str]) -> None:
        """Take out of the cache what the store has refused, also if this is stopped meanwhile: nobody else would."""
        forgetting = [asyncio.ensure_future(self._buried(key)) for key in keys]
        try:
            await asyncio.wait(forgetting)
        except asyncio.CancelledError:
            await asyncio.wait(forgetting, timeout=_FAREWELL)
            raise

    def _failure(self, ticket: Ticket, error: FrameError | str) -> Failure:
        attempts = ticket.attempts + 1
        last = isinstance(error, FrameError) or attempts >= self._max_attempts
        kind = self._asking.kind(_kind(error))  # people read dead letters, and log them
        return Failure(ticket, kind, _retries.delay(attempts, random.random(), self.first_delay), last)

    # The store

    async def _write(self, session: Session, tickets: Sequence[Ticket], begin: float) -> Errors:
        """Write a batch; what went wrong, by key.

        Raises:
            BatchLost: the tickets may be somebody else's by now.
        """
        errors: Errors = {}
        values: dict[str, object] = {}
        for ticket in tickets:
            if ticket.frame != DELETION:
                try:
                    values[ticket.key] = self._envelopes.value(ticket.key, ticket.frame)
                except FrameError as error:
                    errors[ticket.key] = error
        lease = session.lease
        if lease is not None and self._clock.monotonic() - begin > lease * _SAFE:
            raise BatchLost
        writing = asyncio.ensure_future(self._ask_store(tickets, values, errors))
        tasks = [writing]
        if lease is not None:
            tasks.append(asyncio.ensure_future(self._keep(session, lease, tickets, begin)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(tasks)
            raise
        lost = not writing.done()
        await _end(tasks)
        if lost:
            raise BatchLost
        writing.result()
        return errors

    async def _ask_store(self, tickets: Sequence[Ticket], values: dict[str, object], errors: Errors) -> None:
        set_many = getattr(self._store, "set_many", None)
        # What has failed is tried alone: of a batch nobody says what was wrong with it.
        fresh = [ticket.key for ticket in tickets if ticket.attempts == 0 and ticket.key in values]
        calls: list[tuple[Sequence[str], Callable[[], Awaitable[object]]]] = []
        if callable(set_many) and len(fresh) > 1:
            calls.append((fresh, partial(set_many, {key: values.pop(key) for key in fresh})))
        calls += [((key,), partial(self._store.set, key, value)) for key, value in values.items()]
        gone = [ticket.key for ticket in tickets if ticket.frame == DELETION]
        calls += [((key,), partial(self._delete, key)) for key in gone]
        results = await asyncio.gather(*(self._attempt(act) for _, act in calls))
        for (keys, _), error in zip(calls, results, strict=True):
            if error is not None:
                errors.update(dict.fromkeys(keys, error))

    async def _delete(self, key: str) -> None:
        await deleting("WriteBehind", self._store)(key)

    async def _attempt(self, act: Callable[[], Awaitable[object]]) -> str | None:
        begin = self._clock.monotonic()
        error: str | None = None
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(self._timeout):
                await act()
        except Exception as problem:  # noqa: BLE001  # whatever a store raises
            error = type(problem).__qualname__
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            error = "CancelledError"  # something inside was cancelled, and not this
        self._asking.stored(self._clock.monotonic() - begin, error)
        return error

    async def _keep(self, session: Session, lease: float, tickets: Sequence[Ticket], begin: float) -> None:
        """Keep the tickets; returns when they may be lost."""
        while True:
            await asyncio.sleep(max(0.0, begin + lease / 3 - self._clock.monotonic()))
            asked = self._clock.monotonic()
            try:
                # An answer that comes later is of no use: others may have them.
                async with asyncio.timeout(max(0.0, begin + lease * _SAFE - asked)):
                    kept = await self._asking.ask("renew", session.renew(tickets))
                if not kept:
                    return
                begin = asked
            except LayerError:
                if self._clock.monotonic() - begin > lease * _SAFE:
                    return
                await asyncio.sleep(lease / 20)
            except TimeoutError:
                return


def _kind(error: FrameError | str) -> str:
    return error if isinstance(error, str) else type(error).__qualname__


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Before anybody else writes these keys, this should have ended. A store that does not notice is left."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_FAREWELL)
