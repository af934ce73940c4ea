"""What hits of `ModelResponseCache` and `SimilarityCache` save is counted as far as it is known."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache import CacheManager, EntryOptions, ModelResponseCache, SimilarityCache
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.models import UNKNOWN, BilledCall, Usage, reported_usage
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, count, opened

OPENAI = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
INPUT, OUTPUT = {names.TOKEN_TYPE: "input"}, {names.TOKEN_TYPE: "output"}
SAVED = (names.SAVED_TOKENS, names.SAVED_UNKNOWN, names.SAVED_TIME, names.SAVED_COST, names.SAVED_UNPRICED)


@dataclass
class Answer:
    """An answer of an app, with what its model says that it has used."""

    text: str = "42"
    usage: Any = field(default_factory=dict)
    status: str = "success"


def cache(clock: ManualClock | None = None) -> Any:
    """A manager in memory."""
    return opened(configuration(types=[Answer]), **({} if clock is None else {"clock": clock}))


class Slow:
    """Takes three seconds."""

    def __init__(self, clock: ManualClock, answer: Answer) -> None:
        self._clock, self._answer = clock, answer

    async def __call__(self) -> Answer:
        self._clock.advance(3)
        return self._answer


async def test_hits_save_what_computing_took_and_what_the_answer_says() -> None:
    clock = ManualClock()
    async with cache(clock) as manager:
        answers = ModelResponseCache(manager)
        for _ in range(3):
            await answers.get_or_compute("gpt-x", "6 times 7?", {}, Slow(clock, Answer(usage=OPENAI)))
        assert await answers.get_response("gpt-x", "6 times 7?") is not None
        of = {names.MODEL: "gpt-x"}
        assert count(manager, names.SAVED_TIME, of) == 9
        assert count(manager, names.SAVED_TOKENS, of | INPUT) == 33
        assert count(manager, names.SAVED_TOKENS, of | OUTPUT) == 21
        assert count(manager, names.SAVED_UNKNOWN) == 0


async def test_a_miss_saves_nothing() -> None:
    async with cache() as manager:
        answers = ModelResponseCache(manager)
        assert await answers.get_response("m", "a") is None

        async def compute() -> Answer:
            await asyncio.sleep(0)
            return Answer(usage=OPENAI)

        await asyncio.gather(*[answers.get_or_compute("m", "a", {}, compute) for _ in range(5)])
        assert all(count(manager, name) == 0 for name in SAVED)  # they have shared one load


async def test_what_is_not_known_is_counted_so() -> None:
    clock = ManualClock()
    async with cache(clock) as manager:
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", "a", {}, Answer())
        await answers.get_response("m", "a")
        assert count(manager, names.SAVED_UNKNOWN, {names.MODEL: "m"}) == 1
        assert count(manager, names.SAVED_TOKENS) == count(manager, names.SAVED_TIME) == 0
        assert count(manager, names.SAVED_UNPRICED) == 0  # nobody asks for prices


async def test_how_long_an_answer_took_is_forgotten_with_it() -> None:
    clock = ManualClock()
    async with cache(clock) as manager:
        answers = ModelResponseCache(manager)
        await answers.get_or_compute("m", "a", {}, Slow(clock, Answer()))
        await answers.cache_response("m", "a", {}, Answer("43"))
        await answers.get_response("m", "a")
        assert count(manager, names.SAVED_TIME) == 0


async def test_a_stale_answer_saves_too() -> None:
    clock = ManualClock()
    async with cache(clock) as manager:
        answers = ModelResponseCache(manager)
        options = EntryOptions(ttl=60, stale_while_revalidate=600)
        await answers.get_or_compute("m", "a", {}, Slow(clock, Answer(usage=OPENAI)), options=options)
        clock.advance(100)
        await answers.get_or_compute("m", "a", {}, Slow(clock, Answer(usage=OPENAI)), options=options)
        assert count(manager, names.SAVED_TOKENS, INPUT) == 11


async def test_costs_are_counted_where_somebody_knows_them() -> None:
    asked: list[BilledCall] = []

    def price(call: BilledCall) -> float | None:
        asked.append(call)
        return None if call.usage.input_tokens is None else 0.5

    async with cache() as manager:
        answers = ModelResponseCache(manager, cost=price)
        await answers.cache_response("m", "a", {}, Answer(usage=OPENAI), provider="acme")
        await answers.cache_response("m", "b", {}, Answer())
        for _ in range(2):
            await answers.get_response("m", "a", provider="acme")
        await answers.get_response("m", "b")
        assert count(manager, names.SAVED_COST, {names.MODEL: "m"}) == 1.0
        assert count(manager, names.SAVED_UNPRICED, {names.MODEL: "m"}) == 1
        assert (asked[0].protocol, asked[0].model, asked[0].usage) == ("acme", "m", Usage(11, 7))


async def test_a_price_that_fails_is_none() -> None:
    def price(call: BilledCall) -> float:
        raise ValueError("no list")

    async with cache() as manager:
        answers = ModelResponseCache(manager, cost=price)
        await answers.cache_response("m", "a", {}, Answer(usage=OPENAI))
        assert await answers.get_response("m", "a") == Answer(usage=OPENAI)
        assert count(manager, names.SAVED_UNPRICED) == 1


def test_what_gives_no_prices_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cost"):
        ModelResponseCache(CacheManager(configuration()), cost="list")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("mode", ["threshold", "shadow"])
async def test_similar_answers_save_where_they_are_served(mode: Any) -> None:
    async with cache() as manager, SimilarityCache(manager, mode=mode) as similar:

        async def compute() -> Answer:
            return Answer(usage=OPENAI)

        await similar.get_or_compute("m", "What is 6 times 7?", {}, compute)
        await similar.find_similar_response("What is 6 times 7?", "m")
        assert count(manager, names.SAVED_TOKENS, INPUT) == 11
        await similar.find_similar_response("Please, what is 6 times 7?", "m")
        served = mode == "threshold"
        assert count(manager, names.SAVED_TOKENS, INPUT) == 11 + 11 * served
        await similar.get_or_compute("m", "please what is 6 times 7", {}, compute)
        assert count(manager, names.SAVED_TOKENS, INPUT) == 11 + 22 * served


@pytest.mark.parametrize(
    ("usage", "read", "written"),
    [
        (OPENAI, 11, 7),
        ({"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}, 11, 7),
        (
            {"input_tokens": 6, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0, "output_tokens": 7},
            11,
            7,
        ),
        ({"promptTokenCount": 11, "candidatesTokenCount": 5, "thoughtsTokenCount": 2}, 11, 7),
        ({"prompt_token_count": 11, "candidates_token_count": 7, "thoughts_token_count": None}, 11, 7),
        ({"prompt_tokens": 11}, 11, None),
        ({"prompt_tokens": "11", "completion_tokens": -7}, None, None),
        ({"prompt_tokens": True, "completion_tokens": 7}, None, 7),
        ({"tokens": 18}, None, None),
        ({}, None, None),
        (None, None, None),
        (18, None, None),
    ],
)
@pytest.mark.parametrize("shape", ["mapping", "object", "mapping in an object"])
def test_usage_is_known_by_its_words(usage: Any, read: int | None, written: int | None, shape: str) -> None:
    held = SimpleNamespace(**usage) if isinstance(usage, dict) and shape == "object" else usage
    response: Any = {"usage": held} if shape == "mapping" else SimpleNamespace(usage=held)
    found = reported_usage(response)
    assert (found.input_tokens, found.output_tokens) == (read, written)


def test_google_calls_it_otherwise() -> None:
    usage = SimpleNamespace(prompt_token_count=11, candidates_token_count=7, thoughts_token_count=None)
    assert reported_usage(SimpleNamespace(usage_metadata=usage)) == Usage(11, 7)
    assert reported_usage({"usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7}}) == Usage(11, 7)


class Rude:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.floats(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_nothing_makes_it_raise(value: object) -> None:
    assert reported_usage(Rude()) == UNKNOWN
    for response in (value, {"usage": value}, {"usage": {"prompt_tokens": value}}, {"usage": {"input_tokens": value}}):
        found = reported_usage(response)
        assert found.input_tokens is None or found.input_tokens >= 0
