"""The connections of one event loop to Redis.

Connecting, the protocol and reconnecting are redis-py's; its client and its pool are left out. Borrowing a connection
from the pool, retrying and measuring each command is a third of a client's work on a small answer (see the benchmark
`l2_hit`), and the guard above does the last two anyway.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

_Connection = Any  # an `AbstractConnection` of redis-py, many methods of which are not typed


class Script:
    """A Lua script, with the name by which Redis remembers it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Link:
    """The connections of one event loop, and how many commands may be under way at once.

    Args:
        pool: makes connections, of our settings: with no timeouts, since the caller sets the deadline by cancelling.
        limit: connections at most, ≥ 1. Commands wait for their turn.
    """

    __slots__ = ("_closed", "_idle", "_pool", "_slots")

    def __init__(self, pool: ConnectionPool, limit: int) -> None:
        self._pool = pool
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[_Connection] = []
        self._closed = False

    async def execute(self, *command: Any) -> Any:
        """Run one command."""
        async with self._connection() as connection:
            await connection.send_command(*command)
            return await connection.read_response()

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands in one round trip. Those that Redis refuses have the error as their answer."""
        answers: list[Any] = []
        async with self._connection() as connection:
            await connection.send_packed_command(connection.pack_commands(commands))
            for _command in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
        return answers

    async def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | int] = ()) -> Any:
        """Run a script, which Redis gets to know when it does not know it yet."""
        # `_connection` written out: a context manager would cost every hit.
        await self._slots.acquire()
        try:
            connection = await self._take()
            try:
                await connection.send_command("EVALSHA", script.sha, len(keys), *keys, *arguments)
                try:
                    return await connection.read_response()
                except NoScriptError:
                    await connection.send_command("EVAL", script.text, len(keys), *keys, *arguments)
                    return await connection.read_response()
            except ReadOnlyError:
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._give(connection)
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        """Close all connections; those in use when their command ends."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect()
        await self._pool.aclose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
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

    async def _take(self) -> _Connection:
        if self._idle:
            connection = self._idle.pop()
            if connection.is_connected:
                # What can be read before anything was asked is the end of the connection, or nothing that is ours.
                if not connection.should_reconnect() and not await connection.can_read():
                    return connection
                await connection.disconnect(nowait=True)
        else:
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except BaseException:
            await self._give(connection)
            raise
        return connection

    async def _give(self, connection: _Connection) -> None:
        # Where an answer is still to come, because of an error or a cancellation, redis-py has closed it already.
        if self._closed:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)
