"""Fields that speak to some caches alone (RFC 9213)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache import CacheManager
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import (
    HttpPolicy,
    ResponseDirectives,
    Storable,
    may_store,
    target_names,
    targeted_directives,
)
from aurelis.cache.typing import Pass, Record
from aurelis_asgi import CacheMiddleware
from tests.http.messages import NOW, get, head, policy

CDN = (b"cdn-cache-control",)


@pytest.mark.parametrize(
    ("value", "directives"),
    [
        pytest.param(b"max-age=60", ResponseDirectives(max_age=60), id="2.1"),
        pytest.param(b"max-age=60;x=1, no-store", ResponseDirectives(max_age=60, no_store=True), id="2.1-parameters"),
        pytest.param(b"max-age=60, max-age=5", ResponseDirectives(max_age=5), id="8941-3.2-last-counts"),
        pytest.param(b"no-store=?0, max-age=60", ResponseDirectives(max_age=60), id="8941-3.3.6-false"),
        pytest.param(b"no-store=?1", ResponseDirectives(no_store=True), id="8941-3.3.6-true"),
        pytest.param(b'private="a, b"', ResponseDirectives(private_fields=frozenset({b"a", b"b"})), id="names"),
        pytest.param(b"x=(1 2), max-age=60", ResponseDirectives(max_age=60), id="8941-3.1.1-inner-list"),
        pytest.param(b"max-age=-1", ResponseDirectives(max_age=0), id="2.1-negative"),
        pytest.param(b"max-age=1.5", ResponseDirectives(max_age=0), id="2.1-decimal"),
        pytest.param(b'max-age="60"', ResponseDirectives(max_age=0), id="2.1-string"),
        pytest.param(b"max-age", ResponseDirectives(max_age=0), id="2.1-no-value"),
        *(
            pytest.param(value, None, id=f"2.1-ignored {value.decode()}")
            for value in (
                b"",
                b" ",
                b"Max-Age=60",
                b"max-age =60",
                b"max-age=60,",
                b"max-age=60 no-store",
                b'x="',
                b"=",
            )
        ),
    ],
)
def test_a_targeted_field_is_a_dictionary(value: bytes, directives: ResponseDirectives | None) -> None:
    assert targeted_directives({b"cdn-cache-control": value}, CDN) == directives


def test_the_first_field_that_is_there_and_valid_counts() -> None:
    """RFC 9213 §2.2."""
    targets = (b"mine", b"cdn-cache-control")
    fields = {b"cdn-cache-control": b"max-age=5"}
    assert targeted_directives({**fields, b"mine": b"max-age=9"}, targets) == ResponseDirectives(max_age=9)
    assert targeted_directives({**fields, b"mine": b"MINE"}, targets) == ResponseDirectives(max_age=5)
    assert targeted_directives(fields, ()) is None


@given(st.one_of(st.binary(max_size=60), st.text('max-age=60,;() "?:\\', max_size=40).map(str.encode)))
def test_any_bytes_give_directives_or_none(value: bytes) -> None:
    targeted_directives({b"cdn-cache-control": value}, CDN)


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        ({"cdn_cache_control": "max-age=60", "cache_control": "no-store"}, 60),
        ({"cdn_cache_control": "max-age=60", "cache_control": "s-maxage=5", "expires": "0"}, 60),
        ({"cdn_cache_control": "no-store", "cache_control": "max-age=60"}, None),
        ({"cdn_cache_control": "private", "cache_control": "max-age=60"}, None),
        ({"cdn_cache_control": "must-revalidate", "cache_control": "max-age=60", "expires": "0"}, None),
        ({"cdn_cache_control": "No Dictionary", "cache_control": "max-age=60"}, 60),
    ],
)
def test_a_targeted_field_takes_the_place_of_the_others(fields: dict[str, str], lifetime: float | None) -> None:
    verdict = may_store(get(), head(200, **fields), shared=True, response_time=NOW, targets=CDN)
    assert (verdict.freshness.lifetime if isinstance(verdict, Storable) else None) == lifetime


def test_shared_caches_heed_the_field_of_cdns() -> None:
    response = head(200, cdn_cache_control="max-age=60", cache_control="no-store")
    assert policy().on_response(get(), response, NOW) == Record(60.0)
    assert isinstance(policy(shared=False).on_response(get(), response, NOW), Pass)
    rules = HttpPolicy(shared=True, keys=lambda *_: "", targets=())
    assert isinstance(rules.on_response(get(), response, NOW), Pass)


def test_names_are_checked(manager: CacheManager) -> None:
    assert target_names(["Mine", "cdn-cache-control"]) == (b"mine", b"cdn-cache-control")
    for wrong in (["a b"], [""], [b"a"], "mine"):
        with pytest.raises(ConfigurationError, match="cache_control_fields"):
            CacheMiddleware(_app, cache=manager, cache_control_fields=wrong)  # type: ignore[arg-type]


async def _app(*_: object) -> None:
    pass


@pytest.fixture
def manager() -> CacheManager:
    """One that is never used."""
    return CacheManager()
