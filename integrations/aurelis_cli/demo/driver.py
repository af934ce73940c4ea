"""The traffic of the demo: a process that sends requests to the workers and counts what it sent and got.

Its counts are its own. Nothing of what telemetry reports goes into them: they are there to be compared.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from .catalog import PAGE_SIZE, Catalog
from .lifeline import receive
from .settings import DriverSettings

MIX: Final = {
    "package": 40, "packages": 18, "search": 21, "ask": 9, "faq": 4, "related": 4, "ratings": 2, "exports": 2,
}  # fmt: skip
"""Kinds of requests, by the first part of their path, with their weights."""
OF_THE_STAND_IN: Final = frozenset({"faq", "related"})
"""Those that only the stand-in is asked; see `app`."""
WRITES: Final = {"ratings": "PUT"}
"""Methods of those that are no GET."""
SKEW: Final = 1.1
"""Exponent of the Zipf distribution: the r-th thing is asked for `r ** -SKEW` times as often as the first."""
TIMEOUT: Final = 60.0
"""Seconds for one request: a real model may think for long."""
DRAIN: Final = 8.0
"""Seconds that requests in flight may take when the traffic ends."""
WORDS: Final = (
    "http", "async", "cache", "json", "test", "type", "parse", "server", "client", "metrics", "trace",
    "template", "stream", "socket", "schema", "config", "terminal", "color", "time", "file", "unicode",
    "crypto", "data", "web", "proxy", "event", "thread", "table", "compress", "lint",
)  # fmt: skip
"""What is searched for."""
WORDINGS: Final = (
    "What is {} for?", "Can you tell me what {} is for?", "Please tell me what {} is for.", "what is {} for",
    "Tell me: what is {} for?", "Could you tell me what {} is for, please?",
)  # fmt: skip
"""How users ask the same."""
FREQUENT: Final = 4
"""Packages that users ask about most."""
USERS: Final = 50
"""Users who rate packages."""


@dataclass(slots=True)
class Kind:
    """What happened to the requests of one kind."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Requests without a response, by exception."""
    cache: Counter[str] = field(default_factory=Counter)
    """Responses by what their Cache-Status field says; see `cache_result`."""


