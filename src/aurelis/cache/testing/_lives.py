"""What every layer promises of the lives of entries."""

from __future__ import annotations

import math
from functools import partial

from ._promises import SLACK, Contract, Trial, expect, expect_life, expect_nothing, expect_value, is_gone, promise


class Lives(Contract):
    """A part of `LayerContract`."""

    @promise
    async def test_an_entry_comes_back_with_the_rest_of_its_life(self, trial: Trial) -> None:
        """`fresh_until` and `expires` come back as instants of the same clock, when some of the life is over, too."""
        layer = await self._layer(trial)
        entry, soon = trial.entry(life=60.0, stale_for=30.0), trial.entry(life=60.0)
        await layer.store("k", entry)
        await layer.store_many({"l": soon})
        for seconds in (0.0, 10.0):
            if not self.real_time:
                await trial.pass_time(seconds)
            expect_life(trial, await layer.lookup("k"), entry)
            expect_life(trial, (await layer.lookup_many(["l"])).get("l"), soon)

    @promise
    async def test_what_never_expires_comes_back_so(self, trial: Trial) -> None:
        """An infinite life stays infinite."""
        layer = await self._layer(trial)
        await layer.store("k", trial.entry(life=math.inf))
        await layer.store_many({"l": trial.entry(life=math.inf)})
        if not self.real_time:
            await trial.pass_time(86_400.0)
        for key in ("k", "l"):
            found = expect_value(await layer.lookup(key), "value", "lookup")
            expect(found.fresh_until == math.inf, f"What is fresh for ever came back fresh until {found.fresh_until}.")
            expect(found.expires == math.inf, f"What never expires came back to expire at {found.expires}.")

    @promise
    async def test_what_may_be_stale_for_ages_is_fresh_for_its_own_time(self, trial: Trial) -> None:
        """However long a value may be served stale, it stays fresh for its own time only."""
        layer = await self._layer(trial)
        entry = trial.entry(life=60.0, stale_for=1e12)
        await layer.store("k", entry)
        found = expect_value(await layer.lookup("k"), "value", "lookup")
        more = found.fresh_until - entry.fresh_until
        expect(-SLACK <= more <= SLACK + trial.delay, f"It is fresh for {60 + more} s, where 60 was stored.")
        expect(found.fresh_until <= found.expires, f"It expires before its freshness ends: {found!r}.")

    @promise
    async def test_a_stale_entry_is_found_until_it_expires(self, trial: Trial) -> None:
        """What is no longer fresh is found, and says so, until it expires."""
        layer = await self._layer(trial)
        await layer.store("k", trial.entry(life=0.1 if self.real_time else 10.0, stale_for=60.0))
        await trial.pass_time(0.1 if self.real_time else 10.0 + SLACK)

        async def is_stale() -> bool:
            found = expect_value(await layer.lookup("k"), "value", "lookup")
            return found.fresh_until <= trial.clock.monotonic()

        await trial.becomes(is_stale, "It comes back fresh when its freshness is over.")

    @promise
    async def test_an_expired_entry_is_not_found(self, trial: Trial) -> None:
        """An entry is found until it expires, and never after that, however often it was looked up."""
        layer = await self._layer(trial)
        life = 0.1 if self.real_time else 10.0
        await layer.store("k", trial.entry(life=life))
        await layer.store_many({"l": trial.entry(life=life / 2, stale_for=life / 2)})
        if not self.real_time:
            await trial.pass_time(life * 0.9)
            expect_value(await layer.lookup("k"), "value", "lookup, shortly before it expires,")
            expect_value((await layer.lookup_many(["l"])).get("l"), "value", "lookup_many, shortly before it expires,")
        await trial.pass_time(life if self.real_time else life * 0.1 + 0.001)
        for key in ("k", "l"):
            await trial.becomes(partial(is_gone, layer, key), f"It is still found after its life of {life} s.")
            await expect_nothing(layer, key)

    @promise
    async def test_a_life_too_short_to_measure_still_replaces_what_was_there(self, trial: Trial) -> None:
        """What is stored for less than an instant, or is over already, takes the place of what was there."""
        layer = await self._layer(trial)
        for life in (0.0001, 0.0, -1.0):
            await layer.store_many({key: trial.entry("old") for key in "klm"})
            await layer.store("k", trial.entry("new", life))
            await layer.store_many({"l": trial.entry("new", life), "m": trial.entry("new")})
            await trial.pass_time(0.01)
            for key in "kl":
                await trial.becomes(partial(is_gone, layer, key), f"It is still found after its life of {life} s.")
            expect_value(await layer.lookup("m"), "new", "lookup")
