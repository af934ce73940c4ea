"""`CacheInvalidator`: what an event puts out of date."""

import asyncio
import enum
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurelis.cache import (
    CacheInvalidator,
    CacheManager,
    UnifiedCacheManager,
    cached,
    cached_method,
    set_cache_manager,
)
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.testing import Chaos, ChaosSharedLayer, SharedMemory
from tests.managers import configuration, eventually, opened, run_script


@pytest.fixture
async def cache() -> AsyncIterator[UnifiedCacheManager]:
    """A cache in memory."""
    async with UnifiedCacheManager(configuration()) as unified:
        yield unified


async def fill(cache: UnifiedCacheManager) -> None:
    """Entries that rules may mean."""
    for identifier in ("1", "11", "a:b", "*"):
        await cache.set("user", identifier, identifier)
        await cache.set("user", identifier, identifier, params={"page": 1})
    await cache.set("article", "1", "1", tags=["author:7"])
    await cache.manager.set("plain key", "1")


async def left(cache: UnifiedCacheManager) -> set[str]:
    """Which of these entries are there."""
    found = set()
    for identifier in ("1", "11", "a:b", "*"):
        values = [await cache.get("user", identifier), await cache.get("user", identifier, {"page": 1})]
        assert values in ([identifier] * 2, [None] * 2)
        found |= {f"user {identifier}"} if values[0] else set()
    found |= {"article"} if await cache.get("article", "1") else set()
    found |= {"plain"} if await cache.manager.get("plain key") else set()
    return found


ALL = {"user 1", "user 11", "user a:b", "user *", "article", "plain"}


@pytest.mark.parametrize(
    ("targets", "context", "gone"),
    [
        (["category:user"], None, {"user 1", "user 11", "user a:b", "user *"}),
        (["category:{kind}"], {"kind": "article"}, {"article"}),
        (["pattern:user:1*"], None, {"user 1", "user 11"}),
        (["pattern:user:{user_id}"], {"user_id": 1}, {"user 1"}),
        (["pattern:user:{user_id}"], {"user_id": "*"}, {"user *"}),
        (["pattern:user:{user_id}"], {"user_id": "a:b"}, {"user a:b"}),
        (["pattern:user:{user_id}*"], {"user_id": "1", "other": object()}, {"user 1", "user 11"}),
        (["pattern:{kind}:{number}"], {"kind": "user", "number": 11}, {"user 11"}),
        (["tag:author:7"], None, {"article"}),
        (["tag:author:{author}"], {"author": 7}, {"article"}),
        (["plain key"], None, {"plain"}),
        (["category:article", "plain key", "pattern:user:1"], {}, {"article", "plain", "user 1"}),
        (["category:none", "tag:none", "none", "pattern:none:none"], None, set()),
        ([], None, set()),
    ],
)
async def test_a_rule_puts_out_of_date_what_it_names(
    cache: UnifiedCacheManager, targets: list[str], context: dict[str, Any] | None, gone: set[str]
) -> None:
    invalidator = CacheInvalidator(cache)
    invalidator.register_invalidation_rule("event", targets)
    await fill(cache)
    await invalidator.invalidate_on_event("other", context)
    assert await left(cache) == ALL
    await invalidator.invalidate_on_event("event", context)
    assert await left(cache) == ALL - gone


async def test_full_keys_are_direct_targets(cache: UnifiedCacheManager) -> None:
    invalidator = CacheInvalidator(cache)
    invalidator.register_invalidation_rule(trigger="event", targets=["aurelis:v1:user:{user_id}"])
    await cache.set("user", "a:b", 1)
    await cache.set("user", "a:b", 1, params={"page": 1})
    await invalidator.invalidate_on_event("event", context={"user_id": "a:b"})
    assert await cache.get("user", "a:b") is None
    assert await cache.get("user", "a:b", {"page": 1}) == 1  # a key is one entry


@pytest.mark.parametrize(
    "value",
    [*("x", "a:b*?[]{}%", "ü\ud800", "", 0, -17, 10**30), uuid.UUID(int=7), enum.IntEnum("N", "a").a],  # type: ignore[attr-defined]  # made here
    ids=repr,
)
async def test_a_placeholder_is_written_as_in_keys(cache: UnifiedCacheManager, value: Any) -> None:
    invalidator = CacheInvalidator(cache)
    identifier = str(int(value)) if isinstance(value, int) else str(value)
    invalidator.register_invalidation_rule("event", ["pattern:user:{id}"])
    await cache.set("user", identifier, "meant")
    await cache.set("user", identifier + "x", "other")
    await cache.set("user", "other", "other")
    await invalidator.invalidate_on_event("event", {"id": value})
    assert await cache.get("user", identifier) is None
    assert await cache.get("user", identifier + "x") == "other"
    assert await cache.get("user", "other") == "other"


