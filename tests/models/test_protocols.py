"""Every protocol: its calls are recognised, whole answers are kept with their usage, and nothing else is."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache._decisions import Discard, Store
from aurelis.cache.http import Fields, ResponseHead, StoredResponse
from aurelis.cache.models import OPTIONAL, PROFILES, ModelPolicy, ModelRequest, recognise
from tests.models.examples import FIELDS, JSON_HEADERS, POLICY, dump, loaded, request_for
from tests.models.wire import STREAMS, WIRES, Wire

WIRE = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
STREAM_WIRE = pytest.mark.parametrize("wire", STREAMS.values(), ids=STREAMS.keys())
CUTTABLE = [wire for wire in WIRES.values() if wire.cut]


def request_of(wire: Wire, *, stream: bool = False, **changes: Any) -> ModelRequest:
    path, body = wire.call(stream=stream, **changes)
    return request_for(dump(body), url=f"https://models.example{path.partition('#')[0]}")


def stream_headers(wire: Wire) -> Fields:
    return ((b"content-type", wire.content_type.encode()),)


def decide(wire: Wire, *chunks: bytes, policy: ModelPolicy = POLICY) -> Store | Discard:
    return policy.on_loaded(request_of(wire, stream=True), loaded(*chunks, headers=stream_headers(wire)))


def decide_whole(wire: Wire, document: object, policy: ModelPolicy = POLICY) -> Store | Discard:
    return policy.on_loaded(request_of(wire), loaded(dump(document)))


def tokens(decision: Store | Discard) -> tuple[int | None, int | None]:
    assert isinstance(decision, Store)
    assert isinstance(decision.value, StoredResponse)
    return decision.value.input_tokens, decision.value.output_tokens


def is_ended(wire: Wire, *chunks: bytes) -> bool:
    request = request_of(wire, stream=True)
    terminator = POLICY.terminator(request, ResponseHead(200, stream_headers(wire)))
    assert terminator is not None
    return [terminator.feed(chunk) for chunk in chunks][-1]


@WIRE
def test_a_call_is_recognised(wire: Wire) -> None:
    call = request_of(wire).call
    assert f"{call.profile.name}/{call.operation}" == wire.name
    assert not call.stream


@STREAM_WIRE
def test_a_call_for_a_stream_is_another_call(wire: Wire) -> None:
    streamed = request_of(wire, stream=True)
    assert streamed.call.stream
    assert POLICY.key(streamed) != POLICY.key(request_of(wire))


def test_all_calls_have_keys_of_their_own() -> None:
    keys = {POLICY.key(request_of(wire)) for wire in WIRES.values()}
    assert len(keys) == len({dump([wire.call(stream=False)]) for wire in WIRES.values()})


@WIRE
def test_the_order_of_fields_does_not_count(wire: Wire) -> None:
    path, body = wire.call(stream=False)
    url = f"https://models.example{path.partition('#')[0]}"
    backwards = json.dumps(dict(reversed(body.items())), indent=1).encode()
    assert POLICY.key(request_for(backwards, url=url)) == POLICY.key(request_for(dump(body), url=url))


@WIRE
def test_unknown_fields_count(wire: Wire) -> None:
    assert POLICY.key(request_of(wire, num_ctx=8192)) != POLICY.key(request_of(wire))


@WIRE
@pytest.mark.parametrize("field", [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])
def test_credentials_count(wire: Wire, field: bytes) -> None:
    path, body = wire.call(stream=False)
    url = f"https://models.example{path.partition('#')[0]}"
    keys = {POLICY.key(request_for(dump(body), url=url, fields={**FIELDS, field: value})) for value in (b"one", b"two")}
    assert len(keys) == 2


@pytest.mark.parametrize("name", ["OPENAI_CHAT", "COHERE", "ANTHROPIC", "RESPONSES"])
def test_an_explicit_default_of_stream_is_none(name: str) -> None:
    wire = WIRES[name]
    assert POLICY.key(request_of(wire, stream=False)) == POLICY.key(
        request_for(dump({**wire.body, "stream": False}), url=f"https://models.example{wire.path}")
    )


def test_ollama_streams_unless_it_is_told() -> None:
    body = {name: value for name, value in WIRES["OLLAMA_CHAT"].body.items() if name != "stream"}
    url = "https://models.example/api/chat"
    silent, explicit = (request_for(dump({**body, **more}), url=url) for more in ({}, {"stream": True}))
    assert silent.call.stream
    assert POLICY.key(silent) == POLICY.key(explicit)
    assert POLICY.key(silent) != POLICY.key(request_of(WIRES["OLLAMA_CHAT"]))


@WIRE
def test_a_whole_answer_is_kept_with_its_usage(wire: Wire) -> None:
    assert tokens(decide_whole(wire, wire.whole)) == wire.usage


@STREAM_WIRE
def test_a_whole_stream_is_kept_with_its_usage(wire: Wire) -> None:
    expected = wire.usage if wire.stream_usage is None else wire.stream_usage
    assert tokens(decide(wire, *wire.chunks)) == expected


@STREAM_WIRE
def test_the_end_comes_with_the_last_chunk(wire: Wire) -> None:
    assert is_ended(wire, *wire.chunks)
    assert not is_ended(wire, *wire.chunks[:-1])


@STREAM_WIRE
def test_no_beginning_of_a_stream_is_kept(wire: Wire) -> None:
    body = b"".join(wire.chunks)
    end = next(size for size in range(1, len(body) + 1) if isinstance(decide(wire, body[:size]), Store))
    # White space at the end, or the end of the last line, may be missing.
    assert not body[end:].strip()
    assert len(body) - end <= 2


@STREAM_WIRE
@settings(deadline=None, max_examples=30)
@given(points=st.lists(st.integers(min_value=0), max_size=8))
def test_any_chunks_give_the_same_answer(wire: Wire, points: list[int]) -> None:
    body = b"".join(wire.chunks)
    bounds = [0, *sorted(point % (len(body) + 1) for point in points), len(body)]
    chunks = [body[begin:end] for begin, end in pairwise(bounds)]
    whole = decide(wire, body)
    parts = decide(wire, *chunks)
    assert isinstance(whole, Store)
    assert isinstance(parts, Store)
    assert tokens(parts) == tokens(whole)
    assert is_ended(wire, *chunks)
    # After each chunk the answer depends on the bytes so far.
    for count in range(1, len(chunks) + 1):
        assert is_ended(wire, *chunks[:count]) is is_ended(wire, b"".join(chunks[:count]))


@STREAM_WIRE
def test_single_bytes_give_the_same_answer(wire: Wire) -> None:
    body = b"".join(wire.chunks)
    single = [body[at : at + 1] for at in range(len(body))]
    assert is_ended(wire, *single)
    assert not is_ended(wire, *single[: len(b"".join(wire.chunks[:-1]))])


@STREAM_WIRE
def test_an_error_within_a_stream_is_seen(wire: Wire) -> None:
    assert decide(wire, wire.chunks[0], wire.error, *wire.chunks[1:]) == Discard("error")
    assert decide(wire, wire.chunks[0], wire.error) == Discard("error")


@pytest.mark.parametrize("wire", CUTTABLE, ids=lambda wire: wire.name)
@pytest.mark.parametrize("kind", ["length", "filtered"])
def test_what_is_cut_short_or_filtered_is_kept_on_request_alone(wire: Wire, kind: str) -> None:
    reason = getattr(wire, kind)
    if not reason:
        return
    assert wire.cut is not None
    assert wire.end is not None
    keeping = ModelPolicy(keys=lambda category, identifier: identifier, keep=[kind])
    chunks = (*wire.chunks[: -len(wire.end(reason))], *wire.end(reason))
    assert decide_whole(wire, wire.cut(reason)) == Discard(kind)
    assert decide(wire, *chunks) == Discard(kind)
    assert isinstance(decide_whole(wire, wire.cut(reason), keeping), Store)
    assert isinstance(decide(wire, *chunks, policy=keeping), Store)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ANTHROPIC", "pause_turn"),
        ("ANTHROPIC", "something_new"),
        ("GEMINI", "MALFORMED_FUNCTION_CALL"),
        ("GEMINI", "SOMETHING_NEW"),
        ("COHERE", "TIMEOUT"),
        ("COHERE", "ERROR"),
        ("OLLAMA_CHAT", "load"),
    ],
)
def test_what_is_unfinished_otherwise_is_not_kept(name: str, reason: str) -> None:
    wire = WIRES[name]
    assert wire.cut is not None
    assert decide_whole(wire, wire.cut(reason)) == Discard("incomplete")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ANTHROPIC", "tool_use"),
        ("ANTHROPIC", "stop_sequence"),
        ("COHERE", "TOOL_CALL"),
        ("COHERE", "STOP_SEQUENCE"),
        ("OPENAI_CHAT", "tool_calls"),
    ],
)
def test_other_ways_to_finish_are_whole(name: str, reason: str) -> None:
    wire = WIRES[name]
    assert wire.cut is not None
    assert isinstance(decide_whole(wire, wire.cut(reason)), Store)


@pytest.mark.parametrize(
    ("name", "document", "reason"),
    [
        ("RESPONSES", {**WIRES["RESPONSES"].whole, "status": "in_progress"}, "incomplete"),
        ("RESPONSES", {**WIRES["RESPONSES"].whole, "status": "queued"}, "incomplete"),
        ("RESPONSES", {**WIRES["RESPONSES"].whole, "status": "failed", "error": {"code": "x"}}, "error"),
        ("RESPONSES", {"object": "response", "status": "completed"}, "no-choices"),
        ("ANTHROPIC", {**WIRES["ANTHROPIC"].whole, "stop_reason": None}, "truncated"),
        ("ANTHROPIC", {"type": "error", "error": {"type": "overloaded_error"}}, "error"),
        ("GEMINI", {"candidates": [{"content": {"parts": [{"text": "x"}]}}]}, "truncated"),
        ("GEMINI", {"promptFeedback": {"blockReason": "SAFETY"}}, "filtered"),
        ("GEMINI", {"error": {"code": 503}}, "error"),
        ("OLLAMA_CHAT", {**WIRES["OLLAMA_CHAT"].whole, "done": False}, "truncated"),
        ("OLLAMA_CHAT", {"error": "no such model"}, "error"),
        ("EMBEDDINGS", {"object": "list", "data": []}, "no-choices"),
        ("GEMINI_EMBED", {}, "no-choices"),
        ("VERTEX_EMBED", {"predictions": [{"embeddings": {}}]}, "no-choices"),
        ("COHERE_RERANK", {"results": []}, "no-choices"),
    ],
)
def test_a_document_that_is_no_answer_is_not_kept(name: str, document: object, reason: str) -> None:
    assert decide_whole(WIRES[name], document) == Discard(reason)


def test_a_stream_whose_server_has_no_terminator_is_kept_on_request() -> None:
    wire = WIRES["OPENAI_CHAT"]
    keeping = ModelPolicy(keys=lambda category, identifier: identifier, keep=["unterminated"])
    assert decide(wire, *wire.chunks[:-1]) == Discard("truncated")
    assert isinstance(decide(wire, *wire.chunks[:-1], policy=keeping), Store)
    assert decide(wire, *wire.chunks[:2], policy=keeping) == Discard("truncated")


def test_the_last_line_may_lack_its_end() -> None:
    wire = WIRES["OLLAMA_CHAT"]
    body = b"".join(wire.chunks)[:-1]
    assert not is_ended(wire, body)
    assert isinstance(decide(wire, body), Store)


def test_of_several_candidates_all_must_finish() -> None:
    wire = WIRES["GEMINI"]
    settings_ = {"generationConfig": {"candidateCount": 2}}
    request = request_of(wire, stream=True, **settings_)
    first = wire.chunks[-1]
    second = first.replace(b'"index":0', b'"index":1')
    begun = wire.chunks[0].replace(b'"index":0', b'"index":1')
    terminator = POLICY.terminator(request, ResponseHead(200, stream_headers(wire)))
    assert terminator is not None
    assert not any(terminator.feed(chunk) for chunk in (begun, first, second))
    headers = stream_headers(wire)
    assert POLICY.on_loaded(request, loaded(begun, first, headers=headers)) == Discard("truncated")
    assert isinstance(POLICY.on_loaded(request, loaded(begun, first, second, headers=headers)), Store)


FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {}}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
MUST_PASS = [
    ("RESPONSES", {"previous_response_id": "resp_0"}),
    ("RESPONSES", {"conversation": "conv_1"}),
    ("RESPONSES", {"background": True}),
    ("RESPONSES", {"prompt": {"id": "pmpt_1"}}),
    ("RESPONSES", {"tools": [{"type": "web_search"}]}),
    ("RESPONSES", {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}),
    ("RESPONSES", {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}),
    ("RESPONSES", {"tools": [{"type": "mcp", "server_url": "https://example.org"}]}),
    ("RESPONSES", {"tools": [{"type": "computer_use_preview"}]}),
    ("RESPONSES", {"tools": [{"type": "image_generation"}]}),
    ("RESPONSES", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
    ("RESPONSES", {"input": None}),
    ("OPENAI_CHAT", {"model": "gpt-4o-search-preview"}),
    ("OPENAI_CHAT", {"model": "openai/gpt-4o:online"}),
    ("OPENAI_CHAT", {"model": "perplexity/sonar-pro"}),
    ("OPENAI_CHAT", {"model": "groq/compound-mini"}),
    ("OPENAI_CHAT", {"data_sources": [{"type": "azure_search"}]}),
    ("OPENAI_COMPLETIONS", {"prompt": None}),
    ("EMBEDDINGS", {"input": None}),
    ("EMBEDDINGS", {"model": 7}),
    ("ANTHROPIC", {"tools": [SEARCH]}),
    ("ANTHROPIC", {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}),
    ("ANTHROPIC", {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
    ("ANTHROPIC", {"tools": [{"type": "computer_20250124", "name": "computer"}]}),
    ("ANTHROPIC", {"tools": ["x"]}),
    ("ANTHROPIC", {"mcp_servers": [{"type": "url", "url": "https://example.org"}]}),
    ("ANTHROPIC", {"container": "container_1"}),
    ("ANTHROPIC", {"max_tokens": None}),
    ("ANTHROPIC", {"max_tokens": True}),
    ("GEMINI", {"tools": [{"googleSearch": {}}]}),
    ("GEMINI", {"tools": [{"google_search": {}}]}),
    ("GEMINI", {"tools": [{"codeExecution": {}}]}),
    ("GEMINI", {"tools": [{"urlContext": {}}]}),
    ("GEMINI", {"tools": [{"functionDeclarations": []}, {"googleSearch": {}}]}),
    ("GEMINI", {"contents": None}),
    ("GEMINI_EMBED", {"content": "x"}),
    ("GEMINI_EMBEDS", {"requests": None}),
    ("VERTEX_EMBED", {"instances": [{"prompt": "a cat"}]}),
    ("VERTEX_EMBED", {"instances": []}),
    ("COHERE", {"tools": [{"type": "web_search"}]}),
    ("COHERE_EMBED", {"texts": "x"}),
    ("COHERE_RERANK", {"documents": None}),
    ("OLLAMA_CHAT", {"messages": []}),
    ("OLLAMA_GENERATE", {"prompt": ""}),
    ("OLLAMA_EMBED", {"input": 7}),
]


@pytest.mark.parametrize(("name", "changes"), MUST_PASS, ids=str)
def test_calls_that_must_reach_the_provider_are_not_recognised(name: str, changes: dict[str, Any]) -> None:
    path, body = WIRES[name].call(stream=False)
    assert recognise("POST", path.partition("?")[0], b"application/json", dump({**body, **changes})) is None


@pytest.mark.parametrize("name", ["RESPONSES", "ANTHROPIC", "COHERE", "COHERE_EMBED", "OLLAMA_CHAT", "OLLAMA_GENERATE"])
@pytest.mark.parametrize("model", [None, "", 7])
def test_where_a_model_must_be_named_a_body_without_one_is_for_something_else(name: str, model: object) -> None:
    path, body = WIRES[name].call(stream=False)
    unnamed = {key: value for key, value in body.items() if key != "model"}
    for other in (unnamed, {**body, "model": model}):
        assert recognise("POST", path, b"application/json", dump(other)) is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("RESPONSES", {"tools": [{"type": "function", "name": "weather", "parameters": {}}]}),
        ("RESPONSES", {"previous_response_id": None, "background": False, "store": False}),
        ("ANTHROPIC", {"tools": [{"name": "weather", "input_schema": {"type": "object"}}]}),
        ("ANTHROPIC", {"tools": [{"type": "custom", "name": "w", "input_schema": {}}, {"type": "bash_20250124"}]}),
        ("GEMINI", {"tools": [{"functionDeclarations": [{"name": "weather"}]}]}),
        ("COHERE", {"tools": [FUNCTION]}),
        ("OLLAMA_CHAT", {"tools": [FUNCTION]}),
    ],
    ids=str,
)
def test_tools_that_the_client_runs_are_no_hindrance(name: str, changes: dict[str, Any]) -> None:
    assert POLICY.key(request_of(WIRES[name], **changes)) != ""


@pytest.mark.parametrize(
    ("name", "changes", "counts"),
    [
        ("OPENAI_CHAT", {"user": "u"}, False),
        ("OPENAI_CHAT", {"metadata": {"a": "b"}}, False),
        ("OPENAI_CHAT", {"seed": 7}, True),
        ("OPENAI_CHAT", {"service_tier": "flex"}, True),
        ("OPENAI_CHAT", {"store": True}, True),
        # The answer repeats what the request says here.
        ("RESPONSES", {"metadata": {"a": "b"}}, True),
        ("RESPONSES", {"user": "u"}, True),
        ("EMBEDDINGS", {"user": "u"}, False),
        ("EMBEDDINGS", {"dimensions": 2}, True),
        ("ANTHROPIC", {"metadata": {"user_id": "u"}}, False),
        ("ANTHROPIC", {"system": "Be brief."}, True),
        ("GEMINI", {"labels": {"team": "a"}}, False),
        ("GEMINI", {"cachedContent": "cachedContents/c"}, True),
        ("OLLAMA_CHAT", {"keep_alive": "5m"}, False),
        ("OLLAMA_CHAT", {"options": {"num_ctx": 8192}}, True),
    ],
    ids=str,
)
def test_what_of_a_body_counts(name: str, changes: dict[str, Any], counts: bool) -> None:
    wire = WIRES[name]
    assert (POLICY.key(request_of(wire, **changes)) != POLICY.key(request_of(wire))) is counts


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("OPENAI_CHAT", {"user": "u"}),
        ("OPENAI_CHAT", {"safety_identifier": "u"}),
        ("EMBEDDINGS", {"user": "u"}),
        ("ANTHROPIC", {"metadata": {"user_id": "u"}}),
    ],
    ids=str,
)
def test_the_user_counts_where_that_is_wanted(name: str, changes: dict[str, Any]) -> None:
    path, body = WIRES[name].call(stream=False)
    calls = [
        recognise("POST", path, b"application/json", dump({**body, **more}), by_user=True) for more in ({}, changes)
    ]
    assert calls[0] is not None
    assert calls[1] is not None
    assert calls[0].digest != calls[1].digest


@pytest.mark.parametrize(
    ("name", "changes", "temperature"),
    [
        ("OPENAI_CHAT", {}, 1.0),
        ("OPENAI_CHAT", {"temperature": 0}, 0),
        ("OPENAI_CHAT", {"temperature": None}, 1.0),
        ("RESPONSES", {"temperature": 0.5}, 0.5),
        ("ANTHROPIC", {}, 1.0),
        ("GEMINI", {"generationConfig": {"temperature": 0.2}}, 0.2),
        ("GEMINI", {"generation_config": {"temperature": 0.2}}, 0.2),
        ("COHERE", {}, 0.3),
        ("OLLAMA_CHAT", {"options": {"temperature": 0.1}}, 0.1),
        ("OLLAMA_CHAT", {}, 0.8),
        ("EMBEDDINGS", {}, None),
        ("COHERE_RERANK", {}, None),
        ("OPENAI_CHAT", {"temperature": 10**400}, float("inf")),
    ],
    ids=str,
)
def test_the_temperature_is_known(name: str, changes: dict[str, Any], temperature: float | None) -> None:
    assert request_of(WIRES[name], **changes).call.temperature == temperature


@pytest.mark.parametrize(
    ("name", "changes", "ttl"),
    [
        ("RESPONSES", {}, 30 * 86_400),
        ("RESPONSES", {"store": False}, float("inf")),
        ("GEMINI", {"cachedContent": "cachedContents/c"}, 3600),
        ("GEMINI", {}, float("inf")),
        ("OPENAI_CHAT", {}, float("inf")),
    ],
    ids=str,
)
def test_an_answer_does_not_outlive_what_it_depends_on(name: str, changes: dict[str, Any], ttl: float) -> None:
    policy = ModelPolicy(keys=lambda category, identifier: identifier, ttl=float("inf"))
    decision = policy.on_loaded(request_of(WIRES[name], **changes), loaded(dump(WIRES[name].whole)))
    assert isinstance(decision, Store)
    assert decision.fresh_for == ttl


OPTED = [
    ("moderation", "/v1/moderations", {"input": "x"}, {"results": [{"flagged": False}]}, (None, None)),
    ("images", "/v1/images/generations", {"prompt": "x"}, {"data": [{"b64_json": "eA=="}]}, (None, None)),
]


@pytest.mark.parametrize(("kind", "path", "body", "answer", "usage"), OPTED)
def test_what_must_be_opted_in(kind: str, path: str, body: object, answer: object, usage: object) -> None:
    assert recognise("POST", path, b"application/json", dump(body)) is None
    call = recognise("POST", path, b"application/json", dump(body), (*PROFILES, *OPTIONAL[kind]))
    assert call is not None
    request = ModelRequest(f"https://models.example{path}", FIELDS, call)
    assert tokens(POLICY.on_loaded(request, loaded(dump(answer)))) == usage


@pytest.mark.parametrize(
    ("content_type", "kept"), [(b"audio/mpeg", True), (b"application/octet-stream", True), (b"application/json", False)]
)
def test_speech_is_kept_as_it_is(content_type: bytes, kept: bool) -> None:
    body = dump({"model": "tts-1", "input": "Hello", "voice": "alloy"})
    call = recognise("POST", "/v1/audio/speech", b"application/json", body, OPTIONAL["audio"])
    assert call is not None
    request = ModelRequest("https://models.example/v1/audio/speech", FIELDS, call)
    headers = ((b"content-type", content_type), (b"content-length", b"4"))
    assert isinstance(POLICY.on_loaded(request, loaded(b"\x00\xff{}", headers=headers)), Store) is kept
    assert isinstance(POLICY.on_loaded(request, loaded(b"\x00", headers=headers)), Discard)
    assert isinstance(POLICY.on_loaded(request, loaded(headers=headers[:1])), Discard)


@pytest.mark.parametrize("body", [{"input": "x", "stream_format": "sse"}, {"input": ["x"]}])
def test_speech_as_events_is_not_recognised(body: object) -> None:
    assert recognise("POST", "/v1/audio/speech", b"application/json", dump(body), OPTIONAL["audio"]) is None


@STREAM_WIRE
def test_only_the_media_types_of_its_protocol_are_recorded(wire: Wire) -> None:
    request = request_of(wire, stream=True)
    assert isinstance(
        POLICY.on_loaded(request, loaded(*wire.chunks, headers=((b"content-type", b"text/html"),))), Discard
    )
    assert isinstance(POLICY.on_loaded(request_of(wire), loaded(dump(wire.whole), headers=JSON_HEADERS)), Store)


def test_anthropic_on_vertex() -> None:
    path = "/v1/projects/p/locations/eu/publishers/anthropic/models/claude@1:rawPredict"
    body = {"anthropic_version": "vertex-2023-10-16", "max_tokens": 7, "messages": []}
    call = recognise("POST", path, b"application/json", dump(body))
    assert call is not None
    assert (call.profile.name, call.model, call.stream) == ("anthropic", "claude@1", False)
    streamed = recognise("POST", path.replace("rawPredict", "streamRawPredict"), b"application/json", dump(body))
    assert streamed is not None
    assert streamed.stream
    assert recognise("POST", path, b"application/json", dump({"instances": []})) is None


@given(st.binary() | st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"x"])).map(b"".join))
def test_any_bytes_are_read(body: bytes) -> None:
    for wire in STREAMS.values():
        decide(wire, body)
        is_ended(wire, body, b"")
        decide_whole(wire, body.decode("latin-1"))


@given(
    st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b" ", b"x"]), max_size=12).map(b"".join),
    st.lists(st.integers(min_value=0), max_size=4),
)
def test_arrays_are_taken_apart_alike_in_any_chunks(body: bytes, points: list[int]) -> None:
    wire = WIRES["GEMINI_ARRAY"]
    bounds = [0, *sorted(point % (len(body) + 1) for point in points), len(body)]
    chunks = [body[begin:end] for begin, end in pairwise(bounds)]
    assert is_ended(wire, *chunks) is is_ended(wire, body)
