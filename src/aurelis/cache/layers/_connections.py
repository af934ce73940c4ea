"""The connections of redis-py that a layer uses: a forked child lets go of those of its parent."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelManagedConnection

from aurelis.cache._forking import renew_in_children

from ._tls import Certificates


class _Inheritable(AbstractConnection):
    """A connection that ends with the process that opened it, whatever children it has."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        renew_in_children(self)

    def after_fork(self) -> None:
        """Let go of the socket without a word to the server.

        To close it here would take it out of the selector, which is the parent's as well. So its number becomes that
        of something which can be closed at any time.
        """
        descriptor = self._descriptor()
        if descriptor < 0:
            return
        with contextlib.suppress(OSError):
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, descriptor, inheritable=False)
            os.close(nothing)

    def _descriptor(self) -> int:
        """The number of the socket, or -1."""
        opened = None if self._writer is None else self._writer.get_extra_info("socket")
        return -1 if opened is None else int(opened.fileno())


class PlainConnection(_Inheritable, Connection):
    """To a server by its address."""


class SocketConnection(_Inheritable, UnixDomainSocketConnection):
    """To a server on this machine."""


class TLSConnection(_Inheritable, SSLConnection):
    """An encrypted one, with certificates of its link."""

    def __init__(self, *, certificates: Certificates, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = certificates  # type: ignore[assignment]  # all that redis-py asks of it is `get`


class PrimaryConnection(_Inheritable, SentinelManagedConnection):
    """To the primary that sentinels name."""


class TLSPrimaryConnection(SentinelManagedConnection, TLSConnection):
    """The same, encrypted."""
