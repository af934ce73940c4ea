"""The connections of one event loop to Redis.

Connecting, the protocol and reconnecting are redis-py's; its client and its pool are left out. Borrowing a connection
from the pool, retrying and measuring each command is a third of a client's work on a small answer (see the benchmark
`l2_hit`), and the guard above does the last two anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Protocol, TypeVar, cast

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.client import PubSub
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

Connection = Any
"""An `AbstractConnection` of redis-py, many methods of which are not typed."""
Call = tuple[Sequence[bytes], Sequence[bytes | int]]
"""Keys and arguments of a script."""
T = TypeVar("T")

_FAREWELL = 1.0
"""Seconds that closing waits for a server."""


class Script:
    """A Lua script, with the name by which Redis remembers it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def known(self, keys: Sequence[bytes], arguments: Sequence[bytes | int]) -> tuple[Any, ...]:
        """The command that runs it where it is known."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def told(self, keys: Sequence[bytes], arguments: Sequence[bytes | int]) -> tuple[Any, ...]:
        """The command that runs it anywhere, and makes it known there."""
        return ("EVAL", self.text, len(keys), *keys, *arguments)


class Link(Protocol):
    """What commands need, whatever the servers' topology.

    Nothing here has a deadline or is tried again when a connection is lost: the caller cancels, and decides. Failures
    are `RedisError` or `OSError`. The keys of a command are its first argument, or what an `EVAL` names as such.
    """

    @property
    def single(self) -> bool:
        """Whether all keys are on one server, which runs the commands of a pipeline in their order."""
        ...

    async def execute(self, *command: Any) -> Any:
        """Run one command."""
        ...

    async def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | int] = ()) -> Any:
        """Run a script on at least one key, all of one slot; Redis gets to know it when it does not know it yet."""
        ...

    async def scripts(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script several times: one round trip to each server, all at once.

        A call that Redis refuses has the error as its answer.
        """
        ...

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run several commands: as `scripts`."""
        ...

    def split(self, names: Sequence[bytes]) -> list[list[int]]:
        """Positions of the names in groups that one command or script may take together; none without names."""
        ...

    def scan(self, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]:
        """The names of all servers that match a pattern, in batches of one round trip each.

        A name that is there all the time comes at least once, unless its slot moves to another server meanwhile.
        """
        ...

    def pubsub(self) -> PubSub:
        """A subscriber with a connection of its own, which does not count as a command under way; close it.

        Messages published through `execute` reach it. Once its connection is lost it connects anew, to another server
        if need be, as often as it is asked for a message.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections; those in use when their command ends."""
        ...


class ServerLink:
    """The connections to one server.

    Args:
        pool: makes connections, of our settings: with no timeouts, since the caller sets the deadline by cancelling.
            They may lead to another server later, to which the name has moved.
        slots: lets only so many commands be under way at once; there are never more connections.
    """

    __slots__ = ("_closed", "_connections", "_idle", "_pool", "_server", "_slots")

    single = True

    def __init__(self, pool: ConnectionPool, slots: asyncio.Semaphore) -> None:
        self._pool = pool
        self._slots = slots
        self._connections: list[Connection] = []
        self._idle: list[Connection] = []
        self._server: tuple[Any, Any] | None = None
        self._closed = False

    async def execute(self, *command: Any) -> Any:
        """Run one command."""
        async with self._connection() as connection:
            await connection.send_packed_command(pack_command(command))
            return await connection.read_response()

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands in one round trip, in their order. Those that Redis refuses have the error as their answer."""
        answers: list[Any] = []
        demoted = False
        if not commands:  # from Python 3.12 on, an event loop would try for ever to send nothing
            return answers
        async with self._connection() as connection:
            await connection.send_packed_command(b"".join([pack_command(tuple(command)) for command in commands]))
            for _command in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
                    demoted = demoted or isinstance(error, ReadOnlyError)
            if demoted:
                await connection.disconnect(nowait=True)
        return answers

    async def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | int] = ()) -> Any:
        """Run a script, which Redis gets to know when it does not know it yet."""
        # `_connection` written out: a context manager would cost every hit.
        await self._slots.acquire()
        try:
            connection = await self._take()
            try:
                await connection.send_packed_command(pack_command(script.known(keys, arguments)))
                try:
                    return await connection.read_response()
                except NoScriptError:
                    await connection.send_packed_command(pack_command(script.told(keys, arguments)))
                    return await connection.read_response()
            except ReadOnlyError:
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._give(connection)
        finally:
            self._slots.release()

    async def scripts(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script several times in one round trip, in their order."""
        answers = await self.pipeline([script.known(keys, arguments) for keys, arguments in calls])
        unknown = [position for position, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            told = await self.pipeline([script.told(*calls[position]) for position in unknown])
            for position, answer in zip(unknown, told, strict=True):
                answers[position] = answer
        return answers

    def split(self, names: Sequence[bytes]) -> list[list[int]]:
        """All positions: one server has all slots."""
        return [list(range(len(names)))] if names else []

    async def scan(self, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]:
        """The names that match a pattern, in batches."""
        cursor = 0
        while True:
            answer = await self.execute("SCAN", cursor, "MATCH", pattern, "COUNT", count)
            cursor = int(answer[0])
            yield answer[1]
            if cursor == 0:
                return

    def pubsub(self) -> PubSub:
        """A subscriber with a connection of its own."""
        return PubSub(self._pool)

    async def aclose(self) -> None:
        """Close all connections; those in use when their command ends."""
        self._closed = True
        idle, self._idle = self._idle, []
        closing = [connection.disconnect() for connection in idle]
        with contextlib.suppress(TimeoutError):  # a server that hangs does not say farewell, which TLS waits for
            async with asyncio.timeout(_FAREWELL):
                await asyncio.gather(*closing, self._pool.aclose(), return_exceptions=True)

    async def leave(self) -> None:
        """Close all connections without a farewell, since the server may be gone."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._slots:
            connection = await self._take()
            try:
                yield connection
            except ReadOnlyError:
                # A primary once: the name may belong to another server now.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._give(connection)

    async def _take(self) -> Connection:
        if self._idle:
            connection = self._idle.pop()
            if connection.is_connected:
                # What can be read before anything was asked is the end of the connection, or nothing that is ours.
                if not connection.should_reconnect() and not await connection.can_read():
                    return connection
                await connection.disconnect(nowait=True)
        else:
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            self._connections.append(connection)
        try:
            await connection.connect()
        except BaseException:
            await self._give(connection)
            raise
        self._reached(connection)
        return connection

    async def _give(self, connection: Connection) -> None:
        # Where an answer is still to come, because of an error or a cancellation, redis-py has closed it already.
        if self._closed:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)

    def _reached(self, connection: Connection) -> None:
        """Leave the server that was the primary before this one: when it hangs, nothing else tells."""
        server = _server(connection)
        if server != self._server:
            self._server = server
            for other in self._connections:
                if _server(other) != server:
                    other.mark_for_reconnect()


def _server(connection: Connection) -> tuple[Any, Any]:
    return getattr(connection, "host", None), getattr(connection, "port", None)  # a socket has neither


async def ask(connection: Connection, *command: Any) -> Any:
    """Connect, run one command and disconnect."""
    try:
        await connection.connect()
        await connection.send_command(*command)
        return await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)


async def first(asked: Sequence[Coroutine[Any, Any, T]]) -> T:
    """The first result; the others, which may hang, are cancelled.

    Raises:
        RedisError, OSError: all of them failed; the last one's error.
    """
    tasks = [asyncio.ensure_future(one) for one in asked]
    problem: Exception = RedisError("nobody was asked")
    try:
        for done in asyncio.as_completed(tasks):
            try:
                return await done
            except (RedisError, OSError) as error:
                problem = error
        raise problem
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, once all have ended; then the first error, if there is one."""
    if len(calls) == 1:
        return [await calls[0]]
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast(list[T], results)
