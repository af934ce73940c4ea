"""What the responses to unsafe requests put out of date, where they say it themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from starlette.types import Message, Send

from aurelis.cache.exceptions import CacheError
from aurelis.cache.http import HttpRequest, combine, invalidated_groups
from aurelis.cache.manager import CacheManager

_FIELD = b"cache-group-invalidation"


def heeding_groups(send: Send, manager: CacheManager, request: Callable[[], HttpRequest]) -> Send:
    """A `send` that invalidates the groups which a response names, before the client hears of it (RFC 9875 §3).

    Args:
        request: makes the record of the request, which is seldom needed.
    """

    async def heed(message: Message) -> None:
        if message["type"] == "http.response.start":
            fields = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            if any(name == _FIELD for name, _ in fields):
                # Here it holds in any case, and a shared layer that could not be reached is told later.
                with suppress(CacheError):
                    await manager.invalidate_tags(*invalidated_groups(request(), combine(fields)))
        await send(message)

    return heed
