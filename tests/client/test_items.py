"""Embeddings of several items: each is looked up by itself, and only those that are missing are asked for."""

import asyncio
import gzip
import json
import math
import random
from typing import Any

import openai
import pytest

from aurelis.cache import CacheManager, cache_options
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.client.embedder import Embedder, vector
from tests.client.stack import KINDS, Received, Stack, closing, in_thread
from tests.client.upstream import Gate, Reply, Server, Upstream, json_reply
from tests.managers import configuration, count, eventually, is_settled, opened, requests, series
from tests.models.examples import dump
from tests.proxies import Latency, Pass, Proxy

FIELDS = {"authorization": "Bearer sk-one", "content-type": "application/json"}
FAILURE = {"error": {"message": "busy", "type": "server_error", "param": None, "code": None}}
GEMINI = "/v1beta/models/embedding-001"


@pytest.fixture
def embedder(upstream: Upstream) -> Embedder:
    """The provider."""
    embedder = Embedder()
    upstream.answer = embedder
    return embedder


class Caller:
    """Calls of OpenAI's protocol through its SDK, by a client with a cache."""

    def __init__(self, stack: Stack, upstream: Upstream, **options: Any) -> None:
        self.stack = stack
        self.sdk = stack.sdk(upstream.url, **options)

    async def embed(self, value: Any, **changes: Any) -> list[list[float]]:
        """The vectors of items, which the SDK asks for in base64."""
        return [one.embedding for one in (await self.call(value, **changes)).data]

    async def call(self, value: Any, **changes: Any) -> Any:
        """The SDK's answer."""
        create = self.sdk.embeddings.create
        call: Any = {"model": "text-embedding-3-small", "input": value, **changes}
        return await in_thread(lambda: create(**call)) if self.stack.blocking else await create(**call)


@pytest.fixture
def caller(stack: Stack, upstream: Upstream, embedder: Embedder) -> Caller:
    """A caller of each library, with and without an event loop."""
    return Caller(stack, upstream)


async def post(
    stack: Stack, upstream: Upstream, path: str, body: object, *, client: Any = None, **more: Any
) -> Received:
    """A call with a body of one's own."""
    return await stack.send("POST", upstream.url + path, client=client, content=dump(body), headers=FIELDS, **more)


def vectors(items: list[Any]) -> list[list[float]]:
    """What a right answer has."""
    return [vector(item) for item in items]


def items(manager: CacheManager) -> dict[str, int]:
    """What was counted of items, by result and layer."""
    found = {}
    for attributes, value in series(manager, names.ITEMS).items():
        described = dict(attributes)
        found[" ".join([described[names.RESULT], described.get(names.LAYER, "")]).strip()] = int(value)
    return {name: number for name, number in found.items() if number}


# What is asked for, and what comes


async def test_only_what_is_missing_is_asked_for(caller: Caller, embedder: Embedder) -> None:
    assert await caller.embed(["a", "b", "c"]) == vectors(["a", "b", "c"])
    assert await caller.embed(["x", "b", "y", "a"]) == vectors(["x", "b", "y", "a"])
    assert await caller.embed(["y", "c", "x"]) == vectors(["y", "c", "x"])
    assert embedder.asked == [["a", "b", "c"], ["x", "y"]]


async def test_calls_for_one_and_for_several_share_what_they_find(caller: Caller, embedder: Embedder) -> None:
    await caller.embed("a")
    assert await caller.embed(["a"]) == vectors(["a"])
    assert await caller.embed(["b", "a"]) == vectors(["b", "a"])
    assert await caller.embed("b") == vectors(["b"])
    assert embedder.asked == [["a"], ["b"]]


@pytest.mark.parametrize("value", [[[1, 2], [3]], [[3], "a", [1, 2]], ["1", [1]], ['é\n"', "\U0001f600"]], ids=str)
async def test_items_may_be_texts_or_tokens(caller: Caller, embedder: Embedder, value: list[Any]) -> None:
    await caller.embed([value[0], "other"])
    assert await caller.embed(value) == vectors(value)
    assert await caller.embed(value[-1]) == vectors(value[-1:])
    assert [one for asked in embedder.asked for one in asked] == [value[0], "other", *value[1:]]


async def test_tokens_of_one_item_are_one_item(caller: Caller, embedder: Embedder) -> None:
    assert await caller.embed([1, 2, 3]) == vectors([[1, 2, 3]])
    assert await caller.embed([[1, 2, 3], [1]]) == vectors([[1, 2, 3], [1]])
    assert embedder.asked == [[[1, 2, 3]], [[1]]]


