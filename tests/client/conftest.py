"""A server, a manager and a client of each kind."""

from collections.abc import AsyncIterator, Iterator

import pytest

from aurelis.cache import CacheManager
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import Server, Upstream
from tests.managers import opened


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that all tests of this process share."""
    with Server().running() as running:
        yield running


@pytest.fixture
def upstream(server: Server) -> Upstream:
    """This test's part of the server; it answers as a model does."""
    return server.part()


@pytest.fixture
async def manager() -> AsyncIterator[CacheManager]:
    """A cache in memory. In the end nothing is left of the loads."""
    async with opened() as manager:
        yield manager


@pytest.fixture(params=KINDS)
async def stack(request: pytest.FixtureRequest, manager: CacheManager) -> AsyncIterator[Stack]:
    """Each library, with and without an event loop."""
    async with closing(Stack(request.param, manager)) as stack:
        yield stack


@pytest.fixture(params=[kind for kind in KINDS if kind.endswith("async")])
async def async_stack(request: pytest.FixtureRequest, manager: CacheManager) -> AsyncIterator[Stack]:
    """Each library with an event loop."""
    async with closing(Stack(request.param, manager)) as stack:
        yield stack


@pytest.fixture(params=[kind for kind in KINDS if kind.endswith("sync") and not kind.endswith("async")])
async def sync_stack(request: pytest.FixtureRequest, manager: CacheManager) -> AsyncIterator[Stack]:
    """Each library without an event loop."""
    async with closing(Stack(request.param, manager)) as stack:
        yield stack
