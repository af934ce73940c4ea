"""Keeps what a process has in memory in step with what other processes change."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Coroutine
from typing import Any, Final

from . import _news
from ._bridge import Bridge
from ._flight import Flight
from ._flights import Flights
from ._forking import renew_in_children
from ._gate import Gate
from ._stack import Stack
from ._trouble import Trouble
from .telemetry.otel import Telemetry
from .typing import Message, Newsroom

_MISSED: Final = 2.5
"""Heartbeats without a word, after which the connection counts as lost."""
_FIRST_PAUSE: Final = 0.05


class Listening:
    """Hears of changes in a thread of its own, from the first use in a process until the cache is closed or forgotten.

    Args:
        heartbeat: seconds between signs of life.

    Attributes:
        started: the first attempt to listen has succeeded or failed.
        trouble: says in the log that there is no word.
    """

    def __init__(
        self, stack: Stack, flights: Flights, newsroom: Newsroom, telemetry: Telemetry, bridge: Bridge, heartbeat: float
    ) -> None:
        self._stack = stack
        self._flights = flights
        self._newsroom = newsroom
        self._telemetry = telemetry
        self._bridge = bridge
        self._heartbeat = heartbeat
        self.trouble = Trouble(
            "listening for changes of other processes", "what is in memory is verified before it is used"
        )
        self._gate = Gate()
        self._begun = False
        self.started = False
        self.closed = False
        telemetry.expect_others()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Nobody listens for this process yet."""
        self._gate = Gate()
        self._begun = self.started = False

    async def start(self, patience: float) -> None:
        """Begin to listen, once for each process, and wait `patience` seconds at most until it has begun.

        What is read before would have to be looked at again afterwards.
        """
        if not self._begun:
            self._begun = True
            self.spawn(_listen(weakref.ref(self), self._newsroom, self._heartbeat))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._gate.wait()
        self.started = True  # nobody waits for it a second time

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background, where this listens."""
        if self._newsroom.own_thread:
            self._bridge.spawn(work)
        else:
            self._flights.run(work)

    def begun(self) -> None:
        """From now on word arrives; what came before may be missing."""
        self.lost("subscription" if self._gate.is_open() else "")
        self._stack.generations.in_step = True
        self.trouble.over(asyncio.get_running_loop().time())
        self._gate.open()

    def lost(self, reason: str = "") -> None:
        """Something may have been missed.

        Args:
            reason: for telemetry; empty: there was nothing yet that could be missed.
        """
        self._stack.generations.lost_step()
        if reason:
            self._telemetry.gap(reason)
        self._look_at_loads()

    def failed(self) -> None:
        """There is no word for now. Each attempt in vain says so again: what was verified since may be out of date."""
        self.lost("connection" if self._stack.generations.in_step else "")
        self._gate.open()

    def _look_at_loads(self) -> None:
        if not self.closed and (flights := self._flights.begun()):
            self._flights.run(self._verify(flights))

    async def _verify(self, flights: list[Flight[Any]]) -> None:
        # Nobody may join a load that a change has overtaken: it may take longer than anything is kept in memory.
        for flight in flights:
            if flight.outcome is None and flight.holds is not None and not await flight.holds():
                self._flights.fence_one(flight)

    def heard(self, state: _news.Heard, message: Message, echo: _news.Echo, now: float) -> _news.Heard:
        """Do what a message says; returns what has been heard by now."""
        own = message.node == self._newsroom.node
        if own and message.kind == "beat" and (lag := echo.heard(now)) is not None:
            self._telemetry.lag(lag)
        self._telemetry.message("sent" if own else "received", message.kind)
        self._stack.generations.saw(message.number)
        # What this process has changed itself it knows.
        if not own and message.kind in ("tags", "soft"):
            self._stack.generations.invalidated(message.names, message.number, soft=message.kind == "soft")
            self._flights.fence_tagged(message.names, self._stack.implied, before=message.number)
            self._telemetry.invalidated_tags(message.names, soft=message.kind == "soft", source="remote")
        elif not own and message.kind == "keys":
            for key in message.names:
                self._flights.fence(key, before=message.number)
                # Also what has a higher number: it may have come to the shared layer before this change.
                self._stack.forget(key, change=message.number)
            self._telemetry.invalidated("key", len(message.names), source="remote")
        state, gap = _news.hear(state, message, now)
        if gap:
            self.lost("hole")
            self._stack.generations.in_step = True
        return state


async def _listen(reference: weakref.ref[Listening], newsroom: Newsroom, heartbeat: float) -> None:
    # Holds on to nothing but the layer between two messages, so a cache that nobody uses any more can be forgotten.
    pause = _FIRST_PAUSE
    while (listening := reference()) is not None and not listening.closed:
        del listening
        try:
            await _hear(reference, newsroom, heartbeat)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a layer raises: there is no word for now
            if (listening := reference()) is not None and not listening.closed:
                kind = listening._telemetry.error_kind(type(error).__name__)
                listening.trouble.met(kind, asyncio.get_running_loop().time())
        if (listening := reference()) is not None:
            if listening._stack.generations.in_step:
                pause = _FIRST_PAUSE
            listening.failed()
        del listening
        await asyncio.sleep(pause)
        pause = min(pause * 2, heartbeat)


async def _hear(reference: weakref.ref[Listening], newsroom: Newsroom, heartbeat: float) -> None:
    loop = asyncio.get_running_loop()
    state, echo = _news.Heard(), _news.Echo()
    beating: asyncio.Task[None] | None = None
    async with contextlib.aclosing(newsroom.news()) as news:
        try:
            while True:
                # Our own sign of life comes back, so silence means that the connection is lost.
                # Not `wait_for`, which on Python 3.11 swallows a cancellation that comes together with a message.
                async with asyncio.timeout(heartbeat * _MISSED):
                    message = await anext(news)
                listening = reference()
                if listening is None or listening.closed:
                    return
                if message is None:
                    state = _news.Heard()
                    echo.begin_anew()
                    listening.begun()
                    beating = beating or loop.create_task(_beat(newsroom, heartbeat, echo))
                else:
                    state = listening.heard(state, message, echo, loop.time())
                del listening
        finally:
            if beating is not None:
                beating.cancel()


async def _beat(newsroom: Newsroom, heartbeat: float, echo: _news.Echo) -> None:
    loop = asyncio.get_running_loop()
    while True:
        echo.sent(loop.time())
        try:
            async with asyncio.timeout(heartbeat):
                await newsroom.beat()
        except Exception:  # noqa: BLE001  # then it does not come back, which is noticed
            echo.failed()
        await asyncio.sleep(heartbeat)
