"""What callers want of the cache: around their calls, with a request, or for a transport."""

import asyncio
import contextvars
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from aurelis.cache import CacheManager, cache_options
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import StoredResponse
from aurelis.cache.telemetry import names
from tests.client.model_server import Model
from tests.client.stack import Received, Stack, in_thread
from tests.client.test_protocols import ask
from tests.client.upstream import Asked, Reply, Upstream, json_reply
from tests.managers import configuration, opened, series
from tests.models.examples import completion, event, piece
from tests.models.wire import WIRES, Wire

WIRE = WIRES["OPENAI_CHAT"]
Way = Callable[..., Awaitable[Received]]


async def by_context(stack: Stack, upstream: Upstream, wire: Wire = WIRE, **options: Any) -> Received:
    with cache_options(**options):
        if not stack.blocking:
            return await ask(stack, upstream, wire)
        # The stack calls what blocks in threads of its own, which begin with an empty context.
        context = contextvars.copy_context()
        path, body = wire.call(stream=False)
        client = stack.client()
        sent = await in_thread(lambda: context.run(client.post, upstream.url + path, json=body, headers=FIELDS))
        return Received(sent.status_code, dict(sent.headers), [sent.content], sent.request)


async def by_extension(stack: Stack, upstream: Upstream, wire: Wire = WIRE, **options: Any) -> Received:
    return await ask(stack, upstream, wire, extensions={"aurelis": options})


async def by_fields(stack: Stack, upstream: Upstream, wire: Wire = WIRE, **options: Any) -> Received:
    words = {"refresh": "no-cache", "bypass": "no-store", "only_if_cached": "only-if-cached"}
    directives = [word for name, word in words.items() if options.get(name)]
    if "ttl" in options:
        directives.append(f"max-age={options['ttl']}")
    headers = {}
    if directives:
        headers["X-Cache-Control"] = ", ".join(directives)
    if "namespace" in options:
        headers["X-Cache-Namespace"] = options["namespace"]
    if "tags" in options:
        headers["X-Cache-Tags"] = ", ".join(options["tags"])
    return await ask(stack, upstream, wire, headers=headers)


FIELDS = {"authorization": "Bearer sk-one"}
WAYS = pytest.mark.parametrize("way", [by_context, by_extension, by_fields])


@pytest.fixture(autouse=True)
def model(upstream: Upstream) -> None:
    upstream.answer = Model(WIRE)


@WAYS
async def test_bypass(stack: Stack, upstream: Upstream, way: Way) -> None:
    await ask(stack, upstream, WIRE)
    for _ in range(2):
        answer = await way(stack, upstream, bypass=True)
        assert "fwd=bypass" in answer.cache_status
    assert upstream.calls == 3
    assert (await ask(stack, upstream, WIRE)).is_hit
    assert series(stack.manager, names.REQUESTS)[((names.RESULT, names.BYPASS),)] == 2


@WAYS
async def test_refresh(stack: Stack, upstream: Upstream, way: Way) -> None:
    await ask(stack, upstream, WIRE)
    upstream.replies(json_reply(completion(id="new")))
    assert b'"new"' in (await way(stack, upstream, refresh=True)).body
    again = await ask(stack, upstream, WIRE)
    assert again.is_hit
    assert b'"new"' in again.body
    assert upstream.calls == 2


@WAYS
async def test_only_if_cached(stack: Stack, upstream: Upstream, way: Way) -> None:
    refused = await way(stack, upstream, only_if_cached=True)
    assert refused.status == 504
    assert refused.headers["x-should-retry"] == "false"
    assert upstream.calls == 0
    await ask(stack, upstream, WIRE)
    assert (await way(stack, upstream, only_if_cached=True)).is_hit


@WAYS
async def test_namespaces_share_nothing(stack: Stack, upstream: Upstream, way: Way) -> None:
    await ask(stack, upstream, WIRE)
    for name in ("one", "two"):
        assert not (await way(stack, upstream, namespace=name)).is_hit
        assert (await way(stack, upstream, namespace=name)).is_hit
    assert upstream.calls == 3
    assert (await ask(stack, upstream, WIRE)).is_hit