async def test_braces_can_be_meant(cache: UnifiedCacheManager) -> None:
    invalidator = CacheInvalidator(cache)
    invalidator.register_invalidation_rule("event", ["tag:{{x}}:{x}"])
    await cache.set("c", "i", 1, tags=["{x}:7"])
    await invalidator.invalidate_on_event("event", {"x": 7})
    assert await cache.get("c", "i") is None


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (None, "no value for the placeholder {user_id}"),
        ({"userid": 1}, "no value for the placeholder {user_id}"),
        ({"user_id": None}, "takes str, int or UUID, not NoneType"),
        ({"user_id": True}, "not bool"),
        ({"user_id": ["1"]}, "not list"),
        ({"user_id": object()}, "not object"),
    ],
)
async def test_without_what_a_rule_needs_nothing_is_invalidated(
    cache: UnifiedCacheManager, context: dict[str, Any] | None, says: str
) -> None:
    invalidator = CacheInvalidator(cache)
    invalidator.register_invalidation_rule("event", ["category:article", "pattern:user:{user_id}"])
    await fill(cache)
    await cache.set("c", "i", 1, tags=["event"])
    with pytest.raises(ConfigurationError, match=says):
        await invalidator.invalidate_on_event("event", context)
    assert await left(cache) == ALL
    assert await cache.get("c", "i") == 1


@pytest.mark.parametrize(
    ("targets", "error", "says"),
    [
        (["pattern:"], ConfigurationError, "must not be empty"),
        (["category:"], ConfigurationError, "must not be empty"),
        (["tag:"], ConfigurationError, "must not be empty"),
        ([""], ConfigurationError, "must not be empty"),
        (["pattern:*"], ConfigurationError, "begins with"),
        (["pattern:user:{user_id"], ConfigurationError, "brace without another"),
        (["pattern:user:user_id}"], ConfigurationError, "brace without another"),
        (["pattern:user:{}"], ConfigurationError, "a placeholder is a name"),
        (["pattern:user:{0}"], ConfigurationError, "a placeholder is a name"),
        (["pattern:user:{user.id}"], ConfigurationError, "a placeholder is a name"),
        (["pattern:user:{user[id]}"], ConfigurationError, "a placeholder is a name"),
        (["pattern:user:{id!r}"], ConfigurationError, "a placeholder is a name"),
        (["pattern:user:{id:>9}"], ConfigurationError, "a placeholder is a name"),
        ("category:user", TypeError, r"write targets=\['category:user'\]"),
        ([7], TypeError, "a target must be a str, not int"),
    ],
    ids=repr,
)
def test_a_rule_that_cannot_be_meant_is_refused(targets: Any, error: type[Exception], says: str) -> None:
    invalidator = CacheInvalidator()
    with pytest.raises(error, match=says):
        invalidator.register_invalidation_rule("event", targets)
    assert invalidator.invalidation_rules == {}


async def test_a_context_cannot_make_a_pattern_of_everything(cache: UnifiedCacheManager) -> None:
    invalidator = CacheInvalidator(cache)
    invalidator.register_invalidation_rule("event", ["pattern:{kind}*"])
    invalidator.register_invalidation_rule("empty", ["tag:{kind}"])
    await fill(cache)
    for event, says in (("event", "looks at every key"), ("empty", "leaves the target 'tag:{kind}' empty")):
        with pytest.raises(ConfigurationError, match=says):
            await invalidator.invalidate_on_event(event, {"kind": ""})
    assert await left(cache) == ALL


def test_a_rule_of_the_same_trigger_is_replaced() -> None:
    invalidator = CacheInvalidator()
    invalidator.register_invalidation_rule("event", ["category:a"])
    invalidator.register_invalidation_rule("event", ["category:b", "tag:c"])
    assert invalidator.invalidation_rules == {"event": ["category:b", "tag:c"]}
    invalidator.invalidation_rules.clear()
    assert invalidator.invalidation_rules == {"event": ["category:b", "tag:c"]}


@pytest.mark.parametrize(("event", "error"), [("", ConfigurationError), (7, TypeError), (None, TypeError)])
async def test_an_event_is_a_name(event: Any, error: type[Exception]) -> None:
    invalidator = CacheInvalidator()
    with pytest.raises(error, match="an event must"):
        await invalidator.invalidate_on_event(event)
    with pytest.raises(error, match="an event must"):
        invalidator.register_invalidation_rule(event, [])


# --- events are tags


