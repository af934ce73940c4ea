"""Filling a cache before anybody asks: a few loads at a time, what is fresh left alone, failures told at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from ._computing import DEFAULT_OPTIONS
from ._loading import LoadContext, current_load
from ._options import Duration, seconds, whole
from .exceptions import CacheError, ConfigurationError, MissingExtraError
from .manager import AnyManager, UnifiedCacheManager, get_cache_manager
from .model_cache import CATEGORY, SUCCESS_TTL, ModelResponseCache, is_error, tell, unified

J = TypeVar("J")

USER_CATEGORY: Final = "user_data"
"""Category of the data of users."""
USER_TTL: Final = 1800.0
"""Seconds that the data of a user lives, if the caller does not say."""
_CONCURRENCY: Final = 4
_NOTHING: Final = object()
_ERRORS: Final = 100
"""Failures of which the error is kept."""
_REASONS: Final[Mapping[str, str]] = {
    "layer_failed": "not kept in every layer",
    "beyond_memory": "too large for memory",
    "too_large": "larger than all that may be kept",
    "fenced": "invalidated while it was loaded",
    "skipped": "the load asked not to keep it",
    "ttl": "a ttl of 0 keeps nothing",
    "unstorable": "of a type that cannot be stored",
}

Progress = bool | Callable[[int, int | None], None]
"""`True`: a bar on the terminal. A function is called with how many are done, and of how many (`None`: not known)."""


class NotWarmed(CacheError):
    """Something was loaded, or refused to be, and is not in the cache.

    Attributes:
        reason: why, in words that hold nothing of what was loaded.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __reduce__(self) -> tuple[type[NotWarmed], tuple[str]]:
        return type(self), (self.reason,)


@dataclass(frozen=True, slots=True)
class WarmFailure:
    """Something that is not in the cache although it was to be.

    Attributes:
        number: its place among what was to be warmed, from 1 on.
        reason: the type of what was raised, or words; nothing of a prompt, an answer or a user.
        error: what was raised, whose text may hold anything; `None` where nothing was, and beyond the first 100, as an
            error keeps alive all that was under way around it.
    """

    number: int
    reason: str
    error: Exception | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What became of all that was to be warmed.

    Attributes:
        warmed: how many were loaded and are in the cache now.
        fresh: how many were there already.
        failures: the others, in the order of their numbers.
    """

    warmed: int
    fresh: int
    failures: tuple[WarmFailure, ...] = ()


class Warming(Generic[J]):
    """One run over many jobs, so many at a time.

    Args:
        jobs: what is to be warmed; taken one by one, when there is room for the next.
        warm: does one job: true if it loaded something, false if that was fresh. Whatever `Exception` it raises is
            noted, and the run goes on.
        concurrency: jobs at a time, ≥ 1.
        total: how many jobs there are; `None`: not known.
        progress: see `Progress`. A bar needs the extra `server`.

    Raises:
        ConfigurationError: `concurrency` is no whole number of 1 or more, or `progress` something else.
    """

    def __init__(
        self,
        jobs: Iterable[J],
        warm: Callable[[J], Awaitable[bool]],
        *,
        concurrency: int = _CONCURRENCY,
        total: int | None = None,
        progress: Progress = False,
    ) -> None:
        whole("concurrency", concurrency)
        if not isinstance(progress, bool) and not callable(progress):
            raise ConfigurationError("progress must be True, False or a function of two numbers")
        self._jobs = enumerate(jobs, 1)
        self._warm = warm
        self._concurrency = concurrency
        self._total = total
        self._progress = progress
        self._warmed = self._fresh = 0
        self._failures: list[WarmFailure] = []

    async def run(self) -> WarmReport:
        """Do all jobs. Cancelling it cancels those under way; what is done stays done.

        Raises:
            MissingExtraError: the progress bar is not installed.
            Exception: what `jobs` or `progress` raised.
        """
        with _shown(self._progress, self._total) as tell:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._concurrency):
                        group.create_task(self._work(tell))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the others are of the same kind
        return self.report()

    def report(self) -> WarmReport:
        """What has become of the jobs so far, also of a run that was cancelled."""
        return WarmReport(self._warmed, self._fresh, tuple(sorted(self._failures, key=lambda failure: failure.number)))

    async def _work(self, tell: Callable[[int, int | None], None]) -> None:
        for number, job in self._jobs:
            try:
                loaded = await self._warm(job)
            except NotWarmed as failure:
                self._failures.append(WarmFailure(number, failure.reason))
            except Exception as error:  # noqa: BLE001  # one that fails is no reason to leave out the others
                kept = error if len(self._failures) < _ERRORS else None
                self._failures.append(WarmFailure(number, type(error).__qualname__, kept))
            else:
                if loaded:
                    self._warmed += 1
                else:
                    self._fresh += 1
            tell(self._warmed + self._fresh + len(self._failures), self._total)


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
        concurrency: int = _CONCURRENCY,
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


@contextmanager
def _shown(progress: Progress, total: int | None) -> Iterator[Callable[[int, int | None], None]]:
    if progress is False:
        yield lambda done, of: None
        return
    if progress is not True:
        yield progress
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ModuleNotFoundError as error:
        raise MissingExtraError("server", "progress=True") from error
    console = Console(stderr=True)  # what a program prints is its own
    with Bar(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, of: bar.update(task, completed=done)
