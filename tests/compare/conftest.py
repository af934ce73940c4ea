"""The server that all probes share."""

from collections.abc import Iterator

import pytest

from tests.client.upstream import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that all probes share."""
    with Server().running() as running:
        yield running
