"""A request's way through the cache, with and without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aurelis.cache._call_options import CallOptions, in_force
from aurelis.cache._options import seconds
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.exchange import (
    MAX_REFRESHES,
    Alone,
    Exchange,
    Heeding,
    Hit,
    Items,
    Lead,
    Pending,
    Refused,
)
from aurelis.cache.http import (
    CacheStatus,
    HttpPolicy,
    HttpRequest,
)
from aurelis.cache.manager import AnyManager, CacheManager, manager_of
from aurelis.cache.models import Catalogue, ModelPolicy, ModelRequest
from aurelis.cache.typing import Bypass

from ._calls import Call, Recogniser, decoded_head, patience_for_head
from ._library import Library, Request, Response
from ._lingering import Lingering
from ._load import EXTENSIONS, Load, unobserved
from ._ongoing import Ongoing
from ._options import ClientOptions
from ._recall import Recall
from ._responses import Responses, is_as_it_is, marked
from ._several import Several, SeveralCache
from ._thread_loads import ThreadLoads
from ._threads import Threads
from ._unsafe import Unsafe
from ._wishes import EXTENSION, wishes, within

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)


class ClientCache(Generic[Q, R]):
    """The cache behind one transport.

    Args:
        library: the classes of the client's library.
        cache: manager; `None` means the process's. It is never closed here.
        options: what can be chosen.

    Attributes:
        ongoing: of the inner transport.

    Raises:
        TypeError: `cache` is no manager.
    """

    def __init__(self, library: Library[R], cache: AnyManager | None, options: ClientOptions) -> None:
        self._library = library
        self._options = options
        self._of_process = cache is None
        self.ongoing = Ongoing(self._finish)
        self._refreshing = Threads("aurelis-cache-refresh", MAX_REFRESHES, self.ongoing)
        self._lingering = Lingering(self.ongoing)
        # The hot path: for most transports it need not look for what they don't have.
        self._named = options.namespace is not None
        self._varied = options.variants > 1
        self._stand_on(manager_of(cache))

    def _stand_on(self, manager: CacheManager) -> None:
        options = self._options
        keys = manager.key_builder.build_key
        self._status = CacheStatus(manager.config.name)
        self._responses = responses = Responses(self._library, self._status, options.pacing)
        # No further call on the way to a hit.
        self._repeat, self._replay, self._respond = responses.repeat, responses.replay, responses.respond
        self._thread_loads: ThreadLoads[Q, R] = ThreadLoads(self._library, responses, self._lingering, self._refreshing)
        catalogue = Catalogue(options.operations, options.protocols)
        self._recognise = Recogniser(
            self._library.bytes_stream,
            manager.config.hash_key(),
            catalogue,
            shared=options.shared,
            share_across_credentials=options.share_across_credentials,
            by_user=options.partition_by_user,
            variants=options.variants,
        )
        self._recall = Recall(self._library.bytes_stream, catalogue, shared=options.shared)
        models = self._model_policy = ModelPolicy(
            keys=keys,
            ttl=seconds(options.ttl),
            honour_cache_control=options.honour_cache_control,
            keep=options.keep,
            max_temperature=options.max_temperature,
            key_headers=options.key_headers,
            stale_while_revalidate=seconds(options.stale_while_revalidate),
            stale_if_error=seconds(options.stale_if_error),
            throttle=seconds(options.throttle),
            negative_ttl=seconds(options.negative_ttl),
            cost=options.cost,
            linger=seconds(options.linger),
        )
        self._models: Exchange[ModelRequest] = Exchange(
            manager, models, max_body_bytes=options.max_body_bytes, on_refresh=self.ongoing.watch
        )
        if options.cost is not None:
            self._models.count_costs()
        self._several: SeveralCache[Q, R] = SeveralCache(self._library, Items(self._models), self._status, self.ongoing)
        http = HttpPolicy(
            shared=options.shared,
            # Apart, so that a shared cache never finds what only a private one may store.
            category="http-client-shared" if options.shared else "http-client",
            keys=keys,
            honour_request_directives=options.honour_request_directives,
            targets=options.targets(),
        )
        self._http: Exchange[HttpRequest] = Exchange(
            manager, http, max_body_bytes=options.max_body_bytes, on_refresh=self.ongoing.watch
        )
        self._heeding = Heeding(self._http, http)
        self._unsafe = Unsafe(self._library, self._recognise, self._heeding, options.max_body_bytes)

    async def send(self, request: Q, ask: Callable[[Q], Awaitable[R]]) -> R:
        """The response, from the cache or from `ask`, which then runs in a task that other callers may share.

        Raises:
            Exception: what `ask` raised; if another library's call was shared, this library's own in its place.
        """
        namespace = self._namespace() if self._named else ""
        mark, recalled = self._recalled(request, namespace)
        if recalled is not None:
            return recalled
        if self.ongoing.closing is not None:
            self.ongoing.use()
        request, options = wishes(request)
        options = within(options, namespace)
        found = self._find(request, mark, options)
        if found is None:
            return await self._unsafe.heed(request, options, await ask(request))
        if isinstance(found, Alone):
            return marked(await ask(request), self._status.forwarded(found.reason, detail=found.detail))
        if isinstance(found, _Stale):
            if found.hit.refresh:
                self._refresh(request, found.exchange, found.call, found.hit, ask)
            return self._replay(request, found.call, found.hit)
        if isinstance(found, Several):
            try:
                given = await self._several.send(request, found, self._undisturbed(ask))
            except BaseException as error:
                self._library.translate(error)
                raise
            if given is None:
                return marked(await ask(request), self._status.forwarded("miss", detail="items"))
            return self._given(request, found.call, given)
        if not isinstance(found, _Sought):
            return found
        exchange, call = found.exchange, found.pending.request
        load = self._load(request, call, ask)
        try:
            answer = await exchange.open(found.pending, load, patience=patience_for_head(request))
        except GeneratorExit:
            raise  # dropped with its event loop, where there is nothing to wait for
        except BaseException as error:
            await load.leave()
            self._library.translate(error)
            raise
        if isinstance(answer, Alone):
            begin = self._heeding.now()
            response = await ask(request)
            if request.method == "HEAD" and isinstance(call, HttpRequest):
                head, refused = decoded_head(response, call, self._library.decodes)
                if not refused:
                    await self._heeding.freshen(call, head, begin)
            return marked(response, self._status.forwarded(answer.reason, detail=answer.detail))
        if isinstance(answer, Hit) and answer.refresh:
            self._refresh(request, exchange, call, answer, ask)
        return self._respond(request, call, answer, load.extensions)

    def send_blocking(self, request: Q, ask: Callable[[Q], R]) -> R:
        """The same for a thread, which runs `ask` and reads its response itself."""
        namespace = self._namespace() if self._named else ""
        mark, recalled = self._recalled(request, namespace)
        if recalled is not None:
            return recalled
        if self.ongoing.closing is not None:
            self.ongoing.use()
        request, options = wishes(request)
        options = within(options, namespace)
        found = self._find(request, mark, options)
        if found is None:
            return self._unsafe.heed_blocking(request, options, ask(request))
        if isinstance(found, Alone):
            return marked(ask(request), self._status.forwarded(found.reason, detail=found.detail))
        if isinstance(found, _Stale):
            if found.hit.refresh:
                self._thread_loads.refresh(request, found.exchange, found.call, found.hit, ask)
            return self._replay(request, found.call, found.hit)
        if isinstance(found, Several):
            try:
                given = self._several.send_blocking(request, found, ask, self._thread_loads.run_behind)
            except Exception as error:
                self._library.translate(error)
                raise
            if given is None:
                return marked(ask(request), self._status.forwarded("miss", detail="items"))
            return self._given(request, found.call, given)
        if not isinstance(found, _Sought):
            return found
        exchange, call = found.exchange, found.pending.request
        try:
            answer = exchange.open_blocking(found.pending, patience=patience_for_head(request))
        except Exception as error:
            self._library.translate(error)
            raise
        if isinstance(answer, Lead):
            return self._thread_loads.lead(request, call, answer, ask)
        if isinstance(answer, Alone):
            begin = self._heeding.now()
            response = ask(request)
            if request.method == "HEAD" and isinstance(call, HttpRequest):
                head, refused = decoded_head(response, call, self._library.decodes)
                if not refused:
                    self._heeding.run(self._heeding.freshen(call, head, begin))
            return marked(response, self._status.forwarded(answer.reason, detail=answer.detail))
        if isinstance(answer, Hit) and answer.refresh:
            self._thread_loads.refresh(request, exchange, call, answer, ask)
        return self._respond(request, call, answer, EXTENSIONS)

    def _namespace(self) -> str:
        """What keeps the requests of this transport apart at the moment; empty: nothing."""
        given = self._options.namespace
        if given is None:
            return ""
        name: object = given() if callable(given) else given
        if name is not None and not isinstance(name, str):
            # Whoever keeps tenants apart by it must not share by accident.
            raise ConfigurationError(f"namespace must give a str, not {type(name).__name__}")
        return name or ""

    def _recalled(self, request: Q, namespace: str) -> tuple[bytes | None, R | None]:
        """What the request is remembered by, if it may be, and its answer, if it was answered before."""
        if namespace or self._varied or in_force() is not None or EXTENSION in request.extensions:
            mark = self._mark(request, namespace)
        else:
            mark = self._recall.mark(request)
        if mark is None:
            return None, None
        known = self._recall.known.get(mark)
        if known is not None:
            hit = known.exchange.fresh(known.key)
            if hit is not None:
                return mark, self._repeat(request, known, hit)
        return mark, None

    def _mark(self, request: Q, namespace: str) -> bytes | None:
        """What the request may be remembered by; `None`: it is to be looked at."""
        around = in_force()
        if around is not None:
            if around.mode is not None and around.mode != "use":
                return None
            namespace = within(around, namespace).namespace or ""
        if self._varied or EXTENSION in request.extensions:
            return None
        return self._recall.mark(request, namespace)

    def _load(self, request: Q, call: Call, ask: Callable[[Q], Awaitable[R]], *, behind: bool = False) -> Load[Q, R]:
        return Load(self._undisturbed(ask), request, call, self._library.decodes, self.ongoing, behind=behind)

    def _undisturbed(self, ask: Callable[[Q], Awaitable[R]]) -> Callable[[Q], Awaitable[R]]:
        """Asks for a response that a load reads, which may be cancelled at any time."""

        async def asked(request: Q) -> R:
            response = await ask(request)
            response.stream = self._library.undisturbed(response.stream, self._finish)
            return response

        return asked

    def _finish(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> asyncio.Task[None]:
        """Run something short to its end, whoever waits for that; the manager does when it closes."""
        return self._http.engine.flights.run_to_its_end(work, context)

    def _refresh(
        self, request: Q, exchange: Exchange[Any], call: Call, hit: Hit, ask: Callable[[Q], Awaitable[R]]
    ) -> None:
        """Load a stale response anew in a task that nobody waits for, if not too many do so already."""
        exchange.refresh(call, hit, self._load(unobserved(request), call, ask, behind=True))

    def _find(
        self, request: Q, mark: bytes | None, options: CallOptions
    ) -> R | _Sought | _Stale | Several | Alone | None:
        """The response if memory has it; `None`: the request is none of the cache's business."""
        call = self._recognise(request, options)
        if call is None:
            return None
        if self._of_process and self._http.is_closed():
            self._stand_on(manager_of(None))  # somebody has closed it: there is a new one
        exchange: Exchange[Any] = self._http if isinstance(call, HttpRequest) else self._models
        if options.mode == "bypass":
            return exchange.bypass(Bypass(detail="option"))
        if isinstance(call, ModelRequest) and call.call.items and self._model_policy.keeps(call):
            parts = self._recognise.apart(call, request.read())
            if parts is not None:
                return Several(*parts)
        found = exchange.peek(call)
        if not isinstance(found, Hit):
            return _Sought(exchange, found)
        if found.ttl <= 0:
            return _Stale(exchange, call, found)
        if mark is not None:
            stored = found.response
            as_it_is = is_as_it_is(stored.headers) and not self._responses.pauses(stored)
            self._recall.keep(mark, exchange, call, found, as_it_is=as_it_is)
        return self._replay(request, call, found)

    def _given(self, request: Q, call: Call, given: R | Hit | Refused) -> R:
        if isinstance(given, (Hit, Refused)):
            return self._respond(request, call, given, EXTENSIONS)
        return given


@dataclass(slots=True)
class _Stale:
    """A request that memory has a stale response for, which may be served and perhaps is to be loaded anew."""

    exchange: Exchange[Any]
    call: Call
    hit: Hit


@dataclass(slots=True)
class _Sought:
    """A request for which memory has nothing."""

    exchange: Exchange[Any]
    pending: Pending[Any]
