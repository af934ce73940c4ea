"""Generations: what is older than an invalidation of one of its tags is never valid, whatever else is forgotten."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aurelis.cache import _generations
from aurelis.cache._generations import Generations
from aurelis.cache.testing import ManualClock

TRUST = 5.0
TAGS = ("*", "c:user", "i:user:1", "t:a", "t:b", "t:c", "t:d", "t:e")
SMALL = 3
"""Records kept at most, where that matters."""

some_tags = st.lists(st.sampled_from(TAGS), min_size=1, max_size=3, unique=True).map(tuple)
few_tags = st.lists(st.sampled_from(TAGS[:2]), min_size=1, unique=True).map(tuple)


def alone() -> Generations:
    """Returns those of a cache without a shared layer: they are the truth."""
    return Generations(ManualClock(), shared=False, trust=TRUST)


def copy(clock: ManualClock | None = None, *, in_step: bool = False) -> Generations:
    """Returns those of a process among several: a copy."""
    generations = Generations(clock or ManualClock(), shared=True, trust=TRUST)
    generations.in_step = in_step
    return generations


# --- where this process has the truth


def test_what_no_invalidation_has_reached_is_valid() -> None:
    generations = alone()
    assert generations.unknown(TAGS) == []
    assert generations.judge(generations.latest, TAGS) == "valid"
    assert generations.judge(0, ()) == "valid"


@pytest.mark.parametrize(("soft", "verdict"), [(False, "invalid"), (True, "soft")])
def test_what_was_loaded_before_is_out_of_date_and_what_is_loaded_after_is_not(soft: bool, verdict: str) -> None:
    generations = alone()
    before = generations.latest
    generations.invalidate_here(["t:a"], soft=soft)
    assert generations.judge(before, ["t:b", "t:a"]) == verdict
    assert generations.judge(before, ["t:b"]) == "valid"
    assert generations.judge(generations.latest, ["t:b", "t:a"]) == "valid"


def test_of_both_kinds_the_hard_one_wins() -> None:
    generations = alone()
    generations.invalidate_here(["t:a"], soft=True)
    generations.invalidate_here(["t:b"], soft=False)
    assert generations.judge(0, ["t:a", "t:b"]) == "invalid"
    assert generations.judge(0, ["t:b", "t:a"]) == "invalid"
    assert generations.judge(1, ["t:a", "t:b"]) == "invalid"
    assert generations.judge(0, ["t:a"]) == "soft"
    generations.invalidate_here(["t:a"], soft=False)
    generations.invalidate_here(["t:a"], soft=True)
    assert generations.judge(0, ["t:a"]) == "invalid"
    assert generations.judge(3, ["t:a"]) == "soft"


def test_each_invalidation_changes_the_mark() -> None:
    """Entries in memory are looked at again exactly when it has changed."""
    generations = alone()
    marks = [generations.mark]
    for soft in (False, True):
        generations.invalidate_here(["t:a"], soft=soft)
        marks.append(generations.mark)
    assert len(set(marks)) == 3


class Modelled(RuleBasedStateMachine):
    """Loads and invalidations in any order, compared with a list of all that ever happened."""

    small = False

    def __init__(self) -> None:
        super().__init__()
        self.generations = alone()
        self.time = 0
        self.loads: list[tuple[int, int, tuple[str, ...]]] = []
        self.invalidations: list[tuple[int, tuple[str, ...], bool]] = []

    @initialize()
    def first(self) -> None:
        self.loads.append((0, self.generations.latest, TAGS[:1]))

    @rule(tags=some_tags)
    def load(self, tags: tuple[str, ...]) -> None:
        self.time += 1
        self.loads.append((self.time, self.generations.latest, tags))

    @rule(tags=some_tags, soft=st.booleans())
    def invalidate(self, tags: tuple[str, ...], soft: bool) -> None:
        self.time += 1
        self.invalidations.append((self.time, tags, soft))
        mark = self.generations.mark
        self.generations.invalidate_here(tags, soft=soft)
        assert self.generations.mark != mark

    @invariant()
    def every_load_is_judged_as_by_the_list(self) -> None:
        for began, generation, tags in self.loads:
            later = [soft for time, hit, soft in self.invalidations if time > began and set(hit) & set(tags)]
            verdict = self.generations.judge(generation, tags)
            if not all(later):
                assert verdict == "invalid"
            elif later:
                assert verdict == "invalid" if self.small and verdict != "soft" else verdict == "soft"
            elif not self.small:
                assert verdict == "valid"


class ModelledWithFewRecords(Modelled):
    """Records are forgotten all the time: more may be invalid than must be, and never less."""

    small = True


TestModelled = Modelled.TestCase
TestModelled.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_with_few_records_more_is_invalid_than_must_be_and_never_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_generations, "_MAX_KNOWN", SMALL)
    case = ModelledWithFewRecords.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
    case("runTest").runTest()


def test_what_is_loaded_after_a_forgotten_record_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a cache with many tags would keep nothing any more."""
    monkeypatch.setattr(_generations, "_MAX_KNOWN", SMALL)
    generations = alone()
    for number in range(10 * SMALL):
        generations.invalidate_here([f"t:{number}"], soft=bool(number % 2))
        assert generations.judge(generations.latest, [f"t:{number}", "t:other"]) == "valid"
        assert generations.judge(0, [f"t:{number}"]) in ("soft", "invalid")
    assert generations.judge(0, ["t:0"]) == "invalid"
    assert generations.judge(generations.latest - SMALL, ["t:never"]) == "valid"


