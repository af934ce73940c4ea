"""Answers of models as an app has them in hand, by model, prompt and parameters.

For calls that go through an HTTP client a caching transport does all of this, and more, by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from ._answer_lives import life_of
from ._answer_places import CATEGORY, Place, checked_name, model_tag, namespace_tag, provider_tag
from ._answer_savings import AnswerSavings
from ._canonical import digest
from ._keys import CacheKeyBuilder
from ._loading import LoadContext, current_load
from ._options import Duration, EntryOptions, seconds
from ._tags import tags as checked
from ._watching import Answered
from .manager import AnyManager, UnifiedCacheManager, get_cache_manager, manager_of
from .models import Cost
from .telemetry import names
from .typing import ModelResponse

R = TypeVar("R", bound=ModelResponse)


class ModelResponseCache:
    """Keeps answers of models, and finds them by model, prompt and parameters.

    An answer is any object that the cache can store and that has a `status`: a str, or an `Enum` of str. One with the
    status `error` is never stored.

    Args:
        cache: manager; `None` means the process's. It is never closed here.
        namespace: answers of different namespaces are never shared: a name, or a function that is called each time,
            such as the `get` of a context variable; `None`, also from the function: none.
        cost: what answers have cost that are used again, as that of transports: `genai-prices`, or a function of a
            `BilledCall`, whose protocol is the provider that the call names, and whose address is empty. Asked at each
            hit.

    Each answer that is used again counts as saved what is known of it: the seconds that `compute` took, if it was this
    object that had it computed, and the tokens that a `usage` or `usage_metadata` of its own says, in the words of
    OpenAI, Anthropic or Gemini.

    Attributes:
        cache: the `UnifiedCacheManager` below, which is the one that was given, if one was.
        key_builder: builds the keys.

    Raises:
        ConfigurationError: `namespace` is neither a name nor a function; from each method also if the function gives
            something else. Or `cost` gives no prices.
        MissingExtraError: `cost` is a price list that is not installed.
        TypeError: `cache` is no manager.

    Example:
        >>> import asyncio
        >>> from dataclasses import dataclass
        >>> from aurelis.cache import CacheConfig, CacheManager
        >>> @dataclass
        ... class Answer:
        ...     status: str
        ...     text: str
        >>> async def main() -> Answer:
        ...     async with CacheManager(CacheConfig(types=[Answer])) as manager:
        ...         answers = ModelResponseCache(manager)
        ...         await answers.cache_response("gpt-x", "6 times 7?", {"temperature": 0}, Answer("success", "42"))
        ...         return await answers.get_response("gpt-x", "6 times 7?", {"temperature": 0})
        >>> asyncio.run(main())
        Answer(status='success', text='42')
    """

    def __init__(
        self,
        cache: AnyManager | None = None,
        *,
        namespace: str | Callable[[], str | None] | None = None,
        cost: Cost = None,
    ) -> None:
        if namespace is not None and not callable(namespace):
            checked_name("namespace", namespace)
        self._given = unified(cache)
        self._namespace = namespace
        self._savings = AnswerSavings(cost)

    @property
    def cache(self) -> UnifiedCacheManager:
        """The manager below."""
        return self._given or get_cache_manager()

    @property
    def key_builder(self) -> CacheKeyBuilder:
        """Builds the keys."""
        return self.cache.key_builder

    async def get_response(
        self,
        model_type: str,
        prompt: str,
        parameters: Mapping[str, object] | None = None,
        *,
        provider: str | None = None,
    ) -> Any:
        """The answer, or `None`. `Any`, because only the caller knows what was stored.

        Args:
            parameters: what else the answer depends on; `None` and an empty mapping are the same.
            provider: whose model it is, where several offer one of that name.

        Raises:
            UnkeyableError: something in `parameters` cannot be part of a key.
        """
        place = self.place(model_type, prompt, parameters, provider)
        response = await self.cache.get(CATEGORY, place.identifier)
        if response is not None:
            self.count_hit(self._key(place), model_type, provider, response)
        return response

    async def cache_response(
        self,
        model_type: str,
        prompt: str,
        parameters: Mapping[str, object] | None,
        response: ModelResponse,
        ttl: Duration | None = None,
        *,
        provider: str | None = None,
        tags: Iterable[str] = (),
    ) -> bool:
        """Keep an answer, unless its status is `error`: then what was stored before stays.

        Args:
            parameters: as for `get_response`, and so is `provider`.
            ttl: seconds or timedelta; 0: nothing is kept; `None`: an hour with the status `success`, otherwise five
                minutes. Where the category `model_responses` has a `ttl`, that is in place of the hour.
            tags: names by which it can be invalidated together with others.

        Returns:
            Whether it was kept, in every layer.

        Raises:
            TypeError: it has no `status`.
            UnkeyableError: something in `parameters` cannot be part of a key.
            UnstorableValueError: it is of a type that is neither built in nor registered in `types`.
            ValueError: the ttl is negative or not a number.
        """
        place = self.place(model_type, prompt, parameters, provider)
        life = life_of(response, ttl, self._usual())
        every = (*place.tags, *_names(tags))
        if life is None:
            return False
        kept = await self.cache.set(CATEGORY, place.identifier, response, life, tags=every)
        self._savings.forget(self._key(place))
        if life > 0:
            self.cache.manager._engine.telemetry.expect_savings(model_type)
            await tell(self.cache, place, model_type, prompt, parameters, provider, life, every)
        return kept and life > 0

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
        """The answer; when there is none, that of `compute`, which one caller runs for all who ask meanwhile.

        What it gives is kept as by `cache_response`; an answer with the status `error` reaches those who wait for it,
        and is not kept.

        Args:
            compute: asks the model: a coroutine function without arguments.
            options: stale answers, refreshes in the background, timeouts and more. Their `ttl` counts where no argument
                says it.

        Raises:
            TypeError: what `compute` gave has no `status`.

        Beside that as `CacheManager.get_or_compute`.
        """
        place = self.place(model_type, prompt, parameters, provider)
        if ttl is None and options is not None:
            ttl = options.ttl
        given = None if ttl is None else seconds(ttl)
        usual = self._usual()
        every = (*place.tags, *_names(tags))
        loaded: list[tuple[LoadContext, float, float]] = []
        results: list[str] = []
        cache, key = self.cache, self._key(place)
        clock = cache.manager._engine.clock

        async def load() -> R:
            context = current_load()
            begin = clock.monotonic()
            response = await compute()
            life = life_of(response, given, usual)
            if life is None:
                context.skip()
            else:
                context.set_ttl(life)
                loaded.append((context, life, clock.monotonic() - begin))
            return response

        response = await cache.manager._computed(
            key, load, given, every, options or cache._options.get(CATEGORY), results.append
        )
        if results and results[-1] in (names.HIT, names.STALE):
            self.count_hit(key, model_type, provider, response)
        for context, life, took in loaded:
            if context.outcome in (names.KEPT, names.LAYER_FAILED, names.BEYOND_MEMORY):
                self._savings.took(key, took)
                cache.manager._engine.telemetry.expect_savings(model_type)
                await tell(self.cache, place, model_type, prompt, parameters, provider, life, every)
        return response

    async def invalidate_model_cache(self, model_type: str, *, soft: bool = False) -> None:
        """Make all answers of a model out of date, whoever offers it. Raises as `CacheManager.invalidate_tags`."""
        await self.cache.invalidate_tags(model_tag(model_type), soft=soft)

    async def invalidate_provider(self, provider: str, *, soft: bool = False) -> None:
        """Make all answers of a provider out of date. Raises as `CacheManager.invalidate_tags`."""
        await self.cache.invalidate_tags(provider_tag(provider), soft=soft)

    async def invalidate_namespace(self, namespace: str, *, soft: bool = False) -> None:
        """Make all answers of a namespace out of date. Raises as `CacheManager.invalidate_tags`."""
        await self.cache.invalidate_tags(namespace_tag(namespace), soft=soft)

    async def invalidate_tags(self, *tags: str, soft: bool = False) -> None:
        """Make everything with one of these tags out of date. Raises as `CacheManager.invalidate_tags`."""
        await self.cache.invalidate_tags(*tags, soft=soft)

    async def clear(self, *, soft: bool = False) -> None:
        """Make all answers of all models out of date. Raises as `CacheManager.invalidate_tags`."""
        await self.cache.invalidate_category(CATEGORY, soft=soft)

    def count_hit(self, key: str, model_type: str, provider: str | None, response: object) -> None:
        """The answer under a key was used again, here or by a face that stands on this one."""
        self._savings.hit(self.cache.manager._engine, key, model_type, provider, response)

    def _key(self, place: Place) -> str:
        return self.key_builder.build_key(CATEGORY, place.identifier)

    def _usual(self) -> float | None:
        """Seconds that the options of the category say; `None`: they don't."""
        life = self.cache._ttl(CATEGORY, None)
        return None if life is None else seconds(life)

    def place(
        self, model_type: str, prompt: str, parameters: Mapping[str, object] | None, provider: str | None = None
    ) -> Place:
        """Where an answer is kept.

        Raises:
            ConfigurationError: a name is empty or none.
            UnkeyableError: something in `parameters` cannot be part of a key.
        """
        key = self.key_builder.build_model_key(model_type, prompt, parameters)
        apart: dict[str, str] = {}
        tags = [model_tag(model_type)] if model_type else []  # a server of one model needs no name for it
        if provider is not None:
            apart["provider"] = provider
            tags.append(provider_tag(provider))
        namespace = self._namespace() if callable(self._namespace) else self._namespace
        if namespace is not None:
            apart["namespace"] = namespace
            tags.append(namespace_tag(namespace))
        # Not as params, by which each answer would have a tag of its own. No key of a model has an equals sign.
        return Place(f"{digest(apart)}=" if apart else "", key, tuple(tags), namespace)


async def tell(
    cache: UnifiedCacheManager,
    place: Place,
    model_type: str,
    prompt: str,
    parameters: Mapping[str, object] | None,
    provider: str | None,
    life: float,
    tags: tuple[str, ...],
) -> None:
    """Tell those who want to know of it that an answer is in the cache."""
    watchers = cache.manager._watchers
    if watchers:
        key = cache.key_builder.build_key(CATEGORY, place.identifier)
        await watchers.tell(
            Answered(
                model_type,
                prompt,
                parameters or {},
                provider,
                place.namespace,
                key,
                life,
                place.tags,
                tags,
            )
        )


def unified(cache: AnyManager | None) -> UnifiedCacheManager | None:
    """The manager by category that a `cache=` argument means; `None`: that of the process, at each use.

    Raises:
        TypeError: it is no manager.
    """
    if cache is None or isinstance(cache, UnifiedCacheManager):
        return cache
    return UnifiedCacheManager(manager_of(cache))


def _names(tags: Iterable[str]) -> tuple[str, ...]:
    given = tags if isinstance(tags, str) else tuple(tags)
    checked(given)
    return tuple(given)
