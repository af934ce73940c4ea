"""What is remembered of requests that were answered from memory, so that the next one like them is answered at once.

To read a request and to build its key costs several times as much as the lookup itself. So for requests that are the
same to the byte the way to their answer is remembered: of the request a hash, and of the answer all but its body.
"""

from __future__ import annotations

import marshal
import threading
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aurelis.cache.exchange import Exchange, Hit
from aurelis.cache.http import Fields, HttpRequest

from ._calls import Call, is_model_path
from ._library import Request

_REMEMBERED = 1024
# What of a request may make its answer depend on more than freshness.
_DEMANDING_FIELDS = frozenset(
    {
        b"cache-control",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"pragma",
        b"range",
    }
)


@dataclass(slots=True)
class Known:
    """The way to an answer.

    Attributes:
        exchange: serves the request.
        key: where memory has the response.
        fields: of the response.
        with_body: the answer has one.
        header: of the last answer: its age and ttl in whole seconds, and the library's own record of its fields.
            Replaced as a whole, since several threads may use it.
    """

    exchange: Exchange[Any]
    key: str
    fields: Fields
    with_body: bool
    header: tuple[int, float, Any] | None = field(default=None)


class Recall:
    """Finds the way to the answer of a request that was answered before.

    Args:
        bytes_stream: class of request bodies that can be read twice.
    """

    def __init__(self, bytes_stream: type) -> None:
        self.known: dict[bytes, Known] = {}
        self._bytes_stream = bytes_stream
        self._lock = threading.Lock()

    def mark(self, request: Request) -> bytes | None:
        """What tells the request from all that differ from it; `None`: it is not to be remembered."""
        method = request.method
        url = request.url
        if method == "GET" or method == "HEAD":
            body = b""
        elif method == "POST" and is_model_path(url.raw_path) and isinstance(request.stream, self._bytes_stream):
            body = request.read()
        else:
            return None
        if "target" in request.extensions:
            return None
        # Marshalled parts have their lengths before them, so no two requests give the same bytes. Later versions of the
        # format have references, which depend on more than the value; none takes half as long as any other encoding.
        return sha256(marshal.dumps((method, str(url), request.headers.raw, body), 2)).digest()

    def keep(self, mark: bytes, exchange: Exchange[Any], call: Call, hit: Hit) -> None:
        """Remember how a request was answered from memory."""
        fields = hit.response.headers
        if not fields or not _DEMANDING_FIELDS.isdisjoint(call.fields):
            return
        with self._lock:
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            with_body = not isinstance(call, HttpRequest) or call.method != "HEAD"
            self.known[mark] = Known(exchange, hit.key, fields, with_body)
