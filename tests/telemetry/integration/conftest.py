"""A backend for each test, and providers of its own."""

from collections.abc import AsyncIterator, Iterator

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.telemetry.instrumentor import AurelisCacheInstrumentor
from aurelis.cache.testing import ManualClock
from tests.client.upstream import Server, Upstream
from tests.managers import opened
from tests.telemetry.integration.collector import Collector, collecting
from tests.telemetry.integration.seen import Seen


@pytest.fixture
def collector() -> Iterator[Collector]:
    """What takes OTLP."""
    with collecting() as server:
        yield server


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What telemetry says; the spans of the cache are there."""
    seen = Seen()
    AurelisCacheInstrumentor().instrument(tracer_provider=seen.tracers)
    yield seen
    AurelisCacheInstrumentor().uninstrument()


@pytest.fixture
def clock() -> ManualClock:
    """The time of the manager."""
    return ManualClock()


@pytest.fixture
async def manager(clock: ManualClock) -> AsyncIterator[CacheManager]:
    """A cache in memory."""
    async with opened(clock=clock) as manager:
        yield manager


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that all tests of this process share."""
    with Server().running() as running:
        yield running


@pytest.fixture
def upstream(server: Server) -> Upstream:
    """This test's part of the server."""
    return server.part()
