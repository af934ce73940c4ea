"""Answers as responses of the client's library: from memory, shared with others, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import repeat
from secrets import token_hex
from typing import Any, Generic, TypeVar, cast

from aurelis.cache.exchange import Hit, Live, Refused
from aurelis.cache.http import (
    CacheStatus,
    Fields,
    HttpRequest,
    ResponseHead,
    StoredResponse,
    append_status,
    is_not_modified,
    not_modified_fields,
    part_of,
)
from aurelis.cache.models import ModelRequest
from aurelis.cache.telemetry import names
from aurelis.cache.typing import Pass, Record

from ._calls import Call, patience_for_chunk, shared_fields
from ._library import Library, Request, Response
from ._load import EXTENSIONS
from ._options import Pacing
from ._recall import Known

R = TypeVar("R", bound=Response)


class Responses(Generic[R]):
    """Makes responses.

    Args:
        library: the classes of the client's library.
        status: writes `Cache-Status`.
        pacing: how fast stored streams are given, as in `ClientOptions`.
    """

    def __init__(self, library: Library[R], status: CacheStatus, pacing: Pacing) -> None:
        self._library = library
        self._status = status
        self._pacing = pacing
        # The hot path: for most transports it need not look.
        self._paced = pacing != "burst"

    def repeat(self, request: Request, known: Known, hit: Hit) -> R:
        """The answer to a request that was answered before."""
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
                stored.chunks if known.with_body else (), self.pauses(stored) if self._paced else ()
            ),
            request=request,
            extensions=EXTENSIONS,
        )
        # Otherwise each response finds it out again, from all of its fields.
        response.headers.encoding = header[3].encoding
        if known.as_it_is:
            response.replays()
        return cast("R", response)

    def replay(self, request: Request, call: Call, hit: Hit) -> R:
        """The response that is stored, or what of it the request asks for."""
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
        pauses = self.pauses(stored)
        response = self._library.hit(
            status,
            headers=self._hit_fields(fields, hit),
            stream=self._library.replayed(chunks, pauses),
            request=request,
            extensions=EXTENSIONS,
        )
        if is_as_it_is(fields) and not pauses:
            response.replays()
        return cast("R", response)

    def respond(self, request: Request, call: Call, answer: Hit | Refused | Live, extensions: Mapping[str, Any]) -> R:
        """The response that an exchange's answer stands for. `extensions`: of the one that was loaded for it."""
        library = self._library
        if isinstance(answer, Hit):
            return self.replay(request, call, answer)
        if isinstance(answer, Refused):
            fields: Fields = ((b"content-length", b"0"),)
            if isinstance(call, ModelRequest):
                fields += ((b"x-should-retry", b"false"),)  # SDKs take it for a failure that may pass
            return self.response(request, ResponseHead(504, fields), self._status.refused(), library.replayed(()))
        member = self.forwarded(answer.reason, answer.head, answer.decision, collapsed=answer.collapsed)
        if answer.reader is None:
            answer.close()
            return marked(cast("R", answer.raw), member)
        head = answer.head
        patience = None  # who asks the origin waits as long as the inner transport does
        if answer.collapsed:
            head = ResponseHead(head.status, shared_fields(head, call, answer.decision))
            patience = patience_for_chunk(request)
        return self.response(request, head, member, library.live(answer, library, patience), extensions)

    def response(
        self,
        request: Request,
        head: ResponseHead,
        member: bytes,
        stream: object,
        extensions: Mapping[str, Any] = EXTENSIONS,
    ) -> R:
        """A response with this head, marked by its member of `Cache-Status`."""
        return self._library.response(
            head.status,
            headers=[*head.headers, (b"cache-status", member)],
            stream=stream,
            request=request,
            extensions=dict(extensions),
        )

    def forwarded(self, reason: str, head: ResponseHead, decision: Record | Pass, *, collapsed: bool) -> bytes:
        """The member of `Cache-Status` of a response that was loaded."""
        if isinstance(decision, Pass):
            return self._status.forwarded(reason, status=head.status, detail=decision.reason)
        lifetime = decision.lifetime
        # Without a lifetime only the whole body decides: it is too early to say whether it will be stored.
        return self._status.forwarded(
            reason, status=head.status, ttl=lifetime, stored=lifetime is not None, collapsed=collapsed
        )

    def pauses(self, stored: StoredResponse) -> Iterable[float]:
        """Seconds before each chunk of a stream; empty: it is given at once."""
        pacing = self._pacing
        if not self._paced or not stored.pauses:
            return ()
        if pacing == "recorded":
            return [pause / 1000 for pause in stored.pauses]
        return (0.0, *repeat(1 / float(pacing), len(stored.chunks) - 1))

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


def _is_as_sent(fields: Fields) -> bool:
    """Whether the stored bytes are those that the origin has counted and tagged, and not what was decoded of them."""
    return any(name == b"content-length" for name, _ in fields)


def is_as_it_is(fields: Fields) -> bool:
    """Whether the library would decode nothing in the body."""
    return all(name != b"content-encoding" for name, _ in fields)


def marked(response: R, member: bytes) -> R:
    """The response, with a member of `Cache-Status` after those that it has."""
    headers = response.headers
    before = headers["cache-status"].encode("latin-1") if "cache-status" in headers else None
    headers["cache-status"] = append_status(before, member).decode("latin-1")
    return response
