"""Calls for several items on their way through the cache: what is missing is asked for, and all is put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from aurelis.cache.exchange import Ask, Declined, Gathered, Hit, Items, Parts, Refused
from aurelis.cache.http import CacheStatus, Fields, ResponseHead
from aurelis.cache.models import ORIGINAL_REQUEST_ID, Batch, ModelRequest, replay_fields
from aurelis.cache.telemetry import names

from ._calls import decoded_head, patience_for_head
from ._library import Library, Request, Response
from ._load import EXTENSIONS, unobserved
from ._ongoing import Ongoing

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)

_OF_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(slots=True)
class Several:
    """A call for several items.

    Attributes:
        call: the whole of it.
        batch: its items.
        requests: one for each of them.
    """

    call: ModelRequest
    batch: Batch
    requests: list[ModelRequest]


class Asking(Generic[Q, R]):
    """Asks the provider for items of one call.

    Attributes:
        answers: its answers so far.
        whole: the answer to the call as it was made, if that was sent on: head and chunks.
        extensions: of the last response.
    """

    def __init__(self, library: Library[R], request: Q, several: Several, ongoing: Ongoing) -> None:
        self._library = library
        self._ongoing = ongoing
        self._request = request
        self._several = several
        self.answers: list[Any] = []
        self.whole: tuple[ResponseHead, tuple[bytes, ...]] | None = None
        self.extensions = EXTENSIONS

    def request(self, places: Sequence[int]) -> Q:
        """The request that asks for items; for all of them the caller's own."""
        request = self._request
        if len(places) == len(self._several.batch.inputs):
            return request
        make: Any = type(request)  # of the caller's library, whose requests are all made alike
        made: Q = make(
            request.method,
            request.url,
            headers=[line for line in request.headers.raw if line[0].lower() not in _OF_BODY],
            content=self._several.batch.body(places),
            extensions=dict(request.extensions),
        )
        return made

    def frame(self) -> tuple[bytes, bytes]:
        """The answers so far as one, and the same without what answers single items."""
        return self._several.batch.frame(self.answers)

    def via(self, ask: Callable[[Q], Awaitable[R]]) -> Ask:
        """A way to ask in an event loop."""
        behind = self._behind()
        return Ask(self._via(ask), self.frame, Ask(behind._via(ask), behind.frame))

    def via_thread(self, ask: Callable[[Q], R]) -> Ask:
        """A way to ask in a thread, which never suspends."""
        behind = self._behind()
        return Ask(self._via_thread(ask), self.frame, Ask(behind._via_thread(ask), behind.frame))

    def _behind(self) -> Asking[Q, R]:
        return Asking(self._library, unobserved(self._request), self._several, self._ongoing)

    def _via(self, ask: Callable[[Q], Awaitable[R]]) -> Callable[[Sequence[int]], Awaitable[Parts | Declined]]:
        async def asked(places: Sequence[int]) -> Parts | Declined:
            self._ongoing.watch(None)
            response = await ask(self.request(places))
            try:
                head, refused = decoded_head(response, self._several.call, self._library.decodes)
                chunks = [chunk async for chunk in (response.stream if refused else response.aiter_bytes())]
            finally:
                await response.aclose()
            return self._taken(response, head, tuple(chunks), places, refused)

        return asked

    def _via_thread(self, ask: Callable[[Q], R]) -> Callable[[Sequence[int]], Awaitable[Parts | Declined]]:
        async def asked(places: Sequence[int]) -> Parts | Declined:
            response = ask(self.request(places))
            try:
                head, refused = decoded_head(response, self._several.call, self._library.decodes)
                chunks = tuple(response.stream if refused else response.iter_bytes())
            finally:
                response.close()
            return self._taken(response, head, chunks, places, refused)

        return asked

    def _taken(
        self, response: R, head: ResponseHead, chunks: tuple[bytes, ...], places: Sequence[int], refused: str
    ) -> Parts | Declined:
        self.extensions = response.extensions
        if len(places) == len(self._several.batch.inputs):
            self.whole = head, chunks
        body = b"".join(chunks)
        found = None
        if head.status == 200 and not refused:
            found = self._several.batch.parts(body, places)
        if found is None:
            # In a coding that others may not know it is nothing for them.
            return Declined(head, body, own=bool(refused))
        answer, parts = found
        self.answers.append(answer)
        return Parts(ResponseHead(head.status, _without(head.headers, _OF_BODY)), parts)


