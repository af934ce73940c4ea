"""`SimilarityCache`: finds what `ModelResponseCache` stored, for a prompt that says the same; and nothing else."""

import asyncio
import contextvars
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from aurelis.cache import (
    CacheConfig,
    CacheManager,
    CacheWarmer,
    EntryOptions,
    ModelResponseCache,
    SimilarityCache,
    UnifiedCacheManager,
    get_cache_manager,
    set_cache_manager,
)
from aurelis.cache._canonical import digest
from aurelis.cache.exceptions import ConfigurationError, UnkeyableError
from aurelis.cache.similarity._index import _row, name_of
from aurelis.cache.similarity._shelf import Shelved
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, count, eventually, opened, requests, run_script, series
from tests.similarity.pairs import DIFFERENT, IN_OTHER_WORDS, REWORDED


@dataclass(frozen=True)
class Answer:
    """An answer of an app."""

    status: str
    text: str = ""


ASKED, REASKED = "What is the capital of France?", "what's the capital of france"
PARIS, ROME = Answer("success", "Paris"), Answer("success", "Rome")


class Same:
    """An embedder to which all texts are the same, but for those that it is told to be at an angle."""

    def __init__(self, **angles: float) -> None:
        self.name = "same"
        self.angles = angles
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.asked += texts
        angles = [next((angle for word, angle in self.angles.items() if word in text), 0.0) for text in texts]
        return [[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in angles]


def kept(**options: Any) -> CacheConfig:
    """A configuration that can store answers."""
    return configuration(types=[Answer], **options)


@pytest.fixture
async def manager() -> AsyncIterator[CacheManager]:
    """A cache in memory."""
    async with opened(kept()) as manager:
        yield manager


@pytest.fixture
async def similar(manager: CacheManager) -> AsyncIterator[SimilarityCache]:
    """With all as it comes."""
    async with SimilarityCache(manager) as similar:
        yield similar


def results(manager: CacheManager) -> dict[str, int]:
    """How searches ended."""
    found = series(manager, names.SIMILARITY_LOOKUPS)
    return {dict(attributes)[names.SIMILARITY_RESULT]: int(value) for attributes, value in found.items()}


def verdicts(manager: CacheManager) -> dict[str, int]:
    """What comparisons said."""
    found = series(manager, names.SIMILARITY_VERDICTS)
    return {dict(attributes)[names.VERDICT]: int(value) for attributes, value in found.items() if value}


# --- finding


async def test_the_answer_to_the_very_prompt_comes_first(manager: CacheManager, similar: SimilarityCache) -> None:
    answers = ModelResponseCache(manager)
    await answers.cache_response("m", REASKED, {}, ROME)
    await answers.cache_response("m", ASKED, {}, PARIS)
    match = await similar.find_match(ASKED, "m")
    assert match is not None
    assert (match.response, match.similarity, match.exact) == (PARIS, 1.0, True)
    assert results(manager) == {}


async def test_a_prompt_that_says_the_same_has_its_answer(manager: CacheManager, similar: SimilarityCache) -> None:
    await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
    assert await similar.find_similar_response(REASKED, "m") == PARIS
    match = await similar.find_match(REASKED, "m", {})
    assert match is not None
    assert not match.exact
    assert 0.85 <= match.similarity <= 1
    assert results(manager) == {"hit": 2}
    assert requests(manager) == {"miss": 2, "loads": 2}  # the index asks nothing on its own account


@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=name) for name, a, b in REWORDED])
async def test_rewordings_hit(manager: CacheManager, similar: SimilarityCache, one: str, other: str) -> None:
    await ModelResponseCache(manager).cache_response("m", one, {}, PARIS)
    assert await similar.find_similar_response(other, "m") == PARIS


