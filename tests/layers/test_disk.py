"""The disk layer: what is in its folder, how it is bounded, and what it does at once."""

import asyncio
import contextlib
import gc
import math
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aurelis.cache import DiskBackend
from aurelis.cache._entry import Entry
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.layers._disk_file import NAME
from aurelis.cache.testing import ManualClock
from tests.disks import PAYLOAD, open_files, read_once, threads
from tests.managers import eventually, run_script


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskBackend]:
    """An empty layer in a folder of its own."""
    layer = DiskBackend(tmp_path / "cache", timeout=10)
    yield layer
    await layer.aclose()


# --- the folder


async def test_nobody_else_may_look_into_the_folder_or_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "cache"
    before = os.umask(0)
    try:
        async with contextlib.aclosing(DiskBackend(folder)) as disk:
            await disk.set("k", 1)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {f"{NAME}-wal", f"{NAME}-shm", NAME} <= modes.keys()
    assert set(modes.values()) == {0o600}


async def test_a_file_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path)) as disk:
        await disk.set("k", 1)
    (tmp_path / NAME).chmod(0o644)
    async with contextlib.aclosing(DiskBackend(tmp_path)) as disk:
        assert await disk.get("k") == 1
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


async def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"")
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / NAME).symlink_to(target)
    async with contextlib.aclosing(DiskBackend(folder)) as disk:
        assert not await disk.set("k", 1)
    assert target.read_bytes() == b""


async def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    disk = DiskBackend(tmp_path / "cache")
    await disk.aclose()
    assert not (tmp_path / "cache").exists()


async def test_closing_leaves_no_thread_no_open_file_and_no_journal(tmp_path: Path) -> None:
    disk = DiskBackend(tmp_path)
    await disk.set("k", 1)
    await disk.get("k")
    assert len(threads()) == 2
    await disk.aclose()
    assert threads() == []
    assert open_files(tmp_path) == []
    assert f"{NAME}-wal" not in os.listdir(tmp_path)
    assert await disk.get("k") == 1
    await disk.aclose()


async def test_one_that_is_forgotten_keeps_no_thread_and_no_file(tmp_path: Path) -> None:
    disk = DiskBackend(tmp_path)
    await disk.set("k", 1)
    del disk
    gc.collect()
    await eventually(lambda: not threads() and not open_files(tmp_path))


