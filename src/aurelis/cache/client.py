"""What transports of HTTP client libraries stand on: which requests are served, by which rules, and how.

A binding names the classes of its library in a `Library` and hands each request to `ClientCache.send`, or to
`send_blocking` where there is no event loop. Here the libraries are known by their shape; none is imported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .exchange import (
    Lead,
    Live,
)
from .models import (
    PROFILES,
)

_MODEL_PATHS = tuple(profile.path_suffix for profile in PROFILES)
# With one of these a GET is more than a question for what a URL names.
_UNUSUAL_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"upgrade"})
# They describe the encoded bytes, and what is recorded is decoded.
_ENCODED_FIELDS = frozenset(
    {b"content-digest", b"content-encoding", b"content-length", b"content-md5", b"digest", b"repr-digest"}
)
_HTTP_1_1 = {"http_version": b"HTTP/1.1"}


class Url(Protocol):
    """Address of a request."""

    @property
    def scheme(self) -> str: ...
    @property
    def netloc(self) -> bytes: ...
    @property
    def raw_path(self) -> bytes: ...


class Headers(Protocol):
    """Header fields."""

    @property
    def raw(self) -> list[tuple[bytes, bytes]]: ...
    def __contains__(self, key: object) -> bool: ...
    def __getitem__(self, key: str) -> str: ...
    def __setitem__(self, key: str, value: str) -> None: ...


class Request(Protocol):
    """A library's request."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Url: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def stream(self) -> object: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    def read(self) -> bytes: ...


class Response(Protocol):
    """A library's response."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    def iter_bytes(self) -> Iterator[bytes]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)


@dataclass(frozen=True, slots=True)
class Library(Generic[R]):
    """The classes of one library.

    Attributes:
        name: its top-level package.
        response: makes a response.
        bytes_stream: class of request bodies that can be read twice.
        replayed: `ReplayedBody` as a stream of the library, for both kinds of clients.
        live: `LiveBody`, likewise.
        led: `LedBody` as a stream for synchronous clients.
        errors: classes of errors by name, `ReadError` among them.
        decodes: content codings that its responses decode.
    """

    name: str
    # Any: the streams are instances of the library's classes, which are not known here.
    response: Callable[..., R]
    bytes_stream: type[Any]
    replayed: Callable[[tuple[bytes, ...]], Any]
    live: Callable[[Live, Library[Any]], Any]
    led: Callable[[Lead, Response], Any]
    errors: Mapping[str, Callable[[str], Exception]]
    decodes: frozenset[bytes]

    def own(self, error: Exception) -> Exception:
        """The error as callers of this library know it, if it comes from another library whose load was shared."""
        family = type(error).__module__.partition(".")[0]
        if family == self.name or family not in ("httpx", "httpx2"):
            return error
        return self.errors.get(type(error).__name__, self.errors["ReadError"])(str(error))

    def broken_off(self, error: Exception) -> Exception:
        """The same for an error of a body. One that was given up by whoever loaded it is a `ReadError`."""
        if type(error) in (ReaderClosed, ConnectionError, ConnectionAbortedError):
            return self.errors["ReadError"](str(error) or "the response was closed")
        return self.own(error)


class ReplayedBody:
    """A stored body in the chunks in which it came. To be combined with the library's stream classes.

    A second iteration goes on where the first one was left, as with a connection.
    """

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class LiveBody:
    """A body while it is loaded by somebody else. To be combined with the library's stream classes."""

    def __init__(self, live: Live, library: Library[Any]) -> None:
        assert live.reader is not None
        self._live = live
        self._reader = live.reader
        self._library = library

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (chunk := self._reader.next_blocking()) is not None:
                yield chunk
        except Exception as error:
            raise self._library.broken_off(error) from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (chunk := await self._reader.next()) is not None:
                yield chunk
        except Exception as error:
            raise self._library.broken_off(error) from error

    def close(self) -> None:
        """Let go. The last one to let go before the end aborts the load."""
        self._live.close()

    async def aclose(self) -> None:
        """The same."""
        self._live.close()


class LedBody:
    """A body that its reader loads for others too. To be combined with the library's stream class."""

    def __init__(self, lead: Lead, response: Response) -> None:
        self._lead = lead
        self._response = response
        self._chunks = response.iter_bytes()
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._load()) is not None:
            yield chunk

    def _load(self) -> bytes | None:
        try:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._lead.end()
            else:
                self._lead.chunk(chunk)
        except BaseException as error:
            self._lead.fail(error)
            raise
        return chunk

    def close(self) -> None:
        """Let go. Blocks while others read what has not come yet: it is loaded here, to its end, for them."""
        self._closed = True
        try:
            while self._lead.close():
                with suppress(Exception):  # they get the error; this caller has left
                    self._load()
        finally:
            self._response.close()

    def __del__(self) -> None:
        # Otherwise those who wait for the rest would wait for ever.
        if not self._closed:
            self._lead.lose()


class ClientCache(Generic[Q, R]):
    """The cache behind the transports of one client.

    Args:
        library: the classes of the client's library.
        cache: manager; `None` means the process's. It is never closed here.
        ttl: seconds (or timedelta) for which the answer of a model call is served; 0 keeps none.
        shared: plain HTTP by the rules of a shared cache, whose responses go to callers with any credentials.
        share_across_credentials: model calls that differ in their credentials alone have one answer.
        honour_cache_control: keep no answer of a model whose `Cache-Control` says `no-store`.
        honour_request_directives: heed `Cache-Control` and `Pragma` of plain HTTP requests.
        max_body_bytes: larger bodies pass through and are not stored.

    Raises:
        ConfigurationError: `max_body_bytes` is not positive.
        TypeError: `cache` is no manager.
        ValueError: `ttl` is negative or not a number.
    """

    def __init__(
        self,
        library: Library[R],
        cache: AnyManager | None,
        *,
        ttl: Duration,
        shared: bool,
        share_across_credentials: bool,
        honour_cache_control: bool,
        honour_request_directives: bool,
        max_body_bytes: int,
    ) -> None:
        if max_body_bytes < 1:
            raise ConfigurationError(f"max_body_bytes must be 1 or more, not {max_body_bytes}")
        manager = manager_of(cache)
        keys = manager.key_builder.build_key
        self._library = library
        self._shared = shared
        self._share_across_credentials = share_across_credentials
        self._secret = manager.config.hash_key()
        self._status = CacheStatus(manager.config.name)
        self._model: Exchange[ModelRequest] = Exchange(
            manager,
            ModelPolicy(build_key=keys, ttl=seconds(ttl), honour_cache_control=honour_cache_control),
            max_body_bytes=max_body_bytes,
        )
        self._http: Exchange[HttpRequest] = Exchange(
            manager,
            HttpPolicy(
                shared=shared,
                # Apart, so that what a private cache may store is never found by a shared one.
                category="http-client-shared" if shared else "http-client",
                keys=keys,
                honour_request_directives=honour_request_directives,
            ),
            max_body_bytes=max_body_bytes,
        )
