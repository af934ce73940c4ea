"""Managers that end with the test, and the rule that a test leaves nothing running."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.testing import ManualClock
from tests.managers import eventually, is_settled

MakeManager = Callable[..., CacheManager]


@pytest.fixture
def clock() -> ManualClock:
    """The time that the managers of this test go by."""
    return ManualClock()


@pytest.fixture(autouse=True)
async def make_manager(clock: ManualClock) -> AsyncIterator[MakeManager]:
    """A function that makes a manager from options of `CacheConfig`.

    After the test none of them has a load or somebody who waits for one, and no task of the test is left.
    """
    before = asyncio.all_tasks()
    managers: list[CacheManager] = []

    def make(**options: Any) -> CacheManager:  # `Any`: whatever CacheConfig takes
        manager = CacheManager(CacheConfig(**options), clock=clock)
        managers.append(manager)
        return manager

    yield make
    await eventually(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})
    assert all(map(is_settled, managers))
    for manager in managers:
        await manager.aclose()


@pytest.fixture
def manager(make_manager: MakeManager) -> CacheManager:
    """A manager with memory alone."""
    return make_manager()
