"""Durations as callers give them."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._options import seconds


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        pytest.param(0, 0.0, id="zero"),
        pytest.param(-0.0, 0.0, id="negative-zero"),
        pytest.param(5, 5.0, id="int"),
        pytest.param(0.25, 0.25, id="float"),
        pytest.param(math.inf, math.inf, id="infinite"),
        pytest.param(timedelta(minutes=2, milliseconds=500), 120.5, id="timedelta"),
        pytest.param(timedelta(0), 0.0, id="timedelta-zero"),
        pytest.param(10**400, math.inf, id="beyond-floats"),
    ],
)
def test_durations_become_seconds(given_value: float | timedelta, expected: float) -> None:
    result = seconds(given_value)
    assert type(result) is float
    assert result == expected


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf, -(10**400), timedelta(seconds=-1), timedelta.min])
def test_what_is_negative_or_no_number_is_refused_with_its_name_and_value(value: float | timedelta) -> None:
    with pytest.raises(ValueError, match=r"^l1_ttl must be 0 or more seconds \(math.inf: never expires\), not "):
        seconds(value, "l1_ttl")


@pytest.mark.parametrize("value", ["60", None, True, False, b"60", [60], 60j])
def test_another_type_is_refused_and_named(value: Any) -> None:  # `Any`: what the signature forbids
    with pytest.raises(TypeError, match=f"^ttl must be seconds or a timedelta, not {type(value).__name__}$"):
        seconds(value)


@given(st.floats(min_value=0))
def test_every_float_from_zero_on_stays_as_it_is(value: float) -> None:
    assert seconds(value) == value


@given(st.timedeltas(min_value=timedelta(0)))
def test_every_timedelta_from_zero_on_is_its_total_seconds(value: timedelta) -> None:
    assert seconds(value) == value.total_seconds()
