"""A request's way through the cache, with and without an event loop."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from aurelis.cache._options import Duration, seconds
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.exchange import Alone, Exchange, Hit, Lead, Live, Pending, Recorder, Refused
from aurelis.cache.http import CacheStatus, HttpPolicy, HttpRequest, ResponseHead, is_not_modified, not_modified_fields
from aurelis.cache.manager import AnyManager, manager_of
from aurelis.cache.models import ModelPolicy, ModelRequest
from aurelis.cache.typing import Pass, Record

from ._calls import Call, Recogniser, decoded_head, shared_fields
from ._library import Library, Request, Response
from ._recall import Known, Recall

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)

_HTTP_1_1 = b"HTTP/1.1"
_EXTENSIONS = {"http_version": _HTTP_1_1}


class ClientCache(Generic[Q, R]):
    """The cache behind one transport.

    Args:
        library: the classes of the client's library.
        cache: manager; `None` means the process's. It is never closed here.
        ttl: seconds (or timedelta) for which the answer of a model call is served; 0 keeps none.
        shared: plain HTTP by the rules of a shared cache, whose responses go to callers with any credentials.
        share_across_credentials: model calls that differ in their credentials alone have one answer.
        honour_cache_control: keep no answer of a model whose `Cache-Control` says `no-store`.
        honour_request_directives: heed `Cache-Control` and `Pragma` of plain HTTP requests.
        max_body_bytes: larger bodies pass through and are not stored.

    Raises:
        ConfigurationError: `max_body_bytes` is not positive.
        TypeError: `cache` is no manager.
        ValueError: `ttl` is negative or not a number.
    """

    def __init__(
        self,
        library: Library[R],
        cache: AnyManager | None,
        *,
        ttl: Duration,
        shared: bool,
        share_across_credentials: bool,
        honour_cache_control: bool,
        honour_request_directives: bool,
        max_body_bytes: int,
    ) -> None:
        if max_body_bytes < 1:
            raise ConfigurationError(f"max_body_bytes must be 1 or more, not {max_body_bytes}")
        manager = manager_of(cache)
        keys = manager.key_builder.build_key
        self._library = library
        self._status = CacheStatus(manager.config.name)
        self._recognise = Recogniser(
            library.bytes_stream,
            manager.config.hash_key(),
            shared=shared,
            share_across_credentials=share_across_credentials,
        )
        self._recall = Recall(library.bytes_stream, manager.config.hash_key())
        self._models: Exchange[ModelRequest] = Exchange(
            manager,
            ModelPolicy(keys=keys, ttl=seconds(ttl), honour_cache_control=honour_cache_control),
            max_body_bytes=max_body_bytes,
        )
        self._http: Exchange[HttpRequest] = Exchange(
            manager,
            HttpPolicy(
                shared=shared,
                # Apart, so that a shared cache never finds what only a private one may store.
                category="http-client-shared" if shared else "http-client",
                keys=keys,
                honour_request_directives=honour_request_directives,
            ),
            max_body_bytes=max_body_bytes,
        )

    async def send(self, request: Q, ask: Callable[[Q], Awaitable[R]]) -> R:
        """The response, from the cache or from `ask`, which then runs in a task that other callers may share.

        Raises:
            Exception: what `ask` raised; if another library's call was shared, this library's own in its place.
        """
        found = self._find(request)
        if found is None:
            return await ask(request)
        if not isinstance(found, _Sought):
            return found
        exchange, call = found.exchange, found.pending.request
        load = _Load(ask, request, call, self._library.decodes)
        try:
            answer = await exchange.open(found.pending, load)
        except BaseException as error:
            await load.leave()
            self._library.translate(error)
            raise
        if isinstance(answer, Alone):
            return _mark(await ask(request), self._status.forwarded(answer.reason, detail=answer.detail))
        return self._respond(request, call, answer, load.http_version)

    def send_blocking(self, request: Q, ask: Callable[[Q], R]) -> R:
        """The same for a thread, which runs `ask` and reads its response itself."""
        found = self._find(request)
        if found is None:
            return ask(request)
        if not isinstance(found, _Sought):
            return found
        exchange, call = found.exchange, found.pending.request
        try:
            answer = exchange.open_blocking(found.pending)
        except Exception as error:
            self._library.translate(error)
            raise
        if isinstance(answer, Lead):
            return self._lead(request, call, answer, ask)
        if isinstance(answer, Alone):
            return _mark(ask(request), self._status.forwarded(answer.reason, detail=answer.detail))
        return self._respond(request, call, answer, _HTTP_1_1)

    def _find(self, request: Q) -> R | _Sought | None:
        """The response if memory has it; `None`: the request is none of the cache's business."""
        recall = self._recall
        mark = recall.mark(request)
        if mark is not None:
            known = recall.find(mark)
            if known is not None:
                found = known.exchange.peek(known.call, known.key)
                if isinstance(found, Hit):
                    return self._replay(request, known.call, found, known)
        call = self._recognise(request)
        if call is None:
            return None
        exchange: Exchange[Any] = self._http if isinstance(call, HttpRequest) else self._models
        found = exchange.peek(call)
        if not isinstance(found, Hit):
            return _Sought(exchange, found)
        if mark is not None:
            recall.keep(mark, exchange, call)
        return self._replay(request, call, found)

    def _replay(self, request: Q, call: Call, hit: Hit, known: Known | None = None) -> R:
        stored = hit.response
        ttl = math.inf if hit.ttl == math.inf else math.floor(hit.ttl)
        replay = None if known is None else known.replay
        if replay is None or replay[0] is not stored or replay[1] != hit.age or replay[2] != ttl:
            replay = (stored, hit.age, ttl, *self._prepare(call, hit))
            if known is not None:
                known.replay = replay
        _, _, _, status, headers, chunks = replay
        library = self._library
        return library.response(
            status, headers=headers, stream=library.replayed(chunks), request=request, extensions=_EXTENSIONS
        )

    def _prepare(self, call: Call, hit: Hit) -> tuple[int, Any, tuple[bytes, ...]]:
        stored = hit.response
        status, fields, chunks = stored.status, stored.headers, stored.chunks
        if isinstance(call, HttpRequest):
            if is_not_modified(call.fields, stored):
                status, fields, chunks = 304, not_modified_fields(stored), ()
            elif call.method == "HEAD":
                chunks = ()
        member = self._status.hit(ttl=None if hit.ttl == math.inf else hit.ttl)
        headers = self._library.headers([*fields, (b"age", b"%d" % hit.age), (b"cache-status", member)])
        return status, headers, chunks

    def _respond(self, request: Q, call: Call, answer: Hit | Refused | Live, http_version: bytes) -> R:
        library = self._library
        if isinstance(answer, Hit):
            return self._replay(request, call, answer)
        if isinstance(answer, Refused):
            fields = ((b"content-length", b"0"),)
            return self._response(request, ResponseHead(504, fields), self._status.refused(), library.replayed(()))
        member = self._forwarded(answer.reason, answer.head, answer.decision, collapsed=answer.collapsed)
        if answer.reader is None:
            answer.close()
            return _mark(cast("R", answer.raw), member)
        head = answer.head
        if answer.collapsed:
            head = ResponseHead(head.status, shared_fields(head, call))
        return self._response(request, head, member, library.live(answer, library), http_version)

    def _lead(self, request: Q, call: Call, lead: Lead, ask: Callable[[Q], R]) -> R:
        try:
            response = ask(request)
        except BaseException as error:
            stale = lead.fail(error)
            lead.close()
            if stale is None:
                raise
            return self._replay(request, call, stale)
        try:
            head, refused = decoded_head(response, call, self._library.decodes)
            decision = lead.head(head, response, refused=refused)
        except BaseException as error:
            lead.fail(error)
            lead.close()
            response.close()
            raise
        member = self._forwarded(lead.reason, head, decision, collapsed=False)
        if isinstance(decision, Pass):
            lead.close()
            return _mark(response, member)
        return self._response(request, head, member, self._library.led(lead, response), _version(response))

    def _response(
        self, request: Q, head: ResponseHead, member: bytes, stream: object, http_version: bytes = _HTTP_1_1
    ) -> R:
        return self._library.response(
            head.status,
            headers=[*head.headers, (b"cache-status", member)],
            stream=stream,
            request=request,
            extensions={"http_version": http_version},
        )

    def _forwarded(self, reason: str, head: ResponseHead, decision: Record | Pass, *, collapsed: bool) -> bytes:
        if isinstance(decision, Pass):
            return self._status.forwarded(reason, status=head.status, detail=decision.reason)
        lifetime = decision.lifetime
        # Without a lifetime only the whole body decides: it is too early to say whether it will be stored.
        return self._status.forwarded(
            reason, status=head.status, ttl=lifetime, stored=lifetime is not None, collapsed=collapsed
        )


