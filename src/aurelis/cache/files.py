"""Copies of files by their content, and what was made of files, by the same."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, overload

from ._clock import SYSTEM_CLOCK
from ._file_names import digest_of, folder_of, is_folder
from ._file_store import FileStore
from ._loading import current_load
from ._options import Duration, whole
from .exceptions import ConfigurationError
from .manager import AnyManager, CacheManager, get_cache_manager, manager_of
from .telemetry import names
from .telemetry._bounded import require_label
from .telemetry.otel import Telemetry

T = TypeVar("T")
File = str | os.PathLike[str]

_MAX_SIZE: Final = 10_000
_MAX_BYTES: Final = 2**30


class FileCacheManager:
    """Keeps copies of files under what is in them, and results that were made of files.

    Files are read and written in threads, in pieces, whatever their size. Any number of processes may share a
    directory. A copy is complete or not there, and is compared with its digest each time it is asked for. The longest
    unused ones go when there is no room.

    Args:
        cache_dir: directory for the copies, made when it is first needed, readable for this user alone.
        max_size: copies at most.
        max_bytes: bytes of all copies at most.
        cache: keeps results; `None` means the process's manager, found at each call.
        plain_copies: keep copies, which are files as they were, although the cache has an `encryption_key`.
        name: of this file cache in telemetry, which is one beside that of the manager; up to 128 printable characters.

    Attributes:
        cache_dir: as an absolute path.

    Raises:
        ConfigurationError: a bound is no whole number of 1 or more, the directory has no name, or `name` is none.
        TypeError: the directory is no path.

    Example:
        >>> import tempfile
        >>> async def main(directory: str) -> bytes:
        ...     report = Path(directory, "report.txt")
        ...     report.write_bytes(b"figures")
        ...     files = FileCacheManager(Path(directory, "cache"))
        ...     key = await files.cache_file(report)
        ...     report.unlink()
        ...     copy = await files.get_cached_file(key)
        ...     return b"" if copy is None else copy.read_bytes()
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     asyncio.run(main(directory))
        b'figures'
    """

    def __init__(
        self,
        cache_dir: File = "./file_cache",
        *,
        max_size: int = _MAX_SIZE,
        max_bytes: int = _MAX_BYTES,
        cache: AnyManager | None = None,
        plain_copies: bool = False,
        name: str = names.FILES,
    ) -> None:
        whole("FileCacheManager: max_size", max_size)
        whole("FileCacheManager: max_bytes", max_bytes)
        if not os.fspath(cache_dir):
            raise ConfigurationError("FileCacheManager: cache_dir must not be empty")
        self.cache_dir = Path(os.path.abspath(cache_dir))
        self._cache = None if cache is None else manager_of(cache)
        self._plain_copies = plain_copies
        require_label("FileCacheManager: name", name)
        self._telemetry = telemetry = Telemetry(name, loads=False)
        failed = partial(telemetry.error, names.FILES)
        self._store = FileStore(self.cache_dir, max_size, max_bytes, SYSTEM_CLOCK, failed)
        self._sizes = telemetry.sizes(names.FILES)
        self._removed = telemetry.eviction(names.FILES, "invalidated")
        self._observe()

    def _observe(self) -> None:
        """Have telemetry begin with zero, and read what there is."""
        telemetry, layer = self._telemetry, {names.LAYER: names.FILES}
        folder = os.path.realpath(self.cache_dir)
        telemetry.table.alias(self._store.evicted, names.EVICTIONS, **layer, **{names.REASON: "capacity"})
        telemetry.gauge(names.ENTRIES, self._store, lambda store: _part(store, 0), folder, **layer)
        telemetry.gauge(names.USAGE, self._store, lambda store: _part(store, 1), folder, **layer)
        telemetry.gauge(names.LIMIT, self._store, lambda store: store.max_bytes, folder, **layer)
        telemetry.request(names.HIT, names.FILES)
        for result in (names.HIT, names.MISS, "error"):
            telemetry.lookup(names.FILES, result)
        for result in (names.KEPT, names.TOO_LARGE, names.LAYER_FAILED):
            telemetry.store(result, 0)

    async def cache_file(self, file_path: File, category: str = "files") -> str:
        """Keep a copy of a file, and return the key to find it by: `category:digest`, with the SHA-256 of its content.

        Where the directory is full, cannot be written, or is smaller than the file, nothing is kept, and a warning says
        so once; the key is the same.

        Raises:
            OSError: the file could not be read.
            ConfigurationError: it is no regular file, or the category is empty or too long; or the cache encrypts what
                it stores, and `plain_copies` does not say that copies may be read. Without a cache of its own also
                what `get_cache_manager` raises, as the environment says whether that encrypts.
            TypeError: the category is no string.
        """
        folder = folder_of(category)
        if not self._plain_copies and self._manager().config.encryption_key is not None:
            raise ConfigurationError(
                "cache_file: a copy is not encrypted, since it is opened as the file that it is, and this cache has an"
                " encryption_key: pass FileCacheManager(plain_copies=True) if copies may lie there as they are"
            )
        return f"{folder}:{await asyncio.to_thread(self._put, folder, file_path)}"

    async def get_cached_file(self, cache_key: str) -> Path | None:
        """The path of a copy whose content is what it was; `None`: there is none. What is no key has no copy.

        Another process may remove it at any time; `open_cached_file` gives what cannot be taken away. It must not be
        changed.

        Raises:
            TypeError: the key is no string.
        """
        folder, digest = _split(cache_key)
        return await asyncio.to_thread(self._find, folder, digest)

    async def open_cached_file(self, cache_key: str) -> BinaryIO | None:
        """The copy, opened for reading; it stays readable when it is evicted meanwhile. The caller closes it.

        Raises:
            TypeError: the key is no string.
        """
        folder, digest = _split(cache_key)
        act = partial(copy_context().run, self._open, folder, digest)
        opening = asyncio.get_running_loop().run_in_executor(None, act)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)  # what is opened when its caller has left
            raise

    async def remove_cached_file(self, cache_key: str) -> bool:
        """Remove the copy; true if it was there.

        Raises:
            TypeError: the key is no string.
        """
        folder, digest = _split(cache_key)
        return await asyncio.to_thread(self._remove, folder, digest)

    @overload
    async def cache_result(
        self,
        file: File,
        category: str,
        compute: Callable[[], Awaitable[T]] | Callable[[Path], Awaitable[T]],
        *,
        params: Mapping[str, Any] | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
    ) -> T: ...
    @overload
    async def cache_result(
        self,
        file: File,
        category: str,
        compute: Callable[[], T] | Callable[[Path], T],
        *,
        params: Mapping[str, Any] | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
    ) -> T: ...
    async def cache_result(
        self,
        file: File,
        category: str,
        compute: Callable[..., Any],
        *,
        params: Mapping[str, Any] | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
    ) -> Any:
        """What `compute` makes of a file, kept by the content of the file: a copy of it elsewhere has the same result.

        Kept in the cache, as by `get_or_compute`: one caller computes for all, and what it raises is not stored. If the
        file is another one when it is done, the result goes to those who wait, and is not stored.

        Args:
            file: read each time, for its digest.
            category: first part of the key: what is made of files.
            compute: takes the path, or nothing; a coroutine function, or one that is called in a thread.
            params: what else the result depends on.
            ttl: as for `CacheManager.set`.
            tags: likewise.

        Raises:
            OSError: the file could not be read.
            ConfigurationError: it is no regular file, or `compute` is no function.
            UnkeyableError: the category or a parameter cannot be part of a key.
        """
        if not callable(compute):
            raise ConfigurationError("cache_result: compute is a function of the path, or without arguments")
        path = Path(file)
        digest = await asyncio.to_thread(digest_of, path)
        manager = self._manager()
        key = manager.key_builder.build_key(category, f"sha256:{digest}", params)

        async def load() -> Any:
            result = await _call(compute, path)
            if not await asyncio.to_thread(_has_digest, path, digest):
                current_load().skip()
            return result

        return await manager.get_or_compute(key, load, ttl, tags)

    def _manager(self) -> CacheManager:
        return self._cache or get_cache_manager().manager

    # In threads

    def _put(self, folder: str, file_path: File) -> str:
        begin = SYSTEM_CLOCK.monotonic()
        put = self._store.put(folder, file_path)
        self._telemetry.duration(SYSTEM_CLOCK.monotonic() - begin, "set", names.FILES)
        if put.result:
            self._telemetry.store(put.result)
        if put.result == names.KEPT:
            self._sizes.note(put.size)
        return put.digest

    def _open(self, folder: str, digest: str) -> BufferedReader | None:
        telemetry, begin = self._telemetry, SYSTEM_CLOCK.monotonic()
        file, result = self._store.look(folder, digest)
        telemetry.duration(SYSTEM_CLOCK.monotonic() - begin, "get", names.FILES)
        telemetry.lookup(names.FILES, result).n += 1
        if file is None:
            telemetry.miss.n += 1
        else:
            telemetry.request(names.HIT, names.FILES).n += 1
        return file

    def _find(self, folder: str, digest: str) -> Path | None:
        file = self._open(folder, digest)
        if file is None:
            return None
        file.close()
        return self._store.path(folder, digest)

    def _remove(self, folder: str, digest: str) -> bool:
        begin = SYSTEM_CLOCK.monotonic()
        removed = self._store.remove(folder, digest)
        self._telemetry.duration(SYSTEM_CLOCK.monotonic() - begin, "delete", names.FILES)
        self._telemetry.deleted.n += 1
        if removed:
            self._removed.n += 1
        return removed


def _part(store: FileStore, at: int) -> int | None:
    """Copies or bytes that are held; `None`: not known."""
    held = store.held()
    return None if held is None else held[at]


def _split(cache_key: str) -> tuple[str, str]:
    """Folder and digest of a key; the digest of what is no key is none."""
    if not isinstance(cache_key, str):
        raise TypeError(f"a key must be a str, not {type(cache_key).__name__}")
    folder, _, digest = cache_key.rpartition(":")
    return (folder, digest) if is_folder(folder) else ("", "")


def _close(opening: asyncio.Future[BufferedReader | None]) -> None:
    if not opening.cancelled() and opening.exception() is None and (file := opening.result()) is not None:
        file.close()


async def _call(compute: Callable[..., Any], path: Path) -> Any:
    arguments = () if _needs_nothing(compute) else (path,)
    if inspect.iscoroutinefunction(compute):
        return await compute(*arguments)
    result = await asyncio.to_thread(compute, *arguments)
    return await result if inspect.isawaitable(result) else result


def _needs_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):  # it needs an argument, or does not say
        return False
    return True


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return digest_of(path) == digest
    except (OSError, ConfigurationError):
        return False
