"""The policy keeps whole and good answers, and serves them while they are fresh."""

import math
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from aurelis.cache._call_options import call_options
from aurelis.cache._decisions import Discard, Load, Pass, Record, Reraise, Serve, Store
from aurelis.cache._entry import Details, Entry
from aurelis.cache._keys import CacheKeyBuilder
from aurelis.cache.http import Fields, LoadedResponse, ResponseHead, StoredResponse
from aurelis.cache.models import ModelPolicy, ModelRequest, StreamTerminator
from aurelis.cache.typing import ExchangePolicy
from tests.models.examples import (
    DONE,
    JSON_HEADERS,
    POLICY,
    STREAM,
    STREAM_HEADERS,
    USAGE,
    chat,
    completion,
    dump,
    event,
    key_of,
    loaded,
    piece,
    request_for,
)

PLAIN = request_for(dump(chat()))
STREAMED = request_for(dump(chat(stream=True)))


def entry(fresh_until: float) -> Entry:
    return Entry(value="answer", payload=None, fresh_until=fresh_until, expires=math.inf, size=1)


def stored(request: ModelRequest, response: LoadedResponse, policy: ModelPolicy = POLICY) -> StoredResponse:
    decision = policy.on_loaded(request, response)
    assert isinstance(decision, Store)
    assert isinstance(decision.value, StoredResponse)
    return decision.value


def test_it_is_an_exchange_policy() -> None:
    policy: ExchangePolicy[ModelRequest, ResponseHead, LoadedResponse] = POLICY
    assert policy.key(PLAIN) == POLICY.key(PLAIN)


def test_those_who_wait_share_the_answer() -> None:
    policy: ExchangePolicy[ModelRequest, ResponseHead, LoadedResponse] = POLICY
    assert policy.on_shared(PLAIN, PLAIN, ResponseHead(200, JSON_HEADERS), 0.0) is None


def test_keys_are_of_category_model_and_opaque() -> None:
    category, _, identifier = key_of(chat()).partition(":")
    assert category == "model"
    assert len(identifier) == 32
    assert int(identifier, 16) >= 0


def test_keys_go_through_the_builder_of_the_cache() -> None:
    policy = ModelPolicy(keys=CacheKeyBuilder("shop").build_key)
    assert policy.key(PLAIN) == f"shop:v1:{POLICY.key(PLAIN)}"


def test_stream_and_plain_answers_have_different_keys() -> None:
    assert POLICY.key(PLAIN) != POLICY.key(STREAMED)


def test_what_is_fresh_is_served() -> None:
    fresh = entry(fresh_until=10.0)
    assert POLICY.on_lookup(PLAIN, fresh, 9.9) == Serve(fresh)
    assert POLICY.on_lookup(PLAIN, fresh, 10.0) == Load("stale")
    assert POLICY.on_lookup(PLAIN, None, 0.0) == Load("miss")


def test_the_requests_cache_control_does_not_count() -> None:
    fields = {**PLAIN.fields, b"cache-control": b"no-store, no-cache"}
    request = request_for(dump(chat()), fields=fields)
    fresh = entry(fresh_until=10.0)
    assert POLICY.key(request) == POLICY.key(PLAIN)
    assert POLICY.on_lookup(request, fresh, 0.0) == Serve(fresh)


def test_a_failure_is_raised_as_it_was() -> None:
    assert POLICY.on_error(PLAIN, entry(0.0), OSError("refused"), 1.0) == Reraise()


STALE = ModelPolicy(keys=POLICY._keys, stale_while_revalidate=5, stale_if_error=50, throttle=3, negative_ttl=20)


def with_options(**options: Any) -> ModelRequest:
    return replace(PLAIN, options=call_options(**options))


def test_what_is_stale_is_served_in_its_windows() -> None:
    old = entry(fresh_until=10.0)
    assert STALE.on_lookup(PLAIN, old, 14.9) == Serve(old, "revalidate")
    assert STALE.on_lookup(PLAIN, old, 15.0) == Load("stale")
    assert STALE.on_error(PLAIN, old, OSError(), 59.9) == Serve(old, retry_in=3)
    assert STALE.on_error(PLAIN, old, OSError(), 60.0) == Reraise(20)
    assert STALE.on_error(PLAIN, None, OSError(), 0.0) == Reraise(20)
    assert STALE.on_error(PLAIN, old, KeyboardInterrupt(), 11.0) == Reraise()


