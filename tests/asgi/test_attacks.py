"""What strangers send to see what others got, or to have it stored for others."""

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.http._elsewhere import _ELSEWHERE
from aurelis_asgi import CacheMiddleware, CacheRule, Purger
from tests.asgi.conftest import MakeManager
from tests.asgi.counts import stores
from tests.asgi.origin import Call, Origin, fixed
from tests.asgi.visits import Visit, ask

FRESH = {"cache_control": "max-age=60"}


# Which entry, which rule


async def test_a_stranger_cannot_store_a_page_for_another_host(manager: CacheManager) -> None:
    """An app that writes links with Host into its pages must not serve those links to others."""

    async def handler(call: Call) -> None:
        await call.answer(f"https://{call.field('host')}/login", **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app, "/", "GET", {"host": "evil.example"})
    assert (await ask(app, "/", "GET", {"host": "good.example"})).body == b"https://good.example/login"


@pytest.mark.parametrize("rules", [[], [CacheRule("/**", shared=True)], [CacheRule("/**", key_headers=("x-a",))]])
@pytest.mark.parametrize("field", [*sorted(map(bytes.decode, _ELSEWHERE)), "x_forwarded_host", "x-original_url"])
async def test_who_says_that_the_target_is_another_one_has_entries_of_its_own(
    manager: CacheManager, field: str, rules: list[CacheRule]
) -> None:
    """An app, or something in front of it, may answer for the host or path that the field names."""
    prefix = "host=" if field == "forwarded" else ""

    async def handler(call: Call) -> None:
        await call.answer(f"https://{call.field(field)}/login {call.number}", **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager, rules=rules)
    crowd = [Visit(app, "/", "GET", fields).begin() for fields in ({field: prefix + "evil"}, {}) for _ in range(3)]
    bodies = [(await visit.end()).body for visit in crowd]
    assert len(set(bodies[:3])) == len(set(bodies[3:])) == 1
    assert b"evil" in bodies[0]
    assert bodies[3].startswith(b"https:///login")
    for value in ("evil", "evil2", "", "evil evil2"):
        for hit in (value == "evil", True):
            visit = await ask(app, "/", "GET", {field: prefix + value})
            assert ("; hit" in visit.cache_status) is hit
            assert visit.body.startswith(f"https://{prefix + value}/login".encode())
    assert (await ask(app, "/", "HEAD", {})).cache_status.startswith("default; hit")
    await Purger(manager).url("http://example.com/")
    assert "; hit" not in (await ask(app, "/", "GET", {field: prefix + "evil"})).cache_status


async def test_a_proxy_that_tells_of_clients_keeps_them_not_apart(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(**FRESH), cache=manager)
    told = "host=shop.example;proto=https"
    for number in range(5):
        fields = {"x-forwarded-for": f"10.0.0.{number}", "forwarded": f'for="10.0.0.{number}:{number}";by=_p;{told}'}
        assert (await ask(app, "/", "GET", fields)).body == b"body 1"
    others = [
        "host=evil.example;proto=https",
        "proto=http;host=shop.example",
        'for=x;Host="shop.example"',
        f"{told},host=a",
    ]
    odd = ["host =evil", "for=a;host= evil", "host=a b", 'host="a', "for=a;;host=b", ";host=a", "host", "for=a\thost=b"]
    seen = {(await ask(app)).body, (await ask(app, "/", "GET", {"forwarded": told})).body}
    for other in (*others, *odd):
        body = (await ask(app, "/", "GET", {"forwarded": other})).body
        assert body not in seen
        seen.add(body)
    assert (await ask(app, "/", "GET", {"forwarded": "for=10.0.0.1"})).body == (await ask(app)).body


async def test_users_are_kept_apart_behind_a_proxy_too(manager: CacheManager) -> None:
    rules = [CacheRule("/**", ttl=60, principal=by_authorization)]

    async def handler(call: Call) -> None:
        await call.answer(f"{call.field('authorization')} {call.field('x-forwarded-host')}")

    app = CacheMiddleware(Origin(handler), cache=manager, rules=rules)
    for _ in range(2):
        for user in ("alice", "bob"):
            for host in ("a", "b"):
                fields = {"authorization": user, "x-forwarded-host": host}
                assert (await ask(app, "/", "GET", fields)).body == f"{user} {host}".encode()


