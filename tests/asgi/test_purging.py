"""Responses taken out of use: in code and through the admin app, for good and softly."""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from aurelis.cache import CacheConfig, CacheManager, EntryOptions
from aurelis.cache.exceptions import ConfigurationError, LayerError
from aurelis.cache.testing import ManualClock, SharedMemory
from aurelis_asgi import TRACKING_PARAMETERS, CacheMiddleware, CacheRule, Purger, admin_app
from tests.asgi.origin import Call, Origin, fixed
from tests.asgi.sockets import connected, fetch, served
from tests.asgi.visits import HOST, Visit, ask
from tests.managers import eventually

URL = f"http://{HOST}/a"
TOKEN = "0123456789abcdef"
BEARER = {"authorization": f"Bearer {TOKEN}"}
FRESH = {"cache_control": "max-age=60"}


async def body_of(app: CacheMiddleware, target: str = "/a", /, **fields: str) -> str:
    """What a request gets."""
    return (await ask(app, target, "GET", fields)).body.decode()


def failing(**fields: str) -> Origin:
    """Answers once, and fails from then on."""

    async def handler(call: Call) -> None:
        if call.number > 1:
            raise RuntimeError("the origin has failed")
        await call.answer("body 1", **fields)

    return Origin(handler)


# In code


@pytest.mark.parametrize("soft", [False, True])
async def test_a_url_is_purged_with_all_its_variants_and_for_everybody(manager: CacheManager, soft: bool) -> None:
    async def handler(call: Call) -> None:
        await call.answer(f"body {call.number}", vary="accept-language", **FRESH)

    rule = CacheRule("/own", ttl=60, principal=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode())
    app = CacheMiddleware(Origin(handler), manager, [rule])
    requests = [("/a", {}), ("/a", {"accept-language": "de"}), ("/own", {"x-user": "1"}), ("/own", {"x-user": "2"})]
    for _ in range(2):
        assert [await body_of(app, target, **fields) for target, fields in requests] == [
            f"body {number}" for number in range(1, 5)
        ]
    purger = Purger(manager)
    await purger.url(URL, soft=soft)
    assert [await body_of(app, target, **fields) for target, fields in requests] == [
        "body 5",
        "body 6",
        "body 3",
        "body 4",
    ]
    await purger.url(f"http://{HOST}/own", soft=soft)
    assert [await body_of(app, target, **fields) for target, fields in requests[2:]] == ["body 7", "body 8"]


