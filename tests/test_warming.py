"""`CacheWarmer`: what will be asked for is loaded before, a few at a time, and what is fresh is left alone."""

import asyncio
import gc
import io
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from aurelis.cache import (
    CacheManager,
    CacheWarmer,
    EntryOptions,
    ModelResponseCache,
    UnifiedCacheManager,
    WarmFailure,
    WarmReport,
    current_load,
)
from aurelis.cache.exceptions import ConfigurationError, MissingExtraError
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, ManualClock, SharedMemory
from aurelis.cache.warming import Warming
from tests.managers import configuration, eventually, opened


@dataclass(frozen=True)
class Answer:
    """An answer of an app."""

    status: str
    text: str = ""


class Model:
    """Answers, and knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.now = self.most = 0

    async def __call__(self, model_type: str, prompt: str) -> Answer:
        self.asked.append((model_type, prompt))
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(3):
            await asyncio.sleep(0)
        self.now -= 1
        return Answer("success", f"{model_type}: {prompt}")


@pytest.fixture
async def manager() -> AsyncIterator[CacheManager]:
    """A cache in memory that can store answers."""
    async with opened(configuration(types=[Answer])) as manager:
        yield manager


async def test_answers_are_found_where_they_are_sought(manager: CacheManager) -> None:
    report = await CacheWarmer(manager, Model()).warm_model_responses(["a", "b"], models=["x", "y"])
    assert report == WarmReport(warmed=4, fresh=0)
    answers = ModelResponseCache(manager)
    assert await answers.get_response("y", "b", {}) == Answer("success", "y: b")
    await answers.invalidate_model_cache("y")
    assert await answers.get_response("y", "b") is None
    assert await answers.get_response("x", "b") == Answer("success", "x: b")


async def test_users_are_found_in_their_category(manager: CacheManager) -> None:
    async def load_user(user_id: str) -> dict[str, str]:
        return {"name": user_id, "status": "error"}  # which is no status of an answer

    assert await CacheWarmer(manager, load_user=load_user).warm_user_data(["1", "2"]) == WarmReport(2, 0)
    assert await UnifiedCacheManager(manager).get("user_data", "2") == {"name": "2", "status": "error"}


@pytest.mark.parametrize(
    ("ttl", "usual", "lives"),
    [
        ({}, {}, {"answer": 3600, "user": 1800}),
        ({"ttl": 60}, {}, {"answer": 60, "user": 60}),
        ({}, {"model_responses": EntryOptions(ttl=90), "user_data": EntryOptions(ttl=80)}, {"answer": 90, "user": 80}),
        ({"ttl": 60}, {"model_responses": EntryOptions(ttl=90)}, {"answer": 60, "user": 60}),
    ],
)
@pytest.mark.parametrize("kind", ["answer", "user"])
async def test_they_live_as_long_as_they_should(
    kind: str, ttl: dict[str, float], usual: dict[str, EntryOptions], lives: dict[str, float]
) -> None:
    clock = ManualClock()
    async with opened(configuration(types=[Answer], categories=usual), clock=clock) as manager:

        async def load_user(user_id: str) -> str:
            return user_id

        warmer = CacheWarmer(manager, Model(), load_user)
        await warmer.warm_model_responses(["a"], ["x"], **ttl)
        await warmer.warm_user_data(["a"], **ttl)

        async def find() -> object:
            if kind == "answer":
                return await ModelResponseCache(manager).get_response("x", "a")
            return await UnifiedCacheManager(manager).get("user_data", "a")

        clock.advance(lives[kind] - 1)
        assert await find() is not None
        clock.advance(2)
        assert await find() is None


async def test_what_is_fresh_is_not_loaded_again(manager: CacheManager) -> None:
    model = Model()
    await ModelResponseCache(manager).cache_response("x", "a", {}, Answer("success", "there"))
    warmer = CacheWarmer(manager, model)
    assert await warmer.warm_model_responses(["a", "b"], ["x"]) == WarmReport(warmed=1, fresh=1)
    assert model.asked == [("x", "b")]
    assert await warmer.warm_model_responses(["a", "b"], ["x"]) == WarmReport(warmed=0, fresh=2)
    assert await ModelResponseCache(manager).get_response("x", "a") == Answer("success", "there")


@pytest.mark.parametrize("window", ["stale_while_revalidate", "stale_if_error"])
async def test_what_is_stale_is_loaded_before_the_run_is_over(window: str) -> None:
    """Whoever starts the app afterwards wants it to be fresh."""
    clock, fails, versions = ManualClock(), False, 0
    options: dict[str, Any] = {window: 1000}

    async def load_user(user_id: str) -> str:
        nonlocal versions
        if fails:
            raise ConnectionError(user_id)
        versions += 1
        return f"version {versions}"

    async with opened(clock=clock) as manager:
        cache = UnifiedCacheManager(manager, categories={"user_data": EntryOptions(**options)})
        warmer = CacheWarmer(cache, load_user=load_user)
        assert await warmer.warm_user_data(["1"], ttl=10) == WarmReport(1, 0)
        clock.advance(11)
        assert await warmer.warm_user_data(["1"], ttl=10) == WarmReport(1, 0)
        assert await cache.get("user_data", "1") == "version 2"
        assert await warmer.warm_user_data(["1"], ttl=10) == WarmReport(0, 1)
        clock.advance(11)
        fails = True
        assert await warmer.warm_user_data(["1"], ttl=10) == WarmReport(0, 0, (WarmFailure(1, "ConnectionError"),))
        # It is left alone for a while after that, and is still stale.
        again = await warmer.warm_user_data(["1"], ttl=10)
        assert [again.warmed, again.fresh, len(again.failures)] == [0, 0, 1]
        # What was there serves on, as the category has it.
        assert await cache.get_or_compute("user_data", "1", lambda: load_user("1")) == "version 2"


async def test_no_more_are_loaded_at_once_than_was_said(manager: CacheManager) -> None:
    model = Model()
    report = await CacheWarmer(manager, model, concurrency=3).warm_model_responses(map(str, range(20)), ["x"])
    assert (report.warmed, model.most) == (20, 3)


async def test_one_that_is_named_twice_is_loaded_once(manager: CacheManager) -> None:
    model = Model()
    report = await CacheWarmer(manager, model).warm_model_responses(["a", "a", "a"], ["x"])
    assert report == WarmReport(warmed=1, fresh=2)
    assert len(model.asked) == 1


async def test_failures_are_told_by_their_place_and_hold_nothing_back(manager: CacheManager) -> None:
    async def generate(model_type: str, prompt: str) -> object:
        match prompt:
            case "raises":
                raise ConnectionError(f"cannot ask {prompt}")
            case "error":
                return Answer("error")
            case "unstorable":
                return io.StringIO()
            case "skipped":
                current_load().skip()
            case "overtaken":
                await ModelResponseCache(manager).invalidate_model_cache(model_type)
        return Answer("success")

    prompts = ["raises", "good", "error", "unstorable", "skipped", "overtaken", "too"]
    report = await CacheWarmer(manager, generate, concurrency=1).warm_model_responses(prompts, ["x"])
    assert (report.warmed, report.fresh) == (2, 0)
    assert report.failures == (
        WarmFailure(1, "ConnectionError"),
        WarmFailure(3, "the answer has the status error"),
        WarmFailure(4, "of a type that cannot be stored"),
        WarmFailure(5, "the load asked not to keep it"),
        WarmFailure(6, "invalidated while it was loaded"),
    )
    assert isinstance(report.failures[0].error, ConnectionError)
    assert "raises" not in repr(report)
    assert await ModelResponseCache(manager).get_response("x", "too") == Answer("success")


async def test_an_error_reaches_those_who_wait_for_the_same_answer(manager: CacheManager) -> None:
    """Their load is that of the warmer, and they get what they would get without it."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def generate(model_type: str, prompt: str) -> Answer:
        begun.set()
        await go_on.wait()
        return Answer("error", "refused")

    warming = asyncio.ensure_future(CacheWarmer(manager, generate).warm_model_responses(["a"], ["x"]))
    await begun.wait()

    async def ask() -> Answer:
        raise AssertionError("it is being asked already")

    asked = asyncio.ensure_future(ModelResponseCache(manager).get_or_compute("x", "a", None, ask))
    await asyncio.sleep(0)
    go_on.set()
    assert await asked == Answer("error", "refused")
    assert (await warming).failures == (WarmFailure(1, "the answer has the status error"),)


