"""Transports for tests: what was recorded is replayed, and what was not is recorded or refused.

Example:
    >>> import httpx2
    >>> from aurelis.cache.testing import Cassette
    >>> client = httpx2.AsyncClient(transport=AsyncCassetteTransport(Cassette("tests/cassettes/greeting")))
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx2

from aurelis.cache.testing.cassettes import Cassette, Tape, TapedBody

from ._transports import _LIBRARY

__all__ = ["AsyncCassetteTransport", "CassetteTransport"]


class _Taped(TapedBody, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class CassetteTransport(httpx2.BaseTransport):
    """Replays the calls of a cassette, and records into it, as the cassette's mode says.

    Below a `CacheTransport` it takes the network's part; alone it is a client's transport.

    Args:
        cassette: where the recordings are.
        inner_transport: asks the origin where that is allowed; `None` means `httpx2.HTTPTransport()`. It is closed with
            this one.

    Raises:
        TypeError: `cassette` is no `Cassette`.
    """

    def __init__(self, cassette: Cassette, inner_transport: httpx2.BaseTransport | None = None) -> None:
        self._tape: Tape[httpx2.Request, httpx2.Response] = Tape(_LIBRARY, cassette, _Taped)
        self._inner = httpx2.HTTPTransport() if inner_transport is None else inner_transport

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request.

        Raises:
            UnmatchedCallError: it was not recorded, and the origin is not to be asked.
            Exception: what the inner transport raised.
        """
        return self._tape.send_blocking(request, self._inner.handle_request)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(exc_type, exc_value, traceback)


class AsyncCassetteTransport(httpx2.AsyncBaseTransport):
    """`CassetteTransport` for `httpx2.AsyncClient`.

    Args:
        cassette: where the recordings are.
        inner_transport: as for `CassetteTransport`; `None` means `httpx2.AsyncHTTPTransport()`.
    """

    def __init__(self, cassette: Cassette, inner_transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._tape: Tape[httpx2.Request, httpx2.Response] = Tape(_LIBRARY, cassette, _Taped)
        self._inner = httpx2.AsyncHTTPTransport() if inner_transport is None else inner_transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request.

        Raises:
            UnmatchedCallError: it was not recorded, and the origin is not to be asked.
            Exception: what the inner transport raised.
        """
        return await self._tape.send(request, self._inner.handle_async_request)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)
