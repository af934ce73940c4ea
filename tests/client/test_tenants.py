"""The response of one tenant is never another's, whatever field says who they are."""

import asyncio
import importlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheManager
from tests.client.stack import KINDS
from tests.managers import configuration

Lines = Sequence[tuple[str, str]]

CREDENTIALS = [
    *("Authorization", "Cookie", "X-API-Key", "api-key", "apikey", "X-Auth-Token", "X-Auth-Key", "X-Session-Id"),
    *("Ocp-Apim-Subscription-Key", "X-Goog-Api-Key", "X-Shopify-Access-Token", "X-Amz-Security-Token", "X-JWT"),
    *("Proxy-Authorization", "X-Client-Secret", "X-CSRF-Token", "Private-Token"),
]
OTHERS = ["X-Trace", "Accept-Language", "X-Request-Id"]
names = st.sampled_from(CREDENTIALS).flatmap(lambda name: st.sampled_from([name, name.lower(), name.upper()]))
# Few letters, so that values are often equal, prefixes of each other, or look like two lines.
values = st.text(alphabet="ab,;=: ", max_size=4).map(str.strip) | st.text(
    alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=12
)
tenants = st.lists(st.tuples(names, values), max_size=3)
others = st.lists(st.tuples(st.sampled_from(OTHERS), values), max_size=1)


def identity(request: Any) -> str:
    """What an origin can know of who asks, as HTTP has it: names without case, lines of one name joined."""
    known = {name.lower() for name in CREDENTIALS}
    found: dict[str, str] = {}
    for name, value in request.headers.multi_items():
        if name in known:
            separator = "; " if name == "cookie" else ", "
            found[name] = found[name] + separator + value if name in found else value
    return json.dumps(found, sort_keys=True)


class Asking:
    """A client of one kind, asked without a test's own event loop."""

    def __init__(self, kind: str, cache_control: str, *, shared: bool) -> None:
        name, mode = kind.split("-")
        self.library: Any = importlib.import_module(name)
        package: Any = importlib.import_module(f"aurelis_{name}")
        self.calls = 0
        self.blocking = mode == "sync"

        def origin(request: Any) -> Any:
            self.calls += 1
            return self.library.Response(200, headers={"cache-control": cache_control}, text=identity(request))

        make = package.CacheTransport if self.blocking else package.AsyncCacheTransport
        self.cache = CacheManager(configuration())
        self.transport = make(self.library.MockTransport(origin), cache=self.cache, shared=shared)

    def run(self, asked: Sequence[Lines]) -> list[tuple[str, str, bool]]:
        """For each request who asked, whose answer it got, and whether that was a hit."""
        requests = [self.library.Request("GET", "http://origin.example/me", headers=list(each)) for each in asked]
        responses = self._blocking(requests) if self.blocking else asyncio.run(self._async(requests))
        return [
            (identity(request), response.text, "; hit" in response.headers["cache-status"])
            for request, response in zip(requests, responses, strict=True)
        ]

    def _blocking(self, requests: Sequence[Any]) -> list[Any]:
        with self.library.Client(transport=self.transport) as client:
            responses = [client.send(request) for request in requests]
        asyncio.run(self.cache.aclose())
        return responses

    async def _async(self, requests: Sequence[Any]) -> list[Any]:
        async with self.library.AsyncClient(transport=self.transport) as client:
            # At once, so that loads are shared where that is possible; then from what is stored.
            first = await asyncio.gather(*(client.send(request) for request in requests[: len(requests) // 2]))
            rest = [await client.send(request) for request in requests[len(requests) // 2 :]]
        await self.cache.aclose()
        return [*first, *rest]


few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(st.lists(st.tuples(tenants, others), min_size=2, max_size=4))
def test_each_tenant_gets_its_own_answers(kind: str, people: list[tuple[Lines, Lines]]) -> None:
    asking = Asking(kind, "max-age=60", shared=False)
    answers = asking.run([[*who, *more] for who, more in (*people, *reversed(people), *people, *people)])
    for who, answer, _ in answers:
        assert answer == who
    assert asking.calls == len({who for who, _, _ in answers})
    assert all(hit for _, _, hit in answers[-len(people) :])


@pytest.mark.parametrize("cache_control", ["private, max-age=60", "no-store", "private"])
@pytest.mark.parametrize("kind", KINDS)
@few
@given(st.lists(tenants, min_size=2, max_size=3))
def test_a_shared_cache_keeps_nothing_that_is_one_tenants(kind: str, cache_control: str, people: list[Lines]) -> None:
    asking = Asking(kind, cache_control, shared=True)
    answers = asking.run([*people, *people])
    assert all((answer, hit) == (who, False) for who, answer, hit in answers)
    assert asking.calls == len(answers)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(st.lists(tenants, min_size=2, max_size=4))
def test_a_shared_cache_answers_authorization_with_what_is_public_alone(kind: str, people: list[Lines]) -> None:
    """RFC 9111 §3.5."""
    asking = Asking(kind, "max-age=60", shared=True)
    for who, answer, hit in asking.run([*people, *people, *people]):
        if "authorization" in json.loads(who):
            assert (answer, hit) == (who, False)
        else:
            assert "authorization" not in json.loads(answer)
    asking = Asking(kind, "public, max-age=60", shared=True)
    answers = asking.run([*people, *people])
    assert asking.calls == 1
    assert len({answer for _, answer, _ in answers}) == 1