@pytest.mark.parametrize("embedder", [None, Same()], ids=["letters", "vectors"])
async def test_what_asks_something_else_never_hits(manager: CacheManager, embedder: Same | None) -> None:
    """At a threshold that lets all through, and with an embedder to which all is the same."""
    async with SimilarityCache(manager, 0.01, embedder=embedder) as similar:
        answers = ModelResponseCache(manager)
        for name, one, other in DIFFERENT:
            await answers.cache_response("m", one, {"pair": name}, PARIS)
            assert await similar.find_similar_response(other, "m", {"pair": name}) is None, name
        assert set(results(manager)) <= {"refused", "none"}  # `none`: the zero width of letters is not comparable


async def test_other_words_hit_with_an_embedder(manager: CacheManager) -> None:
    async with SimilarityCache(manager, embedder=Same()) as similar:
        answers = ModelResponseCache(manager)
        for name, one, other in IN_OTHER_WORDS:
            await answers.cache_response("m", one, {"pair": name}, PARIS)
            assert await similar.find_similar_response(other, "m", {"pair": name}) == PARIS, name


async def test_the_most_similar_of_several_is_given(manager: CacheManager) -> None:
    embedder = Same(password=10, lock=30, forgot=13)
    async with SimilarityCache(manager, 0.5, embedder=embedder) as similar:
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", "For which purposes would somebody use such a lock?", {}, ROME)
        await answers.cache_response("m", "How do I reset my password?", {}, PARIS)
        match = await similar.find_match("I forgot mine, what can be done to set a new one?", "m")
        assert match is not None
        assert match.response == PARIS
        assert match.similarity == pytest.approx(math.cos(math.radians(3)))


async def test_what_is_less_similar_than_the_threshold_is_not_given(manager: CacheManager) -> None:
    _, one, other = IN_OTHER_WORDS[0]
    for threshold, found in ((math.cos(math.radians(11)), PARIS), (math.cos(math.radians(9)), None)):
        async with SimilarityCache(manager, threshold, embedder=Same(forgot=10)) as similar:
            await ModelResponseCache(manager).cache_response("m", one, {}, PARIS)
            assert await similar.find_similar_response(other, "m") == found


async def test_usearch_finds_what_an_array_does(manager: CacheManager) -> None:
    async with SimilarityCache(manager, embedder=Same(forgot=3), index="usearch") as similar:
        answers = ModelResponseCache(manager)
        for number in range(50):
            await answers.cache_response("m", f"Question {number}", {}, ROME)
        await answers.cache_response("m", IN_OTHER_WORDS[0][1], {}, PARIS)
        assert await similar.find_similar_response(IN_OTHER_WORDS[0][2], "m") in (PARIS, None)
        assert await similar.find_similar_response("Please: question 7", "m") in (ROME, None)


async def test_it_knows_nothing_of_what_was_stored_before_it(manager: CacheManager) -> None:
    """Off by default: without one, nothing is listed."""
    await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
    assert [key for key in manager._engine._entries if "similar" in key] == []
    async with SimilarityCache(manager) as similar:
        assert await similar.find_similar_response(REASKED, "m") is None


async def test_answers_of_other_ways_are_found_too(manager: CacheManager, similar: SimilarityCache) -> None:
    answers = ModelResponseCache(manager)

    async def paris(*_: str) -> Answer:
        return PARIS

    await answers.get_or_compute("m", ASKED, {"way": 1}, paris)
    assert await similar.find_similar_response(REASKED, "m", {"way": 1}) == PARIS
    await CacheWarmer(manager, paris).warm_model_responses([ASKED], ["m"])
    assert await similar.find_similar_response(REASKED, "m") == PARIS


async def test_an_error_is_not_found(manager: CacheManager, similar: SimilarityCache) -> None:
    answers = ModelResponseCache(manager)

    async def fails() -> Answer:
        return Answer("error")

    await answers.cache_response("m", ASKED, {}, Answer("error"))
    await answers.get_or_compute("m", ASKED, {}, fails)
    assert await similar.find_similar_response(REASKED, "m") is None


# --- what must be equal


