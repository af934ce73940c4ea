"""Caching transports for httpx clients: model calls, and plain HTTP by the rules of RFC 9111.

Example:
    >>> import httpx
    >>> from aurelis.cache import CacheManager
    >>> client = httpx.AsyncClient(transport=AsyncCacheTransport(cache=CacheManager()))
"""

from ._transports import AsyncCacheTransport, CacheTransport

__all__ = ["AsyncCacheTransport", "CacheTransport"]
