"""The breaker as a pure state machine: when it opens, who probes, what closes it."""

from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._breaker import CLOSED, Breaker, admit, failed, released, succeeded

NOW = 1000.0
PAUSE = 10.0
THRESHOLD = 3
OPEN = Breaker("open", until=NOW + PAUSE)
HALF_OPEN = Breaker("half_open", until=NOW + PAUSE)

fail = partial(failed, threshold=THRESHOLD, pause=PAUSE)


def test_a_closed_breaker_admits_everybody() -> None:
    assert admit(CLOSED, NOW, pause=PAUSE) == (CLOSED, True)
    assert admit(Breaker("closed", 2), NOW, pause=PAUSE) == (Breaker("closed", 2), True)


def test_failures_in_a_row_open_it() -> None:
    state = CLOSED
    for expected in (Breaker("closed", 1), Breaker("closed", 2), OPEN):
        state = fail(state, NOW, probe=False)
        assert state == expected


def test_a_success_begins_the_count_anew() -> None:
    assert succeeded(Breaker("closed", THRESHOLD - 1), probe=False) is CLOSED


def test_an_open_breaker_admits_nobody_until_its_pause_is_over() -> None:
    assert admit(OPEN, NOW + PAUSE - 0.001, pause=PAUSE) == (OPEN, False)
    assert admit(OPEN, NOW + PAUSE, pause=PAUSE) == (Breaker("half_open", until=NOW + 2 * PAUSE), True)


def test_while_one_probes_the_others_go_on_without_the_layer() -> None:
    assert admit(HALF_OPEN, NOW, pause=PAUSE) == (HALF_OPEN, False)


def test_a_probe_that_got_lost_is_replaced() -> None:
    """Its event loop was closed, or the process was forked: its end will never be reported."""
    assert admit(HALF_OPEN, NOW + PAUSE, pause=PAUSE) == (Breaker("half_open", until=NOW + 2 * PAUSE), True)


@pytest.mark.parametrize("state", [HALF_OPEN, OPEN, Breaker("closed", 2), CLOSED])
def test_a_probe_that_works_closes_it(state: Breaker) -> None:
    assert succeeded(state, probe=True) is CLOSED


@pytest.mark.parametrize("state", [HALF_OPEN, OPEN])
def test_a_probe_that_fails_opens_it_again(state: Breaker) -> None:
    assert fail(state, NOW + 1, probe=True) == Breaker("open", until=NOW + 1 + PAUSE)


@pytest.mark.parametrize("state", [HALF_OPEN, OPEN])
def test_calls_begun_before_it_opened_change_nothing_when_they_end(state: Breaker) -> None:
    assert succeeded(state, probe=False) is state
    assert fail(state, NOW + 1, probe=False) is state
    assert released(state, NOW + 1, probe=False) is state


def test_a_cancelled_probe_lets_the_next_caller_probe() -> None:
    state = released(HALF_OPEN, NOW + 1, probe=True)
    assert admit(state, NOW + 1, pause=PAUSE)[1]


def test_a_cancelled_call_says_nothing_of_the_layer() -> None:
    state = Breaker("closed", 2)
    assert released(state, NOW, probe=False) is state


@dataclass
class Calls:
    """Plays a breaker by the rules, with any number of calls under way."""

    state: Breaker = CLOSED
    now: float = NOW
    under_way: list[bool] = field(default_factory=list)
    """For each call whether it is a probe."""

    def begin(self) -> bool:
        probe = self.state.kind != "closed"
        self.state, admitted = admit(self.state, self.now, pause=PAUSE)
        if admitted:
            self.under_way.append(probe)
        return admitted


EVENTS = st.lists(
    st.one_of(
        st.just(("begin", 0.0)),
        st.tuples(st.sampled_from(["work", "fail", "cancel"]), st.floats(0, 1)),
        st.tuples(st.just("pass"), st.floats(0, PAUSE / 4)),
    ),
    max_size=80,
)


@given(EVENTS)
def test_whatever_happens_its_states_keep_their_promises(events: list[tuple[str, float]]) -> None:
    calls = Calls()
    for event, number in events:
        before = calls.state
        if event == "begin":
            admitted = calls.begin()
            assert admitted == (before.kind == "closed" or calls.now >= before.until)
        elif event == "pass":
            calls.now += number
        elif calls.under_way:
            probe = calls.under_way.pop(int(number * (len(calls.under_way) - 1)))
            match event:
                case "work":
                    calls.state = succeeded(before, probe=probe)
                    assert calls.state is CLOSED or not probe
                case "fail":
                    calls.state = fail(before, calls.now, probe=probe)
                case _:
                    calls.state = released(before, calls.now, probe=probe)
        assert calls.state.failures < THRESHOLD
        if calls.state.kind == "closed":
            continue
        # It never stays away for longer than one pause, so it heals by itself whatever was lost.
        assert calls.state.until <= calls.now + PAUSE
        assert before.kind != "closed" or event == "fail"