async def test_all_but_the_prompt_must_be_equal(manager: CacheManager, similar: SimilarityCache) -> None:
    parameters = {
        "temperature": 0,
        "system": "Be brief",
        "tools": ["a"],
        "messages": [{"role": "user", "content": "x"}],
    }
    await ModelResponseCache(manager).cache_response("m", ASKED, parameters, PARIS, provider="p")
    assert await similar.find_similar_response(REASKED, "m", dict(parameters), provider="p") == PARIS
    for model, other, provider in (
        ("n", parameters, "p"),
        ("m", parameters, None),
        ("m", parameters, "q"),
        ("m", None, "p"),
        ("m", {**parameters, "temperature": 0.0}, "p"),
        ("m", {**parameters, "system": "Be brief."}, "p"),
        ("m", {**parameters, "tools": []}, "p"),
        ("m", {**parameters, "messages": [{"role": "user", "content": "y"}]}, "p"),
    ):
        assert await similar.find_similar_response(REASKED, model, other, provider=provider) is None


async def test_namespaces_share_nothing(manager: CacheManager) -> None:
    tenant: contextvars.ContextVar[str | None] = contextvars.ContextVar("tenant", default=None)
    async with SimilarityCache(manager, namespace=tenant.get) as similar:
        for own, other in (("one", "two"), ("two", None), (None, "one")):
            tenant.set(own)
            answers = ModelResponseCache(manager, namespace=own)
            await answers.cache_response("m", ASKED, {"of": str(own)}, PARIS)
            assert await similar.find_similar_response(REASKED, "m", {"of": str(own)}) == PARIS
            tenant.set(other)
            assert await similar.find_similar_response(REASKED, "m", {"of": str(own)}) is None


@pytest.mark.parametrize("own", [None, "public"])
async def test_prompts_of_other_namespaces_are_not_sent_to_the_embedder(manager: CacheManager, own: str | None) -> None:
    embedder = Same()
    async with SimilarityCache(manager, embedder=embedder, namespace=own) as similar:
        await ModelResponseCache(manager, namespace="medical").cache_response("m", ASKED, {}, PARIS)
        assert embedder.asked == []
        assert similar._views.rows == 0
        await ModelResponseCache(manager, namespace=own).cache_response("m", ASKED, {}, PARIS)
        assert embedder.asked == [ASKED]


async def test_vectors_of_other_embedders_are_not_compared(manager: CacheManager) -> None:
    first, second = Same(), Same()
    second.name = "other"
    _, one, other = IN_OTHER_WORDS[0]
    async with SimilarityCache(manager, embedder=first):
        await ModelResponseCache(manager).cache_response("m", one, {}, PARIS)
    async with SimilarityCache(manager, embedder=second) as similar:
        assert await similar.find_similar_response(other, "m") is None


# --- what is gone


@pytest.mark.parametrize("way", ["model", "tag", "category", "clear", "delete", "expired", "namespace", "soft"])
async def test_what_is_gone_from_the_cache_is_not_served(way: str) -> None:
    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager, SimilarityCache(manager, namespace="n") as similar:
        answers = ModelResponseCache(manager, namespace="n")
        for _ in range(2):  # and it comes back when it is stored again
            await answers.cache_response("m", ASKED, {}, PARIS, ttl=60, tags=["geography"])
            assert await similar.find_similar_response(REASKED, "m") == PARIS
            if way == "model":
                await answers.invalidate_model_cache("m")
            elif way == "tag":
                await answers.invalidate_tags("geography")
            elif way == "category":
                await answers.clear()
            elif way == "clear":
                await manager.clear()
            elif way == "namespace":
                await answers.invalidate_namespace("n")
            elif way == "soft":  # it is there for exact calls that allow it, and nobody allows it here
                await answers.invalidate_model_cache("m", soft=True)
            elif way == "delete":
                place = answers.place("m", ASKED, {})
                await answers.cache.delete("model_responses", place.identifier)
            else:
                clock.advance(61)
            assert await similar.find_similar_response(REASKED, "m") is None
            assert similar._views.rows == 0


