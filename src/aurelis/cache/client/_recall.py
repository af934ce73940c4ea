"""What is remembered of requests that were answered from memory, so that the next one like them is answered at once.

To read a request and to build its key costs several times as much as the lookup itself. So for requests that are the
same to the byte the way to their answer is remembered: of the request a hash, and of the answer all but its body.
"""

from __future__ import annotations

import marshal
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aurelis.cache.exchange import Exchange, Hit
from aurelis.cache.http import Fields, HttpRequest
from aurelis.cache.models import Catalogue

from ._calls import Call
from ._library import Request

_REMEMBERED = 1024
_CREDENTIAL_FIELDS = frozenset({b"authorization", b"cookie"})
# What of a request may speak against a response although it is fresh.
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
        with_body: the answer has one.
        as_it_is: it needs no decoding.
        header: of the last answer: fields of the response, its age and ttl in whole seconds, and the library's own
            record of all fields. Replaced as a whole, since several threads may use it.
    """

    exchange: Exchange[Any]
    key: str
    with_body: bool
    as_it_is: bool
    header: tuple[Fields, int, float, Any] | None = field(default=None)


class Recall:
    """Finds the way to the answer of a request that was answered before.

    Args:
        bytes_stream: class of request bodies that can be read twice.
        catalogue: says where models may be.
        shared: plain requests are served by the rules of a shared cache.
    """

    def __init__(self, bytes_stream: type, catalogue: Catalogue, *, shared: bool) -> None:
        self.known: dict[bytes, Known] = {}
        self._may_be_call = catalogue.may_be_call
        self._bytes_stream = bytes_stream
        # Whether a shared response answers a request with credentials is up to that response.
        self._demanding = _DEMANDING_FIELDS | _CREDENTIAL_FIELDS if shared else _DEMANDING_FIELDS

    def mark(self, request: Request, namespace: str = "") -> bytes | None:
        """What tells the request from all that differ from it; `None`: it is not to be remembered."""
        method = request.method
        url = request.url
        if method == "GET" or method == "HEAD":
            body = b""
        elif method == "POST" and self._may_be_call(url.raw_path) and isinstance(request.stream, self._bytes_stream):
            body = request.read()
        else:
            return None
        if "target" in request.extensions:
            return None
        # Marshalled parts have their lengths before them, so no two requests give the same bytes. Later versions of the
        # format have references, which depend on more than the value; none takes half as long as any other encoding.
        return sha256(marshal.dumps((method, str(url), request.headers.raw, body, namespace), 2)).digest()

    def keep(self, mark: bytes, exchange: Exchange[Any], call: Call, hit: Hit, *, as_it_is: bool) -> None:
        """Remember how a request was answered from memory, if any fresh response there answers it."""
        with_body = True
        if isinstance(call, HttpRequest):
            if not self._demanding.isdisjoint(call.fields):
                return
            with_body = call.method != "HEAD"
        # Each step is atomic between threads, and it does not matter in which order theirs come.
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        self.known[mark] = Known(exchange, hit.key, with_body, as_it_is)