async def test_what_a_shared_layer_does_not_take_is_a_failure() -> None:
    layer = ChaosSharedLayer(SharedMemory().node(), Chaos(Faults(fail=1.0)))
    async with CacheManager(configuration(types=[Answer]), lower=[layer]) as manager:
        report = await CacheWarmer(manager, Model()).warm_model_responses(["a"], ["x"])
    assert report == WarmReport(0, 0, (WarmFailure(1, "not kept in every layer"),))


async def test_it_goes_on_where_it_was_when_it_was_interrupted(manager: CacheManager) -> None:
    model = Model()
    stuck = asyncio.Event()
    cancelled = 0

    async def generate(model_type: str, prompt: str) -> Answer:
        nonlocal cancelled
        if len(model.asked) == 5:
            try:
                await stuck.wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return await model(model_type, prompt)

    prompts = [str(number) for number in range(8)]
    warmer = CacheWarmer(manager, generate, concurrency=2)
    first = asyncio.ensure_future(warmer.warm_model_responses(prompts, ["x"]))
    await eventually(lambda: len(model.asked) == 5 and model.now == 0)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await eventually(lambda: cancelled)
    model.asked.append(("", ""))
    report = await warmer.warm_model_responses(prompts, ["x"])
    assert report == WarmReport(warmed=3, fresh=5)
    assert sorted(prompt for _, prompt in model.asked if prompt) == prompts


