"""A server, a manager, and each test of a contract in each mode, streamed and whole."""

from collections.abc import AsyncIterator, Iterator

import pytest

from aurelis.cache import CacheManager
from tests.client.upstream import Server, Upstream
from tests.compat.contract import Clients
from tests.docs.blocks import blocks, page_of
from tests.managers import opened


# Not those of `tests.client`, which need an SDK.
@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that all tests share."""
    with Server().running() as running:
        yield running


@pytest.fixture
def upstream(server: Server) -> Upstream:
    """This test's part of the server."""
    return server.part()


@pytest.fixture
async def manager() -> AsyncIterator[CacheManager]:
    """A cache in memory. In the end nothing is left of the loads."""
    async with opened() as manager:
        yield manager


@pytest.fixture
async def clients(manager: CacheManager) -> AsyncIterator[Clients]:
    """Makes clients for the SDKs."""
    clients = Clients(manager)
    yield clients
    await clients.aclose()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each class says which modes it has, and whether it streams."""
    contract = metafunc.cls
    if contract is None or any(mark.args[0] == "mode" for mark in metafunc.definition.iter_markers("parametrize")):
        return
    if "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", contract.modes)
    if "feature" in metafunc.fixturenames:
        metafunc.parametrize("feature", contract.features)
    if "line" in metafunc.fixturenames:
        metafunc.parametrize("line", [str(block.line) for block in blocks(page_of(contract.sdk))])
    if "stream" in metafunc.fixturenames:
        values = [value for value in (False, True) if (contract.streams if value else contract.wholes)]
        metafunc.parametrize("stream", values, ids=lambda value: "streamed" if value else "whole")