async def test_the_answer_is_the_present_one(manager: CacheManager, similar: SimilarityCache) -> None:
    answers = ModelResponseCache(manager)
    await answers.cache_response("m", ASKED, {}, ROME)
    assert await similar.find_similar_response(REASKED, "m") == ROME
    await answers.cache_response("m", ASKED, {}, PARIS)
    assert await similar.find_similar_response(REASKED, "m") == PARIS


# --- bounds


async def test_a_partition_keeps_so_many_prompts_and_the_oldest_go(manager: CacheManager) -> None:
    async with SimilarityCache(manager, max_entries=32) as similar:
        answers = ModelResponseCache(manager)
        prompts = [f"What is {word}?" for word in _words(200)]
        for prompt in prompts:
            await answers.cache_response("m", prompt, {}, PARIS)
        found = [prompt for prompt in prompts if await similar.find_similar_response("please " + prompt, "m")]
        assert 0 < len(found) <= 32
        assert prompts[-1] in found
        assert similar._views.rows <= 32


async def test_what_is_at_hand_is_bounded_in_bytes(manager: CacheManager) -> None:
    async with SimilarityCache(manager, max_bytes=20_000) as similar:
        answers = ModelResponseCache(manager)
        for number, word in enumerate(_words(100)):
            await answers.cache_response("m", f"What is {word}?", {"partition": number % 3}, PARIS)
            assert await similar.find_similar_response(f"what is {word}", "m", {"partition": number % 3}) == PARIS
            assert similar._views.size <= 20_000
        at_hand = {names.LAYER: names.SIMILARITY}
        assert count(manager, names.ENTRIES, at_hand) == similar._views.rows > 0
        assert count(manager, names.USAGE, at_hand) == similar._views.size
        assert count(manager, names.LIMIT, at_hand) == 20_000
        assert count(manager, names.EVICTIONS, at_hand) > 0


async def test_long_and_empty_prompts_are_not_compared(manager: CacheManager) -> None:
    async with SimilarityCache(manager, max_prompt=len(ASKED)) as similar:
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", "Please: " + ASKED, {}, PARIS)
        await answers.cache_response("m", "", {}, PARIS)
        assert await similar.find_similar_response(ASKED, "m") is None
        assert await similar.find_similar_response("Please, " + ASKED, "m") is None
        assert similar._views.rows == 0
        assert results(manager) == {"none": 1, "skipped": 1}