async def test_an_event_needs_no_rule_for_what_names_it(cache: UnifiedCacheManager) -> None:
    calls = 0

    class Service:
        @cached_method(invalidate_on=["model_config_updated"], cache=cache)
        async def config(self, model: str) -> int:
            nonlocal calls
            calls += 1
            return calls

    @cached(invalidate_on=["model_config_updated", "other"], cache=cache)
    def blocking(model: str) -> str:
        nonlocal calls
        calls += 1
        return f"{model} {calls}"

    service = Service()
    assert (await service.config("m"), blocking("m")) == (1, "m 2")
    await cache.set("c", "i", 1, tags=["model_config_updated"])
    await CacheInvalidator(cache).invalidate_on_event("model_config_updated", context={"model_type": "m"})
    assert (await service.config("m"), blocking("m")) == (3, "m 4")
    assert await cache.get("c", "i") is None


async def test_the_process_s_manager_is_found_at_each_event() -> None:
    invalidator = CacheInvalidator()
    invalidator.register_invalidation_rule("event", ["category:c"])
    async with opened() as first, opened() as second:
        for manager in (first, second):
            set_cache_manager(manager)
            unified = UnifiedCacheManager(manager)
            await unified.set("c", "i", 1)
            await invalidator.invalidate_on_event("event")
            assert await unified.get("c", "i") is None
        set_cache_manager(None)


async def test_either_kind_of_manager_will_do() -> None:
    async with opened() as manager:
        assert CacheInvalidator(manager).cache.manager is manager
        unified = UnifiedCacheManager(manager)
        assert CacheInvalidator(unified).cache is unified
        with pytest.raises(TypeError, match="cache must be a CacheManager"):
            CacheInvalidator({})  # type: ignore[arg-type]  # that is the point


async def test_an_event_of_another_process_reaches_memory_here(redis_url: str) -> None:
    source = """
        import asyncio, sys
        from aurelis.cache import CacheConfig, CacheInvalidator, CacheManager

        async def main() -> None:
            async with CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10)) as cache:
                invalidator = CacheInvalidator(cache)
                invalidator.register_invalidation_rule(
                    "happened", ["category:pages", "tag:t:{id}", "pattern:user:{id}", "aurelis:v1:key:{id}"]
                )
                await invalidator.invalidate_on_event("happened", {"id": 7})

        asyncio.run(main())
    """
    calls = 0
    async with UnifiedCacheManager(configuration(redis_url=redis_url, timeout=10)) as cache:

        @cached(invalidate_on=["happened"], cache=cache)
        async def page() -> int:
            nonlocal calls
            calls += 1
            return calls

        await page()
        await cache.set("pages", "1", 1)
        await cache.set("tagged", "1", 1, tags=["t:7"])
        await cache.set("user", "7", 1, params={"page": 1})
        await cache.set("key", "7", 1)
        await cache.set("user", "8", 1)
        await asyncio.to_thread(run_script, source, redis_url)

        async def gone() -> bool:
            values = [
                await cache.get("pages", "1"),
                await cache.get("tagged", "1"),
                await cache.get("user", "7", {"page": 1}),
                await cache.get("key", "7"),
            ]
            return values == [None] * 4

        for _ in range(5000):
            if await gone():
                break
            await asyncio.sleep(0.001)
        assert await gone()
        assert await page() == 2
        assert await cache.get("user", "8") == 1


# --- when a layer does not answer


@pytest.mark.parametrize(
    ("target", "gone_below"),
    [
        ("category:user", {"user 7", "user 8"}),
        ("tag:t", {"user 7"}),
        ("aurelis:v1:user:7", {"user 7"}),
        ("pattern:user:7", {"user 7", "user 8"}),
        ("pattern:use*:7", {"user 7", "user 8", "page 1"}),
        ("pattern:%FF:7", {"user 7", "user 8", "page 1"}),
    ],
)
async def test_an_event_does_not_fail_and_is_told_later(target: str, gone_below: set[str]) -> None:
    """A pattern that could not be looked for has taken all with it that it may have meant."""
    shared = SharedMemory()
    chaos = Chaos()
    config = configuration(timeout=10, breaker_failures=1000)
    async with (
        CacheManager(config, lower=[ChaosSharedLayer(shared.node(), chaos)]) as manager,
        CacheManager(config, lower=[shared.node()]) as other,
    ):
        cache, elsewhere = UnifiedCacheManager(manager), UnifiedCacheManager(other)
        await cache.set("user", "7", 1, tags=["t"])
        await cache.set("user", "8", 1)
        await cache.set("page", "1", 1)
        invalidator = CacheInvalidator(cache)
        invalidator.register_invalidation_rule("event", [target])
        chaos.cut()
        await invalidator.invalidate_on_event("event")
        assert await cache.get("user", "7") is None or "%FF" in target
        chaos.heal()
        places = (("user", "7"), ("user", "8"), ("page", "1"))

        async def told() -> set[str]:
            return {" ".join(place) for place in places if await elsewhere.get(*place) is None}

        await eventually(lambda: not manager._engine.stack.recovery.pending)  # type: ignore[union-attr]  # there is one
        for _ in range(5000):
            if await told() == gone_below:
                break
            await asyncio.sleep(0.001)
        assert await told() == gone_below