@pytest.mark.parametrize(
    ("stored", "purged", "meant"),
    [
        ("/a", f"https://{HOST}/a", True),  # behind a proxy the app may not know the scheme
        ("/a", f"HTTP://{HOST.upper()}:80/a", True),
        ("/a?x=1&y", f"http://{HOST}/a?x=1&y", True),
        ("/a?x=1", f"http://{HOST}/a", False),
        ("/a", f"http://{HOST}/a?x=1", False),
        ("/a", f"http://{HOST}/a/", False),
        ("/a", f"http://other.{HOST}/a", False),
        ("/a", f"http://{HOST}:8000/a", False),
        ("/", f"http://{HOST}", True),
        ("/%C3%A4", f"http://{HOST}/ä", True),
        ("/a%2Fb", f"http://{HOST}/a%2Fb", True),
        ("/a%2Fb", f"http://{HOST}/a/b", False),
        ("/a*", f"http://{HOST}/a*", True),
        ("/a?page[]=1|2&x={y}", f"http://{HOST}/a?page[]=1|2&x={{y}}", True),
        ("/a?q=%C3%A4", f"http://{HOST}/a?q=ä", True),
        ("/a;b='c'", f"http://{HOST}/a;b='c'", True),
        ("/ab", f"http://{HOST}/a*", False),
    ],
)
async def test_a_url_means_itself(manager: CacheManager, stored: str, purged: str, meant: bool) -> None:
    app = CacheMiddleware(fixed(**FRESH), manager)
    await ask(app, stored)
    await Purger(manager).url(purged)
    assert (await ask(app, stored)).body == (b"body 2" if meant else b"body 1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/a",
        "example.com/a",
        "ftp://a/b",
        "http:///a",
        "http://u@a/b",
        "http://a/b#c",
        "a b",
        "http://a/\ud800",
        "http://ä..b/",
        "http://" + "ä" * 70,
    ],
)
async def test_what_is_no_url_is_refused(manager: CacheManager, url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no URL"):
        await Purger(manager).url(url)


async def test_with_the_rules_a_url_may_have_what_does_not_count(manager: CacheManager) -> None:
    rules = [CacheRule("/b", ttl=1), CacheRule("/a", ttl=60, ignore_query=TRACKING_PARAMETERS, sort_query=True)]
    app = CacheMiddleware(fixed(), manager, rules)
    assert await body_of(app, "/a?y=1&x=2&utm_source=here") == "body 1"
    await Purger(manager).url(f"{URL}?y=1&x=2&utm_source=there")
    assert await body_of(app, "/a?x=2&y=1") == "body 1"
    await Purger(manager, rules=rules).url(f"{URL}?y=1&x=2&utm_source=there")
    assert await body_of(app, "/a?x=2&y=1") == "body 2"
    mounted = [CacheRule("/a", ttl=60, query=())]
    await Purger(manager, rules=mounted, root_path="/shop").url(f"http://{HOST}/shop/a?x=1")  # any query is that one


@pytest.mark.parametrize("field", ["surrogate_key", "cache_tag", "xkey"])
@pytest.mark.parametrize("soft", [False, True])
async def test_a_tag_of_a_response_is_purged(manager: CacheManager, field: str, soft: bool) -> None:
    app = CacheMiddleware(fixed(**FRESH, **{field: "front"}), manager)
    await ask(app, "/a")
    await manager.invalidate_tags("other", soft=soft)
    assert await body_of(app) == "body 1"
    await Purger(manager).tags("front", "x", soft=soft)
    assert await body_of(app) == "body 2"


async def test_a_tag_of_a_rule_is_purged(manager: CacheManager) -> None:
    rules = [CacheRule("/catalog/{item}", ttl=60, tags=["catalog", "item:{item}"])]
    app = CacheMiddleware(fixed(), manager, rules)
    for item in (1, 2):
        await ask(app, f"/catalog/{item}")
    await manager.invalidate_tags("item:2")
    assert [await body_of(app, f"/catalog/{item}") for item in (1, 2)] == ["body 1", "body 3"]
    await manager.invalidate_tags("catalog")
    assert [await body_of(app, f"/catalog/{item}") for item in (1, 2)] == ["body 4", "body 5"]


async def test_a_group_is_purged_for_its_origin_alone(manager: CacheManager) -> None:
    """RFC 9875 §2.1"""
    app = CacheMiddleware(fixed(**FRESH, cache_groups='"scripts", "styles"'), manager)
    for host in ("a.example", "b.example"):
        await ask(app, "/", "GET", {"host": host})
    await Purger(manager).groups("http://a.example", "styles")
    bodies = [(await ask(app, "/", "GET", {"host": host})).body for host in ("a.example", "b.example")]
    assert bodies == [b"body 3", b"body 2"]


async def test_an_unsafe_response_invalidates_groups(manager: CacheManager) -> None:
    """RFC 9875 §3"""

    async def handler(call: Call) -> None:
        field = {"cache_groups": '"a"', **FRESH}
        if call.path.startswith("/change"):
            field = {"cache_group_invalidation": '"a", "b"'}
        await call.answer(f"body {call.number}", **field)

    app = CacheMiddleware(Origin(handler), manager)
    assert [await body_of(app), await body_of(app)] == ["body 1", "body 1"]
    await ask(app, "/change")  # a safe method changes nothing
    assert await body_of(app) == "body 1"
    await ask(app, "/change", "POST", {"host": "other.example"})  # nor does another origin
    assert await body_of(app) == "body 1"
    changed = await ask(app, "/change", "DELETE")
    assert changed.status == 200
    assert await body_of(app) == "body 5"


async def test_a_layer_that_fails_does_not_fail_the_unsafe_request(
    manager: CacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise LayerError("l2", "invalidate")

    monkeypatch.setattr(manager._engine, "invalidate", fail)
    monkeypatch.setattr(manager._engine, "delete", fail)
    app = CacheMiddleware(fixed(cache_group_invalidation='"a"'), manager)
    assert (await ask(app, "/a", "POST")).status == 200


@pytest.mark.parametrize("soft", [False, True])
async def test_a_pattern_is_purged(manager: CacheManager, soft: bool) -> None:
    app = CacheMiddleware(fixed(**FRESH), manager)
    targets = ["/catalog/1", "/catalog/2?x=1", "/catalogue", "/other"]
    for target in targets:
        await ask(app, target)
    assert await Purger(manager).pattern(f"http://{HOST}/catalog/*", soft=soft) == 2
    assert [await body_of(app, target) for target in targets] == ["body 5", "body 6", "body 3", "body 4"]


async def test_a_pattern_for_every_host_must_be_meant(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(**FRESH), manager)
    await manager.set(manager.key_builder.build_key("user", "a"), 1)
    await ask(app, "/a")
    for pattern in ("", "*", "*/a"):
        with pytest.raises(ConfigurationError):
            await Purger(manager).pattern(pattern)
    assert await Purger(manager).pattern("*/a", everything=True) == 1
    assert await manager.get(manager.key_builder.build_key("user", "a")) == 1  # responses alone are meant


async def test_a_softly_purged_response_stands_in_when_the_app_fails(manager: CacheManager) -> None:
    for number, purge in enumerate(("url", "pattern", "tags")):
        app = CacheMiddleware(failing(cache_control="max-age=60, stale-if-error=30", cache_tag="tag"), manager)
        target, url = f"/{number}", f"http://{HOST}/{number}"
        await ask(app, target)
        await getattr(Purger(manager), purge)("tag" if purge == "tags" else url, soft=True)
        visit = await ask(app, target)
        assert visit.body == b"body 1"
        await getattr(Purger(manager), purge)("tag" if purge == "tags" else url)
        with pytest.raises(RuntimeError):
            await ask(app, target)


@pytest.mark.parametrize("purge", ["url", "tags"])
async def test_a_softly_purged_response_is_served_while_it_is_loaded_anew(manager: CacheManager, purge: str) -> None:
    rule = CacheRule("/a", ttl=60, stale_while_revalidate=30, tags=["tag"])
    origin = fixed()
    app = CacheMiddleware(origin, manager, [rule])
    await ask(app, "/a")
    await getattr(Purger(manager), purge)("tag" if purge == "tags" else URL, soft=True)
    visit = await ask(app, "/a")
    assert visit.body == b"body 1"
    assert int(visit.cache_status.rpartition("ttl=")[2]) <= 0

    await eventually(lambda: len(origin.calls) == 2 and not origin.running)
    for _ in range(10):
        await asyncio.sleep(0)  # it is being stored
    assert await body_of(app) == "body 2"
    assert (await ask(app, "/a")).cache_status.startswith("default; hit; ttl=60")


async def test_a_softly_purged_response_that_may_not_be_stale_is_as_good_as_gone(manager: CacheManager) -> None:
    app = CacheMiddleware(failing(cache_control="max-age=60, must-revalidate, stale-if-error=30"), manager)
    await ask(app, "/a")
    await Purger(manager).url(URL, soft=True)
    with pytest.raises(RuntimeError):
        await ask(app, "/a")


@pytest.mark.parametrize("soft", [False, True])
async def test_what_is_loaded_while_it_is_purged_is_not_kept(manager: CacheManager, soft: bool) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def handler(call: Call) -> None:
        if call.number == 1:
            entered.set()
            await gate.wait()
        await call.answer(f"body {call.number}", **FRESH)

    app = CacheMiddleware(Origin(handler), manager)
    first = Visit(app, "/a").begin()
    await entered.wait()
    await Purger(manager).url(URL, soft=soft)
    assert await body_of(app) == "body 2"  # asks for itself
    gate.set()
    assert (await first.end()).body == b"body 1"
    assert await body_of(app) == "body 2"


# With a layer that processes share


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize("purge", ["url", "pattern"])
async def test_a_purge_reaches_other_processes(clock: ManualClock, soft: bool, cluster: bool, purge: str) -> None:
    shared, healthy = SharedMemory(clock, cluster=cluster), True

    async def handler(call: Call) -> None:
        if not healthy:
            raise RuntimeError("the origin has failed")
        await call.answer(f"body {call.number}", cache_control="max-age=60, stale-if-error=30")

    origin = Origin(handler)
    one, two = (CacheManager(CacheConfig(), clock=clock, lower=[shared.node()]) for _ in range(2))
    async with one, two:
        here, there = (CacheMiddleware(origin, each) for each in (one, two))
        assert await body_of(here) == await body_of(there) == "body 1"
        assert [entry.layer for entry in await Purger(two).entries(URL)] == ["l1", "l2"]
        await getattr(Purger(one), purge)(URL, soft=soft)
        assert [entry.layer for entry in await Purger(one).entries(URL)] == (["l2"] if soft else [])
        assert all(entry.ttl <= 0 for entry in await Purger(one).entries(URL))
        key = two.key_builder.build_key("http", f"GET {URL}")
        await eventually(lambda: two._engine.stack.peek(key) is None)
        healthy = False
        for app in (there, here):
            if soft:
                assert await body_of(app) == "body 1"
            else:
                with pytest.raises(RuntimeError):
                    await ask(app, "/a")
        healthy = True
        assert await body_of(there) == await body_of(here) == f"body {len(origin.calls)}"


async def test_a_soft_purge_does_not_bring_back_what_a_hard_one_took(clock: ManualClock) -> None:
    """What is put back keeps the number of changes that it was loaded under."""
    shared = SharedMemory(clock)
    one, two = (CacheManager(CacheConfig(), clock=clock, lower=[shared.node()]) for _ in range(2))
    async with one, two:
        app = CacheMiddleware(failing(cache_control="max-age=60, stale-if-error=30", cache_tag="tag"), one)
        await ask(app, "/a")
        await asyncio.gather(Purger(one).url(URL, soft=True), Purger(two).tags("tag"))
        with pytest.raises(RuntimeError):
            await ask(app, "/a")


async def test_a_value_can_be_made_stale(manager: CacheManager) -> None:
    """`delete(soft=True)`"""
    loads = 0

    async def load() -> int:
        nonlocal loads
        loads += 1
        if loads > 1:
            raise RuntimeError("the origin has failed")
        return loads

    options = EntryOptions(ttl=60, stale_if_error=30)
    assert await manager.get_or_compute("key", load, options=options) == 1
    assert await manager.delete("key", soft=True)
    assert await manager.get("key") is None
    assert await manager.get_or_compute("key", load, options=options) == 1
    assert loads == 2
    assert not await manager.delete("other", soft=True)


# The admin app


async def call(app: Any, method: str, path: str, fields: Mapping[str, str] = BEARER, **more: Any) -> httpx.Response:
    """One request to the admin app."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin.example") as client:
        return await client.request(method, path, headers=dict(fields), **more)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"authorization": ""},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": "Bearer ÿ"},
        {"cookie": f"token={TOKEN}"},
    ],
)
async def test_nobody_gets_in_without_the_token(manager: CacheManager, fields: dict[str, str]) -> None:
    admin = admin_app(manager, token=TOKEN)
    encoded = {name: value.encode("latin-1") for name, value in fields.items()}
    for method, path in (("POST", "/purge"), ("GET", f"/entries/{URL}"), ("PURGE", f"/entries/{URL}"), ("GET", "/x")):
        answer = await call(admin, method, path, encoded)  # type: ignore[arg-type]  # bytes are fine
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"] == "no-store"
    two = await ask(admin, "/purge", "POST", {"authorization": f"Bearer {TOKEN}", "Authorization": "Bearer x"})
    assert two.status == 401


@pytest.mark.parametrize("token", ["", "short", "x" * 15])
def test_a_short_token_is_refused(manager: CacheManager, token: str) -> None:
    with pytest.raises(ConfigurationError, match="16 characters"):
        admin_app(manager, token=token)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_purging_by_post(manager: CacheManager, scheme: str) -> None:
    app = CacheMiddleware(fixed(**FRESH, cache_tag="tag"), manager)
    admin = Starlette(routes=[Mount("/cache", admin_app(manager, token=TOKEN))])
    wishes: list[tuple[dict[str, object], dict[str, object]]] = [
        ({"url": URL}, {}),
        ({"url": URL, "soft": True}, {}),
        ({"tag": "tag"}, {}),
        ({"tags": ["x", "tag"], "soft": True}, {}),
        ({"pattern": f"http://{HOST}/*"}, {"entries": 1}),
        ({"pattern": f"http://{HOST}/*", "soft": True}, {"entries": 1}),
        ({"pattern": "*", "everything": True}, {"entries": 1}),
    ]
    for number, (wish, more) in enumerate(wishes, start=1):
        assert await body_of(app) == f"body {number}"
        answer = await call(admin, "POST", "/cache/purge", {"authorization": f"{scheme} {TOKEN}"}, json=wish)
        expected = {"soft": False, **wish, **more}
        expected.pop("everything", None)
        assert (answer.status_code, answer.json()) == (200, {"purged": expected})
        assert answer.headers["cache-control"] == "no-store"
    assert await body_of(app) == f"body {len(wishes) + 1}"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 50_000, 400),
        (b"[]", 400),
        (b"null", 400),
        (b"{}", 400),
        (b'{"soft": true}', 400),
        (b'{"url": "http://a/b", "tag": "x"}', 400),
        (b'{"url": "http://a/b", "force": true}', 400),
        (b'{"url": "http://a/b", "soft": 1}', 400),
        (b'{"url": "/b"}', 400),
        (b'{"url": 1}', 400),
        (b'{"url": "http://a/\\ud800"}', 400),
        (b'{"url": "http://\\u00e4..b/"}', 400),
        (b'{"tag": ""}', 400),
        (b'{"tag": ["x"]}', 400),
        (b'{"tags": "x"}', 400),
        (b'{"tags": []}', 400),
        (b'{"tags": [1]}', 400),
        (b'{"tags": [""]}', 400),
        (b'{"pattern": "*"}', 400),
        (b'{"tags": ["%s"]}' % (b"x" * 70_000), 413),
    ],
)
async def test_a_wish_that_cannot_be_fulfilled_says_why(manager: CacheManager, body: bytes, status: int) -> None:
    answer = await call(admin_app(manager, token=TOKEN), "POST", "/purge", content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/purge", 405), ("POST", "/x", 404), ("DELETE", "/", 404)]
)
async def test_other_requests_get_a_problem_too(manager: CacheManager, method: str, path: str, status: int) -> None:
    answer = await call(admin_app(manager, token=TOKEN), method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_purging_by_its_own_method(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(cache_control="max-age=60, stale-if-error=30"), manager)
    admin = admin_app(manager, token=TOKEN)
    await ask(app, "/a?x=%C3%A4&y")
    target = f"/entries/{URL}?x=%C3%A4&y"
    answer = await call(admin, "PURGE", target, {**BEARER, "soft-purge": "1"})
    assert answer.json() == {"purged": {"url": f"{URL}?x=%C3%A4&y", "soft": True}}
    assert [entry["state"] for entry in (await call(admin, "GET", target)).json()["entries"]] == ["stale"]
    answer = await call(admin, "PURGE", target)
    assert answer.json()["purged"]["soft"] is False
    assert (await call(admin, "GET", target)).json()["entries"] == []


async def test_it_works_behind_a_server(manager: CacheManager) -> None:
    """With its own idea of methods, double slashes and escapes."""
    app = Starlette(
        routes=[
            Mount("/admin", admin_app(manager, token=TOKEN)),
            Mount("/", CacheMiddleware(fixed(**FRESH), manager)),
        ]
    )
    async with served(app) as port:
        url = "http://127.0.0.1/a%20b?x=%2F"
        assert (await fetch(port, "/a%20b?x=%2F")).body == (await fetch(port, "/a%20b?x=%2F")).body == b"body 1"
        async with connected(port) as connection:
            await connection.send(f"/admin/entries/{url}", method="PURGE")
            assert (await connection.read_head())[0] == 401
        assert (await fetch(port, "/a%20b?x=%2F")).body == b"body 1"
        seen = await fetch(port, f"/admin/entries/{url}", BEARER)
        assert [entry["state"] for entry in json.loads(seen.body)["entries"]] == ["fresh"]
        async with connected(port) as connection:
            await connection.send(f"/admin/entries/{url}", BEARER, "PURGE")
            assert (await connection.read_head())[0] == 200
        assert (await fetch(port, "/a%20b?x=%2F")).body == b"body 2"


async def test_what_is_stored_can_be_seen_without_what_is_in_it(manager: CacheManager, clock: ManualClock) -> None:
    async def handler(call: Call) -> None:
        await call.answer("secret body", vary="x-secret", x_secret="secret field", cache_tag="a,b", **FRESH)

    rule = CacheRule("/own", ttl=60, principal=lambda scope: "secret principal")
    app = Starlette(
        routes=[
            Mount("/admin", admin_app(manager, token=TOKEN)),
            Mount("/", CacheMiddleware(Origin(handler), manager, [rule])),
        ]
    )
    await ask(app, "/a", "GET", {"x-secret": "secret value"})
    await ask(app, "/own")
    clock.advance(10)
    answer = await call(app, "GET", f"/admin/entries/{URL}")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "url": URL,
        "entries": [
            {
                "layer": "l1",
                "state": "fresh",
                "status": 200,
                "age": 10.0,
                "ttl": 50.0,
                "life": answer.json()["entries"][0]["life"],
                "source": "explicit",
                "vary": ["x-secret"],
                "apart": True,
                "tags": ["a", "b"],
                "size": 11,
                "route": answer.json()["entries"][0]["route"],
            }
        ],
    }
    own = await call(app, "GET", f"/admin/entries/http%3A%2F%2F{HOST}%2Fown")
    assert [entry["apart"] for entry in own.json()["entries"]] == [True]
    assert "secret " not in answer.text + own.text
    assert (await call(app, "GET", f"/admin/entries/{URL}/other")).json()["entries"] == []


async def test_a_layer_that_fails_is_said_to(manager: CacheManager, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise LayerError("l2", "invalidate")

    monkeypatch.setattr(manager, "invalidate_tags", fail)
    answer = await call(admin_app(manager, token=TOKEN), "POST", "/purge", json={"tag": "secret-tag"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "secret-tag" not in answer.text


async def test_the_token_is_in_no_log(manager: CacheManager, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await call(admin_app(manager, token=TOKEN), "POST", "/purge", json={"tag": "a"})
        await call(admin_app(manager, token=TOKEN), "POST", "/purge", content=json.dumps("x"))
    assert TOKEN not in caplog.text