def _words(count: int) -> list[str]:
    """Words that share no letters at the same places, so that none is like another."""
    letters = "bcdfghjklmnpqrstvwxz"
    return [letters[n % 20] * 3 + letters[n // 20 % 20] * 4 + "o" for n in range(count)]


# --- get_or_compute


async def test_what_is_found_spares_the_model(manager: CacheManager, similar: SimilarityCache) -> None:
    asked: list[str] = []

    def asking(prompt: str) -> Callable[[], Any]:
        async def ask() -> Answer:
            asked.append(prompt)
            await asyncio.sleep(0)
            return PARIS

        return ask

    prompts = [ASKED] * 20
    await asyncio.gather(*(similar.get_or_compute("m", prompt, {}, asking(prompt)) for prompt in prompts))
    assert await similar.get_or_compute("m", REASKED, {}, asking(REASKED)) == PARIS
    assert asked == [ASKED]
    # What was found is not stored under the other prompt: likeness does not add up.
    assert await ModelResponseCache(manager).get_response("m", REASKED, {}) is None
    assert await similar.get_or_compute("m", "What was the capital of France?", {}, asking("was")) == PARIS
    assert asked == [ASKED, "was"]
    assert results(manager) == {"none": 1, "hit": 1, "refused": 1}


async def test_a_refresh_asks_the_model() -> None:
    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager, SimilarityCache(manager) as similar:
        options = EntryOptions(ttl=60, stale_if_error=600)

        async def paris() -> Answer:
            return PARIS

        async def rome() -> Answer:
            return ROME

        await similar.get_or_compute("m", ASKED, {}, rome, options=options)
        clock.advance(61)
        await ModelResponseCache(manager).cache_response("m", REASKED, {}, ROME)
        assert await similar.get_or_compute("m", ASKED, {}, paris, options=options) == PARIS


async def test_who_asks_after_an_invalidation_does_not_share_what_was_found_before(
    manager: CacheManager, similar: SimilarityCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, go_on, decide = asyncio.Event(), asyncio.Event(), similar._searching._decided

    async def decided(*arguments: Any) -> Any:
        result = await decide(*arguments)
        found.set()
        await go_on.wait()
        return result

    async def ask() -> Answer:
        return ROME

    monkeypatch.setattr(similar._searching, "_decided", decided)
    await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS, tags=["document"])
    before = asyncio.create_task(similar.get_or_compute("m", REASKED, {}, ask))
    await found.wait()
    await manager.invalidate_tags("document")
    after = asyncio.create_task(similar.get_or_compute("m", REASKED, {}, ask))
    await asyncio.sleep(0)
    go_on.set()
    await before
    assert await after == ROME


async def test_what_compute_raises_reaches_the_caller(similar: SimilarityCache) -> None:
    async def fails() -> Answer:
        raise ConnectionError("no")

    with pytest.raises(ConnectionError, match="no"):
        await similar.get_or_compute("m", ASKED, {}, fails)


# --- an embedder


async def test_each_text_is_embedded_once(manager: CacheManager) -> None:
    embedder = Same()
    async with SimilarityCache(manager, embedder=embedder) as similar:
        for model in "abc":
            assert await similar.find_similar_response(ASKED, model) is None
            await ModelResponseCache(manager).cache_response(model, ASKED, {}, PARIS)
            assert await similar.find_similar_response(REASKED, model) == PARIS
    assert embedder.asked == [ASKED, REASKED]


class Failing(Same):
    """An embedder that does what it should not."""

    def __init__(self, gives: Any) -> None:
        super().__init__()
        self.gives = gives

    async def embed(self, texts: Sequence[str]) -> Any:
        if isinstance(self.gives, BaseException):
            raise self.gives
        if self.gives == "nothing":
            await asyncio.Event().wait()
        return self.gives


@pytest.mark.parametrize(
    ("gives", "kind"),
    [
        (ConnectionError("secret"), "ConnectionError"),
        (asyncio.CancelledError(), "EmbeddingError"),  # of something that it waited for
        ("nothing", "TimeoutError"),
        ([], "EmbeddingError"),
        ([[1.0], [1.0]], "EmbeddingError"),
        ([[math.nan]], "EmbeddingError"),
        ([["a"]], "EmbeddingError"),
        (None, "TypeError"),
    ],
)
async def test_without_a_vector_the_model_is_asked(manager: CacheManager, gives: Any, kind: str) -> None:
    async with SimilarityCache(manager, embedder=Failing(gives), timeout=0.01) as similar:

        async def paris() -> Answer:
            return PARIS

        assert await similar.get_or_compute("m", ASKED, {}, paris) == PARIS
        assert await ModelResponseCache(manager).get_response("m", ASKED) == PARIS
        assert results(manager) == {"skipped": 1}
        failed = {names.LAYER: names.SIMILARITY, names.OPERATION: "embed", names.ERROR_TYPE: kind}
        # In vain for the search and for the list, but whoever has waited once does not wait again.
        assert count(manager, names.ERRORS, failed) == (1 if gives == "nothing" else 2)


async def test_a_prompt_that_took_too_long_is_asked_for_again_later() -> None:
    clock = ManualClock()
    embedder = Failing("nothing")
    failed = {names.LAYER: names.SIMILARITY, names.OPERATION: "embed", names.ERROR_TYPE: "TimeoutError"}
    async with (
        opened(configuration(types=[Answer]), clock=clock) as manager,
        SimilarityCache(manager, embedder=embedder, timeout=0.01) as similar,
    ):
        for _ in range(3):
            await similar.find_similar_response(ASKED, "m")
        assert count(manager, names.ERRORS, failed) == 1
        await similar.find_similar_response(REASKED, "m")
        assert count(manager, names.ERRORS, failed) == 2  # another one is another matter, until the breaker opens
        clock.advance(10)
        embedder.gives = [[1.0, 0.0]]
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        assert await similar.find_similar_response(REASKED, "m") == PARIS


async def test_namespaces_share_no_vectors(manager: CacheManager) -> None:
    embedder = Same()
    for namespace in ("one", "two", "one"):
        async with SimilarityCache(manager, embedder=embedder, namespace=namespace) as similar:
            await similar.find_similar_response(ASKED, "m")
    assert embedder.asked == [ASKED, ASKED]


def test_a_prompt_under_the_name_of_another_one_is_none() -> None:
    shelved = Shelved((ASKED, b""), math.inf, ())
    assert _row("partition", name_of("partition", ASKED), shelved) is not None
    assert _row("partition", name_of("partition", REASKED), shelved) is None
    assert _row("another", name_of("partition", ASKED), shelved) is None


async def test_vectors_of_other_dimensions_are_no_danger(manager: CacheManager) -> None:
    embedder = Failing([[1.0, 0.0]])
    async with SimilarityCache(manager, embedder=embedder) as similar:
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        embedder.gives = [[1.0, 0.0, 0.0]]
        assert await similar.find_similar_response(REASKED, "m") is None
        await ModelResponseCache(manager).cache_response("m", "Why?", {}, PARIS)
        assert similar._views.rows == 1


# --- what it stands on


async def test_wrong_arguments_are_refused(manager: CacheManager) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"similarity_threshold": 0}, "similarity_threshold"),
        ({"similarity_threshold": 1.1}, "similarity_threshold"),
        ({"similarity_threshold": math.nan}, "similarity_threshold"),
        ({"similarity_threshold": True}, "similarity_threshold"),
        ({"error_rate": 1}, "error_rate"),
        ({"mode": "semantic"}, "mode"),
        ({"gate": "open"}, "gate"),
        ({"index": "faiss"}, "index"),
        ({"index": "usearch"}, "embedder"),
        ({"judge": "equal"}, "judge"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"max_prompt": -1}, "max_prompt"),
        ({"embedder": object()}, "embedder"),
        ({"namespace": ""}, "namespace"),
    ]
    for options, says in wrong:
        with pytest.raises(ConfigurationError, match=says):
            SimilarityCache(manager, **options)
    with pytest.raises(TypeError, match="cache must be"):
        SimilarityCache("redis://")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(UnkeyableError, match="parameters"):
        await SimilarityCache(manager).find_similar_response(ASKED, "m", {"client": object()})


