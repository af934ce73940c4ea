"""Credentials and addresses set answers apart; no credential can be read from what they become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.models import clean_url, credential_partition, partition, selecting_fields
from tests.models.examples import FIELDS, SECRET, URL, chat, dump, key_of, request_for

CREDENTIALS = st.text(alphabet="ghijklmnopqrstuvwxyzGHIJKLMNOP", min_size=8)
KEY_FIELDS = (b"openai-organization", b"openai-project", b"openai-beta")


@pytest.mark.parametrize(
    "fields",
    [
        {b"authorization": b"Bearer sk-two"},
        {b"authorization": b"bearer sk-one"},
        {b"authorization": b""},
        {b"x-api-key": b"sk-one"},
        {b"api-key": b"sk-one"},
        {b"x-goog-api-key": b"sk-one"},
        {b"apikey": b"sk-one"},
        {b"x-auth-key": b"sk-one"},
        {b"cf-access-client-secret": b"sk-one"},
        {b"x-goog-iap-jwt-assertion": b"sk-one"},
        {b"openai-organization": b"org"},
        {b"openai-project": b"proj"},
        {b"openai-beta": b"assistants=v2"},
        {b"accept": b"application/x-ndjson"},
        {b"accept": b"application/json, application/x-ndjson"},
    ],
    ids=str,
)
def test_fields_that_set_answers_apart(fields: dict[bytes, bytes]) -> None:
    assert key_of(chat(), fields=fields) != key_of(chat())


@pytest.mark.parametrize(
    "fields",
    [
        {b"cookie": b"__cf_bm=x"},
        {b"x-stainless-retry-count": b"1"},
        {b"x-stainless-async": b"async:asyncio"},
        {b"user-agent": b"AsyncOpenAI/Python 9"},
        {b"accept-encoding": b"gzip, zstd"},
        {b"idempotency-key": b"x"},
        {b"helicone-session-id": b"x"},
        {b"cache-control": b"no-cache"},
        {b"content-type": b"application/json; charset=utf-8"},
        {b"accept": b"*/*"},
        {b"accept": b"text/event-stream"},
        {b"accept": b"application/json, text/event-stream"},
        {b"accept": b"Application/JSON ,*/*"},
    ],
    ids=str,
)
def test_fields_that_do_not(fields: dict[bytes, bytes]) -> None:
    assert key_of(chat(), fields=fields) == key_of(chat())


def test_a_missing_accept_asks_for_nothing_special() -> None:
    without = {name: value for name, value in FIELDS.items() if name != b"accept"}
    assert selecting_fields(without, KEY_FIELDS) == selecting_fields(FIELDS, KEY_FIELDS) == ()


def test_a_field_is_not_mistaken_for_another() -> None:
    assert key_of(chat(), fields={b"openai-organization": b"x"}) != key_of(chat(), fields={b"openai-project": b"x"})
    assert partition({b"x-api-key": b"x"}, "", SECRET) != partition({b"api-key": b"x"}, "", SECRET)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v2/chat/completions",
        "https://example.org/v1/chat/completions",
        "http://api.openai.com/v1/chat/completions",
        "https://api.openai.com:8443/v1/chat/completions",
        "https://api.openai.com/V1/chat/completions",
        "https://api.openai.com//v1/chat/completions",
        "https://api.openai.com/v1/chat/completions?api-version=1",
        "https://api.openai.com/v1/chat/completions?key=sk-one",
        "https://api.openai.com/v1/chat/completions?api_key=sk-one",
    ],
)
def test_another_address_is_another_key(url: str) -> None:
    assert key_of(chat(), url=url) != key_of(chat())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p", "https://h/p"),
        ("HTTPS://Api.Example.ORG/V1/Chat", "https://api.example.org/V1/Chat"),
        ("https://h:443/p", "https://h/p"),
        ("http://h:80/p", "http://h/p"),
        ("http://h:443/p", "http://h:443/p"),
        ("http://h:8080/p", "http://h:8080/p"),
        ("http://[::1]:80/p", "http://[::1]/p"),
        ("http://[::80]/p", "http://[::80]/p"),
        ("https://h", "https://h/"),
        ("https://h?a=1", "https://h/?a=1"),
        ("https://h/p?", "https://h/p"),
        ("https://h/p#stream", "https://h/p"),
        ("https://h/p?b=1#stream", "https://h/p?b=1"),
        ("https://user:sk-one@h/p", "https://h/p"),
        ("https://h/p?b=2&a=1&&c", "https://h/p?a=1&b=2&c"),
        ("https://h/p?b=2&a=2&a=1", "https://h/p?a=2&a=1&b=2"),
        ("https://h/p?key=k&a=1&API_KEY=k&access_token=t", "https://h/p?a=1"),
        ("https://h/p?%6Bey=k&api%5Fkey=k", "https://h/p"),
        ("https://h/p?token=t&sig=s&X-Amz-Signature=s&Client_Secret=s&tokens=5", "https://h/p?tokens=5"),
        ("https://h/p?monkey=1&keys=2&a=key", "https://h/p?a=key&keys=2&monkey=1"),
        ("https://h/p%2F%7e?q=%7e", "https://h/p%2F%7e?q=%7e"),
    ],
)
def test_a_clean_url_has_no_credentials_and_one_spelling(url: str, expected: str) -> None:
    assert clean_url(url) == expected
    assert clean_url(expected) == expected


def test_a_call_without_credentials_has_no_partition() -> None:
    assert partition({b"accept": b"*/*", b"cookie": b"a=b"}, "a=1", SECRET) == ""
    assert credential_partition({b"accept": b"*/*"}, SECRET) == ""


def test_a_partition_has_128_bits_and_depends_on_the_secret() -> None:
    tokens = {partition(FIELDS, "", secret) for secret in (b"a", b"b", b"c" * 64, b"c" * 65, b"c" * 66)}
    assert len(tokens) == 5
    assert {len(token) for token in tokens} == {32}


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="secret"):
        partition({}, "", b"")
    with pytest.raises(ValueError, match="secret"):
        credential_partition({}, b"")


def test_credentials_in_the_query_count_in_any_order_and_spelling_of_others() -> None:
    one = partition({}, "key=k&a=1&api_key=l", SECRET)
    assert one == partition({}, "api_key=l&a=2&key=k", SECRET)
    assert one != partition({}, "api_key=k&key=l", SECRET)
    assert one != partition({}, "key=k", SECRET)


@pytest.mark.parametrize(
    "field",
    [
        *(b"authorization", b"cookie", b"x-api-key", b"api-key", b"x-goog-api-key", b"apikey", b"dd-api-key"),
        *(b"proxy-authorization", b"x-auth-key", b"x-auth-user", b"x-functions-key", b"x-rapidapi-key"),
        *(b"x-session-token", b"x-session-id", b"x-shopify-access-token", b"x-amz-security-token", b"x-csrf-token"),
        *(b"x-client-secret", b"x-hub-signature", b"x-ms-client-principal", b"x-amzn-oidc-accesstoken"),
    ],
)
def test_plain_http_is_partitioned_by_every_credential(field: bytes) -> None:
    tokens = {
        credential_partition(fields, SECRET)
        for fields in ({}, {field: b"one"}, {field: b"two"}, {field: b"one", b"x-litellm-api-key": b"one"})
    }
    assert len(tokens) == 4


def test_plain_http_is_not_partitioned_by_what_identifies_nobody() -> None:
    fields = {b"user-agent": b"x", b"accept": b"*/*", b"idempotency-key": b"x", b"x-monkey": b"x", b"traceparent": b"x"}
    assert credential_partition(fields, SECRET) == ""


@given(CREDENTIALS, CREDENTIALS)
def test_a_credential_appears_nowhere(credential: str, other: str) -> None:
    fields = {**FIELDS, b"authorization": credential.encode(), b"x-api-key": other.encode()}
    url = f"https://{credential}:{other}@api.openai.com/v1/chat/completions?key={credential}&api_key={other}"
    request = request_for(dump(chat()), url=URL + f"?key={credential}&api_key={other}", fields=fields)
    shown = f"{key_of(chat(), url=URL + '?key=' + credential, fields=fields)} {request!r} {clean_url(url)}"
    assert credential not in shown
    assert other not in shown


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"api-key"]), st.binary()), max_size=4))
def test_different_credentials_are_different_partitions(lines: list[tuple[bytes, bytes]]) -> None:
    fields = dict(lines)
    token = partition(fields, "", SECRET)
    for name, value in fields.items():
        assert partition({**fields, name: value + b"x"}, "", SECRET) != token
        assert partition({**fields, b"x-goog-api-key": value}, "", SECRET) != token


@given(st.text(), st.text())
def test_any_text_is_taken(url: str, query: str) -> None:
    clean_url(url)
    partition({}, query, SECRET)
