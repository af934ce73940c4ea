"""Finds the primary through sentinels, and goes on to the next one when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from ._link import Connection, ask, first


class Sentinels:
    """Asks the sentinels where the primary is: all at once, so that one that hangs delays nobody.

    Takes the place of redis-py's `Sentinel`, which asks one after the other and could wait for the first for ever.

    Args:
        servers: host and port of each.
        connection_class: of redis-py.
        options: of the connections to them.
    """

    def __init__(self, servers: Sequence[tuple[str, int]], connection_class: type, options: Mapping[str, Any]) -> None:
        self._servers = servers
        self._connection_class = connection_class
        self._options = options
        self._lock = asyncio.Lock()
        self._answers = 0
        self._primary: tuple[str, int] = ("", 0)

    async def discover_master(self, service: str) -> tuple[str, int]:
        """Host and port of the primary; redis-py calls it by this name before each connection.

        Raises:
            MasterNotFoundError: no sentinel answered, or none knows a primary that is up.
        """
        answers = self._answers
        async with self._lock:
            if self._answers == answers:  # otherwise somebody asked while this one waited
                self._primary = await first([self._ask(*server, service) for server in self._servers])
                self._answers += 1
            return self._primary

    async def _ask(self, host: str, port: int, service: str) -> tuple[str, int]:
        connection = self._connection_class(host=host, port=port, **self._options)
        answer = await ask(connection, "SENTINEL", "MASTER", service)
        facts: dict[bytes, bytes] = answer if isinstance(answer, dict) else dict(zip(*[iter(answer)] * 2, strict=True))
        # A sentinel that was cut off names the old primary, but knows that it is not there.
        if b"_down" in facts[b"flags"]:
            raise MasterNotFoundError("a sentinel says that the primary is down")
        return facts[b"ip"].decode(), int(facts[b"port"])


async def reach_primary(connection: Connection) -> None:
    """Finish connecting, unless it is the server that was the primary: it would answer reads with old values.

    Raises:
        RedisConnectionError: it is a replica, or does not say.
    """
    await connection.on_connect()
    await connection.send_command("ROLE")
    role = await connection.read_response()
    if role[0] != b"master":
        raise RedisConnectionError("the server that the sentinels name is a replica")


def primary_pool(service: str, sentinels: Sentinels, options: Mapping[str, Any]) -> SentinelConnectionPool:
    """Makes connections that ask for the primary whenever they connect."""
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        service, sentinels, redis_connect_func=reach_primary, **options
    )
