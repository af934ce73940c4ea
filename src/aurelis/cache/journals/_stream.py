"""The journal in Redis: a stream of tickets, which the processes of all machines drain as one consumer group.

There is one message for each key that waits. Whoever has it writes what is the newest then, so the group's rule that a
message has one consumer at a time keeps the order of a key among all processes. A consumer that is not heard of for
`LEASE` seconds loses its messages to the next one that asks.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from secrets import token_hex
from typing import Final

from redis.exceptions import RedisError

from aurelis.cache._keys import escape
from aurelis.cache._redis_url import parse_redis_url
from aurelis.cache.codecs import to_bytes
from aurelis.cache.config import CacheConfig
from aurelis.cache.layers._link import Link
from aurelis.cache.layers.redis import RedisBackend

from ._journal import Appended, Backlog, Failure, Letter, Outcome, Ticket
from ._rows import LONGEST_DELAY, to_text
from ._scripts import APPEND, BACKLOG, LEAVE, LETTERS, RENEW, REPLAY, SETTLE, TAKE

_LOG = logging.getLogger("aurelis.cache")

LEASE: Final = 5.0
"""Seconds."""
_FORGOTTEN: Final = 3600
"""Seconds after which the name of a consumer that has nothing is forgotten."""
_NEVER: Final = 2**52


class StreamJournal:
    """A journal in Redis.

    Args:
        config: its `redis_*` options say which Redis, its `namespace` what the names there begin with.
        name: journals with the namespace in common, too, are the same.
    """

    def __init__(self, config: CacheConfig, name: str) -> None:
        # The connections of each event loop are the layer's affair, and so are forks.
        self._backend = RedisBackend(config)
        self._looked = False
        self.names = _names(config.namespace, name)
        server = "" if config.redis_url is None else parse_redis_url(config.redis_url).identity
        self.place = f"{server} {self.names[0].decode()}"

    def link(self) -> Link:
        """The connections of the running event loop."""
        return self._backend._link()

    async def look(self) -> None:
        """Warn, once, of a Redis that may throw away what it was given for good."""
        if self._looked:
            return
        self._looked = True
        try:
            answer: bytes = await self.link().execute("INFO", "memory")
        except RedisError:  # to ask may be forbidden
            return
        about = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
        policy = about.get("maxmemory_policy", "")
        if policy.startswith("allkeys") and about.get("maxmemory") != "0":
            _LOG.warning(
                "write-behind: the Redis of the journal evicts any key when its memory is full (%s), writes that were "
                "acknowledged too; use noeviction, volatile-*, or another Redis by journal=",
                policy,
            )

    async def append(self, key: str, frame: bytes, limit: int) -> Appended | None:
        """See `Journal.append`."""
        answer = await self.link().script(APPEND, self.names, (to_bytes(key), frame, limit))
        return Appended(answer[0], answer[1]) if answer else None

    async def pending(self, key: str) -> bytes | None:
        """See `Journal.pending`."""
        value: bytes | None = await self.link().execute("HGET", self.names[1], to_bytes(key))
        return None if value is None else value.split(b":", 2)[2]

    async def backlog(self) -> Backlog:
        """See `Journal.backlog`."""
        waiting, dead, first, last = await self.link().script(BACKLOG, self.names)
        return Backlog(waiting, dead, None if first < 0 else first, last)

    async def letters(self, count: int) -> Sequence[Letter]:
        """See `Journal.letters`."""
        found = []
        for key, sequence, value in await self.link().script(LETTERS, self.names, (count,)):
            attempts, at, error, frame = value.split(b":", 3)
            found.append(Letter(to_text(key), sequence, frame, int(attempts), error.decode(), int(at) / 1000))
        return found

    async def replay(self, keys: Sequence[str] | None, upto: int, count: int) -> Sequence[str]:
        """See `Journal.replay`."""
        named: list[bytes | int] = [b"" if keys is None else b"keys", upto, count]
        named += map(to_bytes, keys or ())
        return [to_text(key) for key in await self.link().script(REPLAY, self.names, named)]

    def session(self) -> _Session:
        """See `Journal.session`."""
        return _Session(self)

    async def aclose(self) -> None:
        """See `Journal.aclose`."""
        await self._backend.aclose()


class _Session:
    """A consumer, of another name after a batch of which it is not known whether it was settled."""

    def __init__(self, journal: StreamJournal) -> None:
        self._journal = journal
        self.lease: float | None = LEASE
        self._consumer = _consumer()
        self._unsettled = False

    async def take(self, count: int, interval: float, upto: int) -> Sequence[Ticket]:
        """See `Session.take`."""
        await self._journal.look()
        if self._unsettled:
            # Word of that may be on its way yet, and must not settle what is claimed of the same tickets now.
            self._consumer, self._unsettled = _consumer(), False
        longest = _NEVER if interval == math.inf else min(_NEVER, int(interval * 1000))
        arguments = (self._consumer, int(LEASE * 1000), count, longest, upto, LONGEST_DELAY)
        found = await self._journal.link().script(TAKE, self._journal.names, arguments)
        self._unsettled = bool(found)
        return [
            Ticket(to_text(key), sequence, frame, attempts, writes, handle)
            for handle, key, sequence, writes, attempts, frame in found
        ]

    async def renew(self, tickets: Sequence[Ticket]) -> bool:
        """See `Session.renew`."""
        arguments = (self._consumer, *(ticket.handle for ticket in tickets))
        return int(await self._journal.link().script(RENEW, self._journal.names, arguments)) == len(tickets)

    async def settle(self, written: Sequence[Ticket], failed: Sequence[Failure]) -> Outcome:
        """See `Session.settle`."""
        arguments: list[bytes | int] = [self._consumer, len(written)]
        for ticket in written:
            arguments += [ticket.handle, to_bytes(ticket.key), ticket.sequence, ticket.writes]
        for failure in failed:
            ticket = failure.ticket
            arguments += [ticket.handle, to_bytes(ticket.key), ticket.sequence, int(failure.delay * 1000)]
            arguments += [int(failure.last), failure.error.replace(":", ".").encode("utf-8", "replace")]
        answer = await self._journal.link().script(SETTLE, self._journal.names, arguments)
        self._unsettled = False
        done, coalesced, retried, buried = answer
        return Outcome(done, coalesced, retried, [to_text(key) for key in buried])

    async def leave(self) -> None:
        """See `Session.leave`."""
        await self._journal.link().script(LEAVE, self._journal.names, (self._consumer, _FORGOTTEN * 1000))

    def abandon(self) -> None:
        """See `Session.abandon`. What it has is claimed when its lease ends."""


def _consumer() -> bytes:
    return f"{os.getpid()}-{token_hex(8)}".encode()


def _names(namespace: str, name: str) -> tuple[bytes, ...]:
    # All in one slot. Escaped parts have neither braces nor colons, so no other record has such a name.
    prefix = f"{escape(namespace)}:j:{{{escape(name)}}}:"
    kinds = ("stream", "writes", "order", "retries", "attempts", "letters", "buried", "clock")
    return tuple(f"{prefix}{kind}".encode() for kind in kinds)
