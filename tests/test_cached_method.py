"""`cached_method`: methods cached by who is asked and how."""

import asyncio
import copy
import gc
import inspect
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from aurelis.cache import CacheManager, UnifiedCacheManager, cached_method, set_cache_manager
from aurelis.cache._identities import Identities
from aurelis.cache.exceptions import ConfigurationError, UnkeyableError
from tests.managers import opened, requests, run_script


@pytest.fixture(autouse=True)
async def cache() -> AsyncIterator[CacheManager]:
    """The process's cache, in memory."""
    async with opened() as manager:
        set_cache_manager(manager)
        yield manager
        set_cache_manager(None)


class Plain:
    """Each instance is another one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    @cached_method()
    async def read(self, number: int = 1) -> str:
        """Reads."""
        self.calls += 1
        return f"{self.name} {number}"

    @cached_method(ttl=600, category="plain", tags=["tag"], invalidate_on=["event"], ignore=["session"])
    def blocking(self, number: int, session: object = None) -> str:
        """Reads, too."""
        self.calls += 1
        return f"{self.name} {number}"


class Tenant:
    """Instances are the same if their attributes are."""

    def __init__(self, tenant: object, region: str = "eu") -> None:
        self.tenant = tenant
        self.region = region

    @cached_method(identity="tenant")
    async def by_attribute(self, number: int) -> int:
        return next(counter)

    @cached_method(identity=lambda self: (self.tenant, self.region))
    async def by_function(self, number: int) -> int:
        return next(counter)

    @cached_method(key_func=lambda self, number: f"{self.tenant}:{number}")
    async def by_key(self, number: int) -> int:
        return next(counter)


class Special(Tenant):
    """Inherits the methods, and is another class."""


class Of:
    """Methods of the class."""

    calls = 0

    @cached_method()
    @classmethod
    async def named(cls, number: int) -> str:
        """Of the class."""
        Of.calls += 1
        return f"{cls.__name__} {number}"

    @classmethod
    @cached_method()
    async def other_order(cls, number: int) -> str:
        Of.calls += 1
        return f"{cls.__name__} {number}"

    @cached_method()
    @classmethod
    def blocking(cls, number: int) -> str:
        Of.calls += 1
        return f"{cls.__name__} {number}"

    @cached_method()
    @staticmethod
    async def static(number: int) -> int:
        Of.calls += 1
        return number


class Derived(Of):
    """Another class."""


counter = iter(range(1, 10_000))


async def test_each_instance_has_results_of_its_own() -> None:
    one, two = Plain("one"), Plain("two")
    assert [await one.read(), await one.read(1), await two.read(), await one.read(number=2)] == [
        "one 1",
        "one 1",
        "two 1",
        "one 2",
    ]
    assert (one.calls, two.calls) == (2, 1)


async def test_equal_instances_are_not_the_same() -> None:
    """What compares equal may still be told apart, and an address may have a second owner."""

    @dataclass
    class Equal:
        name: str

        @cached_method()
        async def read(self) -> int:
            return next(counter)

    one, two = Equal("same"), Equal("same")
    assert one == two
    first = await one.read()
    assert await two.read() != first
    assert await one.read() == first
    assert await copy.copy(one).read() != first


async def test_an_address_that_is_used_again_is_nobody_else() -> None:
    seen = set()
    for number in range(200):
        instance = Plain(str(number))
        seen.add(await instance.read())
        del instance
    assert len(seen) == 200


async def test_nothing_is_kept_of_instances_that_are_gone() -> None:
    identities = Identities(None)
    kept = Plain("kept")
    token = identities.of(kept)
    for _ in range(100):
        identities.of(Plain("gone"))
    gc.collect()
    assert len(identities._known) == 1
    assert identities.of(kept) == token


async def test_a_declared_identity_makes_instances_the_same() -> None:
    first = await Tenant("a").by_attribute(1)
    assert await Tenant("a", "us").by_attribute(1) == first
    assert await Tenant("b").by_attribute(1) != first
    assert await Tenant("a").by_attribute(2) != first
    assert await Special("a").by_attribute(1) != first
    second = await Tenant("a").by_function(1)
    assert await Tenant("a").by_function(1) == second
    assert await Tenant("a", "us").by_function(1) != second


async def test_identities_are_told_apart_by_type() -> None:
    results = [await Tenant(tenant).by_attribute(1) for tenant in (1, True, 1.0, "1", (1,), [1], None)]
    assert len(set(results)) == 7
    assert [await Tenant(tenant).by_attribute(1) for tenant in (1, True, 1.0, "1", (1,), [1], None)] == results


async def test_a_declared_identity_is_the_same_in_every_process(redis_url: str) -> None:
    source = """
        import asyncio, sys
        from aurelis.cache import CacheConfig, CacheManager, cached_method

        cache = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10))

        class Service:
            def __init__(self, tenant): self.tenant = tenant

            @cached_method(identity="tenant", cache=cache)
            async def declared(self): print("declared")

            @cached_method(cache=cache)
            async def own(self): print("own")

            @cached_method(cache=cache)
            @classmethod
            async def of_class(cls): print("class")

        async def main() -> None:
            async with cache:
                service = Service("a")
                for _ in range(2):
                    await service.declared(), await service.own(), await Service.of_class()

        asyncio.run(main())
    """
    outputs = [run_script(source, redis_url, PYTHONHASHSEED=seed) for seed in "12"]
    assert outputs == ["declared\nown\nclass\n", "own\n"]


def test_a_forked_child_has_instances_of_its_own() -> None:
    identities = Identities(None)
    instance = Plain("one")
    before = identities.of(instance)
    identities.after_fork()
    assert identities.of(instance) != before


async def test_one_call_can_be_invalidated_refreshed_and_named(cache: CacheManager) -> None:
    one, two = Plain("one"), Plain("two")
    await one.read(), await two.read()
    assert await one.read.invalidate()
    await one.read(), await two.read()
    assert (one.calls, two.calls) == (2, 1)
    one.name = "other"
    assert await one.read.refresh() == "other 1"
    assert await cache.get(one.read.key_for(1)) == "other 1"
    assert one.read.key_for() != two.read.key_for()
    assert Plain.read.key_for(one) == one.read.key_for()
    assert await Plain.read(one) == "other 1"
    assert await Plain.read.invalidate(self=one)


async def test_blocking_methods_have_the_same(cache: CacheManager) -> None:
    one, two = Plain("one"), Plain("two")
    assert [one.blocking(1), one.blocking(1, object()), two.blocking(1, session=object())] == [
        "one 1",
        "one 1",
        "two 1",
    ]
    assert (one.calls, two.calls) == (1, 1)
    assert one.blocking.invalidate(1)
    assert one.blocking.refresh(1) == "one 1"
    assert one.calls == 2
    for tag in ("tag", "event"):
        await cache.invalidate_tags(tag)
        one.blocking(1)
    assert one.calls == 4
    await UnifiedCacheManager(cache).invalidate_category("plain")
    one.blocking(1)
    assert one.calls == 5


async def test_class_methods_belong_to_their_class() -> None:
    Of.calls = 0
    for _ in range(2):
        assert await Of.named(1) == "Of 1"
        assert await Derived.named(1) == "Derived 1"
        assert await Of().named(1) == "Of 1"
        assert await Of.other_order(1) == "Of 1"
        assert await Derived.other_order(1) == "Derived 1"
        assert Of.blocking(1) == "Of 1"
    assert Of.calls == 5
    assert await Of.named.invalidate(1)
    assert not await Of.named.invalidate(1)
    assert await Derived.named.invalidate(1)
    assert Of.named.key_for(1) != Derived.named.key_for(1)


async def test_classes_that_cannot_be_found_by_name_are_each_their_own() -> None:
    def make(value: int) -> Any:
        class Local:
            held = str(value)

            @cached_method()
            @classmethod
            async def read(cls) -> str:
                return cls.held

        return Local

    assert [await make(1).read(), await make(2).read()] == ["1", "2"]


async def test_static_methods_have_no_instance() -> None:
    Of.calls = 0
    assert [await Of.static(1), await Derived.static(1), await Of().static(1)] == [1, 1, 1]  # type: ignore[call-arg]
    assert Of.calls == 1
    assert await Of.static.invalidate(1)


async def test_a_key_function_is_given_the_instance(cache: CacheManager) -> None:
    first = await Tenant("a").by_key(1)
    assert await Tenant("a").by_key(1) == first
    assert await UnifiedCacheManager(cache).get("function", "a:1") == first


async def test_methods_look_like_themselves() -> None:
    one = Plain("one")
    assert one.read.__name__ == Plain.read.__name__ == "read"
    assert Plain.read.__doc__ == "Reads."
    assert str(inspect.signature(one.read)) == "(number: int = 1) -> str"
    assert str(inspect.signature(Plain.read)) == "(self, number: int = 1) -> str"
    assert inspect.iscoroutinefunction(one.read)
    assert not inspect.iscoroutinefunction(one.blocking)
    assert inspect.iscoroutinefunction(Of.named)
    assert one.read.__self__ is one  # type: ignore[attr-defined]  # of bound methods


@cached_method()
async def apart(instance: Plain, number: int) -> str:
    """In no class."""
    return f"{instance.name} {number} {next(counter)}"


async def test_it_need_not_be_in_a_class() -> None:
    one, two = Plain("one"), Plain("two")
    first = await apart(one, 1)
    assert await apart(one, 1) == first
    assert await apart(two, 1) != first


async def test_concurrent_calls_share_one(cache: CacheManager) -> None:
    one = Plain("one")
    assert await asyncio.gather(*(one.read() for _ in range(50))) == ["one 1"] * 50
    assert requests(cache) == {"miss": 50, "loads": 1}


def test_threads_agree_on_an_instance() -> None:
    identities = Identities(None)
    instance = Plain("one")
    barrier = threading.Barrier(8)
    tokens = []

    def look() -> None:
        barrier.wait()
        tokens.append(identities.of(instance))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tokens)) == 1


async def test_an_instance_without_weak_references_needs_an_identity() -> None:
    class Slotted:
        __slots__ = ("name",)

        @cached_method()
        async def read(self) -> None: ...

    with pytest.raises(UnkeyableError, match=r"self of type .*Slotted: .*weak reference.*identity='name'"):
        await Slotted().read()


async def test_an_identity_that_cannot_be_keyed_is_named() -> None:
    with pytest.raises(UnkeyableError, match=r"the identity of self of type object: it must be plain data"):
        await Tenant(object()).by_attribute(1)
    with pytest.raises(UnkeyableError, match=r"the identity of self\[0\]"):
        await Tenant(object()).by_function(1)
    with pytest.raises(UnkeyableError, match=r"from number of type object"):
        await Tenant(1).by_attribute(object())  # type: ignore[arg-type]  # that is the point


def test_wrong_use_is_refused_where_it_is_written() -> None:
    async def nothing() -> None: ...

    wrong: Any = cached_method()
    with pytest.raises(ConfigurationError, match="has no parameter for the instance"):
        wrong(nothing)
    with pytest.raises(ConfigurationError, match=r"write @cached_method\(\)"):
        cached_method(nothing)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigurationError, match="name of an attribute or a function"):
        cached_method(identity=7)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ConfigurationError, match="identity has nothing to say"):
        cached_method(identity="a", key_func=str)
    identified: Any = cached_method(identity="a")
    with pytest.raises(ConfigurationError, match="static method has no instance"):
        identified(staticmethod(nothing))
    with pytest.raises(ConfigurationError, match="no such parameter; it has number"):

        class Service:
            @cached_method(ignore=["self"])
            async def read(self, number: int) -> None: ...
