"""The caches of one worker: how they are made, and how they begin and end together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.exceptions import CacheError

from .assistant import Answer
from .settings import FAQ, MODELS, RATINGS, WEB, WorkerSettings

_PATIENCE: Final = 2.0
"""Seconds for Redis and the disk, more than usual: app, model and driver share this machine, and may let it wait."""
_CLEAR: Final = 2.0
"""Seconds that clearing Redis may take at the end."""


@dataclass(frozen=True, slots=True)
class Caches:
    """One for each thing that is cached, so that each has figures of its own."""

    web: CacheManager
    """Responses of the app."""
    models: CacheManager
    """Calls of models. Those are dear, so their answers are on the disk, too."""
    faq: CacheManager
    """Answers to frequent questions."""
    ratings: CacheManager
    """Ratings of packages."""

    @contextlib.asynccontextmanager
    async def opened(self, *, clear: bool) -> AsyncIterator[None]:
        """Close them in the end, and before that leave Redis as it was, if it answers; otherwise entries expire."""
        managers = (self.web, self.models, self.faq, self.ratings)
        async with self.web, self.models, self.faq, self.ratings:
            yield
            if clear:
                with contextlib.suppress(CacheError, TimeoutError):
                    async with asyncio.timeout(_CLEAR):
                        for manager in managers:
                            await manager.clear()


def make_caches(settings: WorkerSettings) -> Caches:
    """All of them, not connected yet.

    Raises:
        CacheError: The settings of a cache are wrong.
    """

    def manager(name: str, **more: Any) -> CacheManager:  # fields of `CacheConfig`
        namespace = f"{settings.namespace}-{name}"
        return CacheManager(
            CacheConfig(name=name, namespace=namespace, redis_url=settings.redis_url, timeout=_PATIENCE, **more)
        )

    return Caches(
        web=manager(WEB),
        models=manager(MODELS, cache_dir=settings.data),
        faq=manager(FAQ, types=[Answer]),
        ratings=manager(RATINGS),
    )
