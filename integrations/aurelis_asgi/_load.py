"""Running the app as a load that several requests may share."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Scope

from aurelis.cache.exchange import Recorder
from aurelis.cache.http import HttpRequest, ResponseHead


class AppLoad:
    """One call of the app, whose response goes to a recorder.

    It runs in a task of its own, with the scope of the request that leads. Other requests may share it, so the app is
    told of a disconnect only when nobody is left: then the task is cancelled.
    """

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._recorder: Recorder[HttpRequest]
        self._body_received = False
        self._started = False

    async def __call__(self, recorder: Recorder[HttpRequest]) -> None:
        """Call the app.

        Raises:
            RuntimeError: it returned without a complete response, which must not be taken for one.
        """
        self._recorder = recorder
        _hide_extensions(self._scope)
        await self._app(self._scope, self._receive, self._send)
        if not recorder.ended:
            raise RuntimeError("the app returned without completing its response")

    async def _receive(self) -> Message:
        if not self._body_received:
            self._body_received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        # Cancelled with the task when the last request has left.
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            headers = tuple((bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ()))
            self._recorder.route = _route(self._scope)
            self._recorder.head(ResponseHead(message["status"], headers))
        elif kind == "http.response.body":
            body = message.get("body", b"")
            if body:
                await self._recorder.chunk(bytes(body))
            if not message.get("more_body", False):
                await self._recorder.end()


def _hide_extensions(scope: Scope) -> None:
    # With these the app would answer by messages that cannot be recorded, a file's path for instance.
    extensions = scope.get("extensions")
    if extensions:
        scope["extensions"] = {
            name: value for name, value in extensions.items() if not name.startswith("http.response.")
        }


def _route(scope: Scope) -> str:
    # Starlette's router leaves the route that matched; its template is what telemetry calls the request by.
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) else ""
