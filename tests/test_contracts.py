"""The contracts find what is broken in a layer, say what was promised, and run in any test runner."""

import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache.testing import (
    LayerContract,
    ManualClock,
    NewsroomContract,
    SearchableLayerContract,
    SharedLayerContract,
    SharedMemory,
)
from aurelis.cache.typing import Clock, Layer, SharedLayer
from tests import broken_layers as broken
from tests.conftest import ROOT
from tests.managers import run_script
from tests.shared_layers import SilentLayer, Truth

Kind = type[broken.Plain] | type[SilentLayer] | type[broken.Loud]


class PlainContract(LayerContract):
    """Of a layer that is not shared."""

    def __init__(self, kind: type[broken.Plain]) -> None:
        self.kind = kind
        self.layer = kind(ManualClock())

    async def make_layer(self, clock: Clock) -> broken.Plain:
        self.layer = self.kind(clock)
        return self.layer

    async def make_neighbour(self, clock: Clock) -> broken.Plain:
        return broken.Plain(clock, self.layer.kept, "neighbour")


class SilentContract(SharedLayerContract):
    """Of one that is."""

    def __init__(self, kind: type[SilentLayer]) -> None:
        self.kind = kind

    async def make_layers(self, count: int, clock: Clock) -> Sequence[SharedLayer]:
        truth = Truth(clock)
        return [self.kind(truth) for _ in range(count)]


class LoudContract(NewsroomContract, SearchableLayerContract):
    """Of one that has all there is."""

    def __init__(self, kind: type[broken.Loud]) -> None:
        self.kind = kind
        self.shared = SharedMemory()

    async def make_layers(self, count: int, clock: Clock) -> Sequence[Layer]:
        self.shared = SharedMemory(clock)
        return [self.kind(self.shared.node()) for _ in range(count)]

    async def make_neighbour(self, clock: Clock) -> Layer:
        return broken.Loud((SharedMemory(clock) if self.kind.has_neighbours_apart else self.shared).node())


def contract(kind: Kind) -> LayerContract:
    """Returns the contract for a kind of layers."""
    if issubclass(kind, broken.Plain):
        return PlainContract(kind)
    return SilentContract(kind) if issubclass(kind, SilentLayer) else LoudContract(kind)


def names(tests: type) -> list[str]:
    """Returns the names of the tests in a class."""
    return [name for name in dir(tests) if name.startswith("test_")]