@WAYS
async def test_ttl(stack: Stack, upstream: Upstream, way: Way) -> None:
    await way(stack, upstream, ttl=0)
    assert not (await way(stack, upstream, ttl=7)).is_hit
    left = re.search(r"ttl=(\d+)", (await ask(stack, upstream, WIRE)).cache_status)
    assert left is not None
    assert int(left[1]) <= 7
    assert upstream.calls == 2


@WAYS
async def test_tags(stack: Stack, upstream: Upstream, way: Way) -> None:
    await way(stack, upstream, tags=["a", "b"])
    assert (await ask(stack, upstream, WIRE)).is_hit
    await stack.manager.invalidate_tags("b")
    assert not (await ask(stack, upstream, WIRE)).is_hit


async def test_fields_for_the_cache_do_not_leave_it(stack: Stack, upstream: Upstream) -> None:
    headers = {"X-Cache-Control": "no-store", "x-cache-namespace": "n", "x-cache-tags": "t", "x-other": "1"}
    await ask(stack, upstream, WIRE, headers=headers)
    await stack.send("PUT", f"{upstream.url}/v1/files", content=b"x", headers=headers)
    for asked in upstream.asked:
        assert not any(name.startswith("x-cache") for name in asked.headers)
        assert asked.headers["x-other"] == "1"
        assert asked.body


async def test_a_request_can_be_sent_again_with_its_fields(async_stack: Stack, upstream: Upstream) -> None:
    client = async_stack.client()
    path, body = WIRE.call(stream=False)
    request = client.build_request("POST", upstream.url + path, json=body, headers={"x-cache-namespace": "n"})
    responses = [await client.send(request) for _ in range(2)]
    assert upstream.calls == 1
    assert request.headers["x-cache-namespace"] == "n"
    assert all(response.request is request for response in responses)


async def test_inner_options_win(async_stack: Stack, upstream: Upstream) -> None:
    with cache_options(bypass=True, tags=["outer"]):
        with cache_options(bypass=False, tags=["inner"]):
            await ask(async_stack, upstream, WIRE)
            assert (await ask(async_stack, upstream, WIRE)).is_hit
        await ask(async_stack, upstream, WIRE)
        assert (await by_fields(async_stack, upstream, only_if_cached=True)).is_hit
        assert not (await ask(async_stack, upstream, WIRE)).is_hit
    assert upstream.calls == 3
    await async_stack.manager.invalidate_tags("outer")
    assert not (await ask(async_stack, upstream, WIRE)).is_hit


async def test_options_reach_tasks_and_threads_that_copy_the_context(async_stack: Stack, upstream: Upstream) -> None:
    with cache_options(namespace="n"):
        await asyncio.create_task(ask(async_stack, upstream, WIRE))
    assert not (await ask(async_stack, upstream, WIRE)).is_hit
    with cache_options(namespace="n"):
        assert (await ask(async_stack, upstream, WIRE)).is_hit


async def test_options_end_with_their_block(async_stack: Stack, upstream: Upstream) -> None:
    with pytest.raises(RuntimeError), cache_options(bypass=True):
        raise RuntimeError
    await ask(async_stack, upstream, WIRE)
    assert (await ask(async_stack, upstream, WIRE)).is_hit


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ttl": -1}, "ttl"),
        ({"ttl": "1"}, "ttl"),
        ({"namespace": 7}, "namespace"),
        ({"tags": "a"}, "tags"),
        ({"tags": [7]}, "tag"),
        ({"tags": [""]}, "tag"),
        ({"bypass": 1}, "bypass"),
        ({"refresh": True, "only_if_cached": True}, "contradict"),
    ],
    ids=str,
)
async def test_wrong_options_are_refused_where_they_are_given(
    stack: Stack, upstream: Upstream, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text), cache_options(**options):
        pytest.fail("it was accepted")
    with pytest.raises(ConfigurationError, match=text):
        await by_extension(stack, upstream, **options)
    assert upstream.calls == 0


