"""What rules say beyond path and ttl, behind the middleware; and what strangers make of it."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock
from aurelis_asgi import TRACKING_PARAMETERS, CacheMiddleware, CacheRule, load_rules
from tests.asgi.counts import requests
from tests.asgi.origin import Call, Origin, fixed
from tests.asgi.visits import Visit, ask


async def echo(call: Call) -> None:
    """Answers with the target as the app sees it, and the number of the call."""
    query = call.scope["query_string"].decode("latin-1")
    await call.answer(f"{call.field('host')} {call.path}?{query} {call.field('x-a')} {call.number}")


async def bodies(app: CacheMiddleware, *visits: tuple[Any, ...]) -> list[bytes]:
    """What requests get, one after the other."""
    return [(await ask(app, *visit)).body for visit in visits]


# Which requests


async def test_rules_for_some_hosts(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(), manager, [CacheRule("/**", ttl=60, host=("shop.example", "*.shop.example"))])
    for host, cached in (("SHOP.example:80", True), ("de.shop.example", True), ("shop.example.evil", False)):
        visits = [await ask(app, "/", "GET", {"host": host}) for _ in range(2)]
        assert ("; hit" in visits[1].cache_status) is cached


async def test_rules_for_one_method(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(), manager, [CacheRule("/", ttl=60, method="GET")], cache_status="debug")
    await ask(app)
    assert (await ask(app)).body == b"body 1"
    app = CacheMiddleware(fixed(), manager, [CacheRule("/x", ttl=60, method="HEAD")], cache_status="debug")
    assert (await ask(app, "/x")).cache_status.endswith("detail=not-fresh")


async def test_requests_with_a_field_have_their_rule_and_their_entries(manager: CacheManager) -> None:
    """Nobody is answered with what was made for requests that match."""
    rules = [CacheRule("/", ttl=60, headers={"x-a": "on*"}), CacheRule("/", ttl=30)]
    app = CacheMiddleware(Origin(echo), manager, rules)
    on, other = {"x-a": "on"}, {"x-a": "off"}
    found = await bodies(app, ("/", "GET", on), ("/", "GET", other), ("/",), ("/", "GET", on), ("/", "GET", other))
    assert found == [b"example.com /? on 1", b"example.com /? off 2", b"example.com /? off 2", *found[:2]]
    only = CacheMiddleware(Origin(echo), manager, [CacheRule("/only", ttl=60, headers={"x-a": "*"})])
    assert await bodies(only, ("/only", "GET", on), ("/only",), ("/only",)) == [
        b"example.com /only? on 1",
        b"example.com /only?  2",
        b"example.com /only?  3",
    ]


async def test_a_bypass_leaves_all_to_the_app(manager: CacheManager) -> None:
    rules = [
        CacheRule("/admin/**", bypass=True),
        CacheRule("/**", bypass=True, headers={"x-a": "*"}),
        CacheRule("/**", ttl=60),
    ]
    app = CacheMiddleware(fixed(cache_control="max-age=60"), manager, rules, cache_status="debug")
    await ask(app, "/a")
    for target, fields in (("/admin/x", {}), ("/a", {"x-a": "1"})):
        visits = [await ask(app, target, "GET", fields) for _ in range(2)]
        assert [visit.cache_status for visit in visits] == ["default; fwd=bypass; detail=rule"] * 2
        assert visits[0].body != visits[1].body
    assert (await ask(app, "/a")).body == b"body 1"
    assert requests(manager) == {"miss": 1, "bypass": 4, "hit": 1}


async def test_many_requests_of_one_rule_load_once(manager: CacheManager) -> None:
    rule = CacheRule("/", ttl=60, headers={"x-a": "*"}, query=("page",), sort_query=True)
    app = CacheMiddleware(Origin(echo), manager, [rule])
    visits = [Visit(app, f"/?page=1&x={number}", "GET", {"x-a": "1"}).begin() for number in range(20)]
    answers = await asyncio.gather(*(visit.end() for visit in visits))
    assert {visit.body for visit in answers} == {b"example.com /?page=1 1 1"}


# The key


async def test_the_app_sees_of_the_query_what_counts(manager: CacheManager) -> None:
    """Whatever a stranger puts into a parameter that does not count, it cannot get into what others are given."""
    rule = CacheRule("/", ttl=60, ignore_query=TRACKING_PARAMETERS, sort_query=True)
    app = CacheMiddleware(Origin(echo), manager, [rule])
    visit = await ask(app, "/?page=2&utm_content=<script>&a=1")
    assert visit.body == b"example.com /?a=1&page=2  1"
    assert visit.scope["query_string"] == b"page=2&utm_content=<script>&a=1"  # middleware outside sees what came
    assert await bodies(app, ("/?a=1&page=2",), ("/?gclid=1&a=1&page=2",)) == [visit.body] * 2
    assert (await ask(app, "/?a=2&page=2")).body != visit.body


@pytest.mark.parametrize(
    "query",
    [
        "utm_source=x;page=evil",
        "page=1;page=evil",
        "page=1&page=evil",
        "page=evil&page=1",
        "page[]=evil&page=1",
        "page=1&page[]=evil",
        "page=1%26page=evil",
        "page=1&PAGE=evil",
        "page=1&p%61ge=evil",
        "page=1&utm_x=1;page=evil",
        "page=1&%75tm_x=%3Cevil%3E",
        "page=1&+page=evil",
        "page=1&page%00=evil",
        "page=1&a=1?page=evil",
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [{"query": ("page",)}, {"ignore_query": TRACKING_PARAMETERS}, {"sort_query": True}],
    ids=["query", "ignore", "sort"],
)
async def test_no_reading_of_a_query_puts_something_into_the_page_of_others(
    manager: CacheManager, query: str, arguments: dict[str, Any]
) -> None:
    """Query cloaking: what the app finds in a query that the cache reads in another way."""
    app = CacheMiddleware(Origin(echo), manager, [CacheRule("/", ttl=60, **arguments)])
    await ask(app, f"/?{query}")
    assert b"evil" not in (await ask(app, "/?page=1")).body
    assert b"evil" not in (await ask(app, "/")).body


async def test_fields_that_count_keep_requests_apart(manager: CacheManager) -> None:
    app = CacheMiddleware(Origin(echo), manager, [CacheRule("/", ttl=60, key_headers=("X-A",))], cache_status="debug")
    one, two = {"x-a": "1"}, {"x-a": "2"}
    found = await bodies(
        app, ("/", "GET", one), ("/", "GET", two), ("/",), ("/", "GET", one), ("/", "GET", two), ("/",)
    )
    assert found[:3] == found[3:]
    assert len(set(found)) == 3
    visit = await ask(app, "/", "GET", {**one, "cookie": "a=b"})
    assert visit.cache_status == "default; fwd=bypass; detail=cookie"
    assert visit.field("vary") is None


async def test_a_rule_varies_for_all_caches(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        await call.answer(f"{call.field('accept-language')} {call.number}", vary="origin")

    app = CacheMiddleware(Origin(handler), manager, [CacheRule("/", ttl=60, vary=("Accept-Language",))])
    german, french = {"accept-language": "de"}, {"accept-language": "fr"}
    assert await bodies(app, ("/", "GET", german), ("/", "GET", french), ("/", "GET", german)) == [
        b"de 1",
        b"fr 2",
        b"de 1",
    ]
    assert (await ask(app, "/", "GET", german)).fields("vary") == ["origin", "accept-language"]


@pytest.mark.parametrize("cookie", ["lang=de; lang=en", "lang=en; lang=de", 'lang="de"', "Lang=de", "lang =x"])
async def test_a_forged_cookie_gives_nothing_to_others(manager: CacheManager, cookie: str) -> None:
    async def handler(call: Call) -> None:
        await call.answer(f"{call.field('cookie')} {call.number}")

    app = CacheMiddleware(Origin(handler), manager, [CacheRule("/", ttl=60, cookies=("lang",))])
    forged = (await ask(app, "/", "GET", {"cookie": cookie + "; x=evil"})).body
    clean = (await ask(app, "/", "GET", {"cookie": "lang=de"})).body
    # The name is compared as it is, so only what names no such cookie at all shares the entry without one.
    assert forged != clean
    assert b"evil" not in clean


@pytest.mark.parametrize(
    "host",
    [
        "example.com/evil",
        "example.com?evil",
        "example.com#evil",
        "evil@example.com",
        "example.com%2fevil",
        "a b",
        "ex\xe4",
    ],
)
async def test_a_host_that_is_none_shares_no_entry(manager: CacheManager, host: str) -> None:
    """With a slash in it, one part of a path could pass for another."""
    app = CacheMiddleware(Origin(echo), manager, [CacheRule("/**", ttl=60)])
    await ask(app, "/x", "GET", {"host": host})
    for target in ("/evil/x", "/x", "/evil?/x"):
        assert (await ask(app, target)).body.startswith(b"example.com ")


async def test_a_host_has_several_spellings(manager: CacheManager) -> None:
    """RFC 9110 §4.2.3"""
    app = CacheMiddleware(fixed(), manager, [CacheRule("/", ttl=60)])
    for host in ("example.com", "EXAMPLE.com", "example.com:80"):
        assert (await ask(app, "/", "GET", {"host": host})).body == b"body 1"
    for host in ("example.com:8000", "example.com:443", "example.com."):
        assert (await ask(app, "/", "GET", {"host": host})).body != b"body 1"
    assert (await ask(app, "/", "GET", {"host": "example.com:443"}, scheme="https")).body == b"body 5"
    assert (await ask(app, "/", "GET", {}, scheme="https")).body == b"body 5"


@pytest.mark.parametrize(
    ("target", "cached"),
    [
        ("/account/x.css", False),
        ("/account/x.css/", False),
        ("/static/x.css", True),
        ("/static/..%2faccount/x.css", False),
        ("/static/%2e%2e/account/x.css", False),
        ("/static/%252e%252e/x.css", False),  # twice encoded: another path for who decodes once more
        ("/static/%252e%252e%252faccount.css", False),
        ("/static/a%252faccount.css", False),
        ("/static/..%5caccount/x.css", False),
        ("/static/..;/account/x.css", False),
        ("/static/%2e%2e;a/account/x.css", False),
        ("/static/a%2520b.css", True),
        ("/static%2fx.css", True),  # decoded by the app, too
        ("/static;/x.css", False),
        ("//static/x.css", False),
        ("/static/x.css%00", False),
        ("/static/x.css;a", False),
        ("/static/x.css%3fa", False),
    ],
)
async def test_paths_that_look_static_are_not_confused(manager: CacheManager, target: str, cached: bool) -> None:
    app = CacheMiddleware(fixed(), manager, [CacheRule("/static/**.css", ttl=60)])
    await ask(app, target)
    assert ("; hit" in (await ask(app, target)).cache_status) is cached


@pytest.mark.parametrize("name", ["x-a", "cookie", "accept", "host"])
async def test_endless_values_do_no_harm(manager: CacheManager, name: str) -> None:
    rules = [
        CacheRule("/", ttl=60, headers={"accept": "*a*a*b"}),
        CacheRule("/", ttl=60, cookies=("lang",), key_headers=("x-a",), host="**a**"),
        CacheRule("/", ttl=60),
    ]
    app = CacheMiddleware(Origin(echo), manager, rules)
    visits = [await ask(app, "/", "GET", {name: "lang=" + "a" * 60_000}) for _ in range(2)]
    assert [visit.status for visit in visits] == [200, 200]


# What is kept, and for how long


async def test_stale_windows_of_a_rule(manager: CacheManager, clock: ManualClock) -> None:
    async def handler(call: Call) -> None:
        if call.number > 1:
            raise RuntimeError("the app has failed")
        await call.answer("body")

    app = CacheMiddleware(Origin(handler), manager, [CacheRule("/", ttl=10, stale_if_error=20)])
    await ask(app)
    clock.advance(29)
    assert (await ask(app)).body == b"body"
    clock.advance(2)
    with pytest.raises(RuntimeError):
        await ask(app)


@pytest.mark.parametrize(
    ("general", "own", "stored"), [(10, None, False), (10, 100, True), (100, 10, False), (100, None, True)]
)
async def test_a_rule_has_its_own_limit_of_size(
    manager: CacheManager, general: int, own: int | None, stored: bool
) -> None:
    async def handler(call: Call) -> None:
        await call.start()
        for _ in range(5):
            await call.chunk(b"x" * 10)
        await call.chunk(b"", more=False)

    app = CacheMiddleware(
        Origin(handler), manager, [CacheRule("/", ttl=60, max_body_bytes=own)], max_body_bytes=general
    )
    for _ in range(2):
        visit = await ask(app)
        assert len(visit.body) == 50
    assert ("; hit" in visit.cache_status) is stored


async def test_a_rule_may_keep_what_says_no_store(manager: CacheManager) -> None:
    rules = [CacheRule("/a", ttl=60, override=("no-store", "private")), CacheRule("/**", ttl=60)]
    app = CacheMiddleware(fixed(cache_control="no-store, private"), manager, rules)
    found = [(await ask(app, target)).body for target in ("/a", "/a", "/b", "/b")]
    assert found == [b"body 1", b"body 1", b"body 2", b"body 3"]
    assert (await ask(app, "/a")).field("cache-control") == "no-store, private"  # which holds for other caches
    assert (await ask(app, "/a", "GET", {"cookie": "a=b"})).body == b"body 4"


async def test_a_rule_without_a_lifetime_adds_to_what_responses_say(manager: CacheManager) -> None:
    app = CacheMiddleware(
        fixed(cache_control="max-age=60"), manager, [CacheRule("/**", tags=["all"])], cache_status="debug"
    )
    assert await bodies(app, ("/",), ("/",)) == [b"body 1"] * 2
    await manager.invalidate_tags("all")
    assert (await ask(app)).body == b"body 2"
    silent = CacheMiddleware(fixed(), manager, [CacheRule("/**", tags=["all"])], cache_status="debug")
    assert (await ask(silent, "/silent")).cache_status.endswith("detail=not-fresh")


async def test_a_path_that_makes_an_endless_tag_is_not_kept(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(), manager, [CacheRule("/{item}", ttl=60, tags=["{item}"])], cache_status="debug")
    for _ in range(2):
        assert (await ask(app, "/" + "x" * 600)).cache_status == "default; fwd=bypass; detail=tags"


async def test_the_way_out_names_the_rule_that_counts(manager: CacheManager, caplog: pytest.LogCaptureFixture) -> None:
    rules = [CacheRule("/a", ttl=60, headers={"x-a": "1"}), CacheRule("/**", ttl=60)]
    app = CacheMiddleware(fixed(), manager, rules)
    with caplog.at_level(logging.WARNING, "aurelis.cache"):
        await ask(app, "/a", "GET", {"cookie": "a=b"})
        await ask(app, "/a", "GET", {"cookie": "a=b", "x-a": "1"})
    assert ["CacheRule('/**')" in record.getMessage() for record in caplog.records] == [True, False]


async def test_rules_from_a_file(manager: CacheManager) -> None:
    def user(scope: Mapping[str, Any]) -> str | None:
        return dict(scope["headers"]).get(b"x-a", b"").decode() or None

    rules = load_rules(
        """
        [[rules]]
        path = "/own/**"
        ttl = 60
        principal = "user"

        [[rules]]
        path = "/{page}"
        ttl = 60
        tags = ["page:{page}"]
        """,
        principals={"user": user},
    )
    app = CacheMiddleware(Origin(echo), manager, rules)
    assert await bodies(app, ("/own/a", "GET", {"x-a": "1"}), ("/own/a",), ("/b",), ("/b",)) == [
        b"example.com /own/a? 1 1",
        b"example.com /own/a?  2",
        b"example.com /b?  3",
        b"example.com /b?  3",
    ]
    await manager.invalidate_tags("page:b")
    assert (await ask(app, "/b")).body == b"example.com /b?  4"


async def test_the_route_is_known_outside_although_the_app_sees_another_query(manager: CacheManager) -> None:
    """Telemetry around the middleware calls requests by their route."""
    inner = Starlette(routes=[Route("/items/{item}", lambda request: PlainTextResponse(str(request.url.query)))])
    app = CacheMiddleware(inner, manager, [CacheRule("/items/*", ttl=60, query=("page",))])
    for _ in range(2):
        visit = await ask(app, "/items/1?page=2&x=1")
        assert visit.body == b"page=2"
        assert visit.scope["route"].path == "/items/{item}"
        assert visit.scope["query_string"] == b"page=2&x=1"
