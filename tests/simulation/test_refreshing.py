"""What was loaded anew is not followed by what was there before, whatever else happens, in simulated worlds."""

from dataclasses import replace

import pytest

from tests.simulation.test_properties import WORLD_KINDS, all_hold, live, many


@many
@pytest.mark.parametrize("kind", sorted(WORLD_KINDS))
def test_after_a_refresh_nothing_older_is_served(kind: str, many: bool) -> None:
    setup = WORLD_KINDS[kind]
    worlds = all_hold(replace(setup, operations={**setup.operations, "refresh": 4}), live, many)
    assert sum(any("refresh" in change.what for change in world.model.changes) for world in worlds) > len(worlds) / 2
