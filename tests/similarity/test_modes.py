"""Shadow and verified: what would be served is measured first, and served only as far as errors stay rare."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from aurelis.cache import CacheConfig, ModelResponseCache, SimilarityCache, SimilarityReport
from aurelis.cache.similarity import Interval, wilson
from aurelis.cache.similarity._index import name_of
from aurelis.cache.similarity._verdicts import _MAX_PENDING, _MAX_TASKS, PATIENCE
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, count, eventually, opened
from tests.similarity.test_cache import ASKED, PARIS, REASKED, ROME, Answer, results, verdicts


@dataclass
class Near:
    """An embedder that hears the similarity to the first prompt from the prompt itself: `... at 0.93`."""

    name: str = "near"

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        cosines = [float(text.rpartition("at ")[2]) if "at " in text else 1.0 for text in texts]
        return [[cosine, math.sqrt(1 - cosine * cosine)] for cosine in cosines]


def kept(**options: Any) -> CacheConfig:
    """A configuration that can store answers."""
    return configuration(types=[Answer], **options)


def returning(answer: Answer) -> Callable[[], Any]:
    """A model that gives this answer."""

    async def ask() -> Answer:
        return answer

    return ask


# --- shadow


@pytest.mark.parametrize("way", ["compute", "store"])
async def test_in_the_shadow_nothing_is_served_and_false_hits_are_counted(way: str) -> None:
    async with opened(kept()) as manager, SimilarityCache(manager, mode="shadow") as similar:
        answers = ModelResponseCache(manager)
        assert similar.report() == SimilarityReport(0, 0, 0, Interval(0, 1))
        for number, (known, own) in enumerate([(PARIS, PARIS), (PARIS, ROME), (PARIS, PARIS)]):
            parameters = {"n": number}
            await answers.cache_response("m", ASKED, parameters, known)
            if way == "compute":
                assert await similar.get_or_compute("m", REASKED, parameters, returning(own)) == own
            else:
                assert await similar.find_similar_response(REASKED, "m", parameters) is None
                await answers.cache_response("m", REASKED, parameters, own)
            assert await similar.find_similar_response(REASKED, "m", parameters) == own  # the exact one
        await similar.settle()
        assert results(manager) == {"shadow": 3}
        assert similar.report() == SimilarityReport(2, 1, 0, wilson(1, 3))
        counted = {names.VERDICT: "false_hit", names.SIMILARITY_MODE: "shadow"}
        assert count(manager, names.SIMILARITY_VERDICTS, counted) == 1


async def test_a_judge_of_ones_own_says_what_would_have_done() -> None:
    heard: list[tuple[Answer, Answer]] = []

    async def judge(known: Answer, own: Answer) -> bool:
        heard.append((known, own))
        await asyncio.sleep(0)
        return known.text[0] == own.text[0]

    async with opened(kept()) as manager, SimilarityCache(manager, mode="shadow", judge=judge) as similar:
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        own = Answer("success", "Paris, of course")
        assert await similar.get_or_compute("m", REASKED, {}, returning(own)) == own
        await similar.settle()
        assert heard == [(PARIS, own)]
        assert verdicts(manager) == {"correct": 1}


async def test_what_an_app_does_to_its_answer_is_not_judged() -> None:
    @dataclass
    class Draft:
        status: str
        text: str

    async def ask() -> Draft:
        return Draft("success", "Paris")

    config = configuration(types=[Draft])
    async with opened(config) as manager, SimilarityCache(manager, mode="shadow") as similar:
        await similar.get_or_compute("m", ASKED, {}, ask)
        own = await similar.get_or_compute("m", REASKED, {}, ask)
        own.text = "changed"
        await similar.settle()
        assert verdicts(manager) == {"correct": 1}


async def test_nobody_waits_for_the_judge() -> None:
    go_on = asyncio.Event()

    async def judge(known: Answer, own: Answer) -> bool:
        await go_on.wait()
        return True

    async with opened(kept()) as manager, SimilarityCache(manager, mode="shadow", judge=judge) as similar:
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        async with asyncio.timeout(10):
            await similar.get_or_compute("m", REASKED, {}, returning(PARIS))
        assert verdicts(manager) == {}
        go_on.set()
        await similar.settle()
        assert verdicts(manager) == {"correct": 1}


async def test_a_judge_that_is_run_at_once_may_ask_the_cache_itself() -> None:
    """As it is in a loop with eager tasks, where it is run before the task is there."""

    def eagerly(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        verdicts = similar._verdicts
        if work.__name__ == "_compare":
            assert verdicts._lock.acquire(timeout=1.0)
            verdicts._lock.release()
            begun.append(work)
        return asyncio.Task(work, loop=loop, **options)

    begun: list[Any] = []
    async with opened(kept()) as manager, SimilarityCache(manager, mode="shadow") as similar:
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        loop = asyncio.get_running_loop()
        loop.set_task_factory(eagerly)
        await similar.get_or_compute("m", REASKED, {}, returning(PARIS))
        loop.set_task_factory(None)
        await similar.settle()
        assert len(begun) == 1
        assert verdicts(manager) == {"correct": 1}


@pytest.mark.parametrize("fault", ["raises", "hangs", "is cancelled"])
async def test_a_judge_that_fails_has_said_nothing(fault: str) -> None:
    async def judge(known: Answer, own: Answer) -> bool:
        if fault == "hangs":
            await asyncio.Event().wait()
        raise asyncio.CancelledError if fault == "is cancelled" else KeyError("secret")

    async with (
        opened(kept()) as manager,
        SimilarityCache(manager, mode="shadow", judge=judge, timeout=0.01) as similar,
    ):
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        await similar.get_or_compute("m", REASKED, {}, returning(PARIS))
        await similar.settle()
        assert verdicts(manager) == {"unverified": 1}
        kind = {"raises": "KeyError", "hangs": "TimeoutError", "is cancelled": "CancelledError"}[fault]
        failed = {names.LAYER: names.SIMILARITY, names.OPERATION: "judge", names.ERROR_TYPE: kind}
        assert count(manager, names.ERRORS, failed) == 1


async def test_what_is_gone_meanwhile_or_comes_too_late_is_unverified() -> None:
    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager, SimilarityCache(manager, mode="shadow") as similar:
        answers = ModelResponseCache(manager)
        for number, change in enumerate(["delete", "late"]):
            parameters = {"n": number}
            await answers.cache_response("m", ASKED, parameters, PARIS, ttl=math.inf)
            assert await similar.find_similar_response(REASKED, "m", parameters) is None
            if change == "delete":
                await answers.invalidate_model_cache("m")
            else:
                clock.advance(PATIENCE + 1)
            await answers.cache_response("m", REASKED, parameters, PARIS)
        await similar.settle()
        assert verdicts(manager) == {"unverified": 2}


async def test_what_never_comes_is_forgotten() -> None:
    async with opened(kept()) as manager, SimilarityCache(manager, mode="shadow") as similar:
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        for number in range(_MAX_PENDING + 5):
            await similar.find_similar_response(ASKED + " " * (number + 1), "m")
        assert len(similar._verdicts._pending) == _MAX_PENDING
        assert verdicts(manager) == {"unverified": 5}


async def test_so_many_comparisons_at_once() -> None:
    go_on = asyncio.Event()

    async def judge(known: Answer, own: Answer) -> bool:
        await go_on.wait()
        return True

    async with opened(kept()) as manager, SimilarityCache(manager, mode="shadow", judge=judge) as similar:
        answers = ModelResponseCache(manager)
        for number in range(_MAX_TASKS + 3):
            await answers.cache_response("m", ASKED, {"n": number}, PARIS)
            await similar.get_or_compute("m", REASKED, {"n": number}, returning(PARIS))
        assert verdicts(manager) == {"unverified": 3}
        go_on.set()
        await similar.settle()
        assert verdicts(manager) == {"unverified": 3, "correct": _MAX_TASKS}


async def test_closing_gives_up_what_is_compared() -> None:
    async def judge(known: Answer, own: Answer) -> bool:
        await asyncio.Event().wait()
        return True

    async with opened(kept()) as manager:
        similar = SimilarityCache(manager, mode="shadow", judge=judge, timeout=math.inf)
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        await similar.get_or_compute("m", REASKED, {}, returning(PARIS))
        await similar.aclose(timeout=0.01)
        await similar.aclose()
        assert similar._verdicts._tasks == set()


async def test_a_loop_that_ended_leaves_nothing_behind() -> None:
    async def judge(known: Answer, own: Answer) -> bool:
        await asyncio.Event().wait()
        return True

    async with opened(kept()) as manager:
        similar = SimilarityCache(manager, mode="shadow", judge=judge)
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)

        def elsewhere() -> None:
            asyncio.run(similar.get_or_compute("m", REASKED, {}, returning(PARIS)))

        await asyncio.to_thread(elsewhere)
        await similar.aclose()
        await eventually(lambda: not similar._verdicts._tasks)


# --- verified


async def asked(similar: SimilarityCache, number: int, similarity: float, answer: Answer) -> tuple[Answer, bool]:
    """What a prompt of this similarity to the first one gets, and whether the model was asked for it."""
    calls = 0

    async def ask() -> Answer:
        nonlocal calls
        calls += 1
        return answer

    prompt = f"{_word(number)} {_word(number + 7)} {_word(number + 13)} {_word(number + 17)} {_word(number + 23)}"
    given = await similar.get_or_compute("m", f"{prompt} at {similarity:.4f}", {}, ask)
    await similar.settle()
    return given, bool(calls)


def _word(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in f"{number * 7919 % 100000:05}")


@pytest.mark.parametrize(("right", "error_rate"), [(1.0, 0.05), (0.9, 0.05), (0.5, 0.05)])
async def test_errors_stay_below_the_bound_and_what_is_right_is_served(right: float, error_rate: float) -> None:
    """The whole of it: an entry, and requests similar to it whose true answer is the entry's as often as said."""
    draw = random.Random(5)
    requests, wrong, served, late = 260, 0, 0, 0
    async with opened(kept()) as manager:
        options: dict[str, Any] = {"embedder": Near(), "error_rate": error_rate, "chance": draw.random}
        async with SimilarityCache(manager, 0.8, mode="verified", gate="meaning", **options) as similar:
            await ModelResponseCache(manager).cache_response("m", "Zulu yankee xray whiskey victor", {}, PARIS)
            for number in range(requests):
                # The numbers in the prompts are for the embedder: the gate is not what is tested here.
                similarity = draw.uniform(0.9, 0.99)
                truth = PARIS if draw.random() < right else Answer("success", f"{number}")
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("aurelis.cache.similarity._searching.refusal", lambda one, other, gate: None)
                    given, computed = await asked(similar, number, similarity, truth)
                if not computed:
                    served += 1
                    wrong += given != truth
                    late += number >= requests // 2
            report = similar.report()
            assert report.unverified == 0
            assert wrong <= error_rate * requests
            if right == 1.0:
                assert report.false_hits == 0
                assert served > requests * 0.4
                assert late > requests // 2 * 0.7
                assert results(manager)["hit"] == served


