"""Answers of models to prompts that say the same in other words."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from aurelis.cache._answer_places import CATEGORY
from aurelis.cache._canonical import digest
from aurelis.cache._loading import current_load
from aurelis.cache._options import Duration, EntryOptions, seconds, whole
from aurelis.cache._watching import Answered
from aurelis.cache.exceptions import ConfigurationError, MissingExtraError
from aurelis.cache.manager import AnyManager, UnifiedCacheManager, get_cache_manager
from aurelis.cache.model_cache import ModelResponseCache, unified
from aurelis.cache.models import Cost
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry
from aurelis.cache.typing import Embedder, ModelResponse

from ._embedded import Embedded
from ._gate import Gate, refusal
from ._index import Index
from ._shelf import Shelf
from ._vectors import Graph, Matrix
from ._verdicts import PATIENCE, Judge, Pending, SimilarityReport, Verdicts
from ._verified import exploration
from ._view import Row, Views
from ._wording import read

R = TypeVar("R", bound=ModelResponse)

Mode = Literal["threshold", "shadow", "verified"]
_MODES: Final = ("threshold", "shadow", "verified")
_GATES: Final = ("wording", "meaning")
_NEAREST: Final = 16
"""Prompts that are looked at for one that is asked."""
_TRIES: Final = 3
"""Answers that are looked for; more of those that are near can hardly be gone."""
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked, and in which partition.

    Attributes:
        partition: the digest of all that must be equal.
        prompt: that is asked.
        namespace: that counts for this call.
        key_of: gives the key of the answer to a prompt of this partition.
    """

    partition: str
    prompt: str = field(repr=False)
    namespace: str | None
    key_of: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """The answer to a similar prompt, and what was found out about it."""

    row: Row
    similarity: float
    key: str
    response: object = field(repr=False)
    tags: tuple[str, ...]


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
        _check_part("similarity_threshold", similarity_threshold, one=True)
        _check_part("error_rate", error_rate)
        _check_choice("mode", mode, _MODES)
        _check_choice("gate", gate, (None, *_GATES))
        _check_choice("index", index, ("exact", "usearch"))
        if judge is not None and not callable(judge):
            raise ConfigurationError("judge must be a function of two answers")
        for name, number in (("max_entries", max_entries), ("max_bytes", max_bytes), ("max_prompt", max_prompt)):
            whole(name, number)
        if index == "usearch" and embedder is None:
            raise ConfigurationError("index='usearch' is for vectors, so it needs an embedder")
        self._timeout = seconds(timeout, "timeout")
        if not self._timeout:
            raise ConfigurationError("timeout must be more than 0 seconds")
        _require_packages(letters=embedder is None, mode=mode, index=index)
        self.cache: UnifiedCacheManager = unified(cache) or get_cache_manager()
        self._answers = ModelResponseCache(self.cache, namespace=namespace, cost=cost)
        self._namespace = namespace
        self._threshold = float(similarity_threshold)
        self._mode = mode
        self._gate: Gate = gate or ("wording" if embedder is None else "meaning")
        self._error_rate = error_rate
        self._max_prompt = max_prompt
        self._chance = chance
        self._telemetry = self.cache.manager._engine.telemetry
        self._shelf = Shelf(self.cache.manager)
        self._embedded = (
            None
            if embedder is None
            else Embedded(embedder, self._shelf, self.cache.key_builder, self._telemetry, self._timeout)
        )
        self._views = Views(
            None if embedder is None else (Matrix if index == "exact" else Graph), max_bytes, _evicted(self._telemetry)
        )
        self._index = Index(
            self._shelf, self.cache.key_builder, self._views, max_entries=max_entries, max_bytes=max_bytes
        )
        self._verdicts = Verdicts(self._telemetry, mode, judge or _are_equal, self._timeout)
        for result in names.SIMILARITY_RESULTS:
            self._telemetry.table.cell(names.SIMILARITY_LOOKUPS, **{names.SIMILARITY_RESULT: result})
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
        found = await self._similar(asked)
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
                found = await self._similar(asked)
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
            await self._take_note(answer)
        except Exception as error:  # noqa: BLE001  # whoever has stored the answer has nothing to do with this
            self._telemetry.incident(names.SIMILARITY, "index", type(error).__qualname__)

    # Searching

    async def _similar(self, asked: _Asked) -> _Candidate | None:
        """The answer to a similar prompt that is to be served; a failure is counted, and is none."""
        result = "skipped"
        try:
            if asked.prompt and len(asked.prompt) <= self._max_prompt:
                found = await self._candidate(asked)
                if isinstance(found, _Candidate):
                    result = await self._decided(asked, found)
                    return found if result == "hit" else None
                result = found
        except Exception as error:  # noqa: BLE001  # without it there is a model to ask
            self._telemetry.incident(names.SIMILARITY, "get", type(error).__qualname__)
        finally:
            self._telemetry.table.cell(names.SIMILARITY_LOOKUPS, **{names.SIMILARITY_RESULT: result}).n += 1
        return None

    async def _candidate(self, asked: _Asked) -> _Candidate | Literal["none", "refused", "skipped"]:
        vector = None
        if self._embedded is not None:
            vector = await self._embedded.vector(asked.prompt, asked.namespace)
            if vector is None:
                return "skipped"
        await self._index.brought_in_line(asked.partition, self._timeout)
        reading = read(asked.prompt)
        near = await self._index.nearest(asked.partition, reading, vector, _NEAREST, self._threshold)
        others = [(row, similarity) for row, similarity in near if row.prompt != asked.prompt]
        passing = [(row, similarity) for row, similarity in others if not refusal(reading, row.reading, self._gate)]
        for row, similarity in passing[:_TRIES]:
            key = asked.key_of(row.prompt)
            shelved = (await self._shelf.read([key])).get(key)
            if shelved is not None:
                return _Candidate(row, similarity, key, shelved.value, shelved.tags)
            self._index.forget(asked.partition, row.name)
        return "refused" if others and not passing else "none"

    async def _decided(self, asked: _Asked, found: _Candidate) -> Literal["hit", "shadow", "explored"]:
        """Whether to serve it; if not, it will be compared with what the model answers."""
        if self._mode == "threshold":
            return "hit"
        if self._mode == "verified":
            seen = await self._index.evidence(asked.partition, found.row.name)
            if self._chance() >= exploration(seen, found.similarity, self._error_rate):
                return "hit"
        now = self._shelf.now()
        pending = Pending(asked.partition, found.row, found.similarity, found.key, now + PATIENCE)
        self._verdicts.expect(asked.key_of(asked.prompt), pending, now)
        return "shadow" if self._mode == "shadow" else "explored"

    # Taking note

    async def _take_note(self, answer: Answered) -> None:
        if not answer.prompt or len(answer.prompt) > self._max_prompt:
            return
        if not callable(self._namespace) and answer.namespace != self._namespace:
            return  # nobody asks for it here, so its prompt is nothing for this embedder
        partition = self._partition(answer.model_type, answer.parameters, answer.provider, answer.namespace)
        pending = self._verdicts.expected(answer.key, self._shelf.now())
        if pending is None:
            await self._list(partition, answer)
            return
        if not self._verdicts.begin(partial(self._compare, partition, pending, answer)):
            self._verdicts.unverified()
            await self._list(partition, answer)
            return
        if self._mode != "verified":
            await self._list(partition, answer)

    async def _compare(self, partition: str, pending: Pending, answer: Answered) -> None:
        """In the background: hear the judge, and remember what was said."""
        # Both are read here, as what the app has in its hands it may have changed.
        found = await self._shelf.read([pending.key, answer.key])
        if len(found) == 2:
            verdict = await self._verdicts.judge(found[pending.key].value, found[answer.key].value)
        else:
            verdict = self._verdicts.unverified()
        if self._mode != "verified":
            return
        if verdict != "unverified":
            await self._index.observe(pending.partition, pending.row, (pending.similarity, verdict == "correct"))
        if verdict != "correct":
            # A prompt that another one answers needs no place of its own: what is like it is to be seen at that one,
            # which has learned something already.
            await self._list(partition, answer)

    async def _list(self, partition: str, answer: Answered) -> None:
        if self._mode == "verified":
            await self._index.forget_evidence(partition, answer.prompt, answer.life, answer.tags)
        vector = None
        if self._embedded is not None:
            vector = await self._embedded.vector(answer.prompt, answer.namespace)
            if vector is None:
                return
        await self._index.add(partition, answer.prompt, vector, answer.life, answer.tags, answer.own_tags)

    # Parts

    def _partition(
        self, model_type: str, parameters: Mapping[str, object], provider: str | None, namespace: str | None
    ) -> str:
        """What must be equal, as a digest."""
        embedder = "" if self._embedded is None else self._embedded.name
        return digest((model_type, provider, namespace, dict(parameters), embedder))

    def _asked(
        self, prompt: str, model_type: str, parameters: Mapping[str, object] | None, provider: str | None
    ) -> _Asked:
        place, keys = self._answers.place(model_type, prompt, parameters, provider), self.cache.key_builder

        def key_of(prompt: str) -> str:
            return keys.build_key(CATEGORY, place.apart + keys.build_model_key(model_type, prompt, parameters))

        partition = self._partition(model_type, parameters or {}, provider, place.namespace)
        return _Asked(partition, prompt, place.namespace, key_of)


def _evicted(telemetry: Telemetry) -> Callable[[int], None]:
    cell = telemetry.table.cell(names.EVICTIONS, **{names.LAYER: names.SIMILARITY, names.REASON: "capacity"})

    def count(rows: int) -> None:
        cell.n += rows

    return count


def _are_equal(known: object, own: object) -> bool:
    return known == own


def _check_part(name: str, value: object, *, one: bool = False) -> None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1.0
    if not (0 < number < 1 or (one and number == 1)):
        raise ConfigurationError(f"{name} must be above 0 and {'at most' if one else 'below'} 1, not {value!r}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        said = ", ".join(repr(choice) for choice in choices)
        raise ConfigurationError(f"{name} must be one of {said}, not {value!r}")


def _require_packages(*, letters: bool, mode: str, index: str) -> None:
    """Refuse at once what could not work later."""
    try:
        if letters:
            import rapidfuzz.process  # noqa: F401
        if not letters or mode == "verified":
            import numpy  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("similarity", "SimilarityCache") from error
    if index == "usearch":
        try:
            import usearch.index  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtraError("usearch", "index='usearch'") from error
