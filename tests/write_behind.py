"""Processes that write behind and are killed, for tests.

A process of its own forks writers, since it has imported all that they need and runs no thread. A writer acknowledges
numbers that grow for each key; its data store is a file, to which a line goes for each value. Killed at any moment, for
each key the numbers in the file must never fall, and those that were acknowledged must be reached.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.conftest import ROOT

KILLING = """
    import asyncio, json, os, random, select, signal, sys, time
    from pathlib import Path
    from aurelis.cache import CacheConfig, CacheManager, WriteBehind
    from aurelis.cache.journals import _stream

    folder, url, times, writers, seed = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    LOG, KEYS = folder / "store", 5
    rng = random.Random(seed)
    if writers == 1:  # nobody could take over from one that lives, so what a dead one had is to be written soon
        _stream.LEASE = 0.1

    class Store:
        def __init__(self, chance):
            self.file = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self.chance = chance

        async def get(self, key):
            return stored().get(key, [None])[-1]

        async def set(self, key, value):
            await asyncio.sleep(random.random() * 0.002)
            if random.random() < self.chance:
                raise OSError("not now")
            os.write(self.file, f"{key} {value}\\n".encode())
            await asyncio.sleep(random.random() * 0.002)

        async def set_many(self, values):
            for key, value in values.items():
                await self.set(key, value)

    def stored():
        found = {}
        for line in LOG.read_text().splitlines() if LOG.exists() else []:
            key, number = line.split()
            found.setdefault(key, []).append(int(number))
        return found

    def opened(chance):
        config = CacheConfig(redis_url=url, timeout=5) if url else CacheConfig(cache_dir=folder, timeout=5)
        cache = CacheManager(config)
        behind = WriteBehind(cache, Store(chance), batch_size=3, flush_interval=0.01, max_attempts=1000)
        behind._draining.first_delay = 0.01
        return cache, behind

    async def write(pipe, owner, acknowledged, number):
        random.seed()
        cache, behind = opened(0.1)
        for key, least in acknowledged.items():
            found = await behind.get(key)
            if found is None or found < least:
                os.write(pipe, f"older {key} {found} {least}\\n".encode())

        async def one(number):
            key = f"{owner}-{number % KEYS}"
            await behind.set(key, number)
            os.write(pipe, f"{key} {number}\\n".encode())

        while True:
            await asyncio.gather(*(one(number + n) for n in range(KEYS)))
            number += KEYS

    class Writer:
        def __init__(self, owner):
            self.owner, self.acknowledged, self.number = owner, {}, 0

        def start(self):
            self.begin = self.number
            self.pipe, pipe = os.pipe()
            self.pid = os.fork()
            if self.pid == 0:
                try:
                    asyncio.run(write(pipe, self.owner, self.acknowledged, self.number))
                except BaseException as error:
                    os.write(pipe, f"raised {type(error).__name__} {error}\\n".encode())
                os._exit(1)
            os.close(pipe)
            self.rest = b""

        def read(self):
            while select.select([self.pipe], [], [], 0)[0]:
                data = os.read(self.pipe, 65536)
                if not data:
                    return False
                *lines, self.rest = (self.rest + data).split(b"\\n")
                for line in lines:
                    key, *words = line.decode().split()
                    if key in ("older", "raised"):
                        problems.append(line.decode())
                    else:
                        self.acknowledged[key] = max(self.acknowledged.get(key, -1), int(words[0]))
            return True

        def kill(self):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.read()
            os.close(self.pipe)
            # What was not acknowledged may be written, too: it is lower than what comes next.
            self.number = max([self.number + 10_000, *self.acknowledged.values()]) // KEYS * KEYS + KEYS

    problems, killed = [], 0
    crew = [Writer(n) for n in range(writers)]
    for writer in crew:
        writer.start()
    while killed < times and not problems:
        writer = rng.choice(crew)
        # Sometimes at once, mostly when something has been acknowledged.
        deadline, wanted = time.monotonic() + 20, rng.choice((0, 1, 1, 1, 1, 1))
        while writer.read() and wanted and not any(n >= writer.begin for n in writer.acknowledged.values()):
            assert time.monotonic() < deadline, "nothing is acknowledged"
            select.select([writer.pipe], [], [], 1)
        time.sleep(rng.random() * 0.03)
        writer.kill()
        killed += 1
        writer.start()
    for writer in crew:
        writer.kill()

    async def finish():
        cache, behind = opened(0)
        assert await behind.flush(60)
        letters = await behind.dead_letters()
        assert await behind.aclose()
        await cache.aclose()
        assert not letters

    asyncio.run(finish())
    found = stored()
    for key, numbers in found.items():
        if numbers != sorted(numbers):
            problems.append(f"out of order: {key}")
    count = 0
    for writer in crew:
        for key, least in writer.acknowledged.items():
            count += 1
            if not found.get(key) or found[key][-1] < least:
                problems.append(f"lost: {key} {least}")
    lines = sum(map(len, found.values()))
    print(json.dumps({"problems": problems, "killed": killed, "keys": count, "written": lines}))
"""


def kill_writers(folder: Path, url: str, *, times: int, writers: int, seed: int = 1) -> dict[str, int]:
    """Kills writers again and again; nothing may be lost or out of order. Returns what was done.

    Args:
        url: of the Redis with the journal and the cache; empty: both are in the folder.
        writers: processes that write, each its own keys, and drain what all have written.
    """
    command = [sys.executable, "-c", textwrap.dedent(KILLING), str(folder), url, str(times), str(writers), str(seed)]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'integrations'}"}
    completed = subprocess.run(
        command,
        check=False,
        capture_output=True,
        env=environ,
        text=True,
        timeout=60 + times * 2,
        stdin=subprocess.DEVNULL,
    )
    assert completed.returncode == 0, f"{completed.stdout}\n{completed.stderr}"
    result = json.loads(completed.stdout.splitlines()[-1])
    assert result.pop("problems") == [], completed.stderr
    done: dict[str, int] = result
    return done
