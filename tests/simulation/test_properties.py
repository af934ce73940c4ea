"""What several caches over one shared layer promise, whatever happens, in simulated worlds.

The properties have the numbers P1 to P7. P8 (no stored bytes can make reading raise or run code) and P9 (values come
back exactly, with their types) are those of `tests/codecs`: `test_frames.py` and `test_values.py`.

Each test runs some worlds, and many under the marker `reliability`. A failure tells what happened, and its seed.
`SIMULATION_SEEDS=17` or `SIMULATION_SEEDS=0:5000` runs these seeds in their place; with the same `PYTHONHASHSEED`, a
seed gives the same world in every process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from dataclasses import replace

import pytest

from aurelis.cache import EntryOptions
from aurelis.cache.testing import Faults
from tests.simulation.world import EVERYTHING, HEARTBEAT, LEASE, LOADS, TIMEOUT, Scenario, Setup, World, simulate

WORLDS = 15
LAG = 0.3
GRACE = 1.0
L1_TTL = 20.0
LOAD = 1.0

PLAIN = EntryOptions()
STALE = EntryOptions(stale_while_revalidate=3, stale_if_error=6, throttle=1)
PATIENT = EntryOptions(stale_if_error=5, soft_timeout=0.1, hard_timeout=0.5)
HASTY = EntryOptions(hard_timeout=0.2, background_completion=False, lease_wait=0.5)
EARLY = EntryOptions(early_refresh=0.5, early_beta=1.0, jitter=1.0, ttl=10)
VARIED = (PLAIN, STALE, PATIENT, HASTY, EARLY)

NEAR = Faults(delay=(0.0, 0.005))
"""A shared layer that works."""
UNRELIABLE = Faults(fail=0.1, fail_after=0.1, hang=0.03, hang_after=0.03, delay=(0.0, 0.05))
LATE = Faults(lag=(0.0, LAG), duplicate=0.2)
"""Messages that all arrive, in any order, some of them twice."""
LOSSY = replace(LATE, drop=0.3, beats=False, disconnect=0.02)
"""Messages of which some are lost; signs of life are not, unless the connection ends."""
NO_WORD = Faults(drop=1.0, refuse=0.5, disconnect=0.1)

HEARD = LAG + 0.1
"""Seconds until a message has arrived."""
NOTICED = 2 * (HEARTBEAT + LAG + 0.1) + GRACE
"""Seconds until a lost message is noticed: the next sign of life shows a hole, and a later one that it stays."""
FORGOTTEN = L1_TTL + LOAD + 4 * TIMEOUT
"""Seconds until memory has forgotten what was loaded before."""

HEALTHY = Setup(operations=EVERYTHING, calls=NEAR, news=LATE, bound=HEARD)
WORLD_KINDS = {
    "healthy": HEALTHY,
    "one-key": replace(
        HEALTHY,
        operations={"get": 4, "set": 3, "load": 4, "delete": 1},
        calls=Faults(delay=(0.0, 0.05)),
        news=Faults(lag=(0.0, 0.01)),
        keys=1,
        gap=0.5,
        bound=0.2,
    ),
    "stale-values": replace(HEALTHY, options=VARIED),
    "unreliable-layer": replace(HEALTHY, calls=UNRELIABLE, options=VARIED),
    "lost-messages": replace(HEALTHY, news=LOSSY, bound=NOTICED),
    "lost-records": replace(HEALTHY, evicts=0.2, options=VARIED),
    "deaths": replace(HEALTHY, crashes=0.05),
    "all-at-once": replace(
        HEALTHY,
        calls=UNRELIABLE,
        news=replace(LOSSY, beats=True, refuse=0.3),
        evicts=0.1,
        crashes=0.02,
        options=VARIED,
        bound=FORGOTTEN,
    ),
}
LONG = [pytest.mark.reliability, pytest.mark.timeout(900)]
"""Marks of what computes for minutes, on a busy machine for some more."""
MARKS = [pytest.param(False, id="some"), pytest.param(True, id="many", marks=LONG)]
many = pytest.mark.parametrize("many", MARKS)


def seeds(many: bool, part: float = 1.0) -> Iterable[int]:
    """Returns the seeds of a test."""
    if given := os.environ.get("SIMULATION_SEEDS"):
        first, colon, last = given.partition(":")
        return range(int(first), int(last) if colon else int(first) + 1)
    number = max(1, round(WORLDS * part))
    return range(number, number * 50) if many else range(number)


def all_hold(setup: Setup, scenario: Scenario, many: bool, part: float = 1.0) -> list[World]:
    """Runs one world for each seed; returns them."""
    worlds = []
    for seed in seeds(many, part):
        try:
            worlds.append(simulate(setup, scenario, seed).value)
        except BaseException as error:
            error.add_note(f"to run it again: PYTHONHASHSEED={_hash_seed()} SIMULATION_SEEDS={seed}")
            raise
    return worlds


def _hash_seed() -> str:
    return os.environ.get("PYTHONHASHSEED") or ("0" if not sys.flags.hash_randomization else "unknown")


async def live(world: World) -> None:
    """Nothing but that it happens: each answer is checked when it comes."""
    await world.live()


# --- P1: one load at a time


@many
@pytest.mark.parametrize("calls", [pytest.param(NEAR, id="healthy"), pytest.param(UNRELIABLE, id="unreliable-layer")])
def test_p1_a_node_loads_a_key_once_at_a_time(calls: Faults, many: bool) -> None:
    setup = replace(HEALTHY, operations=LOADS, calls=calls, news=LOSSY, options=VARIED, cancels=0.3, alone="node")
    worlds = all_hold(setup, live, many)
    assert sum(world.loads for world in worlds) > 3 * len(worlds)


@many
def test_p1_while_leases_are_healthy_all_nodes_together_load_a_key_once_at_a_time(many: bool) -> None:
    """Also where a load takes longer than a lease lasts."""
    setup = replace(HEALTHY, operations=LOADS, news=LOSSY, load=3 * LEASE, cancels=0.2, alone="cluster", bound=1e9)
    worlds = all_hold(setup, live, many)
    assert max(world.loads for world in worlds) > 5


@many
def test_p1_after_the_death_of_who_loads_another_node_takes_over_when_the_lease_ends(many: bool) -> None:
    async def die_and_wait(world: World) -> None:
        first, second = world.nodes[:2]
        loading = asyncio.Event()

        async def never() -> object:
            loading.set()
            await asyncio.sleep(1e6)
            raise AssertionError("it is dead")

        async def value() -> object:
            return 1

        key = world.keys[0]
        dead = asyncio.create_task(first.manager.get_or_compute(key, never))
        first.callers.add(dead)
        await loading.wait()
        await asyncio.sleep(world.random.uniform(0.0, 2 * LEASE))
        waiting = asyncio.create_task(second.manager.get_or_compute(key, value))
        await asyncio.sleep(world.random.uniform(0.0, LEASE))
        assert not waiting.done()
        world.nodes.remove(first)
        await first.die()
        begin = world.time
        assert await waiting == 1
        assert world.time - begin < LEASE + 1.0

    all_hold(replace(HEALTHY, operations=LOADS, bound=1e9), die_and_wait, many)


# --- P2: cancelling


@many
def test_p2_a_caller_that_nobody_cancels_never_sees_a_cancellation(many: bool) -> None:
    setup = replace(HEALTHY, calls=UNRELIABLE, news=LOSSY, options=VARIED, cancels=0.6, bound=FORGOTTEN, gap=0.1)
    all_hold(setup, live, many)


# --- P3: nothing that is out of date


@many
@pytest.mark.parametrize("kind", WORLD_KINDS)
def test_p3_what_was_loaded_before_an_invalidation_is_not_served_after_it(kind: str, many: bool) -> None:
    """At once on the node of the invalidation; on others as soon as they can have heard of it, or noticed that not."""
    worlds = all_hold(WORLD_KINDS[kind], live, many)
    assert sum(world.model.checked for world in worlds) > 5 * len(worlds)


# --- P4: nothing that is too old


@many
def test_p4_without_any_word_nothing_is_older_than_its_time_allows(many: bool) -> None:
    setup = replace(HEALTHY, calls=UNRELIABLE, news=NO_WORD, options=VARIED, gap=4.0, bound=FORGOTTEN)
    all_hold(setup, live, many)


# --- P5: agreement


@many
@pytest.mark.parametrize("kind", ["one-key", "lost-messages", "unreliable-layer", "all-at-once"])
def test_p5_when_everything_works_again_all_nodes_agree_with_the_shared_layer(kind: str, many: bool) -> None:
    async def live_and_agree(world: World) -> None:
        await world.live()
        world.heal()
        await asyncio.sleep(10 * HEARTBEAT)
        await world.agree(strictly=kind in ("one-key", "lost-messages"))

    setup = replace(WORLD_KINDS[kind], cancels_writes=False, config={"ttl": 600, "l1_ttl": 300}, bound=1e9)
    all_hold(setup, live_and_agree, many)


# --- P6: a failing layer


@many
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(fail=1.0), id="fails"),
        pytest.param(Faults(fail_after=1.0), id="fails-after"),
        pytest.param(Faults(hang=1.0), id="hangs"),
        pytest.param(Faults(hang_after=1.0), id="hangs-after"),
        pytest.param(Faults(delay=(0.0, 0.2)), id="slow"),
        pytest.param(replace(UNRELIABLE, fail=0.3, hang=0.2, hang_after=0.2), id="unreliable"),
    ],
)
def test_p6_a_failing_layer_fails_no_call_and_takes_no_more_than_its_budget(faults: Faults, many: bool) -> None:
    setup = Setup(
        operations={"get": 3, "get_many": 1, "set": 2, "set_many": 1, "load": 6},
        calls=faults,
        news=LOSSY,
        bound=FORGOTTEN,
        nodes=1,
        options=VARIED,
    )
    all_hold(setup, live, many, 0.5)


# --- P7: nothing left


@many
@pytest.mark.parametrize("kind", ["stale-values", "all-at-once"])
def test_p7_nothing_is_left_of_tasks_loads_and_leases(kind: str, many: bool) -> None:
    """Tasks, timers and generators are counted by the loop itself, when the world has ended."""

    async def live_and_leave(world: World) -> None:
        await world.live()
        world.heal()
        await asyncio.sleep(LEASE if kind == "all-at-once" else 4 * TIMEOUT)
        await asyncio.sleep(LOAD)
        assert world.shared.leases() == []

    setup = WORLD_KINDS[kind]
    all_hold(replace(setup, cancels=0.0 if kind == "stale-values" else 0.3), live_and_leave, many)


# --- the simulation itself


def test_a_seed_gives_the_same_world_again() -> None:
    setup = WORLD_KINDS["all-at-once"]
    first, again, other = (simulate(setup, live, seed) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    assert first.value.model.story == again.value.model.story
