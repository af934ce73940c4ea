"""The connections of one event loop to the nodes of a Redis Cluster.

redis-py's cluster client is left out, as its plain one is: a slot that moves makes it close the connections of commands
under way, a command that is redirected with `ASK` may go to a connection that was not told so, and a cluster that is
down makes it sleep for as long as a request may take. What is left is a table of slots and four redirections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.client import PubSub
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from ._link import Call, Script, ServerLink, ask, first, together

Server = tuple[str, int]
"""Host and port."""

_SLOTS: Final = 16_384
_ASKED: Final = 3
"""Nodes asked at once for the table."""
_HOPS: Final = 6
"""Times that a command is sent at most."""
_AGAIN: Final = 0.01
"""Seconds before a command is repeated whose keys are just moving."""
_PAUSE: Final = 0.1
"""Seconds for which a table that seems outdated is used before it is fetched again."""


class _Command:
    """A command on its way through the cluster."""

    __slots__ = ("answer", "asking", "at", "call", "script", "slot", "words")

    def __init__(self, words: Sequence[Any], script: Script | None = None, call: Call | None = None) -> None:
        self.words = words
        self.slot = _slot_of(words)
        self.script = script
        self.call = call
        self.at: ServerLink | None = None
        """Where it was redirected to; `None`: to the owner of its slot."""
        self.asking = False
        self.answer: Any = None


class ClusterLink:
    """The connections to all primaries.

    Args:
        seeds: nodes that are asked first for all others.
        node: makes the pool of connections to a node.
        subscribers: makes the pool of connections of subscribers from a function that names a node for each.
        limit: commands under way at once, ≥ 1; also connections to each node.
    """

    single = False

    def __init__(
        self,
        seeds: Sequence[Server],
        node: Callable[[Server], ConnectionPool],
        subscribers: Callable[[Callable[[], Server]], ConnectionPool],
        limit: int,
    ) -> None:
        self._seeds = tuple(seeds)
        self._node = node
        self._slots = asyncio.Semaphore(limit)
        self._subscribers = subscribers(self._next_server)
        self._primaries: dict[Server, ServerLink] = {}
        self._replicas: tuple[Server, ...] = ()
        self._owners: list[ServerLink | None] = [None] * _SLOTS
        self._lock = asyncio.Lock()
        self._fetched = 0
        self._outdated = True
        self._not_before = 0.0
        self._turn = 0
        self._closed = False

    async def execute(self, *command: Any) -> Any:
        """Run one command; one without a key goes to any node."""
        sent = _Command(command)
        await self._run([sent])
        if isinstance(sent.answer, Exception):
            raise sent.answer
        return sent.answer

    async def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | int] = ()) -> Any:
        """Run a script on keys of one slot."""
        # What is nearly always so, without the bookkeeping of `_run`.
        owner = await self._owner(key_slot(keys[0]))
        try:
            return await owner.script(script, keys, arguments)
        except (AskError, TryAgainError) as error:
            sent = _Command(script.told(keys, arguments))
            sent.answer = error
            if self._goes_on(sent):
                await self._run([sent])
        except ClusterDownError:
            self._outdated = True
            raise
        except ResponseError:
            raise
        except BaseException:
            self._outdated = True
            raise
        if isinstance(sent.answer, Exception):
            raise sent.answer
        return sent.answer

    async def scripts(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script several times, each on keys of one slot."""
        return await self._run([_Command(script.known(*call), script, call) for call in calls])

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run several commands, each on keys of one slot."""
        return await self._run([_Command(command) for command in commands])

    def split(self, names: Sequence[bytes]) -> list[list[int]]:
        """Positions by slot."""
        groups: dict[int, list[int]] = {}
        for position, name in enumerate(names):
            groups.setdefault(key_slot(name), []).append(position)
        return list(groups.values())

    async def scan(self, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]:
        """The names on all primaries that match a pattern, one primary after the other."""
        if self._outdated:
            await self._look()
        for link in list(self._primaries.values()):
            try:
                async for names in link.scan(pattern, count):
                    yield names
            except (RedisError, OSError):
                self._outdated = True
                raise

    def pubsub(self) -> PubSub:
        """A subscriber on any node: what is published on one reaches all."""
        return PubSub(self._subscribers)

    async def aclose(self) -> None:
        """Close all connections; those in use when their command ends."""
        self._closed = True
        links = list(self._primaries.values())
        self._primaries.clear()
        await asyncio.gather(*(link.aclose() for link in links), self._subscribers.aclose())

    # Commands

    async def _run(self, commands: Sequence[_Command]) -> list[Any]:
        waiting = list(commands)
        for _ in range(_HOPS):
            groups: dict[ServerLink, list[_Command]] = {}
            for command in waiting:
                groups.setdefault(command.at or await self._owner(command.slot), []).append(command)
            if not groups:
                break
            try:
                await together([_send(link, group) for link, group in groups.items()])
            except BaseException:
                # Lost, or given up: perhaps it is no longer the primary.
                self._outdated = True
                raise
            waiting = [command for command in waiting if self._goes_on(command)]
            if any(isinstance(command.answer, TryAgainError) for command in waiting):
                await asyncio.sleep(_AGAIN)
        return [command.answer for command in commands]

    def _goes_on(self, command: _Command) -> bool:
        """Whether the answer says to send the command again; then it knows where to."""
        match command.answer:
            case MovedError() as moved:  # the slot has another owner
                command.at, command.asking = self._link_to(moved, command), False
                self._owners[command.slot] = command.at
                self._outdated = True
            case AskError() as elsewhere:  # the slot is moving, and these keys are there already
                command.at, command.asking = self._link_to(elsewhere, command), True
            case TryAgainError():  # some of its keys are here and some are there
                command.at, command.asking = None, False
            case NoScriptError() if command.script is not None and command.call is not None:
                command.words = command.script.told(*command.call)
            case ClusterDownError():
                self._outdated = True
                return False
            case _:
                return False
        return True

    def _link_to(self, error: AskError, command: _Command) -> ServerLink:
        host = error.host
        if not host:  # the node does not know its own name: the one by which it was reached
            sender = command.at or self._owners[command.slot]
            host = next((server[0] for server, link in self._primaries.items() if link is sender), self._seeds[0][0])
        return self._primary((host, int(error.port)))

    def _primary(self, server: Server) -> ServerLink:
        link = self._primaries.get(server)
        if link is None:
            link = self._primaries[server] = ServerLink(self._node(server), self._slots)
        return link

    # The table of slots

    async def _owner(self, slot: int) -> ServerLink:
        if self._closed:
            raise RedisConnectionError("the link was closed")
        if self._outdated:
            await self._look()
        owner = self._owners[slot]
        if owner is None:
            # Whoever was asked did not know it, as happens for a moment while a slot changes hands; others may.
            self._outdated = True
            owner = next(iter(self._primaries.values()), None)
            if owner is None:
                raise ClusterDownError("no node serves the slot of this key")
        return owner

    async def _look(self) -> None:
        """Fetch the table, unless there is one and somebody else is fetching another, or has just done so."""
        if self._fetched and (self._lock.locked() or asyncio.get_running_loop().time() < self._not_before):
            return
        before = self._fetched
        async with self._lock:
            if self._fetched != before:
                return
            # From here on, whoever is redirected knows better than the answer; but nobody does without a table.
            self._outdated = not self._fetched
            try:
                server, answer = await self._ask()
            except BaseException as error:
                self._outdated = True
                self._not_before = asyncio.get_running_loop().time() + _PAUSE
                if self._fetched and isinstance(error, (RedisError, OSError)):
                    return  # the table that there is may be right for this key
                raise
            gone = self._read(server, answer)
            if not self._fetched:
                self._outdated = False
            self._fetched += 1
            self._not_before = asyncio.get_running_loop().time() + _PAUSE
        for link in gone:
            await link.leave()

    async def _ask(self) -> tuple[Server, Any]:
        known = list(dict.fromkeys([*self._primaries, *self._replicas, *self._seeds]))
        # Others each time: those that were asked last may have been the ones that hang.
        self._turn += _ASKED
        at = self._turn % len(known)
        known = known[at:] + known[:at]
        for some in range(0, len(known), _ASKED):
            try:
                return await first([self._ask_one(server) for server in known[some : some + _ASKED]])
            except (RedisError, OSError):
                if some + _ASKED >= len(known):
                    raise
        raise AssertionError("a cluster has seeds")

    async def _ask_one(self, server: Server) -> tuple[Server, Any]:
        connection = self._node(server).make_connection()  # type: ignore[no-untyped-call]
        return server, await ask(connection, "CLUSTER", "SLOTS")

    def _read(self, asked: Server, answer: Any) -> list[ServerLink]:
        """Takes over the table; returns the links to nodes that are no primaries any more."""
        owners: list[ServerLink | None] = [None] * _SLOTS
        primaries: dict[Server, ServerLink] = {}
        replicas: list[Server] = []
        for begin, end, *nodes in answer:
            servers = [_server(node, asked) for node in nodes]
            link = primaries[servers[0]] = self._primary(servers[0])
            owners[begin : end + 1] = [link] * (end + 1 - begin)
            replicas += servers[1:]
        gone = [link for server, link in self._primaries.items() if server not in primaries]
        self._owners, self._primaries, self._replicas = owners, primaries, tuple(dict.fromkeys(replicas))
        return gone

    def _next_server(self) -> Server:
        known = list(self._primaries) or self._seeds
        self._turn += 1
        return known[self._turn % len(known)]


async def _send(link: ServerLink, commands: Sequence[_Command]) -> None:
    words: list[Sequence[Any]] = []
    for command in commands:
        if command.asking:
            words.append(("ASKING",))  # holds for the next command of the connection
        words.append(command.words)
    answers = iter(await link.pipeline(words))
    for command in commands:
        if command.asking:
            next(answers)
        command.answer = next(answers)


def _slot_of(words: Sequence[Any]) -> int:
    name, *rest = words
    position = 2 if name in ("EVAL", "EVALSHA") else 0
    if len(rest) <= position or (position and int(rest[1]) == 0):
        return 0
    key = rest[position]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _server(node: Sequence[Any], asked: Server) -> Server:
    # A node that does not know its own address leaves it to the one by which it was reached.
    host = (node[0] or b"").decode()
    return asked[0] if host in ("", "?") else host, int(node[1])
