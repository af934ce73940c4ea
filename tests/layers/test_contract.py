"""What every layer promises, whatever it keeps its entries in."""

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from aurelis.cache import MemoryBackend, RedisBackend
from aurelis.cache._entry import Entry
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.exceptions import UnstorableValueError
from aurelis.cache.testing import ManualClock
from aurelis.cache.typing import Layer
from tests.conftest import TOPOLOGIES
from tests.managers import configuration

CODEC = ValueCodec()
ODD_KEYS = [
    "",
    " ",
    "a b",
    "{tag}",
    "}{",
    "*",
    "[a-z]?",
    "a:b:c",
    "a\nb\r\n",
    "\x00",
    "%2A",
    "schlüssel ✓",
    "\ud800 alone",
    "k" * 5000,
]


@dataclass
class Bed:
    """A layer and its clock."""

    layer: MemoryBackend | RedisBackend
    clock: ManualClock

    def entry(self, value: object, life: float = 60.0, stale_for: float = 0.0) -> Entry:
        """Returns an entry that is fresh for `life` seconds."""
        now = self.clock.monotonic()
        return Entry(value, CODEC.dumps(value), now + life, now + life + stale_for, 100)

    async def is_gone(self, key: str, life: float) -> bool:
        """Returns whether the entry is gone after its life; Redis goes by its own time."""
        self.clock.advance(life)
        found = await self.layer.lookup(key)
        while found is not None and isinstance(self.layer, RedisBackend):
            found = await self.layer.lookup(key)
        return found is None


@pytest.fixture(params=["memory", *TOPOLOGIES])
async def bed(request: pytest.FixtureRequest, topology_url: Callable[[str], str]) -> AsyncIterator[Bed]:
    """Each layer in turn, empty."""
    clock = ManualClock()
    layer: MemoryBackend | RedisBackend
    if request.param == "memory":
        layer = MemoryBackend(clock=clock)
    else:
        layer = RedisBackend(configuration(redis_url=topology_url(request.param), timeout=10), clock=clock)
    yield Bed(layer, clock)
    await layer.aclose()


# --- entries


async def test_it_is_a_layer(bed: Bed) -> None:
    """Checked by the type checker."""
    layer: Layer = bed.layer
    assert layer.name in {"l1", "l2"}


async def test_nothing_is_found_where_nothing_was_stored(bed: Bed) -> None:
    assert await bed.layer.lookup("k") is None
    assert await bed.layer.lookup_many(["k", "l"]) == {}
    assert not await bed.layer.remove("k")


@pytest.mark.parametrize("value", ["text", None, {"a": [1, (2,)]}, b"", 2**80], ids=repr)
async def test_an_entry_comes_back_with_its_value_and_its_life(bed: Bed, value: object) -> None:
    await bed.layer.store("k", bed.entry(value, 60, stale_for=30))
    found = await bed.layer.lookup("k")
    assert found is not None
    assert CODEC.loads(found.payload or CODEC.dumps(found.value)) == value
    assert found.fresh_until - bed.clock.monotonic() == pytest.approx(60, abs=1)
    assert found.expires - bed.clock.monotonic() == pytest.approx(90, abs=1)


async def test_what_never_expires_comes_back_so(bed: Bed) -> None:
    await bed.layer.store("k", bed.entry("v", math.inf))
    found = await bed.layer.lookup("k")
    assert found is not None
    assert found.fresh_until == found.expires == math.inf


async def test_what_may_be_served_stale_for_ages_stays_fresh_for_its_own_time_only(bed: Bed) -> None:
    await bed.layer.store("k", bed.entry("v", 60, stale_for=1e12))
    found = await bed.layer.lookup("k")
    assert found is not None
    assert found.fresh_until - bed.clock.monotonic() == pytest.approx(60, abs=1)
    assert found.expires - bed.clock.monotonic() > 1e8


async def test_an_expired_entry_is_not_found(bed: Bed) -> None:
    await bed.layer.store("k", bed.entry("v", 0.05))
    assert await bed.is_gone("k", 0.05)
    assert await bed.layer.lookup_many(["k"]) == {}
    assert not await bed.layer.remove("k")


async def test_a_life_too_short_to_measure_still_replaces_what_was_there(bed: Bed) -> None:
    await bed.layer.store("k", bed.entry("old", 60))
    await bed.layer.store("k", bed.entry("new", 0.0001))
    assert await bed.is_gone("k", 0.0001)
    await bed.layer.store_many({"l": bed.entry("old", 60)})
    await bed.layer.store_many({"l": bed.entry("new", 0.0001), "m": bed.entry("new", 60)})
    assert await bed.is_gone("l", 0.0001)


