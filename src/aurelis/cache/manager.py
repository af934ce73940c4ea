"""The managers: what every `cache=` takes, and the one of the process.

`CacheManager` addresses by full key, `UnifiedCacheManager` by category, identifier and parameters.
"""

from __future__ import annotations

import threading

from ._cache_manager import CacheManager
from ._forking import renew_in_children
from ._settings import load_config
from ._unified_manager import UnifiedCacheManager

__all__ = [
    "AnyManager",
    "CacheManager",
    "UnifiedCacheManager",
    "get_cache_manager",
    "manager_of",
    "set_cache_manager",
]

AnyManager = CacheManager | UnifiedCacheManager
"""What every `cache=` takes."""


def manager_of(cache: AnyManager | None) -> CacheManager:
    """The `CacheManager` behind a `cache=` argument; `None` means that of the process.

    Raises:
        TypeError: it is something else.
    """
    if cache is None:
        return get_cache_manager().manager
    if isinstance(cache, UnifiedCacheManager):
        return cache.manager
    if isinstance(cache, CacheManager):
        return cache
    raise TypeError(f"cache must be a CacheManager or a UnifiedCacheManager, not {type(cache).__name__}")


class _ProcessManager:
    """Holds the process's manager. The one place where a manager is global, because the interface asks for one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.manager: UnifiedCacheManager | None = None
        renew_in_children(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()

    def present(self) -> UnifiedCacheManager | None:
        """The manager, if there is one that is open."""
        manager = self.manager
        return None if manager is None or manager.manager._engine.closed else manager


_process = _ProcessManager()


def get_cache_manager() -> UnifiedCacheManager:
    """The process's manager, made on first use, and again after it was closed, as the environment says.

    `load_config` says what that may hold; without variables `AURELIS_CACHE_…` it is `CacheConfig()`.

    Raises:
        ConfigurationError, MissingExtraError, OSError: as `load_config`.
    """
    if (manager := _process.present()) is not None:
        return manager
    config = load_config()  # without the lock: it may import modules of the app, and those ask for the manager, too
    with _process.lock:
        if (manager := _process.present()) is None:
            _process.manager = manager = UnifiedCacheManager(config)
        return manager


def set_cache_manager(manager: AnyManager | None) -> UnifiedCacheManager | None:
    """Make this the process's manager; `None`: a new one is made on the next use.

    Returns:
        The one before, which is not closed; `None`: there was none. To be set again where a test has replaced it.

    Raises:
        TypeError: it is no manager.

    Example:
        >>> before = set_cache_manager(CacheManager())
        >>> after = set_cache_manager(before)
    """
    if manager is not None:
        manager_of(manager)
    with _process.lock:
        before = _process.manager
        _process.manager = UnifiedCacheManager(manager) if isinstance(manager, CacheManager) else manager
    return before