async def test_what_is_asked_for_twice_is_loaded_once(caller: Caller, embedder: Embedder) -> None:
    assert await caller.embed(["a", "b", "a", "a"]) == vectors(["a", "b", "a", "a"])
    assert embedder.asked == [["a", "b"]]
    assert items(caller.stack.manager) == {"miss": 2, "collapsed": 2}


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("dimensions", [2, 5])
async def test_answers_have_the_format_that_was_asked_for(
    caller: Caller, embedder: Embedder, upstream: Upstream, encoding: str, dimensions: int
) -> None:
    body = {"model": "m", "encoding_format": encoding, "dimensions": dimensions}
    path = "/v1/embeddings"
    await post(caller.stack, upstream, path, {**body, "input": ["a", "b"]})
    answer = await post(caller.stack, upstream, path, {**body, "input": ["c", "a"]})
    alone = Embedder()
    expected = alone(type(upstream.asked[0])("POST", path, {}, dump({**body, "input": ["c", "a"]}))).chunks[0]
    assert isinstance(expected, bytes)
    assert json.loads(answer.body)["data"] == json.loads(expected)["data"]
    assert embedder.asked == [["a", "b"], ["c"]]
    for change in (
        {"encoding_format": "base64" if encoding == "float" else "float"},
        {"dimensions": 9},
        {"model": "n"},
    ):
        await post(caller.stack, upstream, path, {**body, **change, "input": ["a", "b"]})
    assert embedder.asked[2:] == [["a", "b"]] * 3


