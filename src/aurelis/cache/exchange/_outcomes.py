"""How a load ends for those who wait for it, and what they get then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aurelis.cache._decisions import Pass, Record
from aurelis.cache._engine import Engine
from aurelis.cache._entry import Entry
from aurelis.cache._flight import Flight
from aurelis.cache._recording import Reader, Recording
from aurelis.cache.http import ResponseHead
from aurelis.cache.telemetry import names

from ._answers import Forwarded, Hit, hit_of


@dataclass(slots=True)
class Substitute:
    """Outcome of a flight: what is stored takes the place of the response.

    Attributes:
        entry: what is stored.
        result: `revalidated` or `stale`.
        status: what the origin has answered; `None`: it has raised.
        stored: its answer has updated what is stored.
        shared: others who wait may have it.
        found: as of `Recorder`.
    """

    entry: Entry
    result: str
    status: int | None
    stored: bool = False
    shared: bool = True
    found: str = ""


@dataclass(slots=True)
class Loading:
    """Outcome of a flight: a response is coming. `found`: as of `Recorder`."""

    head: ResponseHead
    decision: Record | Pass
    recording: Recording | None
    raw: object
    request: Any
    response_time: float
    route: str
    found: str = ""


class Seat:
    """Where the caller whose load runs in a task finds its reader, which is there before the first chunk comes.

    Attributes:
        reader: `None`: no body comes this way.
        loads: the origin is asked, which counts the caller's request.
        left: the caller has left without taking its reader.
    """

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self.loads = False
        self.left = False

    def reserve(self, recording: Recording) -> None:
        """Have the caller read the body from its start, unless it has left."""
        if not self.left:
            self.reader = recording.reader()

    def leave(self) -> None:
        """To be said by the caller."""
        self.left = True
        if self.reader is not None:
            self.reader.close()


def answer_of(
    substitute: Substitute, reason: str, engine: Engine, *, collapsed: bool = False, flight: Flight[Any] | None = None
) -> Hit:
    """What a caller gets for whom the origin was asked, and in the end not needed; counts the request.

    Args:
        reason: why the origin was asked.
        collapsed: for another caller.
        flight: the caller's own; `None`: it need not wait for its end.
    """
    if substitute.result == names.STALE:
        engine.telemetry.stale("error").n += 1
    else:
        engine.telemetry.request(substitute.result).n += 1
    stored = substitute.stored and not collapsed
    forwarded = Forwarded(reason, substitute.status, stored, collapsed, flight)
    return hit_of(substitute.entry, substitute.result, engine.clock.monotonic(), engine.telemetry, forwarded=forwarded)
