"""Values that are kept compressed in every layer, in memory too."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from ._engine import MISSING
from ._loading import current_load
from ._options import Duration, EntryOptions, whole
from .codecs import (
    MAX_BYTES,
    MSGPACK_VALUES,
    THRESHOLD,
    Compressor,
    Method,
    decompress,
    is_compressed,
    uncompressed,
)
from .exceptions import ConfigurationError, FrameError, LayerError, UnstorableValueError
from .manager import AnyManager, CacheManager, manager_of

T = TypeVar("T")

_MARK: Final = "aurelis.cache:compressed"
_LAYER: Final = "compressed"
"""In place of a layer's name, where what is stored cannot be unpacked."""


class CompressedCache:
    """A cache with full keys whose values are kept packed, and compressed from a size on.

    Each reader unpacks a value of its own, so a hit in memory takes as long as one in Redis does to unpack. For Redis
    and the disk alone, `CacheConfig(compression=...)` does the same and leaves hits in memory as fast as they are.

    What is stored is a tuple of a mark, a code and bytes; the manager below gives it to who asks it for the key. What
    was stored without a `CompressedCache` is given as it is.

    Args:
        cache_manager: `None`: the process's, from the first use on. Never closed here.
        compression_threshold: bytes of the packed value from which on it is compressed, ≥ 1.
        method: `gzip`, or `zstd` (Python 3.14, or the extra `zstd`).
        max_bytes: bytes at most of what is compressed. What would unpack to more counts as missing, without ever taking
            memory for more.

    Raises:
        ConfigurationError: an argument is out of range.
        MissingExtraError: the method needs a package that is not installed.
        TypeError: it is no manager.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import CacheManager
        >>> async def main() -> int:
        ...     async with CacheManager() as manager:
        ...         cache = CompressedCache(manager)
        ...         await cache.set("page", "the same words " * 1000, ttl=60)
        ...         return len(await cache.get("page"))
        >>> asyncio.run(main())
        15000
    """

    def __init__(
        self,
        cache_manager: AnyManager | None = None,
        compression_threshold: int = THRESHOLD,
        *,
        method: Method = "gzip",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        whole("CompressedCache: compression_threshold", compression_threshold)
        whole("CompressedCache: max_bytes", max_bytes)
        if method not in ("gzip", "zstd"):
            raise ConfigurationError(f"CompressedCache: method must be 'gzip' or 'zstd', not {method!r}")
        self._given = None if cache_manager is None else manager_of(cache_manager)
        self._compressor = Compressor(method, compression_threshold, max_bytes)
        self._max_bytes = max_bytes

    @property
    def manager(self) -> CacheManager:
        """The manager below."""
        return manager_of(None) if self._given is None else self._given

    async def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` when nothing is stored, it cannot be unpacked, or no layer answers in time.

        `Any`, because only the caller knows what was stored. Each call gives a value of its own.
        """
        found = await self.manager.get(key, MISSING)
        if found is MISSING:
            return default
        try:
            return self._unpacked(found)
        except FrameError as error:
            self._refused(error)
            return default

    async def set(self, key: str, value: object, ttl: Duration | None = None, tags: Iterable[str] = ()) -> bool:
        """Keep the value in every layer; true if each took it. Arguments and errors as for `CacheManager.set`."""
        return await self.manager.set(key, self._packed(value), ttl, tags)

    async def get_or_compute(
        self,
        key: str,
        compute: Callable[[], Awaitable[T]],
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        options: EntryOptions | None = None,
    ) -> T:
        """The value; when there is none, or it cannot be unpacked, that of `compute`.

        Arguments and errors as for `CacheManager.get_or_compute`.
        """

        async def load() -> object:
            context = current_load()
            if context.has_stale:
                try:
                    context.stale = self._unpacked(context.stale)
                except FrameError:
                    context.has_stale, context.stale = False, None
            value = await compute()
            try:
                return self._packed(value)
            except UnstorableValueError:
                return value  # the manager says so, and gives it to those who wait

        names = tags if isinstance(tags, str) else tuple(tags)  # one string is the manager's to refuse
        for _ in range(2):
            found: Any = await self.manager.get_or_compute(key, load, ttl, names, options)
            try:
                return self._unpacked(found)  # type: ignore[no-any-return]  # what is stored is what `compute` gives
            except FrameError as error:
                self._refused(error)
            with contextlib.suppress(LayerError):
                await self.manager.delete(key)
        return await compute()  # somebody keeps on storing what cannot be unpacked

    async def delete(self, key: str) -> bool:
        """Forget the key everywhere; true if it existed somewhere. Raises as `CacheManager.delete`."""
        return await self.manager.delete(key)

    def _packed(self, value: object) -> tuple[str, int, bytes]:
        payload = self.manager._engine.stack.codec.dumps(value)
        smaller = self._compressor.compress(payload)
        if smaller is None:
            return _MARK, MSGPACK_VALUES, payload
        return _MARK, MSGPACK_VALUES | self._compressor.code, smaller

    def _unpacked(self, found: object) -> Any:
        if type(found) is not tuple or len(found) != 3 or found[0] != _MARK:
            return found
        _, code, payload = found
        if type(code) is not int or type(payload) is not bytes:
            raise FrameError("codec")
        if uncompressed(code) != MSGPACK_VALUES:
            raise FrameError("codec")  # written by something newer
        if is_compressed(code):
            payload = decompress(payload, code, self._max_bytes)
        return self.manager._engine.stack.codec.loads(payload)

    def _refused(self, error: FrameError) -> None:
        self.manager._engine.telemetry.incident(_LAYER, "get", f"frame_{error.reason}")
