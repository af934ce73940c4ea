"""The disk layer where the file or the disk is bad: a failure is one of a layer, and passes."""

import asyncio
import contextlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aurelis.cache import DiskBackend
from aurelis.cache._entry import Entry
from aurelis.cache.exceptions import LayerError
from aurelis.cache.layers import _disk_file, _transactions
from aurelis.cache.layers._disk_file import NAME
from tests.disks import PAYLOAD, aside, open_files, read_once, threads, unclean
from tests.managers import eventually, run_script


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskBackend]:
    """An empty layer in a folder of its own."""
    layer = DiskBackend(tmp_path / "cache", timeout=10)
    yield layer
    await layer.aclose()


# --- a bad file


def truncate(path: Path) -> None:
    """Takes away the end."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 - 100)


def empty(path: Path) -> None:
    """Takes away everything."""
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Changes bits at the begin of each page but the first."""
    data = bytearray(path.read_bytes())
    for begin in range(4096, len(data), 4096):
        for offset in range(16):
            data[begin + offset] ^= 0x55
    path.write_bytes(bytes(data))


def garbage(path: Path) -> None:
    """Replaces it by something else."""
    path.write_bytes(os.urandom(50_000))


def directory(path: Path) -> None:
    """Replaces it by a directory with something in it."""
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def foreign(path: Path) -> None:
    """Replaces it by the database of another program."""
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (a)")
    connection.close()


DAMAGES = [truncate, flip, garbage, directory, foreign]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: str(damage.__name__))
async def test_a_bad_file_is_set_aside_and_a_new_one_begins(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path, timeout=10)) as disk:
        await disk.store_many({f"{number}": Entry(PAYLOAD, None, math.inf, math.inf, 0) for number in range(500)})
    unclean(tmp_path)
    damage(tmp_path / NAME)
    async with contextlib.aclosing(DiskBackend(tmp_path, timeout=10)) as disk:
        assert await disk.get("1") is None
        assert await disk.set("k", 1)
        assert await disk.get("k") == 1
    assert len(aside(tmp_path)) == 1
    assert "a new one begins" in caplog.text


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    empty(tmp_path / NAME)
    async with contextlib.aclosing(DiskBackend(tmp_path, timeout=10)) as disk:
        assert await disk.set("k", 1)
    assert aside(tmp_path) == []


@pytest.mark.parametrize("damage", [truncate, flip, garbage, directory], ids=lambda damage: str(damage.__name__))
async def test_a_file_that_becomes_bad_in_use_is_noticed_by_all_who_use_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    one, other = DiskBackend(tmp_path, timeout=10), DiskBackend(tmp_path, timeout=10)
    keys = [f"{number}" for number in range(500)]
    await one.store_many({key: Entry(PAYLOAD, None, math.inf, math.inf, 0) for key in keys})
    assert await other.get("1") == PAYLOAD
    for disk in (one, other):  # so that nothing is left in the journal, or in their memory
        await disk.aclose()
        await disk.get("k")
    damage(tmp_path / NAME)
    deadline = time.monotonic() + 20
    number = 0
    while not aside(tmp_path) or not await see_each_other(one, other):
        assert time.monotonic() < deadline
        number += 1
        await asyncio.gather(one.get(f"{number % 500}"), other.get(f"{number % 500}"), one.set("k", number))
    for key in keys:
        assert await one.get(key) in (None, PAYLOAD)
    await one.aclose()
    await other.aclose()
    assert (tmp_path / NAME).is_file()


async def see_each_other(one: DiskBackend, other: DiskBackend) -> bool:
    """Returns whether both are on one file, and can write there."""
    for writer, reader in ((one, other), (other, one)):
        token = time.monotonic_ns()
        if not await writer.set("k", token) or await reader.get("k") != token:
            return False
    return True


async def test_a_folder_that_is_removed_in_use_is_made_again(disk: DiskBackend) -> None:
    folder = disk.database._file.folder
    await disk.set("k", 1)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert await disk.get("k") is None
    assert await disk.set("k", 2)
    assert await disk.get("k") == 2
    assert folder.is_dir()


async def test_one_damaged_file_is_kept(tmp_path: Path) -> None:
    for number in range(4):
        garbage(tmp_path / NAME)
        async with contextlib.aclosing(DiskBackend(tmp_path, timeout=10)) as disk:
            assert await disk.set("k", number)
    assert len(aside(tmp_path)) == 1


async def test_a_value_that_is_damaged_in_a_sound_file_is_a_miss(tmp_path: Path) -> None:
    reasons = []
    disk = DiskBackend(tmp_path, timeout=10, damaged=lambda error: reasons.append(error.reason))
    await disk.set("k", "value")
    await disk.set("l", "other")
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("UPDATE entries SET frame = substr(frame, 1, length(frame) - 1) || x'ff' WHERE n = 1")
    connection.execute("UPDATE entries SET frame = (SELECT frame FROM entries WHERE n = 1) WHERE n = 2")
    connection.commit()
    connection.close()
    assert await disk.get("k") is None
    assert (await disk.acquire("l", b"1", again=False, life=60.0)).own
    assert reasons == ["check", "check"]
    await disk.aclose()


