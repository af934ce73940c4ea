"""What hits save is counted by model: tokens, time and money; what is not known is counted as such."""

import sys
from typing import Any

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.exceptions import ConfigurationError, MissingExtraError
from aurelis.cache.models import BilledCall
from aurelis.cache.telemetry import names
from tests.client.stack import Stack, closing
from tests.client.upstream import Asked, Reply, Upstream, json_reply, stream_reply
from tests.managers import configuration, count, series
from tests.models.examples import DONE, chat, completion, event

PATH = "/v1/chat/completions"


def of(model: str) -> dict[str, str]:
    """The attribute of a model's series."""
    return {names.MODEL: model}


def answers(model: str, read: int = 1000, written: int = 100) -> Reply:
    """An answer with its usage."""
    return json_reply(completion(model=model, usage={"prompt_tokens": read, "completion_tokens": written}))


def size(model: str) -> int:
    """Bytes of an answer."""
    (body,) = answers(model).chunks
    assert isinstance(body, bytes)
    return len(body)


async def call(stack: Stack, upstream: Upstream, *, client: Any = None, times: int = 1, **changes: object) -> None:
    """One call and so many hits."""
    for number in range(times + 1):
        received = await stack.send("POST", upstream.url + PATH, client=client, json=chat(**changes))
        assert received.is_hit == (number > 0)


def priced(stack: Stack, cost: Any = "genai-prices") -> Any:
    """A client whose calls have prices."""
    return stack.client(stack.transport(cost=cost))


async def test_savings_are_counted_by_model(stack: Stack, upstream: Upstream) -> None:
    client = priced(stack)
    upstream.answer = lambda asked: answers("gpt-4o-2024-08-06" if b"gpt-4o" in asked.body else "gpt-4.1-2025-04-14")
    await call(stack, upstream, client=client, model="gpt-4o", times=3)
    await call(stack, upstream, client=client, model="gpt-4.1", times=1)
    cache = stack.manager
    assert count(cache, names.SAVED_TOKENS, of("gpt-4o") | {names.TOKEN_TYPE: "input"}) == 3000
    assert count(cache, names.SAVED_TOKENS, of("gpt-4o") | {names.TOKEN_TYPE: "output"}) == 300
    assert count(cache, names.SAVED_TOKENS, of("gpt-4.1")) == 1100
    assert count(cache, names.SAVED_COST, of("gpt-4o")) == pytest.approx(3 * 0.0035)
    assert count(cache, names.SAVED_COST, of("gpt-4.1")) == pytest.approx(0.0028)
    assert count(cache, names.SAVED_TIME, of("gpt-4o")) > 0
    assert set(series(cache, names.SAVED_TIME)) == {tuple(of(model).items()) for model in ("gpt-4o", "gpt-4.1")}
    assert count(cache, names.SAVED_IO) == 3 * size("gpt-4o-2024-08-06") + size("gpt-4.1-2025-04-14")
    assert count(cache, names.SAVED_UNKNOWN) == count(cache, names.SAVED_UNPRICED) == 0


async def test_a_stream_saves_what_it_says_that_it_has_used(stack: Stack, upstream: Upstream) -> None:
    choice = {"index": 0, "delta": {"content": "42"}, "finish_reason": "stop"}
    usage = event({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}})
    first = event({"choices": [choice], "model": "gpt-4o"})
    client = priced(stack)
    upstream.replies(stream_reply(first, usage, DONE), stream_reply(first, DONE))
    await call(stack, upstream, client=client, model="gpt-4o", stream=True, stream_options={"include_usage": True})
    assert count(stack.manager, names.SAVED_COST) == pytest.approx(0.0035)
    await call(stack, upstream, client=client, model="gpt-4o", stream=True, times=2)
    assert count(stack.manager, names.SAVED_TOKENS) == 1100
    assert count(stack.manager, names.SAVED_COST) == pytest.approx(0.0035)
    assert count(stack.manager, names.SAVED_UNKNOWN, of("gpt-4o")) == 2
    assert count(stack.manager, names.SAVED_UNPRICED, of("gpt-4o")) == 2


async def test_what_has_no_price_is_counted_as_that(async_stack: Stack, upstream: Upstream) -> None:
    upstream.answer = lambda asked: answers("house-model")
    await call(async_stack, upstream, client=priced(async_stack), model="house-model", times=2)
    cache = async_stack.manager
    assert count(cache, names.SAVED_TOKENS, of("house-model")) == 2200
    assert count(cache, names.SAVED_UNKNOWN) == 0
    assert count(cache, names.SAVED_UNPRICED, of("house-model")) == 2
    assert count(cache, names.SAVED_COST) == 0


