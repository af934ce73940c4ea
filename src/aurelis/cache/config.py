"""Configuration: which layers there are, how long they keep things, and how long a request may wait for them."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ._options import Duration, EntryOptions, seconds, whole, yes_or_no
from ._redis_url import parse_redis_url
from .codecs import MAX_BYTES, THRESHOLD, Framing, Keys, Method, make_framing
from .exceptions import ConfigurationError, MissingExtraError
from .telemetry._bounded import require_label

_BACKENDS = ("memory", "redis", "disk")


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """One layer of a cache.

    Attributes:
        name: for people; unique within a configuration.
        backend: `memory` (in the process), `redis` (shared by all processes) or `disk` (shared by those of a machine).
        ttl: seconds (or timedelta) that this layer keeps a value when the caller gives no ttl. In a layer above a
            shared one it also caps the caller's ttl. `math.inf`: never expires.
        max_size: entries at most, in memory or on the disk; `None`: the configuration's `max_size` or `disk_max_size`.
        priority: a layer with a higher one is asked first.

    Raises:
        ConfigurationError: a value is out of range; the message says which and what is accepted.
    """

    name: str
    backend: Literal["memory", "redis", "disk"] | str
    ttl: Duration
    max_size: int | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        _text("CacheLayer.name", self.name)
        if self.backend not in _BACKENDS:
            raise ConfigurationError(
                f"CacheLayer {self.name!r}: unknown backend {self.backend!r}; known are {', '.join(_BACKENDS)}"
            )
        _positive_duration(f"CacheLayer {self.name!r}: ttl", self.ttl)
        if self.max_size is not None:
            whole(f"CacheLayer {self.name!r}: max_size", self.max_size)
        priority: object = self.priority
        if isinstance(priority, bool) or not isinstance(priority, (int, float)) or math.isnan(priority):
            raise ConfigurationError(f"CacheLayer {self.name!r}: priority must be a number, not {self.priority!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """How a cache is built. Without arguments: in memory only.

    Attributes:
        redis_url: `redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://h1:p1,h2:p2/SERVICE/DB` or
            `redis+cluster://h1:p1,h2:p2`, with user, password and options as redis-py writes them; adds a layer shared
            by all processes. Needs the extra `redis`.
        redis_password: used when the URL has none.
        redis_ssl: TLS also for a URL that begins with `redis`.
        cache_dir: a folder; adds a layer on the disk that lasts longer than processes, and that all processes of this
            machine share which name the same folder. Made when it is not there, for nobody else's eyes.
        layers: all layers explicitly, in place of those that follow from the other options.
        namespace: first part of every key; caches with one namespace on one Redis share their entries.
        name: name of this cache in telemetry, up to 128 printable characters; a few fixed names, never one per user or
            request.
        serialization: `msgpack`.
        compression: `zstd` (Python 3.14, or the extra `zstd`) or `gzip`: what is stored below memory is made smaller.
        compression_threshold: bytes from which on a value is compressed.
        compression_max_bytes: bytes at most of what is compressed. What would have more when it is unpacked is damaged,
            and counts as missing.
        encryption_key: what is stored below memory is encrypted. 32 random bytes, or their text in hexadecimal or
            base64; or several keys, of which the first encrypts and all decrypt. Needs the extra `crypto`.
        types: enums, dataclasses, named tuples and pydantic models that values may contain.
        copy: `False` keeps any object by reference, unpacked and uncopied; for memory alone.
        max_size: entries at most in memory.
        max_bytes: bytes at most in memory, keys and values, approximately.
        disk_max_size: entries at most on the disk.
        disk_max_bytes: bytes at most on the disk, approximately.
        ttl: seconds that a value lives when the caller gives no ttl.
        l1_ttl: seconds that memory keeps a value at most when there is a shared layer below it.
        timeout: seconds that one request may wait for shared layers in total, reading and writing.
        breaker_failures: failures in a row after which a shared layer is left alone.
        breaker_pause: seconds for which it is left alone before one request tries it again.
        lease: seconds for which a process that loads something keeps others from loading it, renewed while it does.
            When it dies, another one takes over after this time.
        heartbeat: seconds between signs of life among processes; one that misses two of them relies on nothing in its
            memory before it has asked the shared layer.
        redis_max_connections: commands under way at most per event loop, and connections to each server.
        secret: keys the hashes that stand for credentials in keys. Processes that share entries need the same one. When
            left out it is derived from the namespace, which does not protect guessable credentials (passwords) from
            someone who can read the keys in Redis.
        categories: `EntryOptions` by category, for `UnifiedCacheManager`. What a call says itself wins.
        spans: `io`: spans for what leaves memory; `all`: also for hits in memory; `none`.
        span_attributes: whether the result of a hit in memory is set on the current span.
        span_keys: `none`: spans say nothing of keys; `hash`: they have a hash of the key, by which those of one key are
            found. Needs a `secret`, without which keys could be found out by trying.

    Raises:
        ConfigurationError: a value is out of range or two contradict each other.
        MissingExtraError: a layer, compression or encryption needs a package that is not installed.
    """

    redis_url: str | None = field(default=None, repr=False)
    redis_password: str | None = field(default=None, repr=False)
    redis_ssl: bool = False
    cache_dir: str | os.PathLike[str] | None = None
    layers: Sequence[CacheLayer] | None = None
    namespace: str = "aurelis"
    name: str = "default"
    serialization: str = "msgpack"
    compression: Method | None = None
    compression_threshold: int = THRESHOLD
    compression_max_bytes: int = MAX_BYTES
    encryption_key: Keys | None = field(default=None, repr=False)
    types: Sequence[type] = ()
    copy: bool = True
    max_size: int = 10_000
    max_bytes: int = 64 * 2**20
    disk_max_size: int = 100_000
    disk_max_bytes: int = 2**30
    ttl: Duration = 3600.0
    l1_ttl: Duration = 300.0
    timeout: Duration = 0.25
    breaker_failures: int = 5
    breaker_pause: Duration = 1.0
    lease: Duration = 10.0
    heartbeat: Duration = 5.0
    redis_max_connections: int = 64
    secret: str | bytes | None = field(default=None, repr=False)
    categories: Mapping[str, EntryOptions] | None = None
    spans: Literal["none", "io", "all"] = "io"
    span_attributes: bool = True
    span_keys: Literal["none", "hash"] = "none"

    def __post_init__(self) -> None:
        _text("namespace", self.namespace)
        _text("name", self.name, ": telemetry tells caches apart by it")
        require_label("name", self.name)
        if self.serialization != "msgpack":
            raise ConfigurationError(_why_not(self.serialization))
        for name in (
            "max_size",
            "max_bytes",
            "disk_max_size",
            "disk_max_bytes",
            "compression_threshold",
            "compression_max_bytes",
            "breaker_failures",
            "redis_max_connections",
        ):
            whole(name, getattr(self, name))
        for name in ("copy", "redis_ssl", "span_attributes"):
            yes_or_no(name, getattr(self, name))
        for name in ("ttl", "l1_ttl", "timeout", "breaker_pause", "lease", "heartbeat"):
            _positive_duration(name, getattr(self, name))
        for name in ("lease", "heartbeat"):
            if seconds(getattr(self, name)) == math.inf:
                raise ConfigurationError(f"{name} must be finite: otherwise nobody ever notices that a process is gone")
        if self.redis_password is not None and not isinstance(self.redis_password, str):
            raise ConfigurationError(f"redis_password must be a str, not {type(self.redis_password).__name__}")
        if self.spans not in ("none", "io", "all"):
            raise ConfigurationError(f"spans must be 'none', 'io' or 'all', not {self.spans!r}")
        if self.span_keys not in ("none", "hash"):
            raise ConfigurationError(f"span_keys must be 'none' or 'hash', not {self.span_keys!r}")
        if self.secret is not None:
            _check_secret(self.secret)
        elif self.span_keys == "hash":
            raise ConfigurationError("span_keys='hash' needs secret=: without one, keys could be found out by trying")
        _sequence("types", self.types, "classes", type)
        if self.categories is not None:
            require_categories("categories", self.categories)
        if self.redis_url is not None:
            parse_redis_url(self.redis_url)
        if self.cache_dir is not None:
            _check_folder(self.cache_dir)
        if self.layers is not None:
            _sequence("layers", self.layers, "CacheLayer(...)", CacheLayer)
        self.framing()
        _check_layers(self.effective_layers(), self)

    def effective_layers(self) -> tuple[CacheLayer, ...]:
        """The layers in the order in which they are asked."""
        if self.layers is not None:
            return tuple(sorted(self.layers, key=lambda layer: -layer.priority))
        lower = []
        if self.redis_url is not None:
            lower.append(CacheLayer("L2_redis", "redis", self.ttl, priority=2))
        if self.cache_dir is not None:
            lower.append(CacheLayer("L3_disk", "disk", self.ttl, priority=1))
        memory_ttl = min(seconds(self.l1_ttl), seconds(self.ttl)) if lower else self.ttl
        return (CacheLayer("L1_memory", "memory", memory_ttl, priority=3), *lower)

    def framing(self) -> Framing:
        """How what is stored below memory is compressed and encrypted."""
        return make_framing(
            self.namespace,
            compression=self.compression,
            threshold=self.compression_threshold,
            max_bytes=self.compression_max_bytes,
            encryption_key=self.encryption_key,
        )

    def hash_key(self) -> bytes:
        """32 bytes that key the hashes of credentials, and those of keys in spans."""
        if self.secret is None:
            return hashlib.blake2b(self.namespace.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        secret = self.secret.encode() if isinstance(self.secret, str) else self.secret
        return hashlib.blake2b(secret, digest_size=32, person=b"aurelis-cache").digest()


def require_config(what: str, config: object) -> None:
    """Refuse what is no configuration, a URL for instance.

    Raises:
        ConfigurationError: it is something else.
    """
    if not isinstance(config, CacheConfig):
        raise ConfigurationError(
            f"{what} takes a CacheConfig, not {type(config).__name__}: write {what}(CacheConfig(redis_url=...))"
        )


def require_categories(what: str, categories: object) -> None:
    """Refuse what does not say options by category.

    Raises:
        ConfigurationError: it does not.
    """
    if not isinstance(categories, Mapping):
        raise ConfigurationError(f"{what} must be a mapping of names to EntryOptions, not {type(categories).__name__}")
    for name, options in categories.items():
        if not isinstance(name, str) or not isinstance(options, EntryOptions):
            wrong = type(name if not isinstance(name, str) else options).__name__
            raise ConfigurationError(f"{what} maps names to EntryOptions, and has a {wrong}")


def _text(name: str, value: object, why: str = "") -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise ConfigurationError(f"{name} must not be empty{why}")


def _check_secret(value: object) -> None:
    if not isinstance(value, (str, bytes)) or not value:
        raise ConfigurationError("secret must be a str or bytes, and not empty; leave it out to have one derived")


def _check_folder(value: object) -> None:
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise ConfigurationError(f"cache_dir must be a str or a path, not {type(value).__name__}")
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise ConfigurationError("cache_dir must be the path of a folder; '.' is the present one")


def _sequence(name: str, value: object, of: str, kind: type) -> None:
    if not isinstance(value, Collection) or not all(isinstance(item, kind) for item in value):
        raise ConfigurationError(f"{name} must be a sequence of {of}: put it into [...]")


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
    if not config.copy and set(backends) != {"memory"}:
        raise ConfigurationError("copy=False keeps objects by reference and works with memory alone")
    if "disk" in backends:
        if config.cache_dir is None:
            raise ConfigurationError("layers: a disk layer needs cache_dir=")
        if backends[-1] != "disk":
            raise ConfigurationError("layers: disk must have the lowest priority, since Redis says what of it counts")
    elif config.cache_dir is not None:
        raise ConfigurationError("cache_dir is given but layers name no disk layer")
    if "redis" in backends:
        if config.redis_url is None:
            raise ConfigurationError("layers: a redis layer needs redis_url=")
        if not is_installed("redis"):
            raise MissingExtraError("redis", "a Redis layer")
    elif config.redis_url is not None:
        raise ConfigurationError("redis_url is given but layers name no redis layer")


def is_installed(package: str) -> bool:
    """Whether it could be imported; it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # an import hook refuses it, or something else goes by its name
        return False


__all__ = ["CacheConfig", "CacheLayer"]
