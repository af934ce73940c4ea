"""Credentials in a query keep responses apart, and are in no key: names in a shared layer can be read."""

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.models import pattern_without_credentials, without_credentials
from aurelis_asgi import CacheMiddleware, CacheRule, Purger
from tests.asgi.conftest import MakeManager
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import HOST, ask

SECRETS = ["token=s3cret", "page=1&api_key=s3cret", "%74oken=s3cret", "X-Amz-Signature=s3cret&b=2&a=1", "token=s3cret&"]


async def answer(call: Call) -> None:
    await call.answer(f"{call.number}", cache_control="max-age=60")


def keys(manager: CacheManager) -> list[str]:
    """All keys in memory."""
    memory = manager._engine.stack.memory
    assert memory is not None
    return list(memory.entries)


@pytest.mark.parametrize("query", SECRETS)
async def test_a_credential_is_in_no_key_and_selects_the_response(manager: CacheManager, query: str) -> None:
    app = CacheMiddleware(Origin(answer), cache=manager)
    for _ in range(2):
        assert (await ask(app, f"/a?{query}")).body == b"1"
        assert (await ask(app, f"/a?{query.replace('s3cret', 'another')}")).body == b"2"
        assert (await ask(app, "/a")).body == b"3"
    assert len(keys(manager)) == 3
    assert not [key for key in keys(manager) if "s3cret" in key or "another" in key]


@pytest.mark.parametrize("query", ["q=1", "b=2&a=1", "tokens=1", "", "q=token"])
async def test_other_parameters_are_in_the_key_as_they_came(manager: CacheManager, query: str) -> None:
    app = CacheMiddleware(Origin(answer), cache=manager)
    await ask(app, f"/a?{query}")
    url = f"http://{HOST}/a?{query}" if query else f"http://{HOST}/a"
    assert keys(manager) == [manager.key_builder.build_key("http", f"GET {url}")]


async def test_a_rule_counts_a_query_with_credentials_as_any_other(manager: CacheManager) -> None:
    rules = [CacheRule("/a", ttl=60, ignore_query=["utm_*"]), CacheRule("/b", ttl=60, query=["q"])]
    app = CacheMiddleware(Origin(answer), cache=manager, rules=rules)
    assert (await ask(app, "/a?token=1&utm_x=1")).body == (await ask(app, "/a?token=1&utm_x=2")).body == b"1"
    assert (await ask(app, "/b?token=1&q=1")).body == (await ask(app, "/b?token=2&q=1")).body == b"2"


@pytest.mark.parametrize("layers", ["memory", "redis"])
@pytest.mark.parametrize(
    "purge",
    [
        lambda purger: purger.url(f"http://{HOST}/a?token=1&q=1"),
        lambda purger: purger.url(f"http://{HOST}/a?q=1"),
        lambda purger: purger.pattern(f"http://{HOST}/a*"),
        lambda purger: purger.pattern(f"http://{HOST}/a?token=1&q=*"),
        lambda purger: purger.pattern(f"http://{HOST}/a?q=1&token=*"),
        lambda purger: purger.pattern(f"http://{HOST}/a?token=*"),
        lambda purger: purger.pattern("*/a?token=1*", everything=True),
    ],
)
async def test_a_url_is_purged_whoever_it_is_for(
    make_manager: MakeManager, request: pytest.FixtureRequest, layers: str, purge: object
) -> None:
    """A purge takes too much rather than too little."""
    options = {"redis_url": request.getfixturevalue("redis_url")} if layers == "redis" else {}
    manager = make_manager(**options)
    app = CacheMiddleware(Origin(answer), cache=manager)
    purger = Purger(manager)
    for token in (1, 2):
        await ask(app, f"/a?token={token}&q=1")
        assert "hit" in (await ask(app, f"/a?token={token}&q=1")).cache_status
    assert len(await purger.entries(f"http://{HOST}/a?token=1&q=1")) == (4 if options else 2)
    assert callable(purge)
    await purge(purger)
    for token in (1, 2):
        assert "hit" not in (await ask(app, f"/a?token={token}&q=1")).cache_status


@pytest.mark.parametrize("target", ["/a?token=1", "/b"])
async def test_an_unsafe_request_puts_its_url_out_of_date(manager: CacheManager, target: str) -> None:
    async def changing(call: Call) -> None:
        if call.scope["method"] == "POST":
            await call.answer("done", location=f"http://{HOST}/a?token=1")
        else:
            await answer(call)

    app = CacheMiddleware(Origin(changing), cache=manager)
    await ask(app, "/a?token=1")
    assert "hit" in (await ask(app, "/a?token=1")).cache_status
    await ask(app, target, "POST")
    assert "hit" not in (await ask(app, "/a?token=1")).cache_status


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a?b=2&a=1", "http://h/a?b=2&a=1"),
        ("http://H/a?b=2&a=1&token=x", "http://h/a?a=1&b=2"),
        ("http://user:word@h/a?b=2&a=1", "http://h/a?a=1&b=2"),
        ("http://h/a@b?c=d@e", "http://h/a@b?c=d@e"),
        ("http://h/a?Token=x#part", "http://h/a"),
        ("no address?token=x", "no address?token=x"),
    ],
)
def test_only_an_address_with_credentials_is_changed(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        ("http://h/a*", "http://h/a*"),
        ("http://h/a?b=2&a=*", "http://h/a?b=2&a=*"),
        ("*/a?token=x", "*/a"),
        ("http://h/a?b=2&token=x&a=*", "http://h/a?a=*&b=2"),
        ("http://h/a?token=x*", "http://h/a*"),
        ("http://h/a?token=*&q=1", "http://h/a?*q=1*"),
    ],
)
def test_a_pattern_means_what_it_has_meant(pattern: str, shown: str) -> None:
    assert pattern_without_credentials(pattern) == shown
