"""What responses that pass by, to requests that no cache could answer, mean for what is stored.

Nothing here fails a request: a shared layer that cannot be reached is told later, and that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Any, TypeVar

from aurelis.cache import _tags
from aurelis.cache._decisions import Discard, Follow, Record, Store
from aurelis.cache._entry import Entry
from aurelis.cache._flight import Flight
from aurelis.cache._leases import Permit
from aurelis.cache.exceptions import CacheError
from aurelis.cache.http import (
    HttpPolicy,
    HttpRequest,
    LoadedResponse,
    ResponseHead,
    StoredPart,
    StoredResponse,
    as_get,
)
from aurelis.cache.models import without_credentials

from ._exchange import Exchange
from ._keeping import announced_length, pack, publish

T = TypeVar("T")

_MAX_PARTS = 16
"""Parts that are recorded at once: what is held of them waits for clients that may be slow."""

_LONGEST_UPLOAD = 600.0
"""Seconds after which the response to a POST is not stored any more."""


class Upload:
    """Records a response that is loaded for one client alone: that to a POST, or to a request for a part.

    Args:
        decide: what to keep of it.
        flight: that nobody can join; an invalidation fences it.
        before: what was stored under its key when it began.
        whole: it may take the place of whatever is stored.
    """

    def __init__(
        self,
        heeding: Heeding,
        request: HttpRequest,
        head: ResponseHead,
        decide: Callable[[HttpRequest, LoadedResponse], Store | Discard],
        permit: Permit,
        flight: Flight[None],
        before: Entry | None,
        limit: int,
        *,
        whole: bool,
    ) -> None:
        self._heeding = heeding
        self.request = request
        self._head = head
        self._decide = decide
        self.permit = permit
        self.flight = flight
        self.before = before
        self._limit = limit
        self.whole = whole
        self._begin = heeding.now()
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False

    async def chunk(self, data: bytes, *, last: bool) -> None:
        """Take the next piece of the body; with the last one the whole is stored."""
        self._size += len(data)
        if self._size > self._limit:
            self._chunks.clear()
        elif data:
            self._chunks.append(bytes(data))
        if last:
            self._ended = True
            # How long the load took is not known here, and says nothing of how old what it made is.
            seconds = max(self._heeding.now() - self._begin, 0.0)
            loaded = LoadedResponse(self._head, tuple(self._chunks), seconds, self._begin, self._begin)
            decision = Discard("too-large") if self._size > self._limit else self._decide(self.request, loaded)
            await self._heeding.keep(self, decision)

    async def close(self) -> None:
        """No more comes. What has not come to its end is not stored, and gets in nobody's way. Twice is harmless."""
        if not self._ended:
            self._ended = True
            await self._heeding.keep(self, Discard("incomplete"))


