"""What every layer promises, as tests that the tests of a layer inherit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from aurelis.cache.http import StoredResponse, VariantIndex
from aurelis.cache.typing import Details, Layer

from ._lives import Lives
from ._promises import (
    Trial,
    cancelled_anywhere,
    expect,
    expect_life,
    expect_methods,
    expect_nothing,
    expect_value,
    promise,
)

VALUES: Final[tuple[object, ...]] = (
    "text",
    "",
    None,
    False,
    0,
    -(2**80),
    0.5,
    b"\x00\xff",
    "\ud800 alone",
    (1, ("two", None)),
    [1, [2]],
    {"a": [1, (2,)], 3: {"b": set()}},
    "long " * 20_000,
    StoredResponse(200, ((b"content-type", b"text/plain"),), (b"in ", b"chunks"), lifetime=60.0, vary=(b"accept",)),
    VariantIndex((b"accept",)),
)
ODD_KEYS: Final = (
    *(
        "",
        " ",
        "a",
        "A",
        "a ",
        " a",
        "a b",
        "a:b",
        "a:b:c",
        "a/b",
        "/",
        ".",
        "..",
        "../a",
        "a\\b",
        "CON",
        "'\"--",
        "$a",
    ),
    *("{tag}", "{}", "{", "}{", "*", "?", "[a-z]?", "\\*", "%2A", "%", "a\n", "a\nb\r\n", "\t", "\x00", "a\x00b"),
    *("schlüssel ✓", "é", "e\u0301", "\ud800 alone", "\U0001f511", "k" * 250, "k" * 5000, "k" * 5000 + "l"),
)
"""Different keys that a store may take for the same one, or for something that has a meaning."""


class LayerContract(Lives):
    """What every layer promises.

    A class of tests that inherits it has these tests, each a plain function that runs in an event loop of its own. So
    pytest finds them, with or without a plugin for asyncio, and so does unittest. `make_layer` must be overridden.

    Attributes:
        real_time: the layer cannot go by a manual clock, since something that it stands on has a clock of its own. Then
            the tests wait, and a layer may be a moment late.
        patience: seconds that a test may take.

    Example:
        >>> from aurelis.cache import MemoryBackend
        >>> from aurelis.cache.typing import Clock
        >>> class TestMemory(LayerContract):
        ...     async def make_layer(self, clock: Clock) -> Layer:
        ...         return MemoryBackend(clock=clock)
        >>> TestMemory().test_storing_again_replaces_everything()
    """

    # What is stored

    @promise
    async def test_it_is_a_layer(self, trial: Trial) -> None:
        """It has all methods of `Layer`, and a name for telemetry."""
        layer = await self._layer(trial)
        expect_methods(layer, Layer)
        expect(type(layer.name) is str, f"Its name is {layer.name!r}.")
        expect(layer.name, "Its name is empty.")

    @promise
    async def test_nothing_is_found_where_nothing_was_stored(self, trial: Trial) -> None:
        """What was not stored is not found, and cannot be removed."""
        layer = await self._layer(trial)
        await expect_nothing(layer, "k")
        found = await layer.lookup_many([])
        expect(found == {}, f"lookup_many without keys gave {found!r}.")
        await layer.store_many({})
        await layer.remove_all()

    @promise
    async def test_values_come_back_as_they_were(self, trial: Trial) -> None:
        """A value comes back equal and of the same type, with its packed form if readers could change it."""
        layer = await self._layer(trial)
        for number, value in enumerate(VALUES):
            await layer.store(f"one {number}", trial.entry(value))
        await layer.store_many({f"many {number}": trial.entry(value) for number, value in enumerate(VALUES)})
        many = await layer.lookup_many([f"one {number}" for number in range(len(VALUES))])
        for number, value in enumerate(VALUES):
            expect_value(await layer.lookup(f"one {number}"), value, "lookup")
            expect_value(await layer.lookup(f"many {number}"), value, "lookup, after store_many,")
            expect_value(many.get(f"one {number}"), value, "lookup_many")

    @promise
    async def test_readers_share_nothing_that_can_be_changed(self, trial: Trial) -> None:
        """A value is the reader's own: what is changed in it, nobody else sees."""
        layer = await self._layer(trial)
        value: dict[str, list[int]] = {"rows": [1]}
        await layer.store("one", trial.entry(value))
        await layer.store_many({"many": trial.entry(value)})
        value["rows"].append(2)
        for _ in range(2):
            for key in ("one", "many"):
                found = [await layer.lookup(key), (await layer.lookup_many([key])).get(key)]
                for entry, where in zip(found, ("lookup", "lookup_many"), strict=True):
                    kept: Any = expect_value(entry, {"rows": [1]}, where).value
                    kept["rows"].append(3)

    @promise
    async def test_an_entry_comes_back_with_all_that_is_known_of_it(self, trial: Trial) -> None:
        """Generation and details come back, above all the tags; the instant of a retry is nobody else's business."""
        layer = await self._layer(trial)
        known = [
            (0, Details()),
            (1, Details(("t:a",))),
            (
                2**53 + 1,
                Details(("t:a", "t:{b}", "t:*", "t:\ud800"), 1.5, 2.5, 'W/"1"', "Tue, 01 Jul 2025 10:00:00 GMT"),
            ),
        ]
        entries = {f"{number}": trial.entry(generation=each[0], details=each[1]) for number, each in enumerate(known)}
        await layer.store_many(entries)
        many = await layer.lookup_many(list(entries))
        for number, (generation, details) in enumerate(known):
            for where, found in (("lookup", await layer.lookup(f"{number}")), ("lookup_many", many.get(f"{number}"))):
                entry = expect_value(found, "value", where)
                expect(entry.generation == generation, f"{where} gave generation {entry.generation}, not {generation}.")
                expect(entry.details == details, f"{where} gave {entry.details!r} where {details!r} was stored.")

    @promise
    async def test_an_entry_says_how_large_it_is(self, trial: Trial) -> None:
        """An entry comes back with its size in bytes, by which memory above is bounded."""
        layer = await self._layer(trial)
        entry = trial.entry(b"x" * 10_000)
        await layer.store("k", entry)
        for where, found in (
            ("lookup", await layer.lookup("k")),
            ("lookup_many", (await layer.lookup_many(["k"]))["k"]),
        ):
            size = expect_value(found, entry.value, where).size
            expect(size >= 10_000, f"{where} gave an entry of size {size} for a value of 10000 bytes.")

    @promise
    async def test_storing_again_replaces_everything(self, trial: Trial) -> None:
        """What is stored takes the place of what was there, with its own life and details."""
        layer = await self._layer(trial)
        old = trial.entry("old", 1000.0, stale_for=1000.0, generation=5, details=Details(("t:a",)))
        new = trial.entry("new", 60.0, generation=4)
        for again in (partial(layer.store, "k", new), partial(layer.store_many, {"k": new})):
            await layer.store("k", old)
            await again()
            found = expect_value(await layer.lookup("k"), "new", "lookup")
            expect_life(trial, found, new)
            expect(
                (found.generation, found.details) == (4, Details()), f"Something is left of the old entry: {found!r}."
            )

    @promise
    async def test_many_are_stored_and_found_together(self, trial: Trial) -> None:
        """`store_many` keeps them all, and `lookup_many` finds those that are there, by key."""
        layer = await self._layer(trial)
        values = {f"k{number}": number for number in range(300)}
        await layer.store_many({key: trial.entry(value) for key, value in values.items()})
        found = await layer.lookup_many(["missing", *values, "missing, too"])
        expect(set(found) == values.keys(), f"lookup_many found {len(found)} of 300, or others.")
        for key, value in values.items():
            expect_value(found[key], value, "lookup_many")

    @promise
    async def test_odd_keys_are_kept_apart(self, trial: Trial) -> None:
        """A key may be any string, and different strings are different keys."""
        layer = await self._layer(trial)
        await layer.store_many({key: trial.entry(number) for number, key in enumerate(ODD_KEYS)})
        found = await layer.lookup_many(ODD_KEYS)
        for number, key in enumerate(ODD_KEYS):
            expect_value(found.get(key), number, f"lookup_many of {key[:20]!r}")
            await layer.store(key, trial.entry(-number))
        left = set(ODD_KEYS)
        for number, key in enumerate(ODD_KEYS):
            expect_value(await layer.lookup(key), -number, f"lookup of {key[:20]!r}")
            expect(await layer.remove(key), f"remove of {key[:20]!r} says that it was not there.")
            left.remove(key)
            found = await layer.lookup_many(ODD_KEYS)
            expect(set(found) == left, f"After {key[:20]!r} was removed, other keys are gone, or it is there.")

    # Removing

    @promise
    async def test_removing_says_whether_it_was_there(self, trial: Trial) -> None:
        """`remove` forgets one key, and is true only if it was there."""
        layer = await self._layer(trial)
        await layer.store_many({"k": trial.entry("k"), "l": trial.entry("l")})
        expect(await layer.remove("k") is True, "remove did not give True for what was there.")
        await expect_nothing(layer, "k")
        expect_value(await layer.lookup("l"), "l", "lookup of another key than the removed one")

    @promise
    async def test_removing_all_leaves_nothing(self, trial: Trial) -> None:
        """`remove_all` forgets everything, however much it is, and the layer can be used again."""
        layer = await self._layer(trial)
        keys = [f"k{number}" for number in range(900)]  # more than a store looks through at once
        await layer.store_many({key: trial.entry() for key in (*keys, *ODD_KEYS)})
        await layer.remove_all()
        left = await layer.lookup_many([*keys, *ODD_KEYS])
        expect(not left, f"After remove_all {len(left)} of {len(keys) + len(ODD_KEYS)} are still found.")
        await layer.store("k", trial.entry())
        expect_value(await layer.lookup("k"), "value", "lookup after remove_all")

    @promise
    async def test_neighbours_are_left_alone(self, trial: Trial) -> None:
        """Another cache in the same store has entries of its own, which nothing touches."""
        layer, neighbour = await self._layer(trial), await self.make_neighbour(trial.clock)
        if neighbour is None:
            return
        trial.use(neighbour)
        await layer.store("own", trial.entry())
        await neighbour.store_many({key: trial.entry("neighbour") for key in ("k", "own", "*")})
        await expect_nothing(layer, "k")
        await layer.remove("*")
        await layer.remove_all()
        await expect_nothing(layer, "own")
        for key in ("k", "own", "*"):
            expect_value(await neighbour.lookup(key), "neighbour", f"lookup of {key!r} by the neighbour")

    # Use

    @promise
    async def test_calls_at_once_do_not_disturb_each_other(self, trial: Trial) -> None:
        """A layer may be used by many tasks at once, each of which gets what it asked for."""
        layer = await self._layer(trial)
        await layer.store("common", trial.entry("common"))

        async def use(number: int) -> None:
            keys = [f"{number} {each}" for each in range(5)]
            for turn in range(4):
                await layer.store_many({key: trial.entry([key, turn]) for key in keys})
                await layer.store(keys[0], trial.entry([keys[0], -turn]))
                found = await layer.lookup_many([*keys, "common"])
                expect_value(found.get("common"), "common", "lookup_many")
                for key in keys[1:]:
                    expect_value(found.get(key), [key, turn], "lookup_many")
                expect_value(await layer.lookup(keys[0]), [keys[0], -turn], "lookup")
                expect(await layer.remove(keys[0]) is True, "remove did not give True for what was there.")
                await expect_nothing(layer, keys[0])

        await asyncio.gather(*(use(number) for number in range(20)))

    @promise
    async def test_a_cancelled_call_ends_and_leaves_the_layer_usable(self, trial: Trial) -> None:
        """A call that is cancelled ends so. It may be done or not, and other calls are answered as ever."""
        layer = await self._layer(trial)
        await layer.store_many({f"kept {number}": trial.entry(number) for number in range(5)})
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "lookup": partial(layer.lookup, "kept 0"),
            "lookup_many": partial(layer.lookup_many, ["kept 1", "kept 2"]),
            "store": partial(layer.store, "cancelled", trial.entry("cancelled")),
            "store_many": partial(
                layer.store_many, {f"cancelled {each}": trial.entry("cancelled") for each in range(9)}
            ),
            "remove": partial(layer.remove, "cancelled"),
        }

        async def check() -> None:
            for number in range(5):
                expect_value(await layer.lookup(f"kept {number}"), number, "lookup after a cancellation")
            found = await layer.lookup("cancelled")
            if found is not None:
                expect_value(found, "cancelled", "lookup of what was stored by a cancelled call")

        await cancelled_anywhere(trial, calls, check)
        await layer.store("k", trial.entry())
        expect_value(await layer.lookup("k"), "value", "lookup")

    @promise
    async def test_it_can_be_closed_twice(self, trial: Trial) -> None:
        """Closing gives back connections, and closing twice is harmless."""
        layer = await self._layer(trial)
        await layer.store("k", trial.entry())
        await layer.aclose()
        await layer.aclose()
