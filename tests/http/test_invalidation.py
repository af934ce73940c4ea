"""Which stored responses an unsafe request puts out of date (RFC 9111 §4.4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import HttpRequest, ResponseHead, as_get, invalidated
from tests.http.messages import URL, head, lines


def request(method: str = "POST", url: str = URL) -> HttpRequest:
    """A request with a method."""
    return HttpRequest(method, url, {})


@pytest.mark.parametrize(
    ("method", "status", "invalidates"),
    [
        *((method, 200, True) for method in ("POST", "PUT", "DELETE", "PATCH", "MOVE", "WHATEVER", "get")),
        *((method, 200, False) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY")),
        *(("POST", status, True) for status in (201, 204, 301, 303, 399)),
        *(("POST", status, False) for status in (400, 404, 500, 503, 599, 100)),
    ],
)
def test_an_unsafe_request_that_succeeded_invalidates_its_target(method: str, status: int, invalidates: bool) -> None:
    assert invalidated(request(method), head(status)) == ((URL,) if invalidates else ())


@pytest.mark.parametrize("field", ["location", "content_location"])
@pytest.mark.parametrize(
    ("value", "other"),
    [
        pytest.param("/a?b=c#d", "https://example.com/a?b=c", id="path"),
        pytest.param("18", "https://example.com/catalog/18", id="relative"),
        pytest.param("../a", "https://example.com/a", id="dots"),
        pytest.param("https://example.com/a", "https://example.com/a", id="absolute"),
        pytest.param("https://EXAMPLE.com:443", "https://example.com/", id="same-origin-spelled-otherwise"),
        pytest.param("https://other.example/a", None, id="4.4-other-host"),
        pytest.param("http://example.com/a", None, id="4.4-other-scheme"),
        pytest.param("https://example.com:8443/a", None, id="4.4-other-port"),
        pytest.param("//other.example/a", None, id="4.4-other-host-relative"),
        pytest.param("https://user@example.com/a", None, id="user"),
        pytest.param("https://[", None, id="malformed"),
        pytest.param("/" + "x" * 9000, None, id="too-long"),
    ],
)
def test_what_is_named_in_the_same_origin_is_invalidated_too(field: str, value: str, other: str | None) -> None:
    found = invalidated(request(), head(201, **{field: value}))
    assert found == ((URL, other) if other else (URL,))


def test_two_lines_of_one_field_name_nothing() -> None:
    response = ResponseHead(201, (*lines(location="/a"), *lines(location="/b")))
    assert invalidated(request(), response) == (URL,)


@given(st.binary(max_size=40), st.sampled_from([b"location", b"content-location"]))
def test_any_bytes_name_something_of_the_same_origin_or_nothing(value: bytes, field: bytes) -> None:
    found = invalidated(request(), ResponseHead(201, ((field, value),)))
    assert found[0] == URL
    assert all(url.startswith("https://example.com/") for url in found)


@pytest.mark.parametrize(
    ("method", "status", "fields", "stored"),
    [
        ("POST", 200, {"content_location": URL, "cache_control": "max-age=9"}, True),
        ("POST", 201, {"content_location": "/catalog/17", "expires": "0"}, True),
        ("POST", 200, {"content_location": "/catalog/18", "cache_control": "max-age=9"}, False),
        ("POST", 200, {"cache_control": "max-age=9"}, False),
        ("POST", 200, {"content_location": URL}, False),
        ("POST", 200, {"content_location": URL, "cache_control": "public"}, False),
        ("POST", 200, {"content_location": URL, "cache_control": "max-age=9", "set_cookie": "a=b"}, False),
        ("POST", 303, {"content_location": URL, "cache_control": "max-age=9"}, False),
        ("PUT", 200, {"content_location": URL, "cache_control": "max-age=9"}, False),
    ],
)
def test_the_answer_to_a_post_may_be_what_the_uri_names(
    method: str, status: int, fields: dict[str, str], stored: bool
) -> None:
    """RFC 9110 §9.3.3."""
    asked = as_get(request(method), head(status, **fields))
    assert (asked is not None) is stored
    if asked is not None:
        assert (asked.method, asked.url, asked.rule) == ("GET", URL, None)
