"""The rules for Python values: fresh for a time to live, then perhaps stale and still of use for a while."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._decisions import Discard, Load, Reraise, Serve, Store
from aurelis.cache._entry import Details, Entry
from aurelis.cache._options import EntryOptions
from aurelis.cache._ttl_policy import TtlPolicy, ValueRequest, refresh_from
from aurelis.cache.typing import Policy

NOW = 1000.0
PLAIN = EntryOptions()
REVALIDATES = EntryOptions(stale_while_revalidate=10)
STANDS_IN = EntryOptions(stale_if_error=10)
BOTH = EntryOptions(stale_while_revalidate=10, stale_if_error=100)
REQUEST = ValueRequest("k", 60.0, PLAIN)
POLICY = TtlPolicy()


def request(options: EntryOptions, ttl: float = 60.0) -> ValueRequest:
    """Returns a request with these options."""
    return ValueRequest("k", ttl, options)


def entry(fresh_until: float, *, until: float | None = None, retry_at: float = -math.inf) -> Entry:
    """Returns an entry that is kept for ever, and fresh until then."""
    details = Details(retry_at=retry_at)
    due = fresh_until if until is None else until
    return Entry("v", None, fresh_until, math.inf, 1, details=details, until=due)


def test_it_is_a_policy() -> None:
    """Checked by the type checker."""
    policy: Policy[ValueRequest, object] = POLICY
    assert policy.key(REQUEST) == "k"


# --- fresh values


@pytest.mark.parametrize("options", [PLAIN, BOTH], ids=["plain", "both"])
def test_nothing_is_loaded(options: EntryOptions) -> None:
    assert POLICY.on_lookup(request(options), None, NOW) == Load("uri-miss")


@pytest.mark.parametrize("fresh_until", [NOW + 0.001, math.inf])
@pytest.mark.parametrize("options", [PLAIN, BOTH], ids=["plain", "both"])
def test_what_is_fresh_is_served(fresh_until: float, options: EntryOptions) -> None:
    found = entry(fresh_until)
    assert POLICY.on_lookup(request(options), found, NOW) == Serve(found)


@pytest.mark.parametrize(
    ("until", "refresh"),
    [
        pytest.param(NOW + 1, "", id="not-yet"),
        pytest.param(NOW, "early", id="from-then-on"),
        pytest.param(NOW - 1, "early", id="past"),
        pytest.param(-math.inf, "early", id="not-known"),
    ],
)
def test_what_is_fresh_and_due_is_served_and_refreshed_early(until: float, refresh: str) -> None:
    found = entry(NOW + 5, until=until)
    assert POLICY.on_lookup(REQUEST, found, NOW) == Serve(found, refresh)


def test_an_early_refresh_that_failed_is_not_tried_again_before_the_throttle_has_passed() -> None:
    found = entry(NOW + 50, until=NOW - 1, retry_at=NOW + 10)
    assert POLICY.on_lookup(REQUEST, found, NOW) == Serve(found)
    assert POLICY.on_lookup(REQUEST, found, NOW + 10) == Serve(found, "early")


# --- stale values


@pytest.mark.parametrize("fresh_until", [NOW, NOW - 1])
def test_what_is_not_fresh_any_more_is_loaded_again(fresh_until: float) -> None:
    assert POLICY.on_lookup(REQUEST, entry(fresh_until), NOW) == Load("stale")


@pytest.mark.parametrize(
    ("options", "age", "served"),
    [
        pytest.param(REVALIDATES, 0.0, True, id="at-the-end-of-freshness"),
        pytest.param(REVALIDATES, 9.5, True, id="in-the-window"),
        pytest.param(REVALIDATES, 10.0, False, id="at-its-end"),
        pytest.param(STANDS_IN, 0.0, False, id="for-errors-alone"),
        pytest.param(BOTH, 9.5, True, id="in-the-shorter-window"),
        pytest.param(BOTH, 10.0, False, id="in-that-for-errors"),
        pytest.param(EntryOptions(stale_while_revalidate=math.inf), 1e9, True, id="without-end"),
    ],
)
def test_a_stale_value_is_served_while_it_is_refreshed_within_its_window(
    options: EntryOptions, age: float, served: bool
) -> None:
    """RFC 5861 §3, for values."""
    found = entry(NOW)
    expected = Serve(found, "revalidate") if served else Load("stale")
    assert POLICY.on_lookup(request(options), found, NOW + age) == expected


@pytest.mark.parametrize("options", [REVALIDATES, STANDS_IN, BOTH], ids=["revalidates", "stands-in", "both"])
def test_after_a_failure_a_stale_value_is_served_without_trying_again_until_the_throttle_has_passed(
    options: EntryOptions,
) -> None:
    found = entry(NOW - 1, retry_at=NOW + 5)
    for now in (NOW, NOW + 4.5):
        decision = POLICY.on_lookup(request(options), found, now)
        assert isinstance(decision, Serve)
        assert decision.entry is found
        assert decision.refresh not in ("early", "revalidate")
    after = POLICY.on_lookup(request(options), found, NOW + 5)
    assert after == (Load("stale") if options is STANDS_IN else Serve(found, "revalidate"))


@pytest.mark.parametrize("options", [PLAIN, REVALIDATES, STANDS_IN], ids=["plain", "revalidates", "stands-in"])
def test_a_throttle_prolongs_no_window(options: EntryOptions) -> None:
    found = entry(NOW - 10, retry_at=NOW + 5)
    assert POLICY.on_lookup(request(options), found, NOW) == Load("stale")


# --- what was loaded


@pytest.mark.parametrize("value", [None, 0, "", []], ids=repr)
def test_whatever_was_loaded_is_kept_for_its_ttl(value: object) -> None:
    assert POLICY.on_loaded(REQUEST, value) == Store(value, 60.0)
    assert POLICY.on_loaded(request(PLAIN, math.inf), value) == Store(value, math.inf)


@pytest.mark.parametrize(("options", "window"), [(REVALIDATES, 10.0), (STANDS_IN, 10.0), (BOTH, 100.0)])
def test_it_is_kept_for_the_longer_of_its_windows_after_that(options: EntryOptions, window: float) -> None:
    assert POLICY.on_loaded(request(options), "v") == Store("v", 60.0, window)


@pytest.mark.parametrize("options", [PLAIN, BOTH], ids=["plain", "both"])
def test_a_ttl_of_zero_keeps_nothing(options: EntryOptions) -> None:
    assert POLICY.on_loaded(request(options, 0.0), "v") == Discard("ttl")


# --- failures


@pytest.mark.parametrize("found", [None, entry(NOW - 1)], ids=["nothing", "stale"])
def test_the_callers_get_the_loaders_own_error_where_nothing_stale_is_allowed(found: Entry | None) -> None:
    assert POLICY.on_error(REQUEST, found, LookupError(), NOW) == Reraise()


def test_without_anything_stored_the_callers_get_the_loaders_own_error() -> None:
    assert POLICY.on_error(request(BOTH), None, LookupError(), NOW) == Reraise()


@pytest.mark.parametrize(
    ("options", "age", "stands_in"),
    [
        pytest.param(STANDS_IN, 0.0, True, id="at-the-end-of-freshness"),
        pytest.param(STANDS_IN, 9.5, True, id="in-the-window"),
        pytest.param(STANDS_IN, 10.0, False, id="at-its-end"),
        pytest.param(REVALIDATES, 9.5, True, id="within-that-for-refreshes"),
        pytest.param(REVALIDATES, 10.0, False, id="at-the-end-of-that"),
        pytest.param(BOTH, 99.5, True, id="in-the-longer-window"),
        pytest.param(PLAIN, -1.0, True, id="still-fresh"),
    ],
)
def test_within_its_window_a_stale_value_stands_in_for_a_failure(
    options: EntryOptions, age: float, stands_in: bool
) -> None:
    """RFC 5861 §4, for values."""
    found = entry(NOW)
    expected = Serve(found) if stands_in else Reraise()
    assert POLICY.on_error(request(options), found, LookupError(), NOW + age) == expected


@given(
    age=st.floats(-100, 1000),
    window=st.floats(0, 500),
    error_window=st.floats(0, 500),
    retry_in=st.floats(-1000, 1000),
    lead=st.floats(0, 200),
)
def test_no_value_is_served_beyond_its_windows(
    age: float, window: float, error_window: float, retry_in: float, lead: float
) -> None:
    options = EntryOptions(stale_while_revalidate=window, stale_if_error=error_window)
    now = NOW + age
    found = entry(NOW, until=NOW - lead, retry_at=now + retry_in)
    looked_up = POLICY.on_lookup(request(options), found, now)
    failed = POLICY.on_error(request(options), found, LookupError(), now)
    if now >= NOW + max(window, error_window):
        assert looked_up == Load("stale")
        assert failed == Reraise()
    if now < NOW:
        assert isinstance(looked_up, Serve)
    if found.details.retry_at > now and isinstance(looked_up, Serve):
        assert looked_up.refresh not in ("early", "revalidate")


# --- when to refresh early


@pytest.mark.parametrize(
    ("lead", "spread", "chance", "expected"),
    [
        pytest.param(0.0, 0.0, 0.5, NOW, id="not-at-all"),
        pytest.param(12.0, 0.0, 0.5, NOW - 12, id="fixed"),
        pytest.param(0.0, 10.0, 1.0, NOW, id="the-latest-draw"),
        pytest.param(0.0, 10.0, math.exp(-1), NOW - 10, id="the-mean-draw"),
        pytest.param(12.0, 10.0, math.exp(-1), NOW - 12, id="fixed-is-earlier"),
        pytest.param(12.0, 10.0, math.exp(-2), NOW - 20, id="drawn-is-earlier"),
    ],
)
def test_a_refresh_is_due_from_the_earlier_of_both_leads(
    lead: float, spread: float, chance: float, expected: float
) -> None:
    """XFetch: Vattani, Chierichetti, Lowenstein, VLDB 2015."""
    assert refresh_from(NOW, lead, spread, chance) == pytest.approx(expected)


@given(
    lead=st.floats(0, 1e9),
    spread=st.floats(0, 1e9),
    chance=st.floats(0, 1, exclude_min=True),
)
def test_a_refresh_is_never_due_after_the_end_of_freshness(lead: float, spread: float, chance: float) -> None:
    due = refresh_from(NOW, lead, spread, chance)
    assert -math.inf < due <= NOW


@given(lead=st.floats(0, 1e9), spread=st.floats(0, 1e9), chance=st.floats(0, 1, exclude_min=True))
def test_what_is_fresh_for_ever_is_never_refreshed(lead: float, spread: float, chance: float) -> None:
    assert refresh_from(math.inf, lead, spread, chance) == math.inf


def test_of_a_spread_the_mean_lead_is_that_spread() -> None:
    chances = [(number + 0.5) / 10_000 for number in range(10_000)]
    leads = [NOW - refresh_from(NOW, 0.0, 10.0, chance) for chance in chances]
    assert sum(leads) / len(leads) == pytest.approx(10.0, rel=0.01)


def test_asking_changes_nothing() -> None:
    found = entry(NOW - 1, retry_at=NOW + 5)
    before = dataclasses.replace(found)
    POLICY.on_lookup(request(BOTH), found, NOW)
    POLICY.on_error(request(BOTH), found, LookupError(), NOW)
    assert found == before