async def test_a_machine_that_stopped_while_it_was_in_use_begins_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path, timeout=10)) as disk:
        await disk.set("k", 1)
    monkeypatch.setattr(_disk_file, "_boot", lambda: "another one")
    assert await read_once(tmp_path, "k") == 1  # it had been closed before
    unclean(tmp_path)
    monkeypatch.setattr(_disk_file, "_boot", lambda: "yet another")
    assert await read_once(tmp_path, "k") is None


async def test_a_process_that_was_killed_leaves_what_it_had_stored(tmp_path: Path) -> None:
    async with contextlib.aclosing(DiskBackend(tmp_path, timeout=10)) as disk:
        await disk.set("k", 1)
    unclean(tmp_path)
    assert await read_once(tmp_path, "k") == 1


# --- a bad disk


async def test_a_lock_of_another_process_is_waited_for_and_no_longer_than_allowed(tmp_path: Path) -> None:
    disk = DiskBackend(tmp_path, timeout=0.3)
    await disk.set("k", 1)
    holder = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    assert not await disk.set("k", 2)
    with pytest.raises(LayerError):
        await disk.delete("k")
    assert time.monotonic() - begin < 2
    assert await disk.get("k") == 1  # reading needs no lock
    waiting = asyncio.ensure_future(disk.set("k", 3))
    await asyncio.sleep(0.05)
    holder.execute("ROLLBACK")
    assert await waiting
    assert await disk.get("k") == 3
    holder.close()
    await disk.aclose()


async def test_a_call_given_up_while_it_waits_is_not_done_later(tmp_path: Path) -> None:
    disk = DiskBackend(tmp_path, timeout=5)
    await disk.set("k", 1)
    holder = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await disk.store("k", Entry(2, None, math.inf, math.inf, 0))
    holder.execute("ROLLBACK")
    holder.close()
    assert await disk.set("l", 1)
    assert await disk.get("k") == 1
    await disk.aclose()


async def test_closing_does_not_wait_for_ever_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_transactions, "_FAREWELL", 0.1)
    disk = DiskBackend(tmp_path, timeout=2.0)
    assert await disk.set("k", 1)
    hangs = threading.Event()
    waiting = asyncio.ensure_future(disk.database.write(lambda connection: hangs.wait(20)))
    begin = time.monotonic()
    await disk.aclose()
    assert time.monotonic() - begin < 5
    assert "does not answer" in caplog.text
    hangs.set()
    assert await waiting
    assert await disk.get("k") == 1
    await disk.aclose()
    await eventually(lambda: not threads() and not open_files(tmp_path))


async def test_a_folder_that_cannot_be_made_is_a_failure_that_passes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    disk = DiskBackend(tmp_path / "file" / "cache")
    assert await disk.get("k", "default") == "default"
    assert not await disk.set("k", 1)
    with pytest.raises(LayerError):
        await disk.delete("k")
    with pytest.raises(LayerError):
        await disk.clear()
    (tmp_path / "file").unlink()
    assert await disk.set("k", 1)
    assert await disk.get("k") == 1
    await disk.aclose()


# As another user where needed: nothing is read-only for the superuser.
READ_ONLY = """
    import asyncio, os, sys
    from aurelis.cache import DiskBackend
    folder = sys.argv[1]

    async def main():
        disk = DiskBackend(folder)
        assert await disk.set("k", 1)
        await disk.aclose()
        os.chmod(folder, 0o500)
        assert not await disk.set("k", 2)
        assert await disk.get("k", "default") in ("default", 1)
        os.chmod(folder, 0o700)
        assert await disk.set("k", 3)
        assert await disk.get("k") == 3
        os.chmod(folder + "/cache-1.sqlite3.door", 0)
        await disk.aclose()
        os.chmod(folder + "/cache-1.sqlite3.door", 0o600)
        assert await disk.get("k") == 3
        await disk.aclose()

    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.setegid(65534)
        os.seteuid(65534)
    asyncio.run(main())
"""


def test_a_folder_that_is_read_only_is_a_failure_that_passes() -> None:
    folder = Path("/tmp") / f"aurelis-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        run_script(READ_ONLY, str(folder))
    finally:
        folder.chmod(0o700)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


FULL = """
    import asyncio, resource, sys
    from aurelis.cache import DiskBackend

    async def main():
        disk = DiskBackend(sys.argv[1], 100_000, timeout=10)
        assert await disk.set("k", "kept")
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, unlimited[1]))
        taken = [await disk.set(f"{number}", b"x" * 3000) for number in range(1000)]
        assert any(taken) and not all(taken), taken
        assert await disk.get("k") == "kept"
        assert await disk.get("0") == b"x" * 3000
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert await disk.set("k", "again")
        assert await disk.get("k") == "again"
        lost = [n for n, ok in enumerate(taken) if ok and await disk.get(f"{n}") != b"x" * 3000]
        assert not lost, lost
        await disk.aclose()

    asyncio.run(main())
"""


def test_a_full_disk_is_a_failure_that_passes(tmp_path: Path) -> None:
    run_script(FULL, str(tmp_path), within=60)
    assert aside(tmp_path) == []