@pytest.mark.parametrize(
    ("extensions", "headers", "text"),
    [
        ({"aurelis": 7}, {}, "mapping"),
        ({"aurelis": {"tll": 7}}, {}, "'tll' is none of"),
        ({}, {"x-cache-control": "max-age=-1"}, "max-age"),
        ({}, {"x-cache-control": "no-cash"}, "'no-cash' is none of"),
        ({}, {"x-cache-control": "no-cache, no-store"}, "contradict"),
    ],
    ids=str,
)
async def test_what_a_request_says_wrongly_is_refused(
    stack: Stack, upstream: Upstream, extensions: dict[str, Any], headers: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        await ask(stack, upstream, WIRE, extensions=extensions, headers=headers)
    assert upstream.calls == 0


async def test_plain_requests_have_options_too(stack: Stack, upstream: Upstream) -> None:
    upstream.answer = lambda asked: Reply(200, [("cache-control", "max-age=60")], [b"x"])
    url = f"{upstream.url}/plain"
    await stack.get(url)
    assert (await stack.get(url)).is_hit
    assert "fwd=bypass" in (await stack.get(url, extensions={"aurelis": {"bypass": True}})).cache_status
    assert not (await stack.get(url, headers={"x-cache-namespace": "n"})).is_hit
    assert (await stack.get(url, headers={"x-cache-namespace": "n"})).is_hit
    assert not (await stack.get(url, extensions={"aurelis": {"refresh": True}})).is_hit
    other = f"{upstream.url}/other"
    assert (await stack.get(other, extensions={"aurelis": {"only_if_cached": True}})).status == 504


# Options of transports


async def test_a_namespace_of_the_transport_is_asked_for_each_request(stack: Stack, upstream: Upstream) -> None:
    tenants = iter(["one", "one", "two", None, "two"])
    client = stack.client(namespace=lambda: next(tenants))
    hits = [(await ask(stack, upstream, WIRE, client=client)).is_hit for _ in range(5)]
    assert hits == [False, True, False, False, True]


async def test_no_call_leaves_the_namespace_of_its_transport(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(namespace="tenant")
    extension = {"aurelis": {"namespace": "n"}}
    await ask(stack, upstream, WIRE, extensions=extension)
    assert not (await ask(stack, upstream, WIRE, client=client, extensions=extension)).is_hit
    assert (await ask(stack, upstream, WIRE, client=client, extensions=extension)).is_hit
    assert not (await ask(stack, upstream, WIRE, client=client)).is_hit


async def test_a_namespace_that_fails_shares_nothing(stack: Stack, upstream: Upstream) -> None:
    def fail() -> str:
        raise LookupError("no tenant")

    with pytest.raises(LookupError, match="no tenant"):
        await ask(stack, upstream, WIRE, client=stack.client(namespace=fail))
    with pytest.raises(ConfigurationError, match="namespace"):
        await ask(stack, upstream, WIRE, client=stack.client(namespace=lambda: 7))
    assert upstream.calls == 0


async def test_max_temperature(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(max_temperature=0.5)
    for temperature, hits in ((0.5, True), (0.6, False)):
        await ask(stack, upstream, WIRE, client=client, temperature=temperature)
        again = await ask(stack, upstream, WIRE, client=client, temperature=temperature)
        assert again.is_hit is hits
    assert "detail=temperature" in (await ask(stack, upstream, WIRE, client=client)).cache_status
    embeddings = WIRES["EMBEDDINGS"]
    upstream.answer = Model(embeddings)
    await ask(stack, upstream, embeddings, client=client)
    assert (await ask(stack, upstream, embeddings, client=client)).is_hit


async def test_variants_are_given_in_turn(stack: Stack, upstream: Upstream) -> None:
    def answer(asked: Asked) -> Reply:
        return json_reply(completion(id=f"answer {upstream.calls}"))

    upstream.answer = answer
    client = stack.client(variants=3)
    bodies = [(await ask(stack, upstream, WIRE, client=client)).body for _ in range(9)]
    assert upstream.calls == 3
    assert len(set(bodies)) == 3
    assert bodies[:3] * 3 == bodies


async def test_the_user_keeps_calls_apart_where_that_is_wanted(stack: Stack, upstream: Upstream) -> None:
    await ask(stack, upstream, WIRE, user="one")
    assert (await ask(stack, upstream, WIRE, user="two")).is_hit
    client = stack.client(partition_by_user=True)
    await ask(stack, upstream, WIRE, client=client, user="one")
    assert not (await ask(stack, upstream, WIRE, client=client, user="two")).is_hit


async def test_more_fields_keep_calls_apart(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(key_headers=["X-Tenant"])
    for tenant in ("one", "two"):
        assert not (await ask(stack, upstream, WIRE, client=client, headers={"x-tenant": tenant})).is_hit
        assert (await ask(stack, upstream, WIRE, client=client, headers={"x-tenant": tenant})).is_hit


async def test_answers_cut_short_are_kept_where_that_is_wanted(stack: Stack, upstream: Upstream) -> None:
    upstream.answer = Model(WIRE, frozenset({"length"}))
    client = stack.client(keep=["length"])
    await ask(stack, upstream, WIRE, client=client)
    assert (await ask(stack, upstream, WIRE, client=client)).is_hit


async def test_operations_are_opted_in(stack: Stack, upstream: Upstream) -> None:
    upstream.answer = lambda asked: Reply(200, [("content-type", "audio/mpeg")], [b"\xff\xfb"], length=True)
    client = stack.client(operations=["audio"])
    call = {"model": "tts-1", "input": "Hello", "voice": "alloy"}
    for hit in (False, True):
        answer = await stack.send("POST", f"{upstream.url}/v1/audio/speech", client=client, json=call)
        assert answer.is_hit is hit
        assert answer.body == b"\xff\xfb"


async def test_what_is_spoken_below_a_base_url_can_be_said(stack: Stack, upstream: Upstream) -> None:
    protocols = {
        f"{upstream.url}/gateway": "openai/chat",
        f"{upstream.url}/gateway/none": None,
        f"{upstream.url}/cohere": "cohere",
    }
    client = stack.client(protocols=protocols)
    path, body = WIRE.call(stream=False)
    for target, hit in (
        (path, True),
        ("/gateway", True),
        ("/gateway/ask?x=1", True),
        (f"/gateway/none{path}", False),
        (f"/cohere{path}", False),
        ("/gatewayish", False),
    ):
        await stack.send("POST", upstream.url + target, client=client, json=body)
        answer = await stack.send("POST", upstream.url + target, client=client, json=body)
        assert answer.is_hit is hit, target


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"variants": 0}, ConfigurationError, "variants"),
        ({"namespace": 7}, ConfigurationError, "namespace"),
        ({"partition_by_user": "yes"}, ConfigurationError, "partition_by_user"),
        ({"max_temperature": -1}, ConfigurationError, "max_temperature"),
        ({"max_temperature": "cold"}, ConfigurationError, "max_temperature"),
        ({"keep": ["aborted"]}, ConfigurationError, "'aborted' is none of"),
        ({"keep": "length"}, TypeError, "keep"),
        ({"key_headers": "x"}, TypeError, "key_headers"),
        ({"operations": ["video"]}, ConfigurationError, "'video' is none of"),
        ({"operations": "audio"}, TypeError, "operations"),
        ({"protocols": {"https://x": "openay"}}, ConfigurationError, "'openay' is none of"),
        ({"protocols": {"x": "openai"}}, ConfigurationError, "no base URL"),
        ({"pacing": "slow"}, ConfigurationError, "pacing"),
        ({"pacing": 0}, ConfigurationError, "pacing"),
        ({"pacing": True}, ConfigurationError, "pacing"),
        ({"pacing": float("inf")}, ConfigurationError, "pacing"),
        ({"variant": 2}, TypeError, "variant"),
    ],
    ids=str,
)
def test_wrong_options_of_a_transport_are_refused(
    stack: Stack, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        stack.transport(**options)


# Pacing


class Pauses:
    """Notes for how long a replay sleeps, and does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noted: list[float] = []
        # In that module alone: others sleep at the same time.
        monkeypatch.setattr("aurelis.cache.client._bodies.time", SimpleNamespace(sleep=self.noted.append))
        monkeypatch.setattr(
            "aurelis.cache.client._bodies.asyncio", SimpleNamespace(sleep=self._sleep, timeout=asyncio.timeout)
        )

    async def _sleep(self, seconds: float) -> None:
        self.noted.append(seconds)


@pytest.mark.parametrize(
    ("pacing", "expected"), [("burst", []), (50.0, [0.0, 0.02, 0.02, 0.02]), (4, [0.0, 0.25, 0.25, 0.25])]
)
async def test_a_stream_is_given_at_a_rate(
    stack: Stack, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, pacing: Any, expected: list[float]
) -> None:
    client = stack.client(pacing=pacing)
    wire = WIRES["OPENAI_CHAT"]
    parts = [event(piece("a")), event(piece("b")), event(piece(None, "stop")), b"data: [DONE]\n\n"]
    upstream.replies(Reply(200, [("content-type", "text/event-stream")], parts))
    first = await ask(stack, upstream, wire, stream=True, client=client)
    pauses = Pauses(monkeypatch)
    for _ in range(2):
        pauses.noted.clear()
        again = await ask(stack, upstream, wire, stream=True, client=client)
        assert again.is_hit
        assert again.chunks == first.chunks
        assert pauses.noted == expected[: len(first.chunks)]


async def test_a_stream_is_given_as_it_came(stack: Stack, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    client = stack.client(pacing="recorded")
    first = await ask(stack, upstream, WIRE, stream=True, client=client)
    memory = stack.manager._engine.stack.memory
    assert memory is not None
    (entry,) = memory.entries.values()
    stored = entry.value
    assert isinstance(stored, StoredResponse)
    pauses = Pauses(monkeypatch)
    again = await ask(stack, upstream, WIRE, stream=True, client=client)
    assert again.chunks == first.chunks
    assert pauses.noted == [pause / 1000 for pause in stored.pauses]
    assert len(stored.pauses) == len(first.chunks)


# With a layer that processes share


async def test_options_hold_for_what_other_processes_stored(stack: Stack, upstream: Upstream, redis_url: str) -> None:
    async with (
        opened(configuration(redis_url=redis_url, timeout=10)) as one,
        opened(configuration(redis_url=redis_url, timeout=10)) as two,
    ):
        here, there = (stack.client(cache=manager, pacing="recorded") for manager in (one, two))
        options = {"aurelis": {"tags": ["a"], "namespace": "n", "ttl": 60}}
        only = {"aurelis": {"only_if_cached": True, "namespace": "n"}}
        refresh = {"aurelis": {"refresh": True, "namespace": "n", "tags": ["a"]}}
        for stream in (False, True):
            first = await ask(stack, upstream, WIRE, client=here, stream=stream, extensions=options)
            found = await ask(stack, upstream, WIRE, client=there, stream=stream, extensions=only)
            assert found.is_hit
            assert found.chunks == first.chunks
        refused = await ask(stack, upstream, WIRE, client=there, extensions={"aurelis": {"only_if_cached": True}})
        assert refused.status == 504
        calls = upstream.calls
        assert not (await ask(stack, upstream, WIRE, client=there, extensions=refresh)).is_hit
        assert upstream.calls == calls + 1
        await two.invalidate_tags("a")
        for stream in (False, True):
            gone = await ask(stack, upstream, WIRE, client=there, stream=stream, extensions=only)
            assert gone.status == 504


@pytest.mark.parametrize("name", WIRES)
async def test_keys_and_headers_tell_nothing(async_stack: Stack, upstream: Upstream, redis_url: str, name: str) -> None:
    wire = WIRES[name]
    upstream.answer = Model(wire)
    planted = {"credential": "sk-planted", "namespace": "tenant-planted", "user": "user-planted"}
    headers = {"authorization": f"Bearer {planted['credential']}", "x-api-key": planted["credential"]}
    async with opened(configuration(redis_url=redis_url, timeout=10)) as manager:
        client = async_stack.client(cache=manager, namespace=planted["namespace"], partition_by_user=True)
        for _ in range(2):
            answer = await ask(
                async_stack,
                upstream,
                wire,
                client=client,
                headers=headers,
                user=planted["user"],
                words="prompt-planted",
            )
        assert answer.is_hit
        shown = [*keys_in_memory(manager), *answer.headers.items()]
    assert shown
    assert "planted" not in str(shown)


def keys_in_memory(manager: CacheManager) -> list[str]:
    memory = manager._engine.stack.memory
    assert memory is not None
    return list(memory.entries)
