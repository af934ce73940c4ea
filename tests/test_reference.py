"""The reference interface: each name does what it is for, called as the reference calls it.

The finer points of each are tested elsewhere; `docs/reference.md` says where.
"""

import hashlib
import json
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aurelis.cache import (
    CacheConfig,
    CacheInvalidator,
    CacheKeyBuilder,
    CacheLayer,
    CacheManager,
    CacheMetrics,
    CacheMonitor,
    CacheStats,
    DiskBackend,
    FileCacheManager,
    MemoryBackend,
    RedisBackend,
    UnifiedCacheManager,
    cached,
    cached_method,
    get_cache_manager,
    set_cache_manager,
)
from tests.managers import configuration, own_counts

PATIENT = 5.0
Backend = MemoryBackend | RedisBackend | DiskBackend


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """The process's manager and its counts are the test's own."""
    with own_counts():
        before = set_cache_manager(UnifiedCacheManager(configuration()))
        yield
        set_cache_manager(before)


@pytest.fixture(params=["memory", "redis", "disk"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Each backend, made as the reference makes it."""
    made: Backend
    if request.param == "memory":
        made = MemoryBackend(max_size=1000, ttl=3600)
    elif request.param == "redis":
        made = RedisBackend(CacheConfig(redis_url=request.getfixturevalue("redis_url"), timeout=PATIENT))
        await made.connect()
    else:
        made = DiskBackend(cache_dir=str(tmp_path / "cache"), max_size=1000)
    yield made
    await made.aclose()


# --- architecture


def test_a_layer_has_the_fields_of_the_reference() -> None:
    layer = CacheLayer("L1_memory", "memory", ttl=300, max_size=1000, priority=3)
    assert (layer.name, layer.backend, layer.ttl, layer.max_size, layer.priority) == (
        "L1_memory",
        "memory",
        300,
        1000,
        3,
    )
    assert (CacheLayer("a", "memory", 1).max_size, CacheLayer("a", "memory", 1).priority) == (None, 0)


async def test_a_manager_asks_its_layers_by_priority(redis_url: str, tmp_path: Path) -> None:
    config = configuration(
        redis_url=redis_url,
        cache_dir=tmp_path / "cache",
        timeout=PATIENT,
        layers=[
            CacheLayer("L3_disk", "disk", ttl=86400, priority=1),
            CacheLayer("L1_memory", "memory", ttl=300, max_size=1000, priority=3),
            CacheLayer("L2_redis", "redis", ttl=3600, priority=2),
        ],
    )
    async with CacheManager(config) as cache:
        assert cache.config is config
        assert [layer.name for layer in cache.config.effective_layers()] == ["L1_memory", "L2_redis", "L3_disk"]
        assert await cache.set("k", {"a": 1})
        assert await cache.get("k") == {"a": 1}
        assert await cache.delete("k")
        assert await cache.get("k") is None
        layers = CacheStats(cache).detailed_stats
        assert (layers["l1"].hits, layers["l2"].hits, layers["l3"].hits) == (1, 0, 0)


def test_a_key_names_its_parts_in_order() -> None:
    builder = CacheKeyBuilder()
    assert builder.namespace == "aurelis"
    assert builder.build_key("user_data", "user123") == "aurelis:v1:user_data:user123"
    assert builder.build_key("user_data", "user123", None, "v2") == "aurelis:v2:user_data:user123"
    with_params = builder.build_key("search", "q", {"page": 1, "limit": 10})
    assert with_params == builder.build_key("search", "q", params={"limit": 10, "page": 1})
    assert with_params.startswith("aurelis:v1:search:q:")
    assert len(with_params.rpartition(":")[2]) * 4 >= 128  # bits


def test_the_key_of_a_model_call_hides_the_prompt() -> None:
    key = CacheKeyBuilder("shop").build_model_key("gpt-4o", "the prompt", {"temperature": 0})
    assert key.startswith("shop:v1:model:")
    assert "gpt-4o" in key
    assert "prompt" not in key
    assert key != CacheKeyBuilder("shop").build_model_key("gpt-4o", "the prompt", {"temperature": 1})


# --- backends


async def test_a_backend_gives_what_was_set(backend: Backend) -> None:
    assert await backend.get("k") is None
    assert await backend.set("k", {"rows": [1, "two", None]}) is True
    assert await backend.get("k") == {"rows": [1, "two", None]}
    assert await backend.set("k", "other", 60) is True
    assert await backend.get("k") == "other"
    assert await backend.set("k", "last", ttl=math.inf) is True
    assert await backend.get("k") == "last"


async def test_a_backend_forgets_a_key(backend: Backend) -> None:
    await backend.set("k", 1)
    assert await backend.delete("k") is True
    assert await backend.delete("k") is False
    assert await backend.get("k") is None


async def test_a_backend_forgets_everything(backend: Backend) -> None:
    await backend.set("a", 1)
    await backend.set("b", 2)
    assert await backend.clear() is True
    assert (await backend.get("a"), await backend.get("b")) == (None, None)


async def test_redis_can_be_connected_before_it_is_needed(redis_url: str) -> None:
    backend = RedisBackend(CacheConfig(redis_url=redis_url, timeout=PATIENT))
    await backend.connect()
    await backend.connect()
    await backend.aclose()


# --- managers


async def test_a_value_is_got_by_category_and_identifier() -> None:
    cache = get_cache_manager()
    assert cache is get_cache_manager()
    assert await cache.set("user_data", "user123", {"name": "John", "role": "developer"}, ttl=3600) is True
    assert await cache.get("user_data", "user123") == {"name": "John", "role": "developer"}
    assert await cache.get("user_data", "user124") is None
    await cache.set("search_results", "query123", ["found"], params={"page": 1, "limit": 10}, ttl=1800)
    assert await cache.get("search_results", "query123", {"limit": 10, "page": 1}) == ["found"]
    assert await cache.get("search_results", "query123") is None
    await cache.aclose()


async def test_a_unified_manager_takes_a_configuration_and_builds_keys() -> None:
    async with UnifiedCacheManager(configuration(namespace="shop")) as cache:
        assert cache.key_builder.build_key("a", "b") == "shop:v1:a:b"
        await cache.set("a", "b", 1, 60, {"page": 1})
        assert await cache.get("a", "b", {"page": 1}) == 1


async def test_an_identifier_a_category_or_a_pattern_is_invalidated() -> None:
    async with UnifiedCacheManager(configuration()) as cache:
        places = [("user", "17", None), ("user", "17", {"page": 1}), ("user", "18", None), ("order", "17", None)]

        async def filled() -> None:
            for category, identifier, params in places:
                await cache.set(category, identifier, 1, params=params)

        async def left() -> list[bool]:
            return [await cache.get(*place) is not None for place in places]

        await filled()
        await cache.invalidate("user", "17")
        assert await left() == [False, False, True, True]
        await filled()
        await cache.invalidate("user")
        assert await left() == [False, False, False, True]
        await filled()
        await cache.invalidate(pattern="user:1*")
        assert await left() == [False, False, False, True]


# --- decorators


async def test_a_function_is_cached_by_its_arguments() -> None:
    calls = []

    @cached(ttl=3600, category="model_responses")
    async def get_model_response(model_type: str, prompt: str) -> str:
        """Cached model response function"""
        calls.append((model_type, prompt))
        return f"{model_type}: {prompt}"

    @cached(ttl=1800, key_func=lambda user_id, options: f"user:{user_id}:{sorted(options.items())}")
    async def get_user_data(user_id: str, options: dict[str, int]) -> str:
        calls.append((user_id, ""))
        return user_id

    for _ in range(2):
        assert await get_model_response("gpt-4o", "hello") == "gpt-4o: hello"
        assert await get_user_data("17", {"a": 1}) == "17"
    assert calls == [("gpt-4o", "hello"), ("17", "")]
    await get_cache_manager().aclose()


async def test_a_method_is_cached_until_an_event_that_it_names() -> None:
    class ModelService:
        """Service with cached methods"""

        def __init__(self) -> None:
            self.loads: list[str] = []

        @cached_method(ttl=3600, category="models")
        async def get_model_info(self, model_type: str) -> dict[str, str]:
            self.loads.append(f"info {model_type}")
            return {"type": model_type}

        @cached_method(ttl=600, invalidate_on=["model_config_updated"])
        async def get_model_config(self, model_type: str) -> str:
            self.loads.append(f"config {model_type}")
            return model_type

    service = ModelService()

    async def use() -> None:
        assert await service.get_model_info("gpt-4o") == {"type": "gpt-4o"}
        assert await service.get_model_config("gpt-4o") == "gpt-4o"

    await use()
    await use()
    assert service.loads == ["info gpt-4o", "config gpt-4o"]
    await CacheInvalidator(get_cache_manager()).invalidate_on_event("model_config_updated")
    await use()
    assert service.loads == ["info gpt-4o", "config gpt-4o", "config gpt-4o"]
    await get_cache_manager().aclose()


# --- files


async def test_a_file_is_cached_by_its_content(tmp_path: Path) -> None:
    files = FileCacheManager(cache_dir=str(tmp_path / "file_cache"))
    source = tmp_path / "source.txt"
    source.write_text("content")
    cache_key = await files.cache_file(str(source), category="files")
    digest = hashlib.sha256(b"content").hexdigest()
    assert cache_key == f"files:{digest}"
    assert await files.get_cached_file(cache_key) == tmp_path / "file_cache" / "files" / f"{digest}.cache"
    assert await files.get_cached_file(f"files:{'0' * 64}") is None


# --- invalidation


async def test_rules_say_what_an_event_invalidates() -> None:
    cache_manager = get_cache_manager()
    invalidator = CacheInvalidator(cache_manager)
    invalidator.register_invalidation_rule(
        trigger="model_updated", targets=["category:model_responses", "pattern:model_info:{model_type}"]
    )
    invalidator.register_invalidation_rule(trigger="user_settings_changed", targets=["pattern:user_data:{user_id}"])
    places = [("model_responses", "a"), ("model_info", "gpt-4o"), ("model_info", "gpt-4o-mini"), ("user_data", "7")]
    for category, identifier in places:
        await cache_manager.set(category, identifier, 1)

    await invalidator.invalidate_on_event("model_updated", context={"model_type": "gpt-4o"})
    assert [await cache_manager.get(*place) for place in places] == [None, None, 1, 1]
    await invalidator.invalidate_on_event("user_settings_changed", context={"user_id": "7"})
    assert [await cache_manager.get(*place) for place in places] == [None, None, 1, None]
    await cache_manager.aclose()


# --- monitoring


def test_metrics_have_the_fields_and_defaults_of_the_reference() -> None:
    assert CacheMetrics() == CacheMetrics(
        hits=0,
        misses=0,
        writes=0,
        deletes=0,
        errors=0,
        total_requests=0,
        hit_rate=0.0,
        average_response_time=0.0,
        cache_size=0,
        memory_usage=0,
    )


async def test_what_is_recorded_is_in_the_report() -> None:
    stats = CacheStats()
    await stats.record_hit()
    await stats.record_hit("redis")
    await stats.record_hit("redis")
    await stats.record_miss()
    assert (stats.metrics.hits, stats.metrics.misses, stats.metrics.total_requests) == (3, 1, 4)
    assert (stats.detailed_stats["default"].hits, stats.detailed_stats["default"].misses) == (1, 1)
    assert stats.detailed_stats["redis"].hits == 2
    report = stats.get_performance_report()
    assert report["overall_metrics"]["hits"] == 3
    assert report["backend_metrics"]["redis"]["hits"] == 2
    assert report["performance_summary"] == {
        "hit_rate_percentage": 75.0,
        "total_requests": 4,
        "cache_efficiency": "Needs Improvement",
    }


async def test_a_monitor_is_used_as_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    cache_manager = get_cache_manager()
    await cache_manager.set("a", "b", 1)
    await cache_manager.get("a", "b")

    monitor = CacheMonitor(cache_manager)
    stats = await monitor.get_current_stats()
    print(f"Hit rate: {stats.hit_rate * 100:.2f}%")  # noqa: T201  # as in the reference
    print(f"Total requests: {stats.total_requests}")  # noqa: T201
    report = monitor.get_performance_report()
    print(json.dumps(report, indent=2))  # noqa: T201

    hit_rate, total, rest = capsys.readouterr().out.split("\n", 2)
    assert (hit_rate, total) == ("Hit rate: 100.00%", "Total requests: 1")
    assert json.loads(rest) == report
    await cache_manager.aclose()
