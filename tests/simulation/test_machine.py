"""Plans of what happens to several nodes, made and shrunk by Hypothesis, and played in a simulated world.

The worlds of `test_properties` draw what happens as they go, which finds more; what fails here is short, since
Hypothesis leaves out whatever does not matter. Every answer is held against the model. With the plan that it prints,
and the same PYTHONHASHSEED, a failure comes back exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.simulation.test_properties import FORGOTTEN, WORLD_KINDS
from tests.simulation.world import EVERYTHING, World, simulate

Step = Callable[[World], Coroutine[Any, Any, None]]

PAUSES = st.sampled_from((0.0, 0.0, 0.001, 0.05, 1.0, 5.0, 30.0))
NODES = st.integers(0, 2)


class Plan(RuleBasedStateMachine):
    """Each rule adds a step; the plan is played when it is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.kind = ""
        self.seed = 0

    @initialize(kind=st.sampled_from(sorted(WORLD_KINDS)), seed=st.integers(0, 2**16))
    def begin(self, kind: str, seed: int) -> None:
        """In what kind of world, and in which order."""
        self.kind, self.seed = kind, seed

    @rule(node=NODES, operation=st.sampled_from(sorted(EVERYTHING)))
    def ask(self, node: int, operation: str) -> None:
        """A caller begins, and is not waited for."""

        async def step(world: World) -> None:
            world.start(world.nodes[node], operation)

        self.steps.append(step)

    @rule(node=NODES, count=st.integers(2, 5))
    def ask_at_once(self, node: int, count: int) -> None:
        """Several callers of one node want values."""

        async def step(world: World) -> None:
            for _ in range(count):
                world.start(world.nodes[node], "load")

        self.steps.append(step)

    @rule(node=NODES)
    def leave(self, node: int) -> None:
        """All callers of a node leave."""

        async def step(world: World) -> None:
            for task in tuple(world.nodes[node].callers):
                task.cancel()

        self.steps.append(step)

    @rule(pause=PAUSES)
    def wait(self, pause: float) -> None:
        """Time passes."""

        async def step(world: World) -> None:
            await asyncio.sleep(pause)

        self.steps.append(step)

    @rule()
    def lose(self) -> None:
        """The shared layer loses a record."""

        async def step(world: World) -> None:
            world.evict()

        self.steps.append(step)

    @rule(node=NODES)
    def die(self, node: int) -> None:
        """A node dies, and another one takes its place."""

        async def step(world: World) -> None:
            victim = world.nodes.pop(node)
            world.tell(f"{victim.name} dies")
            await victim.die()
            world.join()

        self.steps.append(step)

    @rule(node=NODES)
    def cut(self, node: int) -> None:
        """The network of a node ends."""

        async def step(world: World) -> None:
            world.nodes[node].calls.cut()
            world.nodes[node].news.cut()

        self.steps.append(step)

    @rule()
    def heal(self) -> None:
        """Everything works again."""

        async def step(world: World) -> None:
            world.heal()

        self.steps.append(step)

    def teardown(self) -> None:
        """Play it."""
        if self.kind:
            # Records may be lost in any kind of world here, and any node may be cut off.
            setup = replace(WORLD_KINDS[self.kind], number=0, cancels=0.0, bound=FORGOTTEN, evicts=0.1)
            simulate(setup, self.play, self.seed)

    async def play(self, world: World) -> None:
        """One step after the other, and then to the end."""
        for step in self.steps:
            await step(world)
        await world.rest()


LONG = [pytest.mark.reliability, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("plans", "steps"),
    [
        pytest.param(30, 30, id="some"),
        pytest.param(1500, 50, id="many", marks=[pytest.mark.reliability, pytest.mark.timeout(900)]),
    ],
)
def test_no_plan_gives_an_answer_that_the_model_forbids(plans: int, steps: int) -> None:
    bounds = settings(
        max_examples=plans,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(Plan, settings=bounds)
