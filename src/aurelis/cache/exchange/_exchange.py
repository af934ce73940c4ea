"""One kind of request, answered through a manager's engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from aurelis.cache._bridge import run_inline
from aurelis.cache._decisions import Bypass, Follow, Load, Pass, Record, Refuse, Serve
from aurelis.cache._entry import Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._flight import Flight
from aurelis.cache._options import whole
from aurelis.cache._shared_errors import SharedError
from aurelis.cache.http import LoadedResponse, ResponseHead, StoredResponse
from aurelis.cache.manager import AnyManager, manager_of
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._spans import Attributes, described, tell
from aurelis.cache.typing import ExchangePolicy

from ._answers import Alone, Forwarded, Hit, Live, Pending, Refused, hit_of
from ._joining import Joining
from ._judgements import (
    is_at_hand,
    may_be_below,
    of_variant,
    result_alone,
    stale_reason,
    wants_body,
)
from ._leading import Lead
from ._loads import Loads
from ._recorder import Recorder, bare
from ._unshareable import Unshareable
from ._ways import Async, Blocking, Ways

Q = TypeVar("Q")

DEFAULT_MAX_BODY_BYTES: Final = 4 * 2**20
_MAX_HOPS: Final = 4


class Exchange(Generic[Q]):
    """One kind of request served through a manager's engine.

    Args:
        cache: manager; `None` means the process's.
        policy: the rules.
        max_body_bytes: larger bodies pass through and are not stored.
        on_refresh: is told of the task of each load in the background, before it begins; `None`: nobody is.

    Raises:
        ConfigurationError: `max_body_bytes` is not positive.
        TypeError: `cache` is no manager.
    """

    def __init__(
        self,
        cache: AnyManager | None,
        policy: ExchangePolicy[Q, ResponseHead, LoadedResponse],
        *,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        on_refresh: Callable[[asyncio.Task[None]], object] | None = None,
    ) -> None:
        whole("max_body_bytes", max_body_bytes)
        self.manager = manager_of(cache)
        self.engine = self.manager._engine
        self.policy = policy
        # The hot path: each attribute hop would show in its budget.
        self._telemetry = self.engine.telemetry
        self._monotonic = self.engine.clock.monotonic
        self.max_body_bytes = max_body_bytes
        self._loads: Loads[Q] = Loads(self, on_refresh)
        self._unshareable = Unshareable(self._monotonic)
        joining = Joining(self.engine, policy, self._loads, self._unshareable)
        self._join, self._alone, self._count_absent = joining.join, joining.alone, joining.count_absent

    def count_costs(self) -> None:
        """From now on count what answers have cost, and those whose cost is not known."""
        self._telemetry.count_costs()

    def is_closed(self) -> bool:
        """Whether the cache was closed."""
        return self.engine.closed

    def fresh(self, key: str) -> Hit | None:
        """The answer from memory to a request that any fresh response under its key answers. Never waits.

        The hot path: whoever knows that nothing in a request speaks against a fresh response need not ask the policy,
        nor make a record of the request. `None`: there is no such response, so `peek`.
        """
        now = self._monotonic()
        entry = self.engine.peek(key, now)
        if entry is None or now >= entry.fresh_until or type(entry.value) is not StoredResponse:
            return None
        if entry.value.overdue:  # another thread has stored it since `now`, and it was stale then already
            return None
        observed = self.engine.count_memory_hit(now)
        hit = hit_of(entry, names.L1, now, self._telemetry, key)
        if observed:
            self._telemetry.spans.note(names.HIT, names.L1, key, ttl=hit.ttl, age=hit.age)
        return hit

    def peek(self, request: Q) -> Hit | Pending[Q]:
        """Answer from memory, or say what is known so far. Never waits."""
        engine = self.engine
        now = self._monotonic()
        policy = self.policy
        key = policy.key(request)
        entry = engine.peek(key, now)
        decision = policy.on_lookup(request, entry, now)
        if type(decision) is Follow:
            key = decision.key
            entry = engine.peek(key, now)
            decision = of_variant(policy.on_lookup(request, entry, now))
        if type(decision) is Serve:
            return self._from_memory(request, decision, now, key)
        return Pending(request, key, entry, decision)

    def _from_memory(self, request: Q, decision: Serve, now: float, key: str) -> Hit:
        entry = decision.entry
        hit = hit_of(entry, names.L1, now, self._telemetry, key, decision.refresh, body=wants_body(request))
        if hit.ttl > 0:
            if self.engine.count_memory_hit(now):
                self._telemetry.spans.note(names.HIT, names.L1, key, ttl=hit.ttl, age=hit.age)
        else:
            self._telemetry.lookup(names.L1, names.STALE).n += 1
            reason = stale_reason(decision, now)
            self._telemetry.stale(reason).n += 1
            self.engine.note(names.STALE, names.L1, key, ttl=hit.ttl, age=hit.age, stale=reason)
        return hit

    async def open(
        self, pending: Pending[Q], load: Callable[[Recorder[Q]], Awaitable[None]], *, patience: float | None = None
    ) -> Hit | Alone | Refused | Live:
        """Answer a request for which memory had nothing.

        Args:
            load: asks the origin and gives the response to the recorder. Runs in a task of its own, at most once.
            patience: seconds to wait at most for the head that another's load brings; `None`: as long as that takes.

        Raises:
            Exception: what `load` raised before the head came.
            WaitTimeout: another's load took too long.
        """
        answer = await self._open(pending, Async(), load, patience)
        assert not isinstance(answer, Lead)
        return answer

    def bypass(self, decision: Bypass) -> Alone:
        """Count a request that the cache could have answered and must not."""
        self.engine.note(result_alone(decision.reason), fwd=decision.reason)
        return self._alone(decision.reason, decision.detail)

    def note_again(self, reason: str) -> None:
        """Count that the origin is asked once more for a request that is counted already."""
        self._telemetry.refresh(reason)

    def open_blocking(
        self, pending: Pending[Q], *, patience: float | None = None
    ) -> Hit | Alone | Refused | Live | Lead:
        """The same for a caller without an event loop, who on `Lead` loads in its own thread."""
        return run_inline(self._open(pending, Blocking(self.engine), None, patience))

    async def _open(
        self,
        pending: Pending[Q],
        ways: Ways,
        load: Callable[[Recorder[Q]], Awaitable[None]] | None,
        patience: float | None,
    ) -> Hit | Alone | Refused | Live | Lead:
        engine = self.engine
        engine.check(pending.key)
        if engine.listening is not None and not engine.listening.started:
            try:
                await ways.run(engine.ready())
            except BaseException:
                engine.telemetry.miss_l1.n += 1
                self._count_absent()
                raise
        request, key, entry, decision = pending.request, pending.key, pending.entry, pending.decision
        layer, looked = names.L1, False
        with engine.telemetry.spans.around("get", key) as span:
            for _ in range(_MAX_HOPS):
                now = engine.clock.monotonic()
                failure = None
                if isinstance(decision, Load) and decision.reason != "request":
                    failure = engine.failures.find(key, now, patience)
                # No failure takes the place of an answer that another process has got.
                looks_below = failure is not None or (entry is None and may_be_below(decision))
                if looks_below and engine.stack.lower:
                    try:
                        found = await ways.run(engine.stack.lookup(key, engine.stack.budget()))
                    except BaseException:
                        if not looked:
                            engine.telemetry.miss_l1.n += 1
                        self._count_absent()
                        raise
                    if found is not None:
                        entry, layer = found.entry, found.layer
                        now = engine.clock.monotonic()  # it has taken its time
                        decision = self.policy.on_lookup(request, entry, now)
                if isinstance(decision, Follow):
                    key, layer = decision.key, names.L1
                    entry = engine.stack.peek(key)
                    decision = of_variant(self.policy.on_lookup(request, entry, now))
                    continue
                if not looked and not is_at_hand(decision, layer, failure):
                    looked = True  # once for each request, whose answer is not in memory
                    engine.telemetry.miss_l1.n += 1
                if isinstance(decision, Serve):
                    body = wants_body(request)
                    hit = hit_of(decision.entry, layer, now, self._telemetry, key, decision.refresh, body=body)
                    fresh = hit.ttl > 0
                    reason = "" if fresh else stale_reason(decision, now)
                    if fresh:
                        engine.telemetry.request(names.HIT, layer).n += 1
                    else:
                        engine.telemetry.stale(reason).n += 1
                    if span is not None:
                        result = names.HIT if fresh else names.STALE
                        tell(span, described(result, layer, ttl=hit.ttl, age=hit.age, stale=reason))
                    return hit
                if isinstance(decision, Refuse):
                    engine.telemetry.bypass.n += 1
                    refused = Refused()
                    if span is not None:
                        tell(span, _described(refused))
                    return refused
                if isinstance(decision, Bypass):
                    alone = self._alone(decision.reason, decision.detail)
                    if span is not None:
                        tell(span, _described(alone))
                    return alone
                if failure is not None:
                    if span is not None:
                        tell(span, described(names.HIT, names.NEGATIVE))
                    return self.failed(*failure)
                answer = await self._join(request, key, entry, decision, ways, load, patience, span)
                if span is not None:
                    tell(span, _described(answer))
                match answer:
                    case Follow():
                        decision = answer
                    case Found():
                        entry, layer = answer.entry, answer.layer
                        decision = self.policy.on_lookup(request, entry, engine.clock.monotonic())
                        if isinstance(decision, Load):
                            # What the flight found does not suit this request, which wants something fresher.
                            return self._alone(decision.reason)
                    case _:
                        return answer
            return self._alone("miss")

    def failed(self, failure: object, until: float) -> Hit:
        """Answer with what the key has failed with lately."""
        self.engine.count_negative()
        if isinstance(failure, SharedError):
            # Made anew where it can be: client libraries write their caller's request into it.
            replace(failure, error=bare(failure.error)).again()
        entry = Entry(failure, None, until, until, 0)
        return hit_of(entry, names.NEGATIVE, self._monotonic(), self._telemetry)

    def note(self, key: str, decision: Record | Pass) -> None:
        """Remember for a while whether responses under this key are for sharing."""
        self._unshareable.note(key, decision)

    def refresh(self, request: Q, hit: Hit, load: Callable[[Recorder[Q]], Awaitable[None]]) -> None:
        """Load in the background what a hit with `refresh` has answered, unless somebody does so already.

        The load runs in a task that belongs to no request. So many go on at once and no more.
        """
        self._loads.refresh(request, hit, load)

    def refresh_blocking(self, request: Q, hit: Hit, load: Callable[[Lead], object], started_by: object) -> None:
        """The same for a thread of its own, in which `load` does it, if there is something to load.

        Args:
            started_by: what `here` has said where the thread was begun.
        """
        self._loads.refresh_blocking(request, hit, load, started_by)

    def here(self) -> object:
        """The span that is current, for what a request leaves to a thread to link to."""
        return self._telemetry.spans.here()

    def watch(self, task: asyncio.Task[None]) -> None:
        """A task loads in the background: it is one of those of which there may be so many at once."""
        self._loads.watch(task)

    def load_behind(self, key: str) -> Flight[Any] | None:
        """The flight of a load in the background; `None`: there is one already, or there are too many."""
        return self._loads.behind(key)


def _described(answer: Found | Follow | Hit | Alone | Refused | Live | Lead) -> Attributes:
    match answer:
        case Live():
            stored = isinstance(answer.decision, Record)
            return described(names.MISS, fwd=answer.reason, collapsed=answer.collapsed, stored=stored)
        case Lead():
            return described(names.MISS, fwd=answer.reason, collapsed=False)
        case Hit(forwarded=Forwarded() as forwarded):
            return described(
                answer.layer,
                ttl=answer.ttl,
                age=answer.age,
                fwd=forwarded.reason,
                collapsed=forwarded.collapsed,
                stored=forwarded.stored,
                stale="error" if answer.layer == names.STALE else "",
            )
        case Refused():
            return described(names.BYPASS)
        case Alone():
            return described(result_alone(answer.reason), fwd=answer.reason)
        case _:
            return {}