class Heeding:
    """Looks at such responses for one exchange, by the rules of its policy."""

    def __init__(self, exchange: Exchange[HttpRequest], policy: HttpPolicy) -> None:
        self._engine = exchange.engine
        self._policy = policy
        self._max_body_bytes = exchange.max_body_bytes
        self._parts: set[str] = set()

    async def invalidate(self, urls: Iterable[str], tags: Iterable[str] = ()) -> None:
        """Forget all responses of these URIs, whoever they are for, and all with these tags (RFC 9111 §4.4)."""
        found = _tags.tags(tuple(tags))
        for url in urls:
            key, tag = self._policy.addresses(without_credentials(url))
            # Here it holds in any case.
            with suppress(CacheError):
                await self._engine.delete(key)
            # Everything with params, variants and principals, has the tag; the plain key has not.
            if self._engine.may_be_apart(tag):
                found = (*found, tag)
        if found:
            with suppress(CacheError):
                await self._engine.invalidate(found, soft=False)

    async def freshen(self, request: HttpRequest, head: ResponseHead, request_time: float) -> None:
        """Update what a GET has stored by the response to a HEAD, or take it for stale (RFC 9111 §4.3.5).

        Args:
            request_time: when it was sent, seconds since the epoch.
        """
        engine = self._engine
        with suppress(CacheError):
            engine.check("")
            found = await self._find(request)
            if found is None:
                return
            key, entry = found
            seconds = max(engine.clock.time() - request_time, 0.0)
            loaded = LoadedResponse(head, (), seconds, request_time, engine.clock.time())
            decision = self._policy.on_head(request, entry, loaded)
            if isinstance(decision, Store):
                await self._keep(request, decision, await self.permit(decision.key or key))
            elif isinstance(decision, Discard):
                await engine.soften(key)

    async def upload(self, request: HttpRequest, head: ResponseHead) -> Upload | None:
        """What records the response to a POST that may be stored for GET requests; `None`: this one may not."""
        asked = as_get(request, head)
        if asked is None:
            return None
        return await self._upload(asked, head, self._policy.on_loaded, self._max_body_bytes, whole=True)

    async def part(self, request: HttpRequest, head: ResponseHead) -> Upload | None:
        """What records the response to a request with Range; `None`: nothing of it may be stored (RFC 9111 §3.3)."""
        decision = self._policy.may_keep_part(request, head, self.now())
        if not isinstance(decision, Record):
            return None
        limit = self._max_body_bytes if decision.max_body_bytes is None else decision.max_body_bytes
        if announced_length(head) > limit or len(self._parts) >= _MAX_PARTS or self._policy.key(request) in self._parts:
            return None
        return await self._upload(request, head, self._policy.on_part, limit, whole=False)

    async def _upload(
        self,
        request: HttpRequest,
        head: ResponseHead,
        decide: Callable[[HttpRequest, LoadedResponse], Store | Discard],
        limit: int,
        *,
        whole: bool,
    ) -> Upload | None:
        engine = self._engine
        with suppress(CacheError):
            engine.check("")
            key = self._policy.key(request)
            flight: Flight[None] = engine.flights.apart(key)
            before = engine.stack.peek(key)
            if not whole:
                self._parts.add(key)
            try:
                permit = await self.permit(key)
            except BaseException:
                self._end(key, flight)
                raise
            flight.generation = permit.generation
            flight.holds = partial(engine.stack.holds, permit, engine.stack.implied(key), _LONGEST_UPLOAD)
            return Upload(self, request, head, decide, permit, flight, before, limit, whole=whole)
        return None

    def _end(self, key: str, flight: Flight[None]) -> None:
        self._parts.discard(key)
        self._engine.flights.leave(flight, leads=True)

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Take one of these steps in a thread without an event loop."""
        return self._engine.run(step)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._engine.clock.time()

    async def permit(self, key: str) -> Permit:
        """What has to be shown when the response that comes now is to be stored under the key."""
        stack = self._engine.stack
        token = token_hex(16).encode()
        return (await stack.acquire(key, token, stack.budget(), again=True, life=_LONGEST_UPLOAD))[1]

    async def keep(self, upload: Upload, decision: Store | Discard) -> None:
        """Carry out what has been decided about a response, unless something newer has overtaken it."""
        stack, permit, flight = self._engine.stack, upload.permit, upload.flight
        try:
            with suppress(CacheError):
                self._engine.check("")
                if isinstance(decision, Store):
                    flight.tags = decision.tags
                    with flight.storing():
                        if await self._may_take_place(upload, decision) and not flight.fenced:
                            await self._keep(upload.request, decision, permit)
                            return
                await stack.release(permit, stack.budget())
        finally:
            self._end(permit.key, flight)

    async def _may_take_place(self, upload: Upload, decision: Store) -> bool:
        stack, key = self._engine.stack, upload.permit.key
        if stack.peek(key) is not upload.before:
            return False  # something newer
        if upload.whole or not isinstance(decision.value, StoredPart):
            return True
        # A part must not take the place of more than that, nor get in the way of whoever loads it.
        if self._engine.flights.is_loading(key) or (upload.permit.fence is not None and not upload.permit.owner):
            return False
        entry = upload.before
        if entry is None and stack.lower:
            found = await stack.lookup(key, stack.budget())
            entry = None if found is None else found.entry
        return entry is None or isinstance(entry.value, StoredPart)

    async def _find(self, request: HttpRequest) -> tuple[str, Entry] | None:
        stack, key = self._engine.stack, self._policy.key(request)
        for _ in range(2):
            entry = stack.peek(key)
            if entry is None and stack.lower:
                found = await stack.lookup(key, stack.budget())
                entry = None if found is None else found.entry
            if entry is None:
                return None
            if isinstance(entry.value, StoredResponse):
                return key, entry
            decision = self._policy.on_lookup(request, entry, self._engine.clock.monotonic())
            if not isinstance(decision, Follow):
                return None
            key = decision.key
        return None

    async def _keep(self, request: HttpRequest, decision: Store, permit: Permit) -> None:
        packed = pack(self._engine, self._policy, request, decision, permit.key)
        await publish(self._engine, packed, decision, permit, self._engine.stack.budget())
