"""Options of an entry: what is out of range, and what contradicts each other, is refused with advice."""

import dataclasses
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._options import EntryOptions
from aurelis.cache.exceptions import ConfigurationError

DURATIONS = {
    "ttl": None,
    "memory_ttl": None,
    "jitter": 0.0,
    "stale_while_revalidate": 0.0,
    "stale_if_error": 0.0,
    "throttle": 30.0,
    "soft_timeout": None,
    "hard_timeout": None,
    "negative_ttl": 0.0,
    "lease_wait": None,
}
COMPANIONS: dict[str, dict[str, float]] = {"soft_timeout": {"stale_if_error": 60.0}, "jitter": {"ttl": 3600.0}}
"""What an option needs beside it."""


def made(**options: Any) -> EntryOptions:  # `Any`: also what the signature forbids
    """Returns options."""
    return EntryOptions(**options)


def refusal(**options: Any) -> str:  # likewise
    """Returns why options are refused."""
    with pytest.raises(ConfigurationError) as caught:
        made(**options)
    message = str(caught.value)
    assert message.startswith("EntryOptions: ")
    return message


def test_without_arguments_nothing_is_ever_stale_early_or_late() -> None:
    options = EntryOptions()
    assert {name: getattr(options, name) for name in DURATIONS} == DURATIONS
    assert options.early_refresh is options.early_beta is None
    assert options.background_completion
    assert options.stale_for == 0


def test_all_options_are_named_and_frozen() -> None:
    with pytest.raises(TypeError):
        EntryOptions(60)  # type: ignore[call-arg]  # that is the point
    options = EntryOptions(ttl=60)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.ttl = 5  # type: ignore[misc]  # likewise
    assert options == EntryOptions(ttl=timedelta(minutes=1))
    assert hash(options) == hash(EntryOptions(ttl=60.0))


@pytest.mark.parametrize("name", DURATIONS)
def test_durations_are_seconds_or_timedeltas(name: str) -> None:
    more = COMPANIONS.get(name, {})
    for value in (90, 90.0, timedelta(seconds=90)):
        if name == "soft_timeout":
            value = value / 30
        result = getattr(made(**{name: value}, **more), name)
        assert type(result) is float
        assert result in (90.0, 3.0)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (-1, "must be 0 or more seconds"),
        (math.nan, "must be 0 or more seconds"),
        (timedelta(seconds=-1), "must be 0 or more seconds"),
        ("60", "must be seconds or a timedelta, not str"),
        (True, "must be seconds or a timedelta, not bool"),
        ([60], "must be seconds or a timedelta, not list"),
    ],
    ids=repr,
)
def test_no_duration_is_negative_or_no_number(name: str, value: Any, says: str) -> None:
    assert f"{name} {says}" in refusal(**{name: value})


@pytest.mark.parametrize("name", ["soft_timeout", "hard_timeout", "memory_ttl"])
def test_some_durations_must_be_more_than_nothing(name: str) -> None:
    assert f"{name} must be more than 0 seconds" in refusal(**{name: 0}, **COMPANIONS.get(name, {}))


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.5, math.nan, math.inf, True, "0.8", (0.8,)], ids=repr)
def test_an_early_refresh_is_at_a_part_of_the_ttl(value: Any) -> None:
    assert "early_refresh is a part of the ttl, between 0 and 1" in refusal(early_refresh=value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "1", (1,)], ids=repr)
def test_the_weight_of_a_random_refresh_is_positive_and_finite(value: Any) -> None:
    assert "early_beta must be more than 0 and finite; 1 is a good choice" in refusal(early_beta=value)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        pytest.param(
            {"soft_timeout": 1},
            "soft_timeout serves a stale value, so it needs stale_if_error or stale_while_revalidate",
            id="nothing-to-serve-in-time",
        ),
        pytest.param(
            {"soft_timeout": 2, "hard_timeout": 1, "stale_if_error": 60},
            "soft_timeout must be shorter than hard_timeout",
            id="soft-after-hard",
        ),
        pytest.param(
            {"soft_timeout": 1, "hard_timeout": timedelta(seconds=1), "stale_while_revalidate": 60},
            "soft_timeout must be shorter than hard_timeout",
            id="both-at-once",
        ),
        pytest.param({"ttl": 0, "stale_if_error": 60}, "with ttl=0 nothing is kept", id="stale-of-nothing"),
        pytest.param({"ttl": 0, "stale_while_revalidate": 60}, "with ttl=0 nothing is kept", id="revalidates-nothing"),
        pytest.param({"ttl": 0, "early_refresh": 0.8}, "with ttl=0 nothing is kept", id="early-of-nothing"),
        pytest.param({"ttl": 0, "early_beta": 1}, "with ttl=0 nothing is kept", id="random-of-nothing"),
        pytest.param({"ttl": 60, "jitter": 60}, "jitter must be shorter than ttl", id="jitter-of-all"),
        pytest.param({"ttl": 60, "jitter": 61}, "jitter must be shorter than ttl", id="jitter-beyond"),
        pytest.param({"ttl": 0, "jitter": 1}, "jitter must be shorter than ttl", id="jitter-of-nothing"),
        pytest.param({"jitter": math.inf}, "jitter must be shorter than ttl", id="jitter-without-end"),
    ],
)
def test_options_that_contradict_each_other_are_refused_with_advice(options: dict[str, Any], advice: str) -> None:
    assert advice in refusal(**options)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"soft_timeout": 1, "stale_if_error": 60}, id="soft-for-errors"),
        pytest.param({"soft_timeout": 1, "stale_while_revalidate": 60}, id="soft-while-refreshed"),
        pytest.param({"soft_timeout": 1, "hard_timeout": 1.001, "stale_if_error": 60}, id="soft-before-hard"),
        pytest.param({"hard_timeout": 0.001}, id="hard-alone"),
        pytest.param({"ttl": 0}, id="shared-while-it-runs"),
        pytest.param({"ttl": 0, "negative_ttl": 5, "hard_timeout": 1}, id="nothing-kept-but-failures"),
        pytest.param({"ttl": math.inf, "early_refresh": 0.8, "early_beta": 1, "jitter": 5}, id="for-ever"),
        pytest.param({"ttl": 60, "jitter": 59.9}, id="long-jitter"),
        pytest.param({"jitter": 1e9}, id="jitter-of-an-unknown-ttl"),
        pytest.param({"early_refresh": 0.8, "early_beta": 2.5}, id="both-ways-early"),
        pytest.param({"throttle": 0, "stale_if_error": 60}, id="no-throttle"),
        pytest.param({"lease_wait": 0}, id="waits-for-nobody"),
        pytest.param({"memory_ttl": 5, "ttl": 1}, id="memory-longer-than-all"),
        pytest.param({"background_completion": False, "hard_timeout": 1}, id="given-up"),
    ],
)
def test_what_fits_together_is_accepted(options: dict[str, Any]) -> None:
    assert isinstance(made(**options), EntryOptions)


@pytest.mark.parametrize("value", [0, 1, None, "no"], ids=repr)
def test_whether_a_load_goes_on_is_true_or_false(value: Any) -> None:
    assert "background_completion must be True or False" in refusal(background_completion=value)


@given(first=st.floats(0, math.inf), second=st.floats(0, math.inf))
def test_a_value_is_kept_for_the_longer_of_its_windows(first: float, second: float) -> None:
    options = EntryOptions(stale_while_revalidate=first, stale_if_error=second)
    assert options.stale_for == max(first, second)
