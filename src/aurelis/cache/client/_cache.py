"""A request's way through the cache, with and without an event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from secrets import token_hex
from typing import Any, Generic, TypeVar, cast

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
    Live,
    Pending,
    Refused,
)
from aurelis.cache.http import (
    CacheStatus,
    Fields,
    HttpPolicy,
    HttpRequest,
    ResponseHead,
    StoredResponse,
    append_status,
    is_not_modified,
    not_modified_fields,
    part_of,
)
from aurelis.cache.manager import AnyManager, CacheManager, manager_of
from aurelis.cache.models import Catalogue, ModelPolicy, ModelRequest
from aurelis.cache.telemetry import names
from aurelis.cache.typing import Bypass, Pass, Record

from ._calls import Call, Recogniser, decoded_head, patience_for_chunk, patience_for_head, shared_fields
from ._library import Library, Request, Response
from ._lingering import Lingering
from ._load import EXTENSIONS, Load, asking, unobserved
from ._options import ClientOptions
from ._recall import Known, Recall
from ._several import Several, SeveralCache
from ._threads import Threads
from ._unsafe import Unsafe
from ._usage import Usage
from ._wishes import EXTENSION, wishes, within

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)

_LOG = logging.getLogger("aurelis.cache")


class ClientCache(Generic[Q, R]):
    """The cache behind one transport.

    Args:
        library: the classes of the client's library.
        cache: manager; `None` means the process's. It is never closed here.
        options: what can be chosen.

    Attributes:
        usage: of the inner transport.

    Raises:
        TypeError: `cache` is no manager.
    """

    def __init__(self, library: Library[R], cache: AnyManager | None, options: ClientOptions) -> None:
        self._library = library
        self._options = options
        self._of_process = cache is None
        self.usage = Usage(self._finish)
        self._refreshing = Threads("aurelis-cache-refresh", MAX_REFRESHES, self.usage)
        self._lingering = Lingering(self.usage)
        # The hot path: for most transports it need not look for what they don't have.
        self._named = options.namespace is not None
        self._varied = options.variants > 1
        self._paced = options.pacing != "burst"
        self._stand_on(manager_of(cache))

    def _stand_on(self, manager: CacheManager) -> None:
        options = self._options
        keys = manager.key_builder.build_key
        self._status = CacheStatus(manager.config.name)
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
            manager, models, max_body_bytes=options.max_body_bytes, on_refresh=self.usage.watch
        )
        if options.cost is not None:
            self._models.count_costs()
        self._several: SeveralCache[Q, R] = SeveralCache(self._library, Items(self._models), self._status, self.usage)
        http = HttpPolicy(
            shared=options.shared,
            # Apart, so that a shared cache never finds what only a private one may store.
            category="http-client-shared" if options.shared else "http-client",
            keys=keys,
            honour_request_directives=options.honour_request_directives,
            targets=options.targets(),
        )
        self._http: Exchange[HttpRequest] = Exchange(
            manager, http, max_body_bytes=options.max_body_bytes, on_refresh=self.usage.watch
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
        if self.usage.closes:
            self.usage.use()
        request, options = wishes(request)
        options = within(options, namespace)
        found = self._find(request, mark, options)
        if found is None:
            return await self._unsafe.heed(request, options, await ask(request))
        if isinstance(found, Alone):
            return _mark(await ask(request), self._status.forwarded(found.reason, detail=found.detail))
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
                return _mark(await ask(request), self._status.forwarded("miss", detail="items"))
            return self._given(request, found.call, given)
        if not isinstance(found, _Sought):
            return found
        exchange, call = found.exchange, found.pending.request
        load = self._load(request, call, ask)
        try:
            answer = await exchange.open(found.pending, load, patience=patience_for_head(request))
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
            return _mark(response, self._status.forwarded(answer.reason, detail=answer.detail))
        if isinstance(answer, Hit) and answer.refresh:
            self._refresh(request, exchange, call, answer, ask)
        return self._respond(request, call, answer, load.extensions)

    def send_blocking(self, request: Q, ask: Callable[[Q], R]) -> R:
        """The same for a thread, which runs `ask` and reads its response itself."""
        namespace = self._namespace() if self._named else ""
        mark, recalled = self._recalled(request, namespace)
        if recalled is not None:
            return recalled
        if self.usage.closes:
            self.usage.use()
        request, options = wishes(request)
        options = within(options, namespace)
        found = self._find(request, mark, options)
        if found is None:
            return self._unsafe.heed_blocking(request, options, ask(request))
        if isinstance(found, Alone):
            return _mark(ask(request), self._status.forwarded(found.reason, detail=found.detail))
        if isinstance(found, _Stale):
            if found.hit.refresh:
                self._refresh_blocking(request, found.exchange, found.call, found.hit, ask)
            return self._replay(request, found.call, found.hit)
        if isinstance(found, Several):
            try:
                given = self._several.send_blocking(request, found, ask, self._run_behind)
            except Exception as error:
                self._library.translate(error)
                raise
            if given is None:
                return _mark(ask(request), self._status.forwarded("miss", detail="items"))
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
            return self._lead(request, call, answer, ask)
        if isinstance(answer, Alone):
            begin = self._heeding.now()
            response = ask(request)
            if request.method == "HEAD" and isinstance(call, HttpRequest):
                head, refused = decoded_head(response, call, self._library.decodes)
                if not refused:
                    self._heeding.run(self._heeding.freshen(call, head, begin))
            return _mark(response, self._status.forwarded(answer.reason, detail=answer.detail))
        if isinstance(answer, Hit) and answer.refresh:
            self._refresh_blocking(request, exchange, call, answer, ask)
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
        return Load(self._undisturbed(ask), request, call, self._library.decodes, self.usage, behind=behind)

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

    def _refresh_blocking(
        self, request: Q, exchange: Exchange[Any], call: Call, hit: Hit, ask: Callable[[Q], R]
    ) -> None:
        """Load a stale response anew in a thread that nobody waits for, if not too many do so already."""
        behind = unobserved(request)

        def load(lead: Lead) -> None:
            response = self._lead(behind, call, lead, ask)
            try:
                if not lead.recorder.over:  # what is not kept is of no use to anybody
                    response.read()
            finally:
                response.close()

        self._run_behind(partial(exchange.refresh_blocking, call, hit, load, exchange.here()))

    def _run_behind(self, refresh: Callable[[], None]) -> None:
        """Run something in a thread that nobody waits for, if not too many do so already."""

        def run() -> None:
            try:
                refresh()
            except Exception:  # noqa: BLE001  # nobody waits for it, and the cache has counted that it failed
                _LOG.debug("a refresh in the background failed", exc_info=False)

        self._refreshing.begin(run)

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
            recall, fields = self._recall, found.response.headers
            recall.keep(mark, exchange, call, found, as_it_is=_is_as_it_is(fields) and not self._pauses(found.response))
        return self._replay(request, call, found)

    def _pauses(self, stored: StoredResponse) -> Iterable[float]:
        """Seconds before each chunk of a stream; empty: it is given at once."""
        pacing = self._options.pacing
        if not self._paced or not stored.pauses:
            return ()
        if pacing == "recorded":
            return [pause / 1000 for pause in stored.pauses]
        return (0.0, *repeat(1 / float(pacing), len(stored.chunks) - 1))

    def _repeat(self, request: Q, known: Known, hit: Hit) -> R:
        library = self._library
        stored = hit.response
        header = known.header
        ttl = hit.ttl if hit.ttl == math.inf else hit.ttl // 1
        if header is None or header[0] is not stored.headers or header[1] != hit.age or header[2] != ttl:
            fields = library.headers(self._hit_fields(stored.headers, hit))
            known.header = header = (stored.headers, hit.age, ttl, fields)
        response = library.hit(
            stored.status,
            headers=header[3],
            stream=library.replayed(
                stored.chunks if known.with_body else (), self._pauses(stored) if self._paced else ()
            ),
            request=request,
            extensions=EXTENSIONS,
        )
        # Otherwise each response finds it out again, from all of its fields.
        response.headers.encoding = header[3].encoding
        if known.as_it_is:
            response.replays()
        return cast("R", response)

    def _replay(self, request: Q, call: Call, hit: Hit) -> R:
        stored = hit.response
        status, fields, chunks = stored.status, stored.headers, stored.chunks
        if isinstance(call, HttpRequest):
            if is_not_modified(call.fields, stored):
                status, fields, chunks = 304, not_modified_fields(stored), ()
            elif call.method == "HEAD":
                chunks = ()
            elif b"range" in call.fields and _is_as_sent(fields):
                part = part_of(call.fields, stored, token_hex(16).encode())
                if part is not None:
                    status, fields, chunks = part.status, part.fields, (part.body,) if part.body else ()
        pauses = self._pauses(stored)
        response = self._library.hit(
            status,
            headers=self._hit_fields(fields, hit),
            stream=self._library.replayed(chunks, pauses),
            request=request,
            extensions=EXTENSIONS,
        )
        if _is_as_it_is(fields) and not pauses:
            response.replays()
        return cast("R", response)

    def _hit_fields(self, fields: Fields, hit: Hit) -> list[tuple[bytes, bytes]]:
        ttl = None if hit.ttl == math.inf else hit.ttl
        forwarded = hit.forwarded
        member = self._status.hit(ttl=ttl)
        if hit.layer == names.NEGATIVE:
            # SDKs that are told when to try again do not spend their attempts on what is only repeated here.
            if ttl is not None:
                fields += ((b"retry-after", b"%d" % math.ceil(ttl)),)
            member = self._status.hit(ttl=ttl, detail="negative")
        if forwarded is not None:
            member = self._status.forwarded(
                forwarded.reason,
                status=forwarded.status,
                ttl=ttl,
                stored=forwarded.stored,
                collapsed=forwarded.collapsed,
            )
        return [*fields, (b"age", b"%d" % hit.age), (b"cache-status", member)]

    def _given(self, request: Q, call: Call, given: R | Hit | Refused) -> R:
        if isinstance(given, (Hit, Refused)):
            return self._respond(request, call, given, EXTENSIONS)
        return given

    def _respond(self, request: Q, call: Call, answer: Hit | Refused | Live, extensions: Mapping[str, Any]) -> R:
        library = self._library
        if isinstance(answer, Hit):
            return self._replay(request, call, answer)
        if isinstance(answer, Refused):
            fields: Fields = ((b"content-length", b"0"),)
            if isinstance(call, ModelRequest):
                fields += ((b"x-should-retry", b"false"),)  # SDKs take it for a failure that may pass
            return self._response(request, ResponseHead(504, fields), self._status.refused(), library.replayed(()))
        member = self._forwarded(answer.reason, answer.head, answer.decision, collapsed=answer.collapsed)
        if answer.reader is None:
            answer.close()
            return _mark(cast("R", answer.raw), member)
        head = answer.head
        patience = None  # who asks the origin waits as long as the inner transport does
        if answer.collapsed:
            head = ResponseHead(head.status, shared_fields(head, call, answer.decision))
            patience = patience_for_chunk(request)
        return self._response(request, head, member, library.live(answer, library, patience), extensions)

    def _lead(self, request: Q, call: Call, lead: Lead, ask: Callable[[Q], R]) -> R:
        handled = sys.exc_info()[1]
        try:
            with lead.asking():
                response = ask(asking(request, call, lead.conditions))
        except BaseException as error:
            stale = lead.fail(error, handled)
            lead.close()
            if stale is None:
                raise
            return self._replay(request, call, stale)
        try:
            head, refused = decoded_head(response, call, self._library.decodes)
            chunks = None
            if isinstance(call, ModelRequest) and not refused and lead.awaits_body(head):
                rest = response.iter_bytes()
                first = next(rest, None)
                chunks = rest if first is None else chain((first,), rest)
            decision = lead.take(head, response, refused=refused)
        except BaseException as error:
            stale = lead.fail(error, handled)
            lead.close()
            response.close()
            if stale is None:
                raise
            return self._replay(request, call, stale)
        if isinstance(decision, Hit):
            lead.close()
            response.close()
            return self._replay(request, call, decision)
        member = self._forwarded(lead.reason, head, decision, collapsed=False)
        if isinstance(decision, Pass):
            lead.close()
            return _mark(response, member)
        return self._response(
            request, head, member, self._library.led(lead, response, chunks, self._lingering), response.extensions
        )

    def _response(
        self,
        request: Q,
        head: ResponseHead,
        member: bytes,
        stream: object,
        extensions: Mapping[str, Any] = EXTENSIONS,
    ) -> R:
        return self._library.response(
            head.status,
            headers=[*head.headers, (b"cache-status", member)],
            stream=stream,
            request=request,
            extensions=dict(extensions),
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


def _is_as_sent(fields: Fields) -> bool:
    """Whether the stored bytes are those that the origin has counted and tagged, and not what was decoded of them."""
    return any(name == b"content-length" for name, _ in fields)


def _is_as_it_is(fields: Fields) -> bool:
    """Whether the library would decode nothing in the body."""
    return all(name != b"content-encoding" for name, _ in fields)


def _mark(response: R, member: bytes) -> R:
    headers = response.headers
    before = headers["cache-status"].encode("latin-1") if "cache-status" in headers else None
    headers["cache-status"] = append_status(before, member).decode("latin-1")
    return response
