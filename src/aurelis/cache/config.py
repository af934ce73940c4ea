"""Configuration: which layers there are, how long they keep things, and how long a request may wait for them."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from ._options import Duration, seconds
from .exceptions import ConfigurationError, MissingExtraError

_BACKENDS = ("memory", "redis")
_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """One layer of a cache.

    Attributes:
        name: for people; unique within a configuration.
        backend: `memory` (in the process) or `redis` (shared by all processes).
        ttl: seconds (or timedelta) that this layer keeps a value when the caller gives no ttl. In a layer above a
            shared one it also caps the caller's ttl. `math.inf`: never expires.
        max_size: entries at most, in memory; `None`: the configuration's `max_size`.
        priority: a layer with a higher one is asked first.

    Raises:
        ConfigurationError: a value is out of range; the message says which and what is accepted.
    """

    name: str
    backend: Literal["memory", "redis"] | str
    ttl: Duration
    max_size: int | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("CacheLayer.name must not be empty")
        if self.backend not in _BACKENDS:
            raise ConfigurationError(
                f"CacheLayer {self.name!r}: unknown backend {self.backend!r}; known are {', '.join(_BACKENDS)}"
            )
        _positive_duration(f"CacheLayer {self.name!r}: ttl", self.ttl)
        if self.max_size is not None and self.max_size < 1:
            raise ConfigurationError(f"CacheLayer {self.name!r}: max_size must be 1 or more, not {self.max_size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """How a cache is built. Without arguments: in memory only.

    Attributes:
        redis_url: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and options as redis-py writes them;
            adds a layer shared by all processes. Needs the extra `redis`.
        redis_password: used when the URL has none.
        redis_ssl: TLS also for a `redis://` URL.
        layers: all layers explicitly, in place of those that follow from the other options.
        namespace: first part of every key; caches with one namespace on one Redis share their entries.
        name: name of this cache in telemetry; a few fixed names, never one per user or request.
        serialization: `msgpack`.
        types: enums, dataclasses, named tuples and pydantic models that values may contain.
        copy: `False` keeps any object by reference, unpacked and uncopied; for memory alone.
        max_size: entries at most in memory.
        max_bytes: bytes at most in memory, keys and values, approximately.
        ttl: seconds that a value lives when the caller gives no ttl.
        l1_ttl: seconds that memory keeps a value at most when there is a shared layer below it.
        timeout: seconds that one request may wait for shared layers in total, reading and writing.
        breaker_failures: failures in a row after which a shared layer is left alone.
        breaker_pause: seconds for which it is left alone before one request tries it again.
        redis_max_connections: connections at most per event loop.
        secret: keys the hashes that stand for credentials in keys. Processes that share entries need the same one. When
            left out it is derived from the namespace, which does not protect guessable credentials (passwords) from
            someone who can read the keys in Redis.
        spans: `io`: spans for what leaves memory; `all`: also for hits in memory; `none`.
        span_attributes: whether the result of a hit in memory is set on the current span.

    Raises:
        ConfigurationError: a value is out of range or two contradict each other.
        MissingExtraError: a layer needs a package that is not installed.
    """

    redis_url: str | None = field(default=None, repr=False)
    redis_password: str | None = field(default=None, repr=False)
    redis_ssl: bool = False
    layers: Sequence[CacheLayer] | None = None
    namespace: str = "aurelis"
    name: str = "default"
    serialization: str = "msgpack"
    types: Sequence[type] = ()
    copy: bool = True
    max_size: int = 10_000
    max_bytes: int = 64 * 2**20
    ttl: Duration = 3600.0
    l1_ttl: Duration = 300.0
    timeout: Duration = 0.25
    breaker_failures: int = 5
    breaker_pause: Duration = 1.0
    redis_max_connections: int = 64
    secret: str | bytes | None = field(default=None, repr=False)
    spans: Literal["none", "io", "all"] = "io"
    span_attributes: bool = True

    def __post_init__(self) -> None:
        if not self.namespace:
            raise ConfigurationError("namespace must not be empty")
        if not self.name:
            raise ConfigurationError("name must not be empty: telemetry tells caches apart by it")
        if self.serialization != "msgpack":
            raise ConfigurationError(_why_not(self.serialization))
        for name in ("max_size", "max_bytes", "breaker_failures", "redis_max_connections"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {value!r}")
        for name in ("ttl", "l1_ttl", "timeout", "breaker_pause"):
            _positive_duration(name, getattr(self, name))
        if self.spans not in ("none", "io", "all"):
            raise ConfigurationError(f"spans must be 'none', 'io' or 'all', not {self.spans!r}")
        if self.redis_url is not None:
            _check_redis_url(self.redis_url)
        _check_layers(self.effective_layers(), self)

    def effective_layers(self) -> tuple[CacheLayer, ...]:
        """The layers in the order in which they are asked."""
        if self.layers is not None:
            return tuple(sorted(self.layers, key=lambda layer: -layer.priority))
        if self.redis_url is None:
            return (CacheLayer("L1_memory", "memory", self.ttl, priority=3),)
        return (
            CacheLayer("L1_memory", "memory", min(seconds(self.l1_ttl), seconds(self.ttl)), priority=3),
            CacheLayer("L2_redis", "redis", self.ttl, priority=2),
        )

    def hash_key(self) -> bytes:
        """32 bytes that key the hashes of credentials."""
        if self.secret is None:
            return hashlib.blake2b(self.namespace.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        secret = self.secret.encode() if isinstance(self.secret, str) else self.secret
        return hashlib.blake2b(secret, digest_size=32, person=b"aurelis-cache").digest()


def _positive_duration(name: str, value: Duration) -> None:
    try:
        number = seconds(value, name)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(str(error)) from None
    if number == 0:
        raise ConfigurationError(f"{name} must be more than 0 seconds")


def _why_not(serialization: str) -> str:
    if serialization == "pickle":
        return (
            "serialization='pickle' is refused: whoever can write to the store could run code in this process; "
            "use 'msgpack' and name your classes in types=[...]"
        )
    return f"serialization must be 'msgpack', not {serialization!r}"


def _check_redis_url(url: str) -> None:
    # The URL may carry a password, so no message repeats it.
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"redis_url cannot be parsed: {type(error).__name__}") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"redis_url has the scheme {parts.scheme!r}; accepted are "
            + ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        )
    if parts.scheme == "unix":
        if not parts.path:
            raise ConfigurationError("redis_url: unix:// needs the path of the socket")
        return
    if not parts.hostname or port == 0:
        raise ConfigurationError("redis_url needs a host, for instance redis://127.0.0.1:6379/0")
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise ConfigurationError("redis_url: the path names the database and must be a number")


def _check_layers(layers: tuple[CacheLayer, ...], config: CacheConfig) -> None:
    if not layers:
        raise ConfigurationError("layers must name at least one layer")
    names = [layer.name for layer in layers]
    if len(set(names)) != len(names):
        raise ConfigurationError("layers: two layers have the same name")
    backends = [layer.backend for layer in layers]
    if len(set(backends)) != len(backends):
        raise ConfigurationError("layers: each backend can be used once")
    if "memory" in backends and backends[0] != "memory":
        raise ConfigurationError("layers: memory must have the highest priority, or a hit in it would never be fast")
    if "redis" in backends:
        if config.redis_url is None:
            raise ConfigurationError("layers: a redis layer needs redis_url=")
        if not config.copy:
            raise ConfigurationError("copy=False keeps objects by reference and works with memory alone")
        if not _is_installed("redis"):
            raise MissingExtraError("redis", "a Redis layer")
    elif config.redis_url is not None:
        raise ConfigurationError("redis_url is given but layers name no redis layer")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # an import hook refuses it, or something else goes by its name
        return False


__all__ = ["CacheConfig", "CacheLayer"]
