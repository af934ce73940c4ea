"""Verified decisions: errors stay below the bound, and what is always right is served in the end."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache.similarity import exploration
from aurelis.cache.similarity._verified import MAX_OBSERVATIONS, MIN_OBSERVATIONS, Observation

Chance = Callable[[float], float]
"""At a similarity, how often an entry's answer is right."""
OBSERVATIONS = st.lists(st.tuples(st.floats(0.8, 1.0), st.booleans()), max_size=40)


def logistic(draw: random.Random) -> Chance:
    """As the model has it."""
    threshold, steepness = draw.uniform(0.8, 1.05), draw.choice([20.0, 60.0, 150.0])
    return lambda similarity: 1 / (1 + math.exp(-steepness * (similarity - threshold)))


def sharp(draw: random.Random) -> Chance:
    """Right from a threshold on, and wrong below; the threshold may be out of reach."""
    threshold = draw.uniform(0.85, 1.02)
    return lambda similarity: float(similarity >= threshold)


def flat(draw: random.Random) -> Chance:
    """As often wrong however similar, as with prompts that a number tells apart."""
    chance = draw.choice([0.5, 0.8, 0.9, 0.95, 0.98])
    return lambda similarity: chance


def always(draw: random.Random) -> Chance:
    """Never wrong."""
    return lambda similarity: 1.0


def simulated(kind: Callable[[random.Random], Chance], error_rate: float) -> tuple[float, float, float]:
    """The parts of requests that were answered wrongly and from the cache, and of the later half the latter."""
    draw = random.Random(11)
    wrong = served = late = 0
    entries, requests = 12, 220
    for _ in range(entries):
        chance, seen = kind(draw), list[Observation]()
        for number in range(requests):
            similarity = draw.uniform(0.85, 1.0)
            right = draw.random() < chance(similarity)
            if draw.random() < exploration(seen[-MAX_OBSERVATIONS:], similarity, error_rate):
                seen.append((similarity, right))
            else:
                served += 1
                wrong += not right
                late += number >= requests // 2
    total = entries * requests
    return wrong / total, served / total, late / (total / 2)


@pytest.mark.parametrize("error_rate", [0.01, 0.05])
@pytest.mark.parametrize("kind", [logistic, sharp, flat, always])
def test_errors_stay_below_the_bound(kind: Callable[[random.Random], Chance], error_rate: float) -> None:
    wrong, _, _ = simulated(kind, error_rate)
    assert wrong <= error_rate


def test_what_is_always_right_is_served_in_the_end() -> None:
    _, served, late = simulated(always, 0.05)
    assert served > 0.5
    assert late > 0.9


def test_what_is_mostly_wrong_is_hardly_ever_served() -> None:
    seen = [(0.95, number % 4 == 0) for number in range(100)]
    assert exploration(seen, 0.95, 0.01) > 0.98


@given(OBSERVATIONS, st.floats(0, 1), st.sampled_from([0.001, 0.01, 0.1]))
@settings(max_examples=50)
def test_it_is_a_probability_and_a_larger_bound_asks_less(
    seen: list[Observation], similarity: float, error_rate: float
) -> None:
    asked = exploration(seen, similarity, error_rate)
    assert 0 <= asked <= 1
    assert exploration(seen, similarity, error_rate / 2) >= asked
    assert exploration(seen[::-1], similarity, error_rate) == asked


@given(OBSERVATIONS, st.floats(0.8, 1), st.floats(0, 0.2))
@settings(max_examples=50)
def test_what_is_more_similar_is_asked_less_often(seen: list[Observation], similarity: float, more: float) -> None:
    assert exploration(seen, min(similarity + more, 1.0), 0.05) <= exploration(seen, similarity, 0.05)


@given(st.integers(0, MIN_OBSERVATIONS - 1))
def test_before_enough_was_seen_the_model_is_always_asked(count: int) -> None:
    assert exploration([(1.0, True)] * count, 1.0, 0.5) == 1.0


def test_the_more_was_right_the_less_is_asked_and_one_mistake_counts() -> None:
    asked = [exploration([(0.95, True)] * count, 0.96, 0.02) for count in (6, 20, 60, 200)]
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] < 0.5 < asked[0]
    assert exploration([*[(0.95, True)] * 60, (0.96, False)], 0.96, 0.02) > asked[2]
