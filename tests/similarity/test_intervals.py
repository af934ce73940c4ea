"""The Wilson interval of a measured rate."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.similarity import wilson

COUNTS = st.integers(0, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@pytest.mark.parametrize(
    ("events", "trials", "low", "high"),
    # The first two are in E. B. Wilson's formula worked by hand, the others in common tables of it.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (0, 0, 0.0, 1.0)],
)
def test_it_is_what_tables_say(events: int, trials: int, low: float, high: float) -> None:
    interval = wilson(events, trials)
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


@given(COUNTS)
def test_it_holds_the_rate_and_stays_between_0_and_1(counts: tuple[int, int]) -> None:
    events, trials = counts
    interval = wilson(events, trials)
    assert 0 <= interval.low <= interval.high <= 1
    if trials:
        assert interval.low <= events / trials <= interval.high


@given(COUNTS)
def test_the_other_way_round_it_is_mirrored(counts: tuple[int, int]) -> None:
    events, trials = counts
    interval, mirrored = wilson(events, trials), wilson(trials - events, trials)
    assert interval.low == pytest.approx(1 - mirrored.high)


@given(COUNTS)
def test_more_trials_and_less_confidence_make_it_narrower(counts: tuple[int, int]) -> None:
    events, trials = counts
    interval, more, less = wilson(events, trials), wilson(4 * events, 4 * trials), wilson(events, trials, 0.5)
    assert more.high - more.low <= interval.high - interval.low
    assert less.high - less.low <= interval.high - interval.low


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.05, 0.3])
def test_the_true_rate_is_not_above_it_more_often_than_it_says(rate: float) -> None:
    """The upper end is what somebody relies on who wants few false hits."""
    draw = random.Random(7)
    above = sum(wilson(sum(draw.random() < rate for _ in range(200)), 200).high < rate for _ in range(1000))
    assert above < 40  # 25 are meant


@pytest.mark.parametrize(("events", "trials", "confidence"), [(2, 1, 0.9), (-1, 1, 0.9), (0, 1, 1.0), (0, 1, 0.0)])
def test_what_makes_no_sense_is_refused(events: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"events|confidence"):
        wilson(events, trials, confidence)
