"""Which Redis there is, as one record, and the links to it: one server, the primary behind sentinels, or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from aurelis.cache._redis_url import Kind, parse_redis_url
from aurelis.cache.config import CacheConfig
from aurelis.cache.exceptions import ConfigurationError

from ._cluster import ClusterLink, Server
from ._connections import PlainConnection, PrimaryConnection, SocketConnection, TLSConnection, TLSPrimaryConnection
from ._link import Link, ServerLink
from ._sentinel import Sentinels, primary_pool
from ._tls import Certificates

_OPTIONS = "redis_url is refused by redis-py ({}): check the options after the '?'"
_SENTINEL = "sentinel_"
# Options of the servers that are the sentinels', too.
_SHARED = ("socket_", "ssl_")
# What a connection needs, and an option of the URL must not say.
_RESERVED = ("certificates", "connection_class", "connection_pool", "host", "path", "port", "redis_connect_func")


@dataclass(frozen=True, slots=True)
class Topology:
    """The servers, and the options of connections to them.

    Attributes:
        kind: one `server`, one on a `socket`, the primary behind `sentinel`s, or a `cluster`.
        servers: host and port of the server, the sentinels, or some nodes of the cluster; none for a socket.
        path: of the socket.
        service: the name by which the sentinels know the servers.
        limit: commands under way at once, ≥ 1; also connections to each server.
        tls: connections are encrypted.
        options: arguments of redis-py's connections to servers.
        sentinel_options: to sentinels.
    """

    kind: Kind
    servers: tuple[Server, ...]
    path: str
    service: str
    limit: int
    tls: bool
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, config: CacheConfig) -> Topology:
        """What a configuration says; connects to nothing.

        Raises:
            ConfigurationError: it has no URL, or redis-py refuses an option. The text repeats nothing of the URL.
        """
        if config.redis_url is None:
            raise ConfigurationError("RedisBackend needs redis_url=, for instance redis://127.0.0.1:6379/0")
        url = parse_redis_url(config.redis_url)
        try:
            given: dict[str, Any] = {**parse_url(f"redis://host?{url.query}")}
        except ValueError as error:
            raise ConfigurationError(_OPTIONS.format(type(error).__name__)) from None
        del given["host"]
        limit = given.pop("max_connections", None) or config.redis_max_connections
        sentinels = {name: given.pop(name) for name in list(given) if name.startswith(_SENTINEL)}
        if url.kind == "cluster" and given.pop("db", 0):
            raise ConfigurationError("redis_url: a cluster has no databases; leave db= out")
        if limit < 0 or any(name in given for name in _RESERVED) or (sentinels and url.kind != "sentinel"):
            raise ConfigurationError(_OPTIONS.format("ValueError"))
        options = _settings() | {"password": config.redis_password, "db": url.database} | given
        options |= _given({"username": url.username, "password": url.password})
        to_sentinels = _settings() | {name: value for name, value in given.items() if name.startswith(_SHARED)}
        to_sentinels |= {name.removeprefix(_SENTINEL): value for name, value in sentinels.items()}
        tls = url.tls or (config.redis_ssl and url.kind != "socket")
        return cls(
            url.kind,
            url.servers,
            url.path,
            url.service,
            # The URL may ask for fewer connections than we do.
            min(config.redis_max_connections, limit),
            tls,
            _checked(_class(url.kind, tls), _given(options)),
            _checked(_class(url.kind, tls), to_sentinels) if url.kind == "sentinel" else {},
        )

    def link(self) -> Link:
        """The connections of the event loop that runs; none is opened yet."""
        if self.kind == "cluster":
            return ClusterLink(self.servers, self._pool, self._subscribers, self.limit)
        slots = asyncio.Semaphore(self.limit)
        if self.kind == "sentinel":
            sentinels = Sentinels(self.servers, _class(self.kind, self.tls), self.sentinel_options)
            managed = TLSPrimaryConnection if self.tls else PrimaryConnection
            return ServerLink(
                primary_pool(self.service, sentinels, {**self.options, "connection_class": managed}), slots
            )
        return ServerLink(self._pool(self.servers[0] if self.servers else None), slots)

    def _pool(self, server: Server | None) -> ConnectionPool:
        where = {"path": self.path} if server is None else {"host": server[0], "port": server[1]}
        return ConnectionPool(_class(self.kind, self.tls), **where, **self.options)

    def _subscribers(self, choose: Callable[[], Server]) -> ConnectionPool:
        return ConnectionPool(_TLSSubscriber if self.tls else _Subscriber, choose=choose, **self.options)


class _Subscriber(PlainConnection):
    """A connection to a node that is chosen each time it connects."""

    def __init__(self, *, choose: Callable[[], Server], **options: Any) -> None:
        super().__init__(**options)
        self._choose = choose

    async def _connect(self) -> None:
        self.host, self.port = self._choose()
        await super()._connect()  # type: ignore[no-untyped-call]


class _TLSSubscriber(_Subscriber, TLSConnection):
    """The same, encrypted."""


def _class(kind: Kind, tls: bool) -> type[AbstractConnection]:
    if kind == "socket":
        return SocketConnection
    return TLSConnection if tls else PlainConnection


def _settings() -> dict[str, Any]:
    # No retries and no timeouts: the caller sets the deadline by cancelling.
    return {
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        "decode_responses": False,
        # They are for redis-py's pool, and would cost each new connection a round trip.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    # `None` means no timeout there, and would be "left out" elsewhere.
    return {name: value for name, value in options.items() if value is not None or name.startswith("socket_")}


def _checked(connection_class: type[AbstractConnection], options: dict[str, Any]) -> dict[str, Any]:
    """The options, once redis-py takes them; with the certificates that they name, where there are some."""
    try:
        if connection_class is not TLSConnection:
            connection_class(**options)  # opens nothing, and refuses options that it does not know
        else:
            options["certificates"] = Certificates(SSLConnection(**options).ssl_context)
    except OSError as error:
        raise ConfigurationError(
            f"redis_url names a file for TLS that cannot be used ({type(error).__name__}): check ssl_ca_certs, "
            "ssl_certfile and ssl_keyfile"
        ) from None
    except (ValueError, TypeError, RedisError) as error:
        # The text of the cause may repeat the URL, which may hold a password.
        raise ConfigurationError(_OPTIONS.format(type(error).__name__)) from None
    if options["decode_responses"]:
        raise ConfigurationError("redis_url: values are bytes, so decode_responses cannot be on")
    return options
