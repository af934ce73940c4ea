"""What the responses to requests that no cache could answer mean for what is stored."""

from __future__ import annotations

from typing import Generic, TypeVar

from aurelis.cache.exchange import Exchange, Heeding, Upload
from aurelis.cache.http import (
    SAFE_METHODS,
    HttpPolicy,
    HttpRequest,
    ResponseHead,
    combine,
    invalidated,
    invalidated_groups,
)

from ._calls import Call, Recogniser
from ._library import Library, Request, Response

R = TypeVar("R", bound=Response)

_MAX_LENGTH_DIGITS = 9


class ClientHeeding(Generic[R]):
    """Looks at them on their way to the caller, who gets them as they came.

    Args:
        library: the classes of the client's library.
        recognise: tells what requests are to the rules.
    """

    def __init__(
        self, library: Library[R], recognise: Recogniser, exchange: Exchange[HttpRequest], policy: HttpPolicy
    ) -> None:
        self._library = library
        self._recognise = recognise
        self._heeding = Heeding(exchange, policy)
        self._max_body_bytes = exchange.max_body_bytes

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._heeding.now()

    async def head(self, call: Call, response: R, request_time: float) -> None:
        """Heed the response to a HEAD (RFC 9111 §4.3.5); any other does not matter here."""
        if isinstance(call, HttpRequest) and call.method == "HEAD":
            await self._heeding.freshen(call, _head_of(response), request_time)

    def head_blocking(self, call: Call, response: R, request_time: float) -> None:
        """The same for a thread."""
        if isinstance(call, HttpRequest) and call.method == "HEAD":
            self._heeding.run(self._heeding.freshen(call, _head_of(response), request_time))

    async def unsafe(self, request: Request, response: R) -> R:
        """Forget what the response to an unsafe request puts out of date (RFC 9111 §4.4).

        Returns:
            The response with its body unread.
        """
        upload = await self._invalidate(request, response)
        if upload is None:
            return response
        chunks: tuple[bytes, ...] = tuple([chunk async for chunk in response.stream])
        await response.aclose()
        await upload.chunk(b"".join(chunks), last=True)
        return self._as_it_was(request, response, chunks)

    def unsafe_blocking(self, request: Request, response: R) -> R:
        """The same for a thread."""
        if request.method in SAFE_METHODS:
            return response
        upload = self._heeding.run(self._invalidate(request, response))
        if upload is None:
            return response
        chunks: tuple[bytes, ...] = tuple(response.stream)
        response.close()
        self._heeding.run(upload.chunk(b"".join(chunks), last=True))
        return self._as_it_was(request, response, chunks)

    async def _invalidate(self, request: Request, response: R) -> Upload | None:
        """The same; what records a response to a POST that may be stored and is short enough to be read at once."""
        call = self._recognise.unsafe(request)
        if call is None:
            return None
        head = _head_of(response)
        fields = combine(head.headers)
        urls = [address for url in invalidated(call, head) for address in self._recognise.addresses(url)]
        tags = invalidated_groups(call, fields)
        if not urls and not tags:
            return None
        await self._heeding.invalidate(urls, tags)
        length = fields.get(b"content-length", b"")
        if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS or int(length) > self._max_body_bytes:
            return None
        return None if b"content-encoding" in fields else await self._heeding.upload(call, head)

    def _as_it_was(self, request: Request, response: R, chunks: tuple[bytes, ...]) -> R:
        return self._library.response(
            response.status_code,
            headers=response.headers.raw,
            stream=self._library.replayed(chunks),
            request=request,
            extensions=dict(response.extensions),
        )


def _head_of(response: Response) -> ResponseHead:
    return ResponseHead(response.status_code, tuple((name.lower(), value) for name, value in response.headers.raw))
