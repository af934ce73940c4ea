"""What a layer promises that several processes share: who loads a key, and whose result is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from aurelis.cache.typing import Clock, Details, Layer, SharedLayer

from ._layer_contract import ODD_KEYS, LayerContract
from ._promises import (
    Trial,
    cancelled_anywhere,
    expect,
    expect_life,
    expect_methods,
    expect_value,
    fail,
    promise,
)

LIFE = 60.0


class Leases(LayerContract):
    """A part of `SharedLayerContract`: who loads, and whose result is stored."""

    async def make_layers(self, count: int, clock: Clock) -> Sequence[Layer]:
        """The layers of several processes over one empty store, which the test closes; to be overridden.

        Args:
            count: how many.
            clock: as for `make_layer`.
        """
        raise NotImplementedError(f"{type(self).__name__} must have a make_layers that returns layers over one store")

    async def make_layer(self, clock: Clock) -> Layer:
        """The only one over an empty store."""
        (layer,) = await self.make_layers(1, clock)
        return layer

    @promise
    async def test_it_is_a_shared_layer(self, trial: Trial) -> None:
        """It has all methods of `SharedLayer`, and what one process stores another one finds."""
        one, other = await self._nodes(trial, 2)
        await one.store("k", trial.entry(["value"]))
        expect_value(await other.lookup("k"), ["value"], "lookup in another process")
        expect(await other.remove("k") is True, "remove in another process did not give True.")
        expect(await one.lookup("k") is None, "What another process has removed is still found.")

    @promise
    async def test_one_of_all_who_ask_at_once_loads(self, trial: Trial) -> None:
        """Where nothing is stored, exactly one process gets the lease, and the others are told whose it is."""
        nodes = await self._nodes(trial, 4)
        for key in ODD_KEYS[:12]:
            answers = await asyncio.gather(
                *(node.acquire(key, b"%d" % number, again=False, life=LIFE) for number, node in enumerate(nodes))
            )
            owners = [answer for answer in answers if answer.own]
            expect(len(owners) == 1, f"{len(owners)} of {len(nodes)} processes were told to load.")
            for answer in answers:
                expect(answer.entry is None, f"acquire gave {answer.entry!r} where nothing was stored.")
                expect(answer.lease and answer.lease == owners[0].lease, "Not all were told the same lease.")

    @promise
    async def test_leases_of_different_keys_are_different_leases(self, trial: Trial) -> None:
        """Each key has a lease of its own, whatever the keys are."""
        one, other = await self._nodes(trial, 2)
        leases = {key: await self._lease(one, key, own=b"%d" % number) for number, key in enumerate(ODD_KEYS)}
        for key in ODD_KEYS[::2]:
            await one.release(key, leases[key])
        for number, key in enumerate(ODD_KEYS):
            answer = await other.acquire(key, b"other %d" % number, again=False, life=LIFE)
            expect(answer.own is (number % 2 == 0), f"The lease of {key[:20]!r} is that of another key, too.")

    @promise
    async def test_nobody_needs_to_load_what_is_stored(self, trial: Trial) -> None:
        """`acquire` gives what is stored, and no lease, unless it is to be loaded again."""
        one, other = await self._nodes(trial, 2)
        stored = trial.entry(["value"], details=Details(("t:a",)))
        await one.store("k", stored)
        answer = await one.acquire("k", b"1", again=False, life=LIFE)
        found = expect_value(answer.entry, ["value"], "acquire")
        expect_life(trial, found, stored)
        expect(found.details.tags == ("t:a",), f"acquire gave an entry with the tags {found.details.tags}.")
        expect(answer.lease == b"" and answer.own is False, f"acquire gave an entry and a lease: {answer!r}.")
        again = await other.acquire("k", b"2", again=True, life=LIFE)
        expect(again.own and again.entry is None, f"acquire again gave {again!r}, and no lease.")
        answer = await one.acquire("k", b"3", again=False, life=LIFE)
        expect_value(answer.entry, ["value"], "acquire, while another process loads again,")

    @promise
    async def test_each_load_has_another_lease(self, trial: Trial) -> None:
        """The token of a load is unlike that of any other, before and after."""
        one, other = await self._nodes(trial, 2)
        seen: set[bytes] = set()
        for number in range(6):
            node = (one, other)[number % 2]
            lease = await self._lease(node, "k", own=b"%d" % number)
            expect(lease not in seen, "A load has the lease of another one.")
            seen.add(lease)
            await node.release("k", lease)

    @promise
    async def test_a_process_takes_over_what_it_has_given_up(self, trial: Trial) -> None:
        """A process that asks again while it has the lease gets a new one: its first load was given up."""
        one, other = await self._nodes(trial, 2)
        first = await self._lease(one, "k", own=b"1")
        second = await self._lease(one, "k", own=b"2")
        expect(first != second, "The second load of a process has the lease of its first.")
        expect(not await one.renew("k", first, LIFE), "The lease of the load that was given up could be renewed.")
        await one.release("k", first)
        answer = await other.acquire("k", b"3", again=False, life=LIFE)
        expect(answer.lease == second, "Another process was not told the new lease.")

    @promise
    async def test_a_lease_ends_after_its_life(self, trial: Trial) -> None:
        """When its life is over, a lease cannot be renewed, nothing is stored by it, and another process may load."""
        one, other = await self._nodes(trial, 2)
        life = 0.3 if self.real_time else 10.0
        lease = await self._lease(one, "k", life=life)
        if not self.real_time:
            await trial.pass_time(life * 0.9)
            early = await other.acquire("k", b"early", again=False, life=LIFE)
            expect(not early.own, "The lease ended before its life was over.")
            await trial.pass_time(life * 0.1 + 0.001)
        else:
            await trial.pass_time(life)

        async def has_ended() -> bool:
            return (await other.acquire("k", b"late", again=False, life=LIFE)).own

        await trial.becomes(has_ended, "Another process may not load after the life of the lease.")
        expect(await one.renew("k", lease, LIFE) is False, "A lease was renewed after its life.")
        stored = await one.publish("k", lease, {"k": trial.entry()}, release=True)
        expect(stored is False, "publish says that it stored something by a lease that had ended.")
        expect(await one.lookup("k") is None, "publish stored something by a lease that had ended.")

    @promise
    async def test_renewing_lets_a_lease_last(self, trial: Trial) -> None:
        """`renew` gives a lease a new life from now on, and is true for the lease of the key only."""
        one, other = await self._nodes(trial, 2)
        life = 1.0 if self.real_time else 10.0
        lease = await self._lease(one, "k", life=life)
        expect(await one.renew("k", lease, LIFE) is True, "renew did not give True for the lease.")
        await trial.pass_time(life * 1.1)
        expect(not (await other.acquire("k", b"2", again=False, life=LIFE)).own, "A renewed lease has ended.")
        expect(await other.renew("k", lease + b"x", LIFE) is False, "renew did not give False for another lease.")
        expect(await other.renew("l", lease, LIFE) is False, "renew did not give False for a key without a lease.")
        short = 0.1 if self.real_time else 10.0
        expect(await one.renew("k", lease, short) is True, "renew did not give True the second time.")
        await trial.pass_time(short * 1.1)

        async def has_ended() -> bool:
            return (await other.acquire("k", b"3", again=False, life=LIFE)).own

        await trial.becomes(has_ended, "A lease lasts for longer than it was renewed for.")

    @promise
    async def test_releasing_ends_the_lease_and_no_other(self, trial: Trial) -> None:
        """`release` lets another process load, if the lease is still this one."""
        one, other = await self._nodes(trial, 2)
        lease = await self._lease(one, "k")
        await other.release("k", lease + b"x")
        await other.release("l", lease)
        expect(not (await other.acquire("k", b"2", again=False, life=LIFE)).own, "release ended another lease.")
        await one.release("k", lease)
        second = await self._lease(other, "k", own=b"3")
        await one.release("k", lease)
        expect(await other.renew("k", second, LIFE), "release with a lease of the past ended the present one.")

    @promise
    async def test_what_was_loaded_is_stored_while_the_lease_is_there(self, trial: Trial) -> None:
        """`publish` keeps all entries while the key has this lease, which ends with `release` only."""
        one, other = await self._nodes(trial, 2)
        for number, keys in enumerate((["k"], ["k", "l", "m"], ["n", "o"])):
            lease = await self._lease(one, "k", own=b"%d" % number, again=True)
            entries = {key: trial.entry([key, number], generation=number, details=Details(("t:a",))) for key in keys}
            expect(await one.publish("k", lease, entries, release=False) is True, "publish did not give True.")
            found = await other.lookup_many(keys)
            for key in keys:
                entry = expect_value(found.get(key), [key, number], "lookup in another process, after publish,")
                expect_life(trial, entry, entries[key])
                known = (entry.generation, entry.details.tags)
                expect(known == (number, ("t:a",)), f"publish kept generation and tags as {known}.")
            expect(await other.renew("k", lease, LIFE) is True, "publish without release ended the lease.")
            # Whoever waited for the load may have a result of its own, and stores it under the lease of the other.
            entries = {key: trial.entry("other") for key in keys}
            expect(
                await other.publish("k", lease, entries, release=True) is True, "publish by another did not give True."
            )
            for key in keys:
                expect_value(await one.lookup(key), "other", "lookup, after publish by another process,")
            expect(await one.renew("k", lease, LIFE) is False, "publish with release did not end the lease.")

    @promise
    async def test_what_was_loaded_before_a_change_is_not_stored_after_it(self, trial: Trial) -> None:
        """Whatever changes a key, in any process, ends its lease, and then `publish` stores nothing at all."""
        one, other = await self._nodes(trial, 2)
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "assign": lambda: other.assign({"k": trial.entry("newer"), "z": trial.entry("newer")}),
            "assign in the same process": lambda: one.assign({"k": trial.entry("newer")}),
            "take": lambda: other.take("k"),
            "take in the same process": lambda: one.take("k"),
            "remove": lambda: other.remove("k"),
            "another load": partial(self._replace_lease, one, other),
        }
        for name, change in changes.items():
            for key in ("k", "l"):  # a result may go to other keys than the one that was loaded
                await one.assign({"k": trial.entry("old")})
                lease = await self._lease(one, "k", own=name.encode() + key.encode(), again=True)
                await change()
                after = await one.lookup("k")
                stored = await one.publish("k", lease, {key: trial.entry("too late")}, release=True)
                expect(stored is False, f"publish did not give False after {name}.")
                found = await one.lookup("k")
                kept = (after and after.value) == (found and found.value)
                expect(kept, f"publish replaced what was there after {name} by {found!r}.")
                expect(await one.lookup("l") is None, f"publish stored something under another key after {name}.")
                expect(await one.renew("k", lease, LIFE) is False, f"The lease could be renewed after {name}.")

    @promise
    async def test_cancelled_calls_leave_a_shared_layer_usable(self, trial: Trial) -> None:
        """A call that is cancelled ends so. It may be done or not, and other calls are answered as ever."""
        one, other = await self._nodes(trial, 2)
        lease = await self._lease(one, "kept", life=1e6)
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "acquire": partial(one.acquire, "k", b"1", again=True, life=LIFE),
            "renew": partial(one.renew, "k", b"1", LIFE),
            "release": partial(one.release, "k", b"1"),
            "publish": partial(one.publish, "k", b"never", {"k": trial.entry("never")}, release=True),
            "assign": partial(one.assign, {"l": trial.entry("assigned")}),
            "take": partial(one.take, "l"),
            "announce": partial(one.announce, ["l"]),
            "generations": partial(one.generations, ["t:a", "t:b"]),
            "invalidate": partial(one.invalidate, ["t:a", "t:b"], soft=False, known=0),
        }
        highest = 0

        async def check() -> None:
            nonlocal highest
            for node in (one, other):
                expect(await node.renew("kept", lease, 1e6) is True, "The lease of another key has gone.")
                number = await node.announce(["m"])
                expect(number > highest, f"The number {number} came after {highest}.")
                highest = number

        await cancelled_anywhere(trial, calls, check)
        expect(await one.lookup("k") is None, "publish stored something without a lease.")

    # Inside

    async def _nodes(self, trial: Trial, count: int) -> list[SharedLayer]:
        __tracebackhide__ = True
        nodes: list[SharedLayer] = []
        for layer in await self.make_layers(count, trial.clock):
            expect_methods(layer, SharedLayer)
            if isinstance(layer, SharedLayer):
                nodes.append(trial.use(layer))
        expect(len(nodes) == count, f"make_layers({count}, ...) gave {len(nodes)} layers.")
        return nodes

    async def _lease(
        self, node: SharedLayer, key: str, *, own: bytes = b"1", life: float = LIFE, again: bool = False
    ) -> bytes:
        __tracebackhide__ = True
        answer = await node.acquire(key, own, again=again, life=life)
        if not (answer.own and answer.lease and answer.entry is None):
            fail(f"acquire gave {answer!r} where nobody else loads.")
        return answer.lease

    async def _replace_lease(self, one: SharedLayer, other: SharedLayer) -> None:
        lease = (await other.acquire("k", b"?", again=True, life=LIFE)).lease
        await one.release("k", lease)
        await self._lease(other, "k", own=b"replaced", again=True)
