"""A request's way through a cassette, with and without an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from aurelis.cache.client import Library, Request, Response
from aurelis.cache.client._calls import decoded_head
from aurelis.cache.http import HttpRequest, ResponseHead, combine
from aurelis.cache.typing import Terminator

from ._cassette import Cassette
from ._recordings import Answered, Asked, asked
from ._scrubbing import is_wanted

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)

_EXTENSIONS: Final[Mapping[str, Any]] = {"http_version": b"HTTP/1.1"}
_OF_CONNECTION: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_LENGTH: Final = b"content-length"


class TapedBody:
    """A body that is recorded while it is read, to be mixed with the stream classes of a library.

    A second iteration goes on where the first one was left: SDKs read on when they have seen the end, to let the
    connection be used again.

    Args:
        terminator: watches for the end that its protocol announces; `None`: there is none.
        keep: is given the chunks when the body is over or closed, unless it broke off.
    """

    def __init__(
        self,
        response: Response,
        terminator: Terminator | None,
        keep: Callable[[tuple[bytes, ...]], None],
    ) -> None:
        self._response: Any = response  # its methods depend on the kind of client
        self._terminator = terminator
        self._keep: Callable[[tuple[bytes, ...]], None] | None = keep
        self._chunks: list[bytes] = []
        self._iterator: Any = None  # of the one kind or the other, likewise
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = self._response.iter_bytes()
        try:
            return self._take(next(self._iterator))
        except BaseException as error:
            self._stop(error)
            raise

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._iterator is None:
            self._iterator = self._response.aiter_bytes()
        try:
            return self._take(await anext(self._iterator))
        except BaseException as error:
            self._stop(error)
            raise

    def close(self) -> None:
        """Close the response. What has come until now is what its reader wanted: that is recorded."""
        self._over()
        self._response.close()

    async def aclose(self) -> None:
        """The same."""
        self._over()
        await self._response.aclose()

    def _take(self, chunk: bytes) -> bytes:
        self._chunks.append(chunk)
        if self._terminator is not None:
            self._ended = self._terminator.feed(chunk)
        return chunk

    def _stop(self, error: BaseException) -> None:
        if isinstance(error, (StopIteration, StopAsyncIteration)):
            self._over()
        elif not self._ended:  # otherwise it was whole, whatever has come after that
            self._keep = None

    def _over(self) -> None:
        keep, self._keep = self._keep, None
        if keep is not None:
            keep(tuple(self._chunks))


class Tape(Generic[Q, R]):
    """Replays and records for one transport.

    Args:
        library: the classes of the client's library.
        body: `TapedBody` as a stream of the library, for both kinds of clients.
    """

    def __init__(self, library: Library[R], cassette: Cassette, body: Callable[..., Any]) -> None:
        if not isinstance(cassette, Cassette):
            raise TypeError(f"cassette must be a Cassette, not {type(cassette).__name__}")
        self._library = library
        self._cassette = cassette
        self._body = body

    async def send(self, request: Q, ask: Callable[[Q], Awaitable[R]]) -> R:
        """The response, as it was recorded or from `ask`.

        Raises:
            UnmatchedCallError: it was not recorded, and is not to be asked for.
            Exception: what `ask` raised, which is not recorded.
        """
        whole: Any = request
        taped = self._asked(request, await whole.aread())
        found = self._cassette.find(taped.asked)
        return self._replayed(request, found) if found is not None else self._taped(request, taped, await ask(request))

    def send_blocking(self, request: Q, ask: Callable[[Q], R]) -> R:
        """The same for a thread."""
        taped = self._asked(request, request.read())
        found = self._cassette.find(taped.asked)
        return self._replayed(request, found) if found is not None else self._taped(request, taped, ask(request))

    def _asked(self, request: Q, body: bytes) -> _Asking:
        fields = combine([(name.lower(), value) for name, value in request.headers.raw])
        found, secrets = asked(request.method, str(request.url), fields, body, self._cassette.scrubber)
        return _Asking(found, fields, secrets)

    def _replayed(self, request: Q, found: Answered) -> R:
        return self._library.response(
            found.status,
            headers=list(found.headers),
            stream=self._library.replayed(found.chunks, ()),
            request=request,
            extensions=dict(_EXTENSIONS),
        )

    def _taped(self, request: Q, taped: _Asking, response: R) -> R:
        plain = HttpRequest(request.method, taped.asked.url, taped.fields)
        head, undecodable = decoded_head(response, plain, self._library.decodes)
        if undecodable:
            return response  # nobody can see what is in it, so it is not recorded
        call = taped.asked.call
        terminator = None
        if call is not None and call.stream:
            media_type = combine(head.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
            terminator = call.profile.terminator(media_type, call.choices)

        def keep(chunks: tuple[bytes, ...]) -> None:
            self._cassette.add(taped.asked, self._answered(head, chunks, taped.secrets))

        return self._library.response(
            head.status,
            headers=list(head.headers),
            stream=self._body(response, terminator, keep),
            request=request,
            extensions=dict(response.extensions),
        )

    def _answered(self, head: ResponseHead, chunks: tuple[bytes, ...], secrets: tuple[bytes, ...]) -> Answered:
        scrubber = self._cassette.scrubber
        scrubbed = scrubber.chunks(chunks, secrets)
        headers = []
        for name, value in head.headers:
            if name in _OF_CONNECTION or not is_wanted(name):
                continue
            if name == _LENGTH and scrubbed != chunks:
                value = b"%d" % sum(map(len, scrubbed))
            headers.append((name, scrubber.text(value, secrets)))
        return Answered(head.status, tuple(headers), scrubbed)


class _Asking:
    """A request on its way: as it is recorded, its fields, and its secrets."""

    __slots__ = ("asked", "fields", "secrets")

    def __init__(self, asked: Asked, fields: Mapping[bytes, bytes], secrets: tuple[bytes, ...]) -> None:
        self.asked = asked
        self.fields = fields
        self.secrets = secrets
