"""Laws that hold for any messages: of the rules alone, and of the middleware in any conversation."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache._entry import Entry
from aurelis.cache.http import (
    HttpRequest,
    LoadedResponse,
    ResponseHead,
    StoredResponse,
    combine,
    current_age,
    invalidated,
    is_not_modified,
    part_of,
)
from aurelis.cache.testing import ManualClock
from aurelis.cache.typing import Confirm, Serve, Store
from aurelis_asgi import CacheMiddleware
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import Visit, ask
from tests.http.messages import NOW, URL, policy
from tests.managers import eventually, fresh_name, is_settled

NAMES = [
    *("age", "cache-control", "cdn-cache-control", "connection", "content-length", "content-range", "date", "etag"),
    *("expires", "last-modified", "location", "pragma", "set-cookie", "vary", "warning", "x"),
]
REQUEST_NAMES = [
    *("accept-language", "authorization", "cache-control", "cookie", "if-match", "if-modified-since"),
    *("if-none-match", "if-range", "pragma", "range", "x"),
]
PIECES = st.sampled_from(
    [
        b"max-age",
        b"s-maxage",
        b"stale-while-revalidate",
        b"stale-if-error",
        b"no-cache",
        b"no-store",
        b"private",
        b"public",
        b"must-understand",
        b"immutable",
        b"max-stale",
        b"min-fresh",
        b"=",
        b",",
        b" ",
        b'"',
        b"\\",
        b"-",
        b"0",
        b"60",
        b"99999999999999999999",
        b'"a"',
        b'W/"a"',
        b"*",
        b"bytes=0-1",
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"\xff\x00",
    ]
)
VALUES = st.one_of(st.lists(PIECES, max_size=6).map(b"".join), st.binary(max_size=12))


def lines_of(names: list[str]) -> st.SearchStrategy[tuple[tuple[bytes, bytes], ...]]:
    """Field lines with these names and any values."""
    return st.lists(st.tuples(st.sampled_from([name.encode() for name in names]), VALUES), max_size=6).map(tuple)


RESPONSES = st.builds(ResponseHead, st.sampled_from([200, 203, 204, 206, 301, 304, 404, 500, 599]), lines_of(NAMES))
REQUESTS = st.builds(
    lambda method, lines: HttpRequest(method, URL, combine(lines)),
    st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]),
    lines_of(REQUEST_NAMES),
)
INSTANTS = st.one_of(st.floats(0, 5e9), st.floats(NOW - 1e5, NOW + 1e5))


@given(REQUESTS, RESPONSES, INSTANTS, INSTANTS, st.booleans(), st.floats(0, 100))
def test_whatever_is_stored_has_an_age_and_a_life(
    request: HttpRequest, head: ResponseHead, asked: float, came: float, shared: bool, seconds: float
) -> None:
    rules = policy(shared=shared)
    rules.on_response(request, head, came)
    decision = rules.on_loaded(request, LoadedResponse(head, (b"body",), seconds, asked, came))
    if not isinstance(decision, Store):
        return
    stored = decision.value
    assert isinstance(stored, StoredResponse)
    assert 0 <= decision.fresh_for <= 2**31
    assert 0 <= decision.stale_for <= 2**31
    assert stored.initial_age >= 0
    for later in (0.0, 1.0, decision.fresh_for, decision.fresh_for + 10):
        age = current_age(stored.lifetime, 1000.0 + decision.fresh_for, 1000.0 + later)
        assert age >= 0
        assert abs(age - stored.initial_age - later) < 1e-3  # it grows with time and with nothing else
    names = {name for name, _ in stored.headers}
    assert names.isdisjoint({b"age", b"connection"})
    assert b"set-cookie" not in names
    if shared:
        directives = combine(head.headers).get(b"cache-control", b"")
        assert directives.strip().lower() not in (b"private", b"no-store") or b"cdn-cache-control" in dict(head.headers)


@given(REQUESTS, RESPONSES, REQUESTS, st.floats(0, 1000), st.floats(0, 1000))
def test_what_is_fresh_was_fresh_before(
    request: HttpRequest, head: ResponseHead, later: HttpRequest, one: float, other: float
) -> None:
    rules = policy()
    decision = rules.on_loaded(request, LoadedResponse(head, (b"body",), 0.0, NOW, NOW))
    if not isinstance(decision, Store):
        return
    fresh_until = 5000.0 + decision.fresh_for
    entry = Entry(decision.value, None, fresh_until, fresh_until + decision.stale_for, 1)
    before, after = sorted((5000.0 + one, 5000.0 + other))
    if isinstance(served := rules.on_lookup(later, entry, after), Serve) and not served.refresh:
        assert isinstance(rules.on_lookup(later, entry, before), Serve)


@given(REQUESTS, RESPONSES, RESPONSES, INSTANTS)
def test_no_message_makes_the_rules_fail(
    request: HttpRequest, first: ResponseHead, second: ResponseHead, now: float
) -> None:
    rules = policy()
    stored = StoredResponse(first.status, first.headers, (b"bo", b"dy"), vary=(b"x",), date=NOW)
    entry = Entry(stored, None, now, now + 60, 1)
    rules.on_lookup(request, entry, now)
    rules.conditions(request, entry)
    rules.on_refused(request, entry, second, now)
    rules.on_error(request, entry, OSError(), now)
    rules.on_shared(request, request, second, now)
    confirmed = rules.on_validated(request, entry, LoadedResponse(second, (), 0.0, now, now))
    assert confirmed is None or isinstance(confirmed, Confirm)
    rules.on_head(request, entry, LoadedResponse(second, (), 0.0, now, now))
    invalidated(request, second)
    is_not_modified(request.fields, stored)
    part = part_of(request.fields, stored, b"boundary")
    assert part is None or part.status in (206, 416)


# --- conversations

CONTROLS = [
    "max-age=10",
    "max-age=10, private",
    "max-age=10, no-store",
    "no-cache",
    "max-age=0",
    "public, max-age=10",
    "s-maxage=10",
    "max-age=10, must-revalidate",
    "max-age=5, stale-while-revalidate=20",
    "max-age=5, stale-if-error=20",
    'max-age=10, private="x"',
    "",
]


@dataclass(frozen=True)
class Step:
    """A request, how the app answers if it is asked, and the seconds before."""

    user: str
    credential: str
    path: str
    method: str
    control: str
    status: int
    etag: str
    vary: str
    wait: int
    more: tuple[tuple[str, str], ...]


STEPS = st.builds(
    Step,
    user=st.sampled_from(["", "ada", "grace"]),
    credential=st.sampled_from(["authorization", "cookie"]),
    path=st.sampled_from(["/a", "/b"]),
    method=st.sampled_from(["GET", "GET", "GET", "GET", "HEAD", "POST"]),
    control=st.sampled_from(CONTROLS),
    status=st.sampled_from([200, 200, 200, 404, 500, 503]),
    etag=st.sampled_from(["", '"1"', '"2"']),
    vary=st.sampled_from(["", "", "accept-language"]),
    wait=st.sampled_from([0, 0, 1, 6, 30]),
    more=st.sampled_from(
        [
            (),
            (("if-none-match", '"1"'),),
            (("cache-control", "no-cache"),),
            (("cache-control", "max-stale"),),
            (("accept-language", "de"),),
            (("range", "bytes=0-2"),),
        ]
    ),
)


@dataclass
class Said:
    """One answer of the app: to whom, and whether others may have it."""

    user: str
    path: str
    status: int
    fields: frozenset[tuple[str, str]]
    body: bytes
    secret: bool


@dataclass
class World:
    """The app and everything it has said."""

    step: Step | None = None
    said: dict[bytes, Said] = field(default_factory=dict)

    async def __call__(self, call: Call) -> None:
        """Answer one request as the present step says."""
        step = self.step
        assert step is not None
        user = call.field("authorization") or call.field("cookie")
        body = b"%04d %s" % (call.number, call.path.encode())
        fields = {"x": str(call.number)}
        if step.control:
            fields["cache-control"] = step.control
        if step.etag:
            fields["etag"] = step.etag
        if step.vary:
            fields["vary"] = step.vary
        if step.etag and call.field("if-none-match") == step.etag and step.status == 200:
            await call.start(304, **{name.replace("-", "_"): value for name, value in fields.items()})
            await call.chunk(b"", more=False)
            return
        shareable = any(word in step.control for word in ("public", "s-maxage", "must-revalidate"))
        by_authorization = bool(call.field("authorization"))
        # A cookie is no word about who may have the response: the app has to say so.
        secret = step.control in ("max-age=10, private", "max-age=10, no-store") or (by_authorization and not shareable)
        self.said[body] = Said(user, call.path, step.status, frozenset(fields.items()), body, secret)
        await call.answer(body, step.status, **{name.replace("-", "_"): value for name, value in fields.items()})


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=2, max_size=12))
def test_whoever_asks_gets_what_the_app_once_said_to_somebody_who_may_share_it(steps: list[Step]) -> None:
    asyncio.run(converse(steps))


async def converse(steps: list[Step]) -> None:
    clock = ManualClock()
    manager = CacheManager(CacheConfig(name=fresh_name()), clock=clock)
    world = World()
    app = CacheMiddleware(Origin(world), cache=manager)
    try:
        for step in steps:
            clock.advance(step.wait)
            world.step = step
            fields = {**({step.credential: step.user} if step.user else {}), **dict(step.more)}
            check(await ask(app, step.path, step.method, fields), step, world)
            await eventually(lambda: is_settled(manager))
    finally:
        await manager.aclose()


def check(visit: Visit, step: Step, world: World) -> None:
    """The answer is one that the app has given, and this user may have it."""
    if step.method != "GET" or visit.status in (304, 416, 504):
        assert step.method != "GET" or visit.body == b""
        return
    said = world.said.get(visit.body)
    if visit.status == 206:
        said = next(one for body, one in world.said.items() if body[:3] == visit.body and one.path == step.path)
    assert said is not None, f"nobody has said {visit.body!r}"
    assert said.path == step.path
    assert visit.status == (206 if visit.status == 206 else said.status)
    if said.secret and visit.status != 206:
        assert said.user == step.user
    ages = visit.fields("age")
    assert all(int(age) >= 0 for age in ages)
    assert len(visit.fields("date")) <= 1
