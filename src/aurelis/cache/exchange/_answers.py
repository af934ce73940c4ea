"""The answers that an integration can get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aurelis.cache._decisions import Lookup, Pass, Record
from aurelis.cache._entry import Entry
from aurelis.cache._flight import Flight
from aurelis.cache._gate import running_loop
from aurelis.cache._recording import Reader
from aurelis.cache.http import ResponseHead, StoredResponse
from aurelis.cache.telemetry.otel import Telemetry

Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """How a request went to the origin that was answered with a stored response in the end.

    Attributes:
        reason: the `fwd` token of RFC 9211 §2.2.
        status: what the origin answered; `None`: nothing.
        stored: its answer was stored, as an update.
        collapsed: another caller's load is shared.
    """

    reason: str
    status: int | None
    stored: bool
    collapsed: bool
    _flight: Flight[Any] | None = None

    async def finished(self) -> None:
        """Wait until the caller's own load itself has ended; raise what it raised after its response."""
        if self._flight is not None:
            await self._flight.landed()
            error = self._flight.error()
            if error is not None:
                raise error


@dataclass(slots=True)
class Hit:
    """Answer from the cache.

    Not frozen: one is built for each hit in memory, and a frozen dataclass costs several times as much to build.

    Attributes:
        response: what is stored.
        layer: `l1` or `l2`.
        age: whole seconds since the origin made it (RFC 9111 §4.2.3), ≥ 0.
        ttl: seconds of freshness left; negative when it is stale, may be infinite.
        key: where memory has it; empty: it came from elsewhere.
        refresh: why it is to be loaded anew in the background, see `Exchange.refresh`; empty: it is not.
        forwarded: the origin was asked before; `None`: it was not.
    """

    response: StoredResponse
    layer: str
    age: int
    ttl: float
    key: str = ""
    refresh: str = ""
    forwarded: Forwarded | None = None


@dataclass(frozen=True, slots=True)
class Alone:
    """Ask the origin, for this caller alone and as if there were no cache.

    Attributes:
        reason: the `fwd` token of RFC 9211 §2.2.
        detail: short token for people.
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is stored and the client wanted nothing else (RFC 9111 §5.2.1.7): answer 504."""


@dataclass(slots=True)
class Live:
    """A response that is being loaded, by this caller or another one.

    Attributes:
        head: of the response.
        decision: whether it is being recorded.
        reason: the `fwd` token of RFC 9211 §2.2.
        collapsed: another caller's load is shared.
        reader: the body; `None` when `raw` is there.
        raw: the framework's own response, handed over unread to the caller whose load it is.
        route: template of the route that answers, where another caller's load is shared; otherwise empty.
    """

    head: ResponseHead
    decision: Record | Pass
    reason: str
    collapsed: bool
    reader: Reader | None
    raw: object
    _leave: Callable[[], None]
    _flight: Flight[Any]
    route: str = ""
    _left: bool = field(default=False)
    _loop: asyncio.AbstractEventLoop | None = field(default_factory=running_loop)

    def close(self) -> None:
        """Let go of the response. The last caller to let go before the end aborts the load. Twice is harmless."""
        if not self._left:
            self._left = True
            if self.reader is not None:
                self.reader.close()
            self._leave()

    def lose(self) -> None:
        """The caller has dropped the response, perhaps unclosed. Takes no lock: a garbage collector calls this."""
        if self._left:
            return
        if self.reader is not None:
            self.reader.lose()
        if (loop := self._loop or self._flight.loop) is not None:
            with suppress(RuntimeError):  # it is closed, and the load with it
                loop.call_soon_threadsafe(self.close)
        elif self.collapsed:  # a thread loads it, and asks itself whether anybody is left
            self._left = True
            self._flight.lose_follower()

    async def finished(self) -> None:
        """Wait until the load itself has ended, for instance an app's background tasks; raise what it raised."""
        await self._flight.landed()
        error = self._flight.error()
        if error is not None:
            raise error


@dataclass(slots=True)
class Pending(Generic[Q]):
    """Nothing at hand: what `peek` already knows, for `open` to go on with."""

    request: Q
    key: str
    entry: Entry | None
    decision: Lookup


def body_size(response: StoredResponse) -> int:
    """Bytes of a body as it is stored."""
    chunks = response.chunks
    return len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))


def hit_of(
    entry: Entry,
    layer: str,
    now: float,
    telemetry: Telemetry,
    key: str = "",
    refresh: str = "",
    forwarded: Forwarded | None = None,
    *,
    body: bool = True,
) -> Hit:
    """The answer from an entry that holds a `StoredResponse`; counts what it saves.

    Args:
        now: monotonic, seconds.
        body: the origin would have sent it.
    """
    response: StoredResponse = entry.value  # type: ignore[assignment]  # that is what the policy serves
    if response.source == "model":
        saved = telemetry.saved.get(response.model) or telemetry.saved_by(response.model)
        saved.seconds.n += response.load_seconds
        if response.input_tokens is None or response.output_tokens is None:
            saved.unknown.n += 1
        else:
            saved.input.n += response.input_tokens
            saved.output.n += response.output_tokens
        if telemetry.prices:
            if response.cost is None:
                saved.unpriced.n += 1
            else:
                saved.cost.n += response.cost
    else:
        telemetry.saved_seconds.n += response.load_seconds
    if body:
        chunks = response.chunks  # as `body_size`, whose frame would show in the budget of a hit
        size = len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))
        telemetry.saved_bytes.n += size
    ttl = entry.fresh_until - now
    age = response.lifetime - ttl
    if response.overdue:
        ttl -= response.overdue
    return Hit(response, layer, int(age) if age > 0 else 0, ttl, key, refresh, forwarded)
