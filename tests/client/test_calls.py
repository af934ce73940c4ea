"""The pure rules of the client side."""

from typing import Any

import httpx2
import pytest

from aurelis.cache.client._calls import Recogniser, decoded_head
from aurelis.cache.client._recall import Recall
from aurelis.cache.http import HttpRequest
from aurelis.cache.models import Catalogue, ModelRequest
from tests.models.examples import chat

SECRET = b"a secret of this deployment"
DECODES = frozenset({b"gzip", b"deflate"})


def recogniser(*, shared: bool = False, share_across_credentials: bool = False) -> Recogniser:
    """The rules as a transport has them."""
    return Recogniser(
        httpx2.ByteStream, SECRET, Catalogue(), shared=shared, share_across_credentials=share_across_credentials
    )


@pytest.mark.parametrize(
    ("codings", "accepted", "decoded"),
    [
        ([], "gzip", True),
        (["identity"], "", True),
        (["gzip"], "gzip, deflate", True),
        (["GZip"], "gzip", True),
        (["deflate, gzip"], "gzip, deflate", True),
        (["deflate", "gzip"], "gzip, deflate", True),
        (["gzip"], "*", True),
        (["gzip"], "gzip;q=0.5", True),
        (["gzip"], "gzip; q=0.001", True),
        (["gzip"], "gzip;q=0", False),
        (["gzip"], "gzip;q=0.000, *", False),
        (["gzip"], "*;q=0", False),
        (["gzip"], "identity", False),
        (["gzip"], "", False),
        (["br"], "gzip, br", False),
        (["gzip, br"], "gzip, br", False),
        (["unheard-of"], "*", False),
    ],
    ids=str,
)
def test_a_body_is_decoded_where_that_was_asked_for_and_is_possible(
    codings: list[str], accepted: str, decoded: bool
) -> None:
    """RFC 9110 §8.4, §12.5.3."""
    headers = [("content-encoding", coding) for coding in codings] + [("content-length", "7"), ("ETag", '"x"')]
    call = HttpRequest("GET", "http://example.com/", {b"accept-encoding": accepted.encode()})
    head, refused = decoded_head(httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(b"")), call, DECODES)
    assert (refused == "") is decoded
    names = [name for name, _ in head.headers]
    assert b"etag" in names
    encoded = bool(codings) and codings != ["identity"]
    assert (b"content-length" in names) is not (decoded and encoded)
    assert (b"content-encoding" in names) is (bool(codings) and not (decoded and encoded))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://Example.com:80/a%2Fb?c=d#e", "http://example.com/a%2Fb?c=d"),
        ("https://user:password@example.com", "https://example.com/"),
        ("https://[::1]:8443/ä", "https://[::1]:8443/%C3%A4"),
    ],
)
def test_the_address_is_without_user_and_fragment(url: str, address: str) -> None:
    call = recogniser()(httpx2.Request("GET", url))
    assert isinstance(call, HttpRequest)
    assert call.url == address


def test_credentials_are_a_keyed_hash() -> None:
    def partition(request: httpx2.Request, **options: bool) -> str:
        call = recogniser(**options)(request)
        assert call is not None
        return call.partition

    one, other = (httpx2.Request("GET", "http://x/", headers={"authorization": name}) for name in ("one", "other"))
    assert len(partition(one)) == 32
    assert partition(one) != partition(other)
    assert partition(one, shared=True) == ""
    ask = httpx2.Request("POST", "http://x/v1/chat/completions", json=chat(), headers={"authorization": "one"})
    assert len(partition(ask)) == 32
    assert partition(ask, share_across_credentials=True) == ""


@pytest.mark.parametrize("shared", [False, True])
def test_credentials_in_a_query_are_a_keyed_hash_too(shared: bool) -> None:
    def call(query: str) -> tuple[str, str]:
        found = recogniser(shared=shared)(httpx2.Request("GET", f"http://x/?{query}"))
        assert isinstance(found, HttpRequest)
        return found.url, found.partition

    assert call("a=b") == ("http://x/?a=b", "")
    url, token = call("a=b&api_key=one")
    assert url == "http://x/?a=b"
    assert len(token) == 32
    assert len({token, *(call(query)[1] for query in ("api_key=one&a=b", "a=b&api_key=two", "a=b&key=one"))}) == 4


def test_a_request_without_a_host_field_is_what_its_url_says() -> None:
    request = httpx2.Request("GET", "http://x/", stream=httpx2.ByteStream(b""))
    assert isinstance(recogniser()(request), HttpRequest)


def test_a_model_call_is_recognised() -> None:
    call = recogniser()(httpx2.Request("POST", "http://x/v1/chat/completions?b=1&a=2&key=k", json=chat()))
    assert isinstance(call, ModelRequest)
    assert call.url == "http://x/v1/chat/completions?a=2&b=1"
    assert call.call.model == "gpt-4o-mini"


BASE: dict[str, Any] = {"method": "POST", "url": "http://x/v1/chat/completions", "json": chat()}


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://y/v1/chat/completions"},
        {"url": "https://x/v1/chat/completions"},
        {"url": "http://x/v2/chat/completions"},
        {"url": "http://x/v1/chat/completions?a=b"},
        {"json": chat(model="other")},
        {"headers": {"authorization": "x"}},
        {"headers": {"x-a": ""}},
        {"method": "GET", "json": None},
    ],
    ids=str,
)
def test_requests_that_differ_have_other_marks(changes: dict[str, Any]) -> None:
    recall = Recall(httpx2.ByteStream, Catalogue(), shared=False)
    base = recall.mark(httpx2.Request(**BASE))
    assert base is not None
    assert base == recall.mark(httpx2.Request(**BASE))
    assert base != recall.mark(httpx2.Request(**{**BASE, **changes}))


def test_fields_cannot_be_shifted_into_each_other() -> None:
    recall = Recall(httpx2.ByteStream, Catalogue(), shared=False)
    marks = {
        recall.mark(httpx2.Request("GET", "http://x/", headers=headers))
        for headers in (
            [("a", "b"), ("c", "d")],
            [("a", "bc"), ("d", "")],
            [("a", "b, c"), ("d", "")],
            [("ab", "c"), ("d", "")],
        )
    }
    assert len(marks) == 4


@pytest.mark.parametrize(
    "request_",
    [
        httpx2.Request("PUT", "http://x/"),
        httpx2.Request("POST", "http://x/"),
        httpx2.Request("POST", "http://x/v1/chat/completions", content=iter([b"x"])),
        httpx2.Request("GET", "http://x/", extensions={"target": b"/y"}),
    ],
    ids=str,
)
def test_what_never_comes_from_the_cache_is_not_remembered(request_: httpx2.Request) -> None:
    assert Recall(httpx2.ByteStream, Catalogue(), shared=False).mark(request_) is None