async def test_it_uses_the_manager_that_it_is_given_or_that_of_the_process() -> None:
    async with UnifiedCacheManager(kept()) as unified:
        assert SimilarityCache(unified).cache is unified
        assert SimilarityCache(unified.manager).cache.manager is unified.manager
        set_cache_manager(unified)
        try:
            assert SimilarityCache().cache is get_cache_manager()
        finally:
            set_cache_manager(None)


async def test_one_that_nobody_holds_is_told_nothing(manager: CacheManager) -> None:
    similar = SimilarityCache(manager)
    assert manager._watchers
    del similar
    await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
    assert [key for key in manager._engine._entries if "similar" in key] == []


async def test_no_prompt_is_in_a_key_or_a_metric(manager: CacheManager) -> None:
    async with SimilarityCache(manager, embedder=Same(), mode="shadow") as similar:
        secret = "Zanzibar"
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", f"Where is {secret}?", {}, PARIS)
        await similar.find_similar_response(f"where is {secret}", "m")
        await answers.cache_response("m", f"where is {secret}", {}, PARIS)
        await similar.settle()
        assert len(manager._engine._entries) > 5
        assert [key for key in manager._engine._entries if secret.lower() in key.lower()] == []
        assert secret.lower() not in repr([series(manager, metric) for metric in names.METRICS]).lower()


