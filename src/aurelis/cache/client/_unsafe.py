"""What responses to unsafe requests mean for what is stored."""

from __future__ import annotations

from typing import Generic, TypeVar

from aurelis.cache._call_options import CallOptions
from aurelis.cache.exchange import Heeding, Upload
from aurelis.cache.http import SAFE_METHODS, combine, invalidated, invalidated_groups

from ._calls import Recogniser, head_of
from ._library import Library, Request, Response

R = TypeVar("R", bound=Response)


class Unsafe(Generic[R]):
    """Heeds the responses that pass by to requests that no rule answers.

    Args:
        library: the classes of the client's library.
        recognise: tells what requests are to the rules.
        heeding: carries out what follows.
        max_body_bytes: of a response to a POST that is read at once to be stored.
    """

    def __init__(self, library: Library[R], recognise: Recogniser, heeding: Heeding, max_body_bytes: int) -> None:
        self._library = library
        self._recognise = recognise
        self._heeding = heeding
        self._max_body_bytes = max_body_bytes

    async def heed(self, request: Request, options: CallOptions, response: R) -> R:
        """Forget what the response to an unsafe request puts out of date (RFC 9111 §4.4)."""
        upload = await self._invalidate(request, options, response)
        if upload is None:
            return response
        try:
            chunks: tuple[bytes, ...] = tuple([chunk async for chunk in response.stream])
            await response.aclose()
            await upload.chunk(b"".join(chunks), last=True)
        finally:
            await upload.close()
        return self._as_it_was(request, response, chunks)

    def heed_blocking(self, request: Request, options: CallOptions, response: R) -> R:
        """The same for a thread."""
        if request.method in SAFE_METHODS:
            return response
        upload = self._heeding.run(self._invalidate(request, options, response))
        if upload is None:
            return response
        try:
            chunks: tuple[bytes, ...] = tuple(response.stream)
            response.close()
            self._heeding.run(upload.chunk(b"".join(chunks), last=True))
        finally:
            self._heeding.run(upload.close())
        return self._as_it_was(request, response, chunks)

    async def _invalidate(self, request: Request, options: CallOptions, response: R) -> Upload | None:
        """The same; what records the response to a POST, if that may be stored and is short enough to be read first."""
        call = self._recognise.unsafe(request, options)
        if call is None:
            return None
        head = head_of(response)
        fields = combine(head.headers)
        urls = [address for url in invalidated(call, head) for address in self._recognise.addresses(url)]
        tags = invalidated_groups(call, fields)
        if not urls and not tags:
            return None
        await self._heeding.invalidate(urls, tags)
        if options.mode == "bypass":
            return None  # what is out of date is so for all, but this response is for its caller alone
        if call.url not in self._recognise.addresses(call.url):
            return None  # its key would hold a credential
        length = fields.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 9 or int(length) > self._max_body_bytes:
            return None
        return None if b"content-encoding" in fields else await self._heeding.upload(call, head)

    def _as_it_was(self, request: Request, response: R, chunks: tuple[bytes, ...]) -> R:
        """The response with its body unread, as its caller expects it."""
        return self._library.response(
            response.status_code,
            headers=response.headers.raw,
            stream=self._library.replayed(chunks),
            request=request,
            extensions=dict(response.extensions),
        )
