"""Responses that no cache could answer with, seen on their way to the client for what they say of what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from starlette.types import Message, Send

from aurelis.cache.exchange import Heeding, Upload
from aurelis.cache.http import HttpRequest, ResponseHead, combine, invalidated, invalidated_groups

from ._load import varying


class Watching(Protocol):
    """A `send` that looks at a response."""

    async def __call__(self, message: Message) -> None:
        """Take one message."""
        ...

    async def close(self) -> None:
        """The app has ended, whether or not its response has."""
        ...


class UnsafeSend:
    """A `send` for the response to an unsafe request.

    Before the client hears of it, what it puts out of date is forgotten (RFC 9111 §4.4, RFC 9875 §3).

    Args:
        request: makes the record of the request.
        addresses: gives, for a URI, those that stand in keys.
    """

    def __init__(
        self,
        heeding: Heeding,
        request: Callable[[], HttpRequest],
        addresses: Callable[[str], Iterable[str]],
        send: Send,
    ) -> None:
        self._send = send
        self._heeding = heeding
        self._request = request
        self._addresses = addresses
        self._upload: Upload | None = None

    async def __call__(self, message: Message) -> None:
        """Take one message."""
        if message["type"] == "http.response.start":
            await self._heed(message)
        elif self._upload is not None and message["type"] == "http.response.body":
            # Who has the end of the answer finds it stored.
            await self._upload.chunk(message.get("body", b""), last=not message.get("more_body", False))
        await self._send(message)

    async def close(self) -> None:
        """The app has ended, whether or not its response has."""
        if self._upload is not None:
            await self._upload.close()

    async def _heed(self, message: Message) -> None:
        request = self._request()
        headers = tuple((bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ()))
        head = ResponseHead(message["status"], headers)
        urls = dict.fromkeys(address for url in invalidated(request, head) for address in self._addresses(url))
        tags = invalidated_groups(request, combine(headers))
        if urls or tags:
            await self._heeding.invalidate(urls, tags)
            self._upload = await self._heeding.upload(request, head)


class HeadSend:
    """A `send` for the response to a HEAD request that went to the app."""

    def __init__(self, heeding: Heeding, request: HttpRequest, send: Send) -> None:
        self._send = send
        self._heeding = heeding
        self._request = request
        self._request_time = heeding.now()

    async def __call__(self, message: Message) -> None:
        """Take one message."""
        if message["type"] == "http.response.start":
            headers = tuple((bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ()))
            await self._heeding.freshen(self._request, ResponseHead(message["status"], headers), self._request_time)
        await self._send(message)

    async def close(self) -> None:
        """The app has ended."""


class PartSend:
    """A `send` for the response to a request with Range, which may be stored as far as it goes (RFC 9111 §3.3)."""

    def __init__(self, heeding: Heeding, request: HttpRequest, send: Send) -> None:
        self._send = send
        self._heeding = heeding
        self._request = request
        self._upload: Upload | None = None

    async def __call__(self, message: Message) -> None:
        """Take one message."""
        if message["type"] == "http.response.start":
            headers = tuple((bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ()))
            rule = self._request.rule
            head = ResponseHead(message["status"], varying(headers, () if rule is None else rule.vary))
            self._upload = await self._heeding.part(self._request, head)
        elif self._upload is not None and message["type"] == "http.response.body":
            # Who has the end of the answer finds it stored.
            await self._upload.chunk(message.get("body", b""), last=not message.get("more_body", False))
        await self._send(message)

    async def close(self) -> None:
        """The app has ended, whether or not its response has."""
        if self._upload is not None:
            await self._upload.close()