def test_what_was_tried_a_moment_ago_is_served_as_it_is() -> None:
    old = replace(entry(fresh_until=10.0), details=Details(retry_at=30.0))
    assert STALE.on_lookup(PLAIN, old, 29.9) == Serve(old)
    assert STALE.on_lookup(PLAIN, old, 30.0) == Load("stale")
    assert POLICY.on_lookup(PLAIN, old, 20.0) == Load("stale")


@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_what_is_stale_stands_in_for_a_failure(status: int) -> None:
    old = entry(fresh_until=10.0)
    assert STALE.on_refused(PLAIN, old, ResponseHead(status, ()), 20.0) == Serve(old, retry_in=3)
    assert STALE.on_refused(PLAIN, old, ResponseHead(status, ()), 60.0) is None
    assert STALE.on_refused(with_options(refresh=True), old, ResponseHead(status, ()), 20.0) is None
    assert POLICY.on_refused(PLAIN, old, ResponseHead(status, ()), 20.0) is None


@pytest.mark.parametrize("status", [200, 304, 400, 401, 404, 409, 422])
def test_other_responses_are_no_failures(status: int) -> None:
    assert STALE.on_refused(PLAIN, entry(10.0), ResponseHead(status, ()), 20.0) is None
    if status != 200:
        assert STALE.on_response(PLAIN, ResponseHead(status, JSON_HEADERS), 0.0) == Pass("status")


def test_options_of_a_call_win_over_those_of_the_transport() -> None:
    old = entry(fresh_until=10.0)
    strict = with_options(stale_while_revalidate=0, stale_if_error=0, negative_ttl=0)
    assert STALE.on_lookup(strict, old, 11.0) == Load("stale")
    assert STALE.on_error(strict, old, OSError(), 11.0) == Reraise()
    assert STALE.on_response(strict, ResponseHead(503, JSON_HEADERS), 0.0) == Pass("status")
    kept = STALE.on_loaded(strict, loaded(dump(completion())))
    assert isinstance(kept, Store)
    assert kept.stale_for == 0
    kept = STALE.on_loaded(PLAIN, loaded(dump(completion())))
    assert isinstance(kept, Store)
    assert kept.stale_for == 50


def test_a_failure_is_remembered_but_not_stored() -> None:
    head = ResponseHead(503, (*JSON_HEADERS, (b"retry-after", b"7"), (b"x-request-id", b"r")))
    assert isinstance(STALE.on_response(PLAIN, head, 0.0), Record)
    assert STALE.terminator(STREAMED, ResponseHead(503, STREAM_HEADERS)) is None
    decision = STALE.on_loaded(PLAIN, loaded(b"{}", headers=head.headers, status=503))
    assert isinstance(decision, Discard)
    assert (decision.reason, decision.remember_for) == ("status", 7)
    assert decision.failure == StoredResponse(
        503,
        (*JSON_HEADERS, (b"x-cache-original-request-id", b"r")),
        (b"{}",),
        lifetime=7.0,
        source="failure",
    )


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((b"retry-after", b"0"), 0),
        ((b"retry-after-ms", b"500"), 0.5),
        ((b"retry-after", b"600"), 20),
        ((b"retry-after", b"Wed, 21 Oct 2026 07:28:00 GMT"), 20),
        ((b"content-length", b"3"), 0),  # it broke off
    ],
)
def test_it_is_remembered_as_long_as_the_provider_says_at_most(headers: tuple[bytes, bytes], seconds: float) -> None:
    decision = STALE.on_loaded(PLAIN, loaded(b"{}", headers=(*JSON_HEADERS, headers), status=429))
    assert isinstance(decision, Discard)
    assert decision.remember_for == seconds


def test_a_timeout_is_remembered_for_those_who_wait_no_longer() -> None:
    hasty = replace(PLAIN, patience=2.0)
    assert STALE.on_error(hasty, None, TimeoutError(), 0.0) == Reraise(20, 2.0)
    assert STALE.on_error(hasty, None, httpx2.ReadTimeout("slow"), 0.0) == Reraise(20, 2.0)
    assert STALE.on_error(hasty, None, httpx2.ConnectError("lost"), 0.0) == Reraise(20)