def test_a_program_that_ends_without_closing_ends_and_leaves_the_file_in_order(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from aurelis.cache import DiskBackend
        disk = DiskBackend(sys.argv[1])
        assert asyncio.run(disk.set("k", "kept"))
    """
    run_script(script, str(tmp_path))
    assert not list(tmp_path.glob("*-wal"))
    connection = sqlite3.connect(tmp_path / NAME)
    assert connection.execute("SELECT in_order FROM state").fetchall() == [(1,)]
    connection.close()
    assert asyncio.run(read_once(tmp_path, "k")) == "kept"


async def test_several_event_loops_and_threads_use_one_layer(disk: DiskBackend) -> None:
    async def use(number: int) -> list[object]:
        for turn in range(20):
            await disk.set(f"{number} {turn}", turn)
        return [await disk.get(f"{number} {turn}") for turn in range(20)]

    def run(number: int) -> list[object]:
        return asyncio.run(use(number))

    found = await asyncio.gather(*(asyncio.to_thread(run, number) for number in range(4)), use(4))
    assert found == [list(range(20))] * 5


async def test_a_loop_that_is_closed_while_something_is_written_harms_nobody(disk: DiskBackend) -> None:
    def begin_and_leave() -> None:
        loop = asyncio.new_event_loop()
        call = disk.lookup("k")
        loop.call_soon(loop.stop)
        task = loop.create_task(call)
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()

    for _ in range(20):
        await asyncio.to_thread(begin_and_leave)
    assert await disk.set("k", 1)


@pytest.mark.parametrize(
    "options", [{"max_size": 0}, {"max_bytes": 0}, {"ttl": -1}, {"timeout": 0}, {"timeout": math.nan}]
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="DiskBackend"):
        DiskBackend(tmp_path, **options)  # type: ignore[arg-type]  # a float of the wrong range


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(ConfigurationError, match=r"3\.35\.0"):
        DiskBackend(tmp_path)


# --- room


async def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    clock = ManualClock()
    async with contextlib.aclosing(DiskBackend(tmp_path, max_size=10, clock=clock)) as disk:
        for number in range(10):
            await disk.set(f"{number}", number)
            clock.advance(1)
        clock.advance(11)
        assert await disk.get("0") == 0
        clock.advance(1)
        for number in range(10, 14):
            await disk.set(f"{number}", number)
            clock.advance(1)
        kept = [number for number in range(14) if await disk.get(f"{number}") is not None]
        assert kept == [0, 5, 6, 7, 8, 9, 10, 11, 12, 13]
        assert disk.database.evicted.n == 4
        assert disk.database.entries == 10


async def test_bytes_are_bounded(tmp_path: Path) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path, 100_000, max_bytes=1_000_000)) as disk:
        await disk.store_many({f"{number}": Entry(PAYLOAD, None, math.inf, math.inf, 0) for number in range(2000)})
        assert 900_000 < disk.database.bytes <= 1_000_000
        for number in range(2000, 6000, 50):
            keys = range(number, number + 50)
            await disk.store_many({f"{key}": Entry(PAYLOAD, None, math.inf, math.inf, 0) for key in keys})
        assert disk.database.bytes <= 1_000_000
        assert await disk.get("5999") == PAYLOAD
    assert (tmp_path / NAME).stat().st_size < 9_000_000  # of the first thousands at once, given back bit by bit


async def test_room_that_became_free_is_given_back(tmp_path: Path) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path, 100_000)) as disk:
        await disk.store_many({f"{number}": Entry(PAYLOAD, None, math.inf, math.inf, 0) for number in range(5000)})
        await disk.clear()
        for _ in range(900):
            await disk.set("k", 1)
    assert (tmp_path / NAME).stat().st_size < 5_000_000


async def test_a_value_that_is_larger_than_all_room_is_not_kept(tmp_path: Path) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path, max_bytes=10_000)) as disk:
        assert await disk.set("k", 1)
        assert await disk.set("l", 2)
        assert not await disk.set("k", b"x" * 10_000)
        assert await disk.get("k") is None
        assert await disk.get("l") == 2


async def test_what_is_expired_goes_without_being_asked_for(tmp_path: Path) -> None:
    clock = ManualClock()
    async with contextlib.aclosing(DiskBackend(tmp_path, clock=clock)) as disk:
        for number in range(20):
            await disk.set(f"{number}", number, ttl=10)
        await disk.set("stays", 1, ttl=100)
        clock.advance(11)
        await disk.set("k", 1)
        assert disk.database.entries == 2
        assert disk.database.expired.n == 20


async def test_totals_are_those_of_all_processes(tmp_path: Path) -> None:
    one, other = DiskBackend(tmp_path), DiskBackend(tmp_path)
    await one.set("k", PAYLOAD)
    await other.set("k", PAYLOAD + PAYLOAD)
    await one.set("l", PAYLOAD)
    await other.delete("k")
    connection = sqlite3.connect(tmp_path / NAME)
    ((entries, size),) = connection.execute("SELECT count(*), sum(size) FROM entries").fetchall()
    assert connection.execute("SELECT entries, bytes FROM totals").fetchall() == [(entries, size)] == [(1, size)]
    connection.close()
    await one.aclose()
    await other.aclose()


# --- time


async def test_what_was_stored_by_a_clock_that_was_set_back_since_is_gone(tmp_path: Path) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path, clock=ManualClock(time=2_000_000_000.0))) as disk:
        await disk.set("k", 1, ttl=math.inf)
        lease = await disk.acquire("l", b"1", again=False, life=60.0)
        assert lease.own
    async with contextlib.aclosing(DiskBackend(tmp_path, clock=ManualClock(time=1_999_996_400.0))) as disk:
        assert await disk.get("k") is None
        assert (await disk.acquire("l", b"1", again=False, life=60.0)).own
        assert await disk.set("k", 2)
        assert await disk.get("k") == 2


# --- transactions


async def test_what_waits_together_is_one_transaction(disk: DiskBackend) -> None:
    await disk.set("k", 0)
    before = disk.database._transactions
    await asyncio.gather(*(disk.set(f"{number}", number) for number in range(200)))
    assert disk.database._transactions - before <= 5
    assert await disk.lookup_many([f"{number}" for number in range(200)]) != {}


async def test_one_that_fails_does_not_fail_the_others_of_its_transaction(disk: DiskBackend) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO entries (n) VALUES ('no number')")

    results = await asyncio.gather(
        disk.set("a", 1), disk.database.write(fail), disk.set("b", 2), return_exceptions=True
    )
    assert results[0] is results[2] is True
    assert isinstance(results[1], sqlite3.Error)
    assert [await disk.get(key) for key in "ab"] == [1, 2]


async def test_many_keys_are_read_in_one_step_of_one_moment(disk: DiskBackend) -> None:
    await disk.store_many({f"{number}": Entry(0, None, math.inf, math.inf, 0) for number in range(100)})
    jobs = []
    run = disk.database._reads._run
    await disk.database._reads.finish()
    disk.database._reads._run = lambda batch: (jobs.extend(batch), run(batch))[1]  # type: ignore[func-returns-value]
    found = await disk.lookup_many([f"{number}" for number in range(100)])
    assert len(found) == 100
    assert len(jobs) == 1


# --- who listens


async def test_a_listener_that_missed_something_is_told_so(tmp_path: Path) -> None:
    one, other = DiskBackend(tmp_path, timeout=10), DiskBackend(tmp_path, timeout=10)
    async with contextlib.aclosing(other.news()) as news:
        assert await anext(news) is None
        number = await one.announce(["k"])
        message = await anext(news)
        assert message is not None
        assert (message.number, message.node, message.names) == (number, one.node, ("k",))
        await one.announce(["l"])
        await one.announce(["m"])
        connection = sqlite3.connect(tmp_path / NAME)
        connection.execute("DELETE FROM words WHERE n <= (SELECT max(n) - 1 FROM words)")
        connection.commit()
        connection.close()
        with pytest.raises(ConnectionError):
            await anext(news)
    async with contextlib.aclosing(other.news()) as news:
        assert await anext(news) is None
        (tmp_path / NAME).rename(tmp_path / "gone")
        with pytest.raises(ConnectionError):
            await anext(news)
    await one.aclose()
    await other.aclose()


async def test_records_of_tags_are_bounded_and_the_lost_ones_begin_now(tmp_path: Path) -> None:
    clock = ManualClock()
    async with contextlib.aclosing(DiskBackend(tmp_path, 10, timeout=10, clock=clock)) as disk:
        first = await disk.invalidate(["t:first"], soft=False, known=0)
        clock.advance(1)
        await disk.generations([f"t:{number}" for number in range(12_000)])
        for number in range(401):
            await disk.set("k", number)
        connection = sqlite3.connect(tmp_path / NAME)
        assert connection.execute("SELECT count(*) FROM tags").fetchall() == [(10_020,)]
        connection.close()
        present = (await disk.acquire("?", b"1", again=True, life=1.0)).generation
        assert (await disk.generations(["t:first"]))["t:first"] == (present, 0)
        assert present >= first


async def test_old_words_go(tmp_path: Path) -> None:
    clock = ManualClock()
    async with contextlib.aclosing(DiskBackend(tmp_path, timeout=10, clock=clock)) as disk:
        for _ in range(100):
            await disk.announce(["k"])
        clock.advance(61)
        for number in range(401):
            await disk.set("k", number)
        connection = sqlite3.connect(tmp_path / NAME)
        assert connection.execute("SELECT count(*) FROM words").fetchall() == [(0,)]
        connection.close()