class SeveralCache(Generic[Q, R]):
    """Serves calls for several items.

    Args:
        library: the classes of the client's library.
        items: looks for them and loads them.
        status: writes `Cache-Status`.
        ongoing: of the transport that asks the origin.
    """

    def __init__(self, library: Library[R], items: Items[ModelRequest], status: CacheStatus, ongoing: Ongoing) -> None:
        self._ongoing = ongoing
        self._library = library
        self._items = items
        self._status = status

    async def send(self, request: Q, several: Several, ask: Callable[[Q], Awaitable[R]]) -> R | Hit | Refused | None:
        """The response, or what the caller gets instead; `None`: the call is to be made as it is.

        Raises:
            Exception: what `ask` raised.
        """
        earlier: list[Any] = []  # answers that are paid for and of no use
        for number, one in enumerate(_attempts(several)):
            asking: Asking[Q, R] = Asking(self._library, request, one, self._ongoing)
            answer = await self._items.open(
                one.call,
                one.requests,
                asking.via(ask),
                limit=one.batch.rules.limit,
                patience=patience_for_head(request),
                again=number > 0,
            )
            if not isinstance(answer, Gathered):
                return self._otherwise(request, asking, answer)
            response = self._respond(request, one, asking, answer, earlier)
            if response is not None:
                return response
            if several.call.options.mode == "only_if_cached":
                return Refused()
            earlier += asking.answers
        self._items.note_again()
        return None

    def send_blocking(
        self, request: Q, several: Several, ask: Callable[[Q], R], behind: Callable[[Callable[[], None]], None]
    ) -> R | Hit | Refused | None:
        """The same for a thread.

        Args:
            behind: runs something in a thread that nobody waits for.
        """
        earlier: list[Any] = []  # answers that are paid for and of no use
        for number, one in enumerate(_attempts(several)):
            asking: Asking[Q, R] = Asking(self._library, request, one, self._ongoing)
            answer = self._items.open_blocking(
                one.call,
                one.requests,
                asking.via_thread(ask),
                limit=one.batch.rules.limit,
                patience=patience_for_head(request),
                again=number > 0,
            )
            if not isinstance(answer, Gathered):
                return self._otherwise(request, asking, answer)
            response = self._respond(request, one, asking, answer, earlier)
            if answer.refresh is not None:
                behind(answer.refresh)
            if response is not None:
                return response
            if several.call.options.mode == "only_if_cached":
                return Refused()
            earlier += asking.answers
        self._items.note_again()
        return None

    def _otherwise(
        self, request: Q, asking: Asking[Q, R], answer: Declined | Hit | Refused
    ) -> R | Hit | Refused | None:
        if not isinstance(answer, Declined):
            return answer
        head = answer.head
        if head.status == 200 and asking.whole is None:
            self._items.note_again()
            return None  # of a part of the call nothing can be made for its caller
        fields = replay_fields(head) if answer.collapsed else head.headers
        member = self._status.forwarded("miss", status=head.status, collapsed=answer.collapsed)
        return self._made(request, head.status, fields, member, (answer.body,), asking)

    def _respond(
        self, request: Q, several: Several, asking: Asking[Q, R], answer: Gathered, earlier: Sequence[Any]
    ) -> R | None:
        member = self._member(several, answer)
        if asking.whole is not None and len(asking.answers) == 1 and not earlier:
            head, chunks = asking.whole
            return self._made(request, head.status, head.headers, member, chunks, asking)
        frame = None if answer.frame is None else b"".join(answer.frame.chunks)
        stored = [b"".join(one.chunks) for one in answer.stored]
        body = several.batch.joined(stored, asking.answers, earlier, frame)
        if body is None:
            return None
        if asking.answers and answer.head is not None:
            fields = _without(answer.head.headers, _OF_BODY)
        elif answer.frame is not None:
            fields = (*answer.frame.headers, (b"age", b"%d" % answer.age))
        else:
            # They come from several calls, so that the id of one would mislead.
            fields = _without(answer.stored[0].headers, (*_OF_BODY, ORIGINAL_REQUEST_ID))
            fields = (*fields, (b"age", b"%d" % answer.age))
        return self._made(request, 200, fields, member, (body,), asking)

    def _member(self, several: Several, answer: Gathered) -> bytes:
        number = len(several.requests)
        ttl = None if answer.ttl == float("inf") else answer.ttl
        if answer.result == names.MISS:
            reason = "partial" if answer.found else "stale" if answer.lapsed else "miss"
            if several.call.options.mode == "refresh":
                reason = "request"
            return self._status.forwarded(
                reason,
                status=None if answer.head is None else answer.head.status,
                collapsed=answer.head is None,
                detail=f"{answer.found} of {number} stored" if answer.found else "",
            )
        if answer.head is not None or answer.status is not None:
            return self._status.forwarded("stale", status=answer.status, ttl=ttl)
        return self._status.hit(ttl=ttl)

    def _made(
        self, request: Q, status: int, fields: Fields, member: bytes, chunks: tuple[bytes, ...], asking: Asking[Q, R]
    ) -> R:
        return self._library.response(
            status,
            headers=[*fields, (b"cache-status", member)],
            stream=self._library.replayed(chunks),
            request=request,
            extensions=dict(asking.extensions),
        )


def _attempts(several: Several) -> Iterable[Several]:
    """The call, and once more with everything loaded anew, where what was found does not belong together."""
    yield several
    anew = [replace(one, options=replace(one.options, mode="refresh")) for one in several.requests]
    yield Several(several.call, several.batch, anew)


def _without(fields: Fields, left_out: Iterable[bytes]) -> Fields:
    return tuple(line for line in fields if line[0] not in left_out)