@pytest.mark.parametrize(
    ("request_", "status", "headers", "expected"),
    [
        (PLAIN, 200, JSON_HEADERS, Record()),
        (PLAIN, 200, ((b"Content-Type", b"Application/JSON; charset=utf-8"),), Record()),
        (STREAMED, 200, STREAM_HEADERS, Record()),
        (STREAMED, 200, JSON_HEADERS, Pass("media-type")),
        (PLAIN, 200, STREAM_HEADERS, Pass("media-type")),
        (PLAIN, 200, (), Pass("media-type")),
        (PLAIN, 200, ((b"content-type", b"text/html"),), Pass("media-type")),
        (PLAIN, 200, JSON_HEADERS * 2, Pass("media-type")),
        (PLAIN, 201, JSON_HEADERS, Pass("status")),
        (PLAIN, 206, JSON_HEADERS, Pass("status")),
        (PLAIN, 304, JSON_HEADERS, Pass("status")),
        (PLAIN, 429, JSON_HEADERS, Pass("status")),
        (STREAMED, 500, STREAM_HEADERS, Pass("status")),
        (PLAIN, 200, (*JSON_HEADERS, (b"cache-control", b"no-store")), Record()),
        (PLAIN, 200, (*JSON_HEADERS, (b"vary", b"*"), (b"set-cookie", b"a=b")), Record()),
    ],
)
def test_only_what_the_call_asked_for_is_recorded(
    request_: ModelRequest, status: int, headers: Fields, expected: Record | Pass
) -> None:
    assert POLICY.on_response(request_, ResponseHead(status, headers), 0.0) == expected
    if isinstance(expected, Pass):
        body = STREAM if request_ is STREAMED else (dump(completion()),)
        assert POLICY.on_loaded(request_, loaded(*body, headers=headers, status=status)) == Discard(expected.reason)


def test_streams_are_watched_for_their_terminator() -> None:
    assert isinstance(POLICY.terminator(STREAMED, ResponseHead(200, STREAM_HEADERS)), StreamTerminator)
    assert POLICY.terminator(STREAMED, ResponseHead(200, JSON_HEADERS)) is None
    assert POLICY.terminator(PLAIN, ResponseHead(200, STREAM_HEADERS)) is None


def test_a_whole_answer_is_kept_with_its_usage() -> None:
    headers = ((b"content-type", b"application/json"), (b"x-request-id", b"r"), (b"set-cookie", b"a=b"))
    body = dump(completion())
    decision = POLICY.on_loaded(PLAIN, loaded(body[:9], body[9:], headers=headers))
    assert decision == Store(
        StoredResponse(
            status=200,
            headers=((b"content-type", b"application/json"), (b"x-cache-original-request-id", b"r")),
            chunks=(body[:9], body[9:]),
            initial_age=0.0,
            lifetime=3600.0,
            source="model",
            input_tokens=11,
            output_tokens=7,
            load_seconds=1.5,
            model="gpt-4o-mini",
        ),
        fresh_for=3600.0,
    )


def test_a_whole_stream_is_kept_in_its_chunks() -> None:
    chunks = (b"".join(STREAM)[:33], b"".join(STREAM)[33:])
    kept = stored(STREAMED, loaded(*chunks, headers=STREAM_HEADERS))
    assert kept.chunks == chunks
    assert (kept.input_tokens, kept.output_tokens) == (None, None)


def test_a_stream_that_reports_usage_is_kept_with_it() -> None:
    usage = event({"object": "chat.completion.chunk", "choices": [], "usage": USAGE})
    kept = stored(STREAMED, loaded(*STREAM[:-1], usage, DONE, headers=STREAM_HEADERS))
    assert (kept.input_tokens, kept.output_tokens) == (11, 7)


