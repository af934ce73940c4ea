"""Encrypted connections that share what they know of certificates: loading it takes longer than many requests."""

from __future__ import annotations

import os
import threading
from ssl import SSLContext

from redis.asyncio.connection import RedisSSLContext

from aurelis.cache._forking import renew_in_children


class Certificates:
    """Stands in for the context that redis-py would load for each connection: about 15 ms, during which nothing runs.

    A file that is renewed is loaded again with the next connection.

    Args:
        context: as redis-py made it from its options; loaded here.

    Raises:
        OSError: a file is missing, or is no certificate.
    """

    def __init__(self, context: RedisSSLContext) -> None:
        self._context = context
        self._files = [file for file in (context.keyfile, context.certfile, context.ca_certs) if file is not None]
        self._lock = threading.Lock()
        self._seen: list[int] = []
        renew_in_children(self)
        self.get()

    def after_fork(self) -> None:
        """A thread of the parent may be loading them."""
        self._lock = threading.Lock()

    def get(self) -> SSLContext:
        """The context; redis-py calls it by this name."""
        with self._lock:
            seen = [os.stat(file).st_mtime_ns for file in self._files]
            if seen != self._seen:
                self._context.context = None
                self._seen = seen
            loaded: SSLContext = self._context.get()
            return loaded
