"""The rules of RFC 9111, seen from the client of an app behind the middleware."""

import asyncio
from email.utils import formatdate
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware
from tests.asgi.counts import loads, requests
from tests.asgi.origin import Call, Gated, Origin, fixed
from tests.asgi.sockets import fetch, served
from tests.asgi.visits import Visit, ask, http_scope
from tests.managers import eventually


async def test_a_response_is_reused_until_its_max_age_is_over(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §4.2."""
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager)
    first = await ask(app)
    assert (first.body, first.cache_status) == (b"body 1", "default; fwd=uri-miss; fwd-status=200; ttl=60; stored")
    clock.advance(59)
    second = await ask(app)
    assert (second.body, second.cache_status, second.field("age")) == (b"body 1", "default; hit; ttl=1", "59")
    clock.advance(1)
    third = await ask(app)
    # What is no longer fresh has also left memory: there is nothing to say that it was there.
    assert (third.body, third.field("age")) == (b"body 2", None)
    assert third.cache_status.startswith("default; fwd=")


async def test_s_maxage_goes_before_max_age(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §5.2.2.10: the middleware is a shared cache."""
    app = CacheMiddleware(fixed(cache_control="max-age=60, s-maxage=5"), cache=manager)
    await ask(app)
    clock.advance(6)
    assert (await ask(app)).body == b"body 2"


async def test_expires_counts_where_there_is_no_max_age(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §5.3."""
    now = clock.time()
    app = CacheMiddleware(
        fixed(date=formatdate(now, usegmt=True), expires=formatdate(now + 30, usegmt=True)), cache=manager
    )
    await ask(app)
    clock.advance(29)
    assert (await ask(app)).body == b"body 1"
    clock.advance(2)
    assert (await ask(app)).body == b"body 2"


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        pytest.param({"cache_control": "no-store, max-age=60"}, "no-store", id="5.2.2.5"),
        pytest.param({"cache_control": "no-cache, max-age=60"}, "no-cache", id="5.2.2.4"),
        pytest.param({"cache_control": "private, max-age=60"}, "private", id="5.2.2.7"),
        pytest.param({"cache_control": "max-age=0"}, "not-fresh", id="4.2-zero"),
        pytest.param({"cache_control": "max-age=60, s-maxage=0"}, "not-fresh", id="5.2.2.10"),
        pytest.param({"expires": "0"}, "not-fresh", id="5.3-invalid"),
        pytest.param({}, "not-fresh", id="4.2-nothing-said"),
        pytest.param({"cache_control": "max-age=60", "vary": "*"}, "vary", id="4.1-star"),
        pytest.param({"last_modified": "Fri, 01 Jan 2010 00:00:00 GMT", "set_cookie": "a=b"}, "set-cookie", id="7.3"),
        pytest.param({"cache_control": "max-age=60", "age": "60"}, "not-fresh", id="4.2.3-too-old"),
    ],
)
async def test_a_response_that_must_not_be_stored_is_not(
    manager: CacheManager, fields: dict[str, str], detail: str
) -> None:
    app = CacheMiddleware(fixed(**fields), cache=manager, cache_status="debug")
    for number in (1, 2):
        visit = await ask(app)
        assert visit.body == b"body %d" % number
        assert visit.cache_status == f"default; fwd=uri-miss; fwd-status=200; detail={detail}"
    assert requests(manager) == {"miss": 2}


@pytest.mark.parametrize("status", [200, 203, 301, 404, 410, 500])
async def test_any_final_status_may_be_stored_with_a_lifetime_of_its_own(manager: CacheManager, status: int) -> None:
    app = CacheMiddleware(fixed("body", status, cache_control="max-age=60"), cache=manager)
    await ask(app)
    visit = await ask(app)
    assert (visit.status, visit.body) == (status, b"body 1")


async def test_the_age_of_what_the_app_got_elsewhere_counts(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §4.2.3."""
    app = CacheMiddleware(fixed(cache_control="max-age=60", age="20"), cache=manager)
    assert (await ask(app)).fields("age") == ["20"]
    clock.advance(10)
    visit = await ask(app)
    assert (visit.fields("age"), visit.cache_status) == (["30"], "default; hit; ttl=30")


async def test_a_hit_has_the_fields_and_the_chunks_of_the_first_answer(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        headers = [
            (b"Cache-Control", b"max-age=60"),
            (b"X-Twice", b"one"),
            (b"x-twice", b"two"),
            (b"connection", b"x-hop"),
            (b"x-hop", b"for this connection"),
        ]
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in (b"one", b"", b"two"):
            await call.chunk(chunk)
        await call.chunk(b"three", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    first, second = await ask(app), await ask(app)
    assert first.chunks == second.chunks == [b"one", b"two", b"three"]
    assert first.complete
    assert second.complete
    assert second.messages[0]["headers"] == [
        (b"cache-control", b"max-age=60"),
        (b"x-twice", b"one"),
        (b"x-twice", b"two"),
        (b"age", b"0"),
        (b"cache-status", b"default; hit; ttl=60"),
    ]


@pytest.mark.parametrize("version", ["2", "3"])
async def test_a_body_that_no_field_announces_reaches_the_app_alone(manager: CacheManager, version: str) -> None:
    """From HTTP/2 on a body needs no Content-Length (RFC 9113 §8.1.1), so only what comes tells of it."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        seen.append(message["body"])
        headers = [(b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"answer to " + message["body"]})

    cached = CacheMiddleware(app, cache=manager, cache_status="debug")

    class Unannounced(Visit):
        def __init__(self, body: bytes) -> None:
            super().__init__(cached, "/search", body=body, http_version=version)
            self.scope["headers"] = [line for line in self.scope["headers"] if line[0] != b"content-length"]

    visit = await Unannounced(b"question").go()
    assert (visit.body, visit.cache_status) == (b"answer to question", "default; fwd=bypass; detail=body")
    plain = await Unannounced(b"").go()
    assert (plain.body, plain.cache_status) == (b"answer to ", "default; fwd=uri-miss; fwd-status=200; ttl=60; stored")
    assert seen == [b"question", b""]

    impatient = Unannounced(b"")
    impatient.scope["raw_path"] = b"/other"
    impatient._requests.clear()  # nothing but its head comes
    impatient.begin()
    await asyncio.sleep(0)
    impatient.leave()
    assert (await impatient.end()).status == 499
    assert requests(manager) == {"miss": 1, "bypass": 2}


async def test_a_server_that_does_not_say_that_there_is_no_body_is_not_waited_for(manager: CacheManager) -> None:
    """uvicorn 0.54 over HTTP/2: until such a request is over, `receive` says nothing."""
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager)
    scope = http_scope("/", "GET", {}, http_version="2")
    messages: list[Message] = []
    over = asyncio.Event()

    async def receive() -> Message:
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    assert messages[-1] == {"type": "http.response.body", "body": b"body 1", "more_body": False}
    over.set()
    assert (await ask(app)).cache_status == "default; hit; ttl=60"


@pytest.mark.parametrize("body", [b"", b"something"])
async def test_a_body_in_one_piece_stays_in_one_piece(manager: CacheManager, body: bytes) -> None:
    """Middleware outside, such as GZip, treats it differently."""

    async def handler(call: Call) -> None:
        await call.answer(body, cache_control=call.field("wanted"))

    app = CacheMiddleware(Origin(handler), cache=manager)
    for wanted in ("max-age=60", "max-age=60", "no-store"):
        visit = await ask(app, f"/{wanted}", "GET", {"wanted": wanted})
        assert [(message["body"], message.get("more_body", False)) for message in visit.messages[1:]] == [(body, False)]


# Vary


async def echo_language(call: Call) -> None:
    """Answers in the language that is asked for."""
    language = call.field("accept-language")
    await call.answer(f"{language} {call.number}", cache_control="max-age=60", vary="Accept-Language, X-Beta")


async def test_each_variant_is_stored_on_its_own(manager: CacheManager) -> None:
    """RFC 9111 §4.1."""
    app = CacheMiddleware(Origin(echo_language), cache=manager)
    variants = [{"accept-language": "de"}, {"accept-language": "fr"}, {"accept-language": "de", "x-beta": "1"}, {}]
    for expected in ("uri-miss", "hit"):
        for number, fields in enumerate(variants, start=1):
            visit = await ask(app, "/", "GET", fields)
            assert visit.body == f"{fields.get('accept-language', '')} {number}".encode()
            reason = "vary-miss" if expected == "uri-miss" and number > 1 else expected
            assert f"; {reason}" in visit.cache_status.replace("fwd=", "")
    assert requests(manager) == {"miss": 4, "hit": 4}


async def test_variants_that_are_asked_for_at_once_are_made_once_each(manager: CacheManager) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await gate.wait()
        await echo_language(call)

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    languages = [f"l{number % 5}" for number in range(50)]
    visits = [Visit(app, "/", "GET", {"accept-language": language}).begin() for language in languages]
    await eventually(lambda: len(origin.calls) == 1)
    gate.set()
    for visit in visits:
        await visit.end()
    assert [visit.body.split()[0].decode() for visit in visits] == languages
    assert len(origin.calls) == 5
    assert requests(manager) == {"miss": 50}


# HEAD, conditions, ranges


async def test_head_is_answered_from_a_stored_get(manager: CacheManager) -> None:
    """RFC 9110 §9.3.2."""
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager)
    await ask(app)
    visit = await ask(app, "/", "HEAD")
    assert (visit.status, visit.body, visit.complete) == (200, b"", True)
    assert (visit.field("content-length"), visit.cache_status) == ("6", "default; hit; ttl=60")


async def test_head_alone_goes_to_the_app_and_is_not_stored(manager: CacheManager) -> None:
    origin = fixed(cache_control="max-age=60")
    app = CacheMiddleware(origin, cache=manager, cache_status="debug")
    for _ in range(2):
        assert (await ask(app, "/", "HEAD")).cache_status == "default; fwd=uri-miss; detail=head"
    assert [call.scope["method"] for call in origin.calls] == ["HEAD", "HEAD"]
    assert (await ask(app)).body == b"body 3"
    assert requests(manager) == {"miss": 3}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_client_that_has_the_response_is_told_so(manager: CacheManager, method: str) -> None:
    """RFC 9111 §4.3.2."""
    app = CacheMiddleware(fixed(cache_control="max-age=60", etag='"v1"', content_type="text/plain"), cache=manager)
    await ask(app)
    visit = await ask(app, "/", method, {"if-none-match": '"v0", W/"v1"'})
    assert (visit.status, visit.body, visit.field("etag")) == (304, b"", '"v1"')
    assert (visit.field("content-length"), visit.field("content-type"), visit.field("age")) == (None, None, "0")
    assert visit.cache_status == "default; hit; ttl=60"
    assert (await ask(app, "/", method, {"if-none-match": '"v2"'})).status == 200


async def test_a_condition_without_a_stored_response_is_for_the_app(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        matches = call.field("if-none-match") == '"v1"'
        await call.answer("" if matches else "body", 304 if matches else 200, cache_control="max-age=60", etag='"v1"')

    app = CacheMiddleware(Origin(handler), cache=manager, cache_status="debug")
    visit = await ask(app, "/", "GET", {"if-none-match": '"v1"'})
    assert (visit.status, visit.cache_status) == (304, "default; fwd=uri-miss; detail=conditional")
    assert (await ask(app)).status == 200


async def test_a_range_is_made_of_a_stored_response(manager: CacheManager) -> None:
    """RFC 9110 §14; what is not stored comes from the app."""
    origin = fixed(cache_control="max-age=60", etag='"a"')
    app = CacheMiddleware(origin, cache=manager, cache_status="debug")
    visit = await ask(app, "/", "GET", {"range": "bytes=0-1"})
    assert "; fwd=uri-miss; " in visit.cache_status
    assert (await ask(app)).body == b"body 1"
    visit = await ask(app, "/", "GET", {"range": "bytes=5-"})
    assert (visit.status, visit.body, visit.field("content-length")) == (206, b"1", "1")
    assert visit.field("content-range") == "bytes 5-5/6"
    assert visit.field("etag") == '"a"'
    assert visit.cache_status.startswith("default; hit; ttl=60")
    visit = await ask(app, "/", "GET", {"range": "bytes=6-"})
    assert (visit.status, visit.body, visit.field("content-range")) == (416, b"", "bytes */6")
    visit = await ask(app, "/", "GET", {"range": "bytes=0-0,-1"})
    assert visit.status == 206
    kind = visit.field("content-type") or ""
    assert kind.startswith("multipart/byteranges; boundary=")
    assert visit.body.count(kind.partition("=")[2].encode()) == 3
    assert visit.field("content-length") == str(len(visit.body))
    for fields in (
        {"range": "bytes=0-1", "if-range": '"b"'},
        {"range": "bytes=0-1", "if-range": 'W/"a"'},
        {"range": "lines=0-1"},
        {"range": "bytes=0-4,0-4"},  # more than there is
        {"range": "bytes=" + ",".join(["0-0"] * 17)},
    ):
        visit = await ask(app, "/", "GET", fields)
        assert (visit.status, visit.body) == (200, b"body 1")
    visit = await ask(app, "/", "GET", {"range": "bytes=0-1", "if-range": '"a"'})
    assert (visit.status, visit.body) == (206, b"bo")
    visit = await ask(app, "/", "GET", {"range": "bytes=0-1", "if-none-match": '"a"'})
    assert visit.status == 304
    assert (await ask(app, "/", "HEAD", {"range": "bytes=0-1"})).status == 200
    assert len(origin.calls) == 1


async def test_exactly_one_date_reaches_the_client(manager: CacheManager) -> None:
    """RFC 9110 §6.6.1: the server's, as the app says none."""
    async with served(CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager)) as port:
        for _ in range(2):
            answer = await fetch(port, "/")
            assert answer.fields["date"].count("GMT") == 1
    assert answer.fields["age"] == "0"


# What the request says


async def test_only_if_cached_never_reaches_the_app(manager: CacheManager) -> None:
    """RFC 9111 §5.2.1.7."""
    origin = fixed(cache_control="max-age=60")
    app = CacheMiddleware(origin, cache=manager, cache_status="debug")
    fields = {"cache-control": "only-if-cached"}
    visit = await ask(app, "/", "GET", fields)
    assert (visit.status, visit.body, visit.cache_status) == (504, b"", "default; detail=only-if-cached")
    assert (visit.field("content-length"), visit.complete, len(origin.calls)) == ("0", True, 0)
    await ask(app)
    assert (await ask(app, "/", "GET", fields)).body == b"body 1"
    assert requests(manager) == {"bypass": 1, "miss": 1, "hit": 1}


@pytest.mark.parametrize(
    "fields", [{"cache-control": "no-cache"}, {"cache-control": "max-age=0"}, {"pragma": "no-cache"}]
)
async def test_a_client_that_wants_it_fresh_gets_it_fresh(
    manager: CacheManager, clock: ManualClock, fields: dict[str, str]
) -> None:
    """RFC 9111 §5.2.1: what it gets replaces what was stored."""
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager)
    await ask(app)
    clock.advance(1)
    visit = await ask(app, "/", "GET", fields)
    assert (visit.body, visit.cache_status) == (
        b"body 2",
        "default; fwd=request; fwd-status=200; ttl=60; stored",
    )
    assert (await ask(app)).body == b"body 2"


async def test_request_directives_can_be_ignored(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager, honour_request_directives=False)
    for cache_control in ("no-store", "no-cache", "max-age=0"):
        assert (await ask(app, "/", "GET", {"cache-control": cache_control})).body == b"body 1"


async def test_no_store_of_a_request_is_heeded(manager: CacheManager) -> None:
    """RFC 9111 §5.2.1.5."""
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager, cache_status="debug")
    visit = await ask(app, "/", "GET", {"cache-control": "no-store"})
    assert visit.cache_status == "default; fwd=request; detail=no-store"
    assert (await ask(app)).body == b"body 2"


@pytest.mark.parametrize("transfer", ["content-length", "transfer-encoding"])
async def test_a_get_with_a_body_goes_to_the_app_alone(manager: CacheManager, transfer: str) -> None:
    """The app may answer by the body, which is no part of the key."""

    async def handler(call: Call) -> None:
        await call.answer(await call.request_body(), cache_control="max-age=60")

    app = CacheMiddleware(Origin(handler), cache=manager, cache_status="debug")
    fields = {"transfer-encoding": "chunked"} if transfer == "transfer-encoding" else {"content-length": "3"}
    for body in (b"one", b"two"):
        visit = await ask(app, "/", "GET", fields, body=body)
        assert (visit.body, visit.cache_status) == (body, "default; fwd=bypass; detail=body")
    assert (await ask(app)).body == b""
    assert requests(manager) == {"bypass": 2, "miss": 1}


async def test_a_content_length_of_zero_is_no_body(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager)
    for _ in range(2):
        assert (await ask(app, "/", "GET", {"content-length": "0"})).body == b"body 1"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "REPORT"])
