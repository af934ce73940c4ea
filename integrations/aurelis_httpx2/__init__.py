"""Caching transports for httpx2 clients: model calls, and plain HTTP by the rules of RFC 9111.

Example:
    >>> import httpx2
    >>> from aurelis.cache import CacheManager
    >>> client = httpx2.AsyncClient(transport=AsyncCacheTransport(cache=CacheManager()))
"""

from ._transports import AsyncCacheTransport, CacheTransport

__all__ = ["AsyncCacheTransport", "CacheTransport"]
