"""The engine of a cache, with its layers and counts, put together as the configuration says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ._clock import Clock
from ._engine import Engine
from ._generations import Generations
from ._guard import Guard
from ._keys import escape
from ._listening import Listening
from ._options import seconds
from ._recovery import Recovery
from ._redis_url import parse_redis_url
from ._stack import Stack
from .codecs import Framing, ValueCodec
from .config import CacheConfig, CacheLayer
from .exceptions import ConfigurationError, FrameError
from .http import StoredPart, StoredResponse, VariantIndex
from .layers.memory import MemoryBackend
from .telemetry import names
from .telemetry.otel import DISK_SAMPLE, SIZE_SAMPLE_MEMORY, Telemetry
from .typing import Layer, Newsroom, SharedLayer

if TYPE_CHECKING:
    from .layers._database import Database

_LONGEST_WAIT: Final = 30.0
"""Seconds for which one process waits for another one's transaction at most, however long a request may take."""
_TRUST: Final = 5.0
"""Seconds for which a process relies on what it knows of tags, while it does not hear of invalidations."""


def build_engine(config: CacheConfig, clock: Clock, lower: Sequence[Layer]) -> Engine:
    """The engine; it connects to nothing yet.

    Args:
        lower: the app's own layers, beside those of the configuration.

    Raises:
        ConfigurationError: a layer cannot be built from it, or objects kept by reference would have to leave memory.
    """
    telemetry = Telemetry(
        config.name,
        spans=config.spans,
        span_attributes=config.span_attributes,
        span_hash_key=config.hash_key() if config.span_keys == "hash" else None,
    )
    codec = ValueCodec((*config.types, StoredPart, StoredResponse, VariantIndex))
    framing = config.framing()
    memory: MemoryBackend | None = None
    memory_ttl = 0.0
    guards: list[Guard] = []
    for layer in config.effective_layers():
        if layer.backend == "memory":
            memory_ttl = seconds(layer.ttl)
            memory = MemoryBackend(
                layer.max_size or config.max_size,
                memory_ttl,
                max_bytes=config.max_bytes,
                copy=config.copy,
                codec=codec,
                clock=clock,
            )
            _observe_memory(telemetry, memory)
        elif layer.backend == "redis":
            guards.append(_redis(layer, config, codec, framing, clock, telemetry))
    if lower:
        if not config.copy:
            raise ConfigurationError("copy=False keeps objects by reference and works with memory alone")
        memory_ttl = min(memory_ttl, seconds(config.l1_ttl))
    guards += [_guarded(layer, seconds(config.ttl), config, clock, telemetry) for layer in lower]
    for layer in config.effective_layers():
        if layer.backend == "disk":
            shared_above = next((guard for guard in guards if isinstance(guard.layer, SharedLayer)), None)
            at = 0 if shared_above is None else len(guards)  # one that shares is asked before those that do not
            guards.insert(at, _disk(layer, shared_above, config, codec, framing, clock, telemetry))
    prefix = escape(config.namespace) + ":"
    shared = any(isinstance(guard.layer, SharedLayer) for guard in guards)
    first = int(clock.time() * 1_000_000) if guards and not shared else 0  # as Redis begins, in microseconds
    stack = Stack(
        memory,
        memory_ttl,
        guards,
        codec=codec,
        copy=config.copy,
        clock=clock,
        timeout=seconds(config.timeout),
        generations=Generations(clock, shared=shared, trust=min(seconds(config.l1_ttl), _TRUST), first=first),
        prefix=prefix,
    )
    if memory is not None:
        telemetry.table.alias(
            stack.first.invalidated, names.EVICTIONS, **{names.LAYER: names.L1, names.REASON: "invalidated"}
        )
        stack.first.note_size = telemetry.sizes(names.L1, SIZE_SAMPLE_MEMORY).note
    engine = Engine(stack, telemetry, clock)
    if stack.shared is not None and isinstance(stack.shared.layer, Newsroom):
        heartbeat = seconds(config.heartbeat)
        listening = Listening(stack, engine.flights, stack.shared.layer, telemetry, engine.bridge, heartbeat)
        recovery = Recovery(
            stack.shared, stack.generations, telemetry, clock, stack.timeout, listening.spawn, stack.forget
        )
        engine.listening, stack.lower_layers.recovery = listening, recovery
        telemetry.gauge(names.PENDING, recovery, lambda recovery: recovery.pending)
    telemetry.gauge(names.WAITING, engine.flights, lambda flights: flights.waiting)
    return engine