async def test_other_methods_are_passed_with_their_body_and_not_counted(manager: CacheManager, method: str) -> None:
    async def handler(call: Call) -> None:
        await call.answer(await call.request_body(), cache_control="max-age=60")

    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager)
    for body in (b"one", b"two"):
        visit = await ask(app, "/", method, body=body)
        assert (visit.body, visit.cache_status) == (body, "default; fwd=method")
    assert requests(manager) == {}
    assert (await ask(app)).body == b""


async def test_a_stale_response_stands_in_for_an_app_that_fails(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 5861 §4."""
    fails = False

    async def handler(call: Call) -> None:
        if fails:
            raise LookupError("broken")
        await call.answer(f"body {call.number}", cache_control="max-age=10, stale-if-error=60")

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app)
    fails = True
    clock.advance(15)
    visits = [Visit(app).begin() for _ in range(3)]
    for visit in visits:
        await visit.end()
        assert (visit.status, visit.body, visit.field("age")) == (200, b"body 1", "15")
        assert visit.cache_status.removesuffix("; collapsed") == "default; fwd=stale; ttl=-5"
    assert requests(manager) == {"miss": 1, "stale": 3}
    assert loads(manager) == 2
    clock.advance(60)
    with pytest.raises(LookupError):
        await ask(app)
    fails = False
    assert (await ask(app)).cache_status.endswith("; stored")


async def test_what_only_has_last_modified_is_kept_for_a_while(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §4.2.2, and as under a rule not for those with credentials."""
    modified = formatdate(clock.time() - 1000, usegmt=True)
    app = CacheMiddleware(fixed(last_modified=modified), cache=manager)
    for fields in ({"cookie": "a=b"}, {"authorization": "me"}):
        assert "stored" not in (await ask(app, "/", "GET", fields)).cache_status
    assert (await ask(app)).body == b"body 3"
    for fields in ({"cookie": "a=b"}, {"authorization": "me"}):
        assert (await ask(app, "/", "GET", fields)).body != b"body 3"
    clock.advance(99)
    assert (await ask(app)).body == b"body 3"
    clock.advance(1)
    assert (await ask(app)).body != b"body 3"


# The target


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"target": "/?a=2"}, id="query"),
        pytest.param({"target": "/other"}, id="path"),
        pytest.param({"fields": {"host": "other.example"}}, id="host"),
        pytest.param({"scheme": "https"}, id="scheme"),
    ],
)
async def test_another_target_has_an_entry_of_its_own(manager: CacheManager, other: dict[str, Any]) -> None:
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager)

    async def get(target: str = "/?a=1", fields: dict[str, str] | None = None, **more: Any) -> bytes:
        return (await ask(app, target, "GET", fields or {}, **more)).body

    assert await get() == b"body 1"
    assert await get(**other) == b"body 2"
    assert await get() == b"body 1"