def failure(tests: LayerContract, name: str) -> Exception:
    """Returns with what a test fails."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whatever a layer raises
        getattr(tests, name)()
    return raised.value


# --- right ones and broken ones


@pytest.mark.parametrize("name", names(PlainContract))
def test_a_right_layer_passes(name: str) -> None:
    getattr(PlainContract(broken.Plain), name)()


@pytest.mark.parametrize("name", names(LoudContract))
def test_a_right_layer_with_all_that_there_is_passes(name: str) -> None:
    getattr(LoudContract(broken.Loud), name)()


BROKEN: list[tuple[Kind, str, str]] = [
    (broken.ForgetsExpiry, "an_expired_entry_is_not_found", "still found after its life of 10.0 s"),
    (broken.ForgetsExpiry, "a_life_too_short_to_measure_still_replaces_what_was_there", "still found"),
    (broken.ExpiresWhenStale, "a_stale_entry_is_found_until_it_expires", "gave nothing"),
    (broken.ExpiresWhenStale, "an_expired_entry_is_not_found", "shortly before it expires, gave nothing"),
    (broken.LivesAnewWhenFound, "an_entry_comes_back_with_the_rest_of_its_life", "expires came back as"),
    (broken.LivesAnewWhenFound, "an_expired_entry_is_not_found", "still found"),
    (broken.LosesTimeToBeStale, "an_entry_comes_back_with_the_rest_of_its_life", "expires came back as"),
    (broken.LosesTimeToBeStale, "a_stale_entry_is_found_until_it_expires", "gave nothing"),
    (broken.IsFreshUntilItExpires, "an_entry_comes_back_with_the_rest_of_its_life", "fresh_until came back as"),
    (broken.IsFreshUntilItExpires, "a_stale_entry_is_found_until_it_expires", "comes back fresh"),
    (broken.IsFreshUntilItExpires, "what_may_be_stale_for_ages_is_fresh_for_its_own_time", "where 60 was stored"),
    (broken.LivesForAnHourAtMost, "what_never_expires_comes_back_so", "gave nothing"),
    (
        broken.LeavesTheOldForWhatIsShort,
        "a_life_too_short_to_measure_still_replaces_what_was_there",
        "after its life of 0.0001 s",
    ),
    (broken.LosesTags, "an_entry_comes_back_with_all_that_is_known_of_it", r"gave Details\(tags=\(\)"),
    (broken.LosesGenerations, "an_entry_comes_back_with_all_that_is_known_of_it", "gave generation 0, not 1"),
    (broken.KeepsDetailsOfTheOld, "storing_again_replaces_everything", "left of the old entry"),
    (broken.SharesValues, "readers_share_nothing_that_can_be_changed", r"gave {'rows': \[1, 2\]}"),
    (broken.LosesThePackedForm, "values_come_back_as_they_were", "without its packed form"),
    (broken.HasNoSizes, "an_entry_says_how_large_it_is", "of size 0"),
    (broken.KeepsJson, "values_come_back_as_they_were", r"gave \[1, \['two', None\]\]"),
    (broken.StoresAHundredAtOnce, "many_are_stored_and_found_together", "found 100 of 300"),
    (broken.TruncatesKeys, "odd_keys_are_kept_apart", "'kkkkkkkkkkkkkkkkkkkk' gave"),
    (broken.FoldsKeys, "odd_keys_are_kept_apart", "'a' gave"),
    (broken.NormalisesKeys, "odd_keys_are_kept_apart", "'é' gave"),
    (broken.RefusesKeys, "odd_keys_are_kept_apart", "surrogates not allowed"),
    (broken.SaysThatAllWasThere, "nothing_is_found_where_nothing_was_stored", "remove gave True"),
    (broken.SaysThatAllWasThere, "removing_says_whether_it_was_there", "remove gave True"),
    (broken.RemovesNothing, "removing_says_whether_it_was_there", "lookup gave Entry"),
    (broken.RemovesNotAll, "removing_all_leaves_nothing", "441 of 941 are still found"),
    (broken.RemovesItsNeighbours, "neighbours_are_left_alone", "by the neighbour gave nothing"),
    (broken.ReadsItsNeighbours, "neighbours_are_left_alone", "gave Entry"),
    (broken.MixesUpAnswers, "calls_at_once_do_not_disturb_each_other", "lookup_many gave"),
    (broken.GoesOnWhenCancelled, "a_cancelled_call_ends_and_leaves_the_layer_usable", "went on, and gave an answer"),
    (broken.RaisesWhenCancelled, "a_cancelled_call_ends_and_leaves_the_layer_usable", "raised ConnectionError"),
    (
        broken.HangsAfterACancellation,
        "a_cancelled_call_ends_and_leaves_the_layer_usable",
        "After 0.5 s: A call has not",
    ),
    (broken.ClosesOnce, "it_can_be_closed_twice", "closed already"),
    (broken.HasNoName, "it_is_a_layer", "Its name is empty"),
    (broken.IgnoresTheFence, "what_was_loaded_before_a_change_is_not_stored_after_it", "replaced what was there after"),
    (broken.IgnoresTheFence, "a_lease_ends_after_its_life", "stored something by a lease that had ended"),
    (broken.IgnoresTheFence, "cancelled_calls_leave_a_shared_layer_usable", "stored something without a lease"),
    (broken.SaysThatItWasStored, "what_was_loaded_before_a_change_is_not_stored_after_it", "did not give False after"),
    (broken.StoresForWhoHasTheLeaseOnly, "what_was_loaded_is_stored_while_the_lease_is_there", "publish by another"),
    (broken.KeepsTheLeaseOfWhatIsPublished, "what_was_loaded_is_stored_while_the_lease_is_there", "did not end the"),
    (broken.AssignLeavesTheLease, "what_was_loaded_before_a_change_is_not_stored_after_it", "False after assign"),
    (broken.TakeLeavesTheLease, "what_was_loaded_before_a_change_is_not_stored_after_it", "False after take"),
    (broken.HasAStoreOfItsOwn, "it_is_a_shared_layer", "lookup in another process gave nothing"),
    (broken.GivesTheSameLeaseAgain, "each_load_has_another_lease", "the lease of another one"),
    (broken.FoldsKeysOfLeases, "leases_of_different_keys_are_different_leases", "that of another key, too"),
    (broken.LetsAllLoad, "one_of_all_who_ask_at_once_loads", "4 of 4 processes were told to load"),
    (broken.LeasesLastForEver, "a_lease_ends_after_its_life", "Another process may not load"),
    (broken.KeepsTheLeaseOfALoadGivenUp, "a_process_takes_over_what_it_has_given_up", "acquire gave"),
    (broken.LoadsWhatIsStored, "nobody_needs_to_load_what_is_stored", "acquire gave nothing"),
    (broken.RenewsNothing, "renewing_lets_a_lease_last", "A renewed lease has ended"),
    (broken.RenewsAnything, "renewing_lets_a_lease_last", "did not give False for another lease"),
    (broken.ReleasesAnything, "releasing_ends_the_lease_and_no_other", "release ended another lease"),
    (broken.ReleasesNothing, "releasing_ends_the_lease_and_no_other", "acquire gave"),
    (broken.TellsAPastNumber, "numbers_only_grow", "where 101 was the last number"),
    (broken.TellsAPastNumber, "a_tag_without_a_record_begins_now", "below the tag's"),
    (broken.NumbersGoBack, "numbers_only_grow", "announce has the number 99, after 100"),
    (broken.AnnouncesWithoutANumber, "numbers_only_grow", "announce has the number 100, after 100"),
    (broken.TakesWithoutANumber, "numbers_only_grow", "take has the number"),
    (broken.TakesWithoutANumber, "what_is_taken_is_gone_and_returned", "no number of its own"),
    (broken.LoadsTakeNumbers, "loads_take_no_number", "without a change"),
    (broken.NumbersTwice, "changes_at_once_have_different_numbers", r"60 changes had \d+ different numbers"),
    (broken.ForgetsWhatTheAskerKnows, "a_number_may_be_pushed_up", "where the asker knew"),
    (broken.AssignsUnderTheOldNumber, "what_is_assigned_replaces_what_was_there_with_its_number", "an entry with 0"),
    (broken.UnknownTagsBeginAtZero, "a_tag_without_a_record_begins_now", "began with 0"),
    (broken.UnknownTagsBeginAnew, "a_tag_without_a_record_begins_now", "that nobody invalidated"),
    (broken.InvalidatesOneTag, "a_hard_invalidation_reaches_all_processes", "after the hard invalidation"),
    (broken.ChangesKeysAlone, "a_change_of_a_key_outdates_what_lies_below", r"own tag has \(\d+, 0\) after take"),
    (broken.FoldsTags, "odd_tags_are_kept_apart", "taken for another tag"),
    (broken.SoftIsHard, "a_soft_invalidation_is_told_from_a_hard_one", r"a tag has \(102, 0\)"),
    (broken.SoftStaysSoft, "a_soft_invalidation_of_an_unknown_tag_is_a_hard_one", r"has \(1, 102\)"),
    (broken.HardForgetsSoft, "a_hard_invalidation_reaches_all_processes", "changed the last soft one"),
    (broken.TakesWhatIsExpired, "an_expired_entry_cannot_be_taken", "take gave an entry after its life"),
    (broken.TakesAndLeavesIt, "what_is_taken_is_gone_and_returned", "where nothing is"),
    (broken.ClosesForAll, "closing_one_disturbs_no_other", "The lease ended"),
    (broken.TakesInSilence, "all_hear_of_what_is_taken", r"After 0.5 s: There is no message of \('there',\)"),
    (broken.TakesInSilence, "no_number_is_without_a_message", r"no message with the number \d+ of a change, of 10"),
    (broken.TellsBeforeItIsDone, "word_comes_after_the_change", "was told, and there is None"),
    (broken.TellsWithoutNames, "all_hear_of_each_change", "The message of assign is"),
    (broken.TellsWithoutNames, "names_come_as_they_are", "other names"),
    (broken.TellsAllAsHard, "all_hear_of_each_change", "The message of a soft invalidate is"),
    (broken.HearsNotItself, "a_sign_of_life_repeats_the_last_number", "no message of a sign of life"),
    (broken.HearsNotItself, "all_hear_of_each_change", r"no message with the number \d+ of assign"),
    (broken.BeginsInSilence, "one_that_stops_listening_disturbs_nobody_and_may_begin_again", "has not said that a sub"),
    (broken.HasOneNameForAll, "it_is_a_newsroom", "Two processes have the same name"),
    (broken.BeatsWithANumber, "a_sign_of_life_repeats_the_last_number", r"A sign of life has \d+, after \d+"),
    (broken.BeatsWithThePast, "a_sign_of_life_repeats_the_last_number", r"A sign of life has \d+, after \d+"),
    (broken.HearsItsNeighbours, "neighbours_are_not_heard", "by what a neighbour changed"),
    (
        broken.CannotBeUsedInAThread,
        "it_can_be_listened_to_in_a_thread_of_its_own_if_it_says_so",
        "In another thread, news did not give all that was told",
    ),
    (broken.IsBusyUntilAllKeysWereSeen, "looking_can_be_given_up", "another search is under way"),
    (broken.FindsTheFirstKeysOnly, "however_many_keys_there_are_all_are_found", "keys gave 500 of 1200"),
    (broken.FindsNoKeysWithParams, "keys_are_found_by_what_they_begin_with", "did not give 5 of 106"),
    (broken.CountsWhatItWasGiven, "discarding_says_how_many_there_were", "where 1 of the keys were there"),
    (broken.DiscardLeavesTheLeases, "what_was_loaded_before_it_was_discarded_is_not_stored", "did not give False"),
]


@pytest.mark.parametrize(
    ("kind", "name", "words"), [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}") for each in BROKEN]
)
def test_a_broken_layer_is_told_what_it_promised_and_what_it_did(kind: Kind, name: str, words: str) -> None:
    tests = contract(kind)
    if any(what in words for what in ("no message", "not said", "After 0.5 s", "In another thread")):
        tests.patience = 0.5  # it waits in vain
    error = failure(tests, f"test_{name}")
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    promised = inspect.cleandoc(getattr(type(tests), f"test_{name}").__doc__)
    assert f"A layer promises: {promised}" in text
    assert re.search(words, text), text


def test_each_broken_layer_is_found() -> None:
    kinds = {
        kind
        for kind in vars(broken).values()
        if inspect.isclass(kind) and kind.__module__ == broken.__name__ and kind not in (broken.Plain, broken.Loud)
    }
    assert kinds == {kind for kind, _, _ in BROKEN}


def test_each_test_of_a_contract_finds_something() -> None:
    """A test that no broken layer fails is one that may be unable to fail."""
    found = {f"test_{name}" for _, name, _ in BROKEN}
    missing = {*names(SilentContract), *names(LoudContract)} - found
    assert missing == set()


# --- how they run


def test_a_failure_shows_the_test_and_the_layer_and_nothing_between() -> None:
    error = failure(PlainContract(broken.RefusesKeys), "test_odd_keys_are_kept_apart")
    files = [Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)]
    assert files.index("_layer_contract.py") < files.index("broken_layers.py")
    assert "runners.py" not in files


def test_a_layer_that_lacks_something_is_told_what() -> None:
    class Half(SharedLayerContract):
        async def make_layers(self, count: int, clock: Clock) -> Sequence[Layer]:
            return [broken.Plain(clock) for _ in range(count)]

    words = "Plain lacks acquire, announce, assign, generations, invalidate, publish, release, renew, take"
    assert words in str(failure(Half(), "test_it_is_a_shared_layer"))
    assert words in str(failure(Half(), "test_numbers_only_grow"))


@pytest.mark.parametrize("tests", [LayerContract, SearchableLayerContract, SharedLayerContract, NewsroomContract])
def test_without_a_layer_it_says_what_to_override(tests: type[LayerContract]) -> None:
    with pytest.raises(NotImplementedError, match="Contract must have a make_layer"):
        getattr(tests(), "test_it_is_a_layer")()  # noqa: B009  # mypy takes it for a method that needs an argument


def test_real_time_passes_by_itself_and_the_layer_may_be_late() -> None:
    class Real(PlainContract):
        real_time = True
        patience = 0.5

    getattr(Real(broken.Plain), "test_an_expired_entry_is_not_found")()  # noqa: B009
    error = failure(Real(broken.ForgetsExpiry), "test_an_expired_entry_is_not_found")
    assert "After 0.5 s: It is still found after its life of 0.1 s." in str(error)


def test_each_test_closes_its_layers_and_runs_in_a_loop_of_ones_choice() -> None:
    closed: list[Layer] = []
    ran: list[str] = []

    class Closing(broken.SharesValues):
        async def aclose(self) -> None:
            closed.append(self)

    class Tests(PlainContract):
        def run_in_loop(self, test: Coroutine[Any, Any, None]) -> None:
            ran.append(type(test).__name__)
            with asyncio.Runner(debug=True) as runner:
                runner.run(test)

    tests = Tests(Closing)
    assert "rows" in str(failure(tests, "test_readers_share_nothing_that_can_be_changed"))
    assert ran == ["coroutine"]
    assert closed == [tests.layer]


TESTS = """
    import unittest
    from aurelis.cache import MemoryBackend
    from aurelis.cache.testing import LayerContract, SharedLayerContract

    class TestMemory(LayerContract):
        async def make_layer(self, clock):
            return MemoryBackend(clock=clock)

    class Half(MemoryBackend):
        async def remove(self, key):
            await super().remove(key)
            return True

    class TestHalf(LayerContract{base}):
        async def make_layer(self, clock):
            return Half(clock=clock)
