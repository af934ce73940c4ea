"""What responses that pass by, to requests that no cache could answer, mean for what is stored.

Nothing here fails a request: a shared layer that cannot be reached is told later, and that is counted.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from contextlib import suppress
from secrets import token_hex
from typing import Any, TypeVar

from aurelis.cache import _tags
from aurelis.cache._decisions import Discard, Follow, Store
from aurelis.cache._entry import Entry
from aurelis.cache._leases import Permit
from aurelis.cache.exceptions import CacheError
from aurelis.cache.http import (
    HttpPolicy,
    HttpRequest,
    LoadedResponse,
    ResponseHead,
    StoredResponse,
    as_get,
)

from ._exchange import Exchange
from ._keeping import pack, publish

T = TypeVar("T")

_LONGEST_UPLOAD = 600.0
"""Seconds after which the response to a POST is not stored any more."""


class Upload:
    """Records the response to a POST."""

    def __init__(self, heeding: Heeding, request: HttpRequest, head: ResponseHead, permit: Permit, limit: int) -> None:
        self._heeding = heeding
        self._request = request
        self._head = head
        self._permit = permit
        self._limit = limit
        self._begin = heeding.now()
        self._chunks: list[bytes] = []
        self._size = 0

    async def chunk(self, data: bytes, *, last: bool) -> None:
        """Take the next piece of the body; with the last one the whole is stored."""
        self._size += len(data)
        if self._size > self._limit:
            self._chunks.clear()
            return
        if data:
            self._chunks.append(bytes(data))
        if last:
            # How long the POST took is not known here, and says nothing of how old what it made is.
            seconds = max(self._heeding.now() - self._begin, 0.0)
            loaded = LoadedResponse(self._head, tuple(self._chunks), seconds, self._begin, self._begin)
            await self._heeding.keep(self._request, loaded, self._permit)


class Heeding:
    """Looks at such responses for one exchange, by the rules of its policy."""

    def __init__(self, exchange: Exchange[HttpRequest], policy: HttpPolicy) -> None:
        self._engine = exchange.engine
        self._policy = policy
        self._max_body_bytes = exchange.max_body_bytes

    async def invalidate(self, urls: Iterable[str], tags: Iterable[str] = ()) -> None:
        """Forget all responses of these URIs, whoever they are for, and all with these tags (RFC 9111 §4.4)."""
        found = _tags.tags(tuple(tags))
        for url in urls:
            key, tag = self._policy.addresses(url)
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
        with suppress(CacheError):
            self._engine.check("")
            return Upload(self, asked, head, await self.permit(self._policy.key(asked)), self._max_body_bytes)
        return None

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

    async def keep(self, request: HttpRequest, loaded: LoadedResponse, permit: Permit) -> None:
        """Keep a response as if it were one to this GET request, if the policy allows that."""
        decision = self._policy.on_loaded(request, loaded)
        with suppress(CacheError):
            self._engine.check("")
            if isinstance(decision, Store):
                await self._keep(request, decision, permit)
            else:
                await self._engine.stack.release(permit, self._engine.stack.budget())

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
