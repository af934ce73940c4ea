"""`CacheRule` behind the middleware: what it caches, and whom it keeps apart."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from aurelis.cache import CacheManager, UnifiedCacheManager, get_cache_manager, set_cache_manager
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.counts import requests, stores
from tests.asgi.origin import Call, Origin, fixed
from tests.asgi.visits import ask

ALICE = {"authorization": "Bearer alice"}
BOB = {"authorization": "Bearer bob"}


def by_api_key(scope: Mapping[str, Any]) -> str | None:
    """Who is asking, by a field that no specification knows as a credential."""
    key: bytes | None = dict(scope["headers"]).get(b"x-api-key")
    return None if key is None else key.decode("latin-1")


async def echo_credentials(call: Call) -> None:
    """Answers with what the client says about itself."""
    who = [call.field(name) for name in ("authorization", "cookie", "x-api-key")]
    await call.answer(f"{'/'.join(who)} {call.number}")


async def test_a_rule_caches_what_says_nothing_about_it(manager: CacheManager, clock: ManualClock) -> None:
    app = CacheMiddleware(fixed(), cache=manager, rules=[CacheRule("/catalog/*", ttl=60)])
    assert (await ask(app, "/catalog/1")).cache_status == "default; fwd=uri-miss; fwd-status=200; ttl=60; stored"
    assert (await ask(app, "/catalog/1")).body == b"body 1"
    clock.advance(60)
    assert (await ask(app, "/catalog/1")).body == b"body 2"


async def test_the_first_rule_that_matches_counts(manager: CacheManager) -> None:
    rules = [CacheRule("/a/*", ttl=10), CacheRule("/**", ttl=20)]
    app = CacheMiddleware(fixed(), cache=manager, rules=rules)
    ttls = {target: (await ask(app, target)).cache_status.split("ttl=")[1] for target in ("/a/1", "/a/1/2", "/")}
    assert ttls == {"/a/1": "10; stored", "/a/1/2": "20; stored", "/": "20; stored"}


async def test_a_path_without_a_rule_is_not_cached_by_one(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(), cache=manager, rules=[CacheRule("/catalog/*", ttl=60)], cache_status="debug")
    for _ in range(2):
        visit = await ask(app, "/catalogue/1")
        assert visit.cache_status == "default; fwd=uri-miss; fwd-status=200; detail=not-fresh"


@pytest.mark.parametrize(
    ("cache_control", "ttl"), [("no-store", None), ("private", None), ("max-age=5", 5), ("s-maxage=7, max-age=9", 7)]
)
async def test_what_the_app_says_goes_before_the_rule(
    manager: CacheManager, cache_control: str, ttl: int | None
) -> None:
    app = CacheMiddleware(fixed(cache_control=cache_control), cache=manager, rules=[CacheRule("/", ttl=60)])
    assert (f"ttl={ttl}; stored" in (await ask(app)).cache_status) is (ttl is not None)
    assert (await ask(app)).body == (b"body 2" if ttl is None else b"body 1")


@pytest.mark.parametrize(("status", "cached"), [(200, True), (404, True), (500, False), (503, False), (302, False)])
async def test_a_rule_keeps_no_failures(manager: CacheManager, status: int, cached: bool) -> None:
    app = CacheMiddleware(fixed("body", status), cache=manager, rules=[CacheRule("/", ttl=60)])
    await ask(app)
    assert (await ask(app)).body == (b"body 1" if cached else b"body 2")


# Credentials


@pytest.mark.parametrize("fields", [ALICE, {"cookie": "session=alice"}], ids=["authorization", "cookie"])
async def test_a_request_with_credentials_is_neither_answered_nor_stored(
    manager: CacheManager, fields: dict[str, str]
) -> None:
    (name,) = fields
    app = CacheMiddleware(Origin(echo_credentials), cache=manager, rules=[CacheRule("/", ttl=60)], cache_status="debug")
    for number in (1, 2):  # nothing is stored by it
        visit = await ask(app, "/", "GET", fields)
        assert visit.body.endswith(b" %d" % number)
        assert visit.cache_status == f"default; fwd=bypass; detail={name}"
    assert (await ask(app)).body == b"// 3"
    assert (await ask(app)).body == b"// 3"
    visit = await ask(app, "/", "GET", fields)  # nor is it answered with what others got
    assert visit.body.endswith(b" 4")
    assert visit.cache_status == f"default; fwd=bypass; detail={name}"
    assert requests(manager) == {"bypass": 3, "miss": 1, "hit": 1}


async def test_the_first_bypass_of_a_rule_is_logged_with_the_way_out(
    manager: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [CacheRule("/a", ttl=60), CacheRule("/b", ttl=60)]
    app = CacheMiddleware(Origin(echo_credentials), cache=manager, rules=rules)
    with caplog.at_level(logging.WARNING, "aurelis.cache"):
        for _ in range(3):
            await ask(app, "/a", "GET", ALICE)
            await ask(app, "/a", "GET", {"cookie": "session=alice"})
            await ask(app, "/b", "GET", ALICE)
            await ask(app, "/no-rule", "GET", ALICE)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 3
    assert all("principal=" in text and "shared=True" in text for text in texts)
    assert ["'/a'" in text for text in texts] == [True, True, False]
    assert "cookies=" in texts[1]
    assert not any("alice" in text for text in texts)


async def test_a_rule_never_stores_a_response_with_set_cookie(
    manager: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [CacheRule("/shared", ttl=60, shared=True), CacheRule("/own", ttl=60, principal=lambda _: "alice")]
    app = CacheMiddleware(fixed(set_cookie="session=1"), cache=manager, rules=rules, cache_status="debug")
    with caplog.at_level(logging.WARNING, "aurelis.cache"):
        for target in ("/shared", "/shared", "/own", "/own"):
            assert (await ask(app, target)).cache_status.endswith("detail=set-cookie")
    assert [record.getMessage().count("Set-Cookie") for record in caplog.records] == [1, 1]
    assert stores(manager) == {"set_cookie": 4}


async def test_shared_gives_everybody_the_same(manager: CacheManager) -> None:
    app = CacheMiddleware(Origin(echo_credentials), cache=manager, rules=[CacheRule("/", ttl=60, shared=True)])
    first = await ask(app, "/", "GET", ALICE)
    for fields in (BOB, {"cookie": "session=bob"}, {}):
        assert (await ask(app, "/", "GET", fields)).body == first.body


async def test_a_principal_has_entries_of_its_own(manager: CacheManager) -> None:
    rule = CacheRule("/", ttl=60, principal=by_api_key)
    app = CacheMiddleware(Origin(echo_credentials), cache=manager, rules=[rule])
    keys = ["alice", "bob", "", "alice/", "ä"]
    for _ in range(2):
        for number, key in enumerate(keys, start=1):
            # Other credentials do not count where the rule says who is asking.
            visit = await ask(app, "/", "GET", {"x-api-key": key, "authorization": "whatever"})
            assert visit.body == f"whatever//{key} {number}".encode()
    assert requests(manager) == {"miss": 5, "hit": 5}


async def test_an_unknown_principal_bypasses(manager: CacheManager) -> None:
    rule = CacheRule("/", ttl=60, principal=by_api_key)
    app = CacheMiddleware(Origin(echo_credentials), cache=manager, rules=[rule], cache_status="debug")
    for number in (1, 2):
        visit = await ask(app)
        assert (visit.body, visit.cache_status) == (b"// %d" % number, "default; fwd=bypass; detail=principal")


async def test_without_principal_an_api_key_is_no_credential(manager: CacheManager) -> None:
    """Why an app with keys of its own needs `principal=`: only Authorization and Cookie are known."""
    app = CacheMiddleware(Origin(echo_credentials), cache=manager, rules=[CacheRule("/", ttl=60)])
    await ask(app, "/", "GET", {"x-api-key": "alice"})
    assert (await ask(app, "/", "GET", {"x-api-key": "bob"})).body == b"//alice 1"


async def test_an_error_of_principal_reaches_the_server(manager: CacheManager) -> None:
    def principal(_: Mapping[str, Any]) -> str:
        raise LookupError("no such user")

    origin = fixed()
    app = CacheMiddleware(origin, cache=manager, rules=[CacheRule("/", ttl=60, principal=principal)])
    with pytest.raises(LookupError, match="no such user"):
        await ask(app)
    assert origin.calls == []


async def test_only_the_cookies_that_count_separate(manager: CacheManager) -> None:
    async def handler(call: Call) -> None:
        lang = [pair for pair in call.field("cookie").split("; ") if pair.startswith("lang=")]
        await call.answer(f"{lang} {call.number}")

    app = CacheMiddleware(
        Origin(handler), cache=manager, rules=[CacheRule("/", ttl=60, cookies=("lang",))], cache_status="debug"
    )

    async def get(cookie: str) -> bytes:
        return (await ask(app, "/", "GET", {"cookie": cookie})).body

    assert await get("lang=de; session=alice") == b"['lang=de'] 1"
    assert await get("session=bob; lang=de") == b"['lang=de'] 1"
    assert await get("lang=fr") == b"['lang=fr'] 2"
    assert await get("session=alice") == b"[] 3"
    assert (await ask(app)).body == b"[] 3"
    assert await get("lang=de; lang=fr") == b"['lang=de', 'lang=fr'] 4"
    visit = await ask(app, "/", "GET", {"cookie": "lang=de", **ALICE})
    assert visit.cache_status == "default; fwd=bypass; detail=authorization"


async def test_a_lifetime_of_the_response_is_for_everybody_but_those_with_authorization(manager: CacheManager) -> None:
    """RFC 9111 §3.5, and the same for answers from the cache."""
    app = CacheMiddleware(fixed(cache_control="max-age=60"), cache=manager, cache_status="debug")
    assert (await ask(app, "/", "GET", ALICE)).cache_status.endswith("detail=authorization")
    assert (await ask(app, "/", "GET", {"cookie": "a=b"})).body == b"body 2"
    assert (await ask(app)).body == b"body 2"
    assert (await ask(app, "/", "GET", ALICE)).body == b"body 3"


@pytest.mark.parametrize("word", ["public", "must-revalidate", "s-maxage=60"])
async def test_a_response_may_say_that_it_is_for_those_with_authorization_too(manager: CacheManager, word: str) -> None:
    """RFC 9111 §3.5."""
    app = CacheMiddleware(fixed(cache_control=f"max-age=60, {word}"), cache=manager)
    await ask(app, "/", "GET", ALICE)
    assert (await ask(app, "/", "GET", BOB)).body == b"body 1"
    assert (await ask(app)).body == b"body 1"


# Construction


def test_wrong_settings_fail_at_construction(manager: CacheManager) -> None:
    with pytest.raises(ConfigurationError, match="CacheRule"):
        CacheMiddleware(fixed(), cache=manager, rules=["/catalog/*"])  # type: ignore[list-item]  # the mistake
    for rules in (None, CacheRule("/", ttl=60)):
        with pytest.raises(ConfigurationError, match=r"put it into \[\.\.\.\]"):
            CacheMiddleware(fixed(), cache=manager, rules=rules)  # type: ignore[arg-type]  # the mistake
    for size in (0, 1.5, "1"):
        with pytest.raises(ConfigurationError, match="max_body_bytes"):
            CacheMiddleware(fixed(), cache=manager, max_body_bytes=size)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigurationError, match="takes an ASGI app, not NoneType"):
        CacheMiddleware(None, cache=manager)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="CacheManager"):
        CacheMiddleware(fixed(), cache="redis://")  # type: ignore[arg-type]  # the mistake


async def test_rules_may_come_from_an_iterator(manager: CacheManager) -> None:
    app = CacheMiddleware(fixed(), cache=manager, rules=iter([CacheRule("/**", ttl=60)]))  # type: ignore[arg-type]
    await ask(app)
    assert (await ask(app)).cache_status == f"{manager.config.name}; hit; ttl=60"


async def test_cache_may_be_a_unified_manager_or_left_out(manager: CacheManager) -> None:
    unified = CacheMiddleware(fixed(cache_control="max-age=60"), cache=UnifiedCacheManager(manager))
    await ask(unified)
    assert requests(manager) == {"miss": 1}
    set_cache_manager(manager)
    try:
        process_wide = CacheMiddleware(fixed(cache_control="max-age=60"))
        assert get_cache_manager().manager is manager
        assert (await ask(process_wide)).cache_status == "default; hit; ttl=60"
    finally:
        set_cache_manager(None)