def _redis(
    layer: CacheLayer, config: CacheConfig, codec: ValueCodec, framing: Framing, clock: Clock, telemetry: Telemetry
) -> Guard:
    from .layers.redis import RedisBackend  # imported here, because memory alone must not need redis-py

    backend: Layer = RedisBackend(
        config,
        codec=codec,
        framing=framing,
        clock=clock,
        damaged=lambda error: telemetry.incident(names.L2, "get", f"frame_{error.reason}"),
    )
    return _guarded(backend, seconds(layer.ttl), config, clock, telemetry)


def _disk(
    layer: CacheLayer,
    shared: Guard | None,
    config: CacheConfig,
    codec: ValueCodec,
    framing: Framing,
    clock: Clock,
    telemetry: Telemetry,
) -> Guard:
    # Imported here, because memory alone must not need SQLite.
    from .layers._database import Database
    from .layers._disk_entries import DiskEntries
    from .layers.disk import DiskBackend

    assert config.cache_dir is not None, "the configuration has been checked"
    max_size, patience = layer.max_size or config.disk_max_size, min(seconds(config.timeout), _LONGEST_WAIT)

    def damaged(error: FrameError) -> None:
        telemetry.incident(names.L3, "get", f"frame_{error.reason}")

    disk: DiskEntries
    if shared is None:
        disk = DiskBackend(
            config.cache_dir,
            max_size,
            max_bytes=config.disk_max_bytes,
            timeout=patience,
            namespace=config.namespace,
            codec=codec,
            framing=framing,
            clock=clock,
            damaged=damaged,
        )
    else:
        database = Database(config.cache_dir, max_size, config.disk_max_bytes, patience, clock)
        # Numbers of another server mean nothing, so what was stored by them is not seen.
        server = "" if config.redis_url is None else parse_redis_url(config.redis_url).identity
        scope = f"below {type(shared.layer).__name__} {server} {config.namespace}"
        disk = DiskEntries(database, scope, codec, clock, damaged, framing)
    _observe_disk(telemetry, disk.database, os.path.realpath(config.cache_dir))
    return _guarded(disk, seconds(layer.ttl), config, clock, telemetry, timed=DISK_SAMPLE)


def _guarded(
    layer: Layer, ttl: float, config: CacheConfig, clock: Clock, telemetry: Telemetry, timed: int = 1
) -> Guard:
    return Guard(
        layer,
        ttl,
        clock,
        telemetry,
        threshold=config.breaker_failures,
        pause=seconds(config.breaker_pause),
        timed=timed,
    )


def _observe_memory(telemetry: Telemetry, memory: MemoryBackend) -> None:
    layer = {names.LAYER: names.L1}
    telemetry.gauge(names.ENTRIES, memory, lambda memory: len(memory.entries), **layer)
    telemetry.gauge(names.USAGE, memory, lambda memory: int(memory.entries.currsize), **layer)
    telemetry.gauge(names.LIMIT, memory, lambda memory: memory.max_bytes, **layer)
    telemetry.table.alias(memory.entries.evicted, names.EVICTIONS, **layer, **{names.REASON: "capacity"})
    telemetry.table.alias(memory.expired, names.EVICTIONS, **layer, **{names.REASON: "expired"})


def _observe_disk(telemetry: Telemetry, disk: Database, folder: str) -> None:
    layer = {names.LAYER: names.L3}
    telemetry.gauge(names.ENTRIES, disk, lambda disk: disk.entries, folder, **layer)
    telemetry.gauge(names.USAGE, disk, lambda disk: disk.bytes, folder, **layer)
    telemetry.gauge(names.LIMIT, disk, lambda disk: disk.max_bytes, folder, **layer)
    telemetry.table.alias(disk.evicted, names.EVICTIONS, **layer, **{names.REASON: "capacity"})
    telemetry.table.alias(disk.expired, names.EVICTIONS, **layer, **{names.REASON: "expired"})
