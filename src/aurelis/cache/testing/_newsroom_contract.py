"""What a shared layer promises that carries word of changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, runtime_checkable

from aurelis.cache.typing import Kind, Message, Newsroom, SearchableLayer, SharedLayer

from ._layer_contract import ODD_KEYS
from ._lease_contract import LIFE
from ._promises import Trial, expect, expect_methods, fail, promise
from ._shared_contract import SharedLayerContract

NAMES: Final = tuple(key for key in ODD_KEYS if key)


@runtime_checkable
class SharedNewsroom(SharedLayer, Newsroom, Protocol):
    """A shared layer that carries word of changes."""


class Ear:
    """What somebody hears who listens.

    Attributes:
        heard: all messages so far.
    """

    def __init__(self, trial: Trial, newsroom: Newsroom) -> None:
        self.heard: list[Message] = []
        self._trial = trial
        self._newsroom = newsroom
        self._queue: asyncio.Queue[Message | Exception | None] = asyncio.Queue()

    async def listen(self) -> None:
        """Hear all that is told."""
        try:
            async with contextlib.aclosing(self._newsroom.news()) as news:
                async for message in news:
                    self._queue.put_nowait(message)
            raise EOFError("news came to an end")
        except Exception as error:  # noqa: BLE001  # whatever a layer raises, it belongs to the test
            self._queue.put_nowait(error)

    async def begins(self) -> None:
        """Wait for the begin of a subscription."""
        __tracebackhide__ = True
        with self._trial.says("news has not said that a subscription began."):
            first = await self._next()
        expect(first is None, f"news gave {first!r} before it said that a subscription began.")

    async def hears(self, wanted: Callable[[Message], bool], broken: str) -> Message:
        """Wait for a message."""
        __tracebackhide__ = True
        with self._trial.says(broken):
            while not (found := [message for message in self.heard if wanted(message)]):
                message = await self._next()
                if message is not None:
                    self.heard.append(message)
        return found[0]

    async def hears_number(self, number: int, name: str) -> Message:
        """Wait for the message of a change."""
        __tracebackhide__ = True
        return await self.hears(
            lambda message: message.number == number and message.kind != "beat",
            f"There is no message with the number {number} of {name}.",
        )

    async def _next(self) -> Message | None:
        word = await self._queue.get()
        if isinstance(word, Exception):
            raise word
        return word


class NewsroomContract(SharedLayerContract):
    """What a shared layer promises that carries word of changes, beside all of `SharedLayerContract`."""

    @promise
    async def test_it_is_a_newsroom(self, trial: Trial) -> None:
        """It has all of `Newsroom`, and each process has a name of its own there, which it keeps."""
        one, other = await self._newsrooms(trial, 2)
        for layer in (one, other):
            expect(type(layer.node) is str and layer.node != "", f"The name of a process is {layer.node!r}.")
            expect(type(layer.own_thread) is bool, f"own_thread is {layer.own_thread!r}.")
            expect(layer.node == layer.node, "The name of a process changes.")
        expect(one.node != other.node, "Two processes have the same name.")

    @promise
    async def test_all_hear_of_each_change(self, trial: Trial) -> None:
        """All who listen, the sender too, hear of each change: its number, who made it, of what kind, and the names."""
        one, other = await self._newsrooms(trial, 2)
        async with self._listening(trial, one) as own, self._listening(trial, other) as ear:
            for sender in (one, other):
                entries = {"a": trial.entry(), "b": trial.entry()}
                changes: list[tuple[str, Callable[[], Awaitable[int]], Kind, tuple[str, ...]]] = [
                    ("assign", partial(sender.assign, entries), "keys", ("a", "b")),
                    ("announce", partial(sender.announce, ["c", "d"]), "keys", ("c", "d")),
                    (
                        "invalidate",
                        partial(sender.invalidate, ["t:a", "t:b"], soft=False, known=0),
                        "tags",
                        ("t:a", "t:b"),
                    ),
                    ("a soft invalidate", partial(sender.invalidate, ["t:c"], soft=True, known=0), "soft", ("t:c",)),
                ]
                for name, change, kind, names in changes:
                    number = await change()
                    for each in (own, ear):
                        message = await each.hears_number(number, name)
                        what = (message.node, message.kind, sorted(message.names))
                        expect(what == (sender.node, kind, sorted(names)), f"The message of {name} is {message!r}.")

    @promise
    async def test_all_hear_of_what_is_taken(self, trial: Trial) -> None:
        """What is taken or discarded is told with a number, whether it was there or not."""
        one, other = await self._newsrooms(trial, 2)
        last = await one.assign({"there": trial.entry(), "there, too": trial.entry()})
        async with self._listening(trial, one) as own, self._listening(trial, other) as ear:
            await one.take("there")
            await one.take("missing")
            told: list[tuple[str, ...]] = [("there",), ("missing",)]
            if isinstance(one, SearchableLayer):
                told += [("there, too", "missing, too")]
                await one.discard(told[-1])
            for names in told:
                for each in (own, ear):
                    message = await each.hears(_is_about(names), f"There is no message of {names}, which are gone.")
                    expect(message.kind == "keys" and message.node == one.node, f"The message is {message!r}.")
                    expect(message.number > last, f"The message has the number {message.number}, after {last}.")

    @promise
    async def test_no_number_is_without_a_message(self, trial: Trial) -> None:
        """Who hears all numbers has missed nothing: each number has one message, and what changes nothing has none."""
        one, other = await self._newsrooms(trial, 2)
        async with self._listening(trial, other) as ear:
            first = await one.announce(["first"])
            for node in (one, other):
                await node.assign({"k": trial.entry(), "l": trial.entry()})
                await node.generations(["t:a"])
                await node.invalidate(["t:a", "t:b"], soft=False, known=0)
                lease = await self._lease(node, "k", again=True)
                await node.publish("k", lease, {"k": trial.entry()}, release=True)
                await node.invalidate(["t:a"], soft=True, known=0)
                await node.take("k")
                await node.store("l", trial.entry())
            last = await other.announce(["last"])
            for number in range(first, last + 1):
                await ear.hears_number(number, f"a change, of {last - first + 1}")
            # Both of a pair of changes at once have theirs, too.
            numbers = await asyncio.gather(*(node.announce(["k"]) for node in (one, other) for _ in range(10)))
            for number in numbers:
                await ear.hears_number(number, "one of several changes at once")
            expect(
                sorted(numbers) == list(range(last + 1, last + 21)), f"After {last} the numbers are {sorted(numbers)}."
            )

    @promise
    async def test_word_comes_after_the_change(self, trial: Trial) -> None:
        """Whoever hears of a change and looks finds it done."""
        one, other = await self._newsrooms(trial, 2)
        async with self._listening(trial, other) as ear:
            changing = asyncio.ensure_future(one.assign({"k": trial.entry("new")}))
            message = await ear.hears(lambda message: message.names == ("k",), "There is no message of assign.")
            found = await other.lookup("k")
            expect(
                found is not None and found.generation == message.number, f"assign was told, and there is {found!r}."
            )
            expect(await changing == message.number, "assign gave another number than it told.")

            taking = asyncio.ensure_future(one.take("k"))
            number = message.number
            await ear.hears(lambda message: message.number > number, "There is no message of take.")
            expect(await other.lookup("k") is None, "take was told, and the entry is there.")
            await taking

            invalidating = asyncio.ensure_future(one.invalidate(["t:a"], soft=False, known=0))
            message = await ear.hears(lambda message: message.kind == "tags", "There is no message of invalidate.")
            hard, _ = (await other.generations(["t:a"]))["t:a"]
            expect(hard == message.number, f"invalidate {message.number} was told, and the tag has {hard}.")
            expect(await invalidating == hard, "invalidate gave another number than it told.")

    @promise
    async def test_a_sign_of_life_repeats_the_last_number(self, trial: Trial) -> None:
        """`beat` reaches all, the sender too, with the number of the last change and without taking one."""
        one, other = await self._newsrooms(trial, 2)
        async with self._listening(trial, one) as own, self._listening(trial, other) as ear:
            for sender in (one, other):
                number = await one.announce(["k"])
                for _ in range(2):
                    await sender.beat()
                    for each in (own, ear):
                        message = await each.hears(_is_beat(sender.node), "There is no message of a sign of life.")
                        expect(message.number == number, f"A sign of life has {message.number}, after {number}.")
                        expect(message.names == (), f"A sign of life names {message.names}.")
                        each.heard.clear()
                present = (await other.acquire("k", b"?", again=True, life=LIFE)).generation
                expect(present == number, f"After a sign of life the number is {present}, where it was {number}.")

    @promise
    async def test_names_come_as_they_are(self, trial: Trial) -> None:
        """Keys and tags in messages may be any strings, and many."""
        one, other = await self._newsrooms(trial, 2)
        async with self._listening(trial, other) as ear:
            for names in (NAMES, [f"k{number}" for number in range(2000)]):
                number = await one.announce(names)
                message = await ear.hears_number(number, "announce")
                expect(
                    sorted(message.names) == sorted(names), "A message of announce has other names than it was given."
                )
            tags = [f"t:{name}" for name in NAMES]
            message = await ear.hears_number(await one.invalidate(tags, soft=True, known=0), "invalidate")
            expect(sorted(message.names) == sorted(tags), "A message of invalidate has other names than it was given.")

    @promise
    async def test_one_that_stops_listening_disturbs_nobody_and_may_begin_again(self, trial: Trial) -> None:
        """Listening can be cancelled. Others hear on, and a new subscription begins as the first one did."""
        one, other = await self._newsrooms(trial, 2)
        async with self._listening(trial, other) as ear:
            for _ in range(3):
                async with self._listening(trial, one) as own:
                    number = await other.announce(["k"])
                    await own.hears_number(number, "announce")
                number = await one.announce(["k"])
                await ear.hears_number(number, "announce, after somebody had stopped listening")

    @promise
    async def test_neighbours_are_not_heard(self, trial: Trial) -> None:
        """Another cache in the same store has messages and numbers of its own."""
        (one,) = await self._newsrooms(trial, 1)
        neighbour = await self.make_neighbour(trial.clock)
        if neighbour is None:
            return
        trial.use(neighbour)
        expect_methods(neighbour, SharedNewsroom)
        if not isinstance(neighbour, SharedNewsroom):
            return
        first = await one.announce(["k"])
        async with self._listening(trial, one) as ear:
            await neighbour.announce(["neighbour"])
            await neighbour.invalidate(["t:a"], soft=False, known=0)
            await neighbour.beat()
            number = await one.announce(["own"])
            await ear.hears_number(number, "announce")
            expect(number == first + 1, f"The number went from {first} to {number} by what a neighbour changed.")
            nodes = {message.node for message in ear.heard}
            expect(nodes == {one.node}, f"There are messages of {nodes}, where {one.node!r} is the only process.")

    @promise
    async def test_it_can_be_listened_to_in_a_thread_of_its_own_if_it_says_so(self, trial: Trial) -> None:
        """With `own_thread`, the layer can be used in another thread, in an event loop of its own, at the same time."""
        one, other = await self._newsrooms(trial, 2)
        if not one.own_thread:
            return
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

        async def hear() -> None:
            async with asyncio.timeout(self.patience / 3), contextlib.aclosing(one.news()) as news:
                async for message in news:
                    if message is None:
                        await one.beat()
                    elif message.kind == "keys":
                        loop.call_soon_threadsafe(heard.put_nowait, message.names)
                        if message.names == ("last",):
                            break
                    else:
                        loop.call_soon_threadsafe(heard.put_nowait, (message.kind,))
            await one.take("k")
            await one.aclose()

        def hear_in_thread() -> None:
            try:
                asyncio.run(hear())
            except TimeoutError as error:
                raise AssertionError("In another thread, news did not give all that was told.") from error

        await one.assign({"k": trial.entry()})
        hearing = asyncio.ensure_future(asyncio.to_thread(hear_in_thread))
        seen: set[tuple[str, ...]] = set()
        changes = {("beat",): None, ("own",): one, ("other",): other, ("last",): one}
        for names, node in changes.items():
            if node is not None:
                await asyncio.sleep(0.01)  # the other loop waits, and must be woken
                await node.announce(names)
            while names not in seen and not hearing.done():
                hears = asyncio.ensure_future(heard.get())
                await asyncio.wait((hearing, hears), return_when=asyncio.FIRST_COMPLETED)
                seen |= {hears.result()} if hears.done() else set()
        with trial.says("Listening in another thread has not ended."):
            await hearing
        expect(await other.lookup("k") is None, "What was taken in another thread is there.")

    # Inside

    async def _newsrooms(self, trial: Trial, count: int) -> list[SharedNewsroom]:
        __tracebackhide__ = True
        nodes: list[SharedNewsroom] = []
        for layer in await self._nodes(trial, count):
            expect_methods(layer, SharedNewsroom)
            if not isinstance(layer, SharedNewsroom):
                fail(f"{type(layer).__name__} is no Newsroom.")
            nodes.append(layer)
        return nodes

    @contextlib.asynccontextmanager
    async def _listening(self, trial: Trial, newsroom: Newsroom) -> AsyncIterator[Ear]:
        ear = Ear(trial, newsroom)
        listening = asyncio.create_task(ear.listen())
        try:
            await ear.begins()
            yield ear
        finally:
            listening.cancel()
            await asyncio.wait((listening,))


def _is_about(names: Sequence[str]) -> Callable[[Message], bool]:
    return lambda message: sorted(message.names) == sorted(names)


def _is_beat(node: str) -> Callable[[Message], bool]:
    return lambda message: (message.kind, message.node) == ("beat", node)
