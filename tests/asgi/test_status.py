"""`Cache-Status` (RFC 9211) is on every response, and says what was done."""

import re

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aurelis.cache import CacheManager
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.conftest import MakeManager
from tests.asgi.origin import Call, Gated, Origin, fixed
from tests.asgi.visits import Visit, ask
from tests.managers import eventually

_PARAMETER = r'(?:hit|stored|collapsed|fwd=[a-z-]+|fwd-status=\d+|ttl=-?\d+|detail=(?:[a-z-]+|"[^"]*"))'
_MEMBER = re.compile(rf"default(?:; {_PARAMETER})+")


async def test_every_kind_of_answer_says_what_was_done(manager: CacheManager, clock: ManualClock) -> None:
    async def handler(call: Call) -> None:
        status = int(call.path.rpartition("/")[2] or 200)
        await call.answer("body", status, **{"cache_control": "max-age=60"} if "kept" in call.path else {})

    app = CacheMiddleware(Origin(handler), cache=manager, rules=[CacheRule("/rule/*", ttl=60)], cache_status="debug")
    cases = [
        ("/kept/200", "GET", {}, "fwd=uri-miss; fwd-status=200; ttl=60; stored"),
        ("/kept/200", "GET", {}, "hit; ttl=60"),
        ("/kept/200", "GET", {"cache-control": "no-cache"}, "fwd=request; fwd-status=200; ttl=60; stored"),
        ("/kept/404", "GET", {}, "fwd=uri-miss; fwd-status=404; ttl=60; stored"),
        ("/plain/503", "GET", {}, "fwd=uri-miss; fwd-status=503; detail=not-fresh"),
        ("/rule/200", "GET", {"cookie": "a=b"}, "fwd=bypass; detail=cookie"),
        ("/plain/405", "POST", {}, "fwd=method"),
    ]
    for target, method, fields, expected in cases:
        visit = await ask(app, target, method, fields)
        assert (target, visit.cache_status) == (target, f"default; {expected}")
        assert _MEMBER.fullmatch(visit.cache_status)


async def test_the_name_is_that_of_the_cache(make_manager: MakeManager) -> None:
    for name, expected in (("web", "web; fwd"), ("my cache", '"my cache"; fwd')):
        app = CacheMiddleware(fixed(), cache=make_manager(name=name))
        assert (await ask(app)).cache_status.startswith(expected)


async def test_members_of_caches_behind_stay_in_front(manager: CacheManager) -> None:
    """RFC 9211 §2: the cache nearest to the client comes last."""
    app = CacheMiddleware(fixed(cache_status="behind; hit", cache_control="max-age=60"), cache=manager)
    for ours in ("default; fwd=uri-miss; fwd-status=200; ttl=60; stored", "default; hit; ttl=60"):
        assert (await ask(app)).fields("cache-status") == ["behind; hit", ours]


