"""Several processes share what is found: the index is in the cache itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis.asyncio

from aurelis.cache import CacheLayer, CacheManager, ModelResponseCache, SimilarityCache
from aurelis.cache.similarity._index import SLOTS
from aurelis.cache.similarity._vectors import packed, unit
from aurelis.cache.telemetry import names
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, SharedMemory
from tests.managers import WITHIN, configuration, count, fresh_name, run_script
from tests.similarity.test_cache import ASKED, PARIS, REASKED, ROME, Answer, Same, _words
from tests.test_at_rest import in_redis, on_disk


@dataclass
class Nodes:
    """Managers of one Redis, as of several processes."""

    managers: list[CacheManager]
    similar: list[SimilarityCache]

    def answers(self, number: int) -> ModelResponseCache:
        """Of one of them."""
        return ModelResponseCache(self.managers[number])


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[Nodes]:
    """Two of them."""
    namespace = fresh_name()
    async with AsyncExitStack() as stack:
        managers = [
            await stack.enter_async_context(
                CacheManager(configuration(types=[Answer], redis_url=redis_url, namespace=namespace, timeout=WITHIN))
            )
            for _ in range(2)
        ]
        similar = [await stack.enter_async_context(SimilarityCache(manager)) for manager in managers]
        yield Nodes(managers, similar)


async def test_what_one_stores_the_other_finds(nodes: Nodes) -> None:
    for word in _words(40):  # while the other one looks, so that its view is brought in line again and again
        await nodes.answers(0).cache_response("m", f"What is {word}?", {}, PARIS)
        assert await nodes.similar[1].find_similar_response(f"what is {word}", "m") == PARIS
    assert nodes.similar[1]._views.rows == 40


async def test_the_newer_answer_is_found_and_what_is_invalidated_is_not(nodes: Nodes) -> None:
    await nodes.answers(0).cache_response("m", ASKED, {}, ROME, tags=["t"])
    assert await nodes.similar[1].find_similar_response(REASKED, "m") == ROME
    await nodes.answers(0).cache_response("m", ASKED, {}, PARIS, tags=["t"])
    async with asyncio.timeout(20):
        while await nodes.similar[1].find_similar_response(REASKED, "m") != PARIS:
            await asyncio.sleep(0.01)
    await nodes.answers(0).invalidate_tags("t")
    async with asyncio.timeout(20):
        while await nodes.similar[1].find_similar_response(REASKED, "m") is not None:
            await asyncio.sleep(0.01)
    await nodes.answers(0).cache_response("m", ASKED, {}, PARIS)
    assert await nodes.similar[0].find_similar_response(REASKED, "m") == PARIS


async def test_both_storing_at_once_lose_little_and_serve_nothing_wrong(nodes: Nodes) -> None:
    prompts = [f"What is {word}?" for word in _words(60)]
    await asyncio.gather(
        *(
            nodes.answers(number % 2).cache_response("m", prompt, {}, Answer("success", prompt))
            for number, prompt in enumerate(prompts)
        )
    )
    for prompt in prompts:
        for similar in nodes.similar:
            found = await similar.find_similar_response(prompt.lower(), "m")
            assert found is None or found.text == prompt
    for number, similar in enumerate(nodes.similar):  # of its own each knows all, whatever was lost of the lists
        for prompt in prompts[number::2]:
            found = await similar.find_similar_response(prompt.lower(), "m")
            assert found is not None


async def test_another_process_finds_it_after_the_first_has_ended(redis_url: str) -> None:
    script = """
        import asyncio, sys
        from aurelis.cache import CacheConfig, CacheManager, ModelResponseCache, SimilarityCache
        from tests.similarity.test_cache import ASKED, PARIS, REASKED, Answer

        async def main(url, namespace, task):
            config = CacheConfig(redis_url=url, namespace=namespace, types=[Answer])
            async with CacheManager(config) as manager, SimilarityCache(manager) as similar:
                if task == "store":
                    await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
                else:
                    print((await similar.find_similar_response(REASKED, "m")).text)

        asyncio.run(main(*sys.argv[1:]))
    """
    namespace = fresh_name()
    assert await asyncio.to_thread(run_script, script, redis_url, namespace, "store") == ""
    assert await asyncio.to_thread(run_script, script, redis_url, namespace, "find") == "Paris\n"


async def test_the_store_holds_prompts_in_values_alone(redis_url: str) -> None:
    namespace, secret = fresh_name(), "Zanzibar"
    config = configuration(types=[Answer], redis_url=redis_url, namespace=namespace)
    async with CacheManager(config) as manager, SimilarityCache(manager, embedder=Same(), namespace="n") as similar:
        await ModelResponseCache(manager, namespace="n").cache_response("m", f"Where is {secret}?", {}, PARIS)
        await similar.find_similar_response(f"where is {secret}", "m")
        async with redis.asyncio.from_url(redis_url) as client:
            keys = [key async for key in client.scan_iter(f"*{namespace}*")]
            assert len(keys) > 4
            assert [key for key in keys if secret.lower().encode() in key.lower()] == []


@pytest.mark.parametrize("key", [None, bytes(range(32))], ids=["open", "encrypted"])
async def test_with_encryption_nothing_of_a_prompt_is_in_redis_or_on_the_disk(
    key: bytes | None, redis_url: str, tmp_path: Path
) -> None:
    options = {"redis_url": redis_url, "cache_dir": tmp_path, "encryption_key": key, "namespace": fresh_name()}
    planted = [b"planted-prompt", b"planted-asked", b"planted-answer", packed(unit([1.0, 0.0]))]
    config = configuration(types=[Answer], timeout=WITHIN, **options)
    async with (
        CacheManager(config) as manager,
        SimilarityCache(manager, embedder=Same(), mode="verified") as similar,
    ):
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", "Where is planted-prompt?", {}, Answer("success", "planted-answer"))
        assert await similar.find_similar_response("Please: where is planted-prompt", "m") is None
        await similar.find_similar_response("What is planted-asked?", "m")
        await answers.cache_response("m", "Please: where is planted-prompt", {}, PARIS)
        await similar.settle()
        stored = in_redis(redis_url)
    stored += on_disk(tmp_path)
    assert len(stored) > 2000
    # What was asked and not answered is nowhere: of that there is a vector alone.
    assert [one for one in planted if one in stored] == ([] if key else [planted[0], *planted[2:]])


@pytest.mark.parametrize("topology", ["server", "cluster"])
async def test_it_needs_no_memory_layer_and_no_single_server(topology: str, topology_url: Callable[[str], str]) -> None:
    layers = [CacheLayer("shared", "redis", ttl=3600)]
    url = topology_url(topology)
    config = configuration(types=[Answer], redis_url=url, namespace=fresh_name(), timeout=WITHIN, layers=layers)
    async with CacheManager(config) as manager, SimilarityCache(manager, embedder=Same()) as similar:
        for word in _words(20):
            await ModelResponseCache(manager).cache_response("m", f"What is {word} in C?", {}, PARIS)
        assert await similar.find_similar_response("what's bbbbbbbo in c", "m") == PARIS
        assert similar._views.rows == 20


@pytest.mark.parametrize("faults", [Faults(fail=1.0), Faults(hang=1.0), Faults(fail=0.5, fail_after=0.3)])
async def test_when_the_shared_layer_fails_the_model_is_asked(faults: Faults) -> None:
    chaos = Chaos(seed=3)
    layer = ChaosSharedLayer(SharedMemory(types=[Answer]).node(), chaos)
    config = configuration(types=[Answer], timeout=0.02)
    async with CacheManager(config, lower=[layer]) as manager, SimilarityCache(manager) as similar:
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        chaos.faults = faults

        async def ask() -> Answer:
            return PARIS

        for number in range(10):
            assert await similar.get_or_compute("m", REASKED + " " * number, {}, ask) == PARIS
        chaos.faults = Faults()


async def test_a_list_that_is_none_is_empty(nodes: Nodes) -> None:
    await nodes.answers(0).cache_response("m", ASKED, {}, PARIS)
    index = nodes.similar[0]._index
    partition = nodes.similar[0]._asked(ASKED, "m", None, None).partition
    for wrong in ("text", b"abc", None, [b"x" * 16]):
        for slot in range(SLOTS):
            await nodes.managers[0].set(index._slot_key(partition, slot), wrong)
        assert await nodes.similar[0].find_similar_response("Please: " + REASKED, "m") in (None, PARIS)
    assert count(nodes.managers[0], names.ERRORS) == 0
