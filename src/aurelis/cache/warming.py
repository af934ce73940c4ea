"""Filling a cache before anybody asks: what is fresh is left alone, and the rest is loaded as apps load it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from ._answer_lives import SUCCESS_TTL, is_error
from ._answer_places import CATEGORY
from ._computing import DEFAULT_OPTIONS
from ._loading import LoadContext, current_load
from ._options import Duration, seconds
from ._warming_run import CONCURRENCY, NotWarmed, Progress, WarmFailure, Warming, WarmReport
from .exceptions import ConfigurationError
from .manager import AnyManager, UnifiedCacheManager, get_cache_manager
from .model_cache import ModelResponseCache, tell, unified

J = TypeVar("J")

__all__ = ["CacheWarmer", "NotWarmed", "Progress", "WarmFailure", "WarmReport", "Warming"]

USER_CATEGORY: Final = "user_data"
"""Category of the data of users."""
USER_TTL: Final = 1800.0
"""Seconds that the data of a user lives, if the caller does not say."""
_NOTHING: Final = object()
_REASONS: Final[Mapping[str, str]] = {
    "layer_failed": "not kept in every layer",
    "beyond_memory": "too large for memory",
    "too_large": "larger than all that may be kept",
    "fenced": "invalidated while it was loaded",
    "skipped": "the load asked not to keep it",
    "ttl": "a ttl of 0 keeps nothing",
    "unstorable": "of a type that cannot be stored",
}


class CacheWarmer:
    """Loads what will be asked for before anybody asks.

    What is fresh is left alone, so a run that was interrupted goes on where it was when it is started again. A load
    is the same as one that an app causes: whoever asks meanwhile waits for it, also in other processes, and an
    invalidation meanwhile wins.

    Args:
        cache: manager; `None` means the process's. It is never closed here.
        generate: asks a model: a coroutine function of the model's name and a prompt, which gives the answer.
        load_user: loads the data of a user: a coroutine function of the user's id.
        concurrency: loads at a time, ≥ 1.
        progress: `True`: a bar on the terminal, which needs the extra `server`; or a function that is called with how
            many are done, and of how many.

    Raises:
        ConfigurationError: a value is out of range or of the wrong kind.
        TypeError: `cache` is no manager.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import CacheManager, ModelResponseCache
        >>> async def generate(model_type: str, prompt: str) -> str:
        ...     return f"{model_type} says hello"
        >>> async def main() -> object:
        ...     async with CacheManager() as manager:
        ...         warmer = CacheWarmer(manager, generate)
        ...         print(await warmer.warm_model_responses(["Say hello"], models=["gpt-x"]))
        ...         return await ModelResponseCache(manager).get_response("gpt-x", "Say hello", {})
        >>> asyncio.run(main())
        WarmReport(warmed=1, fresh=0, failures=())
        'gpt-x says hello'
    """

    def __init__(
        self,
        cache: AnyManager | None = None,
        generate: Callable[[str, str], Awaitable[object]] | None = None,
        load_user: Callable[[str], Awaitable[object]] | None = None,
        *,
        concurrency: int = CONCURRENCY,
        progress: Progress = False,
    ) -> None:
        self._given = unified(cache)
        self._generate = _function("generate", generate)
        self._load_user = _function("load_user", load_user)
        self._concurrency = concurrency
        self._progress = progress
        Warming((), _nothing, concurrency=concurrency, progress=progress)  # refuses what it could not run with

    @property
    def cache(self) -> UnifiedCacheManager:
        """The manager below."""
        return self._given or get_cache_manager()

    async def warm_model_responses(
        self, prompts: Iterable[str], models: Iterable[str], ttl: Duration | None = None
    ) -> WarmReport:
        """Have the answer of each model to each prompt in the cache, where `ModelResponseCache` finds it.

        An answer with a `status` of `error` is not kept, and is a failure.

        Args:
            prompts: each is asked without parameters.
            models: names of the models, of which there must be one at least.
            ttl: seconds or timedelta that an answer lives; `None`: what the category `model_responses` has, or an hour.

        Returns:
            What became of them; they are numbered by prompt, and within it by model.

        Raises:
            ConfigurationError: there is no `generate`, or no model.
            MissingExtraError: the progress bar is not installed.
            TypeError: `prompts` or `models` is not several str.
            ValueError: the ttl is negative or not a number.
        """
        generate = _needed("generate", self._generate, "warm_model_responses", "(model_type, prompt)")
        asked, named = _several("prompts", prompts), _several("models", models)
        if not named:
            raise ConfigurationError("models must name one model at least")
        cache = self.cache
        life = _life(cache, CATEGORY, ttl, SUCCESS_TTL)
        answers = ModelResponseCache(cache)

        async def ask(job: tuple[str, str]) -> bool:
            prompt, model = job
            place = answers.place(model, prompt, None)
            loaded = await _warmed(
                cache,
                CATEGORY,
                place.identifier,
                lambda: generate(model, prompt),
                life,
                place.tags,
                is_error=is_error,
            )
            if loaded:
                await tell(cache, place, model, prompt, None, None, life, place.tags)
            return loaded

        return await self._run(((prompt, model) for prompt in asked for model in named), ask, len(asked) * len(named))

    async def warm_user_data(self, users: Iterable[str], ttl: Duration | None = None) -> WarmReport:
        """Have the data of each user in the cache, in the category `user_data` under the user's id.

        Args:
            users: their ids.
            ttl: seconds or timedelta that the data live; `None`: what the category has, or half an hour.

        Raises:
            ConfigurationError: there is no `load_user`.
            MissingExtraError: the progress bar is not installed.
            TypeError: `users` is not several str.
            ValueError: the ttl is negative or not a number.
        """
        load_user = _needed("load_user", self._load_user, "warm_user_data", "(user_id)")
        asked = _several("users", users)
        cache = self.cache
        life = _life(cache, USER_CATEGORY, ttl, USER_TTL)

        async def load(user: str) -> bool:
            return await _warmed(cache, USER_CATEGORY, user, lambda: load_user(user), life)

        return await self._run(iter(asked), load, len(asked))

    async def _run(self, jobs: Iterator[J], warm: Callable[[J], Awaitable[bool]], total: int) -> WarmReport:
        return await Warming(jobs, warm, concurrency=self._concurrency, total=total, progress=self._progress).run()


def _life(cache: UnifiedCacheManager, category: str, ttl: Duration | None, otherwise: float) -> float:
    life = cache._ttl(category, ttl)
    return otherwise if life is None else seconds(life)


async def _warmed(
    cache: UnifiedCacheManager,
    category: str,
    identifier: str,
    load: Callable[[], Awaitable[object]],
    ttl: float,
    tags: tuple[str, ...] = (),
    *,
    is_error: Callable[[object], bool] = lambda value: False,
) -> bool:
    """Whether it had to be loaded; false: it is there.

    Raises:
        NotWarmed: it was loaded, and is not kept; or it is stale, and could not be loaded.
        Exception: what the load raised, even where something stale takes its place.
    """
    options = cache._options.get(category) or DEFAULT_OPTIONS
    loads: list[tuple[LoadContext, bool]] = []
    errors: list[Exception] = []

    async def run() -> object:
        context = current_load()
        try:
            value = await load()
        except Exception as error:
            errors.append(error)
            raise
        failed = is_error(value)
        if failed:
            context.skip()  # not raised: others who wait for it may want to see it
        loads.append((context, failed))
        return value

    # What is stale is loaded now, and not later in the background, and is kept for as long as it would be.
    awaited = replace(options, soft_timeout=None, stale_while_revalidate=0, stale_if_error=options.stale_for)
    await cache.get_or_compute(category, identifier, run, None, ttl, tags, awaited)
    if errors:
        raise errors[0]
    if not loads and options.stale_for and await cache.get(category, identifier, default=_NOTHING) is _NOTHING:
        raise NotWarmed("stale, and not loaded anew")
    for context, failed in loads:
        if failed:
            raise NotWarmed("the answer has the status error")
        if context.outcome != "stored":
            raise NotWarmed(_REASONS.get(context.outcome, context.outcome))
    return bool(loads)


def _function(name: str, function: Any) -> Any:  # the caller knows its type
    if function is not None and not callable(function):
        raise ConfigurationError(f"{name} must be a coroutine function, not {type(function).__name__}")
    return function


def _needed(name: str, function: Any, method: str, arguments: str) -> Any:  # likewise
    if function is None:
        raise ConfigurationError(
            f"{method} needs {name}: write CacheWarmer(cache, {name}=...), async def {name}{arguments}"
        )
    return function


def _several(name: str, given: Iterable[str]) -> list[str]:
    if isinstance(given, str):
        raise TypeError(f"{name} must be several str; put the one into [...]")
    found: list[Any] = list(given)
    for one in found:
        if not isinstance(one, str):
            raise TypeError(f"{name} must be several str; one is of type {type(one).__name__}")
    return found


async def _nothing(job: object) -> bool:
    return False
