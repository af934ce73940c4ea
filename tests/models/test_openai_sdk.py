"""What the official SDK really sends is recognised, has a stable key, and reads what was kept."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest

from aurelis.cache._decisions import Store
from aurelis.cache.http import StoredResponse, combine
from aurelis.cache.models import ModelRequest, clean_url, partition, recognise
from tests.models.examples import (
    JSON_HEADERS,
    POLICY,
    SECRET,
    STREAM,
    STREAM_HEADERS,
    chat,
    completion,
    dump,
    loaded,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": {"type": "object", "properties": {"name": {"type": "string"}}}},
}
CALLS: dict[str, dict[str, object]] = {
    "plain": {},
    "parameters": {"temperature": 0.7, "top_p": 0.95, "max_completion_tokens": 64, "seed": 7, "stop": ["\n"]},
    "tools": {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    "response format": {"response_format": SCHEMA},
    "several choices": {"n": 3, "logprobs": True, "top_logprobs": 2},
    "unknown field": {"extra_body": {"num_ctx": 8192}},
    "vision": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it? 🐈"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                ],
            }
        ]
    },
    "tool answer": {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        "tools": [TOOL],
    },
}

Answer = Callable[[httpx2.Request], httpx2.Response]


class Upstream:
    """A provider in memory that keeps the requests it got."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.requests: list[httpx2.Request] = []
        self._answer = answer or self._whole

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self._answer(request)

    @staticmethod
    def _whole(request: httpx2.Request) -> httpx2.Response:
        if b'"stream":true' in request.content:
            return httpx2.Response(200, headers=list(STREAM_HEADERS), content=b"".join(STREAM))
        return httpx2.Response(200, headers=list(JSON_HEADERS), content=dump(completion()))

    @property
    def keys(self) -> list[str]:
        """The keys of all requests, in order."""
        return [POLICY.key(recognised(request)) for request in self.requests]


def recognised(request: httpx2.Request) -> ModelRequest:
    """The request as a transport hands it to the rules."""
    fields = combine([(name.lower(), value) for name, value in request.headers.raw])
    call = recognise(request.method, request.url.path, fields.get(b"content-type", b""), request.content)
    assert call is not None
    query = request.url.query.decode("ascii")
    return ModelRequest(clean_url(str(request.url)), fields, call, partition(fields, query, SECRET))


