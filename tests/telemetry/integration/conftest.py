"""A backend for each test."""

from collections.abc import Iterator

import pytest

from tests.telemetry.integration.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    """What takes OTLP."""
    with collecting() as server:
        yield server