@dataclass(slots=True)
class _Sought:
    """A request for which memory has nothing."""

    exchange: Exchange[Any]
    pending: Pending[Any]


class _Load(Generic[Q, R]):
    """Asks for one response and records it, in the task of a flight."""

    def __init__(self, ask: Callable[[Q], Awaitable[R]], request: Q, call: Call, decodes: frozenset[bytes]) -> None:
        self._ask = ask
        self._request = request
        self._call = call
        self._decodes = decodes
        self._unread: R | None = None
        self._left = False
        self.http_version = _HTTP_1_1

    async def __call__(self, recorder: Recorder[Any]) -> None:
        response = await self._ask(self._request)
        self.http_version = _version(response)
        chunks: AsyncIterator[bytes] | None = None
        try:
            head, refused = decoded_head(response, self._call, self._decodes)
            decision = recorder.head(head, response, refused=refused)
            if isinstance(decision, Pass):
                if not self._left:
                    self._unread = response
                return
            chunks = response.aiter_bytes()
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


def _mark(response: R, member: bytes) -> R:
    headers = response.headers
    text = member.decode("ascii")
    headers["cache-status"] = f"{headers['cache-status']}, {text}" if "cache-status" in headers else text
    return response


def _version(response: Response) -> bytes:
    version = response.extensions.get("http_version")
    return version if isinstance(version, bytes) else _HTTP_1_1
