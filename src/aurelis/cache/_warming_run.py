"""One run over many jobs that fill a cache: a few at a time, failures told at the end, progress shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from ._options import whole
from .exceptions import CacheError, ConfigurationError, MissingExtraError

J = TypeVar("J")

CONCURRENCY: Final = 4
"""Jobs at a time, if nobody says how many."""
_ERRORS: Final = 100
"""Failures of which the error is kept."""

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
        concurrency: int = CONCURRENCY,
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
