"""A stream is over when its own end was dispatched, and errors in it are seen, whatever its chunks were."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.models import OPENAI_CHAT, AnswerSummary, StreamTerminator, Usage
from aurelis.cache.typing import Terminator
from tests.models.examples import DONE, STREAM, USAGE, event, piece

# What can make a difference, in the proportions in which it does.
FRAGMENTS = st.sampled_from(
    [
        b"data: [DONE]",
        b"data:[DONE]",
        b"data:  [DONE]",
        b"data: [DONE] ",
        b"data: {}",
        b'data: {"error":{}}',
        b"data",
        b"data:",
        b"datum: [DONE]",
        b"da",
        b"ta: [DO",
        b"NE]",
        b"event: error",
        b": comment",
        b"id: 1",
        b"x" * 40,
        b"\xef\xbb\xbf",
        b"\n",
        b"\n",
        b"\n",
        b"\r",
        b"\r",
        b"\r\n",
        b"\r\n",
        b"\x00",
        b"\x0b",
        b"\xe2\x80\xa8",
    ]
)
BODIES = st.lists(FRAGMENTS, max_size=14).map(b"".join) | st.binary(max_size=60)


def chat_terminator() -> StreamTerminator:
    terminator = OPENAI_CHAT.terminator(b"text/event-stream")
    assert terminator is not None
    return terminator


def read_chat_stream(chunks: Iterable[bytes]) -> AnswerSummary:
    return OPENAI_CHAT.read_stream(b"text/event-stream", tuple(chunks))


def is_ended(*chunks: bytes) -> bool:
    terminator: Terminator = chat_terminator()
    ended = False
    for chunk in chunks:
        ended = terminator.feed(chunk)
    return ended


def single_bytes(body: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in body]


def cut(body: bytes, points: list[int]) -> Iterator[bytes]:
    """The body in chunks, some of them empty."""
    bounds = [0, *sorted(point % (len(body) + 1) for point in points), len(body)]
    for begin, end in pairwise(bounds):
        yield body[begin:end]


ENDED = {
    "LF": b"data: [DONE]\n\n",
    "CR": b"data: [DONE]\r\r",
    "CR LF": b"data: [DONE]\r\n\r\n",
    "CR LF, its last LF still to come": b"data: [DONE]\r\n\r",
    "mixed": b"data: [DONE]\n\r\n",
    "without space": b"data:[DONE]\n\n",
    "byte order mark": b"\xef\xbb\xbfdata: [DONE]\n\n",
    "after an event": event(piece("x")) + DONE,
    "after a comment": b": ping\n\ndata: [DONE]\n\n",
    "with other fields": b"id: 7\nevent: end\nretry: 5\n: c\ndata: [DONE]\n\n",
    "more behind it": DONE + b"data: {",
}
NOT_ENDED = {
    "empty": b"",
    "no empty line": b"data: [DONE]\n",
    "no line end": b"data: [DONE]",
    "one CR LF is one line end": b"data: [DONE]\r\n",
    "in the text": event(piece("[DONE]")),
    "in the text, escaped line ends": event(piece("\n\ndata: [DONE]\n\n")),
    "second data line": b"data: x\ndata: [DONE]\n\n",
    "first data line": b"data: [DONE]\ndata: x\n\n",
    "first of two, empty one": b"data: [DONE]\ndata\n\n",
    "twice in one event": b"data: [DONE]\ndata: [DONE]\n\n",
    "two spaces": b"data:  [DONE]\n\n",
    "more text": b"data: [DONE]x\n\n",
    "trailing space": b"data: [DONE] \n\n",
    "other field": b"event: [DONE]\n\n",
    "comment": b": data: [DONE]\n\n",
    "no field": b"[DONE]\n\n",
    "upper case": b"DATA: [DONE]\n\n",
    "indented": b" data: [DONE]\n\n",
    "byte order mark inside": b": x\n\xef\xbb\xbfdata: [DONE]\n\n",
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbfdata: [DONE]\n\n",
    "vertical tab is no line end": b"data: x\x0bdata: [DONE]\n\n",
    "line separator is no line end": "data: x\u2028data: [DONE]\n\n".encode(),
}


@pytest.mark.parametrize("body", ENDED.values(), ids=ENDED.keys())
def test_the_end_is_seen(body: bytes) -> None:
    assert is_ended(body)
    assert is_ended(*single_bytes(body))
    assert read_chat_stream([body]).complete


@pytest.mark.parametrize("body", NOT_ENDED.values(), ids=NOT_ENDED.keys())
def test_what_only_looks_like_the_end_is_not(body: bytes) -> None:
    assert not is_ended(body)
    assert not is_ended(*single_bytes(body))
    assert not read_chat_stream([body]).complete


def test_once_ended_it_stays_ended() -> None:
    terminator = chat_terminator()
    assert [terminator.feed(chunk) for chunk in (DONE, b"data: x\n", b"")] == [True, True, True]


def test_the_end_comes_with_the_chunk_that_dispatches_it() -> None:
    terminator = chat_terminator()
    assert [terminator.feed(chunk) for chunk in (b"data: [DO", b"NE]\r", b"\n", b"", b"\r", b"\n")] == [
        False,
        False,
        False,
        False,
        True,
        True,
    ]


def test_a_line_end_may_be_cut_in_two() -> None:
    assert is_ended(b": x\r", b"\ndata: [DONE]\r", b"\n\r\n")
    assert not is_ended(b"data: x\r", b"\ndata: [DONE]\r", b"\n\r\n")


def test_what_is_over_is_not_held() -> None:
    terminator = chat_terminator()
    for _ in range(100):
        terminator.feed(event(piece("x" * 10_000)))
    assert terminator._splitter.rest() == []
    assert terminator._splitter._lines._partial == []  # type: ignore[attr-defined]  # of the splitter for events
    assert terminator.feed(DONE)


@given(BODIES, st.lists(st.integers(min_value=0), max_size=8))
def test_after_each_chunk_the_answer_depends_on_the_bytes_so_far(body: bytes, points: list[int]) -> None:
    """The reader of whole bodies is the reference: it knows no chunks."""
    terminator = chat_terminator()
    seen = b""
    for chunk in cut(body, points):
        seen += chunk
        assert terminator.feed(chunk) is read_chat_stream([seen]).complete


@given(BODIES)
def test_single_bytes_give_the_same_answer(body: bytes) -> None:
    assert is_ended(*single_bytes(body)) is is_ended(body)


@given(BODIES, st.lists(st.integers(min_value=0), max_size=8))
def test_a_summary_does_not_depend_on_chunks(body: bytes, points: list[int]) -> None:
    assert read_chat_stream(cut(body, points)) == read_chat_stream([body])


def test_a_summary_tells_what_came() -> None:
    usage = event({"object": "chat.completion.chunk", "model": "other", "choices": [], "usage": USAGE})
    summary = read_chat_stream([*STREAM[:-1], event(piece(None, "length", index=1)), usage, DONE])
    assert summary.complete
    assert not summary.malformed
    assert not summary.error
    assert summary.answered
    assert summary.finish_reasons == ("stop", "length")
    assert summary.usage == Usage(11, 7)
    assert summary.model == "gpt-4o-mini-2024-07-18"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_will_do(end: bytes) -> None:
    summary = read_chat_stream([event(piece("x", "stop"), end), b"data: [DONE]", end, end])
    assert summary.complete
    assert summary.finish_reasons == ("stop",)


def test_running_totals_are_not_added_up() -> None:
    parts = [{**piece("x"), "usage": {"prompt_tokens": 11, "completion_tokens": count}} for count in (1, 2, 3)]
    assert read_chat_stream([*map(event, parts), DONE]).usage == Usage(11, 3)


def test_without_usage_tokens_are_unknown() -> None:
    assert read_chat_stream(STREAM).usage == Usage(None, None)


def test_data_in_several_lines_is_one_document() -> None:
    assert read_chat_stream([b'data: {"choices":\ndata: [{"finish_reason":"stop"}]}\n\n']).finish_reasons == ("stop",)


ERRORS: dict[str, Callable[[], bytes]] = {
    "error object": lambda: event({"error": {"message": "overloaded"}}),
    "error text": lambda: event({"error": "overloaded"}),
    "beside choices": lambda: event({**piece("x", "error"), "error": {"code": 502}}),
    "inside a choice": lambda: event({"choices": [{"delta": {}, "error": {"code": 502}}]}),
    "error as the object's type": lambda: event({"object": "error", "message": "overloaded"}),
    "named event": lambda: b"event: error\ndata: {}\n\n",
    "named event without data": lambda: b"event:error\n\n",
    "after the end": lambda: DONE + event({"error": {}}),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_event_is_seen(error: Callable[[], bytes]) -> None:
    assert read_chat_stream([STREAM[0], error(), DONE]).error


@pytest.mark.parametrize(
    "harmless",
    [
        event({**piece("x"), "error": None}),
        event(piece('"error": {"message": "x"}')),
        event(piece("event: error\n\n")),
        b": event: error\n\n",
        b"event: errors\ndata: {}\n\n",
        b'event: error\rdata: {"error":{}}\r',  # never dispatched
    ],
)
def test_the_word_alone_is_no_error(harmless: bytes) -> None:
    assert not read_chat_stream([harmless]).error


def test_an_event_name_holds_for_one_event_only() -> None:
    assert not read_chat_stream([b"event: error\nevent: x\ndata: {}\n\n"]).error
    assert read_chat_stream([b"event: error\n\nevent: x\n\n"]).error


@pytest.mark.parametrize(
    "data", [b"hello", b"{", b"[]", b"1", b"null", b'{"choices":[1]}', b"[" * 200_000, b"\xff", b"9" * 5000]
)
def test_data_that_is_no_json_object_is_malformed(data: bytes) -> None:
    assert read_chat_stream([b"data: " + data + b"\n\n"]).malformed


@pytest.mark.parametrize("harmless", [b"data:\n\n", b"\n\n", b": ping\n\n", b"id: 1\n\n", b"data: {\n"])
def test_events_that_are_never_dispatched_are_not_malformed(harmless: bytes) -> None:
    assert not read_chat_stream([harmless]).malformed
