"""Answers of models as an app has them in hand, by model, prompt and parameters.

For calls that go through an HTTP client a caching transport does all of this, and more, by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from ._canonical import digest
from ._keys import CacheKeyBuilder
from ._loading import LoadContext, current_load
from ._options import Duration, EntryOptions, seconds
from ._tags import tags as checked
from ._watching import Answered
from .exceptions import ConfigurationError, type_name
from .manager import AnyManager, UnifiedCacheManager, get_cache_manager, manager_of
from .telemetry import names
from .typing import ModelResponse

R = TypeVar("R", bound=ModelResponse)

CATEGORY: Final = "model_responses"
"""Category of the entries."""
SUCCESS_TTL: Final = 3600.0
"""Seconds that an answer lives whose status is `success`, if the caller does not say."""
OTHER_TTL: Final = 300.0
"""Likewise with any other status."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a prompt is kept.

    Attributes:
        apart: what keeps it apart from those of other providers and namespaces; begins the identifier.
        model_key: by `CacheKeyBuilder.build_model_key`.
        tags: those of the model, the provider and the namespace.
        namespace: that counts for this call.
    """

    apart: str
    model_key: str
    tags: tuple[str, ...]
    namespace: str | None

    @property
    def identifier(self) -> str:
        """In `CATEGORY`."""
        return self.apart + self.model_key


class ModelResponseCache:
    """Keeps answers of models, and finds them by model, prompt and parameters.

    An answer is any object that the cache can store and that has a `status`: a str, or an `Enum` of str. One with the
    status `error` is never stored.

    Args:
        cache: manager; `None` means the process's. It is never closed here.
        namespace: answers of different namespaces are never shared: a name, or a function that is called each time,
            such as the `get` of a context variable; `None`, also from the function: none.

    Attributes:
        cache: the `UnifiedCacheManager` below, which is the one that was given, if one was.
        key_builder: builds the keys.

    Raises:
        ConfigurationError: `namespace` is neither a name nor a function; from each method also if the function gives
            something else.
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
        self, cache: AnyManager | None = None, *, namespace: str | Callable[[], str | None] | None = None
    ) -> None:
        if namespace is not None and not callable(namespace):
            _name("namespace", namespace)
        self._given = unified(cache)
        self._namespace = namespace

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
        return await self.cache.get(CATEGORY, place.identifier)

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
        life = _life_of(response, ttl, self._usual())
        every = (*place.tags, *_names(tags))
        if life is None:
            return False
        kept = await self.cache.set(CATEGORY, place.identifier, response, life, tags=every)
        if life > 0:
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
        loaded: list[tuple[LoadContext, float]] = []

        async def load() -> R:
            context = current_load()
            response = await compute()
            life = _life_of(response, given, usual)
            if life is None:
                context.skip()
            else:
                context.set_ttl(life)
                loaded.append((context, life))
            return response

        response = await self.cache.get_or_compute(CATEGORY, place.identifier, load, None, given, every, options)
        for context, life in loaded:
            if context.outcome in (names.KEPT, names.LAYER_FAILED, names.BEYOND_MEMORY):
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


def model_tag(model_type: str) -> str:
    """The tag of all answers of a model."""
    return "model:" + _name("model_type", model_type)


def provider_tag(provider: str) -> str:
    """The tag of all answers of a provider."""
    return "provider:" + _name("provider", provider)


def namespace_tag(namespace: str) -> str:
    """The tag of all answers of a namespace."""
    return "namespace:" + _name("namespace", namespace)


def _life_of(response: ModelResponse, ttl: Duration | None, usual: float | None) -> float | None:
    """Seconds for which an answer is kept; `None`: it is not.

    Args:
        ttl: what the call says; `None`: nothing.
        usual: what the category says; `None`: nothing.

    Raises:
        TypeError: it has no status.
        ValueError: the ttl is negative or not a number.
    """
    life = None if ttl is None else seconds(ttl)
    status = status_of(response)
    if status == "error":
        return None
    if life is not None:
        return life
    success = SUCCESS_TTL if usual is None else usual
    return success if status == "success" else min(success, OTHER_TTL)


def status_of(response: object) -> str:
    """The status of an answer, in lower case.

    Raises:
        TypeError: it has none, or one that is no text.
    """
    status = _status(response)
    if not isinstance(status, str):
        raise TypeError(
            f"a model response needs a status that is a str, such as 'success' or 'error'; "
            f"{type_name(type(response))} has {'none' if status is None else 'one of type ' + type_name(type(status))}"
        )
    return status.lower()


def is_error(response: object) -> bool:
    """Whether something says that it is an answer that must not be kept."""
    status = _status(response)
    return isinstance(status, str) and status.lower() == "error"


def _status(response: object) -> object:
    status: object = getattr(response, "status", None)
    return status.value if isinstance(status, Enum) else status


def _name(argument: str, name: object) -> str:
    # Whoever keeps tenants apart by a name must not share by accident.
    if not isinstance(name, str) or not name:
        found = "an empty one" if name == "" else type_name(type(name))
        raise ConfigurationError(f"{argument} must be a str that is not empty, not {found}")
    return name


def _names(tags: Iterable[str]) -> tuple[str, ...]:
    names = tags if isinstance(tags, str) else tuple(tags)
    checked(names)
    return tuple(names)
