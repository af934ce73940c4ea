"""What is replayed holds for every caller, over any connection, at any time."""

import pytest

from aurelis.cache.http import Fields, ResponseHead
from aurelis.cache.models import replay_fields


def replayed(*fields: tuple[bytes, bytes]) -> Fields:
    return replay_fields(ResponseHead(200, fields))


@pytest.mark.parametrize(
    "name",
    [
        b"set-cookie",
        b"date",
        b"age",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-remaining-tokens",
        b"ratelimit-policy",
        b"retry-after",
        b"x-cache-original-request-id",
    ],
)
def test_fields_of_the_first_call_are_dropped(name: bytes) -> None:
    assert replayed((name, b"x"), (b"content-type", b"application/json")) == ((b"content-type", b"application/json"),)


def test_the_request_id_is_kept_under_another_name() -> None:
    assert replayed((b"X-Request-Id", b"req_1")) == ((b"x-cache-original-request-id", b"req_1"),)


def test_fields_named_by_connection_are_dropped() -> None:
    """RFC 9110 §7.6.1."""
    assert replayed((b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-end", b"2")) == ((b"x-end", b"2"),)


def test_all_else_stays_in_order() -> None:
    fields = (
        (b"content-type", b"text/event-stream"),
        (b"openai-processing-ms", b"512"),
        (b"cache-control", b"no-cache"),
        (b"vary", b"origin"),
        (b"x-custom", b"1"),
        (b"x-custom", b"2"),
    )
    assert replayed(*fields) == fields
