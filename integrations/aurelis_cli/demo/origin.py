"""What the app counts itself, below its cache: the calls that the cache did not avoid."""

from __future__ import annotations

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send


class Origin:
    """Calls that reached the app, by the first part of their path. One loop writes; any thread reads."""

    def __init__(self) -> None:
        """Nothing has been called."""
        self._calls: Counter[str] = Counter()

    def count(self, path: str) -> None:
        """One more call of `path`."""
        self._calls[path.strip("/").partition("/")[0] or "index"] += 1

    def calls(self) -> dict[str, int]:
        """A copy of the counts."""
        return dict(self._calls)


class CountCalls:
    """ASGI middleware that counts into an `Origin`. To be placed inside the cache's middleware."""

    def __init__(self, app: ASGIApp, origin: Origin) -> None:
        """Count the HTTP requests on their way to `app`."""
        self._app = app
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and pass on."""
        if scope["type"] == "http":
            self._origin.count(scope["path"])
        await self._app(scope, receive, send)
