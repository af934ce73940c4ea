"""Only calls that a cache may answer are recognised; whatever else passes through untouched."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.models import OPENAI_CHAT, PROFILES, ModelCall, recognise
from tests.models.examples import PATH, chat, dump

FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def recognised(
    body: bytes, *, method: str = "POST", path: str = PATH, content_type: bytes = b"application/json"
) -> ModelCall | None:
    return recognise(method, path, content_type, body)


def test_a_call_tells_protocol_operation_model_and_stream() -> None:
    call = recognised(dump(chat(stream=True)))
    assert call is not None
    assert (call.profile, call.operation, call.model, call.stream) == (
        OPENAI_CHAT,
        "chat",
        "gpt-4o-mini",
        True,
    )
    assert len(call.digest) == 32
    assert int(call.digest, 16) >= 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "/api/v1/chat/completions",
        "/openai/deployments/gpt/chat/completions",
    ],
)
def test_any_host_and_prefix_will_do(path: str) -> None:
    assert recognised(dump(chat()), path=path) is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH),
        ("post", PATH),
        ("DELETE", PATH),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/chat/completions/chatcmpl-1"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/conversations"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1beta/models/m:countTokens"),
        ("POST", "/v1beta/cachedContents"),
        ("POST", "/v1/realtime/sessions"),
        ("POST", "/v1/threads/t/messages"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/files"),
        ("POST", "/v1/threads/t/runs"),
        ("POST", ""),
    ],
)
def test_other_methods_and_paths_are_not_recognised(method: str, path: str) -> None:
    assert recognised(dump(chat()), method=method, path=path) is None


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/json", True),
        (b"application/json; charset=utf-8", True),
        (b"Application/JSON;charset=UTF-8", True),
        (b'application/json; charset="utf-8"', True),
        (b"application/json; charset=latin-1", False),
        (b"application/json; profile=x", False),
        (b"application/jsonl", False),
        (b"text/plain", False),
        (b"multipart/form-data; boundary=x", False),
        (b"", False),
    ],
)
def test_the_body_must_be_declared_as_utf8_json(content_type: bytes, expected: bool) -> None:
    assert (recognised(dump(chat()), content_type=content_type) is not None) is expected


AMBIGUOUS = {
    "empty": b"",
    "no JSON": b"hello",
    "cut short": dump(chat())[:-1],
    "more behind it": dump(chat()) + b"{}",
    "no object": b"[]",
    "null": b"null",
    "no messages": dump({"model": "m"}),
    "messages are no list": dump(chat(messages={"role": "user"})),
    "name twice": b'{"model":"m","messages":[],"model":"n"}',
    "name twice, deep": b'{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}',
    "name twice, escaped": b'{"model":"m","messages":[],"\\u006dodel":"n"}',
    "NaN": b'{"model":"m","messages":[],"temperature":NaN}',
    "Infinity": b'{"model":"m","messages":[],"temperature":-Infinity}',
    "NaN where it would not count": b'{"model":"m","messages":[],"user":NaN}',
    "float beyond binary64": b'{"model":"m","messages":[],"temperature":1e400}',
    "integer beyond conversion": b'{"model":"m","messages":[],"seed":' + b"9" * 5000 + b"}",
    "nested too deep": b'{"model":"m","messages":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "objects nested too deep": b'{"model":"m","messages":[],"x":' + b'{"a":' * 99_999 + b"1" + b"}" * 100_000,
    "invalid UTF-8": b'{"model":"m","messages":["\xff"]}',
    "surrogate in UTF-8": b'{"model":"m","messages":["\xed\xa0\x80"]}',
    "UTF-16": dump(chat()).decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + dump(chat()),
    "control character": b'{"model":"m","messages":["\n"]}',
    "model is no string": dump(chat(model=["m"])),
    "model is null": dump(chat(model=None)),
    "stream is no boolean": dump(chat(stream="true")),
    "stream is a number": dump(chat(stream=1)),
    "tools are no list": dump(chat(tools={"type": "function"})),
    "a tool is no object": dump(chat(tools=["function"])),
}


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_an_ambiguous_body_is_not_recognised(body: bytes) -> None:
    assert recognised(body) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"background": True},
        {"background": 0},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"web_search_options": {}},
        {"search_parameters": {"mode": "auto"}},
        {"plugins": [{"id": "web"}]},
        {"enable_search": True},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "web_search_preview"}]},
        {"tools": [FUNCTION, {"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "mcp", "server_url": "https://example.org"}]},
        {"tools": [{"type": "computer_use_preview"}]},
        {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
        {"tools": [{"type": ["function"]}]},
        {"tools": [{"google_search": {}}]},
    ],
    ids=str,
)
def test_calls_that_must_reach_the_provider_are_not_recognised(changes: dict[str, object]) -> None:
    assert recognised(dump(chat(**changes))) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"background": False},
        {"background": None},
        {"previous_response_id": None},
        {"conversation": None},
        {"web_search_options": None},
        {"enable_search": False},
        {"tools": None},
        {"tools": []},
        {"tools": [FUNCTION]},
        {"tools": [{"type": "custom", "custom": {"name": "code"}}]},
        {"functions": [{"name": "weather"}]},
        {"stream": None},
        {"temperature": 2, "n": 3, "seed": 2**70},
        {"messages": []},
    ],
    ids=str,
)
def test_calls_without_such_effects_are_recognised(changes: dict[str, object]) -> None:
    assert recognised(dump(chat(**changes))) is not None


def test_a_call_may_leave_the_model_to_its_url() -> None:
    call = recognised(b'{"messages":[]}')
    assert call is not None
    assert call.model == ""


def test_an_absent_or_null_stream_is_no_stream() -> None:
    calls = [recognised(dump(body)) for body in (chat(), chat(stream=None), chat(stream=False))]
    assert [call is not None and call.stream for call in calls] == [False, False, False]


def test_another_protocol_is_one_more_record() -> None:
    other = dataclasses.replace(OPENAI_CHAT, name="other", path_suffix="/ask")
    call = recognise("POST", "/ask", b"application/json", dump(chat()), (*PROFILES, other))
    assert call is not None
    assert call.profile is other


def test_a_call_shows_nothing_of_the_prompt() -> None:
    call = recognised(dump(chat(messages=[{"role": "user", "content": "planted"}])))
    assert "planted" not in repr(call)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_get_an_answer(body: bytes) -> None:
    recognised(body)
    recognised(b'{"messages":[],' + body + b"}")


@given(
    method=st.sampled_from(["POST", "GET", ""]) | st.text(),
    path=st.text() | st.text().map(lambda text: text + "/chat/completions"),
    content_type=st.binary(),
)
def test_any_request_gets_an_answer(method: str, path: str, content_type: bytes) -> None:
    recognise(method, path, content_type, dump(chat()))
