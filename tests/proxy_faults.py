"""What a proxy of `tests.proxies` can do to connections; one of these is in force at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["to_server", "to_client"]


@dataclass(frozen=True, slots=True)
class Pass:
    """Everything passes, at once."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Each chunk arrives later by this many seconds, plus at most `jitter`; in order, and without less throughput."""

    seconds: float
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Throttle:
    """Each direction of each connection passes no more than this."""

    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Drop:
    """What goes in this direction disappears, also the end of the stream: the connection is half open.

    What has disappeared stays so; a client must not go on with that connection later.
    """

    direction: Direction


@dataclass(frozen=True, slots=True)
class Hang:
    """Connections are accepted, and nothing passes. With another fault, what was held goes on."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """New connections are refused. Those that exist go on; see `Proxy.reset`."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Each connection ends after so many more bytes in one direction: in order, or by a reset."""

    after: int
    direction: Direction = "to_client"
    reset: bool = False


Fault: TypeAlias = Pass | Latency | Throttle | Drop | Hang | Refuse | Cut
