"""Caching transports for httpx clients: model calls, and plain HTTP by the rules of RFC 9111.

Example:
    >>> import httpx
    >>> from aurelis.cache import CacheManager
    >>> client = httpx.AsyncClient(transport=AsyncCacheTransport(cache=CacheManager()))
"""

from aurelis.cache.exceptions import MissingExtraError

try:
    import httpx  # noqa: F401  # to say what is missing
except ModuleNotFoundError as error:
    raise MissingExtraError("httpx", "aurelis_httpx") from error

from ._transports import AsyncCacheTransport, CacheTransport
from ._wrap import wrap

__all__ = ["AsyncCacheTransport", "CacheTransport", "wrap"]
