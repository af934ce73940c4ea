"""Responses to requests with Range that are stored as far as they go (RFC 9111 §3.3, §3.4)."""

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.exchange._heeding import _MAX_PARTS
from aurelis.cache.http import StoredResponse, part_of
from aurelis.cache.http._ranges import ranges
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule, Purger
from tests.asgi.conftest import MakeManager
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import Visit, ask

BODY = b"0123456789"


class Film:
    """An app that answers requests with Range by what they ask for.

    Attributes:
        fields: of all its responses.
    """

    def __init__(self, **fields: str) -> None:
        self.fields = {"cache_control": "max-age=60", "etag": '"1"', "content_type": "video/mp4", **fields}
        self.origin = Origin(self._answer)

    async def _answer(self, call: Call) -> None:
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.field("range"))
        if asked is None:
            await call.answer(BODY, **self.fields)
            return
        if asked[1]:
            first, last = int(asked[1]), min(int(asked[2] or 9), 9)
        else:
            first, last = max(10 - int(asked[2]), 0), 9
        await call.answer(BODY[first : last + 1], 206, content_range=f"bytes {first}-{last}/10", **self.fields)


def part(visit: Visit) -> tuple[int, str | None, bytes]:
    """Status, place and body."""
    return visit.status, visit.field("content-range"), visit.body


async def ranged(app: CacheMiddleware, wanted: str, target: str = "/", /, **fields: str) -> Visit:
    """One request for a part."""
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return await ask(app, target, "GET", {"range": f"bytes={wanted}", **more})


async def test_a_part_answers_who_asks_for_what_is_in_it(manager: CacheManager, clock: ManualClock) -> None:
    film = Film(x_kept="1")
    app = CacheMiddleware(film.origin, cache=manager)
    first = await ranged(app, "2-7")
    assert first.cache_status == "default; fwd=uri-miss"
    clock.advance(5)
    for wanted, place, body in (
        ("2-7", "2-7", b"234567"),
        ("3-4", "3-4", b"34"),
        ("7-7", "7-7", b"7"),
        ("2-2", "2-2", b"2"),
    ):
        visit = await ranged(app, wanted)
        assert part(visit) == (206, f"bytes {place}/10", body)
        assert (visit.cache_status, visit.field("age")) == ("default; hit; ttl=55", "5")
        assert visit.field("content-length") == str(len(body))
        assert (visit.field("etag"), visit.field("content-type"), visit.field("x-kept")) == ('"1"', "video/mp4", "1")
    assert len(film.origin.calls) == 1
    for wanted in ("0-2", "7-8", "5-", "-3", "0-9"):
        visit = await ranged(app, wanted)
        assert visit.cache_status == "default; fwd=partial"
        found = re.fullmatch(r"bytes (\d+)-(\d+)/10", visit.field("content-range") or "")
        assert found is not None
        assert visit.body == BODY[int(found[1]) : int(found[2]) + 1]
        await ranged(app, "2-7", cache_control="no-cache")  # stored again


async def test_the_end_and_a_suffix_are_within_a_part_too(manager: CacheManager) -> None:
    film = Film()
    app = CacheMiddleware(film.origin, cache=manager)
    await ranged(app, "4-")
    for wanted, body in (("4-", b"456789"), ("-3", b"789"), ("8-100", b"89")):
        visit = await ranged(app, wanted)
        assert (visit.status, visit.body, visit.cache_status) == (206, body, "default; hit; ttl=60")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_part_is_never_taken_for_the_whole(manager: CacheManager, method: str) -> None:
    film = Film()
    app = CacheMiddleware(film.origin, cache=manager)
    await ranged(app, "2-7")
    visit = await ask(app, "/", method)
    assert visit.cache_status.startswith("default; fwd=partial")
    assert (visit.status, visit.field("content-range"), visit.field("content-length")) == (200, None, "10")
    crowd = [Visit(app).begin() for _ in range(3)]
    assert {(await each.end()).body for each in crowd} == {BODY}
    # The whole takes its place, and no part takes the place of the whole.
    before = len(film.origin.calls)
    assert part(await ranged(app, "0-1")) == (206, "bytes 0-1/10", b"01")
    await ranged(app, "3-4", cache_control="no-cache")
    assert (await ask(app)).cache_status == "default; hit; ttl=60"
    assert len(film.origin.calls) == before + 1