async def test_a_function_of_ones_own_prices_what_no_list_has(stack: Stack, upstream: Upstream) -> None:
    asked: list[BilledCall] = []

    def mine(call: BilledCall) -> float:
        asked.append(call)
        assert call.usage.input_tokens is not None
        return call.usage.input_tokens / 1000

    upstream.answer = lambda asked: answers("house-model-2")
    await call(stack, upstream, client=priced(stack, mine), model="house-model", times=5)
    assert count(stack.manager, names.SAVED_COST, of("house-model")) == 5.0
    assert [(call.model, call.answered_by) for call in asked] == [("house-model", "house-model-2")]  # once
    assert "sk-" not in repr(asked)


async def test_nothing_is_said_of_money_where_nobody_asks(async_stack: Stack, upstream: Upstream) -> None:
    upstream.answer = lambda asked: answers("gpt-4o")
    await call(async_stack, upstream, model="gpt-4o")
    assert count(async_stack.manager, names.SAVED_TOKENS, of("gpt-4o")) == 1100
    assert series(async_stack.manager, names.SAVED_COST, zeros=True) == {}
    assert series(async_stack.manager, names.SAVED_UNPRICED, zeros=True) == {}
    # What was stored then has no price for those who come later.
    client = priced(async_stack)
    await async_stack.send("POST", upstream.url + PATH, client=client, json=chat(model="gpt-4o"))
    assert count(async_stack.manager, names.SAVED_UNPRICED, of("gpt-4o")) == 1


async def test_the_price_is_kept_with_the_answer(upstream: Upstream, redis_url: str) -> None:
    upstream.answer = lambda asked: answers("gpt-4o")
    for hits in (1, 2):
        async with (
            CacheManager(configuration(redis_url=redis_url)) as manager,
            closing(Stack("httpx2-async", manager)) as stack,
        ):
            client = priced(stack)
            for _ in range(2):
                await stack.send("POST", upstream.url + PATH, client=client, json=chat(model="gpt-4o"))
            assert count(manager, names.SAVED_COST, of("gpt-4o")) == pytest.approx(hits * 0.0035)
    assert upstream.calls == 1


async def test_a_model_without_a_name_has_a_series_without_one(async_stack: Stack, upstream: Upstream) -> None:
    def answer(asked: Asked) -> Reply:
        document = completion()
        del document["model"]
        return json_reply(document)

    upstream.answer = answer
    body: dict[str, object] = {"messages": []}
    for _ in range(2):
        await async_stack.send("POST", upstream.url + PATH, json=body)
    assert set(series(async_stack.manager, names.SAVED_UNKNOWN, zeros=True)) == {()}
    assert count(async_stack.manager, names.SAVED_TOKENS) == 18


async def test_a_series_begins_with_zero(async_stack: Stack, upstream: Upstream) -> None:
    """Otherwise the increase of the first hit would be lost."""
    upstream.answer = lambda asked: answers("gpt-4o")
    await call(async_stack, upstream, client=priced(async_stack), model="gpt-4o", times=0)
    for metric in (names.SAVED_TOKENS, names.SAVED_COST, names.SAVED_UNKNOWN, names.SAVED_UNPRICED, names.SAVED_TIME):
        assert set(count_of(async_stack.manager, metric, "gpt-4o")) == {0}


def count_of(manager: CacheManager, metric: names.Metric, model: str) -> list[float]:
    """The values of a model's series."""
    return [value for found, value in series(manager, metric, zeros=True).items() if (names.MODEL, model) in found]


async def test_names_beyond_a_hundred_share_a_series(async_stack: Stack, upstream: Upstream) -> None:
    upstream.answer = lambda asked: answers("m", 1, 1)
    for name in ["x" * 1000, *map(str, range(names.MAX_MODELS + 5))]:
        await call(async_stack, upstream, model=name)
    found = {
        dict(attributes)[names.MODEL] for attributes in series(async_stack.manager, names.SAVED_TOKENS, zeros=True)
    }
    assert found == {*map(str, range(names.MAX_MODELS)), names.OTHER_MODELS}
    assert count(async_stack.manager, names.SAVED_TOKENS, of(names.OTHER_MODELS)) == 12


async def test_a_price_list_that_is_not_there_is_named_with_its_extra(
    async_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "aurelis.cache.models._genai_prices", raising=False)
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(MissingExtraError, match=r'cost="genai-prices" needs .*aurelis-cache\[cost\]'):
        async_stack.transport(cost="genai-prices")


async def test_what_gives_no_prices_is_refused(stack: Stack) -> None:
    with pytest.raises(ConfigurationError, match="cost must be"):
        stack.transport(cost="list")


async def test_a_plain_response_saves_time_and_names_no_model(async_stack: Stack, upstream: Upstream) -> None:
    upstream.replies(Reply(200, [("cache-control", "max-age=60")], [b"text"], length=True))
    for _ in range(2):
        await async_stack.get(upstream.url + "/page")
    assert set(series(async_stack.manager, names.SAVED_TIME)) == {()}
    assert count(async_stack.manager, names.SAVED_TIME) > 0