@dataclass(slots=True)
class Counts:
    """What the driver did, by kind of request."""

    kinds: dict[str, Kind] = field(default_factory=lambda: {name: Kind() for name in MIX})

    @property
    def sent(self) -> int:
        """All requests."""
        return sum(kind.sent for kind in self.kinds.values())

    def record(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {
            "sent": self.sent,
            "answered": sum(kind.statuses.total() for kind in self.kinds.values()),
            "kinds": {
                name: {
                    "sent": kind.sent,
                    "statuses": dict(kind.statuses),
                    "errors": dict(kind.errors),
                    "cache": dict(kind.cache),
                }
                for name, kind in self.kinds.items()
            },
        }


def cache_result(field_value: str | None) -> str:
    """What a Cache-Status field (RFC 9211) says: `hit`, `collapsed`, why it was forwarded, or `none`."""
    if not field_value:
        return "none"
    parameters = [part.strip() for part in field_value.split(";")[1:]]
    if "hit" in parameters:
        return "hit"
    if "collapsed" in parameters:
        return "collapsed"
    return next((part.removeprefix("fwd=") for part in parameters if part.startswith("fwd=")), "none")


def requests(
    names: Sequence[str], pages: int, seed: int, mix: Mapping[str, int] = MIX, *, careless: bool = False
) -> Iterator[tuple[str, str]]:
    """An endless sequence of kinds and targets (path with query). The same seed gives the same sequence."""
    chance = random.Random(seed)
    shuffled = chance.sample(names, len(names))
    questions = [
        question
        for name in shuffled
        for question in (f"What is {name} for?", f"Which packages here need {name}, and why?")
    ]
    frequent = [wording.format(name) for wording in WORDINGS for name in names[:FREQUENT]]
    if careless:
        frequent = [*_misspelt(names), *frequent]
    targets: dict[str, list[str]] = {
        "package": [f"/packages/{name}" for name in shuffled],
        "packages": [f"/packages?page={number}" for number in range(1, pages + 1)],
        "search": [f"/search?{httpx2.QueryParams(q=word)}" for word in WORDS],
        "ask": [f"/ask?{httpx2.QueryParams(q=question)}" for question in questions],
        "faq": [f"/faq?{httpx2.QueryParams(q=question)}" for question in frequent],
        "related": [f"/related/{name}" for name in shuffled],
        "exports": [f"/exports/{name}" for name in shuffled],
        "ratings": [f"/ratings/{name}" for name in shuffled],
    }
    weights = {
        kind: list(itertools.accumulate(rank**-SKEW for rank in range(1, len(choices) + 1)))
        for kind, choices in targets.items()
    }
    kinds, shares = list(mix), list(itertools.accumulate(mix.values()))
    while True:
        (kind,) = chance.choices(kinds, cum_weights=shares)
        (target,) = chance.choices(targets[kind], cum_weights=weights[kind])
        if kind == "ratings":
            target += f"?user=u{chance.randrange(USERS)}&stars={chance.randint(1, 5)}"
        yield kind, target


def _misspelt(names: Sequence[str]) -> list[str]:
    """Questions about packages with a hyphen in their name, each with it and without: similar, and not the same."""
    hyphened = [name for name in names if "-" in name][:2]
    return [WORDINGS[0].format(name) for each in hyphened for name in (each, each.replace("-", " "))]


class Driver:
    """Sends requests until told to stop; at most `users` are in flight."""

    def __init__(self, settings: DriverSettings) -> None:
        """Open nothing yet."""
        names = Catalog(settings.catalog).names()
        mix = {kind: weight for kind, weight in MIX.items() if settings.stand_in or kind not in OF_THE_STAND_IN}
        pages = -(-len(names) // PAGE_SIZE)
        self._requests = requests(names, pages, settings.seed, mix, careless=settings.careless)
        self._origins = itertools.cycle(settings.origins)
        # What is kept belongs to a URL. Behind a balancer all workers have one name; so they have here.
        self._host = httpx2.URL(settings.origins[0]).netloc.decode()
        self._interval = 1 / settings.rate
        self._users = settings.users
        self._next = 0.0
        self._stopped = asyncio.Event()
        self.counts = Counts()

    def stop(self) -> None:
        """Begin no more requests."""
        self._stopped.set()

    async def run(self) -> None:
        """Drive until `stop`, then wait for the requests in flight, but not for ever."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self._users)
        # Whatever proxy the environment names, these addresses are local.
        async with httpx2.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False) as client:
            self._next = time.monotonic()
            users = [asyncio.create_task(self._user(client)) for _ in range(self._users)]
            await self._stopped.wait()
            _, late = await asyncio.wait(users, timeout=DRAIN)
            for user in late:
                user.cancel()
            await asyncio.gather(*users, return_exceptions=True)

    async def _user(self, client: httpx2.AsyncClient) -> None:
        while await self._turn():
            kind, target = next(self._requests)
            method = WRITES.get(kind, "GET")
            await self._send(client, self.counts.kinds[kind], method, next(self._origins) + target)

    async def _turn(self) -> bool:
        """Wait for the next place in the schedule; false when the traffic has ended."""
        now = time.monotonic()
        # When all users are busy the schedule falls behind; what was missed is not made up for with a burst.
        self._next = max(self._next + self._interval, now - 0.1)
        if self._next > now:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), self._next - now)
        return not self._stopped.is_set()

    async def _send(self, client: httpx2.AsyncClient, kind: Kind, method: str, url: str) -> None:
        kind.sent += 1
        try:
            response = await client.request(method, url, headers={"Host": self._host})
        except httpx2.HTTPError as error:
            kind.errors[type(error).__name__] += 1
        except asyncio.CancelledError:
            kind.errors["unfinished"] += 1
            raise
        else:
            kind.statuses[str(response.status_code)] += 1
            kind.cache[cache_result(response.headers.get("cache-status"))] += 1


async def _drive(settings: DriverSettings) -> Counts:
    driver = Driver(settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, driver.stop)
    await driver.run()
    return driver.counts


def main() -> None:
    """Send traffic until SIGTERM, then write the counts."""
    settings = receive(DriverSettings, temporary="temporary")
    counts = asyncio.run(_drive(settings))
    path = Path(settings.counts)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(counts.record(), indent=1))
    os.replace(partial, path)


if __name__ == "__main__":
    main()
