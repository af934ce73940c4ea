"""What is read from answers is what they say, whatever types they hold; unknown stays unknown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.models import OPENAI_CHAT, UNKNOWN, AnswerSummary, Usage
from tests.models.examples import completion, dump
from tests.models.test_canonicalise import VALUES


def read_chat_answer(body: bytes) -> AnswerSummary:
    return OPENAI_CHAT.read_answer(body)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"prompt_tokens": 11, "completion_tokens": 7}, Usage(11, 7)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 11}, Usage(11, None)),
        ({"completion_tokens": 7, "total_tokens": 18}, Usage(None, 7)),  # the difference would be a guess
        ({"total_tokens": 18}, UNKNOWN),
        ({"prompt_tokens": "11", "completion_tokens": 7.0}, UNKNOWN),
        ({"prompt_tokens": True, "completion_tokens": False}, UNKNOWN),
        ({"prompt_tokens": -1, "completion_tokens": 2**70}, UNKNOWN),
        ({"prompt_tokens": None, "completion_tokens": [7]}, UNKNOWN),
        ({"input_tokens": 11, "output_tokens": 7}, UNKNOWN),  # another operation's names
        ({}, UNKNOWN),
        (None, UNKNOWN),
        ([], UNKNOWN),
        (18, UNKNOWN),
        ("usage", UNKNOWN),
    ],
    ids=str,
)
def test_usage_is_what_was_reported(block: object, expected: Usage) -> None:
    assert read_chat_answer(dump(completion(usage=block))).usage == expected


def test_a_document_tells_what_it_holds() -> None:
    summary = read_chat_answer(dump(completion()))
    assert summary.complete
    assert summary.answered
    assert not summary.malformed
    assert not summary.error
    assert summary.finish_reasons == ("stop",)
    assert summary.usage == Usage(11, 7)
    assert summary.model == "gpt-4o-mini-2024-07-18"


def test_error_null_is_no_error() -> None:
    """The rule that a search for the word would break."""
    assert not read_chat_answer(dump(completion(error=None))).error
    assert read_chat_answer(dump(completion(error={}))).error


@pytest.mark.parametrize(
    "members",
    [
        {"model": None},
        {"model": 7},
        {"usage": "none"},
        {"usage": [1]},
        {"choices": {}},
        {"choices": [{"finish_reason": 7}]},
        {"choices": [{"finish_reason": None}]},
    ],
    ids=str,
)
def test_odd_types_are_read_as_absent(members: dict[str, object]) -> None:
    summary = read_chat_answer(dump(members))
    assert (summary.model, summary.usage, summary.finish_reasons) == (None, UNKNOWN, ())


@given(st.binary() | VALUES.map(dump) | st.dictionaries(st.sampled_from(list(completion())), VALUES).map(dump))
def test_any_body_gets_a_summary(body: bytes) -> None:
    read_chat_answer(body)