"""


def run(folder: Path, base: str, *command: str) -> str:
    """Runs tests in a folder of their own, some of which fail, and returns what was printed."""
    (folder / "test_layers.py").write_text(textwrap.dedent(TESTS.format(base=base)))
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    environ = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    completed = subprocess.run(
        [sys.executable, "-m", *command], check=False, cwd=folder, capture_output=True, text=True, env=environ
    )
    assert completed.returncode == 1, completed.stdout + completed.stderr
    return completed.stdout + completed.stderr


def test_pytest_runs_them_without_a_plugin_for_asyncio(tmp_path: Path) -> None:
    printed = run(tmp_path, "", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider", "-p", "no:randomly")
    number = len(names(LayerContract))
    assert f"4 failed, {2 * number - 4} passed" in printed
    assert "A layer promises: `remove` forgets one key, and is true only if it was there." in printed
    assert "remove gave True where nothing is." in printed
    assert "_promises.py" not in printed
    assert "asyncio/runners.py" not in printed


def test_unittest_runs_them(tmp_path: Path) -> None:
    printed = run(tmp_path, ", unittest.TestCase", "unittest")
    assert f"Ran {len(names(LayerContract))} tests" in printed
    assert "FAILED (failures=4)" in printed
    assert "remove gave True where nothing is." in printed


def test_they_need_no_test_runner() -> None:
    script = """
        import sys
        import aurelis.cache.testing
        print(sorted({"pytest", "unittest", "_pytest", "redis"} & sys.modules.keys()))
    """
    assert run_script(script) == "[]\n"
