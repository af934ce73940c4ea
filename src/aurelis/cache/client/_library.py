"""The shape of an HTTP client library, and the record of its classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from aurelis.cache.exchange import Live, ReaderClosed, WaitTimeout

_FAMILIES = ("httpx", "httpx2")


class Url(Protocol):
    """Address of a request; `str` gives the whole of it."""

    @property
    def scheme(self) -> str: ...
    @property
    def netloc(self) -> bytes: ...
    @property
    def raw_path(self) -> bytes: ...


class Headers(Protocol):
    """Header fields."""

    encoding: str

    @property
    def raw(self) -> list[tuple[bytes, bytes]]: ...
    def __contains__(self, key: object) -> bool: ...
    def __getitem__(self, key: str) -> str: ...
    def __setitem__(self, key: str, value: str) -> None: ...


class Request(Protocol):
    """A request."""

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
    """A response."""

    stream: Any  # for one kind of clients or the other, as the transport is

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    def read(self) -> bytes: ...
    def iter_bytes(self) -> Iterator[bytes]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


R = TypeVar("R", bound=Response)


@dataclass(frozen=True, slots=True)
class Library(Generic[R]):
    """The classes of one library.

    Attributes:
        name: its top-level package.
        response: makes a response.
        hit: makes a response that is a `ReplayedResponse`, too.
        headers: makes header fields that responses copy.
        bytes_stream: class of request bodies that can be read twice.
        replayed: `ReplayedBody` as a stream of the library, for both kinds of clients.
        live: `LiveBody`, likewise.
        led: `LedBody` as a stream for synchronous clients.
        undisturbed: `UndisturbedBody` as a stream for asynchronous clients.
        errors: classes of errors by name, `ReadError` and `ReadTimeout` among them.
        decodes: content codings that its responses decode.
    """

    name: str
    # Any: the streams are instances of the library's classes, which are not known here.
    response: Callable[..., R]
    hit: Callable[..., Any]
    headers: Callable[[list[tuple[bytes, bytes]]], Any]
    bytes_stream: type[Any]
    replayed: Callable[..., Any]
    live: Callable[[Live, Library[Any], float | None], Any]
    led: Callable[..., Any]
    undisturbed: Callable[..., Any]
    errors: Mapping[str, Callable[[str], Exception]]
    decodes: frozenset[bytes]

    def translate(self, error: BaseException) -> None:
        """Raise this library's own error in place of that of another one, whose load was shared, or of ours."""
        if type(error) is WaitTimeout:
            raise self.errors["ReadTimeout"](
                "the same request of another caller took longer than the timeout"
            ) from None
        family = type(error).__module__.partition(".")[0]
        if family == self.name or family not in _FAMILIES:
            return
        raise self.errors.get(type(error).__name__, self.errors["ReadError"])(str(error)) from error

    def translate_from_body(self, error: BaseException) -> None:
        """The same for a body. That whoever loaded it has given up, or its reader closed it, is a `ReadError`."""
        if type(error) in (ReaderClosed, ConnectionError, ConnectionAbortedError):
            raise self.errors["ReadError"](str(error) or "the response was closed while it was read") from error
        self.translate(error)