@pytest.mark.parametrize(
    "target",
    [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2E%2E%2Fadmin",
        "/public/..%2fadmin",
        "/public/./../admin",
        "/public/.%2e/admin",
        "/public/..",
        "/public/.",
        "/%2e%2e/public/a",
        "/public%2f..%2fadmin",
        "//public/a",
        "/PUBLIC/a",
        "/publica",
        "/public",
        "/admin/public/a",
        "/admin?/public/a",
        "/admin%3f/public/a",
        "/admin%23/public/a",
        "/admin;/public/a",
        "/admin%0a/public/a",
    ],
)
async def test_a_path_that_means_something_else_matches_no_rule(manager: CacheManager, target: str) -> None:
    app = CacheMiddleware(fixed(), cache=manager, rules=[CacheRule("/public/**", ttl=60)], cache_status="debug")
    assert (await ask(app, target)).cache_status.endswith("detail=not-fresh")


@pytest.mark.parametrize("target", ["/item/a%2fb", "/item/a/b", "/item/%2f", "/item/a%2F..%2Fb"])
async def test_an_encoded_slash_is_a_slash_for_one_segment(manager: CacheManager, target: str) -> None:
    app = CacheMiddleware(fixed(), cache=manager, rules=[CacheRule("/item/*", ttl=60)], cache_status="debug")
    assert (await ask(app, target)).cache_status.endswith("detail=not-fresh")


async def test_spellings_that_an_app_may_tell_apart_have_entries_of_their_own(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(**FRESH), cache=manager)
    targets = ["/a%2fb", "/a/b", "/a%2Fb", "//a/b", "/a/b/", "/a/b?", "/a/b?x", "/a/./b", "/%61/b", "/a/b;x"]
    for _ in range(2):
        bodies = [(await ask(app, target)).body for target in targets]
        assert bodies[1] == bodies[5]  # an empty query reaches no app
        assert len(set(bodies)) == len(targets) - 1


async def test_endless_paths_are_not_remembered(manager: CacheManager) -> None:
    """However a request is answered: alone, as not shareable, or by a rule."""
    origin = fixed()
    app = CacheMiddleware(origin, cache=manager, rules=[CacheRule("/a/*", ttl=60)])
    tracemalloc.start()
    try:
        for number in range(30):
            target = ("/a/" if number % 2 else "/b/") + str(number % 10) * 100_000
            await ask(app, target, "GET", {"cookie": "a=b"} if number % 3 else {})
        origin.calls.clear()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


# What must not be stored for others


@pytest.mark.parametrize(
    "header",
    [
        (b"x-a", b"b\r\nset-cookie: session=evil"),
        (b"x-a", b"b\nlocation: https://evil.example"),
        (b"x-a", b"b\0"),
        (b"x-a\r\nx-b", b"c"),
        (b"x-a: b", b"c"),
    ],
)
async def test_a_field_that_would_become_two_is_not_stored(manager: CacheManager, header: tuple[bytes, bytes]) -> None:
    async def handler(call: Call) -> None:
        headers = [(b"cache-control", b"max-age=60"), header]
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        await call.chunk(b"body", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager, cache_status="debug")
    for _ in range(2):
        assert (await ask(app)).cache_status.endswith("detail=invalid-field")
    assert stores(manager) == {"invalid_field": 2}


