"""Asking the origin for one response."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from aurelis.cache.exchange import Recorder
from aurelis.cache.http import Fields, HttpRequest, conditional
from aurelis.cache.models import ModelRequest
from aurelis.cache.typing import Pass

from ._calls import Call, decoded_head
from ._library import Request, Response
from ._ongoing import Ongoing

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)

_OBSERVER: Final = "trace"
"""The extension by which the caller of a request is called back for each step of its connection."""
EXTENSIONS: Final[Mapping[str, Any]] = {"http_version": b"HTTP/1.1"}
"""Of a response that comes from no connection."""


class Load(Generic[Q, R]):
    """Asks for one response and records it, in the task of a flight.

    Args:
        ongoing: of the transport by which `ask` asks.
        behind: it is for no caller.
    """

    def __init__(
        self,
        ask: Callable[[Q], Awaitable[R]],
        request: Q,
        call: Call,
        decodes: frozenset[bytes],
        ongoing: Ongoing,
        *,
        behind: bool = False,
    ) -> None:
        self._ask = ask
        self._request = request
        self._call = call
        self._decodes = decodes
        self._ongoing = ongoing
        self._unread: R | None = None
        self._left = behind
        self.extensions = EXTENSIONS  # of the response, for the caller whose load it is

    async def __call__(self, recorder: Recorder[Any]) -> None:
        self._ongoing.watch(None)
        response = await self._ask(asking(self._request, self._call, recorder.conditions))
        self.extensions = response.extensions
        chunks: AsyncIterator[bytes] | None = None
        try:
            head, refused = decoded_head(response, self._call, self._decodes)
            first = None
            if isinstance(self._call, ModelRequest) and not refused and recorder.awaits_body(head):
                chunks = response.aiter_bytes()
                first = await anext(chunks, None)
            decision = await recorder.take(head, response, refused=refused)
            if decision is None:
                return
            if isinstance(decision, Pass):
                if not self._left:
                    self._unread = response
                return
            if chunks is None:
                chunks = response.aiter_bytes()
            elif first is not None:
                await recorder.chunk(first)
            async for chunk in chunks:
                await recorder.chunk(chunk)
        finally:
            if self._unread is None:
                if isinstance(chunks, AsyncGenerator):
                    await chunks.aclose()
                await response.aclose()

    async def leave(self) -> None:
        """The caller whose load it is has left: a response that was to be handed over unread is for nobody."""
        self._left = True
        if self._unread is not None:
            await self._unread.aclose()


def asking(request: Q, call: Call, conditions: Fields) -> Q:
    """The request with the cache's questions in place of the caller's; unchanged where there are none."""
    if not isinstance(call, HttpRequest):
        return request
    headers = request.headers.raw
    adapted = conditional(headers, conditions)
    if not conditions and len(adapted) == len(headers):
        return request
    return _made(request, adapted, request.extensions)


def unobserved(request: Q) -> Q:
    """The request for a load behind it, whose caller is not to be called back when it has its answer."""
    if _OBSERVER not in request.extensions:
        return request
    others = {name: value for name, value in request.extensions.items() if name != _OBSERVER}
    return _made(request, request.headers.raw, others)


def _made(request: Q, headers: Iterable[tuple[bytes, bytes]], extensions: Mapping[str, Any]) -> Q:
    make: Any = type(request)  # of the caller's library, whose requests are all made alike
    made: Q = make(
        request.method, request.url, headers=list(headers), stream=request.stream, extensions=dict(extensions)
    )
    return made
