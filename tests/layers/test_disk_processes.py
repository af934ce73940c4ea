"""The disk layer among processes: forked ones, several at once, and those that are killed."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aurelis.cache import DiskBackend
from aurelis.cache.exceptions import LayerError
from aurelis.cache.layers._disk_file import NAME
from tests.disks import aside, hammer, kill_again_and_again, open_files, threads
from tests.managers import run_script


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskBackend]:
    """An empty layer in a folder of its own."""
    layer = DiskBackend(tmp_path / "cache", timeout=10)
    yield layer
    await layer.aclose()


# --- forks


FORK = """
    import asyncio, os, sys, threading
    from aurelis.cache import DiskBackend

    disk = DiskBackend(sys.argv[1], timeout=10)

    async def use(number):
        for turn in range(20):
            assert await disk.set(f"{number} {turn}", turn)
            assert await disk.get(f"{number} {turn}") == turn

    def go_on(stop):
        async def main():
            turn = 0
            while not stop.is_set():
                turn += 1
                assert await disk.set("busy", turn)
                assert await disk.get("busy") is not None
        asyncio.run(main())

    asyncio.run(use(0))
    node = disk.node
    stop = threading.Event()
    thread = threading.Thread(target=go_on, args=(stop,))
    thread.start()
    children = []
    for number in range(1, 6):
        pid = os.fork()
        if pid == 0:
            asyncio.run(use(number))
            assert asyncio.run(disk.get("0 1")) == 1
            assert disk.node != node
            asyncio.run(disk.aclose())
            os._exit(0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    stop.set()
    thread.join()
    assert codes == [0] * 5, codes
    for number in range(6):
        assert asyncio.run(disk.get(f"{number} 19")) == 19
    asyncio.run(disk.aclose())
"""


def test_a_forked_child_and_its_parent_both_go_on(tmp_path: Path) -> None:
    run_script(FORK, str(tmp_path), within=60, PYTHONWARNINGS="error,ignore::DeprecationWarning")
    assert aside(tmp_path) == []


async def test_while_a_process_forks_it_has_no_connection_open(disk: DiskBackend) -> None:
    await disk.set("k", 1)
    database = disk.database
    database.before_fork()
    assert threads() == []
    assert open_files(database._file.folder) == []
    waiting = asyncio.ensure_future(disk.get("k"))
    await asyncio.sleep(0.01)
    assert threads() == []
    database.after_fork_in_parent()
    assert await waiting == 1


async def test_a_child_of_a_process_whose_disk_hung_does_not_use_it(disk: DiskBackend) -> None:
    await disk.set("k", 1)
    database = disk.database
    database.before_fork()
    database.after_fork()
    assert await disk.get("k") == 1
    await disk.aclose()
    database._unsafe_in_child = True
    database.after_fork()
    assert await disk.get("k", "default") == "default"
    with pytest.raises(LayerError):
        await disk.delete("k")


# --- several processes


def test_two_processes_lose_nothing_and_see_nothing_torn(tmp_path: Path) -> None:
    written = hammer(tmp_path, 2.0)
    assert all(number > 50 for number, _ in written)
    assert aside(tmp_path) == []
    connection = sqlite3.connect(tmp_path / NAME)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert (
        connection.execute("SELECT count(*), sum(size) FROM entries").fetchall()
        == connection.execute("SELECT entries, bytes FROM totals").fetchall()
    )
    connection.close()


def test_what_was_acknowledged_before_a_process_was_killed_is_there(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 5)
