"""The counts of several caches over one shared layer are exact, whatever happens, in simulated worlds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.managers import own_counts
from tests.simulation.test_properties import WORLD_KINDS, many, seeds
from tests.simulation.world import Node, Setup, World, simulate
from tests.telemetry.exact.ledger import Counts, Ledger, check

CANCELLED = {"get": 6, "set": 2, "set_many": 1, "load": 8, "refresh": 2, "delete": 2, "tags": 2, "clear": 1}
PLANS = {**CANCELLED, "get_many": 3}
AFTERWARDS = 30.0
"""Seconds in which everything ends that goes on in the background."""


def run(setup: Setup, seed: int) -> None:
    """One world, whose callers count, and whose counts are compared with theirs at its end."""

    async def live(world: World) -> None:
        ledger, counts, join = Ledger(), Counts("simulated"), world.join

        def join_and_count() -> Node:
            node = join()
            ledger.keep(node.manager)
            return node

        for node in world.nodes:
            ledger.keep(node.manager)
        world.join = join_and_count  # type: ignore[method-assign]  # of this world alone
        await world.live()
        world.heal()
        await asyncio.sleep(AFTERWARDS)
        assert ledger.loads == world.loads
        check(counts, ledger, sets=not setup.cancels and not setup.crashes)

    with own_counts():
        simulate(setup, live, seed)


@many
@pytest.mark.parametrize("kind", [*WORLD_KINDS])
def test_counts_of_any_plan(kind: str, many: bool) -> None:
    for seed in seeds(many):
        run(replace(WORLD_KINDS[kind], operations=PLANS, cancels=0.0, crashes=0.0), seed)


@many
@pytest.mark.parametrize("kind", [*WORLD_KINDS])
def test_counts_of_callers_that_leave_and_of_nodes_that_die(kind: str, many: bool) -> None:
    for seed in seeds(many):
        run(replace(WORLD_KINDS[kind], operations=CANCELLED, cancels=0.4, gap=0.2), seed)
