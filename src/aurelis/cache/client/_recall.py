"""What is remembered of requests that were answered from memory, so that the next one like it is found at once.

To read a request and to build its key costs several times as much as the lookup itself, so both are remembered for
requests that are the same to the byte. Credentials and prompts are not: a model call is remembered by a keyed hash, any
other request with credentials not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgpack

from aurelis.cache.exchange import Exchange
from aurelis.cache.http import StoredResponse
from aurelis.cache.models import ModelRequest, credential_partition

from ._calls import Call, is_model_path
from ._library import Request

_REMEMBERED = 1024
_MAX_REMEMBERED_BYTES = 4096  # of the header of one request


@dataclass(slots=True)
class Known:
    """A request that has been answered from memory before.

    Attributes:
        exchange: serves it.
        call: what it is to the rules, for a lookup alone: credentials are not among its fields.
        key: its key.
        replay: what it was answered with last: the stored response, its age and ttl in whole seconds, then status,
            header and body of the answer. Replaced as a whole, since several threads may use it.
    """

    exchange: Exchange[Any]
    call: Call
    key: str
    replay: tuple[StoredResponse, int, float, int, Any, tuple[bytes, ...]] | None = field(default=None)


class Recall:
    """Finds what is known of a request.

    Args:
        bytes_stream: class of request bodies that can be read twice.
        secret: key of the hashes.
    """

    def __init__(self, bytes_stream: type, secret: bytes) -> None:
        self._bytes_stream = bytes_stream
        self._secret = secret
        self._known: dict[Hashable, Known] = {}
        self._lock = threading.Lock()

    def mark(self, request: Request) -> Hashable | None:
        """What tells the request from all that differ from it; `None`: it is not to be remembered."""
        if "target" in request.extensions:
            return None
        method = request.method
        url = request.url
        if method == "GET" or method == "HEAD":
            return (method, url.scheme, url.netloc, url.raw_path, *request.headers.raw)
        if method == "POST" and is_model_path(url.raw_path) and isinstance(request.stream, self._bytes_stream):
            parts = (url.scheme, url.netloc, url.raw_path, request.headers.raw, request.read())
            return blake2b(msgpack.packb(parts), key=self._secret, digest_size=16).digest()
        return None

    def find(self, mark: Hashable) -> Known | None:
        """What is known of it."""
        return self._known.get(mark)

    def keep(self, mark: Hashable, exchange: Exchange[Any], call: Call) -> None:
        """Remember a request that has just been answered from memory."""
        key = exchange.policy.key(call)
        if isinstance(call, ModelRequest):
            call = ModelRequest(call.url, {}, call.call, call.partition)
        elif credential_partition(call.fields, self._secret) or len(call.url) + sum(map(len, call.fields.values())) > _MAX_REMEMBERED_BYTES:
            return
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[mark] = Known(exchange, call, key)
