"""Several caches over one shared layer in a simulated event loop, and everything that can happen to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from aurelis.cache import CacheConfig, CacheManager, EntryOptions, _tags
from aurelis.cache._clock import Clock
from aurelis.cache._flight import Flight
from aurelis.cache._flight import current as current_flight
from aurelis.cache.exceptions import CacheClosedError, LayerError, LoadTimeoutError
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, SharedMemory
from tests.managers import is_settled
from tests.simulation.loop import STEPS, Simulated, current, run
from tests.simulation.model import Change, LoadFailed, Made, Model, Moment, Violation

T = TypeVar("T")

TAGS = ("red", "blue")
HEARTBEAT, LEASE, TIMEOUT = 2.0, 4.0, 0.25
MARGIN = 0.01
"""Seconds by which a deadline may be late."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What kind of world it is.

    Attributes:
        calls: faults of calls to the shared layer.
        news: faults of messages.
        bound: seconds after which a change counts on other nodes.
        operations: how often what is done; see `World._operations`.
        number: operations in all.
        gap: seconds between two of them, at most; some come at once.
        cancels: part of the callers that leave early.
        cancels_writes: also of those who change something: nobody knows then whether it was done.
        load: seconds that a load takes, at most.
        fails: part of the loads that fail.
        evicts: part of the operations before which the shared layer loses a record.
        crashes: part of the operations before which a node dies.
        options: with which values are loaded.
        config: of the managers.
        alone: where at most one load of a key may run at a time: on a `node`, in the `cluster`; empty: anywhere.
    """

    calls: Faults = Faults()  # noqa: RUF009  # frozen
    news: Faults = Faults()  # noqa: RUF009
    bound: float
    operations: dict[str, int]
    number: int = 60
    nodes: int = 3
    keys: int = 3
    gap: float = 1.0
    cancels: float = 0.1
    cancels_writes: bool = True
    load: float = 1.0
    fails: float = 0.1
    evicts: float = 0.0
    crashes: float = 0.0
    options: tuple[EntryOptions, ...] = (EntryOptions(),)
    config: dict[str, Any] = field(default_factory=dict)
    alone: Literal["", "node", "cluster"] = ""


EVERYTHING = {"get": 6, "get_many": 1, "set": 2, "set_many": 1, "load": 8, "delete": 2, "tags": 2, "clear": 1}
LOADS = {"get": 2, "load": 8}


class Node:
    """One process: a cache, and the faults of its ways."""

    def __init__(self, world: World, number: int) -> None:
        setup, chance = world.setup, world.random
        self.name = f"node {number}"
        # No two machines have the same time: neither the same wall clock nor the same beginning of the monotonic one.
        wall = current().clock(chance.uniform(-100.0, 100.0))
        begin = chance.uniform(0.0, 1e6)
        self.clock = Clock(lambda: begin + wall.monotonic(), wall.time)
        self.calls = Chaos(setup.calls, seed=chance.getrandbits(32))
        self.news = Chaos(setup.news, seed=chance.getrandbits(32))
        layer = ChaosSharedLayer(world.shared.node(self.clock), self.calls, self.news)
        self.manager = CacheManager(CacheConfig(**world.config), clock=self.clock, lower=[layer])
        self.callers: set[asyncio.Task[Any]] = set()
        self.alive = True

    def heal(self) -> None:
        """Everything works again."""
        self.calls.heal()
        self.news.heal()

    async def die(self) -> None:
        """Stop in the middle of everything, and tell nobody."""
        self.alive = False
        self.calls.cut()
        self.news.cut()
        flights = self.manager._engine.flights
        tasks = [*self.callers, *flights._tasks, *flights._own]
        for task in sorted(tasks, key=current()._order.number):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class World:
    """All nodes, what they share, and the model of what they may answer."""

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup = setup
        self.random = random.Random(seed)
        self.config: dict[str, Any] = {
            "name": "simulated",
            "namespace": "sim",
            "ttl": 60,
            "l1_ttl": 20,
            "timeout": TIMEOUT,
            "lease": LEASE,
            "heartbeat": HEARTBEAT,
            **setup.config,
        }
        self.shared = SharedMemory(current().clock(), cluster=self.random.random() < 0.5)
        self.model = Model(setup.bound, slack=TIMEOUT * 4)
        self.nodes: list[Node] = []
        self._count = 0
        self._loading: dict[str, list[tuple[Node, asyncio.Task[Any], Flight[Any] | None]]] = {}
        self.loads = 0
        self.most = 0
        self.problems: list[BaseException] = []
        for _ in range(setup.nodes):
            self.join()
        builder = self.nodes[0].manager.key_builder
        self.keys = [builder.build_key(*each) for each in (("user", "1"), ("user", "2"), ("page", "1"))][: setup.keys]

    def join(self) -> Node:
        """One more node, which knows nothing."""
        self._count += 1
        node = Node(self, self._count)
        self.nodes.append(node)
        return node

    @property
    def time(self) -> float:
        """Virtual seconds."""
        return current().time()

    def now(self) -> Moment:
        """The next moment."""
        return self.model.now(self.time)

    def tell(self, text: str) -> None:
        """Write it down."""
        self.model.tell(self.time, text)

    # What happens

    async def live(self) -> None:
        """Let it all happen, and wait for those who still wait."""
        names, weights = zip(*self.setup.operations.items(), strict=True)
        for _ in range(self.setup.number):
            chance = self.random
            # Many at once, now and then a moment, rarely long enough for something to expire.
            pause = chance.choice((0.0, 0.0, 0.0, 0.001, 0.05, 1.0)) * chance.random() * self.setup.gap
            await asyncio.sleep(pause * (10 if chance.random() < 0.05 else 1))
            if chance.random() < self.setup.evicts:
                self.evict()
            if chance.random() < self.setup.crashes:
                await self.crash()
            (name,) = chance.choices(names, weights)
            self.start(chance.choice(self.nodes), name)
        await self.rest()

    async def rest(self) -> None:
        """Wait for all callers."""
        while callers := [task for node in self.nodes for task in node.callers]:
            await asyncio.wait(callers)
        if self.problems:
            raise self.problems[0]

    def heal(self) -> None:
        """Everything works again."""
        self.tell("everything works again")
        for node in self.nodes:
            node.heal()

    def evict(self) -> None:
        """The shared layer has too little memory."""
        what = self.random.choice(("entry", "lease", "tags", "clock", "clock and tags"))
        self.tell(f"lost: {what}")
        match what:
            case "entry":
                self.shared.lose_entries(self.random.choice(self.keys))
            case "lease":
                self.shared.lose_leases(self.random.choice(self.keys))
            case "tags":
                self.shared.lose_tags(*[tag for tag in self.shared.tags() if self.random.random() < 0.5])
            case "clock":
                self.shared.lose_clock()
            case _:
                self.shared.lose_clock()
                self.shared.lose_tags(*self.shared.tags())

    async def crash(self) -> None:
        """A node dies, and another one takes its place."""
        node = self.random.choice(self.nodes)
        self.tell(f"{node.name} dies")
        self.nodes.remove(node)
        await node.die()
        self.join()

    def start(self, node: Node, name: str) -> None:
        """One more caller."""
        operation: Callable[[Node], Coroutine[Any, Any, None]] = getattr(self, f"_{name}")
        task = asyncio.create_task(self._call(node, operation))
        node.callers.add(task)
        task.add_done_callback(node.callers.discard)
        writes = name in ("set", "set_many", "delete", "tags", "clear")
        if self.random.random() < self.setup.cancels and (self.setup.cancels_writes or not writes):
            timer = current().call_later(self.random.choice((0.0, 0.01, 1.0)) * self.random.random(), task.cancel)
            task.add_done_callback(lambda _: timer.cancel())

    async def _call(self, node: Node, operation: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await operation(node)
        except asyncio.CancelledError as error:
            if not task.cancelling():
                self.problems.append(Violation(f"P2: a caller on {node.name} was cancelled by nobody"))
                self.problems[-1].__cause__ = error
        except BaseException as error:  # noqa: BLE001  # whatever it is
            self.problems.append(error)

    # Operations

    async def _get(self, node: Node) -> None:
        key = self.random.choice(self.keys)
        begin = self.now()
        value = await node.manager.get(key)
        self._in_time(f"get on {node.name}", begin)
        self._answered(node, key, value, begin, "get", stale=False)

    async def _get_many(self, node: Node) -> None:
        begin = self.now()
        values = await node.manager.get_many(self.keys)
        self._in_time(f"get_many on {node.name}", begin)
        for key, value in values.items():
            self._answered(node, key, value, begin, "get_many", stale=False)

    async def _load(self, node: Node) -> None:
        key, chance = self.random.choice(self.keys), self.random
        options = chance.choice(self.setup.options)
        tags = chance.choice(((), (), TAGS[:1], TAGS[1:]))
        ttl = chance.choice((None, 2.0, 10.0))
        patience = chance.choice((None, None, None, chance.uniform(0.0, 2.0)))
        begin = self.now()

        async def load() -> object:
            return await self._loaded(node, key, tags, self.config["ttl"] if ttl is None else ttl, options)

        try:
            async with asyncio.timeout(patience):
                value = await node.manager.get_or_compute(key, load, ttl, tags, options)
        except (LoadFailed, LoadTimeoutError):
            return
        except TimeoutError:
            assert patience is not None
            return
        # Whoever asks without it in mind gets what another one's options allowed, from the load that they share.
        stale = any(each.stale_for for each in self.setup.options)
        self._answered(node, key, value, begin, "load", stale=stale)

    async def _refresh(self, node: Node) -> None:
        """Load anew: what was loaded or set before is out of date once the call has returned."""
        key, tags = self.random.choice(self.keys), self.random.choice(((), TAGS[:1]))
        ttl = self.random.choice((2.0, 10.0, 60.0))
        change = Change(f"refresh of {key}", node.name, self.now(), keys=frozenset({key}))

        async def load() -> object:
            return await self._loaded(node, key, tags, ttl, EntryOptions())

        self.tell(f"{node.name}: {change.what} begins")
        try:
            value = await node.manager._computing.get_or_compute(key, load, ttl, _tags.tags(tags), anew=True)
        except LoadFailed:
            return
        made = self._made(value)
        assert made is not None
        if made.key != key or made.begin.order < change.begin.order:
            raise Violation(f"{change.what} on {node.name} gave {made.number}, which was made before")
        change.made = made.number
        change.end = self.now()
        # Otherwise the shared layer may be told later.
        change.acknowledged = not (self.setup.calls.fail or self.setup.calls.hang or self.setup.evicts)
        self.tell(f"{node.name}: {change.what} done, {made.number}")
        self.model.change(change)

    async def _set(self, node: Node) -> None:
        await self._keep(node, [self.random.choice(self.keys)])

    async def _set_many(self, node: Node) -> None:
        await self._keep(node, self.random.sample(self.keys, min(2, len(self.keys))))

    async def _delete(self, node: Node) -> None:
        key = self.random.choice(self.keys)
        soft = self.random.random() < 0.3
        what = f"{'soft ' if soft else ''}delete of {key}"
        change = Change(what, node.name, self.now(), keys=frozenset({key}), soft=soft)
        await self._changed(change, node.manager.delete(key, soft=soft))

    async def _tags(self, node: Node) -> None:
        soft = self.random.random() < 0.3
        if self.random.random() < 0.3:
            change = Change("category user", node.name, self.now(), tags=frozenset({"c:user"}), soft=soft)
            await self._changed(change, node.manager.invalidate_category("user", soft=soft))
            return
        tags = self.random.sample(TAGS, self.random.randint(1, 2))
        names = frozenset(f"t:{tag}" for tag in tags)
        change = Change(f"{'soft ' if soft else ''}tags {tags}", node.name, self.now(), tags=names, soft=soft)
        await self._changed(change, node.manager.invalidate_tags(*tags, soft=soft))

    async def _clear(self, node: Node) -> None:
        change = Change("clear", node.name, self.now(), tags=frozenset({"*"}))
        await self._changed(change, node.manager.clear())

    # Their parts

    async def _keep(self, node: Node, keys: list[str]) -> None:
        ttl = self.random.choice((None, None, 10.0))
        tags = self.random.choice(((), TAGS[:1], TAGS[1:], TAGS))
        values, changes = {}, []
        life = self.config["ttl"] if ttl is None else ttl
        for key in keys:
            made = self.model.make(key, node.name, "set", self.time, tags=tags, ttl=life)
            changes.append(self.model.change(Change(f"set {made.number}", node.name, made.begin, frozenset({key}))))
            changes[-1].made = made.number
            values[key] = made.value
        begin = changes[0].begin
        self.tell(f"{node.name}: set {list(values.values())} of {keys} begins, {tags}")
        stored = await node.manager.set_many(values, ttl, tags)
        self._in_time(f"set on {node.name}", begin)
        self.tell(f"{node.name}: set {list(values.values())} {'done' if stored else 'in part'}")
        for change in changes:
            assert change.made is not None
            change.end = self.model.made[change.made].end = self.now()
            change.acknowledged = stored

    async def _changed(self, change: Change, call: Awaitable[object]) -> None:
        self.tell(f"{change.node}: {change.what} begins")
        self.model.change(change)
        try:
            await call
        except LayerError as error:
            self.tell(f"{change.node}: {change.what} here only: {error}")
        else:
            self.tell(f"{change.node}: {change.what} done")
            change.acknowledged = True
        change.end = self.now()

    async def _loaded(self, node: Node, key: str, tags: tuple[str, ...], ttl: float, options: EntryOptions) -> object:
        made = self.model.make(key, node.name, "load", self.time, tags=tags, ttl=ttl, stale_for=options.stale_for)
        self.tell(f"{node.name}: load {made.number} of {key} begins, {tags}")
        task = asyncio.current_task()
        assert task is not None
        self.loads += 1
        running = self._loading.setdefault(key, [])
        flight = current_flight()
        # Where the shared layer did not say what had been invalidated before a load, that load counts as overtaken as
        # soon as the layer answers again, and whoever comes then begins another one.
        doubtful = self.setup.calls.fail > 0
        others = [
            each
            for each, other, its in running
            if not other.cancelling() and not (doubtful and its is not None and its.fenced)
        ]
        if self.setup.alone == "node" and node in others:
            raise Violation(f"P1: two loads of {key} at once on {node.name}")
        if self.setup.alone == "cluster" and others:
            raise Violation(f"P1: {node.name} loads {key} while {others[0].name} does")
        running.append((node, task, flight))
        self.most = max(self.most, len(running))
        try:
            await asyncio.sleep(self.random.choice((0.0, 0.01, 1.0)) * self.random.random() * self.setup.load)
            if self.random.random() < self.setup.fails:
                self.tell(f"{node.name}: load {made.number} fails")
                raise LoadFailed
            made.end = self.now()
            self.tell(f"{node.name}: load {made.number} ends")
            return made.value
        finally:
            running.remove((node, task, flight))

    def _answered(self, node: Node, key: str, value: object, begin: Moment, call: str, *, stale: bool) -> None:
        self.tell(f"{node.name}: {call} of {key}, begun at {begin.time:.4f}, gives {value}")
        if value is not None:
            self.model.check(node.name, key, value, begin, self.time, stale=stale, call=call)

    def _in_time(self, what: str, begin: Moment) -> None:
        if self.time - begin.time > TIMEOUT + MARGIN:
            raise Violation(f"P6: {what} took {self.time - begin.time:.3f} s")

    # The end

    async def agree(self, *, strictly: bool) -> None:
        """All nodes have what the shared layer has.

        Args:
            strictly: nothing but that. Otherwise a node may have a value of its own where nothing was invalidated, so
                that nothing tells it of the other one: loads that could not be stored in the shared layer, values that
                were lost there, and those that another node has loaded anew.
        """
        observer = self.join()
        observer.heal()
        for key in self.keys:
            truth = self._made(await observer.manager.get(key))
            for node in self.nodes:
                begin = self.now()
                value = await node.manager.get(key)
                self._answered(node, key, value, begin, "get", stale=False)
                made = self._made(value)
                if made is truth:
                    continue
                own = made is not None and (made.kind == "load" or (truth is None and self.setup.evicts > 0))
                anew = made is not None and any(
                    other.key == key and other.kind == "load" and other.begin.order > made.begin.order
                    for other in self.model.made.values()
                )
                if strictly or not (own or anew):
                    raise Violation(f"P5: {node.name} has {made} of {key}, and the shared layer {truth}")

    def _made(self, value: object) -> Made | None:
        if value is None:
            return None
        number = value[0] if isinstance(value, list) else value
        assert isinstance(number, int)
        return self.model.made[number]

    async def end(self) -> None:
        """Close everything; nothing is left.

        Raises:
            Violation: something is.
        """
        for node in self.nodes:
            await node.manager.aclose()
            if not is_settled(node.manager):
                raise Violation(f"P7: {node.name} has loads left")
        for node in self.nodes:
            with contextlib.suppress(CacheClosedError):
                await node.manager.get(self.keys[0])
                raise Violation(f"P7: {node.name} is not closed")
        # Deadlines share a timer, which goes off once more.
        await asyncio.sleep(2 * TIMEOUT)


Scenario = Callable[[World], Coroutine[Any, Any, None]]


def simulate(setup: Setup, scenario: Scenario, seed: int) -> Simulated[World]:
    """Runs one world; what goes wrong has the story and the seed in its notes."""
    worlds: list[World] = []

    async def main() -> World:
        world = World(setup, seed)
        worlds.append(world)
        try:
            await scenario(world)
        except BaseException:
            # So that what is left over does not hide what went wrong.
            for node in world.nodes:
                await node.die()
                await node.manager.aclose(0.1)
            raise
        await world.end()
        return world

    state = random.getstate()
    random.seed(seed)  # the engine's own randomness: jitter, pauses, early refreshes
    try:
        return run(main(), seed, steps=4 * STEPS)
    except BaseException as error:
        for world in worlds:
            error.add_note("what happened:\n" + "\n".join(world.model.story[-400:]))
        raise
    finally:
        random.setstate(state)
