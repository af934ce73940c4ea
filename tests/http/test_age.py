"""Freshness lifetime and age (RFC 9111 §4.2)."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import (
    Freshness,
    RuleEffect,
    age_brought,
    combine,
    corrected_initial_age,
    current_age,
    freshness,
    response_directives,
)
from tests.http.messages import DATE, NOW, head

HOUR_LATER = b"Sun, 06 Nov 1994 09:49:37 GMT"
HOUR_BEFORE = b"Sun, 06 Nov 1994 07:49:37 GMT"
YEARS_BEFORE = b"Fri, 01 Jan 1988 00:00:00 GMT"
RULE = RuleEffect(ttl=60.0)


def lifetime(
    status: int,
    fields: Mapping[str, str | bytes],
    *,
    shared: bool = True,
    rule: RuleEffect | None = None,
) -> Freshness | None:
    by_name = combine(head(**fields).headers)
    return freshness(
        status,
        by_name,
        response_directives(by_name.get(b"cache-control")),
        shared=shared,
        response_time=NOW,
        rule=rule,
    )


@pytest.mark.parametrize(
    ("fields", "shared", "seconds"),
    [
        pytest.param({"cache_control": "max-age=60"}, True, 60, id="max-age-shared"),
        pytest.param({"cache_control": "max-age=60"}, False, 60, id="max-age-private"),
        pytest.param({"cache_control": "max-age=60, s-maxage=5"}, True, 5, id="s-maxage-first-in-shared"),
        pytest.param({"cache_control": "max-age=60, s-maxage=5"}, False, 60, id="s-maxage-ignored-in-private"),
        pytest.param({"cache_control": "max-age=5, s-maxage=60"}, True, 60, id="s-maxage-longer"),
        pytest.param({"cache_control": "s-maxage=x, max-age=60"}, True, 0, id="s-maxage-invalid"),
        pytest.param({"cache_control": "max-age=60", "expires": HOUR_LATER}, True, 60, id="max-age-over-expires"),
        pytest.param({"cache_control": "max-age=60", "expires": "0"}, True, 60, id="max-age-over-invalid-expires"),
        pytest.param({"cache_control": "max-age=0", "expires": HOUR_LATER}, True, 0, id="max-age-0-over-expires"),
        pytest.param({"cache_control": "max-age=x", "expires": HOUR_LATER}, True, 0, id="max-age-invalid"),
        pytest.param({"cache_control": 'x="a, max-age=60'}, True, 0, id="malformed"),
        pytest.param({"expires": HOUR_LATER, "date": DATE}, True, 3600, id="expires-minus-date"),
        pytest.param({"expires": HOUR_LATER, "date": HOUR_BEFORE}, True, 7200, id="expires-minus-slow-date"),
        pytest.param({"expires": DATE, "date": HOUR_LATER}, True, 0, id="expires-before-date"),
        pytest.param({"expires": HOUR_LATER}, True, 3600, id="expires-without-date"),
        pytest.param({"expires": HOUR_LATER, "date": "foo"}, True, 3600, id="expires-with-invalid-date"),
        pytest.param({"expires": "0", "last_modified": YEARS_BEFORE}, True, 0, id="5.3-expires-invalid"),
        pytest.param({"expires": ""}, True, 0, id="5.3-expires-empty"),
        pytest.param({"expires": "Sun, 21 Nov 2286 04:46:39 GMT"}, True, 2**31, id="capped"),
        pytest.param({"cache_control": "s-maxage=60", "expires": HOUR_LATER}, False, 3600, id="private-expires"),
    ],
)
def test_explicit_lifetime(fields: dict[str, str | bytes], shared: bool, seconds: float) -> None:
    """RFC 9111 §4.2.1. What a response says is final, also for a rule."""
    assert lifetime(200, fields, shared=shared) == Freshness(seconds, "explicit")
    assert lifetime(599, fields, shared=shared, rule=RULE) == Freshness(seconds, "explicit")


@pytest.mark.parametrize(("status", "seconds"), [(200, 60.0), (203, 60.0), (301, 60.0), (308, 60.0), (404, 10.0)])
def test_a_rule_speaks_where_the_response_says_nothing(status: int, seconds: float) -> None:
    """A 404 is kept for ten seconds at most."""
    assert lifetime(status, {"last_modified": YEARS_BEFORE}, rule=RULE) == Freshness(seconds, "rule")


@pytest.mark.parametrize("status", [201, 204, 302, 400, 403, 500, 503])
def test_a_rule_is_silent_on_other_statuses(status: int) -> None:
    assert lifetime(status, {}, rule=RULE) is None


def test_the_ttl_of_a_rule_is_capped() -> None:
    """RFC 9111 §1.2.2, and arithmetic with infinity gives no ages."""
    assert lifetime(200, {}, rule=RuleEffect(ttl=float("inf"))) == Freshness(2.0**31, "rule")
    assert lifetime(404, {}, rule=RuleEffect(ttl=2.0)) == Freshness(2.0, "rule")


@pytest.mark.parametrize(
    ("status", "cacheable"),
    [
        *((status, True) for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)),
        *((status, False) for status in (201, 202, 206, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599)),
    ],
)
def test_heuristic_freshness_needs_a_status_that_allows_it(status: int, cacheable: bool) -> None:
    """RFC 9111 §4.2.2, RFC 9110 §15.1."""
    expected = Freshness(360.0, "heuristic") if cacheable else None
    fields: dict[str, str | bytes] = {"last_modified": HOUR_BEFORE, "date": DATE}
    assert lifetime(status, fields) == expected
    assert lifetime(status, fields | {"cache_control": "public"}) == Freshness(360.0, "heuristic")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"last_modified": "foo"}, None, id="invalid"),
        pytest.param({"last_modified": HOUR_BEFORE}, 360.0, id="since-reception"),
        pytest.param({"last_modified": HOUR_BEFORE, "date": HOUR_LATER}, 720.0, id="since-date"),
        pytest.param({"last_modified": HOUR_LATER, "date": DATE}, 0.0, id="in-the-future"),
        pytest.param({"last_modified": YEARS_BEFORE, "date": DATE}, 86_400.0, id="at-most-a-day"),
    ],
)
def test_heuristic_lifetime(fields: dict[str, str | bytes], expected: float | None) -> None:
    """RFC 9111 §4.2.2: a tenth of the time since the last modification."""
    assert lifetime(200, fields) == (None if expected is None else Freshness(expected, "heuristic"))


@pytest.mark.parametrize(
    ("fields", "delay", "age"),
    [
        pytest.param({}, 0.0, 0.0, id="nothing"),
        pytest.param({}, 2.5, 2.5, id="delay"),
        pytest.param({"age": b"30"}, 0.0, 30.0, id="age"),
        pytest.param({"age": b"30"}, 2.5, 32.5, id="age-and-delay"),
        pytest.param({"date": HOUR_BEFORE}, 2.5, 3600.0, id="apparent-age"),
        pytest.param({"date": HOUR_BEFORE, "age": b"7200"}, 0.0, 7200.0, id="age-over-apparent-age"),
        pytest.param({"date": HOUR_LATER, "age": b"30"}, 0.0, 30.0, id="clock-ahead"),
        pytest.param({"date": b"foo", "age": b"bar"}, 0.0, 0.0, id="invalid"),
        pytest.param({"date": DATE}, -5.0, 0.0, id="our-clock-set-back"),
    ],
)
def test_corrected_initial_age(fields: dict[str, bytes], delay: float, age: float) -> None:
    """RFC 9111 §4.2.3."""
    by_name = combine(head(**fields).headers)
    assert corrected_initial_age(by_name, request_time=NOW - delay, response_time=NOW) == age
    assert age_brought(by_name, response_time=NOW) == age - (0 if b"date" in by_name else max(delay, 0))


def test_the_fraction_of_the_time_of_reception_is_no_age() -> None:
    """Date has no fraction to compare it with."""
    assert corrected_initial_age({b"date": DATE}, request_time=NOW + 0.9, response_time=NOW + 0.9) == 0.0
    assert corrected_initial_age({b"date": DATE}, request_time=NOW + 1.0, response_time=NOW + 1.0) == 1.0


INSTANT = st.floats(min_value=0, max_value=4e9)


@given(st.binary(max_size=30) | st.sampled_from([DATE, b"99999999999"]), st.binary(max_size=12), INSTANT, INSTANT)
def test_age_is_never_negative(date: bytes, age: bytes, request_time: float, response_time: float) -> None:
    fields = {b"date": date, b"age": age}
    assert corrected_initial_age(fields, request_time=request_time, response_time=response_time) >= 0
    assert age_brought(fields, response_time=response_time) >= 0


@given(INSTANT, INSTANT, INSTANT, st.floats(min_value=0, max_value=1e6))
def test_current_age_grows_with_time(lifetime: float, fresh_until: float, now: float, later: float) -> None:
    age = current_age(lifetime, fresh_until, now)
    assert 0 <= age <= current_age(lifetime, fresh_until, now + later)
