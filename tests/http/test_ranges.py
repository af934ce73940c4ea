"""Parts of stored responses (RFC 9110 §14)."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import MAX_RANGES, StoredResponse, part_of
from aurelis.cache.http._ranges import ranges
from tests.http.messages import DATE, NOW, lines

BODY = b"0123456789"
LATER = b"Sun, 06 Nov 1994 09:49:37 GMT"


@pytest.mark.parametrize(
    ("value", "spans"),
    [
        pytest.param(b"bytes=0-4", [(0, 4)], id="14.1.2-first-last"),
        pytest.param(b"bytes=5-", [(5, 9)], id="14.1.2-open"),
        pytest.param(b"bytes=-3", [(7, 9)], id="14.1.2-suffix"),
        pytest.param(b"bytes=-30", [(0, 9)], id="14.1.2-suffix-longer-than-all"),
        pytest.param(b"bytes=5-99", [(5, 9)], id="14.1.2-beyond"),
        pytest.param(b"Bytes = 0-0 ,, 9-9,", [(0, 0), (9, 9)], id="5.6.1-list"),
        pytest.param(b"bytes=9-9,0-0", [(9, 9), (0, 0)], id="15.3.7.2-order"),
        pytest.param(b"bytes=10-", [], id="14.1.2-unsatisfiable"),
        pytest.param(b"bytes=-0", [], id="14.1.2-unsatisfiable-suffix"),
        pytest.param(b"bytes=10-,0-0", [(0, 0)], id="14.1.2-one-satisfiable"),
        *(
            pytest.param(value, None, id=f"14.2-ignored {value.decode()}")
            for value in (
                b"bytes",
                b"bytes=",
                b"bytes=,",
                b"bytes=a-b",
                b"bytes=4-0",
                b"bytes=--1",
                b"bytes=1",
                b"bytes=0-4 5-9",
                b"lines=0-4",
                b"bytes=0-9999999999999999999",
                b"bytes=0-9,0-0",
                b"bytes=" + b",".join([b"0-0"] * (MAX_RANGES + 1)),
            )
        ),
    ],
)
def test_ranges(value: bytes, spans: list[tuple[int, int]] | None) -> None:
    assert ranges(value, len(BODY)) == spans


@given(st.one_of(st.binary(max_size=40), st.text("bytes=0123456789-, ").map(str.encode)), st.integers(0, 50))
def test_any_bytes_give_ranges_within_the_body(value: bytes, size: int) -> None:
    spans = ranges(value, size)
    for start, end in spans or ():
        assert 0 <= start <= end < size
    assert sum(end - start + 1 for start, end in spans or ()) <= size


def test_a_long_value_takes_no_time() -> None:
    begin = time.perf_counter()
    assert ranges(b"bytes=" + b"0-," * 100_000, 10) is None
    assert time.perf_counter() - begin < 0.1


def stored(status: int = 200, /, **fields: str | bytes) -> StoredResponse:
    """A response in two chunks, made an hour after `DATE`."""
    return StoredResponse(status, lines(content_length="10", **fields), (BODY[:4], BODY[4:]), date=NOW + 3600)


@pytest.mark.parametrize(
    ("fields", "if_range", "partial"),
    [
        pytest.param({"etag": '"a"'}, b'"a"', True, id="13.1.5-strong"),
        pytest.param({"etag": '"a"'}, b'"b"', False, id="13.1.5-other"),
        pytest.param({"etag": 'W/"a"'}, b'W/"a"', False, id="13.1.5-weak"),
        pytest.param({"etag": '"a"'}, b"a", False, id="malformed"),
        pytest.param({"last_modified": DATE}, DATE, True, id="13.1.5-date"),
        pytest.param({"last_modified": DATE}, LATER, False, id="13.1.5-other-date"),
        pytest.param({"last_modified": LATER}, LATER, False, id="8.8.2.2-weak-date"),
        pytest.param({}, DATE, False, id="nothing-to-compare-with"),
    ],
)
def test_if_range(fields: dict[str, str | bytes], if_range: bytes, partial: bool) -> None:
    part = part_of({b"range": b"bytes=3-5", b"if-range": if_range}, stored(**fields), b"x")
    assert (part is not None) is partial


def test_a_part_has_the_fields_of_the_whole_but_its_own_length_and_place() -> None:
    part = part_of({b"range": b"bytes=3-5"}, stored(etag='"a"', x="1"), b"boundary")
    assert part is not None
    assert (part.status, part.body) == (206, b"345")
    assert part.fields == lines(etag='"a"', x="1", content_range="bytes 3-5/10", content_length="3")


def test_several_parts_are_one_body() -> None:
    """RFC 9110 §14.6."""
    part = part_of({b"range": b"bytes=0-1,-1"}, stored(content_type="text/plain"), b"boundary")
    assert part is not None
    assert part.body == (
        b"--boundary\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n"
        b"--boundary\r\nContent-Type: text/plain\r\nContent-Range: bytes 9-9/10\r\n\r\n9\r\n"
        b"--boundary--\r\n"
    )
    assert part.fields == lines(
        content_type="multipart/byteranges; boundary=boundary", content_length=str(len(part.body))
    )


def test_what_is_not_within_is_refused() -> None:
    """RFC 9110 §15.5.17."""
    part = part_of({b"range": b"bytes=10-"}, stored(etag='"a"', content_type="text/plain"), b"x")
    assert part is not None
    assert (part.status, part.body) == (416, b"")
    assert part.fields == lines(etag='"a"', content_range="bytes */10", content_length="0")


@pytest.mark.parametrize("status", [203, 301, 404])
def test_only_a_200_has_parts(status: int) -> None:
    """RFC 9110 §14.2."""
    assert part_of({b"range": b"bytes=0-1"}, stored(status), b"x") is None
    assert part_of({}, stored(), b"x") is None