# Waiters that must ask for themselves


async def test_who_waits_for_a_response_that_may_not_be_shared_asks_for_itself(manager: CacheManager) -> None:
    handler = Gated(cache_control="no-store")
    origin = Origin(handler)
    app = CacheMiddleware(origin, cache=manager, cache_status="debug")
    visits = [Visit(app).begin() for _ in range(10)]
    await eventually(lambda: manager._engine.flights.waiting == 9)
    handler.gate.set()
    bodies = {(await visit.end()).body for visit in visits}
    assert len(bodies) == len(origin.calls) == 10
    assert sorted(visit.cache_status for visit in visits) == [
        *["default; fwd=uri-miss; detail=no-store"] * 9,
        "default; fwd=uri-miss; fwd-status=200; detail=no-store",
    ]
    assert requests(manager) == {"miss": 10}


async def test_who_asks_for_itself_after_waiting_still_has_its_request_to_read(manager: CacheManager) -> None:
    """While it waited, the middleware looked for a disconnect, and so received what belongs to the app."""
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        body = await call.request_body()
        await gate.wait()
        await call.answer(b"[%b]" % body, cache_control="no-store")

    app = CacheMiddleware(Origin(handler), cache=manager)
    visits = [Visit(app).begin() for _ in range(3)]
    await eventually(lambda: manager._engine.flights.waiting == 2)
    gate.set()
    assert [(await visit.end()).body for visit in visits] == [b"[]"] * 3


@pytest.mark.parametrize("said", ["no-store", "max-age=60"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_connection_names_reaches_no_client(manager: CacheManager, method: str, said: str) -> None:
    """RFC 9110 §7.6.1: it is for the next recipient alone. What is about the connection is for the server."""

    async def handler(call: Call) -> None:
        headers = [
            (b"Connection", b"close, X-Hop"),
            (b"connection", b"x-other"),
            (b"X-Hop", b"1"),
            (b"x-other", b"2"),
            (b"X-Kept", b"3"),
            (b"cache-control", said.encode()),
        ]
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        await call.chunk(b"body", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    crowd = [Visit(app, "/", method).begin() for _ in range(3)]
    for visit in [*[await visit.end() for visit in crowd], await ask(app, "/", method)]:
        names = [name.lower() for name, _ in visit.messages[0]["headers"]]
        assert b"x-kept" in names
        assert not {b"x-hop", b"x-other"} & set(names)
        collapsed = "collapsed" in visit.cache_status or "; hit" in visit.cache_status
        assert (b"connection" in names) is not collapsed