def test_a_soft_invalidation_of_a_forgotten_tag_does_not_undo_a_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_generations, "_MAX_KNOWN", SMALL)
    generations = alone()
    generations.invalidate_here(["t:a"], soft=False)
    generations.invalidate_here(TAGS[:SMALL], soft=False)
    generations.invalidate_here(["t:a"], soft=True)
    assert generations.judge(0, ["t:a"]) == "invalid"


def test_the_record_that_was_touched_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_generations, "_MAX_KNOWN", SMALL)
    generations = copy(in_step=True)
    for tag in TAGS[:SMALL]:
        generations.learn({tag: (1, 0)})
    generations.learn({TAGS[0]: (1, 0)})
    generations.learn({"t:new": (1, 0)})
    assert generations.unknown([*TAGS[:SMALL], "t:new"]) == [TAGS[1]]


class Lock:
    """A lock that lets somebody else act right after it was released for the first time."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def __enter__(self) -> None:
        """Nobody else is there."""

    def __exit__(self, *_: object) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


def test_two_threads_that_invalidate_at_once_get_different_generations() -> None:
    """
    1. A thread takes the next generation for its tag.
    2. Another one invalidates another tag, and is done.
    3. A load of something with the first tag begins.
    4. The first thread is done.
    """
    generations = alone()
    began = applied = -1

    def meanwhile() -> None:
        nonlocal began, applied
        generations.invalidate_here(["t:b"], soft=False)
        began = generations.latest
        applied = generations.judge(0, ["t:a"]) == "invalid"

    generations._lock = Lock(meanwhile)  # type: ignore[assignment]  # it does as much
    generations.invalidate_here(["t:a"], soft=False)
    assert began > 0
    assert applied or generations.judge(began, ["t:a"]) == "invalid"


# --- where a shared layer has it


def test_a_tag_that_is_not_known_has_to_be_asked_for() -> None:
    generations = copy()
    assert generations.unknown(["t:a", "t:b"]) == ["t:a", "t:b"]
    assert generations.judge(10**18, ["t:a"]) == "unknown"
    generations.learn({"t:a": (5, 0)})
    assert generations.unknown(["t:a", "t:b"]) == ["t:b"]
    assert generations.judge(5, ["t:a"]) == "valid"
    assert generations.judge(4, ["t:a"]) == "invalid"
    assert generations.judge(5, ["t:a", "t:b"]) == "unknown"


@pytest.mark.parametrize("tags", [["t:a", "t:unknown"], ["t:unknown", "t:a"]], ids=["last", "first"])
def test_an_unknown_tag_never_makes_valid_what_another_one_has_made_invalid(tags: list[str]) -> None:
    generations = copy()
    generations.learn({"t:a": (5, 0)})
    assert generations.judge(4, tags) in ("invalid", "unknown")


def test_a_soft_invalidation_of_an_unknown_tag_does_not_make_stale_what_may_be_gone() -> None:
    """Another process may have invalidated it before, and word of that may have come before this one listened."""
    generations = copy(in_step=True)
    generations.invalidated(["t:a"], 7, soft=True)
    assert generations.latest == 7
    assert generations.judge(5, ["t:a"]) in ("invalid", "unknown")
    generations.learn({"t:a": (6, 7)})
    assert generations.judge(5, ["t:a"]) == "invalid"
    assert generations.judge(6, ["t:a"]) == "soft"


def test_a_hard_invalidation_of_an_unknown_tag_is_all_there_is_to_know() -> None:
    generations = copy(in_step=True)
    generations.invalidated(["t:a"], 7, soft=False)
    assert generations.judge(6, ["t:a"]) in ("invalid", "unknown")
    generations.learn({"t:a": (7, 3)})
    assert generations.judge(6, ["t:a"]) == "invalid"
    assert generations.judge(7, ["t:a"]) == "valid"


def test_without_word_from_others_a_copy_is_relied_on_for_a_while_only() -> None:
    clock = ManualClock()
    generations = copy(clock)
    generations.learn({"t:a": (5, 0)})
    clock.advance(TRUST)
    assert generations.unknown(["t:a"]) == []
    clock.advance(0.25)
    assert generations.unknown(["t:a"]) == ["t:a"]
    generations.learn({"t:a": (5, 0)})
    assert generations.unknown(["t:a"]) == []


def test_with_word_from_others_it_is_relied_on_for_as_long_as_that_lasts() -> None:
    clock = ManualClock()
    generations = copy(clock, in_step=True)
    generations.learn({"t:a": (5, 0)})
    clock.advance(1e6)
    assert generations.unknown(["t:a"]) == []
    generations.invalidated(["t:a"], 7, soft=False)
    assert generations.judge(6, ["t:a"]) == "invalid"
    assert generations.latest == 7


def test_once_step_is_lost_nothing_that_was_known_counts() -> None:
    generations = copy(in_step=True)
    generations.learn({"t:a": (5, 0)})
    mark = generations.mark
    generations.lost_step()
    assert not generations.in_step
    assert generations.unknown(["t:a"]) == ["t:a"]
    assert generations.judge(5, ["t:a"]) == "unknown"
    assert generations.mark != mark
    assert generations.must_verify(mark)
    assert not generations.must_verify(generations.mark)
    assert generations.latest == 5


def test_after_a_fork_likewise() -> None:
    generations = copy(in_step=True)
    generations.learn({"t:a": (5, 0)})
    mark = generations.mark
    generations._lock.acquire()  # a thread of the parent has it
    generations.after_fork()
    assert not generations.in_step
    assert generations.must_verify(mark)
    generations.learn({"t:a": (5, 0)})
    assert generations.judge(5, ["t:a"]) == "valid"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.integers(0, 50), st.booleans()), max_size=30))
def test_whatever_comes_in_whatever_order_no_record_goes_back(
    events: list[tuple[bool, int, int, bool]],
) -> None:
    """Messages overtake each other, and answers that were on their way when a message came."""
    generations = copy(in_step=True)
    generations.learn({"t:a": (0, 0)})
    hard = soft = 0
    for learns, first, second, is_soft in events:
        if learns:
            generations.learn({"t:a": (first, second)})
            hard, soft = max(hard, first), max(soft, second)
        else:
            generations.invalidated(["t:a"], first, soft=is_soft)
            hard, soft = (hard, max(soft, first)) if is_soft else (max(hard, first), soft)
        assert generations.latest >= max(hard, soft)
        for generation in range(0, 52, 3):
            expected = "invalid" if hard > generation else "soft" if soft > generation else "valid"
            assert generations.judge(generation, ["t:a"]) == expected


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_what_is_learnt_anew_changes_the_mark_where_it_changes_a_verdict(
    hard: int, soft: int, next_hard: int, next_soft: int
) -> None:
    generations = copy(in_step=True)
    generations.learn({"t:a": (hard, soft)})
    before = [generations.judge(generation, ["t:a"]) for generation in range(61)]
    mark = generations.mark
    generations.learn({"t:a": (next_hard, next_soft)})
    if [generations.judge(generation, ["t:a"]) for generation in range(61)] != before:
        assert generations.mark != mark


def test_a_generation_that_somebody_mentions_is_the_latest_unless_a_later_one_is_known() -> None:
    generations = copy()
    generations.saw(7)
    generations.saw(3)
    assert generations.latest == 7
    generations.learn({"t:a": (9, 2)})
    assert generations.latest == 9
    generations.learn({"t:a": (2, 12)})
    assert generations.latest == 12


class Together(RuleBasedStateMachine):
    """One truth and the copy of a process, which hears of invalidations late, twice, or has to begin anew."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.copy = copy(self.clock, in_step=True)
        self.now = 100
        self.hard: dict[str, int] = {}
        self.soft: dict[str, int] = {}
        self.unheard: list[tuple[tuple[str, ...], int, bool]] = []
        self.loads: list[tuple[int, tuple[str, ...]]] = []

    @rule(tags=few_tags, soft=st.booleans())
    def invalidate_elsewhere(self, tags: tuple[str, ...], soft: bool) -> None:
        self.now += 1
        for tag in tags:
            (self.soft if soft else self.hard)[tag] = self.now
            self.hard.setdefault(tag, self.now)  # without a record it may have been a hard one
        self.unheard.append((tags, self.now, soft))

    @rule(backwards=st.booleans(), twice=st.booleans())
    def hear(self, backwards: bool, twice: bool) -> None:
        for tags, generation, soft in (self.unheard[::-1] if backwards else self.unheard) * (1 + twice):
            self.copy.invalidated(tags, generation, soft=soft)
        self.unheard.clear()

    @precondition(lambda self: len(self.loads) > 2)
    @rule()
    def lose(self) -> None:
        self.unheard.clear()
        self.copy.lost_step()
        self.copy.in_step = True

    @rule(tags=few_tags)
    def load(self, tags: tuple[str, ...]) -> None:
        self.loads.append((self.now, tags))

    @rule(tags=few_tags)
    def ask(self, tags: tuple[str, ...]) -> None:
        unknown = self.copy.unknown(tags)
        self.copy.learn({tag: (self.hard.setdefault(tag, self.now), self.soft.get(tag, 0)) for tag in unknown})

    @invariant()
    def in_step_nothing_out_of_date_is_valid(self) -> None:
        if self.unheard:
            return
        for generation, tags in self.loads:
            verdict = self.copy.judge(generation, tags)
            if any(self.hard.get(tag, 0) > generation for tag in tags):
                assert verdict in ("invalid", "unknown")
            elif any(self.soft.get(tag, 0) > generation for tag in tags):
                assert verdict in ("soft", "unknown")


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)


def test_the_trust_may_be_without_end() -> None:
    generations = Generations(ManualClock(), shared=True, trust=math.inf)
    generations.learn({"t:a": (5, 0)})
    assert generations.unknown(["t:a"]) == []
