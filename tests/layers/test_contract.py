"""Our layers keep what every layer promises, whatever they keep entries in, and have the same methods for values."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache import DiskBackend, MemoryBackend, RedisBackend
from aurelis.cache._entry import Entry
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.exceptions import UnstorableValueError
from aurelis.cache.http import StoredResponse, VariantIndex
from aurelis.cache.layers._database import Database
from aurelis.cache.layers._disk_entries import DiskEntries
from aurelis.cache.testing import (
    Chaos,
    ChaosLayer,
    ChaosSharedLayer,
    LayerContract,
    ManualClock,
    NewsroomContract,
    SearchableLayerContract,
    SharedLayerContract,
    SharedMemory,
)
from aurelis.cache.typing import Clock, Layer, SharedLayer
from tests.conftest import TOPOLOGIES
from tests.managers import configuration
from tests.shared_layers import SilentLayer, Truth

CODEC = ValueCodec((StoredResponse, VariantIndex))
SEALED: dict[str, Any] = {"compression": "zstd", "compression_threshold": 1, "encryption_key": bytes(range(32))}


# --- the contracts


class TestMemory(LayerContract):
    """The layer in the process, below another one."""

    async def make_layer(self, clock: Clock) -> MemoryBackend:
        return MemoryBackend(max_size=10_000, clock=clock)


class TestRedis(NewsroomContract, SearchableLayerContract):
    """Redis in all its topologies."""

    real_time = True

    @pytest.fixture(autouse=True, params=TOPOLOGIES)
    def _empty_redis(self, request: pytest.FixtureRequest, topology_url: Callable[[str], str]) -> None:
        self.url = topology_url(request.param)

    async def make_layers(self, count: int, clock: Clock) -> Sequence[RedisBackend]:
        return [self._backend("own", clock) for _ in range(count)]

    async def make_neighbour(self, clock: Clock) -> RedisBackend:
        return self._backend("ow", clock)

    def _backend(self, namespace: str, clock: Clock) -> RedisBackend:
        config = configuration(redis_url=self.url, namespace=namespace, timeout=10)
        return RedisBackend(config, codec=CODEC, clock=clock)


class TestSealedRedis(TestRedis):
    """Redis in which everything is compressed and encrypted."""

    @pytest.fixture(autouse=True, params=["server", "cluster"])
    def _empty_redis(self, request: pytest.FixtureRequest, topology_url: Callable[[str], str]) -> None:
        self.url = topology_url(request.param)

    def _backend(self, namespace: str, clock: Clock) -> RedisBackend:
        config = configuration(redis_url=self.url, namespace=namespace, timeout=10, **SEALED)
        return RedisBackend(config, codec=CODEC, clock=clock)


class TestDisk(NewsroomContract, SearchableLayerContract):
    """The disk, which keeps order among the processes of a machine."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    async def make_layers(self, count: int, clock: Clock) -> Sequence[DiskBackend]:
        return [self._backend("own", clock) for _ in range(count)]

    async def make_neighbour(self, clock: Clock) -> DiskBackend:
        return self._backend("ow", clock)

    def _backend(self, namespace: str, clock: Clock) -> DiskBackend:
        return DiskBackend(self.folder, 10_000, timeout=10, namespace=namespace, codec=CODEC, clock=clock)


class TestSealedDisk(TestDisk):
    """The disk, on which everything is compressed and encrypted."""

    def _backend(self, namespace: str, clock: Clock) -> DiskBackend:
        framing = configuration(namespace=namespace, **SEALED).framing()
        return DiskBackend(
            self.folder, 10_000, timeout=10, namespace=namespace, codec=CODEC, framing=framing, clock=clock
        )


class TestDiskBelow(SearchableLayerContract):
    """The disk below a layer that keeps order."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    async def make_layer(self, clock: Clock) -> DiskEntries:
        return DiskEntries(Database(self.folder, 10_000, 2**30, 10, clock), "own", CODEC, clock)

    async def make_neighbour(self, clock: Clock) -> DiskEntries:
        return DiskEntries(Database(self.folder, 10_000, 2**30, 10, clock), "ow", CODEC, clock)


class TestSharedMemory(NewsroomContract, SearchableLayerContract):
    """What stands in for Redis in tests, for one server and for a cluster."""

    @pytest.fixture(autouse=True, params=["server", "cluster"])
    def _kind(self, request: pytest.FixtureRequest) -> None:
        self.cluster = request.param == "cluster"

    async def make_layers(self, count: int, clock: Clock) -> Sequence[Layer]:
        shared = SharedMemory(clock, cluster=self.cluster)
        return [shared.node() for _ in range(count)]


class TestChaosSharedLayer(TestSharedMemory):
    """A layer with faults, as long as nothing goes wrong."""

    async def make_layers(self, count: int, clock: Clock) -> Sequence[Layer]:
        shared = SharedMemory(clock, cluster=self.cluster)
        return [ChaosSharedLayer(shared.node(), Chaos()) for _ in range(count)]


class TestChaosLayer(LayerContract):
    """Likewise, of one that is not shared."""

    async def make_layer(self, clock: Clock) -> ChaosLayer:
        return ChaosLayer(MemoryBackend(max_size=10_000, clock=clock), Chaos())


class TestSilentLayer(SharedLayerContract):
    """A shared layer without messages, which keeps entries as they are."""

    async def make_layers(self, count: int, clock: Clock) -> Sequence[SharedLayer]:
        truth = Truth(clock)
        return [SilentLayer(truth) for _ in range(count)]


# --- values


@dataclass
class Bed:
    """A layer and its clock."""

    layer: MemoryBackend | RedisBackend | DiskBackend
    clock: ManualClock

    async def is_gone(self, key: str, life: float) -> bool:
        """Returns whether the entry is gone after its life; Redis goes by its own time."""
        self.clock.advance(life)
        found = await self.layer.lookup(key)
        while found is not None and isinstance(self.layer, RedisBackend):
            found = await self.layer.lookup(key)
        return found is None


@pytest.fixture(params=["memory", "disk", *TOPOLOGIES])
async def bed(request: pytest.FixtureRequest, topology_url: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bed]:
    """Each layer in turn, empty."""
    clock = ManualClock()
    layer: MemoryBackend | RedisBackend | DiskBackend
    if request.param == "memory":
        layer = MemoryBackend(clock=clock)
    elif request.param == "disk":
        layer = DiskBackend(tmp_path / "cache", timeout=10, clock=clock)
    else:
        layer = RedisBackend(configuration(redis_url=topology_url(request.param), timeout=10), clock=clock)
    yield Bed(layer, clock)
    await layer.aclose()


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


async def test_stale_time_beyond_all_measure_is_kept_as_far_as_it_goes(bed: Bed) -> None:
    now = bed.clock.monotonic()
    await bed.layer.store("k", Entry("v", None, now + 60, now + 1e12, 100))
    found = await bed.layer.lookup("k")
    assert found is not None
    assert found.expires - now > 1e8


async def test_a_closed_layer_can_be_used_again(bed: Bed) -> None:
    await bed.layer.store("k", Entry("v", None, math.inf, math.inf, 100))
    await bed.layer.aclose()
    await bed.layer.store("k", Entry("v", None, math.inf, math.inf, 100))
    assert await bed.layer.lookup("k") is not None
    assert await bed.layer.remove("k")