async def test_by_keys_nobody_sees_that_two_ask_the_same(manager: CacheManager) -> None:
    for namespace in ("one", "two"):
        async with SimilarityCache(manager, namespace=namespace):
            await ModelResponseCache(manager, namespace=namespace).cache_response("m", ASKED, {}, PARIS)
    found = [key.rpartition("-")[2] for key in manager._engine._entries if "similar_prompts" in key]
    prompts = [name for name in found if len(name) == 32]
    assert len(prompts) == len(set(prompts)) == 2
    assert digest(ASKED) not in prompts


async def test_after_the_manager_was_closed_nothing_is_hidden() -> None:
    async with opened(kept()) as manager:
        similar = SimilarityCache(manager)
    from aurelis.cache.exceptions import CacheClosedError

    with pytest.raises(CacheClosedError):
        await similar.find_similar_response(ASKED, "m")


async def test_it_works_from_several_event_loops(manager: CacheManager, similar: SimilarityCache) -> None:
    await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)

    def elsewhere() -> Any:
        return asyncio.run(similar.find_similar_response(REASKED, "m"))

    assert await asyncio.gather(*(asyncio.to_thread(elsewhere) for _ in range(8))) == [PARIS] * 8


async def test_searches_and_stores_at_once_harm_nobody(manager: CacheManager, similar: SimilarityCache) -> None:
    answers = ModelResponseCache(manager)
    prompts = [f"What is {word}?" for word in _words(60)]
    await asyncio.gather(*(answers.cache_response("m", prompt, {}, PARIS) for prompt in prompts))
    await eventually(lambda: similar._views.rows == 60)
    found = await asyncio.gather(*(similar.find_similar_response(prompt.lower(), "m") for prompt in prompts))
    assert found == [PARIS] * 60


async def test_any_text_is_a_prompt(manager: CacheManager, similar: SimilarityCache) -> None:
    answers = ModelResponseCache(manager)
    for prompt in ("\ud800", "\0", "\u202e", "a\u0301", "🙂" * 100, "'" * 50, "-" * 50, " ", "\n", "١٢٣", "ß", "İ"):
        await answers.cache_response("m", prompt, {}, PARIS)
        assert await similar.find_similar_response(prompt + " ", "m") in (PARIS, None)
        assert await similar.find_similar_response(prompt, "m") == PARIS


async def test_one_that_was_closed_takes_note_of_nothing_more(manager: CacheManager) -> None:
    similar = SimilarityCache(manager, mode="shadow")
    answers = ModelResponseCache(manager)
    await answers.cache_response("m", ASKED, {}, PARIS)
    assert await similar.find_similar_response(REASKED, "m") is None
    await similar.aclose()
    await answers.cache_response("m", REASKED, {}, PARIS)
    await answers.cache_response("m", "Who?", {}, PARIS)
    assert similar._views.rows == 1
    assert verdicts(manager) == {}


async def test_what_is_unlike_all_others_leaves_nothing_behind(manager: CacheManager, similar: SimilarityCache) -> None:
    for number in range(50):
        assert await similar.find_similar_response(ASKED, "m", {"n": number}) is None
    assert len(similar._views._views) == 0


