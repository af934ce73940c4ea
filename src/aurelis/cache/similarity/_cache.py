"""Answers of models to prompts that say the same in other words."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from aurelis.cache._answer_places import CATEGORY
from aurelis.cache._loading import current_load
from aurelis.cache._options import Duration, EntryOptions, seconds
from aurelis.cache._watching import Answered
from aurelis.cache.manager import AnyManager, UnifiedCacheManager, get_cache_manager
from aurelis.cache.model_cache import ModelResponseCache, unified
from aurelis.cache.models import Cost
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry
from aurelis.cache.typing import Embedder, ModelResponse

from ._asked import Asked, partition_of
from ._embedded import Embedded
from ._gate import Gate
from ._index import Index
from ._notes import Notes
from ._options import Mode, Options
from ._searching import Searching
from ._shelf import Shelf
from ._vectors import Graph, Matrix
from ._verdicts import Judge, SimilarityReport, Verdicts
from ._view import Views

R = TypeVar("R", bound=ModelResponse)

_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class SimilarMatch:
    """An answer, and how it was found.

    Attributes:
        response: the answer. `Any`, because only the caller knows what was stored.
        similarity: of the prompt that it answers to the one that was asked, in [0, 1].
        exact: it answers the very prompt.
    """

    response: Any = field(repr=False)
    similarity: float
    exact: bool


class SimilarityCache:
    """Finds what `ModelResponseCache` stored on the same manager, also for a prompt that says the same otherwise.

    An answer to the very prompt comes first. Then only prompts are compared that were asked of the same model under
    equal parameters, by the same provider and in the same namespace; a lexical gate lets none through in which a
    number, a negation, a name or the order of words differs.

    It knows of the answers that are stored while it lives, here or in other processes with one of their own. Similar
    is not the same: read docs/similarity.md before something is served.

    Args:
        cache: manager; `None` means the process's, as it is now. It is never closed here.
        similarity_threshold: in (0, 1]; what is less similar is not looked at.
        mode: `threshold`: what passes the threshold and the gate is served. `shadow`: nothing is; what would have been
            is compared with what the model answers, and `report()` tells how often it would have been wrong.
            `verified`: each entry learns from such comparisons, and is served as far as errors stay below `error_rate`
            (vCache, arXiv:2502.03771).
        embedder: makes vectors, whose cosine is the similarity; `None`: letters are compared.
        gate: `wording`: the same words but for articles and courtesy; `meaning`: other words, too, in another
            sentence. `None`: `wording` without an embedder and `meaning` with one.
        judge: given the answer to the similar prompt and that of the model, says whether the first would have done; a
            function or a coroutine function. `None`: only if they are equal.
        error_rate: with `verified`: of all requests that find a similar prompt, so many at most get a wrong answer; in
            (0, 1).
        namespace: as for `ModelResponseCache`. With a name, and without one, it takes no note of what is stored in
            others, and their prompts are not sent to the embedder.
        index: with an embedder: `exact` compares with all vectors of a partition, `usearch` finds most of the nearest
            in much larger ones.
        max_entries: prompts of a partition; the oldest go.
        max_bytes: of prompts and vectors that this process has at hand.
        max_prompt: characters; longer prompts are not compared.
        timeout: seconds for the embedder, and for the judge.
        chance: gives random numbers in [0, 1).
        cost: as for `ModelResponseCache`: answers that were found, exactly or by similarity, count as saved.

    Attributes:
        cache: the `UnifiedCacheManager` below.

    Raises:
        ConfigurationError: an argument is out of range or of the wrong kind.
        MissingExtraError: rapidfuzz or numpy (extra `similarity`) or usearch (extra `usearch`) is not installed.
        TypeError: `cache` is no manager.

    Example:
        >>> import asyncio
        >>> from dataclasses import dataclass
        >>> from aurelis.cache import CacheConfig, CacheManager, ModelResponseCache
        >>> @dataclass
        ... class Answer:
        ...     status: str
        ...     text: str
        >>> async def main() -> Answer:
        ...     async with CacheManager(CacheConfig(types=[Answer])) as manager, SimilarityCache(manager) as similar:
        ...         await ModelResponseCache(manager).cache_response("gpt-x", "6 times 7?", {}, Answer("success", "42"))
        ...         assert await similar.find_similar_response("7 times 6?", "gpt-x") is None
        ...         return await similar.find_similar_response("Please, 6 times 7", "gpt-x")
        >>> asyncio.run(main())
        Answer(status='success', text='42')
    """

    def __init__(
        self,
        cache: AnyManager | None = None,
        similarity_threshold: float = 0.85,
        *,
        mode: Mode = "threshold",
        embedder: Embedder | None = None,
        gate: Gate | None = None,
        judge: Judge | None = None,
        error_rate: float = 0.01,
        namespace: str | Callable[[], str | None] | None = None,
        index: Literal["exact", "usearch"] = "exact",
        max_entries: int = 4096,
        max_bytes: int = 64 * 2**20,
        max_prompt: int = 2048,
        timeout: Duration = 5.0,
        chance: Callable[[], float] = random.random,
        cost: Cost = None,
    ) -> None:
        options = Options(
            similarity_threshold=similarity_threshold,
            mode=mode,
            embedder=embedder,
            gate=gate,
            judge=judge,
            error_rate=error_rate,
            namespace=namespace,
            index=index,
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_prompt=max_prompt,
            timeout=timeout,
            chance=chance,
        )
        patience = seconds(timeout)
        self.cache: UnifiedCacheManager = unified(cache) or get_cache_manager()
        keys = self.cache.key_builder
        self._answers = ModelResponseCache(self.cache, namespace=namespace, cost=cost)
        self._telemetry = self.cache.manager._engine.telemetry
        shelf = Shelf(self.cache.manager)
        self._embedded = None if embedder is None else Embedded(embedder, shelf, keys, self._telemetry, patience)
        self._views = Views(
            None if embedder is None else (Matrix if index == "exact" else Graph), max_bytes, _evicted(self._telemetry)
        )
        self._index = Index(shelf, keys, self._views, max_entries=max_entries, max_bytes=max_bytes)
        self._verdicts = Verdicts(self._telemetry, mode, judge or _are_equal, patience)
        self._searching = Searching(options, self._telemetry, shelf, self._embedded, self._index, self._verdicts)
        self._notes = Notes(options, shelf, self._embedded, self._index, self._verdicts)
        at_hand = {names.LAYER: names.SIMILARITY}
        self._telemetry.gauge(names.ENTRIES, self._views, lambda views: views.rows, **at_hand)
        self._telemetry.gauge(names.USAGE, self._views, lambda views: views.size, **at_hand)
        self._telemetry.gauge(names.LIMIT, self._views, lambda views: views.max_bytes, **at_hand)
        self.cache.manager._watchers.add(self)

    async def find_similar_response(
        self,
        prompt: str,
        model_type: str,
        parameters: Mapping[str, object] | None = None,
        *,
        provider: str | None = None,
    ) -> Any:
        """The answer to the prompt, or to one that says the same; `None`: there is none, or it is not to be served.

        Args:
            parameters: what else the answer depends on, equal to those of the other prompt. The system prompt, earlier
                turns and tools belong here, so that only the last words of the user are compared. `None`: none.
            provider: as for `ModelResponseCache`.

        Raises:
            UnkeyableError: something in `parameters` cannot be part of a key.
        """
        match = await self.find_match(prompt, model_type, parameters, provider=provider)
        return None if match is None else match.response

    async def find_match(
        self,
        prompt: str,
        model_type: str,
        parameters: Mapping[str, object] | None = None,
        *,
        provider: str | None = None,
    ) -> SimilarMatch | None:
        """As `find_similar_response`, and says how the answer was found."""
        asked = self._asked(prompt, model_type, parameters, provider)
        key = asked.key_of(prompt)
        response = await self.cache.manager.get(key, _ABSENT)
        if response is not _ABSENT:
            self._answers.count_hit(key, model_type, provider, response)
            return SimilarMatch(response, 1.0, True)
        found = await self._searching.similar(asked)
        if found is None:
            return None
        self._answers.count_hit(found.key, model_type, provider, found.response)
        return SimilarMatch(found.response, found.similarity, False)

    async def get_or_compute(
        self,
        model_type: str,
        prompt: str,
        parameters: Mapping[str, object] | None,
        compute: Callable[[], Awaitable[R]],
        ttl: Duration | None = None,
        *,
        provider: str | None = None,
        tags: Iterable[str] = (),
        options: EntryOptions | None = None,
    ) -> R:
        """The answer to the prompt, or to one that says the same, or else that of `compute`.

        One caller searches and computes for all who ask meanwhile. The answer to another prompt is not stored under
        this one: what is similar to it would then be served for what is similar to that.

        Arguments and errors as those of `ModelResponseCache.get_or_compute`.
        """
        asked = self._asked(prompt, model_type, parameters, provider)

        async def load() -> R:
            context = current_load()
            if not context.has_stale:  # a refresh is to ask the model
                found = await self._searching.similar(asked)
                if found is not None:
                    self._answers.count_hit(found.key, model_type, provider, found.response)
                    context.skip()
                    context.add_tags(*found.tags)  # who asks after one of them was invalidated does not share this
                    return found.response  # type: ignore[return-value]  # what the same app has stored
            return await compute()

        return await self._answers.get_or_compute(
            model_type, prompt, parameters, load, ttl, provider=provider, tags=tags, options=options
        )

    def report(self) -> SimilarityReport:
        """What was measured of false hits, in this process and since the manager was made."""
        return self._verdicts.report()

    async def settle(self, timeout: float = 5.0) -> None:
        """Wait until what is being compared in this event loop has been, at most so many seconds."""
        await self._verdicts.settle(timeout)

    async def aclose(self, timeout: float = 5.0) -> None:
        """`settle`, give up what is left, and take note of nothing more. The manager stays open. Twice is harmless."""
        self.cache.manager._watchers.remove(self)
        await self._verdicts.aclose(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def answered(self, answer: Answered) -> None:
        """Take note of an answer that was stored. For the manager to call; never raises."""
        try:
            await self._notes.take(answer)
        except Exception as error:  # noqa: BLE001  # whoever has stored the answer has nothing to do with this
            self._telemetry.incident(names.SIMILARITY, "index", type(error).__qualname__)

    def _asked(
        self, prompt: str, model_type: str, parameters: Mapping[str, object] | None, provider: str | None
    ) -> Asked:
        place, keys = self._answers.place(model_type, prompt, parameters, provider), self.cache.key_builder

        def key_of(prompt: str) -> str:
            return keys.build_key(CATEGORY, place.apart + keys.build_model_key(model_type, prompt, parameters))

        partition = partition_of(model_type, parameters or {}, provider, place.namespace, self._embedded)
        return Asked(partition, prompt, place.namespace, key_of)


def _evicted(telemetry: Telemetry) -> Callable[[int], None]:
    cell = telemetry.table.cell(names.EVICTIONS, **{names.LAYER: names.SIMILARITY, names.REASON: "capacity"})

    def count(rows: int) -> None:
        cell.n += rows

    return count


def _are_equal(known: object, own: object) -> bool:
    return known == own