CUT = dump(completion())[:-1]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        (STREAM[:-1], "truncated"),
        ((*STREAM[:-1], b"data: [DONE]\n"), "truncated"),
        ((), "truncated"),
        ((STREAM[0], event({"error": {"message": "overloaded"}}), DONE), "error"),
        ((STREAM[0], event({"error": {"message": "overloaded"}})), "error"),
        ((STREAM[0], b"event: error\ndata: {}\n\n", DONE), "error"),
        ((STREAM[0], b"data: oops\n\n", DONE), "malformed"),
        ((DONE,), "no-choices"),
        ((event(piece("x", "length")), DONE), "length"),
        ((event(piece("x", "content_filter")), DONE), "filtered"),
        ((event(piece("x", "stop")), event(piece("y", "length", index=1)), DONE), "length"),
        ((event(piece("x", "model_length")), DONE), "length"),
    ],
)
def test_a_stream_that_is_not_whole_and_good_is_not_kept(chunks: tuple[bytes, ...], reason: str) -> None:
    assert POLICY.on_loaded(STREAMED, loaded(*chunks, headers=STREAM_HEADERS)) == Discard(reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed"),
        (CUT, "malformed"),
        (b"[]", "malformed"),
        (b"{}", "no-choices"),
        (dump(completion(choices=[])), "no-choices"),
        (dump(completion(choices=None)), "no-choices"),
        (dump(completion(choices=["x"])), "malformed"),
        (dump(completion(error={"message": "overloaded"})), "error"),
        (dump(completion(error="overloaded")), "error"),
        (dump({"error": {"message": "overloaded"}}), "error"),
        (dump(completion(choices=[{"finish_reason": "length"}])), "length"),
        (dump(completion(choices=[{"finish_reason": "stop"}, {"finish_reason": "length"}])), "length"),
        (dump(completion(choices=[{"finish_reason": "content_filter"}])), "filtered"),
    ],
)
def test_a_document_that_is_not_whole_and_good_is_not_kept(body: bytes, reason: str) -> None:
    assert POLICY.on_loaded(PLAIN, loaded(body)) == Discard(reason)


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call", None, "something new"])
def test_other_finish_reasons_are_kept(reason: str | None) -> None:
    stored(PLAIN, loaded(dump(completion(choices=[{"finish_reason": reason}]))))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (((b"content-length", b"%d" % len(dump(completion()))),), True),
        (((b"content-length", b"1"),), False),
        (((b"content-length", b"9999999"),), False),
        (((b"content-length", b"many"),), False),
        (((b"content-length", b"1"), (b"content-encoding", b"gzip")), True),
        (((b"content-length", b"1"), (b"content-encoding", b"Identity")), False),
        (((b"content-length", b"1"), (b"transfer-encoding", b"chunked")), True),
    ],
)
def test_a_body_of_another_length_than_announced_is_not_kept(fields: Fields, kept: bool) -> None:
    decision = POLICY.on_loaded(PLAIN, loaded(dump(completion()), headers=(*JSON_HEADERS, *fields)))
    assert decision == Discard("truncated") if not kept else isinstance(decision, Store)


def test_a_stream_that_has_come_to_its_own_end_is_kept_though_more_was_announced() -> None:
    length = b"%d" % (sum(map(len, STREAM)) + 1)
    decision = POLICY.on_loaded(STREAMED, loaded(*STREAM, headers=(*STREAM_HEADERS, (b"content-length", length))))
    assert isinstance(decision, Store)


@pytest.mark.parametrize(
    ("cache_control", "refused"),
    [
        (b"no-store", True),
        (b"private, No-Store", True),
        (b"no-cache", False),
        (b"private, max-age=0", False),
        (b"x-no-store", False),
    ],
)
def test_no_store_of_the_response_counts_on_request(cache_control: bytes, refused: bool) -> None:
    policy = ModelPolicy(keys=lambda category, identifier: identifier, honour_cache_control=True)
    headers = (*JSON_HEADERS, (b"cache-control", cache_control))
    decision = policy.on_response(PLAIN, ResponseHead(200, headers), 0.0)
    assert decision == (Pass("no-store") if refused else Record())
    assert POLICY.on_response(PLAIN, ResponseHead(200, headers), 0.0) == Record()


def test_ttl_is_the_life_of_an_answer() -> None:
    policy = ModelPolicy(keys=lambda category, identifier: identifier, ttl=math.inf)
    decision = policy.on_loaded(PLAIN, loaded(dump(completion())))
    assert isinstance(decision, Store)
    assert decision.fresh_for == math.inf
    assert stored(PLAIN, loaded(dump(completion())), policy).lifetime == math.inf


def test_a_ttl_of_zero_keeps_nothing() -> None:
    policy = ModelPolicy(keys=lambda category, identifier: identifier, ttl=0)
    assert policy.on_response(PLAIN, ResponseHead(200, JSON_HEADERS), 0.0) == Pass("ttl")
    assert policy.on_loaded(PLAIN, loaded(dump(completion()))) == Discard("ttl")


@pytest.mark.parametrize("ttl", [-1.0, -math.inf, math.nan])
def test_a_ttl_that_is_no_duration_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        ModelPolicy(keys=lambda category, identifier: identifier, ttl=ttl)
