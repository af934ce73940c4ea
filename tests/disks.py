"""Files of disk layers, for tests."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

from aurelis.cache import DiskBackend
from aurelis.cache.layers._disk_file import NAME
from tests.conftest import ROOT

PAYLOAD = b"x" * 3000


def threads() -> list[threading.Thread]:
    """Returns the threads of all disk layers."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("aurelis-disk")]


def open_files(folder: Path) -> list[str]:
    """Returns what this process has open there."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(each))
    return [path for path in found if path.startswith(str(folder))]


def aside(folder: Path) -> list[str]:
    """Returns the names of files that were set aside."""
    return [path.name for path in folder.iterdir() if ".damaged-" in path.name]


def unclean(folder: Path) -> None:
    """Makes it look as if the last process had been killed."""
    connection = sqlite3.connect(folder / NAME)
    connection.execute("UPDATE state SET in_order = 0")
    connection.commit()
    connection.close()


async def read_once(folder: Path, key: str) -> object:
    """Returns what a new layer finds, which is closed."""
    async with contextlib.aclosing(DiskBackend(folder, timeout=10)) as disk:
        return await disk.get(key)


# --- several processes

HAMMER = """
    import asyncio, random, sys, time
    from aurelis.cache import DiskBackend
    folder, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

    def value(writer, number):  # torn, if its parts are not of one writer and one number
        return [writer, number, bytes([number % 256]) * (number % 5000), writer, number]

    async def main():
        disk = DiskBackend(folder, 100_000, timeout=30)
        rng = random.Random(name)
        end, number, counted = time.monotonic() + seconds, 0, 0
        own = {}
        while time.monotonic() < end:
            batch = []
            for _ in range(8):
                number += 1
                own[f"{name} {number % 300}"] = number
                batch.append(disk.set(f"{name} {number % 300}", value(name, number)))
                batch.append(disk.set(f"common {rng.randrange(50)}", value(name, number)))
            assert all(await asyncio.gather(*batch))
            for _ in range(8):
                found = await disk.get(f"common {rng.randrange(50)}")
                assert found is None or found == value(found[0], found[1]), found
                key = rng.choice(list(own))
                found = await disk.get(key)
                assert found == value(name, own[key]), (key, found)
            await disk.announce([name])
            counted += 1
        for key, last in own.items():
            assert await disk.get(key) == value(name, last), key
        await disk.aclose()
        print(number, counted)

    asyncio.run(main())
"""


def hammer(folder: Path, seconds: float, count: int = 2) -> list[list[int]]:
    """Lets processes write and read in one folder at once; returns what each has written, and its changes."""
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'integrations'}"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HAMMER), str(folder), f"writer {number}", str(seconds)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    results = [process.communicate(timeout=seconds + 60) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, results
    return [[int(word) for word in out.split()] for out, _ in results]


KILLED = """
    import asyncio, sys
    from aurelis.cache import DiskBackend

    async def main():
        disk = DiskBackend(sys.argv[1], 100_000, timeout=30)
        number = int(sys.argv[2])
        while True:
            done = await asyncio.gather(*(disk.set(f"{n}", [n, b"x" * 3000, n]) for n in range(number, number + 10)))
            assert all(done)
            number += 10
            print(number, flush=True)

    asyncio.run(main())
"""


def kill_again_and_again(folder: Path, times: int) -> None:
    """Kills a process that writes, and looks for what it had been told was written."""
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'integrations'}"}
    upto = 0
    for turn in range(times):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), str(upto)]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(3 + turn % 7):
            upto = int(process.stdout.readline())
        time.sleep(turn % 5 * 0.002)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        upto = int(([*rest.splitlines()] or [str(upto)])[-1] or upto)

        async def check(upto: int = upto) -> None:
            disk = DiskBackend(folder, 100_000, timeout=30)
            begin = max(0, upto - 100)
            found = [await disk.get(f"{number}") for number in range(begin, upto)]
            assert found == [[number, b"x" * 3000, number] for number in range(begin, upto)]
            await disk.aclose()

        asyncio.run(check())
    assert aside(folder) == []