async def test_a_body_of_a_get_chooses_nothing_for_others(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.answer(await call.request_body() or b"harmless", **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager)
    for fields in ({}, {"transfer-encoding": "chunked"}, {"content-length": "00005"}):
        assert (await ask(app, "/", "GET", fields, body=b"evil!")).body == b"evil!"
    assert (await ask(app)).body == b"harmless"


async def test_a_head_request_stores_no_empty_page(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.answer(b"" if call.scope["method"] == "HEAD" else b"body", **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app, "/", "HEAD")
    assert (await ask(app)).body == b"body"


async def test_a_range_request_stores_no_part(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        if call.field("range"):
            await call.answer("bo", 206, content_range="bytes 0-1/4", **FRESH)
        else:
            await call.answer("body", **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager)
    await ask(app, "/", "GET", {"range": "bytes=0-1"})
    assert (await ask(app)).body == b"body"


# Users


def by_authorization(scope: Mapping[str, Any]) -> str | None:
    """Who is asking, for an app with tokens; not known without one."""
    token: bytes | None = dict(scope["headers"]).get(b"authorization")
    return None if token is None else token.decode("latin-1")


def by_everything(scope: Mapping[str, Any]) -> str:
    """Who is asking, for an app that looks at all that a client says about itself."""
    return repr([pair for pair in scope["headers"] if pair[0] in (b"authorization", b"cookie")])


SETTINGS = {
    "no rule": [],
    "a rule": [CacheRule("/**", ttl=60)],
    "cookies": [CacheRule("/**", ttl=60, cookies=("session", "lang"))],
    "principal": [CacheRule("/**", ttl=60, principal=by_everything)],
    "principal and cookies": [CacheRule("/**", ttl=60, principal=by_authorization, cookies=("session", "lang"))],
    "overriding": [CacheRule("/**", ttl=60, override=("no-store", "private", "no-cache"))],
    "fields in the key": [CacheRule("/**", ttl=60, shared=True, key_headers=("authorization", "cookie"))],
    "fields that match": [
        CacheRule("/**", ttl=60, headers={"cookie": "*alice*"}, principal=by_everything),
        CacheRule("/a", ttl=60, headers={"cookie": "*"}, cookies=("session", "lang"), method="GET"),
        CacheRule("/**", bypass=True, headers={"authorization": "bob"}),
        CacheRule("/**", ttl=60, ignore_query=("*",), tags=["all"]),
    ],
    "several": [CacheRule("/a", ttl=60, principal=by_everything), CacheRule("/**", ttl=60)],
}
CHOICES = {
    "target": ["/a", "/a", "/b"],
    "method": ["GET", "GET", "GET", "GET", "HEAD", "POST"],
    "authorization": ["", "", "", "alice", "bob", "älice"],
    "session": ["", "", "", "alice", "bob", "alice; session=bob", "alice; lang=de"],
    "lang": ["", "", "de", "fr"],
    "cache-control": ["", "", "", "no-cache", "max-age=0", "only-if-cached"],
}
# What an app says about answers that are for one user alone, or does not say.
LIFETIMES = ["", "private", "private, max-age=60", "no-store, max-age=60", "no-cache, max-age=60"]


@settings(max_examples=100)
@given(
    rules=st.sampled_from(sorted(SETTINGS)),
    lifetime=st.just("") | st.sampled_from(LIFETIMES),
    seed=st.integers(0, 2**64),
)
def test_nobody_ever_gets_what_was_made_for_somebody_else(rules: str, lifetime: str, seed: int) -> None:
    """Whatever the rules, the credentials and the order.

    The app answers each client with what that client says about itself, and never says that it is for everybody.
    """
    asyncio.run(_crowd(SETTINGS[rules], lifetime, random.Random(seed), ("authorization", "cookie")))


@settings(max_examples=50)
@given(st.sampled_from(sorted(SETTINGS)), st.integers(0, 2**64))
def test_nor_where_the_app_gives_a_lifetime_and_forgets_to_say_private(rules: str, seed: int) -> None:
    """RFC 9111 §3.5 keeps those with Authorization apart. It does not do so for cookies."""
    asyncio.run(_crowd(SETTINGS[rules], "max-age=60", random.Random(seed), ("authorization",)))


async def _crowd(rules: list[CacheRule], cache_control: str, dice: random.Random, told_by: tuple[str, ...]) -> None:
    async def handler(call: Call) -> None:
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        await call.start(200, **{"cache_control": cache_control} if cache_control else {})
        await call.chunk(repr([call.field(name) for name in told_by]).encode())
        await call.chunk(b"", more=False)

    async with CacheManager(CacheConfig()) as manager:
        app = CacheMiddleware(Origin(handler), cache=manager, rules=rules)
        for _ in range(6):
            visits: list[tuple[Visit, bytes]] = []
            for _ in range(dice.randrange(1, 12)):
                drawn = {name: dice.choice(values) for name, values in CHOICES.items()}
                cookies = [f"{name}={drawn[name]}" for name in ("session", "lang") if drawn[name]]
                fields = {name: drawn[name] for name in ("authorization", "cache-control") if drawn[name]}
                if cookies:
                    fields["cookie"] = "; ".join(cookies)
                visit = Visit(app, drawn["target"], drawn["method"], fields).begin()
                visits.append((visit, repr([fields.get(name, "") for name in told_by]).encode()))
                if dice.random() < 0.1:
                    visit.leave()
            for visit, own in visits:
                await visit.end()
                assert not visit.complete or visit.status != 200 or visit.body in (own, b"")


@pytest.mark.parametrize("layers", ["memory", "redis"])
async def test_a_cookie_reaches_nobody_but_the_one_whose_request_the_app_has_answered(
    make_manager: MakeManager, redis_url: str, layers: str
) -> None:
    """A response that says how long it is fresh is stored without it; who waited gets none either."""
    manager = make_manager(redis_url=redis_url) if layers == "redis" else make_manager()
    gate = asyncio.Event()

    async def handler(call: Call) -> None:
        await gate.wait()
        await call.answer(f"body {call.number}", cache_control="max-age=60", set_cookie=f"session={call.number}")

    app = CacheMiddleware(Origin(handler), cache=manager)
    waiting = [Visit(app).begin() for _ in range(20)]
    await asyncio.sleep(0)
    gate.set()
    for visit in waiting:
        await visit.end()
    assert [visit.body for visit in waiting] == [b"body 1"] * 20
    assert [cookie for visit in waiting for cookie in visit.fields("set-cookie")] == ["session=1"]
    later = [await ask(app), await ask(app, "/", "HEAD"), await ask(app, "/", "GET", {"cookie": "session=other"})]
    assert all("hit" in visit.cache_status and not visit.fields("set-cookie") for visit in later)
    if layers == "redis":
        other = await ask(CacheMiddleware(Origin(handler), cache=make_manager(redis_url=redis_url)))
        assert (other.body, other.fields("set-cookie")) == (b"body 1", [])


@pytest.mark.parametrize("said", ["max-age=60", "max-age=60, must-revalidate", "max-age=60, stale-if-error=60"])
async def test_a_page_whose_session_rolls_is_nobody_elses(manager: CacheManager, said: str) -> None:
    """Its app means the browser by `max-age`, and may have put into it what only the new cookie can be used with."""

    async def handler(call: Call) -> None:
        user = call.field("cookie") or "nobody"
        fields = {"set_cookie": f"{user}; token={call.number}"} if call.field("cookie") else {}
        await call.answer(f"hello {user}, token {call.number}", cache_control=said, **fields)

    app = CacheMiddleware(Origin(handler), cache=manager, cache_status="debug")
    crowd = [Visit(app, "/", "GET", {"cookie": f"session={number}"}).begin() for number in range(5)]
    for number, visit in enumerate(crowd):
        assert (await visit.end()).body.startswith(b"hello session=%d, " % number)
        assert visit.fields("set-cookie")[0].startswith(f"session={number}; ")
        assert "stored" not in visit.cache_status
    assert (await ask(app)).body.startswith(b"hello nobody, ")
    assert "; hit" in (await ask(app)).cache_status


async def test_the_answer_to_a_login_is_not_the_page_of_the_next(manager: CacheManager) -> None:
    """RFC 9110 §9.3.3 lets a POST's answer be stored for later GET requests."""

    async def handler(call: Call) -> None:
        fields = {"set_cookie": "session=1"} if call.scope["method"] == "POST" else {}
        await call.answer(f"page {call.number}", cache_control="max-age=60", content_location="/", **fields)

    app = CacheMiddleware(Origin(handler), cache=manager)
    assert (await ask(app, "/", "POST", body=b"user")).body == b"page 1"
    assert (await ask(app)).body == b"page 2"


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("HEAD", "/?utm_x=evil", {"cache-control": "no-cache"}),
        ("HEAD", "/", {"cache-control": "no-cache", "x-forwarded-host": "evil"}),
        ("GET", "/?utm_x=evil", {"range": "bytes=0-", "cache-control": "no-cache"}),
        ("GET", "/?utm_x=evil", {"range": "bytes=0-1"}),
        ("GET", "/", {"range": "bytes=0-", "x-forwarded-host": "evil"}),
        ("POST", "/?utm_x=evil", {}),
        ("POST", "/", {"x-forwarded-host": "evil"}),
    ],
)
async def test_what_passes_by_puts_nothing_of_a_stranger_into_what_is_stored(
    manager: CacheManager, method: str, target: str, fields: dict[str, str]
) -> None:
    """The app sees all of such a request, also what does not count for the key."""

    async def handler(call: Call) -> None:
        seen = call.scope["query_string"].decode() + call.field("x-forwarded-host")
        body = b"" if call.scope["method"] == "HEAD" else b"body"
        said = {"cache_control": "max-age=60", "content_location": "/", "content_length": "4", "x_seen": seen or "-"}
        status, more = (206, {"content_range": "bytes 0-3/4"}) if call.field("range") else (200, {})
        await call.answer(body, status, **said, **more)

    app = CacheMiddleware(Origin(handler), cache=manager, rules=[CacheRule("/**", ignore_query=("utm_*",))])
    for _ in range(2):
        visit = await ask(app, target, method, fields)
        assert "; hit" in visit.cache_status or "evil" in (visit.field("x-seen") or "")
        for harmless in ({}, {"range": "bytes=0-1"}):
            visit = await ask(app, "/", "GET", harmless)
            assert visit.field("x-seen") == "-"
