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

from aurelis.cache.http import TRACKING_PARAMETERS, CacheRule, load_rules

from ._admin import admin_app
from ._fields import cache_control, cache_tags
from ._middleware import CacheMiddleware
from ._purging import Purger

__all__ = [
    "TRACKING_PARAMETERS",
    "CacheMiddleware",
    "CacheRule",
    "Purger",
    "admin_app",
    "cache_control",
    "cache_tags",
    "load_rules",
]