Connect = Callable[..., openai.OpenAI]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that makes a client of an upstream; all are closed in the end."""
    clients: list[openai.OpenAI] = []

    def make(upstream: Upstream, **options: Any) -> openai.OpenAI:  # Any: handed on to the SDK as it is
        http_client = httpx2.Client(transport=httpx2.MockTransport(upstream))
        client = openai.OpenAI(**{"api_key": "sk-one", "http_client": http_client, **options})
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def ask(client: openai.OpenAI, **changes: Any) -> object:  # Any: the SDK's own types say what may be in it
    """One call, read to its end."""
    extra = {name: changes.pop(name) for name in ("extra_body", "extra_headers") if name in changes}
    answer = client.chat.completions.create(**chat(**changes), **extra)  # type: ignore[call-overload]  # as above
    return list(answer) if changes.get("stream") else answer


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_identical_calls_have_one_key(connect: Connect, call: dict[str, object], stream: bool) -> None:
    upstream = Upstream()
    changes = {**call, "stream": True, "stream_options": {"include_usage": True}} if stream else call
    for client in (connect(upstream), connect(upstream)):
        ask(client, **changes)
        ask(client, **changes)
    assert len(upstream.keys) == 4
    assert len(set(upstream.keys)) == 1
    assert recognised(upstream.requests[0]).call.stream is stream


def test_all_these_calls_have_different_keys(connect: Connect) -> None:
    upstream = Upstream()
    client = connect(upstream)
    for call in CALLS.values():
        ask(client, **call)
        ask(client, **call, stream=True)
    assert len(set(upstream.keys)) == 2 * len(CALLS)


def test_a_retry_has_the_key_of_the_call(connect: Connect) -> None:
    answers = [
        httpx2.Response(429, headers={"retry-after-ms": "1"}, json={"error": {"message": "slow down"}}),
        httpx2.Response(500, headers={"retry-after-ms": "1"}, json={"error": {"message": "oops"}}),
        httpx2.Response(200, json=completion()),
    ]
    upstream = Upstream(lambda request: answers.pop(0))
    ask(connect(upstream, max_retries=2))
    counts = [request.headers["x-stainless-retry-count"] for request in upstream.requests]
    assert counts == ["0", "1", "2"]
    assert len(set(upstream.keys)) == 1


def test_cookies_of_the_provider_do_not_change_the_key(connect: Connect) -> None:
    cookie = httpx2.Response(200, headers={"set-cookie": "__cf_bm=x; path=/"}, json=completion())
    upstream = Upstream(lambda request: cookie)
    client = connect(upstream)
    ask(client)
    ask(client)
    assert "__cf_bm" in upstream.requests[1].headers["cookie"]
    assert len(set(upstream.keys)) == 1


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"api_key": "sk-two"}, {}),
        ({"base_url": "https://example.org/v1"}, {}),
        ({"organization": "org"}, {}),
        ({"project": "proj"}, {}),
        ({"default_query": {"api-version": "1"}}, {}),
        ({}, {"extra_headers": {"OpenAI-Beta": "x"}}),
        ({}, {"model": "gpt-4o"}),
        ({}, {"messages": [{"role": "user", "content": "Bye"}]}),
        ({}, {"extra_body": {"num_ctx": 8192}}),
        ({}, {"seed": 1}),
        ({}, {"tools": [TOOL], "tool_choice": "required"}),
        ({}, {"stream": True}),
    ],
    ids=str,
)
def test_another_call_has_another_key(connect: Connect, options: dict[str, object], changes: dict[str, object]) -> None:
    upstream = Upstream()
    ask(connect(upstream))
    ask(connect(upstream, **options), **changes)
    assert len(set(upstream.keys)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"safety_identifier": "u"},
        {"prompt_cache_key": "k"},
        {"stream": False},
        {"extra_headers": {"X-Trace": "1"}},
    ],
    ids=str,
)
def test_what_leaves_the_answer_alone_leaves_the_key_alone(connect: Connect, changes: dict[str, object]) -> None:
    upstream = Upstream()
    client = connect(upstream)
    ask(client)
    ask(client, **changes)
    assert len(set(upstream.keys)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_was_kept_reads_as_the_original(connect: Connect, stream: bool) -> None:
    """The SDK breaks off at the terminator and never reads further; what it gets must end there too."""
    upstream = Upstream()
    original = ask(connect(upstream), stream=stream)
    chunks = STREAM if stream else (dump(completion()),)
    headers = STREAM_HEADERS if stream else JSON_HEADERS
    decision = POLICY.on_loaded(recognised(upstream.requests[0]), loaded(*chunks, headers=headers))
    assert isinstance(decision, Store)
    kept = decision.value
    assert isinstance(kept, StoredResponse)
    response = httpx2.Response(kept.status, headers=list(kept.headers), content=iter(kept.chunks))
    replay = Upstream(lambda request: response)
    assert ask(connect(replay), stream=stream) == original


def test_azure_calls_are_recognised(connect: Connect) -> None:
    upstream = Upstream()
    for api_key in ("one", "two"):
        with openai.AzureOpenAI(
            api_key=api_key,
            api_version="2025-01-01",
            azure_endpoint="https://example.openai.azure.com",
            http_client=httpx2.Client(transport=httpx2.MockTransport(upstream)),
        ) as client:
            ask(client)
            ask(client)
    one, again, two, _ = upstream.keys
    assert one == again != two