async def test_who_shared_a_load_is_told(manager: CacheManager) -> None:
    handler = Gated(cache_control="max-age=60")
    app = CacheMiddleware(Origin(handler), cache=manager)
    visits = [Visit(app).begin() for _ in range(3)]
    await eventually(lambda: manager._engine.flights.waiting == 2)
    handler.gate.set()
    told = [(await visit.end()).cache_status for visit in visits]
    alone = "default; fwd=uri-miss; fwd-status=200; ttl=60; stored"
    assert told == [alone, f"{alone}; collapsed", f"{alone}; collapsed"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_what_the_apps_own_handlers_make_of_errors_has_it_too(manager: CacheManager, method: str) -> None:
    async def missing(request: Request) -> PlainTextResponse:
        raise HTTPException(404)

    async def broken(request: Request) -> PlainTextResponse:
        raise LookupError("broken")

    def on_error(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sorry", 500)

    methods = ["GET", "HEAD", "POST"]
    routes = [Route("/missing", missing, methods=methods), Route("/broken", broken, methods=methods)]
    starlette = Starlette(routes=routes, exception_handlers={LookupError: on_error})
    starlette.add_middleware(CacheMiddleware, cache=manager)
    for target, status in (("/missing", 404), ("/broken", 500), ("/nowhere", 404)):
        visit = await ask(starlette, target, method)
        assert visit.status == status
        assert _MEMBER.fullmatch(visit.cache_status)


async def test_wrapped_around_the_app_it_marks_the_servers_errors_too(manager: CacheManager) -> None:
    """Starlette answers an unexpected error outside of what `add_middleware` adds, and then raises it."""

    async def broken(request: Request) -> PlainTextResponse:
        raise LookupError("broken")

    app = CacheMiddleware(Starlette(routes=[Route("/", broken)]), cache=manager, cache_status="debug")
    visit = Visit(app)
    with pytest.raises(LookupError, match="broken"):
        await visit.go()
    assert (visit.status, visit.body, visit.complete) == (500, b"Internal Server Error", True)
    assert visit.cache_status == "default; fwd=uri-miss; fwd-status=500; detail=not-fresh"


async def cached_and_not(app: CacheMiddleware, *targets: str) -> list[str | None]:
    """What the responses to two requests for each target say."""
    return [(await ask(app, target)).field("cache-status") for target in targets for _ in range(2)]


async def test_reasons_and_keys_are_told_only_where_that_is_wanted(manager: CacheManager) -> None:
    rules = [CacheRule("/kept", ttl=60), CacheRule("/out", bypass=True)]
    app = CacheMiddleware(fixed(), manager, rules)
    assert await cached_and_not(app, "/kept", "/out", "/other") == [
        "default; fwd=uri-miss; fwd-status=200; ttl=60; stored",
        "default; hit; ttl=60",
        *["default; fwd=bypass"] * 2,
        *["default; fwd=uri-miss; fwd-status=200"] * 2,
    ]
    assert (await ask(app, "/none", "GET", {"cache-control": "only-if-cached"})).cache_status == "default"
    app = CacheMiddleware(fixed(), manager, rules, cache_status="debug")
    key = manager.key_builder.build_key("http", "GET http://example.com/kept")
    assert await cached_and_not(app, "/kept") == [f'default; hit; ttl=60; key="{key}"'] * 2
    assert (
        await cached_and_not(app, "/out")
        == [f'default; fwd=bypass; key="{key.replace("kept", "out")}"; detail=rule'] * 2
    )
    app = CacheMiddleware(fixed(), manager, rules, cache_status=False)
    assert await cached_and_not(app, "/kept", "/out", "/other") == [None] * 6
    assert (await ask(app, "/kept")).field("age") == "0"
    assert (await ask(app, "/none", "GET", {"cache-control": "only-if-cached"})).field("cache-status") is None


async def test_a_rule_decides_what_its_responses_tell(manager: CacheManager) -> None:
    rules = [
        CacheRule("/silent", ttl=60, cache_status=False),
        CacheRule("/debug", ttl=60, cache_status="debug", principal=lambda _: "secret"),
        CacheRule("/said", ttl=60, cache_status=True),
        CacheRule("/**", ttl=60),
    ]
    app = CacheMiddleware(fixed(), manager, rules, cache_status=False)
    said = await cached_and_not(app, "/silent", "/debug", "/said", "/other")
    assert [said[index] for index in (0, 1, 6, 7)] == [None] * 4
    assert said[4:6] == ["default; fwd=uri-miss; fwd-status=200; ttl=60; stored", "default; hit; ttl=60"]
    assert said[3] is not None
    assert re.fullmatch(r'default; hit; ttl=60; key="[^"]*"', said[3])
    assert "secret" not in said[3]


@pytest.mark.parametrize("value", ["verbose", None, 2])
def test_other_values_are_refused(manager: CacheManager, value: object) -> None:
    with pytest.raises(ConfigurationError, match="cache_status"):
        CacheMiddleware(fixed(), manager, cache_status=value)  # type: ignore[arg-type]  # the mistake