@pytest.mark.parametrize("wanted", ["0-", "0-9", "0-100", "-10", "-100"])
async def test_a_part_that_is_the_whole_is_stored_as_the_whole(manager: CacheManager, wanted: str) -> None:
    """As players of films ask first."""
    film = Film(vary="accept")
    app = CacheMiddleware(film.origin, cache=manager)
    assert (await ranged(app, wanted)).status == 206
    visit = await ask(app)
    assert (visit.status, visit.body, visit.field("content-range")) == (200, BODY, None)
    assert visit.cache_status == "default; hit; ttl=60"
    assert part(await ranged(app, "3-4")) == (206, "bytes 3-4/10", b"34")


async def test_the_whole_that_comes_in_spite_of_the_range_is_stored(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.answer(BODY, cache_control="max-age=60")

    app = CacheMiddleware(Origin(handler), cache=manager)
    assert (await ranged(app, "2-3")).status == 200
    assert part(await ranged(app, "2-3")) == (206, "bytes 2-3/10", b"23")
    assert (await ask(app)).body == BODY


@pytest.mark.parametrize(
    ("fields", "if_range", "hit"),
    [({}, '"1"', True), ({}, '"2"', False), ({}, 'W/"1"', False), ({"etag": 'W/"1"'}, 'W/"1"', False)],
)
async def test_if_range_is_heeded(manager: CacheManager, fields: dict[str, str], if_range: str, hit: bool) -> None:
    app = CacheMiddleware(Film(**fields).origin, cache=manager)
    await ranged(app, "2-7")
    assert ("; hit" in (await ranged(app, "3-4", if_range=if_range)).cache_status) is hit


@pytest.mark.parametrize("wanted", ["2-7", "0-9"])
async def test_what_comes_to_those_who_have_the_rest_is_not_for_others(manager: CacheManager, wanted: str) -> None:
    async def answer(call: Call) -> None:
        # RFC 9110 §15.3.7: a response to If-Range has nothing that the client knows already.
        described = {} if call.field("if-range") else {"content_type": "video/mp4", "content_language": "da"}
        first, last = map(int, call.field("range").removeprefix("bytes=").split("-"))
        fields = {"cache_control": "max-age=60", "etag": '"1"', "content_range": f"bytes {first}-{last}/10"}
        await call.answer(BODY[first : last + 1], 206, **fields, **described)

    origin = Origin(answer)
    app = CacheMiddleware(origin, cache=manager)
    await ranged(app, wanted, if_range='"1"')
    for _ in range(2):
        visit = await ranged(app, wanted)
        assert (visit.field("content-type"), visit.field("content-language")) == ("video/mp4", "da")
    assert len(origin.calls) == 2
    # Whoever has the rest can be served from what is stored.
    assert (await ranged(app, wanted, if_range='"1"')).status == 206
    assert len(origin.calls) == 2


async def test_conditions_of_clients_are_answered_from_a_part(manager: CacheManager) -> None:
    app = CacheMiddleware(Film().origin, cache=manager)
    await ranged(app, "2-7")
    assert (await ranged(app, "3-4", if_none_match='"1"')).status == 304
    assert (await ranged(app, "3-4", if_none_match='"2"')).status == 206


@pytest.mark.parametrize(
    ("fields", "asking"),
    [
        ({"cache_control": "no-store"}, {}),
        ({"cache_control": "private, max-age=60"}, {}),
        ({"cache_control": "max-age=0"}, {}),
        ({"cache_control": "no-cache"}, {}),
        ({"vary": "*"}, {}),
        ({"vary": "accept"}, {}),
        ({"content_length": "7"}, {}),
        ({"content_range": "bytes 2-7/*"}, {}),
        ({"content_range": "bytes 2-8/10"}, {}),
        ({"content_range": "items 2-7/10"}, {}),
        ({"content_range": "bytes 7-2/10"}, {}),
        ({}, {"authorization": "Basic x"}),
        ({}, {"cache_control": "no-store"}),
        ({"set_cookie": "a=b"}, {"cookie": "a=c"}),
    ],
)
async def test_what_may_not_be_stored_whole_may_not_be_stored_in_part(
    manager: CacheManager, fields: dict[str, str], asking: dict[str, str]
) -> None:
    given = {"cache_control": "max-age=60", "content_range": "bytes 2-7/10", **fields}

    async def handler(call: Call) -> None:
        await call.answer(BODY[2:8], 206, **given)

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ranged(app, "2-7", **asking)
    assert "; hit" not in (await ranged(app, "2-7")).cache_status


async def test_several_parts_are_not_stored(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        kind = "multipart/byteranges; boundary=x"
        await call.answer(b"--x\r\n\r\n--x--", 206, content_type=kind, cache_control="max-age=60")

    app = CacheMiddleware(Origin(handler), cache=manager)
    for _ in range(2):
        assert "fwd=uri-miss" in (await ranged(app, "0-1,4-5")).cache_status


async def test_a_part_grows_stale_and_is_replaced(manager: CacheManager, clock: ManualClock) -> None:
    film = Film()
    app = CacheMiddleware(film.origin, cache=manager)
    await ranged(app, "2-7")
    clock.advance(61)
    assert "; hit" not in (await ranged(app, "0-3")).cache_status
    assert "; hit" in (await ranged(app, "0-1")).cache_status
    assert "; hit" not in (await ranged(app, "4-5", cache_control="max-age=0")).cache_status


async def test_a_part_is_purged_and_invalidated_like_the_whole(manager: CacheManager) -> None:
    film = Film(cache_tag="films")
    app = CacheMiddleware(film.origin, cache=manager)
    for out_of_date in (
        Purger(manager).url("http://example.com/"),
        manager.invalidate_tags("films"),
        Purger(manager).pattern("http://example.com/*"),
        ask(app, "/", "DELETE"),
    ):
        await ranged(app, "2-7")
        assert "; hit" in (await ranged(app, "2-7")).cache_status
        await out_of_date
        assert "; hit" not in (await ranged(app, "2-7")).cache_status


async def test_a_part_can_be_seen(manager: CacheManager) -> None:
    app = CacheMiddleware(Film().origin, cache=manager)
    await ranged(app, "2-7")
    (entry,) = await Purger(manager).entries("http://example.com/")
    assert (entry.status, entry.size, entry.apart) == (206, 6, False)


@pytest.mark.parametrize("layers", ["memory", "redis"])
async def test_a_part_that_an_invalidation_has_overtaken_is_not_stored(
    make_manager: MakeManager, redis_url: str, layers: str
) -> None:
    manager = make_manager(redis_url=redis_url) if layers == "redis" else make_manager()
    film = Film()

    async def slow(call: Call) -> None:
        if call.scope["method"] == "DELETE":
            await call.answer(b"", 200)
            return
        await call.start(206, content_range="bytes 2-7/10", **film.fields)
        await call.chunk(BODY[2:5])
        await ask(app, "/", "DELETE")
        await call.chunk(BODY[5:8], more=False)

    app = CacheMiddleware(Origin(slow), cache=manager)
    await ranged(app, "2-7")
    assert "; hit" not in (await ranged(app, "2-7")).cache_status


async def test_a_part_does_not_get_in_the_way_of_the_whole(manager: CacheManager) -> None:
    film = Film()
    app = CacheMiddleware(film.origin, cache=manager)

    async def slow(call: Call) -> None:
        await call.start(200, **film.fields)
        await call.chunk(BODY[:5])
        await ranged(app, "2-7")
        await call.chunk(BODY[5:], more=False)

    visit = await ask(CacheMiddleware(Origin(slow), cache=manager))
    assert visit.body == BODY
    assert (await ask(app)).cache_status == "default; hit; ttl=60"


async def test_processes_share_parts(make_manager: MakeManager, redis_url: str) -> None:
    film = Film()
    one, other = (CacheMiddleware(film.origin, cache=make_manager(redis_url=redis_url)) for _ in range(2))
    await ranged(one, "2-7")
    visit = await ranged(other, "3-4")
    assert part(visit) == (206, "bytes 3-4/10", b"34")
    assert visit.cache_status.startswith("default; hit; ttl=")
    assert (await ask(other)).cache_status.startswith("default; fwd=partial; ")


async def test_a_part_counts_for_rules_and_bounds(manager: CacheManager, clock: ManualClock) -> None:
    rules = [
        CacheRule("/large", ttl=10, max_body_bytes=3),
        CacheRule("/users/**", ttl=10, principal=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode()),
        CacheRule("/**", ttl=10, ignore_query=("utm_*",)),
    ]

    async def handler(call: Call) -> None:
        await call.answer(BODY[2:8], 206, content_range="bytes 2-7/10", x_seen=call.scope["query_string"].decode())

    app = CacheMiddleware(Origin(handler), cache=manager, rules=rules)
    for target, fields, hit in (
        ("/a", {}, True),
        ("/large", {}, False),
        ("/users/a", {"x_user": "alice"}, True),
        ("/users/a", {"x_user": "bob"}, True),
    ):
        for expected in (False, hit):
            assert ("; hit" in (await ranged(app, "2-7", target, **fields)).cache_status) is expected
    # What does not count for the key must not be in what is stored for others.
    await ranged(app, "2-7", "/b?utm_x=evil")
    visit = await ranged(app, "2-7", "/b?utm_x=other")
    assert "; hit" not in visit.cache_status
    assert (await ranged(app, "2-7", "/b")).field("x-seen") == ""
    assert "; hit" in (await ranged(app, "2-7", "/b?utm_x=other")).cache_status


@pytest.mark.parametrize("layers", ["memory", "redis"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_breaks_off_is_not_stored_and_gets_in_nobodys_way(
    make_manager: MakeManager, redis_url: str, layers: str, method: str
) -> None:
    manager = make_manager(redis_url=redis_url) if layers == "redis" else make_manager()
    breaks = True
    asking = {"range": "bytes=2-7"} if method == "GET" else {}
    fields = {"cache_control": "max-age=60", "content_location": "/"}

    async def handler(call: Call) -> None:
        if method == "GET":
            await call.start(206, content_range="bytes 2-7/10", **fields)
        else:
            await call.start(200, **fields)
        await call.chunk(BODY[2:5])
        if breaks:
            raise ConnectionError("gone")
        await call.chunk(BODY[5:8], more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    for _ in range(2):
        visit = Visit(app, "/", method, asking)
        with pytest.raises(ConnectionError):
            await visit.go()
        assert "; hit" not in visit.cache_status
    breaks = False
    assert (await ask(app, "/", method, asking)).complete
    assert "; hit" in (await ranged(app, "2-3")).cache_status


async def test_few_parts_are_held_at_once(manager: CacheManager) -> None:
    """Clients decide how long that takes."""
    gates = [asyncio.Event(), asyncio.Event()]

    async def handler(call: Call) -> None:
        await call.start(206, content_range="bytes 2-7/10", cache_control="max-age=60")
        await call.chunk(BODY[2:5])
        await gates[call.path == "/late"].wait()
        await call.chunk(BODY[5:8], more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    slow = [Visit(app, f"/{number % 30}", "GET", {"range": "bytes=2-7"}).begin() for number in range(60)]
    for visit in slow:
        await visit.until(2)
    assert len(app.heeding._parts) == _MAX_PARTS
    late = Visit(app, "/late", "GET", {"range": "bytes=2-7"}).begin()
    await late.until(2)
    gates[0].set()
    assert {(await visit.end()).body for visit in slow} == {BODY[2:8]}
    assert app.heeding._parts == set()
    assert ["; hit" in (await ranged(app, "2-3", f"/{number}")).cache_status for number in range(30)] == [
        number < _MAX_PARTS for number in range(30)
    ]
    gates[1].set()
    await late.end()


async def test_a_part_that_is_announced_as_too_large_is_not_held(manager: CacheManager) -> None:
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await call.start(206, content_range="bytes 0-8/10", cache_control="max-age=60", content_length="9")
        await call.chunk(BODY[:3])
        await gate.wait()
        await call.chunk(BODY[3:9], more=False)

    app = CacheMiddleware(Origin(handler), cache=manager, max_body_bytes=8)
    visit = Visit(app, "/", "GET", {"range": "bytes=0-8"}).begin()
    await visit.until(2)
    assert app.heeding._parts == set()
    gate.set()
    assert (await visit.end()).body == BODY[:9]
    assert "; hit" not in (await ranged(app, "0-8")).cache_status


SPANS = ["", "0-", "0-3", "2-7", "3-4", "5-", "-2", "-10", "9-9", "4-20", "12-", "0-1,4-5", "x", "7-3"]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(SPANS), st.sampled_from(["", "", "later", "new", "no-cache", "gone"])), max_size=14
    )
)
def test_every_part_is_of_a_film_that_there_was(steps: list[tuple[str, str]]) -> None:
    """Whatever was asked for before: never bytes of one version in the place of another, and fields that fit."""
    asyncio.run(_watch(steps))


async def _watch(steps: list[tuple[str, str]]) -> None:
    clock = ManualClock()
    versions = [b"0123456789"]

    async def handler(call: Call) -> None:
        film = Film(etag=f'"{len(versions)}"')
        body = versions[-1]
        stored = StoredResponse(200, ((b"etag", film.fields["etag"].encode()),), (body,))
        wanted = call.field("range").encode()
        part_made = part_of({b"range": wanted}, stored, b"x") if wanted else None
        if part_made is None:
            await call.answer(body, **film.fields)
            return
        fields = {name.decode().replace("-", "_"): value.decode() for name, value in part_made.fields}
        await call.answer(part_made.body, part_made.status, **{**film.fields, **fields})

    async with CacheManager(CacheConfig(), clock=clock) as manager:
        app = CacheMiddleware(Origin(handler), cache=manager)
        for span, event in steps:
            if event == "later":
                clock.advance(40)
            elif event == "new":
                versions.append(bytes((byte * 7 + 3) % 256 for byte in versions[-1]))
            elif event == "gone":
                await Purger(manager).url("http://example.com/")
            fields = {"range": f"bytes={span}"} if span else {}
            if event == "no-cache":
                fields["cache-control"] = "no-cache"
            visit = await ask(app, "/", "GET", fields)
            whole = versions[int((visit.field("etag") or "").strip('"')) - 1]
            place = re.fullmatch(r"bytes (\d+)-(\d+)/10", visit.field("content-range") or "")
            if visit.status == 206 and place is not None:
                first, last = int(place[1]), int(place[2])
                assert visit.body == whole[first : last + 1]
                assert visit.field("content-length") == str(last + 1 - first)
                assert ranges(fields["range"].encode(), 10) == [(first, last)]
            elif visit.status == 200:
                assert visit.body == whole
                assert visit.field("content-range") is None
            else:
                assert visit.status == 416 or "multipart" in (visit.field("content-type") or "")
            if event in ("new", "no-cache") and "; hit" not in visit.cache_status:
                assert whole == versions[-1]
