"""What a load may say about its own result."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from . import _tags
from ._options import Duration, seconds
from .exceptions import CacheError


@dataclass(slots=True)
class LoadContext:
    """The load that runs here: what was there before, and what the load decides about its result.

    Attributes:
        has_stale: there is a stale value.
        stale: the stale value, a copy of the load's own; `None` when there is none.
        etag: validator stored with the stale value; what is assigned to it is stored with the new one.
        last_modified: likewise.
        outcome: what became of the result when the load is over: `stored`, `layer_failed` (a layer below memory did not
            take it), `beyond_memory` (too large for it), `too_large`, `fenced`
            (something newer has overtaken it), `skipped`, `ttl` (it was 0) or `unstorable`; empty until then, and after
            a load that failed.
    """

    has_stale: bool = False
    stale: Any = field(default=None, repr=False)  # only the load knows what it stored
    etag: str | None = None
    last_modified: str | None = None
    outcome: str = ""
    _ttl: float | None = field(default=None)
    _tags: tuple[str, ...] = field(default=())
    _skipped: bool = field(default=False)
    _stale_tags: tuple[str, ...] = field(default=())
    _tagged: Callable[[tuple[str, ...]], None] | None = field(default=None)

    def set_ttl(self, ttl: Duration) -> None:
        """Keep the result for this long, whatever the caller said; 0: don't keep it.

        Raises:
            ValueError: it is negative or not a number.
        """
        self._ttl = seconds(ttl)

    def add_tags(self, *names: str) -> None:
        """Tags of the result, beside those of the caller."""
        self._add(_tags.tags(names))

    def skip(self) -> None:
        """Give the result to those who wait, and don't keep it."""
        self._skipped = True

    def not_modified(self) -> Any:
        """The stale value, to be returned when the origin says that it has not changed; it is fresh again then.

        Raises:
            CacheError: there is no stale value.
        """
        if not self.has_stale:
            raise CacheError("not_modified() needs a stale value; look at has_stale first")
        self._add(self._stale_tags)
        return self.stale

    def _add(self, tags: tuple[str, ...]) -> None:
        self._tags = tuple(dict.fromkeys((*self._tags, *tags)))
        if self._tagged is not None:
            self._tagged(self._tags)


_current: ContextVar[LoadContext | None] = ContextVar("aurelis_cache_load", default=None)


def current_load() -> LoadContext:
    """The load in which this is called; also from functions that it calls.

    Raises:
        CacheError: called from outside of a load.
    """
    context = _current.get()
    if context is None:
        raise CacheError("current_load() is for functions that get_or_compute or @cached run")
    return context


def begin(context: LoadContext) -> None:
    """Make it the current one. To be called in the load's own task."""
    _current.set(context)
