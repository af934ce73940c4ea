"""Caching transports for httpx2 clients: model calls, and plain HTTP by the rules of RFC 9111.

Example:
    >>> import httpx2
    >>> from aurelis.cache import CacheManager
    >>> client = httpx2.AsyncClient(transport=AsyncCacheTransport(cache=CacheManager()))
"""

from aurelis.cache.exceptions import MissingExtraError

try:
    import httpx2  # noqa: F401  # to say what is missing
except ModuleNotFoundError as error:
    raise MissingExtraError("httpx2", "aurelis_httpx2") from error

from ._transports import AsyncCacheTransport, CacheTransport
from ._wrap import wrap

__all__ = ["AsyncCacheTransport", "CacheTransport", "wrap"]
