"""Equal calls have equal canonical bodies, all others different ones."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.models import OPENAI_CHAT, BodyRules, canonical_body, parse_object
from tests.models.examples import chat, dump, key_of

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**53, max_value=2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def canonical(body: bytes) -> bytes:
    document = parse_object(body)
    assert document is not None
    return canonical_body(document, OPENAI_CHAT.body)


def is_same(one: object, other: object) -> bool:
    """Equality of JSON values in which `1`, `1.0` and `True` differ, and `0.0` and `-0.0`."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return repr(one) == repr(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1,"messages":[]}', b'{"messages":[],"a":1}'),
        (b'{"messages":[{"role":"user","content":"x"}]}', b'{"messages":[{"content":"x","role":"user"}]}'),
        (b'{"messages":[]}', b' {\n "messages" : [ ] }\r\n'),
        ('{"messages":["é"]}'.encode(), b'{"messages":["\\u00e9"]}'),
        ('{"messages":["😀"]}'.encode(), b'{"messages":["\\ud83d\\ude00"]}'),
        (b'{"messages":["a/b"]}', b'{"messages":["a\\/b"]}'),
        (b'{"messages":[],"temperature":0.70}', b'{"messages":[],"temperature":7E-1}'),
        (b'{"messages":[],"stream":false}', b'{"messages":[]}'),
        (b'{"messages":[],"metadata":{"a":"b"}}', b'{"messages":[]}'),
        (b'{"messages":[],"user":"u"}', b'{"messages":[],"user":"v"}'),
        (b'{"messages":[],"safety_identifier":"u"}', b'{"messages":[]}'),
        (b'{"messages":[],"prompt_cache_key":"u"}', b'{"messages":[]}'),
        (b'{"messages":[],"prompt_cache_retention":"24h"}', b'{"messages":[]}'),
        (
            b'{"messages":[],"stream":true,"stream_options":{"include_obfuscation":false}}',
            b'{"messages":[],"stream":true}',
        ),
        (
            b'{"messages":[],"stream_options":{"include_obfuscation":true,"include_usage":true}}',
            b'{"messages":[],"stream_options":{"include_usage":true}}',
        ),
    ],
)
def test_spelling_and_what_leaves_the_answer_alone_do_not_count(one: bytes, other: bytes) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gpt-4o"},
        {"messages": [{"role": "user", "content": "Hello "}]},
        {"messages": [{"role": "system", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": "Hello", "name": "u"}]},
        {"messages": [{"role": "user", "content": "Hello", "user": "u"}]},
        {"stream": True},
        {"stream": None},
        {"stream_options": {"include_usage": True}},
        {"temperature": 0},
        {"temperature": 0.0},
        {"temperature": -0.0},
        {"temperature": None},
        {"seed": 1},
        {"n": 2},
        {"logprobs": True},
        {"tool_choice": "required"},
        {"tools": [{"type": "function", "function": {"name": "a"}}]},
        {"tools": [{"type": "function", "function": {"name": "b"}}]},
        {"response_format": {"type": "json_object"}},
        {"service_tier": "flex"},
        {"store": True},
        {"num_ctx": 8192},
        {"num_ctx": 8193},
        {"num_ctx": "8192"},
        {"Metadata": {}},
    ],
    ids=str,
)
def test_everything_else_counts_unknown_fields_too(changes: dict[str, object]) -> None:
    assert key_of(chat(**changes)) != key_of(chat())


def test_lists_keep_their_order() -> None:
    assert canonical(b'{"messages":[1,2]}') != canonical(b'{"messages":[2,1]}')


def test_integers_keep_every_digit() -> None:
    assert canonical(b'{"seed":9007199254740993}') == b'{"seed":9007199254740993}'
    assert canonical(b'{"seed":1}') != canonical(b'{"seed":1.0}')


def test_stream_options_of_another_type_stay() -> None:
    assert canonical(b'{"stream_options":[]}') == b'{"stream_options":[]}'
    assert canonical(b'{"stream_options":{}}') == b'{"stream_options":{}}'


def test_where_absent_means_stream_an_explicit_stream_is_the_same() -> None:
    rules = BodyRules(stream_default=True)
    assert canonical_body({"stream": True}, rules) == b"{}"
    assert canonical_body({"stream": False}, rules) == b'{"stream":false}'


def test_the_parsed_body_is_left_as_it_was() -> None:
    document = chat(user="u", stream=False, stream_options={"include_obfuscation": True})
    before = json.dumps(document)
    canonical_body(document, OPENAI_CHAT.body)
    assert json.dumps(document) == before


def test_a_number_without_canonical_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_body({"temperature": float("inf")}, OPENAI_CHAT.body)


@given(VALUES, VALUES)
def test_two_bodies_share_a_key_exactly_when_they_are_the_same(one: object, other: object) -> None:
    assert (key_of(chat(extra=one)) == key_of(chat(extra=other))) is is_same(one, other)


@given(VALUES, VALUES, VALUES)
def test_members_do_not_flow_into_each_other(one: object, other: object, third: object) -> None:
    flat = key_of(chat(a=one, b=other, c=third))
    assert flat != key_of(chat(a=one, b=[other, third]))
    assert flat != key_of(chat(a={"a": one, "b": other, "c": third}))


@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]), seed=st.integers())
def test_any_spelling_of_a_body_has_its_key(value: object, ascii_only: bool, indent: int | None, seed: int) -> None:
    shuffle = random.Random(seed).sample

    def reordered(part: object) -> object:
        if isinstance(part, dict):
            return {name: reordered(part[name]) for name in shuffle(list(part), len(part))}
        return [reordered(item) for item in part] if isinstance(part, list) else part

    text = json.dumps(reordered(chat(extra=value)), ensure_ascii=ascii_only, indent=indent)
    try:
        spelled = text.encode()
    except UnicodeEncodeError:  # a lone surrogate can only be written as an escape
        spelled = json.dumps(chat(extra=value), indent=indent).encode()
    assert key_of(spelled) == key_of(dump(chat(extra=value)))


@given(VALUES)
def test_a_canonical_body_is_its_own_canonical_form(value: object) -> None:
    once = canonical(dump(chat(extra=value)))
    assert canonical(once) == once
    assert once.isascii()
