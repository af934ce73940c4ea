"""What responses to unsafe requests and to HEAD mean for what is stored."""

from collections.abc import Mapping

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.exceptions import LayerError
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.conftest import MakeManager
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import ask

FRESH = {"cache_control": "max-age=60"}


class Shop:
    """A handler whose responses are fresh, and whose POST answers as the test says."""

    def __init__(self, status: int = 200, /, **fields: str) -> None:
        self.status = status
        self.fields: Mapping[str, str] = fields
        self.etag = '"1"'

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        if call.scope["method"] == "HEAD":
            await call.start(200, content_length="6", etag=self.etag, **{**FRESH, **self.fields})
            await call.chunk(b"", more=False)
        elif call.scope["method"] == "GET":
            more = {"vary": "accept-language"} if call.path == "/varying" else {}
            await call.answer(f"body {call.number}", etag=self.etag, **FRESH, **more)
        else:
            await call.answer(f"done {call.number}", self.status, **self.fields)


async def bodies(app: CacheMiddleware, target: str, fields: Mapping[str, str] = {}) -> list[bytes]:
    """Of two requests."""
    return [(await ask(app, target, "GET", fields)).body for _ in range(2)]


@pytest.mark.parametrize("layers", ["memory", "redis"])
async def test_an_unsafe_request_invalidates_its_target_and_what_it_names(
    make_manager: object, request: pytest.FixtureRequest, layers: str
) -> None:
    options = {"redis_url": request.getfixturevalue("redis_url")} if layers == "redis" else {}
    manager: CacheManager = make_manager(**options)  # type: ignore[operator]
    app = CacheMiddleware(Origin(Shop(201, location="/b", content_location="http://example.com/c")), cache=manager)
    for number, target in enumerate(["/a", "/b", "/c", "/d"], start=1):
        assert await bodies(app, target) == [b"body %d" % number] * 2
    assert (await ask(app, "/a", "POST")).body == b"done 5"
    for number, target in enumerate(["/a", "/b", "/c"], start=6):
        assert await bodies(app, target) == [b"body %d" % number] * 2
    assert await bodies(app, "/d") == [b"body 4"] * 2


@pytest.mark.parametrize("layers", ["memory", "redis"])
async def test_all_variants_and_principals_are_meant(
    make_manager: object, request: pytest.FixtureRequest, layers: str
) -> None:
    options = {"redis_url": request.getfixturevalue("redis_url")} if layers == "redis" else {}
    manager: CacheManager = make_manager(**options)  # type: ignore[operator]
    rules = [CacheRule("/mine", ttl=60, principal=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode())]
    app = CacheMiddleware(Origin(Shop()), cache=manager, rules=rules)
    for number, language in enumerate(["de", "fr"], start=1):
        assert await bodies(app, "/varying", {"accept-language": language}) == [b"body %d" % number] * 2
    for number, user in enumerate(["ada", "grace"], start=3):
        assert await bodies(app, "/mine", {"x-user": user}) == [b"body %d" % number] * 2
    await ask(app, "/varying", "PUT")
    await ask(app, "/mine", "PUT")
    for number, language in enumerate(["de", "fr"], start=7):
        assert await bodies(app, "/varying", {"accept-language": language}) == [b"body %d" % number] * 2
    for number, user in enumerate(["ada", "grace"], start=9):
        assert await bodies(app, "/mine", {"x-user": user}) == [b"body %d" % number] * 2


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_failed_request_invalidates_nothing(manager: CacheManager, status: int) -> None:
    app = CacheMiddleware(Origin(Shop(status)), cache=manager)
    await bodies(app, "/a")
    assert (await ask(app, "/a", "DELETE")).status == status
    assert await bodies(app, "/a") == [b"body 1"] * 2


async def test_what_counts_of_a_query_is_up_to_the_rule(manager: CacheManager) -> None:
    app = CacheMiddleware(Origin(Shop()), cache=manager, rules=[CacheRule("/a", ttl=60, query=["id"])])
    assert await bodies(app, "/a?id=1&x=2") == [b"body 1"] * 2
    await ask(app, "/a?x=3&id=1", "POST")
    assert await bodies(app, "/a?id=1&x=2") == [b"body 3"] * 2