async def test_partitions_at_hand_are_bounded(manager: CacheManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurelis.cache.similarity._view._MAX_VIEWS", 5)
    async with SimilarityCache(manager) as similar:
        for number in range(12):
            await ModelResponseCache(manager).cache_response("m", ASKED, {"n": number}, PARIS)
        assert len(similar._views._views) == 5
        for number in range(12):  # what was let go of is fetched again
            assert await similar.find_similar_response(REASKED, "m", {"n": number}) == PARIS


async def test_a_large_partition_is_read_and_compared_in_parts(manager: CacheManager) -> None:
    words = _words(400)
    prompts = [f"What is {one} of {two}?" for one, two in zip(words * 2, [*words, *reversed(words)], strict=True)]
    first = SimilarityCache(manager)
    for prompt in dict.fromkeys(prompts):
        await ModelResponseCache(manager).cache_response("m", prompt, {}, Answer("success", prompt))
    await first.aclose()
    async with SimilarityCache(manager) as similar:
        assert await similar.find_similar_response(prompts[3].lower(), "m") == Answer("success", prompts[3])
        assert similar._views.rows == len(dict.fromkeys(prompts)) > 512
        assert await similar.find_similar_response(prompts[-3].lower(), "m") == Answer("success", prompts[-3])


async def test_many_who_ask_a_new_process_at_once_have_it_read_once(
    manager: CacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SimilarityCache(manager)
    for word in _words(300):
        await ModelResponseCache(manager).cache_response("m", f"What is {word}?", {}, PARIS)
    await first.aclose()
    async with SimilarityCache(manager) as similar:
        fetched = 0
        fetch = similar._index._fetch

        async def counted(*arguments: Any) -> None:
            nonlocal fetched
            fetched += 1
            await fetch(*arguments)

        monkeypatch.setattr(similar._index, "_fetch", counted)
        await asyncio.gather(*(similar.find_similar_response(f"what is {word}", "m") for word in _words(50)))
        assert fetched == 3
        assert await similar.find_similar_response("please, what is bbbbbbbo", "m") == PARIS


async def test_an_embedder_that_fails_is_left_alone_for_a_while() -> None:
    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager:
        embedder = Failing(ConnectionError())
        async with SimilarityCache(manager, embedder=embedder) as similar:
            failed = {names.LAYER: names.SIMILARITY, names.OPERATION: "embed"}
            for _ in range(6):
                assert await similar.find_similar_response(ASKED, "m") is None
            assert count(manager, names.ERRORS, failed) == 3
            assert results(manager) == {"skipped": 6}
            clock.advance(11)
            embedder.gives = [[1.0, 0.0]]
            assert await similar.find_similar_response(ASKED, "m") is None
            assert results(manager) == {"skipped": 6, "none": 1}
            changes = series(manager, names.BREAKER)
            assert {dict(key)[names.BREAKER_STATE]: int(n) for key, n in changes.items()} == {
                "open": 1,
                "half_open": 1,
                "closed": 1,
            }


async def test_a_search_that_is_cancelled_harms_nothing(manager: CacheManager) -> None:
    embedder = Failing("nothing")
    async with SimilarityCache(manager, embedder=embedder, timeout=math.inf) as similar:
        search = asyncio.ensure_future(similar.find_similar_response(ASKED, "m"))
        await asyncio.sleep(0.01)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        embedder.gives = [[1.0, 0.0]]
        await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
        assert await similar.find_similar_response(REASKED, "m") == PARIS


def test_a_forked_child_goes_on() -> None:
    script = """
        import asyncio, os, threading
        from aurelis.cache import CacheConfig, CacheManager, ModelResponseCache, SimilarityCache
        from tests.similarity.test_cache import ASKED, PARIS, REASKED, Answer

        manager = CacheManager(CacheConfig(types=[Answer]))
        similar = SimilarityCache(manager)
        asyncio.run(ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS))
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with similar._index._lock, similar._verdicts._lock:
                held.set()
                go_on.wait()

        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        child = os.fork()
        if child == 0:
            found = asyncio.run(similar.find_similar_response(REASKED, "m"))
            os._exit(0 if found == PARIS else 1)
        _, status = os.waitpid(child, 0)
        go_on.set()
        print(os.waitstatus_to_exitcode(status))
    """
    assert run_script(script, PYTHONWARNINGS="ignore") == "0\n"  # forking beside a thread warns, and is what is tested
