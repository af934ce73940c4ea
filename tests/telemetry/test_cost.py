"""What telemetry costs is measured against our own code without it, so that has to work as well."""

import httpx2
import pytest

from aurelis.cache import EntryOptions, cached
from aurelis.cache._engine import Engine
from aurelis.cache.telemetry import names
from aurelis_asgi import CacheMiddleware
from aurelis_httpx2 import AsyncCacheTransport
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import ask
from tests.benchmarks import telemetry_cost
from tests.managers import configuration, count, opened, run_script

COUNTED = (names.REQUESTS, names.STORES, names.REFRESHES, names.ERRORS, names.SAVED_TIME, names.SAVED_IO)
"""The hot paths of hits, misses and stores."""


async def value() -> str:
    """A load."""
    return "value"


async def use(redis_url: str, tmp_path: object) -> float:
    """Everything that is measured, with right answers; returns what was counted."""

    async def page(call: Call) -> None:
        await call.answer("page", cache_control="max-age=60")

    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"cache-control": "max-age=60"}, content=b"1"))
    counted = 0.0
    for options in ({}, {"redis_url": redis_url, "timeout": 10}, {"cache_dir": f"{tmp_path}/cache", "timeout": 10}):
        async with opened(configuration(**options)) as cache:
            await cache.set_many({"a": 1, "b": 2})
            for _ in range(2):
                assert await cache.get("a") == 1
                assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
                assert await cache.get_or_compute("k", value, options=EntryOptions(ttl=10)) == "value"
            await cache.delete("a")
            await cache.invalidate_tags("tag")
            assert await cache.get("a") is None
            with pytest.raises(LookupError):
                await cache.get_or_compute("fails", fails)
            function = cached(cache=cache)(value)
            assert [await function() for _ in range(2)] == ["value"] * 2
            app = CacheMiddleware(Origin(page), cache=cache)
            answers = [await ask(app, "/page") for _ in range(3)]
            assert ["hit" in answer.cache_status for answer in answers] == [False, True, True]
            async with httpx2.AsyncClient(transport=AsyncCacheTransport(inner, cache=cache)) as client:
                for _ in range(3):
                    answer = await client.get("http://example.com/")
                    assert answer.content == b"1"
                assert "hit" in answer.headers["cache-status"]
        counted += sum(count(cache, metric) for metric in COUNTED)
    return counted


async def fails() -> None:
    """A load that gives nothing."""
    raise LookupError


async def test_without_telemetry_everything_goes_on_and_nothing_is_counted(redis_url: str, tmp_path: object) -> None:
    with telemetry_cost.taken_out():
        assert await use(redis_url, tmp_path) == 0


async def test_and_otherwise_it_is(redis_url: str, tmp_path: object) -> None:
    assert await use(redis_url, tmp_path) > 30


async def test_the_hot_path_without_what_counts_gives_the_same() -> None:
    bare = telemetry_cost.compiled_out(Engine.read_memory, statements=4)
    async with opened() as cache:
        await cache.set("k", 1)
        assert bare(cache._engine, "k") == 1
        assert count(cache, names.REQUESTS) == 0
        assert await cache.get("k") == 1
        assert count(cache, names.REQUESTS) == 1


def test_with_telemetry_off_there_is_no_sdk() -> None:
    script = """
        import sys
        from tests.benchmarks import harness
        harness.leave_out_the_sdk()
        from tests.benchmarks import telemetry_cost
        try:
            import opentelemetry.sdk.metrics
        except ImportError:
            print(sorted(name for name in sys.modules if name.startswith("opentelemetry.sdk.")))
    """
    assert run_script(script) == "[]\n"
