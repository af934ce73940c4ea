"""Hearing that a client has left while its request waits for an answer that others may share."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.types import Message, Receive

_PATIENCE: Final = 0.02
"""Seconds to wait for a body that no field announces. It comes right behind the head, if there is one."""


class Listener:
    """Receives in place of the app, and cancels the task of the request when the client disconnects.

    The app may yet have to answer the request alone, so what came is kept for it. For the same reason a `receive` that
    is under way is not cancelled before the request has ended: some lose what they were about to return.

    Attributes:
        disconnected: it has cancelled the task.
        has_late_body: it has cancelled the task, since a body has come that `announces_body` did not see coming.
    """

    __slots__ = (
        "_came",
        "_listening",
        "_over",
        "_receive",
        "_received",
        "_request",
        "_silent",
        "disconnected",
        "has_late_body",
    )

    def __init__(self, receive: Receive, request: asyncio.Task[object]) -> None:
        self.disconnected = self.has_late_body = False
        self._silent = False  # nothing came, so a body may still come
        self._receive = receive
        self._request: asyncio.Task[object] | None = request
        self._received: list[Message] = []
        self._came = asyncio.Event()
        self._over = False
        self._listening = asyncio.create_task(self._listen())

    def ignore(self) -> None:
        """From now on a disconnect cancels nothing. Servers report one after each response, for instance."""
        self._request = None

    def stop(self) -> None:
        """The request has ended."""
        self._listening.cancel()

    async def announces_body(self) -> bool:
        """Whether a body has come or is coming. Waits for the first message, and takes nothing from the app.

        Some servers say nothing before a request is over that has none, so there is an end to it. A body that comes
        later cancels the task until `answered`.
        """
        if not self._received:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    while not self._received and not self._over:
                        self._came.clear()
                        await self._came.wait()
        self._silent = not self._received
        return bool(self._received) and _has_body(self._received[0])

    def answered(self) -> None:
        """An answer begins: from now on a body cancels nothing."""
        self._silent = False

    async def receive(self) -> Message:
        """For the app: what came, and then what comes."""
        while not self._received and not self._over:
            self._came.clear()
            await self._came.wait()
        return self._received.pop(0) if self._received else await self._receive()

    async def _listen(self) -> None:
        try:
            message = await self._next()
            if self._silent and self._request is not None and _has_body(message):
                self.has_late_body = True
                self._request.cancel()
                self._request = None
            # After the whole request only a disconnect can come. A `receive` that says something else, as those of
            # simple tests do, is not asked again: it may never wait.
            if message["type"] == "http.request" and not message.get("more_body", False):
                message = await self._next()
            if message["type"] == "http.disconnect" and self._request is not None:
                self.disconnected = True
                self._request.cancel()
        finally:
            # Also when it failed, which concerns nobody yet: the app has not asked.
            self._over = True
            self._came.set()

    async def _next(self) -> Message:
        message = await self._receive()
        self._received.append(message)
        self._came.set()
        return message


def _has_body(message: Message) -> bool:
    return bool(message.get("body") or message.get("more_body"))
