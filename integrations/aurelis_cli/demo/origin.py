"""What the app counts itself, around its caches: calls that the cache did not avoid, and calls that it is to avoid."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import httpx2
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .faults import APP, SLOW, Switch

SLOWER: Final = 0.5
"""Seconds that the app takes longer when it is slow on purpose."""


class Origin:
    """The app's own counts. One loop writes; any thread reads."""

    def __init__(self) -> None:
        """Nothing has been called."""
        self._calls: Counter[str] = Counter()
        self.model_calls = 0
        """Calls that the app's client has made, whoever answered them."""

    def count(self, path: str) -> None:
        """One more call of `path`."""
        self._calls[path.strip("/").partition("/")[0] or "index"] += 1

    def calls(self) -> dict[str, int]:
        """Calls that reached the app, by the first part of their path."""
        return dict(self._calls)


class CountCalls:
    """ASGI middleware that counts into an `Origin`. To be placed inside the cache's middleware.

    Behind it the app fails where that is switched on.
    """

    def __init__(self, app: ASGIApp, origin: Origin, faults: Switch) -> None:
        """Count the HTTP requests on their way to `app`."""
        self._app = app
        self._origin = origin
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and pass on."""
        app = self._app
        if scope["type"] == "http":
            self._origin.count(scope["path"])
            if APP in self._faults:
                app = JSONResponse({"detail": "failing on purpose"}, 503)
            elif SLOW in self._faults:
                await asyncio.sleep(SLOWER)
        await app(scope, receive, send)


class CountModelCalls(httpx2.AsyncBaseTransport):
    """Transport that counts into an `Origin`. To be placed outside the cache's transport."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, origin: Origin) -> None:
        """Count the requests on their way to `inner`."""
        self._inner = inner
        self._origin = origin

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Count and pass on."""
        self._origin.model_calls += 1
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the other one."""
        await self._inner.aclose()
