"""Running the app as a load that several requests may share."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Scope

from aurelis.cache.exchange import Recorder
from aurelis.cache.http import Fields, HttpRequest, ResponseHead, RuleEffect, conditional

from ._hinting import EARLY_HINT, Hints, takes_hints
from ._routes import Routing


class AppLoad:
    """One call of the app, whose response goes to a recorder.

    It runs in a task of its own, with the scope of the request that leads. Other requests may share it, so the app is
    told of a disconnect only when nobody is left: then the task is cancelled.

    Args:
        rule: what the app's owner declared for the request, or `None`.
        route: template of the route that has answered it before; empty where that is not known.
        hints: pass early hints on; `None`: nobody waits for them.
    """

    def __init__(
        self, app: ASGIApp, scope: Scope, rule: RuleEffect | None, route: str = "", hints: Hints | None = None
    ) -> None:
        self._app = app
        self._outer_scope = self._scope = scope
        self._routing = Routing(scope, route)
        # What does not count for the key must not decide about the response, so the app does not get to see it.
        self._query = None if rule is None else rule.query
        self._vary = () if rule is None else rule.vary
        self._hints = hints
        self._may_hint = takes_hints(scope)
        self._recorder: Recorder[HttpRequest]
        self._body_received = False
        self._started = False
        self._is_wanted = True
        self._complete = asyncio.Event()

    async def __call__(self, recorder: Recorder[HttpRequest]) -> None:
        """Call the app.

        Raises:
            RuntimeError: it returned without a complete response, which must not be taken for one.
        """
        self._recorder = recorder
        self._scope = self._adapted(recorder.conditions)
        _hide_extensions(self._scope, but=EARLY_HINT if self._hints is not None else "")
        await self._app(self._scope, self._receive, self._send)
        if not self._complete.is_set():
            raise RuntimeError("the app returned without completing its response")

    def _adapted(self, conditions: Fields) -> Scope:
        """The scope with the cache's questions in place of the client's."""
        changes: dict[str, object] = {}
        if self._query is not None:
            changes["query_string"] = self._query
        headers = self._outer_scope["headers"]
        adapted = conditional(headers, conditions)
        if conditions or len(adapted) != len(headers):
            changes["headers"] = adapted
        return {**self._outer_scope, **changes} if changes else self._outer_scope

    async def _receive(self) -> Message:
        if not self._body_received:
            self._body_received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        # Cancelled with the task when the last request has left.
        await self._complete.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == EARLY_HINT and self._may_hint and not self._started:
            if self._hints is not None:
                self._hints.take(message)
                await asyncio.sleep(0)  # it leaves before the app goes on, also if that never waits for anything
            return
        expected = "http.response.body" if self._started else "http.response.start"
        if kind != expected or self._complete.is_set():
            # As servers do. What comes out of order must not be stored as a part of something else.
            expected = "nothing more" if self._complete.is_set() else repr(expected)
            raise RuntimeError(f"the app sent {kind!r} where {expected} is expected")
        if kind == "http.response.start":
            self._started = True
            headers = tuple((bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ()))
            self._recorder.route = self._routing.template(self._scope)
            if self._scope is not self._outer_scope:
                self._routing.tell(self._outer_scope, self._scope)  # for telemetry outside of us
            head = ResponseHead(message["status"], varying(headers, self._vary))
            self._is_wanted = await self._recorder.take(head) is not None
            return
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if body and self._is_wanted:
            await self._recorder.chunk(bytes(body), last=not more)
        if more:
            # Readers get the chunk before the app makes the next one, also if it never waits for anything.
            await asyncio.sleep(0)
        else:
            self._complete.set()
            await self._recorder.end()


def varying(headers: Fields, names: tuple[str, ...]) -> Fields:
    """The fields of a response that names these fields of requests in `Vary`, too."""
    return (*headers, (b"vary", ", ".join(names).encode())) if names else headers


def _hide_extensions(scope: Scope, *, but: str) -> None:
    # With these the app would answer by messages that cannot be recorded, a file's path for instance.
    extensions = scope.get("extensions")
    if extensions:
        scope["extensions"] = {
            name: value for name, value in extensions.items() if not name.startswith("http.response.") or name == but
        }
