"""The transports, and the classes of httpx2 that the core needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self, Unpack

import httpx2

from aurelis.cache.client import (
    DEFAULT_MAX_BODY_BYTES,
    AnyManager,
    ClientCache,
    ClientOptions,
    Duration,
    LedBody,
    Library,
    LiveBody,
    ModelOptions,
    ReplayedBody,
    ReplayedResponse,
    UndisturbedBody,
    require_transport,
)


class _Replayed(ReplayedBody, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class _Hit(ReplayedResponse, httpx2.Response):
    pass


class _Live(LiveBody, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class _Led(LedBody, httpx2.SyncByteStream):
    pass


class _Undisturbed(UndisturbedBody, httpx2.AsyncByteStream):
    pass


def _decodes(coding: str) -> bool:
    """Whether responses decode a content coding, which for some depends on other packages."""
    try:
        httpx2.Response(200, headers={"content-encoding": coding}, content=b"not encoded")
    except httpx2.DecodingError:
        return True
    return False


_LIBRARY = Library(
    name=httpx2.__name__,
    response=httpx2.Response,
    hit=_Hit,
    headers=httpx2.Headers,
    bytes_stream=httpx2.ByteStream,
    replayed=_Replayed,
    live=_Live,
    led=_Led,
    undisturbed=_Undisturbed,
    errors={
        name: value
        for name, value in vars(httpx2).items()
        if isinstance(value, type) and issubclass(value, httpx2.RequestError)
    },
    decodes=frozenset(coding.encode() for coding in ("gzip", "deflate", "br", "zstd") if _decodes(coding)),
)


class CacheTransport(httpx2.BaseTransport):
    """Answers from the cache what may be answered from it, and asks the inner transport for the rest.

    Calls of language models are served by their own rules, `GET` and `HEAD` by RFC 9111; anything else passes
    untouched. Every response that the cache had a part in says so in `Cache-Status` (RFC 9211).

    The response of a miss is read in the thread that asked for it. Others who ask for the same meanwhile wait for it,
    so closing it before its end reads on while there are any.

    Args:
        inner_transport: asks the origin; `None` means `httpx2.HTTPTransport()`. It is closed with this one.
        cache: manager; `None` means the process's. It is never closed here.
        ttl: seconds (or timedelta) for which the answer of a model call is served; 0 keeps none.
        shared: plain HTTP by the rules of a shared cache. Otherwise it is a private cache, and requests with different
            credentials (`Authorization`, `Cookie`, API keys) never see each other's responses.
        share_across_credentials: model calls that differ in their credentials alone have one answer.
        honour_cache_control: keep no answer of a model whose `Cache-Control` says `no-store`.
        honour_request_directives: heed `Cache-Control` and `Pragma` of plain HTTP requests.
        max_body_bytes: larger bodies pass through and are not stored.
        cache_control_fields: names of response fields that are meant for this cache and count in place of
            `Cache-Control` (RFC 9213), the first that is there; `None`: `CDN-Cache-Control` if it is shared.
        model_options: what else can be chosen for calls of models, each by its name; see `ModelOptions`.

    Raises:
        ConfigurationError: a value is out of range or unknown, or a switch neither `True` nor `False`.
        TypeError: `cache` is no manager, or `inner_transport` no transport of this kind.
        ValueError: `ttl` is negative or not a number.
    """

    def __init__(
        self,
        inner_transport: httpx2.BaseTransport | None = None,
        *,
        cache: AnyManager | None = None,
        ttl: Duration = 3600.0,
        shared: bool = False,
        share_across_credentials: bool = False,
        honour_cache_control: bool = False,
        honour_request_directives: bool = True,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        cache_control_fields: Sequence[str] | None = None,
        **model_options: Unpack[ModelOptions],
    ) -> None:
        self._cache: ClientCache[httpx2.Request, httpx2.Response] = ClientCache(
            _LIBRARY,
            cache,
            ClientOptions(
                ttl=ttl,
                shared=shared,
                share_across_credentials=share_across_credentials,
                honour_cache_control=honour_cache_control,
                honour_request_directives=honour_request_directives,
                max_body_bytes=max_body_bytes,
                cache_control_fields=cache_control_fields,
                **model_options,
            ),
        )
        self._inner = httpx2.HTTPTransport() if inner_transport is None else inner_transport
        require_transport(self._inner, "handle_request")

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request.

        Raises:
            Exception: what the inner transport raised.
        """
        return self._cache.send_blocking(request, self._inner.handle_request)

    def close(self) -> None:
        """Close the inner transport, as soon as no load goes on through it that others wait for, or nobody."""
        self._cache.ongoing.close(self._inner.close)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        inner = self._inner.__exit__
        self._cache.ongoing.close(partial(inner, exc_type, exc_value, traceback), partial(inner, None, None, None))


class AsyncCacheTransport(httpx2.AsyncBaseTransport):
    """`CacheTransport` for `httpx2.AsyncClient` on asyncio.

    What has to be loaded is loaded in a task of its own: cancelling one caller does not harm others who wait for the
    same response, and when the last one leaves before its end the load is cancelled and nothing is stored.

    Args:
        inner_transport: asks the origin; `None` means `httpx2.AsyncHTTPTransport()`. It is closed with this one.
        cache: as for `CacheTransport`, like all that follows.
    """

    def __init__(
        self,
        inner_transport: httpx2.AsyncBaseTransport | None = None,
        *,
        cache: AnyManager | None = None,
        ttl: Duration = 3600.0,
        shared: bool = False,
        share_across_credentials: bool = False,
        honour_cache_control: bool = False,
        honour_request_directives: bool = True,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        cache_control_fields: Sequence[str] | None = None,
        **model_options: Unpack[ModelOptions],
    ) -> None:
        self._cache: ClientCache[httpx2.Request, httpx2.Response] = ClientCache(
            _LIBRARY,
            cache,
            ClientOptions(
                ttl=ttl,
                shared=shared,
                share_across_credentials=share_across_credentials,
                honour_cache_control=honour_cache_control,
                honour_request_directives=honour_request_directives,
                max_body_bytes=max_body_bytes,
                cache_control_fields=cache_control_fields,
                **model_options,
            ),
        )
        self._inner = httpx2.AsyncHTTPTransport() if inner_transport is None else inner_transport
        require_transport(self._inner, "handle_async_request")

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request.

        Raises:
            Exception: what the inner transport raised.
        """
        return await self._cache.send(request, self._inner.handle_async_request)

    async def aclose(self) -> None:
        """Close the inner transport, as soon as no load goes on through it that others wait for, or nobody."""
        await self._cache.ongoing.aclose(self._inner.aclose)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        inner = self._inner.__aexit__
        await self._cache.ongoing.aclose(
            partial(inner, exc_type, exc_value, traceback), partial(inner, None, None, None)
        )