# --- progress


async def test_a_function_is_told_of_the_progress(manager: CacheManager) -> None:
    told: list[tuple[int, int | None]] = []
    warmer = CacheWarmer(manager, Model(), progress=lambda done, total: told.append((done, total)))
    await warmer.warm_model_responses(["a", "b"], ["x"])
    assert told == [(1, 2), (2, 2)]


async def test_what_a_function_raises_ends_the_run(manager: CacheManager) -> None:
    def tell(done: int, total: int | None) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        await CacheWarmer(manager, Model(), progress=tell).warm_model_responses(["a", "b", "c"], ["x"])


async def test_a_bar_is_drawn_beside_what_a_program_prints(
    manager: CacheManager, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    await CacheWarmer(manager, Model(), progress=True).warm_model_responses(["secret", "b"], ["x"])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "2/2" in printed.err
    assert "secret" not in printed.err


async def test_without_rich_a_bar_says_which_extra_brings_it(
    manager: CacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(MissingExtraError, match=r"aurelis-cache\[server\]"):
        await CacheWarmer(manager, Model(), progress=True).warm_model_responses(["a"], ["x"])


# --- what is refused


async def test_a_missing_function_is_named(manager: CacheManager) -> None:
    with pytest.raises(ConfigurationError, match="warm_model_responses needs generate"):
        await CacheWarmer(manager).warm_model_responses(["a"], models=["x"])
    with pytest.raises(ConfigurationError, match="warm_user_data needs load_user"):
        await CacheWarmer(manager, Model()).warm_user_data(["1"])


async def test_wrong_arguments_are_refused(manager: CacheManager) -> None:
    warmer = CacheWarmer(manager, Model(), Model())  # type: ignore[arg-type]  # never called
    with pytest.raises(TypeError, match="models"):
        await warmer.warm_model_responses(["a"])  # type: ignore[call-arg]  # what is refused
    with pytest.raises(ConfigurationError, match="models"):
        await warmer.warm_model_responses(["a"], [])
    with pytest.raises(TypeError, match="models must be several"):
        await warmer.warm_model_responses(["a"], "gpt")
    with pytest.raises(TypeError, match="prompts must be several"):
        await warmer.warm_model_responses("hello", ["x"])
    with pytest.raises(TypeError, match="users must be several"):
        await warmer.warm_user_data([1])  # type: ignore[list-item]  # what is refused
    with pytest.raises(ValueError, match="ttl"):
        await warmer.warm_user_data(["1"], ttl=-1)
    with pytest.raises(ConfigurationError, match="concurrency"):
        CacheWarmer(manager, concurrency=0)
    with pytest.raises(ConfigurationError, match="progress"):
        CacheWarmer(manager, progress="bar")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigurationError, match="generate must be"):
        CacheWarmer(manager, "gpt")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeError, match="cache must be"):
        CacheWarmer({})  # type: ignore[arg-type]  # what is refused


async def test_a_run_takes_its_jobs_when_there_is_room_for_them() -> None:
    """So a file of any size can be warmed."""
    taken = 0
    done: list[int] = []

    def jobs() -> Iterator[int]:
        nonlocal taken
        for number in range(10):
            taken += 1
            assert taken <= len(done) + 2
            yield number

    async def warm(job: int) -> bool:
        await asyncio.sleep(0)
        done.append(job)
        return job % 2 == 0

    assert await Warming(jobs(), warm, concurrency=2).run() == WarmReport(5, 5)


async def test_of_many_failures_not_all_keep_what_was_under_way() -> None:
    class Body:
        """What a failed call has sent."""

    alive: list[weakref.ref[Body]] = []

    async def warm(job: int) -> bool:
        body = Body()
        alive.append(weakref.ref(body))
        raise ConnectionError(f"call {job}")

    report = await Warming(range(1000), warm).run()
    gc.collect()
    assert [failure.reason for failure in report.failures] == ["ConnectionError"] * 1000
    assert str(report.failures[0].error) == "call 0"
    assert sum(body() is not None for body in alive) == 100


async def test_another_process_finds_what_was_warmed_in_redis(redis_url: str) -> None:
    config: Callable[[], Any] = lambda: configuration(types=[Answer], redis_url=redis_url)  # noqa: E731
    async with CacheManager(config()) as here, CacheManager(config()) as there:
        assert await CacheWarmer(here, Model()).warm_model_responses(["a"], ["x"]) == WarmReport(1, 0)
        assert await ModelResponseCache(there).get_response("x", "a") == Answer("success", "x: a")
        assert await CacheWarmer(there, Model()).warm_model_responses(["a"], ["x"]) == WarmReport(0, 1)
