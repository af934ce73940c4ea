"""What a layer promises that several processes share: the numbers of changes, and which of them concern a tag."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from aurelis.cache.typing import Details, Entry, SearchableLayer, SharedLayer

from ._layer_contract import ODD_KEYS
from ._lease_contract import LIFE, Leases
from ._promises import Trial, expect, expect_life, expect_nothing, expect_value, promise


class SharedLayerContract(Leases):
    """What a layer promises that several processes share, beside all of `LayerContract`.

    `make_layers` must be overridden, and `make_layer` need not.

    Example:
        >>> from collections.abc import Sequence
        >>> from aurelis.cache.testing import SharedMemory
        >>> from aurelis.cache.typing import Clock
        >>> class TestSharedMemory(SharedLayerContract):
        ...     async def make_layers(self, count: int, clock: Clock) -> Sequence[SharedLayer]:
        ...         shared = SharedMemory(clock)
        ...         return [shared.node() for _ in range(count)]
        >>> TestSharedMemory().test_numbers_only_grow()
    """

    # Changes of keys

    @promise
    async def test_what_is_assigned_replaces_what_was_there_with_its_number(self, trial: Trial) -> None:
        """`assign` keeps all entries whatever is loaded, each with the number of this change, which it returns."""
        one, other = await self._nodes(trial, 2)
        await one.store("k", trial.entry("old"))
        await self._lease(one, "l")
        before = await self._present(other)
        entries = {key: trial.entry([key], details=Details(("t:a",))) for key in ("k", "l", "m")}
        number = await other.assign(entries)
        expect(number > before, f"assign gave {number}, where {before} was the last number.")
        found = await one.lookup_many(list(entries))
        for key, stored in entries.items():
            entry = expect_value(found.get(key), [key], "lookup in another process, after assign,")
            expect_life(trial, entry, stored)
            expect(entry.generation == number, f"assign gave {number}, and kept an entry with {entry.generation}.")
            expect(entry.details.tags == ("t:a",), f"assign kept an entry with the tags {entry.details.tags}.")
        await other.assign({})

    @promise
    async def test_what_is_taken_is_gone_and_returned(self, trial: Trial) -> None:
        """`take` forgets the key whatever is loaded, takes a number, and returns what was there with its tags."""
        one, other = await self._nodes(trial, 2)
        number = await one.assign({"k": trial.entry(["value"], details=Details(("t:a",))), "l": trial.entry("l")})
        taken = expect_value(await other.take("k"), ["value"], "take")
        known = (taken.generation, taken.details.tags)
        expect(known == (number, ("t:a",)), f"take gave generation and tags as {known}.")
        expect(await self._present(one) > number, "take has no number of its own.")
        await expect_nothing(one, "k")
        expect_value(await one.lookup("l"), "l", "lookup of another key than the one that was taken")
        for _ in range(2):
            taken_again = await other.take("k")
            expect(taken_again is None, f"take gave {taken_again!r} where nothing is.")

    @promise
    async def test_an_expired_entry_cannot_be_taken(self, trial: Trial) -> None:
        """`take` and `acquire` never give an expired entry."""
        (one,) = await self._nodes(trial, 1)
        life = 0.1 if self.real_time else 10.0
        await one.assign({"k": trial.entry(life=life), "l": trial.entry(life=life)})
        await trial.pass_time(life + 0.001)

        async def is_to_be_loaded() -> bool:
            answer = await one.acquire("l", b"1", again=False, life=LIFE)
            return answer.own and answer.entry is None

        await trial.becomes(is_to_be_loaded, "acquire gives an entry after its life.")
        expect(await one.take("k") is None, "take gave an entry after its life.")

    # Numbers

    @promise
    async def test_numbers_only_grow(self, trial: Trial) -> None:
        """Each `assign`, `take`, `announce` and `invalidate` of any process has a number above all before."""
        nodes = await self._nodes(trial, 3)
        last, change = await self._present(nodes[0]), ""
        for node, (name, act) in itertools.product(nodes, self._changes(trial).items()):
            number = await act(node)
            expect(number > last, f"{name} has the number {number}, after {last}{change}.")
            last, change = number, f" of {name} before"
            present = await self._present(nodes[0])
            expect(present >= last, f"acquire gave the generation {present}, where {last} was the last number.")
            last = max(last, present)

    @promise
    async def test_changes_at_once_have_different_numbers(self, trial: Trial) -> None:
        """No two changes have the same number, and what is loaded after them has none that is lower."""
        nodes = await self._nodes(trial, 3)
        changes = {name: act for name, act in self._changes(trial).items() if name != "take"}
        numbers = await asyncio.gather(*(act(node) for node in nodes for act in changes.values() for _ in range(5)))
        expect(len(set(numbers)) == len(numbers), f"{len(numbers)} changes had {len(set(numbers))} different numbers.")
        for node in nodes:
            present = await self._present(node)
            expect(present >= max(numbers), f"acquire gave the generation {present}, after {max(numbers)}.")

    @promise
    async def test_loads_take_no_number(self, trial: Trial) -> None:
        """What is looked up, loaded and published leaves the number as it is: only changes move it."""
        one, other = await self._nodes(trial, 2)
        number = await one.announce(["k"])
        lease = await self._lease(other, "k")
        await other.renew("k", lease, LIFE)
        await other.publish("k", lease, {"k": trial.entry()}, release=True)
        await one.lookup("k")
        await one.generations(["t:a"])
        await one.release("l", await self._lease(one, "l"))
        present = await self._present(one)
        expect(present == number, f"The number went from {number} to {present} without a change.")

    @promise
    async def test_a_number_may_be_pushed_up(self, trial: Trial) -> None:
        """`invalidate` goes above the highest number that the asker knows, though it was lost here."""
        one, other = await self._nodes(trial, 2)
        known = await self._present(one) + 1_000_000
        number = await one.invalidate(["t:a"], soft=False, known=known)
        expect(number > known, f"invalidate gave {number}, where the asker knew {known}.")
        expect((await other.generations(["t:a"]))["t:a"][0] == number, "The tag has another number than was returned.")
        following = await other.announce(["k"])
        expect(following > number, f"The number {following} came after {number}.")

    # Tags

    @promise
    async def test_a_tag_without_a_record_begins_now(self, trial: Trial) -> None:
        """What a tag had before may be lost, so it begins with the present number, and keeps that."""
        one, other = await self._nodes(trial, 2)
        number = await one.announce(["k"])
        tags = ["t:a", "t:b"]
        records = await one.generations(tags)
        expect(set(records) == set(tags), f"generations gave {sorted(records)} where {tags} were asked for.")
        for hard, soft in records.values():
            expect(hard >= number, f"A tag without a record began with {hard}, after the number {number}.")
            expect(soft <= hard, f"A tag without a record had the soft invalidation {soft} after the hard one {hard}.")
        # What begins to be loaded now is not out of date.
        answer = await other.acquire("k", b"1", again=True, life=LIFE)
        newest = max(hard for hard, _ in records.values())
        expect(answer.generation >= newest, f"acquire gave {answer.generation}, below the tag's {newest}.")
        await other.announce(["k"])
        for node in (one, other):
            again = await node.generations(tags)
            expect(dict(again) == dict(records), f"A tag that nobody invalidated went from {records} to {again}.")

    @promise
    async def test_a_hard_invalidation_reaches_all_processes(self, trial: Trial) -> None:
        """`invalidate` gives exactly the tags that are named its number, as their last hard invalidation."""
        one, other = await self._nodes(trial, 2)
        before = await other.generations(["t:a", "t:b", "t:c"])
        number = await one.invalidate(["t:a", "t:b"], soft=False, known=0)
        for node in (one, other):
            after = await node.generations(["t:a", "t:b", "t:c"])
            for tag in ("t:a", "t:b"):
                expect(after[tag][0] == number, f"A tag has {after[tag]} after the hard invalidation {number}.")
                expect(after[tag][1] == before[tag][1], "A hard invalidation changed the last soft one.")
            expect(after["t:c"] == before["t:c"], f"A tag that was not named went to {after['t:c']}.")

    @promise
    async def test_a_soft_invalidation_is_told_from_a_hard_one(self, trial: Trial) -> None:
        """A soft invalidation leaves the last hard one as it was, and the other way round."""
        one, other = await self._nodes(trial, 2)
        hard = await one.invalidate(["t:a"], soft=False, known=0)
        soft = await other.invalidate(["t:a"], soft=True, known=0)
        found = (await one.generations(["t:a"]))["t:a"]
        expect(found == (hard, soft), f"After hard {hard} and soft {soft} a tag has {found}.")
        harder = await one.invalidate(["t:a"], soft=False, known=0)
        found = (await other.generations(["t:a"]))["t:a"]
        expect(found == (harder, soft), f"After soft {soft} and hard {harder} a tag has {found}.")

    @promise
    async def test_a_soft_invalidation_of_an_unknown_tag_is_a_hard_one(self, trial: Trial) -> None:
        """Of a tag without a record nobody knows what came before, so what is older is gone and not only stale."""
        one, other = await self._nodes(trial, 2)
        older = await one.announce(["k"])
        soft = await other.invalidate(["t:a"], soft=True, known=0)
        found = (await one.generations(["t:a"]))["t:a"]
        expect(found[1] == soft, f"After the soft invalidation {soft} a tag has {found}.")
        expect(older <= found[0] <= soft, f"A tag without a record has {found} after the soft invalidation {soft}.")

    @promise
    async def test_a_change_of_a_key_outdates_what_lies_below(self, trial: Trial) -> None:
        """What changes a key is a hard invalidation of its own tag, with the number of the change, and of no other."""
        one, other = await self._nodes(trial, 2)

        async def discard() -> int:
            assert isinstance(one, SearchableLayer)
            await one.discard(["k"])
            return await self._present(one)

        async def take() -> int:
            await one.take("k")
            return await self._present(one)

        async def remove() -> int:
            await one.remove("k")
            return await self._present(one)

        changes: dict[str, Callable[[], Awaitable[int]]] = {
            "assign": lambda: one.assign({"k": trial.entry()}),
            "take": take,
            "announce": lambda: one.announce(["k"]),
            "remove": remove,
        }
        if isinstance(one, SearchableLayer):
            changes["discard"] = discard
        for name, change in changes.items():
            before = await other.generations(["k:k", "k:l", "t:k"])
            number = await change()
            for node in (one, other):
                after = await node.generations(["k:k", "k:l", "t:k"])
                expect(after["k:k"][0] == number, f"The key's own tag has {after['k:k']} after {name} {number}.")
                for tag in ("k:l", "t:k"):
                    expect(after[tag] == before[tag], f"{name} changed the tag {tag!r}.")

    @promise
    async def test_odd_tags_are_kept_apart(self, trial: Trial) -> None:
        """A tag may be any string that is not empty, and different strings are different tags."""
        one, other = await self._nodes(trial, 2)
        tags = [f"t:{key}" for key in ODD_KEYS] + ["*"]
        await one.generations(tags)
        half = tags[::2]
        number = await one.invalidate(half, soft=False, known=0)
        found = await other.generations(tags)
        for tag in tags:
            met = found[tag][0] == number
            expect(met is (tag in half), f"Whether {tag[:20]!r} was invalidated: {met}. It is taken for another tag.")

    # Use

    @promise
    async def test_closing_one_disturbs_no_other(self, trial: Trial) -> None:
        """A process that closes its layer leaves what is stored, and the layers of the others."""
        one, other = await self._nodes(trial, 2)
        await one.store("k", trial.entry())
        lease = await self._lease(one, "l")
        await other.lookup("k")
        await one.aclose()
        expect_value(await other.lookup("k"), "value", "lookup, after another process has closed,")
        expect(await other.renew("l", lease, LIFE), "The lease ended when a process closed its layer.")

    # Inside

    async def _present(self, node: SharedLayer) -> int:
        return (await node.acquire("the present", b"?", again=True, life=LIFE)).generation

    def _changes(self, trial: Trial) -> dict[str, Callable[[SharedLayer], Awaitable[int]]]:
        numbers = itertools.count()

        def fresh() -> dict[str, Entry]:
            return {f"k{next(numbers)}": trial.entry() for _ in range(2)}

        async def take(node: SharedLayer) -> int:
            await node.take("k1")
            return await self._present(node)

        return {
            "announce": lambda node: node.announce(["k1", "k2"]),
            "invalidate": lambda node: node.invalidate(["t:a", "t:b"], soft=False, known=0),
            "a soft invalidate": lambda node: node.invalidate(["t:a"], soft=True, known=0),
            "assign": lambda node: node.assign(fresh()),
            "take": take,
        }
