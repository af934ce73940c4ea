"""The page about the probes lists them all, and this cache does what it says there."""

import pytest

from tests.client.upstream import Server
from tests.compare.__main__ import PAGE, passed
from tests.compare.bench import PASSED, Probe, asked
from tests.compare.probes import PROBES
from tests.compare.subjects import SUBJECTS, Aurelis


def test_the_page_lists_all_probes_in_their_order() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    names = {probe.name for probe in PROBES}
    assert len(names) == len(PROBES)
    assert [row for row in rows if row in names] == [probe.name for probe in PROBES]


def test_the_page_says_how_each_cache_is_made() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.read_text().splitlines()]
    assert [kind.name for kind in SUBJECTS if kind.name not in rows] == []


@pytest.mark.parametrize("probe", [pytest.param(one, id=one.name) for one in PROBES if one.name in passed()])
async def test_this_cache_does_what_the_page_says(probe: Probe, server: Server) -> None:
    assert await asked(probe, Aurelis(), server, settling=0) == PASSED


def test_nearly_all_are_passed() -> None:
    assert len(passed()) >= len(PROBES) - 1
