"""Failures are remembered for a while, for those to whom they say something."""

import pytest

from aurelis.cache._failures import Failures
from aurelis.cache._shared_errors import SharedError

ERROR = OSError("origin")


@pytest.fixture
def states() -> dict[str, int]:
    return {"k": 0}


@pytest.fixture
def failures(states: dict[str, int]) -> Failures:
    failures = Failures(states.get)
    failures.note("k", ERROR, 10.0)
    return failures


def test_a_failure_is_found_until_its_time_is_over(failures: Failures) -> None:
    found = failures.find("k", 9.9)
    assert found is not None
    assert isinstance(found[0], SharedError)
    assert (found[0].error, found[1]) == (ERROR, 10.0)
    assert failures.find("other", 9.9) is None
    assert failures.find("k", 10.0) is None
    assert failures.find("k", 9.9) is None  # it is gone for good


def test_a_change_of_the_key_ends_it(failures: Failures, states: dict[str, int]) -> None:
    states["k"] = 1
    assert failures.find("k", 0.0) is None


def test_a_load_ends_it(failures: Failures) -> None:
    failures.forget("k")
    failures.forget("k")
    assert failures.find("k", 0.0) is None


@pytest.mark.parametrize(("patience", "found"), [(1.0, True), (2.0, True), (2.1, False), (None, False)])
def test_a_timeout_is_for_those_who_wait_no_longer(failures: Failures, patience: float | None, found: bool) -> None:
    failures.note("k", ERROR, 10.0, 2.0)
    assert (failures.find("k", 0.0, patience) is not None) is found
    assert failures.find("k", 0.0, 0.5) is not None


def test_there_is_an_end_to_how_many_are_remembered(failures: Failures) -> None:
    for number in range(5000):
        failures.note(str(number), ERROR, 10.0)
    assert sum(failures.find(str(number), 0.0) is not None for number in range(5000)) <= 1024
