"""Asking the origin whether a stored response still holds (RFC 9111 §4.3)."""

from dataclasses import replace

import pytest

from aurelis.cache._entry import Entry
from aurelis.cache.http import LoadedResponse, StoredResponse, conditional
from aurelis.cache.typing import Bypass, Confirm, Load, Serve, Store
from tests.http.messages import DATE, NOW, entry, get, head, lines, loaded, policy

LATER = b"Sun, 06 Nov 1994 09:49:37 GMT"


def stored(**fields: str | bytes) -> StoredResponse:
    """A response as the policy keeps it."""
    decision = policy().on_loaded(get(), loaded(head(200, **{"cache_control": "max-age=60", **fields})))
    assert isinstance(decision, Store)
    assert isinstance(decision.value, StoredResponse)
    return decision.value


def confirmed(old: StoredResponse, status: int = 304, /, **fields: str | bytes) -> Confirm | None:
    """What a 304 with these fields changes."""
    answer = LoadedResponse(head(status, **fields), (), 0.0, NOW + 100, NOW + 100)
    return policy().on_validated(get(), entry(old), answer)


@pytest.mark.parametrize(
    ("fields", "conditions"),
    [
        pytest.param({"etag": '"a"'}, lines(if_none_match='"a"'), id="4.3.1-strong"),
        pytest.param({"etag": 'W/"a"'}, lines(if_none_match='W/"a"'), id="4.3.1-weak"),
        pytest.param({"last_modified": DATE}, lines(if_modified_since=DATE), id="4.3.1-date"),
        pytest.param(
            {"etag": '"a"', "last_modified": DATE}, lines(if_none_match='"a"', if_modified_since=DATE), id="4.3.1-both"
        ),
        pytest.param({"etag": "a", "last_modified": "x"}, (), id="malformed"),
        pytest.param({}, (), id="none"),
    ],
)
def test_a_response_is_asked_about_by_its_validators(
    fields: dict[str, str | bytes], conditions: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert tuple(policy().conditions(get(), entry(stored(**fields)))) == conditions
    assert policy().conditions(get(), None) == ()


def test_the_conditions_of_the_client_give_way() -> None:
    asked = [(b"accept", b"*/*"), (b"If-None-Match", b'"mine"'), (b"if-modified-since", DATE), (b"x", b"1")]
    own = ((b"if-none-match", b'"ours"'),)
    assert conditional(asked, own) == [(b"accept", b"*/*"), (b"x", b"1"), (b"if-none-match", b'"ours"')]
    assert conditional(asked, ()) == [(b"accept", b"*/*"), (b"x", b"1")]


@pytest.mark.parametrize(
    ("fields", "value", "fresh_for"),
    [
        pytest.param({}, "max-age=60", 60.0, id="4.3.4-as-before"),
        pytest.param({"cache_control": "max-age=5"}, "max-age=5", 5.0, id="3.2-updated"),
        pytest.param({"age": "20"}, "max-age=60", 40.0, id="4.2.3-confirmed-elsewhere"),
    ],
)
def test_a_confirmed_response_is_fresh_again(fields: dict[str, str], value: str, fresh_for: float) -> None:
    old = replace(stored(etag='"a"', date=DATE), load_seconds=3.0)
    answer = confirmed(old, etag='"a"', **fields)
    assert answer is not None
    assert answer.store is not None
    assert answer.fresh_for == answer.store.fresh_for == fresh_for
    assert isinstance(answer.value, StoredResponse)
    assert dict(answer.value.headers)[b"cache-control"] == value.encode()
    assert answer.value.load_seconds == 3.0  # what it once cost is what each use saves


def test_a_304_updates_all_but_what_says_how_to_read_the_body() -> None:
    """RFC 9111 §3.2."""
    old = stored(etag='"a"', date=DATE, x="1", y="1", content_type="text/plain", content_length="4")
    answer = confirmed(
        old,
        x="2",
        z="2",
        content_length="0",
        content_encoding="gzip",
        content_range="x",
        content_type="text/html",
        connection="z",
    )
    assert answer is not None
    assert isinstance(answer.value, StoredResponse)
    assert dict(answer.value.headers) == {
        b"cache-control": b"max-age=60",
        b"etag": b'"a"',
        b"x": b"2",
        b"y": b"1",
        b"content-type": b"text/html",
        b"content-length": b"4",
    }
    assert answer.value.chunks == old.chunks


@pytest.mark.parametrize(
    ("old", "new"),
    [({"etag": '"a"'}, {"etag": '"b"'}), ({"last_modified": DATE}, {"last_modified": LATER})],
)
def test_a_304_about_another_response_changes_nothing(old: dict[str, str], new: dict[str, str]) -> None:
    """RFC 9111 §4.3.4."""
    known = stored(**old)
    assert confirmed(known, x="2", **new) == Confirm(known, 0.0, None)


@pytest.mark.parametrize(
    "fields", [{"cache_control": "no-store"}, {"cache_control": "private"}, {"set_cookie": "a=b"}, {"vary": "*"}]
)
def test_what_may_not_be_stored_any_more_is_for_the_one_who_asked(fields: dict[str, str]) -> None:
    answer = confirmed(stored(etag='"a"'), **fields)
    assert answer is not None
    assert answer.store is None
    assert answer.fresh_for == 0.0
    assert isinstance(answer.value, StoredResponse)
    assert set(lines(**fields)) <= set(answer.value.headers)


@pytest.mark.parametrize("status", [200, 404, 412, 500])
def test_any_other_answer_is_no_confirmation(status: int) -> None:
    """RFC 9111 §4.3.3."""
    assert confirmed(stored(etag='"a"'), status) is None


STALE = 100.0
"""Monotonic instant at which the entries here are not fresh any more."""


def look(old: StoredResponse, now: float, **fields: str) -> object:
    """What the policy says of a request for an entry that has been stale since `STALE`."""
    answer = policy().on_lookup(get(fields), Entry(old, None, STALE, 1e9, 1), now)
    return ("serve", answer.refresh) if isinstance(answer, Serve) else answer


@pytest.mark.parametrize(
    ("cache_control", "fields", "after", "answer"),
    [
        pytest.param("max-age=60", {}, 5, Load("stale"), id="4.2.4-nothing-allows-it"),
        pytest.param("max-age=60", {"cache_control": "max-stale"}, 5, ("serve", ""), id="5.2.1.2-any"),
        pytest.param("max-age=60", {"cache_control": "max-stale=9"}, 5, ("serve", ""), id="5.2.1.2"),
        pytest.param("max-age=60", {"cache_control": "max-stale=4"}, 5, Load("stale"), id="5.2.1.2-staler"),
        pytest.param(
            "max-age=60", {"cache_control": "max-stale=9, max-age=60"}, 5, Load("stale"), id="5.2.1.1-and-older"
        ),
        pytest.param(
            "max-age=60, must-revalidate", {"cache_control": "max-stale"}, 5, Load("stale"), id="5.2.2.2-forbidden"
        ),
        pytest.param("s-maxage=60", {"cache_control": "max-stale"}, 5, Load("stale"), id="5.2.2.10-forbidden"),
        pytest.param(
            "max-age=60, proxy-revalidate", {"cache_control": "max-stale"}, 5, Load("stale"), id="5.2.2.8-forbidden"
        ),
        pytest.param("max-age=60, stale-while-revalidate=9", {}, 5, ("serve", "revalidate"), id="5861-3"),
        pytest.param("max-age=60, stale-while-revalidate=9", {}, 9, Load("stale"), id="5861-3-over"),
        pytest.param(
            "max-age=60, stale-while-revalidate=9", {"cache_control": "max-age=99"}, 5, Load("stale"), id="5.2.1.1"
        ),
        pytest.param(
            "max-age=60, stale-while-revalidate=9, must-revalidate", {}, 5, Load("stale"), id="5861-3-forbidden"
        ),
    ],
)
def test_stale_answers(cache_control: str, fields: dict[str, str], after: float, answer: object) -> None:
    assert look(stored(etag='"a"', cache_control=cache_control), STALE + after, **fields) == answer


def test_a_reload_gets_what_is_immutable() -> None:
    """RFC 8246 §2: until it is stale, and unless the client wants to have it validated."""
    rules = policy()
    found = Entry(stored(etag='"a"', cache_control="max-age=60, immutable"), None, STALE, 1e9, 1)
    assert isinstance(rules.on_lookup(get(cache_control="max-age=0"), found, STALE - 5), Serve)
    assert rules.on_lookup(get(cache_control="no-cache"), found, STALE - 5) == Load("request")
    assert rules.on_lookup(get(cache_control="max-age=0"), found, STALE) == Load("stale")


def test_a_client_with_conditions_is_answered_after_validation() -> None:
    """RFC 9111 §4.3.1: where the cache can ask by itself; otherwise the client's conditions are forwarded."""
    fields = {"if_none_match": '"b"'}
    assert look(stored(etag='"a"'), STALE, **fields) == Load("stale")
    assert look(stored(), STALE, **fields) == Bypass("stale", "conditional")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_stale_response_stands_in_for_an_error(status: int) -> None:
    """RFC 5861 §4."""
    found = Entry(stored(cache_control="max-age=60, stale-if-error=9"), None, STALE, 1e9, 1)
    rules = policy()
    assert rules.on_refused(get(), found, head(status), STALE + 5) == Serve(found)
    assert rules.on_refused(get(), found, head(status), STALE + 9) is None
    assert rules.on_refused(get(cache_control="stale-if-error=20"), found, head(status), STALE + 9) == Serve(found)
    assert rules.on_refused(get(), None, head(status), STALE) is None
    for other in (200, 404, 501, 505):
        assert rules.on_refused(get(), found, head(other), STALE) is None
