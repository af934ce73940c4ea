"""The rules for Python values: fresh for a time to live, and that is all."""

import math

import pytest

from aurelis.cache._decisions import Discard, Load, Reraise, Serve, Store
from aurelis.cache._entry import Entry
from aurelis.cache._ttl_policy import TtlPolicy, ValueRequest
from aurelis.cache.typing import Policy

NOW = 1000.0
REQUEST = ValueRequest("k", 60.0)
POLICY = TtlPolicy()


def entry(fresh_until: float) -> Entry:
    """Returns an entry that is kept for ever, and fresh until then."""
    return Entry("v", None, fresh_until, math.inf, 1)


def test_it_is_a_policy() -> None:
    """Checked by the type checker."""
    policy: Policy[ValueRequest, object] = POLICY
    assert policy.key(REQUEST) == "k"


def test_nothing_is_loaded() -> None:
    assert POLICY.on_lookup(REQUEST, None, NOW) == Load("uri-miss")


@pytest.mark.parametrize("fresh_until", [NOW + 0.001, math.inf])
def test_what_is_fresh_is_served(fresh_until: float) -> None:
    found = entry(fresh_until)
    assert POLICY.on_lookup(REQUEST, found, NOW) == Serve(found)


@pytest.mark.parametrize("fresh_until", [NOW, NOW - 1])
def test_what_is_not_fresh_any_more_is_loaded_again(fresh_until: float) -> None:
    assert POLICY.on_lookup(REQUEST, entry(fresh_until), NOW) == Load("stale")


@pytest.mark.parametrize("value", [None, 0, "", []], ids=repr)
def test_whatever_was_loaded_is_kept_for_its_ttl(value: object) -> None:
    assert POLICY.on_loaded(REQUEST, value) == Store(value, 60.0)
    assert POLICY.on_loaded(ValueRequest("k", math.inf), value) == Store(value, math.inf)


def test_a_ttl_of_zero_keeps_nothing() -> None:
    assert POLICY.on_loaded(ValueRequest("k", 0.0), "v") == Discard("ttl")


def test_the_callers_get_the_loaders_own_error_and_nothing_stale() -> None:
    assert POLICY.on_error(REQUEST, entry(NOW - 1), LookupError(), NOW) == Reraise()
