"""`ModelResponseCache`: answers that an app has in hand, by model, prompt and parameters."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest

from aurelis.cache import (
    CacheConfig,
    CacheManager,
    EntryOptions,
    ModelResponseCache,
    UnifiedCacheManager,
    get_cache_manager,
    set_cache_manager,
)
from aurelis.cache.exceptions import ConfigurationError, UnkeyableError, UnstorableValueError
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, opened


class Status(Enum):
    """How a call went, as many apps say it."""

    GOOD = "success"
    BAD = "error"


@dataclass(frozen=True)
class Answer:
    """An answer of an app."""

    status: Any
    text: str = ""


PARAMETERS = {"temperature": 0.2, "max_tokens": 100}


def kept(**options: Any) -> CacheConfig:
    """A configuration that can store answers."""
    return configuration(types=[Answer, Status], **options)


@pytest.fixture
async def answers() -> AsyncIterator[ModelResponseCache]:
    """A cache of answers in memory."""
    async with opened(kept()) as manager:
        yield ModelResponseCache(manager)


async def test_an_answer_is_found_by_model_prompt_and_parameters(answers: ModelResponseCache) -> None:
    assert await answers.get_response("gpt-x", "6 times 7?", PARAMETERS) is None
    assert await answers.cache_response("gpt-x", "6 times 7?", PARAMETERS, Answer("success", "42"))
    assert await answers.get_response("gpt-x", "6 times 7?", dict(reversed(PARAMETERS.items()))) == Answer(
        "success", "42"
    )
    for model, prompt, parameters in (
        ("gpt-y", "6 times 7?", PARAMETERS),
        ("gpt-x", "7 times 6?", PARAMETERS),
        ("gpt-x", "6 times 7?", {**PARAMETERS, "temperature": 0}),
        ("gpt-x", "6 times 7?", None),
    ):
        assert await answers.get_response(model, prompt, parameters) is None


async def test_no_parameters_and_empty_ones_are_the_same(answers: ModelResponseCache) -> None:
    await answers.cache_response("m", "p", {}, Answer("success"))
    assert await answers.get_response("m", "p") == Answer("success")


async def test_its_entries_are_those_of_the_category_under_the_models_key(answers: ModelResponseCache) -> None:
    """So a rule for the category meets them, and a manager finds them."""
    await answers.cache_response("m", "p", PARAMETERS, Answer("success"))
    identifier = answers.key_builder.build_model_key("m", "p", PARAMETERS)
    assert await answers.cache.get("model_responses", identifier) == Answer("success")
    assert identifier.startswith("aurelis:v1:model:m%3A")
    assert len(identifier.rpartition(":")[2]) == 32
    await answers.cache.invalidate_category("model_responses")
    assert await answers.get_response("m", "p", PARAMETERS) is None


@pytest.mark.parametrize("status", ["error", "ERROR", Status.BAD])
async def test_an_error_is_not_kept_and_leaves_what_is_there(answers: ModelResponseCache, status: object) -> None:
    await answers.cache_response("m", "p", None, Answer("success", "good"))
    assert not await answers.cache_response("m", "p", None, Answer(status, "bad"), ttl=60)
    assert await answers.get_response("m", "p") == Answer("success", "good")


@pytest.mark.parametrize(
    ("status", "ttl", "life"),
    [
        ("success", None, 3600),
        (Status.GOOD, None, 3600),
        ("partial", None, 300),
        ("success", 10, 10),
        ("partial", timedelta(seconds=10), 10),
    ],
)
@pytest.mark.parametrize("way", ["set", "compute"])
async def test_the_status_says_how_long_an_answer_lives(way: str, status: object, ttl: Any, life: float) -> None:
    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager:
        answers = ModelResponseCache(manager)

        async def ask() -> Answer:
            return Answer(status)

        if way == "set":
            await answers.cache_response("m", "p", None, Answer(status), ttl)
        else:
            await answers.get_or_compute("m", "p", None, ask, ttl)
        clock.advance(life - 1)
        assert await answers.get_response("m", "p") == Answer(status)
        clock.advance(2)
        assert await answers.get_response("m", "p") is None


@pytest.mark.parametrize(
    ("usual", "status", "ttl", "life"),
    [(60, "success", None, 60), (60, "partial", None, 60), (600, "partial", None, 300), (60, "success", 10, 10)],
)
@pytest.mark.parametrize("way", ["set", "compute"])
async def test_the_category_says_how_long_an_answer_lives_where_the_call_does_not(
    way: str, usual: float, status: str, ttl: float | None, life: float
) -> None:
    clock = ManualClock()
    async with opened(kept(categories={"model_responses": EntryOptions(ttl=usual)}), clock=clock) as manager:
        answers = ModelResponseCache(manager)
        if way == "set":
            await answers.cache_response("m", "p", None, Answer(status), ttl)
        else:
            await answers.get_or_compute("m", "p", None, _returning(Answer(status)), ttl)
        clock.advance(life - 1)
        assert await answers.get_response("m", "p") == Answer(status)
        clock.advance(2)
        assert await answers.get_response("m", "p") is None


async def test_with_ttl_0_nothing_is_kept(answers: ModelResponseCache) -> None:
    await answers.cache_response("m", "p", None, Answer("success"))
    assert not await answers.cache_response("m", "p", None, Answer("success"), ttl=0)
    assert await answers.get_response("m", "p") is None


@pytest.mark.parametrize(("response", "says"), [({"status": "success"}, "has none"), (Answer(200), "type int")])
async def test_what_has_no_status_is_refused(answers: ModelResponseCache, response: Any, says: str) -> None:
    with pytest.raises(TypeError, match=f"status.*{says}"):
        await answers.cache_response("m", "p", None, response)

    async def ask() -> Any:
        return response

    with pytest.raises(TypeError, match=f"status.*{says}"):
        await answers.get_or_compute("m", "p", None, ask)


async def test_wrong_arguments_are_refused(answers: ModelResponseCache) -> None:
    with pytest.raises(UnkeyableError, match="parameters"):
        await answers.get_response("m", "p", {"client": object()})
    with pytest.raises(ValueError, match="ttl"):
        await answers.cache_response("m", "p", None, Answer("success"), ttl=-1)
    with pytest.raises(ValueError, match="ttl"):
        await answers.cache_response("m", "p", None, Answer("error"), ttl=-1)
    with pytest.raises(TypeError, match="sequence"):
        await answers.cache_response("m", "p", None, Answer("success"), tags="abc")
    with pytest.raises(ConfigurationError, match="provider"):
        await answers.get_response("m", "p", provider="")
    with pytest.raises(TypeError, match="cache must be"):
        ModelResponseCache("redis://")  # type: ignore[arg-type]  # what is refused
    async with opened() as manager:
        with pytest.raises(UnstorableValueError, match="Answer"):
            await ModelResponseCache(manager).cache_response("m", "p", None, Answer("success"))


async def test_many_who_ask_at_once_cause_one_call(answers: ModelResponseCache) -> None:
    calls = 0

    async def ask() -> Answer:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return Answer("success", "42")

    asked = (answers.get_or_compute("m", "p", PARAMETERS, ask) for _ in range(50))
    assert await asyncio.gather(*asked) == [Answer("success", "42")] * 50
    assert calls == 1
    assert await answers.get_response("m", "p", PARAMETERS) == Answer("success", "42")


async def test_an_error_that_was_computed_reaches_its_callers_and_is_not_kept(answers: ModelResponseCache) -> None:
    async def ask() -> Answer:
        return Answer("error")

    assert await answers.get_or_compute("m", "p", None, ask) == Answer("error")
    assert await answers.get_response("m", "p") is None


async def test_options_say_what_is_stale() -> None:
    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager:
        answers = ModelResponseCache(manager)
        options = EntryOptions(ttl=60, stale_if_error=600)
        good: Callable[[], Any] = _returning(Answer("success"))
        assert await answers.get_or_compute("m", "p", None, good, options=options) == Answer("success")
        clock.advance(61)

        async def fails() -> Answer:
            raise ConnectionError

        assert await answers.get_or_compute("m", "p", None, fails, options=options) == Answer("success")


def _returning(answer: Answer) -> Callable[[], Any]:
    async def ask() -> Answer:
        return answer

    return ask


# --- invalidation


async def fill(answers: ModelResponseCache) -> None:
    """Answers of two models, of two providers, one with a tag."""
    await answers.cache_response("a", "1", None, Answer("success"))
    await answers.cache_response("a", "2", PARAMETERS, Answer("success"), provider="x", tags=["weather"])
    await answers.cache_response("b", "1", None, Answer("success"), provider="x")
    await answers.get_or_compute("b", "1", None, _returning(Answer("success")), provider="y")


async def there(answers: ModelResponseCache) -> set[str]:
    """Which of those are there."""
    found = {
        "a1": await answers.get_response("a", "1"),
        "a2": await answers.get_response("a", "2", PARAMETERS, provider="x"),
        "b1x": await answers.get_response("b", "1", provider="x"),
        "b1y": await answers.get_response("b", "1", provider="y"),
    }
    return {name for name, answer in found.items() if answer is not None}


async def test_answers_are_invalidated_by_model_provider_and_tag(answers: ModelResponseCache) -> None:
    for invalidate, left in (
        (answers.invalidate_model_cache("a"), {"b1x", "b1y"}),
        (answers.invalidate_model_cache("b"), {"a1", "a2"}),
        (answers.invalidate_provider("x"), {"a1", "b1y"}),
        (answers.invalidate_tags("weather"), {"a1", "b1x", "b1y"}),
        (answers.cache.invalidate_tags("model:a"), {"b1x", "b1y"}),
        (answers.clear(), set()),
    ):
        await fill(answers)
        assert await there(answers) == {"a1", "a2", "b1x", "b1y"}
        await invalidate
        assert await there(answers) == left


async def test_namespaces_share_nothing_and_are_invalidated_apart() -> None:
    tenant: contextvars.ContextVar[str | None] = contextvars.ContextVar("tenant", default=None)
    async with opened(kept()) as manager:
        answers = ModelResponseCache(manager, namespace=tenant.get)
        one, two = ModelResponseCache(manager, namespace="one"), ModelResponseCache(manager, namespace="two")
        for name in ("one", "two", None):
            tenant.set(name)
            assert await answers.get_response("m", "p") is None
            await answers.cache_response("m", "p", None, Answer("success", str(name)))
        assert await one.get_response("m", "p") == Answer("success", "one")
        await answers.invalidate_namespace("one")
        assert await one.get_response("m", "p") is None
        assert await two.get_response("m", "p") == Answer("success", "two")
        assert await ModelResponseCache(manager).get_response("m", "p") == Answer("success", "None")


async def test_a_namespace_is_in_no_key_and_nobody_gets_into_it_by_parameters() -> None:
    async with opened(kept()) as manager:
        inside = ModelResponseCache(manager, namespace="tenant-1")
        await inside.cache_response("m", "p", {"a": 1}, Answer("success"), provider="acme")
        (key,) = manager._engine.stack.memory.entries  # type: ignore[union-attr]  # it has memory
        assert "tenant-1" not in key
        assert "acme" not in key
        outside = ModelResponseCache(manager)
        for parameters in ({"a": 1, "namespace": "tenant-1", "provider": "acme"}, {"a": 1}):
            assert await outside.get_response("m", "p", parameters) is None
            assert await outside.get_response("m", "p", parameters, provider="acme") is None
        assert await inside.get_response("m", "p", {"a": 1}, provider="acme") == Answer("success")


async def test_a_namespace_that_says_nothing_is_no_namespace_by_accident(answers: ModelResponseCache) -> None:
    for wrong in ("", 7):
        with pytest.raises(ConfigurationError, match="namespace"):
            ModelResponseCache(answers.cache, namespace=wrong)  # type: ignore[arg-type]  # what is refused
        of_call = ModelResponseCache(answers.cache, namespace=lambda wrong=wrong: wrong)  # type: ignore[misc]
        with pytest.raises(ConfigurationError, match="namespace"):
            await of_call.get_response("m", "p")


async def test_an_invalidation_during_a_call_wins(answers: ModelResponseCache) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def ask() -> Answer:
        begun.set()
        await go_on.wait()
        return Answer("success", "old")

    asked = asyncio.ensure_future(answers.get_or_compute("m", "p", None, ask))
    await begun.wait()
    await answers.invalidate_model_cache("m")
    go_on.set()
    assert await asked == Answer("success", "old")
    assert await answers.get_response("m", "p") is None


# --- what it stands on


async def test_it_uses_the_manager_that_it_is_given() -> None:
    async with UnifiedCacheManager(kept()) as unified:
        answers = ModelResponseCache(unified)
        assert answers.cache is unified
        wrapped = ModelResponseCache(unified.manager)
        assert wrapped.cache.manager is unified.manager
        await answers.cache_response("m", "p", None, Answer("success"))
        assert await wrapped.get_response("m", "p") == Answer("success")


async def test_without_one_it_uses_that_of_the_process() -> None:
    set_cache_manager(None)
    try:
        answers = ModelResponseCache()
        async with CacheManager(kept()) as manager:
            set_cache_manager(manager)
            await answers.cache_response("m", "p", None, Answer("success"))
            assert await answers.get_response("m", "p") == Answer("success")
        set_cache_manager(None)
        assert await answers.get_response("m", "p") is None
        await get_cache_manager().aclose()
    finally:
        set_cache_manager(None)


async def test_another_process_finds_it_in_redis_and_its_invalidation_reaches_it(redis_url: str) -> None:
    name = kept().name
    async with (
        CacheManager(kept(redis_url=redis_url, namespace=name)) as here,
        CacheManager(kept(redis_url=redis_url, namespace=name)) as elsewhere,
    ):
        mine, theirs = ModelResponseCache(here), ModelResponseCache(elsewhere)
        assert await mine.cache_response("m", "a secret prompt", None, Answer("success", "42"))
        assert await theirs.get_response("m", "a secret prompt") == Answer("success", "42")
        await mine.invalidate_model_cache("m")
        async with asyncio.timeout(20):
            while await theirs.get_response("m", "a secret prompt") is not None:
                await asyncio.sleep(0.01)
