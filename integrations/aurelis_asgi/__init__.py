"""HTTP response caching for ASGI apps, by the rules of RFC 9111 and by rules that the app declares.

Example:
    >>> from aurelis.cache import CacheManager
    >>> async def app(scope, receive, send):  # any ASGI app: Starlette, FastAPI, ...
    ...     ...
    >>> app = CacheMiddleware(app, cache=CacheManager(), rules=[CacheRule("/catalog/*", ttl=60)])
"""

from aurelis.cache.exceptions import MissingExtraError

try:
    import starlette  # noqa: F401  # to say what is missing
except ModuleNotFoundError as error:
    raise MissingExtraError("asgi", "aurelis_asgi") from error

from aurelis.cache.http import CacheRule

from ._middleware import CacheMiddleware

__all__ = ["CacheMiddleware", "CacheRule"]
