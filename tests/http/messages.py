"""Short ways to write requests and responses, and a shelf that carries out what the rules answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from aurelis.cache._entry import Entry
from aurelis.cache._keys import CacheKeyBuilder
from aurelis.cache.http import (
    HttpPolicy,
    HttpRequest,
    LoadedResponse,
    ResponseHead,
    RuleEffect,
    StoredResponse,
    VariantIndex,
    combine,
)
from aurelis.cache.typing import Bypass, Follow, Lookup, Pass, Serve, Store

URL = "https://example.com/catalog/17"
NOW = 784_111_777.0
"""Seconds since the epoch."""
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
"""The same instant."""


def lines(**fields: str | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Field lines; `_` in a name stands for `-`."""
    return tuple(
        (name.replace("_", "-").encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in fields.items()
    )


def get(
    fields: Mapping[str, str] = MappingProxyType({}),
    /,
    *,
    url: str = URL,
    partition: str = "",
    rule: RuleEffect | None = None,
    **more: str,
) -> HttpRequest:
    """A GET request with these fields."""
    return HttpRequest("GET", url, combine(lines(**fields, **more)), partition, rule)


def head(status: int = 200, /, **fields: str | bytes) -> ResponseHead:
    """The head of a response with these fields."""
    return ResponseHead(status, lines(**fields))


def loaded(response: ResponseHead, *, body: bytes = b"body", seconds: float = 0.0, at: float = NOW) -> LoadedResponse:
    """A response whose head comes at once; its body takes `seconds`."""
    return LoadedResponse(response, (body,), seconds, at, at)


def policy(*, shared: bool = True, honour_request_directives: bool = True) -> HttpPolicy:
    """The policy with real keys."""
    return HttpPolicy(
        shared=shared,
        keys=CacheKeyBuilder().build_key,
        honour_request_directives=honour_request_directives,
    )


def entry(stored: object, *, fresh_until: float = 100.0) -> Entry:
    """An entry that never expires."""
    return Entry(stored, None, fresh_until, float("inf"), 1)


@dataclass
class Shelf:
    """A dictionary in place of the engine: one request after the other, the clock moved by hand."""

    policy: HttpPolicy
    now: float = 1000.0
    entries: dict[str, Entry] = field(default_factory=dict)

    def look(self, request: HttpRequest) -> Lookup:
        """What the policy answers after following an index."""
        answer = self.policy.on_lookup(request, self.entries.get(self.policy.key(request)), self.now)
        if isinstance(answer, Follow):
            answer = self.policy.on_lookup(request, self.entries.get(answer.key), self.now)
            assert not isinstance(answer, Follow)
        return answer

    def ask(self, request: HttpRequest, response: ResponseHead, body: bytes) -> bytes:
        """The body that the client gets: a stored one, or this one from the origin, which may get stored."""
        answer = self.look(request)
        if isinstance(answer, Serve):
            assert isinstance(answer.entry.value, StoredResponse)
            return b"".join(answer.entry.value.chunks)
        if not isinstance(answer, Bypass):
            self.store(request, response, body)
        return body

    def store(self, request: HttpRequest, response: ResponseHead, body: bytes = b"body") -> None:
        """Keep the response, if the policy keeps it."""
        if isinstance(self.policy.on_response(request, response, NOW), Pass):
            return
        decision = self.policy.on_loaded(request, loaded(response, body=body))
        if isinstance(decision, Store):
            assert decision.key is not None
            until = self.now + decision.fresh_for
            self.entries[decision.key] = Entry(decision.value, None, until, until + decision.stale_for, 1)
            if decision.index is not None:
                key, index = decision.index
                known = self.entries.get(key)
                assert isinstance(index, VariantIndex)
                after, displaced = self.policy.on_indexed(request, index, None if known is None else known.value)
                self.entries[key] = Entry(after, None, until, until, 1)
                for place in displaced:
                    self.entries.pop(place, None)