async def test_before_anything_was_seen_nothing_is_served_and_evidence_is_kept() -> None:
    async with opened(kept()) as manager:
        async with SimilarityCache(manager, mode="verified", chance=lambda: 0.999999, error_rate=0.5) as similar:
            answers = ModelResponseCache(manager)
            await answers.cache_response("m", ASKED, {}, PARIS)
            for number in range(6):
                other = "please " * (number + 1) + ASKED
                assert await similar.find_similar_response(other, "m") is None
                await answers.cache_response("m", other, {}, PARIS)
                await similar.settle()
            assert verdicts(manager) == {"correct": 6}
            assert await similar.find_similar_response(REASKED, "m") == PARIS
            assert results(manager) == {"explored": 6, "hit": 1}
            # Those that it answers are not listed beside it, where they would begin to learn anew.
            assert similar._views.rows == 1
        # What was learned is in the cache, not in the object.
        async with SimilarityCache(manager, mode="verified", chance=lambda: 0.999999, error_rate=0.5) as another:
            assert await another.find_similar_response(REASKED, "m") == PARIS


async def test_a_false_hit_gets_a_place_of_its_own() -> None:
    async with opened(kept()) as manager, SimilarityCache(manager, mode="verified") as similar:
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        assert await similar.get_or_compute("m", REASKED, {}, returning(ROME)) == ROME
        await similar.settle()
        assert verdicts(manager) == {"false_hit": 1}
        assert similar._views.rows == 2


async def test_evidence_goes_with_its_answer() -> None:
    async with opened(kept()) as manager, SimilarityCache(manager, mode="verified") as similar:
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", ASKED, {}, PARIS, tags=["t"])
        await similar.get_or_compute("m", REASKED, {}, returning(PARIS))
        await similar.settle()
        partition = similar._asked(ASKED, "m", None, None).partition
        ((similarity, correct),) = await similar._index.evidence(partition, name_of(partition, ASKED))
        assert 0.85 <= similarity <= 1
        assert correct
        await manager.invalidate_tags("t")
        assert await similar._index.evidence(partition, name_of(partition, ASKED)) == ()


async def test_evidence_is_about_the_answer_that_is_there() -> None:
    async with opened(kept()) as manager, SimilarityCache(manager, mode="verified") as similar:
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", ASKED, {}, PARIS)
        await similar.get_or_compute("m", REASKED, {}, returning(PARIS))
        await similar.settle()
        partition = similar._asked(ASKED, "m", None, None).partition
        assert len(await similar._index.evidence(partition, name_of(partition, ASKED))) == 1
        await answers.cache_response("m", ASKED, {}, ROME)
        assert await similar._index.evidence(partition, name_of(partition, ASKED)) == ()