async def test_other_callers_have_items_of_their_own(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    for key in ("sk-one", "sk-two"):
        await Caller(stack, upstream, api_key=key).embed(["a", "b"])
    assert len(embedder.asked) == 2
    with cache_options(namespace="n"):
        if not stack.blocking:
            await Caller(stack, upstream).embed(["a", "b"])
            assert len(embedder.asked) == 3


async def test_an_answer_from_one_request_is_given_as_it_came(
    stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    spaced = json.dumps(embedder._answer("/v1/embeddings", {"input": ["a", "b"]})[1], indent=3).encode()
    upstream.replies(
        Reply(200, [("content-type", "application/json"), ("x-ratelimit-left", "9")], [spaced[:9], spaced[9:]])
    )
    answer = await post(stack, upstream, "/v1/embeddings", {"model": "m", "input": ["a", "b"]})
    assert (answer.body, answer.headers["x-ratelimit-left"]) == (spaced, "9")
    assert answer.cache_status.partition("; ")[2] == "fwd=miss; fwd-status=200"


async def test_the_answer_says_where_it_comes_from(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    path, body = "/v1/embeddings", {"model": "m"}
    await post(stack, upstream, path, {**body, "input": ["a", "b"]})
    partial = await post(stack, upstream, path, {**body, "input": ["a", "b", "c"]})
    assert partial.cache_status.partition("; ")[2] == 'fwd=partial; fwd-status=200; detail="2 of 3 stored"'
    assert partial.headers["x-request-id"] == "req_2"
    assert "age" not in partial.headers
    hit = await post(stack, upstream, path, {**body, "input": ["b", "c"]})
    assert hit.cache_status.partition("; ")[2].startswith("hit; ttl=35")
    assert hit.headers["age"] == "0"
    assert not {"x-request-id", "x-cache-original-request-id", "x-ratelimit-remaining"} & hit.headers.keys()
    assert hit.headers["content-type"] == "application/json"


# What was used


async def test_the_usage_is_that_of_what_was_loaded(caller: Caller) -> None:
    assert (await caller.call(["a", "b"])).usage.prompt_tokens == 6
    assert (await caller.call(["a", "b", "c"])).usage.prompt_tokens == 3
    assert (await caller.call(["b", "c"])).usage.prompt_tokens == 0
    assert (await caller.call("c")).usage.total_tokens == 3  # loaded alone, and given as it was
    assert (await caller.call("b")).usage.total_tokens == 0


async def test_the_same_call_has_the_same_answer(caller: Caller, embedder: Embedder) -> None:
    first = await caller.call(["a", "b"])
    mixed = await caller.call(["b", "c"])
    assert (await caller.call(["a", "b"])).model_dump() == first.model_dump()
    assert (await caller.call(["b", "c"])).model_dump() == mixed.model_dump()
    assert len(embedder.asked) == 2


async def test_what_was_saved_is_counted_where_it_is_known(caller: Caller) -> None:
    manager = caller.stack.manager
    await caller.call(["a", "b"])
    await caller.call("c")
    await caller.call(["a", "b"])  # 6 tokens, as it was before
    saved = {names.TOKEN_TYPE: "input"}
    assert (count(manager, names.SAVED_TOKENS, saved), count(manager, names.SAVED_UNKNOWN)) == (6, 0)
    await caller.call(["b", "c"])  # 3 of c, and what b has used is not known
    assert (count(manager, names.SAVED_TOKENS, saved), count(manager, names.SAVED_UNKNOWN)) == (9, 1)


async def test_bytes_time_and_money_are_saved_of_items_alike_in_any_order(
    stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    manager, model = stack.manager, "text-embedding-3-small"
    client = stack.client(stack.transport(cost=lambda call: 7.0))
    metrics = (names.SAVED_IO, names.SAVED_TIME, names.SAVED_COST, names.SAVED_UNPRICED)

    async def embed(*value: str) -> list[float]:
        before = [count(manager, metric) for metric in metrics]
        await post(stack, upstream, "/v1/embeddings", {"model": model, "input": value}, client=client)
        return [count(manager, metric) - earlier for metric, earlier in zip(metrics, before, strict=True)]

    assert await embed("a", "b") == [0, 0, 0, 0]
    same, other = await embed("a", "b"), await embed("b", "a")
    assert same[0] == other[0] > 0
    assert same[1] == pytest.approx(other[1])
    assert (same[2:], other[2:]) == ([7.0, 0], [0, 1])  # what each item alone has cost is not known
    assert set(series(manager, names.SAVED_TIME)) == {((names.MODEL, model),)}
    assert embedder.asked == [["a", "b"]]


async def test_requests_and_items_are_counted(caller: Caller) -> None:
    manager = caller.stack.manager
    await caller.call(["a", "b"])
    await caller.call(["a", "c"])
    await caller.call(["c", "b"])
    assert requests(manager) == {"miss": 2, "hit l1": 1, "loads": 2}
    assert items(manager) == {"miss": 3, "hit l1": 3}
    assert count(manager, names.STORES, {names.STORE_RESULT: "stored"}) == 3


# The limits of providers


async def test_a_call_over_the_limit_is_split(caller: Caller, embedder: Embedder) -> None:
    texts = [f"text {number}" for number in range(2050)]
    await caller.embed(texts[:1])
    answer = await caller.call(texts)
    assert [one.embedding for one in answer.data] == vectors(texts)
    assert [one.index for one in answer.data] == list(range(2050))
    assert [len(asked) for asked in embedder.asked] == [1, 2048, 1]
    assert answer.usage.prompt_tokens == 3 * 2049
    assert requests(caller.stack.manager) == {"miss": 2, "loads": 2}
    assert count(caller.stack.manager, names.REFRESHES, {names.REFRESH_REASON: "items"}) == 1


async def test_of_a_call_that_fails_half_way_nothing_is_given(caller: Caller, embedder: Embedder) -> None:
    texts = [f"text {number}" for number in range(2050)]
    embedder.fail = lambda asked: json_reply(FAILURE, status=500) if len(asked) == 2 else None
    with pytest.raises(openai.InternalServerError):
        await caller.embed(texts)
    embedder.fail = lambda asked: None
    assert await caller.embed(texts) == vectors(texts)
    assert [len(asked) for asked in embedder.asked] == [2048, 2, 2]


# Failures


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_an_error_is_given_whole(stack: Stack, upstream: Upstream, embedder: Embedder, status: int) -> None:
    path, body = "/v1/embeddings", {"model": "m"}
    await post(stack, upstream, path, {**body, "input": ["a"]})
    embedder.fail = lambda asked: json_reply(
        FAILURE, status=status, headers=[("retry-after", "7"), ("x-request-id", "e")]
    )
    answer = await post(stack, upstream, path, {**body, "input": ["a", "b"]})
    assert (answer.status, json.loads(answer.body)) == (status, FAILURE)
    assert (answer.headers["retry-after"], answer.headers["x-request-id"]) == ("7", "e")
    embedder.fail = lambda asked: None
    assert (await post(stack, upstream, path, {**body, "input": ["a", "b"]})).status == 200
    assert embedder.asked == [["a"], ["b"], ["b"]]


async def test_what_the_origin_raises_reaches_the_caller(stack: Stack, upstream: Upstream) -> None:
    def send(request: Any) -> Any:
        raise stack.library.ConnectError("lost")

    client = stack.client(inner=stack.mock(send))
    with pytest.raises(stack.library.ConnectError, match="lost"):
        await post(stack, upstream, "/v1/embeddings", {"model": "m", "input": ["a", "b"]}, client=client)
    assert requests(stack.manager) == {"miss": 1, "loads": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: {**answer, "data": answer["data"][:1]},
        lambda answer: {**answer, "data": [*answer["data"], answer["data"][0]]},
        lambda answer: {**answer, "data": [{**one, "index": 0} for one in answer["data"]]},
        lambda answer: {**answer, "data": None},
        lambda answer: {**answer, "data": [{"index": 0}, {"index": 1}]},
    ],
    ids=["too few", "too many", "one index", "none", "no vectors"],
)
async def test_an_answer_that_cannot_be_taken_apart_is_given_as_it_is(
    stack: Stack, upstream: Upstream, embedder: Embedder, change: Any
) -> None:
    path, body = "/v1/embeddings", {"model": "m"}
    await post(stack, upstream, path, {**body, "input": ["a"]})
    embedder.change = change
    answer = await post(stack, upstream, path, {**body, "input": ["x", "y"]})
    assert json.loads(answer.body) == change(embedder._answer(path, {"input": ["x", "y"]})[1])
    assert embedder.asked == [["a"], ["x", "y"]]
    # Of a part nothing can be made, so the whole is asked for.
    answer = await post(stack, upstream, path, {**body, "input": ["a", "y", "z"]})
    assert json.loads(answer.body) == change(embedder._answer(path, {"input": ["a", "y", "z"]})[1])
    assert embedder.asked[2:] == [["y", "z"], ["a", "y", "z"]]
    assert requests(stack.manager)["loads"] + int(count(stack.manager, names.REFRESHES)) == len(embedder.asked)


async def test_an_answer_in_another_order_is_put_in_order(caller: Caller, embedder: Embedder) -> None:
    embedder.change = lambda answer: {**answer, "data": answer["data"][::-1]}
    await caller.embed(["a", "b"])
    assert await caller.embed(["c", "a", "b"]) == vectors(["c", "a", "b"])


async def test_whoever_wants_what_is_stored_asks_for_nothing_even_then(
    stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    path, body = "/v1/embeddings", {"model": "m"}
    await post(stack, upstream, path, {**body, "input": ["a"]})
    embedder.model = "another"
    await post(stack, upstream, path, {**body, "input": ["b"]})
    stored = {"extensions": {"aurelis": {"only_if_cached": True}}}
    assert (await post(stack, upstream, path, {**body, "input": ["a", "b"]}, **stored)).status == 504
    assert embedder.asked == [["a"], ["b"]]


async def test_some_servers_number_nothing(caller: Caller, embedder: Embedder) -> None:
    def bare(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "data": [{"embedding": one["embedding"]} for one in answer["data"]]}

    embedder.change = bare
    await caller.embed(["a", "b"])
    assert await caller.embed(["c", "b"]) == vectors(["c", "b"])
    assert embedder.asked == [["a", "b"], ["c"]]


async def test_vectors_of_different_models_are_not_put_together(caller: Caller, embedder: Embedder) -> None:
    await caller.embed(["a", "b"])
    embedder.model = "text-embedding-3-small-2"
    answer = await caller.call(["a", "b", "c"])
    assert answer.model == "text-embedding-3-small-2"
    assert answer.usage.prompt_tokens == 12  # 3 of them were of no use
    assert embedder.asked == [["a", "b"], ["c"], ["a", "b", "c"]]
    assert (await caller.call(["c", "a"])).model == "text-embedding-3-small-2"
    manager = caller.stack.manager
    assert requests(manager)["loads"] + int(count(manager, names.REFRESHES)) == len(embedder.asked)


# Several callers at once


async def test_calls_at_once_load_each_item_once(caller: Caller, embedder: Embedder) -> None:
    """Each loads what nobody loads yet, and waits for the rest afterwards, so none waits for ever."""
    embedder.gate = Gate()
    values = [["a", "b"], ["b", "c"], ["c", "a"], ["a", "b", "c"], ["b", "a"]]
    calls = []
    for number, value in enumerate(values):
        calls.append(asyncio.create_task(caller.embed(value)))
        if number < 2:
            await eventually(lambda: len(embedder.asked) == number + 1)  # noqa: B023
    await eventually(lambda: caller.stack.manager._engine.flights.waiting > 0)
    embedder.gate.open()
    assert await asyncio.gather(*calls) == [vectors(value) for value in values]
    assert embedder.asked == [["a", "b"], ["c"]]
    counted = requests(caller.stack.manager)
    assert (counted["miss"] + counted.get("hit l1", 0), counted["loads"]) == (5, 2)


async def test_a_call_for_one_and_one_for_several_load_an_item_once(caller: Caller, embedder: Embedder) -> None:
    for first, second, asked in (("a", ["a", "b"], [["a"], ["b"]]), (["x", "y"], "x", [["x", "y"]])):
        gate = embedder.gate = Gate()
        before = len(embedder.asked)
        calls = [asyncio.create_task(caller.embed(first))]
        await eventually(lambda: len(embedder.asked) == before + 1)  # noqa: B023
        calls.append(asyncio.create_task(caller.embed(second)))
        await eventually(lambda: caller.stack.manager._engine.flights.waiting > 0)
        gate.open()
        answers = await asyncio.gather(*calls)
        assert answers[1] == vectors(second if isinstance(second, list) else [second])
        assert embedder.asked[before:] == asked


async def test_fifty_identical_calls_are_one(async_stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    caller = Caller(async_stack, upstream)
    embedder.gate = Gate()
    calls = [asyncio.create_task(caller.call(["a", "b"])) for _ in range(50)]
    await eventually(lambda: async_stack.manager._engine.flights.waiting == 98)
    embedder.gate.open()
    answers = await asyncio.gather(*calls)
    assert embedder.asked == [["a", "b"]]
    assert all(answer.model_dump() == answers[0].model_dump() for answer in answers)
    assert requests(async_stack.manager) == {"miss": 50, "loads": 1}


async def test_a_failure_is_shared_by_those_who_ask_for_the_same(
    async_stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    caller = Caller(async_stack, upstream)
    embedder.gate = Gate()
    embedder.fail = lambda asked: json_reply(FAILURE, status=400) if "bad" in asked else None
    same = [asyncio.create_task(caller.embed(["bad", "a"])) for _ in range(5)]
    await eventually(lambda: async_stack.manager._engine.flights.waiting == 8)
    other = asyncio.create_task(caller.embed(["a", "b"]))
    await eventually(lambda: len(embedder.asked) == 2)
    embedder.gate.open()
    results = await asyncio.gather(*same, return_exceptions=True)
    assert {type(result) for result in results} == {openai.BadRequestError}
    assert await other == vectors(["a", "b"])  # it did not ask for what was bad
    assert embedder.asked == [["bad", "a"], ["b"], ["a"]]


async def test_who_leaves_harms_nobody(async_stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    caller = Caller(async_stack, upstream)
    gate = embedder.gate = Gate()
    leading = asyncio.create_task(caller.embed(["a", "b"]))
    await eventually(lambda: len(embedder.asked) == 1)
    following = asyncio.create_task(caller.embed(["b"]))
    await eventually(lambda: async_stack.manager._engine.flights.waiting == 1)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
    gate.open()
    assert await following == vectors(["b"])
    assert await caller.embed(["a", "b"]) == vectors(["a", "b"])
    assert embedder.asked == [["a", "b"]]


async def test_the_last_to_leave_ends_the_load(async_stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    caller = Caller(async_stack, upstream)
    gate = embedder.gate = Gate()
    calls = [asyncio.create_task(caller.embed(value)) for value in (["a", "b"], ["b"])]
    await eventually(lambda: async_stack.manager._engine.flights.waiting == 1)
    await upstream.arrived.happened()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await upstream.disconnected.happened()
    gate.open()
    assert not async_stack.manager._engine._entries


async def test_items_that_were_removed_while_they_were_loaded_are_fenced(
    async_stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    manager = async_stack.manager
    gate = embedder.gate = Gate()
    call = asyncio.create_task(Caller(async_stack, upstream).embed(["a", "b"]))
    await upstream.arrived.happened()
    await manager.clear()
    gate.open()
    assert await call == vectors(["a", "b"])
    assert series(manager, names.STORES) == {((names.STORE_RESULT, "fenced"),): 2}


async def test_items_that_are_too_large_are_counted_each(
    async_stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    manager = async_stack.manager
    assert await Caller(async_stack, upstream, max_body_bytes=10).embed(["a", "b"]) == vectors(["a", "b"])
    assert series(manager, names.STORES) == {((names.STORE_RESULT, "too_large"),): 2}


async def test_a_transport_over_a_transport_does_not_wait_for_itself(
    stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    client = stack.client(inner=stack.transport())
    for _ in range(2):
        answer = await post(stack, upstream, "/v1/embeddings", {"model": "m", "input": ["a", "b"]}, client=client)
        assert len(json.loads(answer.body)["data"]) == 2
    assert embedder.asked == [["a", "b"]]


async def test_threads_and_tasks_with_overlapping_calls_never_wait_for_each_other(
    manager: CacheManager, server: Server
) -> None:
    """Each gets its own vectors, or the failure of a request that was made; nobody waits for ever."""
    upstream, embedder, chance = server.part(), Embedder(), random.Random(7)
    upstream.answer = embedder
    embedder.fail = lambda asked: json_reply(FAILURE, status=500) if chance.random() < 0.1 else None
    wanted = [[f"t{chance.randrange(12)}" for _ in range(chance.randrange(2, 6))] for _ in range(300)]
    outcomes: list[bool] = []
    async with closing(Stack("httpx2-sync", manager)) as threads, closing(Stack("httpx-async", manager)) as tasks:
        callers = [Caller(threads, upstream, ttl=ttl) for ttl in (60, 0.001)]
        callers += [Caller(tasks, upstream, ttl=ttl) for ttl in (60, 0.001)]

        async def call(number: int, value: list[str]) -> None:
            try:
                answer = await callers[number % 4].embed(value)
            except openai.InternalServerError:
                outcomes.append(False)
            else:
                assert answer == vectors(value)
                outcomes.append(True)

        calls = [asyncio.create_task(call(*one)) for one in enumerate(wanted)]
        for number in range(0, 300, 9):
            await asyncio.sleep(0)
            calls[number].cancel()
        done, pending = await asyncio.wait(calls, timeout=60)
        assert not pending
        assert not [task for task in done if not task.cancelled() and task.exception()]
        assert {True, False} <= set(outcomes)
        await eventually(lambda: len(embedder.asked) >= requests(manager)["loads"])
        await eventually(lambda: is_settled(manager))


# Options


async def test_options_hold_for_each_item(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    path, body = "/v1/embeddings", {"model": "m", "input": ["a", "b"]}

    async def call(**options: Any) -> Received:
        return await post(stack, upstream, path, body, extensions={"aurelis": options})

    assert (await call(only_if_cached=True)).status == 504
    await call(tags=["t"])
    assert (await call(only_if_cached=True)).is_hit
    await call(bypass=True)
    assert (await call(refresh=True)).cache_status.partition("; ")[2] == "fwd=request; fwd-status=200"
    assert embedder.asked == [["a", "b"]] * 3
    await call(ttl=0)
    await stack.manager.invalidate_tags("t")
    assert (await call()).is_hit  # what was loaded anew has no tag
    await stack.manager.invalidate_category("model")
    assert not (await call()).is_hit


async def test_chunks_that_are_embedded_together_are_one_answer(
    stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    for value in (["a", "b"], ["a", "b"], ["b"]):
        await post(stack, upstream, "/v1/embeddings", {"model": "m", "late_chunking": True, "input": value})
    assert embedder.asked == [["a", "b"], ["b"]]


async def test_an_answer_in_parts_is_no_answer_to_a_call_that_is_served_as_a_whole(
    stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    call = dump({"model": "m", "input": ["a", "b"]})
    for fields in ({}, {"content-digest": "sha-256=:x:"}, {}, {"content-digest": "sha-256=:x:"}):
        url = upstream.url + "/v1/embeddings"
        answer = await stack.send("POST", url, content=call, headers={**FIELDS, **fields})
        assert len(json.loads(answer.body)["data"]) == 2
    assert len(embedder.asked) == 2


async def test_a_ttl_of_0_keeps_no_item(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    caller = Caller(stack, upstream, ttl=0)
    for _ in range(2):
        await caller.embed(["a", "b"])
    assert len(embedder.asked) == 2


async def test_a_body_that_is_signed_is_left_as_it_is(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    for value in (["a"], ["a", "b"], ["a", "b"]):
        await stack.send(
            "POST",
            upstream.url + "/v1/embeddings",
            content=dump({"model": "m", "input": value}),
            headers={**FIELDS, "content-digest": "sha-256=:x:"},
        )
    assert embedder.asked == [["a"], ["a", "b"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_stale_items_stand_in_where_all_that_is_missing_can(kind: str, upstream: Upstream) -> None:
    clock, embedder = ManualClock(), Embedder()
    upstream.answer = embedder
    async with opened(clock=clock) as manager, closing(Stack(kind, manager)) as stack:
        caller = Caller(stack, upstream, ttl=60, stale_if_error=600, throttle=30)
        await caller.embed(["a", "b"])
        clock.advance(65)
        await caller.embed(["c"])
        embedder.fail = lambda asked: json_reply(FAILURE, status=503)
        assert await caller.embed(["c", "a", "b"]) == vectors(["c", "a", "b"])
        assert await caller.embed(["a", "b"]) == vectors(["a", "b"])  # not tried again
        assert embedder.asked == [["a", "b"], ["c"], ["a", "b"]]
        assert requests(manager) == {"miss": 2, "stale": 2, "loads": 2}
        assert count(manager, names.REFRESHES, {names.REFRESH_REASON: "error"}) == 1
        with pytest.raises(openai.InternalServerError):
            await caller.embed(["a", "new"])


@pytest.mark.parametrize("kind", KINDS)
async def test_stale_items_are_loaded_anew_in_the_background(kind: str, upstream: Upstream) -> None:
    clock, embedder = ManualClock(), Embedder()
    upstream.answer = embedder
    async with opened(clock=clock) as manager, closing(Stack(kind, manager)) as stack:
        caller = Caller(stack, upstream, ttl=60, stale_while_revalidate=600)
        await caller.embed(["a", "b"])
        clock.advance(65)
        await caller.embed(["c"])
        assert await caller.embed(["c", "a", "b"]) == vectors(["c", "a", "b"])
        await eventually(lambda: count(manager, names.STORES, {names.STORE_RESULT: "stored"}) == 5)
        assert await caller.embed(["a", "b"]) == vectors(["a", "b"])
        assert embedder.asked == [["a", "b"], ["c"], ["a", "b"]]
        assert requests(manager) == {"miss": 2, "stale": 1, "hit l1": 1, "loads": 2}
        assert items(manager) == {"miss": 2, "hit l1": 3, "stale": 2}


@pytest.mark.parametrize("kind", KINDS)
async def test_items_that_are_too_old_are_no_miss(kind: str, upstream: Upstream) -> None:
    clock = ManualClock()
    upstream.answer = Embedder()
    async with opened(clock=clock) as manager, closing(Stack(kind, manager)) as stack:
        client = stack.client(ttl=60, stale_if_error=600)
        for value, reason in ((["a", "b"], "miss"), (["b", "a"], "stale"), (["a", "c"], "miss")):
            body = {"model": "m", "input": value}
            answer = await post(stack, upstream, "/v1/embeddings", body, client=client)
            assert answer.headers["cache-status"] == f"{manager.config.name}; fwd={reason}; fwd-status=200"
            clock.advance(65)


async def test_a_failure_is_remembered_for_its_items(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    caller = Caller(stack, upstream, negative_ttl=30)
    await caller.embed(["c"])
    embedder.fail = lambda asked: json_reply(FAILURE, status=503)
    for value in (["a", "b"], ["a", "c"], "b"):
        with pytest.raises(openai.InternalServerError):
            await caller.embed(value)
    assert embedder.asked == [["c"], ["a", "b"]]
    assert await caller.embed(["c"]) == vectors(["c"])
    assert requests(stack.manager)["hit negative"] == 2


# Redis


async def test_items_are_shared_by_processes(
    stack: Stack, upstream: Upstream, embedder: Embedder, redis_url: str
) -> None:
    kind = f"{stack.library_name}-{'sync' if stack.blocking else 'async'}"
    namespace = configuration().name
    answers = []
    for value in (["a", "b"], ["b", "c", "a"], ["b", "c", "a"], "c"):
        config = configuration(redis_url=redis_url, namespace=namespace, timeout=5.0)
        async with opened(config) as manager, closing(Stack(kind, manager)) as own:
            answers.append(await Caller(own, upstream).call(value))
            counted = requests(manager)
    assert embedder.asked == [["a", "b"], ["c"]]
    assert answers[1].model_dump() == answers[2].model_dump()
    assert answers[1].usage.prompt_tokens == 3
    assert counted == {"hit l2": 1}


# Other protocols


async def test_cohere(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    path = "/v2/embed"
    body = {"model": "embed-v4.0", "input_type": "search_document", "embedding_types": ["float", "int8"]}

    async def call(texts: list[str], **changes: object) -> Any:
        return json.loads((await post(stack, upstream, path, {**body, "texts": texts, **changes})).body)

    await call(["a"])
    answer = await call(["b", "a", "c"])
    assert answer["embeddings"] == {name: [vector([name, text]) for text in "bac"] for name in ("float", "int8")}
    assert answer["texts"] == ["b", "a", "c"]
    assert answer["meta"] == {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 6}}
    assert (await call(["c", "b"]))["meta"]["billed_units"] == {"input_tokens": 0}
    assert await call(["b", "a", "c"]) == answer
    assert embedder.asked == [["a"], ["b", "c"]]
    await call(["a", "b"], input_type="search_query")
    await call(["a", "b"], embedding_types=["float"])
    assert len(embedder.asked) == 4
    texts = [f"text {number}" for number in range(100)]
    assert (await call(texts))["embeddings"]["float"] == [vector(["float", text]) for text in texts]
    assert [len(asked) for asked in embedder.asked[4:]] == [96, 4]


async def test_images_of_cohere_are_no_texts(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    body = {"model": "embed-v4.0", "input_type": "image", "embedding_types": ["float"]}
    embedder.change = lambda answer: {**answer, "texts": None, "images": [{"width": 1}] * len(embedder.asked[-1])}
    for kind in ("texts", "images", "images"):
        await post(stack, upstream, "/v2/embed", {**body, kind: ["data:image/png;base64,iVBO"]})
    assert len(embedder.asked) == 2


def content(text: str) -> dict[str, Any]:
    """A content of Gemini."""
    return {"parts": [{"text": text}]}


async def test_gemini(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    async def batch(*texts: str, **changes: object) -> Any:
        asked = [{"model": "models/embedding-001", "content": content(text), **changes} for text in texts]
        answer = await post(stack, upstream, f"{GEMINI}:batchEmbedContents", {"requests": asked})
        return [one["values"] for one in json.loads(answer.body)["embeddings"]]

    async def one(text: str, **changes: object) -> Any:
        answer = await post(stack, upstream, f"{GEMINI}:embedContent", {"content": content(text), **changes})
        return json.loads(answer.body)["embedding"]["values"]

    assert await batch("a", "b") == vectors([content("a"), content("b")])
    assert await batch("c", "b") == vectors([content("c"), content("b")])
    assert await one("a") == await one("a", model="models/embedding-001") == vector(content("a"))
    assert await one("d") == vector(content("d"))
    assert await batch("d") == vectors([content("d")])
    assert embedder.asked == [[content("a"), content("b")], [content("c")], [content("d")]]
    await batch("a", "b", taskType="RETRIEVAL_QUERY")
    await one("a", taskType="RETRIEVAL_DOCUMENT")
    assert len(embedder.asked) == 5
    texts = [f"text {number}" for number in range(101)]
    assert await batch(*texts) == vectors([content(text) for text in texts])
    assert [len(asked) for asked in embedder.asked[5:]] == [100, 1]


async def test_ollama(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    async def call(value: object) -> Any:
        return json.loads((await post(stack, upstream, "/api/embed", {"model": "all-minilm", "input": value})).body)

    await call("a")
    answer = await call(["b", "a"])
    assert answer["embeddings"] == vectors(["b", "a"])
    assert answer["prompt_eval_count"] == 3
    assert await call(["b", "a"]) == answer
    assert (await call(["a", "b"]))["total_duration"] == 0
    assert embedder.asked == [["a"], ["b"]]


# What must not go wrong


async def test_items_may_be_kept_for_ever(stack: Stack, upstream: Upstream, embedder: Embedder) -> None:
    client = stack.client(ttl=math.inf)
    for value in (["a", "b"], ["b", "a"], ["a", "c"]):
        answer = await post(stack, upstream, "/v1/embeddings", {"model": "m", "input": value}, client=client)
        assert answer.status == 200
        assert [one["embedding"] for one in json.loads(answer.body)["data"]] == vectors(value)
    assert embedder.asked == [["a", "b"], ["c"]]


@pytest.mark.parametrize("remembered", [True, False])
async def test_an_error_in_a_coding_that_nobody_asked_for_is_given_with_it(
    stack: Stack, upstream: Upstream, embedder: Embedder, remembered: bool
) -> None:
    body = gzip.compress(dump(FAILURE))
    headers = [("content-type", "application/json"), ("content-encoding", "gzip")]
    embedder.fail = lambda asked: Reply(503, headers, [body])
    client = stack.client(negative_ttl=30 if remembered else 0)
    fields = {**FIELDS, "accept-encoding": "identity"}
    for _ in range(2):
        call = {"content": dump({"model": "m", "input": ["a", "b"]}), "headers": fields}
        response = await stack.request("POST", upstream.url + "/v1/embeddings", client=client, **call)
        assert response.status_code == 503
        assert response.json() == FAILURE


async def test_who_leaves_before_the_provider_is_asked_is_counted_apart_from_the_load(
    async_stack: Stack, upstream: Upstream, embedder: Embedder, redis_url: str
) -> None:
    with Proxy(redis_url) as proxy:
        async with (
            opened(configuration(redis_url=proxy.url, timeout=5.0)) as manager,
            closing(Stack(f"{async_stack.library_name}-async", manager)) as stack,
        ):
            caller = Caller(stack, upstream)
            await caller.embed(["before"])
            proxy.apply(Latency(0.2))
            leading = asyncio.create_task(caller.embed(["a", "b"]))
            await eventually(lambda: manager._engine.flights._flights)
            following = asyncio.create_task(caller.embed("a"))
            await eventually(lambda: manager._engine.flights.waiting)
            leading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leading
            assert embedder.asked == [["before"]]
            proxy.apply(Pass())
            assert await following == vectors(["a"])
            await eventually(lambda: is_settled(manager))
            assert embedder.asked == [["before"], ["a", "b"]]
            assert requests(manager)["loads"] + count(manager, names.REFRESHES) == 2


async def test_a_body_that_counts_in_a_signature_is_left_as_it_is(
    stack: Stack, upstream: Upstream, embedder: Embedder
) -> None:
    fields = {**FIELDS, "authorization": "AWS4-HMAC-SHA256 Credential=k/d/r/s/aws4_request, Signature=0"}
    for value in (["a", "a"], ["a", "b"]):
        body = dump({"model": "m", "input": value})
        await stack.send("POST", upstream.url + "/v1/embeddings", content=body, headers=fields)
    assert embedder.asked == [["a", "a"], ["a", "b"]]


@pytest.mark.parametrize("name", ["Idempotency-Key", "x-idempotency-key", "repeatability-request-id"])
async def test_a_request_that_must_not_be_taken_for_another_is_left_as_it_is(
    stack: Stack, upstream: Upstream, embedder: Embedder, name: str
) -> None:
    """Two bodies with one such key would be one request to the provider."""
    await post(stack, upstream, "/v1/embeddings", {"model": "m", "input": ["a", "b"]})
    for _ in range(2):
        body = dump({"model": "m", "input": ["b", "c", "c"]})
        await stack.send("POST", upstream.url + "/v1/embeddings", content=body, headers={**FIELDS, name: "1"})
    assert embedder.asked == [["a", "b"], ["b", "c", "c"]]


@pytest.mark.parametrize("order", [["new", "old"], ["old", "new"]])
async def test_vectors_of_different_types_are_not_put_together(
    stack: Stack, upstream: Upstream, embedder: Embedder, order: list[str]
) -> None:
    await post(stack, upstream, "/v2/embed", {"model": "m", "texts": ["old", "x"]})
    embedder.change = lambda answer: {
        **answer,
        "embeddings": {**answer["embeddings"], "int8": [[1] for _ in answer["embeddings"]["float"]]},
    }
    answer = await post(stack, upstream, "/v2/embed", {"model": "m", "texts": order})
    embeddings = json.loads(answer.body)["embeddings"]
    assert embeddings["float"] == [vector(["float", text]) for text in order]
    assert embeddings["int8"] == [[1], [1]]
    assert embedder.asked == [["old", "x"], ["new"], order]
