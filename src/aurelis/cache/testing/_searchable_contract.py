"""What a layer promises whose keys can be looked through."""

from __future__ import annotations

import contextlib
from typing import Protocol, runtime_checkable

from aurelis.cache._keys import CacheKeyBuilder, escape
from aurelis.cache.typing import Layer, SearchableLayer, SharedLayer

from ._layer_contract import LayerContract
from ._promises import Trial, expect, expect_methods, expect_nothing, expect_value, fail, promise

MANY = 1200
"""More than a store gives at once."""


@runtime_checkable
class SearchableStore(Layer, SearchableLayer, Protocol):
    """A layer whose keys can be looked through."""


class SearchableLayerContract(LayerContract):
    """What a layer promises whose keys can be looked through, beside all of `LayerContract`.

    For a layer that is shared as well, let the class of tests inherit the contracts for both.
    """

    @promise
    async def test_keys_are_found_by_what_they_begin_with(self, trial: Trial) -> None:
        """`keys` gives all keys with such a category and identifier, with params or without, and perhaps others."""
        layer = await self._searchable(trial)
        build = CacheKeyBuilder().build_key
        odd = ["*", "a*", "a?", "[a]", "{a}", "a:b", "\\", "é", " "]
        keys = {
            *(build("user", f"{number}") for number in range(20)),
            *(build("user", "1", {"page": number}) for number in range(5)),
            *(build(category, identifier) for category in odd for identifier in odd),
        }
        await layer.store_many({key: trial.entry() for key in keys})
        starts = ["", "user", "user:", "user:1", "none:", *(f"{escape(category)}:" for category in odd)]
        starts += [f"{escape(category)}:{escape(category)}" for category in odd]
        for start in starts:
            wanted = {key for key in keys if key.split(":", 2)[2].startswith(start)}
            missing = wanted - set(await self._found(layer, start))
            expect(not missing, f"keys({start!r}) did not give {len(missing)} of {len(wanted)} that begin so.")

    @promise
    async def test_however_many_keys_there_are_all_are_found(self, trial: Trial) -> None:
        """`keys` goes on until it has given every key that is there all the time, and only keys."""
        layer = await self._searchable(trial)
        keys = {CacheKeyBuilder().build_key("user", f"{number}") for number in range(MANY)}
        await layer.store_many({key: trial.entry() for key in keys})
        found = await self._found(layer, "user:")
        expect(
            set(found) == keys, f"keys gave {len(set(found) & keys)} of {MANY}, and {len(set(found) - keys)} others."
        )

    @promise
    async def test_looking_can_be_given_up(self, trial: Trial) -> None:
        """Whoever looks through the keys may stop, and the layer is of use."""
        layer = await self._searchable(trial)
        keys = [CacheKeyBuilder().build_key("user", f"{number}") for number in range(MANY)]
        await layer.store_many({key: trial.entry() for key in keys})
        for _ in range(3):
            async with contextlib.aclosing(layer.keys("user:")) as batches:
                async for _batch in batches:
                    break
        expect_value(await layer.lookup(keys[0]), "value", "lookup")
        expect(set(await self._found(layer, "")) == set(keys), "After somebody had stopped, not all keys were found.")

    @promise
    async def test_discarding_says_how_many_there_were(self, trial: Trial) -> None:
        """`discard` forgets exactly the keys that it is given, and counts those that were there."""
        layer = await self._searchable(trial)
        build = CacheKeyBuilder().build_key
        keys = [build("user", f"{number}") for number in range(MANY)]
        await layer.store_many({key: trial.entry() for key in (*keys, build("other", "1"))})
        for gone in (keys[:1], keys[1:3], keys[3:]):
            number = await layer.discard([build("user", "missing"), *gone])
            expect(number == len(gone), f"discard gave {number}, where {len(gone)} of the keys were there.")
            for key in gone[:3]:
                await expect_nothing(layer, key)
        number = await layer.discard(keys)
        expect(number == 0, f"discard gave {number} for what had been discarded before.")
        expect_value(await layer.lookup(build("other", "1")), "value", "lookup of what was not discarded")
        expect(not set(await self._found(layer, "user:")) & set(keys), "keys gives what was discarded.")

    @promise
    async def test_what_was_loaded_before_it_was_discarded_is_not_stored(self, trial: Trial) -> None:
        """In a layer that is shared, `discard` ends the leases of the keys, of those without an entry too."""
        layer = await self._searchable(trial)
        if not isinstance(layer, SharedLayer):
            return
        leases = {key: (await layer.acquire(key, key.encode(), again=True, life=60.0)).lease for key in ("k", "l", "m")}
        await layer.store("k", trial.entry("old"))
        before = (await layer.acquire("n", b"n", again=True, life=60.0)).generation
        await layer.discard(["k", "l"])
        after = (await layer.acquire("n", b"o", again=True, life=60.0)).generation
        expect(after > before, f"discard has no number of its own: {before} before it, {after} after it.")
        for key in ("k", "l"):
            stored = await layer.publish(key, leases[key], {key: trial.entry("too late")}, release=True)
            expect(stored is False, "publish did not give False after the key was discarded.")
            await expect_nothing(layer, key)
        expect(await layer.renew("m", leases["m"], 60.0), "discard ended the lease of another key.")

    # Inside

    async def _searchable(self, trial: Trial) -> SearchableStore:
        __tracebackhide__ = True
        layer = await self._layer(trial)
        expect_methods(layer, SearchableStore)
        if not isinstance(layer, SearchableStore):
            fail(f"{type(layer).__name__} is no SearchableLayer.")
        return layer

    async def _found(self, layer: SearchableLayer, start: str) -> list[str]:
        async with contextlib.aclosing(layer.keys(start)) as batches:
            return [key async for batch in batches for key in batch]