async def test_a_load_under_way_is_not_stored(manager: CacheManager) -> None:
    """It may have read what the unsafe request has changed."""

    async def handler(call: Call) -> None:
        if call.scope["method"] == "GET" and call.number == 1:
            await call.start(200, content_length="3", **FRESH)
            await call.chunk(b"o")
            assert (await ask(app, "/a", "POST")).status == 200  # while it answers
            await call.chunk(b"ld", more=False)
        else:
            await call.answer(f"body {call.number}", **FRESH)

    app = CacheMiddleware(Origin(handler), cache=manager)
    assert (await ask(app, "/a")).body == b"old"
    assert await bodies(app, "/a") == [b"body 3"] * 2


async def test_a_failing_layer_does_not_fail_the_request(
    manager: CacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise LayerError("l2", "delete")

    app = CacheMiddleware(Origin(Shop(content_location="/a", **FRESH)), cache=manager)
    for name in ("delete", "invalidate"):
        monkeypatch.setattr(manager._engine, name, fail)
    assert (await ask(app, "/a", "POST")).body == b"done 1"
    await manager.aclose()
    assert (await ask(app, "/a", "POST")).body == b"done 2"


async def test_the_answer_to_a_post_is_stored_where_it_says_so(manager: CacheManager) -> None:
    """RFC 9110 §9.3.3."""
    app = CacheMiddleware(Origin(Shop(content_location="/a", **FRESH)), cache=manager, max_body_bytes=10)
    await bodies(app, "/a")
    assert (await ask(app, "/a", "POST", body=b"1")).body == b"done 2"
    assert await bodies(app, "/a") == [b"done 2"] * 2
    assert await bodies(app, "/b") == [b"body 3"] * 2


async def test_a_head_updates_what_a_get_has_stored(manager: CacheManager, clock: ManualClock) -> None:
    """RFC 9111 §4.3.5."""
    shop = Shop()
    origin = Origin(shop)
    app = CacheMiddleware(origin, cache=manager)
    await bodies(app, "/a")
    clock.advance(70)
    shop.fields = {"x": "2", "cache_control": "max-age=90"}
    head = await ask(app, "/a", "HEAD")
    assert (head.status, head.body) == (200, b"")
    visit = await ask(app, "/a")
    assert (visit.body, visit.field("x"), visit.field("age")) == (b"body 1", "2", "0")
    assert visit.cache_status == "default; hit; ttl=90"
    assert len(origin.calls) == 2


async def test_a_head_that_shows_a_change_makes_stale(manager: CacheManager) -> None:
    """RFC 9111 §4.3.5."""
    shop = Shop()
    app = CacheMiddleware(Origin(shop), cache=manager)
    await bodies(app, "/a")
    shop.etag = '"2"'
    await ask(app, "/a", "HEAD", {"cache-control": "no-cache"})
    visit = await ask(app, "/a")
    assert visit.body == b"body 3"
    assert visit.cache_status.startswith("default; fwd=stale; fwd-status=200")


async def test_what_nobody_has_stored_costs_an_unsafe_request_nothing(manager: CacheManager) -> None:
    """Otherwise each would have all entries looked at once more, and leave a record."""
    app = CacheMiddleware(Origin(Shop()), cache=manager)
    mark = manager._engine.stack.generations.mark
    for number in range(10):
        await ask(app, f"/orders/{number}", "POST")
    assert manager._engine.stack.generations.mark == mark


@pytest.mark.parametrize("layers", ["memory", "redis"])
@pytest.mark.parametrize("meanwhile", ["PUT", "GET", "clear", "tag"])
async def test_the_answer_to_a_post_that_was_overtaken_is_not_stored(
    make_manager: MakeManager, redis_url: str, layers: str, meanwhile: str
) -> None:
    """By a later change, or by a later response."""
    manager = make_manager(redis_url=redis_url) if layers == "redis" else make_manager()

    async def handler(call: Call) -> None:
        fields = {"cache_control": "max-age=60", "content_location": "/", "cache_tag": "t"}
        if call.scope["method"] != "POST":
            await call.answer(f"{call.scope['method']} {call.number}", cache_control="max-age=60")
            return
        await call.start(200, **fields)
        await call.chunk(b"post")
        if meanwhile == "clear":
            await manager.clear()
        elif meanwhile == "tag":
            await manager.invalidate_tags("t")
        else:
            await ask(app, "/", meanwhile)
        await call.chunk(b"ed", more=False)

    app = CacheMiddleware(Origin(handler), cache=manager)
    assert (await ask(app, "/", "POST")).body == b"posted"
    assert not manager._engine.flights._apart
    visit = await ask(app)
    assert visit.body.startswith(b"GET ")
    assert ("; hit" in visit.cache_status) is (meanwhile == "GET")
