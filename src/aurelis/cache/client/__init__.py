"""What transports of HTTP client libraries stand on: which requests are served, by which rules, and how.

A binding names the classes of its library in a `Library` and hands each request to `ClientCache.send`, or to
`send_blocking` where there is no event loop. The libraries are known by their shape; none is imported.
"""

from aurelis.cache._options import Duration
from aurelis.cache.exchange import DEFAULT_MAX_BODY_BYTES
from aurelis.cache.manager import AnyManager

from ._bodies import LedBody, LiveBody, ReplayedBody, ReplayedResponse, UndisturbedBody
from ._cache import ClientCache
from ._library import Library, Request, Response
from ._options import ClientOptions, ModelOptions, require_transport
from ._wrapping import find_clients

__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "AnyManager",
    "ClientCache",
    "ClientOptions",
    "Duration",
    "LedBody",
    "Library",
    "LiveBody",
    "ModelOptions",
    "ReplayedBody",
    "ReplayedResponse",
    "Request",
    "Response",
    "UndisturbedBody",
    "find_clients",
    "require_transport",
]