async def test_storing_again_replaces(bed: Bed) -> None:
    await bed.layer.store("k", bed.entry("old"))
    await bed.layer.store("k", bed.entry("new"))
    found = await bed.layer.lookup("k")
    assert found is not None
    assert found.value == "new"


async def test_many_are_stored_and_found_together(bed: Bed) -> None:
    values = {f"k{number}": number for number in range(300)}
    await bed.layer.store_many({key: bed.entry(value) for key, value in values.items()})
    found = await bed.layer.lookup_many([*values, "missing"])
    assert {key: entry.value for key, entry in found.items()} == values


async def test_removing_says_whether_it_was_there(bed: Bed) -> None:
    await bed.layer.store("k", bed.entry("v"))
    await bed.layer.store("l", bed.entry("v"))
    assert await bed.layer.remove("k")
    assert not await bed.layer.remove("k")
    assert await bed.layer.lookup("l") is not None


async def test_removing_all_leaves_nothing(bed: Bed) -> None:
    await bed.layer.remove_all()
    await bed.layer.store_many({f"k{number}": bed.entry(number) for number in range(1500)})
    await bed.layer.remove_all()
    assert await bed.layer.lookup_many([f"k{number}" for number in range(1500)]) == {}


async def test_odd_keys_are_kept_apart(bed: Bed) -> None:
    await bed.layer.store_many({key: bed.entry(number) for number, key in enumerate(ODD_KEYS)})
    found = await bed.layer.lookup_many(ODD_KEYS)
    assert {key: entry.value for key, entry in found.items()} == {key: number for number, key in enumerate(ODD_KEYS)}
    for number, key in enumerate(ODD_KEYS):
        entry = await bed.layer.lookup(key)
        assert entry is not None
        assert entry.value == number
        assert await bed.layer.remove(key)
        assert len(await bed.layer.lookup_many(ODD_KEYS)) == len(ODD_KEYS) - number - 1


async def test_it_can_be_closed_twice_and_used_again(bed: Bed) -> None:
    await bed.layer.aclose()
    await bed.layer.aclose()
    await bed.layer.store("k", bed.entry("v"))
    assert await bed.layer.lookup("k") is not None


# --- values


async def test_a_value_is_set_got_and_deleted(bed: Bed) -> None:
    assert await bed.layer.get("k") is None
    assert await bed.layer.get("k", "default") == "default"
    assert await bed.layer.set("k", {"a": 1})
    assert await bed.layer.get("k", "default") == {"a": 1}
    assert await bed.layer.delete("k")
    assert not await bed.layer.delete("k")


async def test_none_is_a_value(bed: Bed) -> None:
    await bed.layer.set("k", None)
    assert await bed.layer.get("k", "default") is None


async def test_clearing_forgets_all_values(bed: Bed) -> None:
    await bed.layer.set("k", 1)
    assert await bed.layer.clear()
    assert await bed.layer.get("k") is None


@pytest.mark.parametrize("life", [0.05, timedelta(milliseconds=50)])
async def test_a_value_lives_for_its_ttl(bed: Bed, life: float | timedelta) -> None:
    await bed.layer.set("k", 1, ttl=life)
    assert await bed.is_gone("k", 0.05)


async def test_a_ttl_of_zero_forgets_the_value(bed: Bed) -> None:
    await bed.layer.set("k", 1)
    assert await bed.layer.set("k", 2, ttl=0)
    assert await bed.layer.get("k") is None


async def test_a_value_with_an_infinite_ttl_stays(bed: Bed) -> None:
    await bed.layer.set("k", 1, ttl=math.inf)
    bed.clock.advance(timedelta(days=36_500))
    assert await bed.layer.get("k") == 1


@pytest.mark.parametrize("ttl", [-1, math.nan])
async def test_a_ttl_that_is_negative_or_no_number_is_refused(bed: Bed, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        await bed.layer.set("k", 1, ttl=ttl)


@pytest.mark.parametrize("value", [object(), lambda: None, {"deep": [object()]}])
async def test_a_value_of_a_type_that_cannot_be_stored_is_refused(bed: Bed, value: Any) -> None:
    await bed.layer.set("k", "before")
    with pytest.raises(UnstorableValueError):
        await bed.layer.set("k", value)
    assert await bed.layer.get("k") == "before"


async def test_callers_do_not_share_what_they_can_change(bed: Bed) -> None:
    value = {"rows": [1]}
    await bed.layer.set("k", value)
    value["rows"].append(2)
    got: Any = await bed.layer.get("k")
    got["rows"].append(3)
    assert await bed.layer.get("k") == {"rows": [1]}
