"""What telemetry costs is measured against our own code without it, so that has to work as well."""

import httpx2
import pytest

import aurelis.cache._assembly
from aurelis.cache import EntryOptions
from aurelis.cache._engine import Engine
from aurelis.cache.telemetry import names
from aurelis_httpx2 import AsyncCacheTransport
from tests.benchmarks import telemetry_cost
from tests.managers import configuration, count, opened


async def value() -> str:
    """A load."""
    return "value"


async def test_without_telemetry_everything_goes_on_and_nothing_is_counted(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aurelis.cache._assembly, "Telemetry", telemetry_cost.Silent)
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"cache-control": "max-age=60"}, content=b"1"))
    async with opened(configuration(redis_url=redis_url, timeout=10)) as cache:
        await cache.set_many({"a": 1, "b": 2})
        assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        assert await cache.get_or_compute("k", value, options=EntryOptions(ttl=10)) == "value"
        await cache.delete("a")
        await cache.invalidate_tags("tag")
        assert await cache.get("a") is None
        async with httpx2.AsyncClient(transport=AsyncCacheTransport(inner, cache=cache)) as client:
            assert [(await client.get("http://example.com/")).content for _ in range(2)] == [b"1", b"1"]
        for metric in (names.STORES, names.SIZE, names.REFRESHES, names.ERRORS):
            assert count(cache, metric) == 0


async def test_the_hot_path_without_what_counts_gives_the_same() -> None:
    bare = telemetry_cost.compiled_out(Engine.read_memory, statements=4)
    async with opened() as cache:
        await cache.set("k", 1)
        assert bare(cache._engine, "k") == 1
        assert count(cache, names.REQUESTS) == 0
        assert await cache.get("k") == 1
        assert count(cache, names.REQUESTS) == 1
