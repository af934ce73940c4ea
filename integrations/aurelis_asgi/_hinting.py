"""Early hints (RFC 8297) on their way from the app to the client whose request it answers."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Final

from starlette.types import Message, Scope, Send

EARLY_HINT: Final = "http.response.early_hint"
"""The ASGI extension, and its message."""

_MAX_WAITING: Final = 16
"""Messages that wait for a slow client; hints beyond are dropped, since nothing depends on them."""


class Hints:
    """Sends the hints of a load that this request has begun.

    Others may share the load, so it never waits for this client: hints are sent by a task of the request. An
    asynchronous context manager around the wait for the response: at its end what has come is sent, before the
    response, or dropped when the request was cancelled. What comes later reaches nobody.

    Others who wait for the load get none, as only the head will tell whether it answers them as well.
    """

    __slots__ = ("_context", "_open", "_send", "_sending", "_waiting")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open = True
        self._waiting: deque[Message] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._context = copy_context()  # what is outside of us is in that of the request, and not of the load

    async def __aenter__(self) -> None:
        """From now on hints pass."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let those that have come go first, and no more.

        Raises:
            Exception: what the server has raised, unless the response has failed by itself.
        """
        self._open = False
        sending = self._sending
        if sending is None:
            return
        if isinstance(error, asyncio.CancelledError):
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)  # what it raises is of no use any more
        elif error is None:
            await sending
        elif isinstance(error, Exception):
            with suppress(Exception):
                await sending

    def take(self, message: Message) -> None:
        """Take what the app has sent. Never waits."""
        if not self._open or len(self._waiting) >= _MAX_WAITING:
            return
        # A copy: the app may go on with its own.
        self._waiting.append({**message, "links": [bytes(link) for link in message["links"]]})
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._pass_on(), context=self._context)

    async def _pass_on(self) -> None:
        try:
            while self._waiting:
                await self._send(self._waiting.popleft())
        except BaseException:
            self._open = False  # the request learns it when it goes on
            raise


def takes_hints(scope: Scope) -> bool:
    """Whether the server sends early hints to the client of this request."""
    return EARLY_HINT in (scope.get("extensions") or ())
