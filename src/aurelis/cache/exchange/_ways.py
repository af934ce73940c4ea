"""The two ways of waiting: in an event loop, and in a thread that blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from aurelis.cache._engine import Engine
from aurelis.cache._flight import Abandoned, Failed, Flight, Settled
from aurelis.cache._recording import Recording, WaitTimeout

T = TypeVar("T")


class Ways(Protocol):
    """How one kind of caller waits. The steps around it are the same for all.

    `outcome` raises `WaitTimeout` after `patience` seconds; `None`: never.
    """

    async def run(self, step: Coroutine[Any, Any, T]) -> T: ...

    async def outcome(self, flight: Flight[Any], patience: float | None) -> Settled[Any] | Failed | Abandoned: ...

    async def room(self, recording: Recording) -> None: ...

    async def lingered(self, flight: Flight[Any]) -> None: ...


class Async:
    """Waits in the running event loop."""

    async def run(self, step: Coroutine[Any, Any, T]) -> T:
        return await step

    async def outcome(self, flight: Flight[Any], patience: float | None) -> Settled[Any] | Failed | Abandoned:
        try:
            async with asyncio.timeout(patience):
                return await flight.wait()
        except TimeoutError:
            raise WaitTimeout from None

    async def room(self, recording: Recording) -> None:
        await recording.room()

    async def lingered(self, flight: Flight[Any]) -> None:
        await flight.lingered()


class Blocking:
    """Blocks the thread where others wait, so its coroutines never suspend and run inline."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self._engine.run(step)

    async def outcome(self, flight: Flight[Any], patience: float | None) -> Settled[Any] | Failed | Abandoned:
        if patience is not None and flight.outcome is None:
            opened = flight._gate.wait_blocking(alive=flight.alive, patience=patience)
            if not opened and flight.alive():
                raise WaitTimeout
        return flight.wait_blocking()

    async def room(self, recording: Recording) -> None:
        recording.room_blocking()

    async def lingered(self, flight: Flight[Any]) -> None:
        flight.lingered_blocking()
