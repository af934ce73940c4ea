"""Processes that fork, several event loops and threads, and the end of it all: nothing is shared by mistake, and
nothing is left."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx import AsyncCacheTransport, CacheTransport
from tests.fleet import Fleet, Json, Report
from tests.loops import loop_threads
from tests.managers import WITHIN, eventually, eventually_blocking, requests
from tests.reliability.board import Board, cache_of
from tests.servers import ServerProcess, connections, keys, redis_command

CHILDREN = 4
CALLERS = 200


# --- fork

# Positions on the board: loads and answers of each process, and how far it is, the parent's last; what is true.
LOADS, ANSWERS, PHASES = 0, CHILDREN + 1, 2 * (CHILDREN + 1)
TRUTH = PHASES + CHILDREN + 1
OVER = TRUTH + 1


def preload(report: Report, url: str, board: str) -> Json:
    """Uses a cache, forks children that use it, too, and goes on using it."""
    warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point
    numbers = Board(board, OVER + 1)
    cache = cache_of(url, heartbeat=0.5)

    async def warm() -> None:
        await cache.set("before", "the fork")
        await cache.get_or_compute("loaded before", number_of(-1))
        assert await cache.get("before") == "the fork"

    asyncio.run(warm())
    children = []
    for index in range(CHILDREN):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio.run(use(cache, numbers, index))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    asyncio.run(use(cache, numbers, CHILDREN))
    return [os.waitpid(child, 0)[1] for child in children]


def number_of(number: int) -> Any:
    """Returns a load of that number."""

    async def load() -> int:
        return number

    return load


async def use(cache: CacheManager, numbers: Board, index: int) -> None:
    """What the parent and each child do at the same time."""
    assert await cache.get("before") == "the fork"

    async def load() -> int:
        numbers[LOADS + index] += 1
        await asyncio.sleep(0.2)
        return index

    async def truth() -> int:
        return numbers[TRUTH]

    values = await asyncio.gather(*(cache.get_or_compute("k", load) for _ in range(CALLERS)))
    assert len(set(values)) == 1
    numbers[ANSWERS + index] = len(values)
    key = cache.key_builder.build_key("things", "1")
    assert await cache.get_or_compute(key, truth, tags=["t"]) == 0
    numbers[PHASES + index] = 1
    if index == 0:  # one child tells all others, and the parent
        await eventually(lambda: all(numbers[PHASES + process] for process in range(CHILDREN + 1)))
        await asyncio.sleep(0.1)
        numbers[TRUTH] = 1
        await cache.invalidate_tags("t")
    deadline = time.monotonic() + 5
    while await cache.get_or_compute(key, truth, tags=["t"]) != 1:
        assert time.monotonic() < deadline, "the process does not hear of changes"
        await asyncio.sleep(0.005)
    counted = requests(cache)
    assert sum(number for result, number in counted.items() if result != "loads") > CALLERS
    await cache.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_preloaded_workers_share_what_they_should_and_nothing_else(own_redis: ServerProcess, tmp_path: Path) -> None:
    """As gunicorn does with `--preload`, after the manager was used; the parent goes on with it."""
    board = Board(tmp_path / "board", OVER + 1)
    with Fleet(preload, [{"url": own_redis.url, "board": str(tmp_path / "board")}]) as fleet:
        assert fleet.results() == [[0] * CHILDREN]
    assert sum(board[LOADS + index] for index in range(CHILDREN + 1)) == 1
    assert [board[ANSWERS + index] for index in range(CHILDREN + 1)] == [CALLERS] * (CHILDREN + 1)
    assert connections(own_redis) == 0
    assert keys(own_redis, "fleet:l:*") == b"*0\r\n"


# --- several loops and threads, and the end


def everything(report: Report, url: str, port: int) -> Json:
    """Uses a cache from everywhere, closes it while loads are under way, and says what is left."""
    cache = cache_of(url, heartbeat=0.3)
    before = left()

    async def load() -> int:
        await asyncio.sleep(0.01)
        return 1

    async def endless() -> int:
        await asyncio.sleep(1000)
        return 1

    async def some(number: int) -> None:
        for turn in range(20):
            assert await cache.get_or_compute(f"k{turn}", load) == 1
            await cache.set(f"own {number}", turn)
        await cache.invalidate_tags("t")

    async def main() -> Json:
        with loop_threads(3) as loops:
            futures = [loop.submit(some(number)) for number, loop in enumerate(loops)]
            await some(9)
            await asyncio.to_thread(lambda: [future.result(WITHIN) for future in futures])
            waiting = [loop.submit(never_ending(cache, endless, number)) for number, loop in enumerate(loops)]
            here = asyncio.ensure_future(never_ending(cache, endless, 9))
            await asyncio.sleep(0.2)
            leases = redis_command(port, "KEYS fleet:l:*").count(b"fleet:l:")
            begin = time.monotonic()
            await cache.aclose(0.5)
            lasted = time.monotonic() - begin
            ends = [await here, *(await asyncio.to_thread(lambda: [future.result(WITHIN) for future in waiting]))]
            tasks = len(asyncio.all_tasks()) - 1
        return {"leases": leases, "seconds": lasted, "ends": ends, "tasks": tasks}

    said: dict[str, object] = asyncio.run(main())
    gc.collect()
    after = left()
    said["left"] = {what: after[what] - before[what] for what in before}
    report(said)
    sys.stdin.read()  # the connections are looked at while the process lives
    return None


async def never_ending(cache: CacheManager, load: Any, number: int) -> str:
    """Waits for a load that does not end; returns how that ended."""
    try:
        await cache.get_or_compute(f"never {number}", load)
    except Exception as error:  # noqa: BLE001  # it is what is asked for
        return type(error).__name__
    return "a value"


def left() -> dict[str, int]:
    """What a process has that could be forgotten."""
    sockets = [fd for fd in Path("/proc/self/fd").iterdir() if is_socket(fd)]
    return {"threads": threading.active_count(), "sockets": len(sockets)}


def is_socket(descriptor: Path) -> bool:
    """Whether an open file is a socket."""
    try:
        return os.readlink(descriptor).startswith("socket:")
    except FileNotFoundError:
        return False


def test_closing_leaves_no_task_thread_connection_or_lease(own_redis: ServerProcess) -> None:
    with Fleet(everything, [{"url": own_redis.url, "port": own_redis.port}]) as fleet:
        said = fleet.report(0)
        eventually_blocking(lambda: connections(own_redis) == 0)
        fleet.kill(0)
    assert said["leases"] == 4
    assert said["ends"] == ["CacheClosedError"] * 4
    assert said["tasks"] == 0
    assert said["left"] == {"threads": 0, "sockets": 0}
    assert said["seconds"] < 3
    assert keys(own_redis, "fleet:l:*") == b"*0\r\n"


# --- synchronous code beside an asynchronous app


async def mixed(report: Report, url: str, number: int, board: str) -> Json:
    """Asks by an `httpx.Client` in threads, by an `httpx.AsyncClient` and an app at once, all with one cache."""
    cache = cache_of(url, heartbeat=0.3)
    numbers = Board(board, 2)
    loads: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        loads.append(request.url.path)
        text = f"{request.url.path} {numbers[0]}"
        return httpx.Response(200, headers={"cache-control": "max-age=60"}, text=text)

    async def answer_later(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.01)
        return answer(request)

    def ask(client: httpx.Client, version: int) -> int:
        for turn in range(50):
            path = f"/{turn % 10}"
            assert client.get(f"http://origin{path}").text == f"{path} {version}"
        return 50

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.01)
        await PlainTextResponse(f"{scope['path']} {numbers[0]}")(scope, receive, send)

    async def ask_later(client: httpx.AsyncClient, version: int) -> int:
        for turn in range(50):
            path = f"/{turn % 10}"
            assert (await client.get(f"http://origin{path}")).text == f"{path} {version}"
        return 50

    async def value() -> int:
        return numbers[0]

    async def compute(version: int) -> int:
        for turn in range(50):
            assert await cache.get_or_compute(f"k{turn % 10}", value) == version
        return 50

    asked = 0
    with (
        httpx.Client(transport=CacheTransport(httpx.MockTransport(answer), cache=cache)) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        transport = AsyncCacheTransport(httpx.MockTransport(answer_later), cache=cache)
        app = CacheMiddleware(page, cache=cache, rules=[CacheRule("/*", ttl=60)])
        async with (
            httpx.AsyncClient(transport=transport) as async_client,
            httpx.AsyncClient(transport=httpx.ASGITransport(app)) as user,
        ):
            for version in range(2):
                loop = asyncio.get_running_loop()
                work: list[Coroutine[Any, Any, int] | asyncio.Future[int]] = [
                    loop.run_in_executor(threads, ask, client, version) for _ in range(8)
                ]
                work += [ask_later(async_client, version) for _ in range(8)]
                work += [ask_later(user, version) for _ in range(8)]
                work += [compute(version) for _ in range(8)]
                asked += sum(await asyncio.gather(*work))
                report(version)
                while numbers[1] == version:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.2)
    counted = requests(cache)
    await cache.aclose()
    return {
        "asked": asked,
        "counted": sum(n for result, n in counted.items() if result != "loads"),
        "loads": len(loads),
    }


def test_synchronous_and_asynchronous_callers_of_several_processes_share_one_cache(
    own_redis: ServerProcess, tmp_path: Path
) -> None:
    board = Board(tmp_path / "board", 2)
    arguments = [{"url": own_redis.url, "number": number, "board": str(tmp_path / "board")} for number in range(2)]
    with Fleet(mixed, arguments) as fleet:
        for version in range(2):
            assert [fleet.report(number) for number in range(2)] == [version] * 2
            if version == 0:
                board[0] = 1
                asyncio.run(cleared(own_redis.url))
            board[1] = version + 1
        results = fleet.results()
    for result in results:
        assert result["counted"] == result["asked"]
        assert result["loads"] <= 2 * 10
    assert sum(result["loads"] for result in results) >= 2 * 10
    assert connections(own_redis) == 0


async def cleared(url: str) -> None:
    """Clears the cache as one more process does."""
    cache = cache_of(url)
    await cache.clear()
    await cache.aclose()
