"""Response and model cache for Python services, seen in OpenTelemetry.

Optional parts are imported when they are first named, so this import needs no Redis, no HTTP client, no web framework
and no OpenTelemetry SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._call_options import cache_options
from ._keys import CacheKeyBuilder
from ._loading import LoadContext, current_load
from ._options import EntryOptions
from ._settings import load_config
from .compression import CompressedCache
from .config import CacheConfig, CacheLayer, is_installed
from .decorators import cached, cached_method
from .invalidation import CacheInvalidator
from .layers.memory import MemoryBackend
from .manager import CacheManager, UnifiedCacheManager, get_cache_manager, set_cache_manager
from .model_cache import ModelResponseCache
from .monitor import CacheMetrics, CacheMonitor, CacheStats
from .strategies import CacheAside, DataStore, DeadLetter, WriteBehind, WriteThrough
from .warming import CacheWarmer, WarmFailure, WarmReport

if TYPE_CHECKING:
    from .files import FileCacheManager
    from .layers.disk import DiskBackend
    from .layers.redis import RedisBackend
    from .similarity import OpenAIEmbedder, SimilarityCache, SimilarityReport, SimilarMatch

__all__ = [
    "CacheAside",
    "CacheConfig",
    "CacheInvalidator",
    "CacheKeyBuilder",
    "CacheLayer",
    "CacheManager",
    "CacheMetrics",
    "CacheMonitor",
    "CacheStats",
    "CacheWarmer",
    "CompressedCache",
    "DataStore",
    "DeadLetter",
    "DiskBackend",
    "EntryOptions",
    "FileCacheManager",
    "LoadContext",
    "MemoryBackend",
    "ModelResponseCache",
    "OpenAIEmbedder",
    "RedisBackend",
    "SimilarMatch",
    "SimilarityCache",
    "SimilarityReport",
    "UnifiedCacheManager",
    "WarmFailure",
    "WarmReport",
    "WriteBehind",
    "WriteThrough",
    "cache_options",
    "cached",
    "cached_method",
    "current_load",
    "get_cache_manager",
    "load_config",
    "set_cache_manager",
]

_NEEDED = {"DiskBackend": ("_sqlite3",), "FileCacheManager": ("fcntl",), "RedisBackend": ("redis", "hiredis")}
"""What names need that are imported when they are first named."""

if not TYPE_CHECKING:
    for _name, _packages in _NEEDED.items():
        if not all(map(is_installed, _packages)):
            __all__.remove(_name)  # `import *` takes what there is; who names it hears which extra it needs


def __getattr__(name: str) -> object:
    if name == "RedisBackend":
        from .layers.redis import RedisBackend

        return RedisBackend
    if name == "DiskBackend":
        from .layers.disk import DiskBackend

        return DiskBackend
    if name == "FileCacheManager":
        from .files import FileCacheManager

        return FileCacheManager
    if name in ("OpenAIEmbedder", "SimilarMatch", "SimilarityCache", "SimilarityReport"):
        from . import similarity

        return getattr(similarity, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
