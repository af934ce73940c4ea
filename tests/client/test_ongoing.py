"""Who closes an inner transport, and when: the client, or the last load that goes on without it."""

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from aurelis.cache import CacheManager
from aurelis.cache._trouble import Incidents
from aurelis.cache.client import _ongoing
from aurelis.cache.client._ongoing import Ongoing
from aurelis.cache.client._threads import Threads
from tests.managers import WITHIN, eventually, run_script


class Closed:
    """Something to be closed, which says how often it was."""

    def __init__(self) -> None:
        self.times = 0

    async def aclose(self) -> None:
        """Close it, in several steps."""
        for _ in range(3):
            await asyncio.sleep(0)
        self.times += 1


def ongoing_of(manager: CacheManager) -> Ongoing:
    """That of a transport over this manager."""
    return Ongoing(manager._engine.flights.run_to_its_end)


async def test_the_last_load_closes(manager: CacheManager) -> None:
    ongoing, inner, go = ongoing_of(manager), Closed(), asyncio.Event()
    first, second = (asyncio.create_task(work) for work in (go.wait(), asyncio.sleep(0.01)))
    for task in (first, second, first):
        ongoing.watch(task)
    await ongoing.aclose(inner.aclose)
    await second
    await asyncio.sleep(0.01)
    assert inner.times == 0
    go.set()
    await eventually(lambda: inner.times == 1)


async def test_the_manager_waits_for_that(manager: CacheManager) -> None:
    ongoing, inner = ongoing_of(manager), Closed()
    ongoing.watch(asyncio.create_task(asyncio.sleep(0.05)))
    await ongoing.aclose(inner.aclose)
    await manager.aclose()
    assert inner.times == 1


async def test_who_is_cancelled_while_closing_closes(manager: CacheManager) -> None:
    ongoing, inner, go = ongoing_of(manager), Closed(), asyncio.Event()

    async def resist() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(WITHIN)
        await go.wait()

    load = asyncio.create_task(resist())
    ongoing.watch(load)
    await asyncio.sleep(0)
    load.cancel()
    closing = asyncio.create_task(ongoing.aclose(inner.aclose))
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    go.set()
    await eventually(lambda: inner.times == 1)


async def test_a_transport_that_is_used_again_is_not_closed_behind_its_user(manager: CacheManager) -> None:
    ongoing, inner, go = ongoing_of(manager), Closed(), asyncio.Event()
    load = asyncio.create_task(go.wait())
    ongoing.watch(load)
    await ongoing.aclose(inner.aclose)
    assert ongoing.closing is not None
    ongoing.use()
    go.set()
    await load
    await manager.aclose()
    assert inner.times == 0
    await ongoing.aclose(inner.aclose)
    assert inner.times == 1


async def test_closing_twice_closes_once(manager: CacheManager) -> None:
    ongoing, inner = ongoing_of(manager), Closed()
    ongoing.watch(asyncio.create_task(asyncio.sleep(0.01)))
    await ongoing.aclose(inner.aclose)
    await ongoing.aclose(inner.aclose)
    await manager.aclose()
    assert inner.times == 1


def test_loads_of_an_event_loop_that_is_gone_hold_nothing_back() -> None:
    tasks: list[Any] = []
    ongoing, inner = Ongoing(tasks.append), Closed()
    loop = asyncio.new_event_loop()
    load = loop.create_task(asyncio.sleep(WITHIN))
    ongoing.watch(load)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.run(ongoing.aclose(inner.aclose))
    assert inner.times == 1
    assert not tasks
    load._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what this is about


def test_loads_of_another_event_loop_are_not_waited_for_in_this_one(manager: CacheManager) -> None:
    """Their tasks would call back into it from their thread, which wakes nobody."""
    ongoing, inner, left = ongoing_of(manager), Closed(), threading.Event()
    done, go = threading.Event(), threading.Event()

    async def resist() -> None:
        task = asyncio.current_task()
        assert task is not None
        ongoing.watch(task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(WITHIN)
        left.set()
        await asyncio.to_thread(go.wait, WITHIN)
        task.uncancel()
        done.set()

    async def close() -> None:
        await ongoing.aclose(inner.aclose)
        assert inner.times == 0
        go.set()
        await eventually(lambda: inner.times == 1)

    thread = threading.Thread(target=lambda: asyncio.run(resist()))
    thread.start()
    assert left.wait(WITHIN)
    asyncio.run(close(), debug=True)
    thread.join(WITHIN)
    assert done.is_set()


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_nothing_is_left_open_where_the_event_loop_ends_in_the_middle(library: str) -> None:
    """The refresh has not begun, looks into lower layers or asks; connections of other requests are in the pool."""
    said = run_script(SCRIPT, library, PYTHONDEVMODE="1", PYTHONWARNINGS="error")
    cases = [f"{below} {pause} older 3" for below in ("disk", "memory") for pause in ("0", "0.05", "None")]
    assert said.splitlines() == cases


SCRIPT = """
    import asyncio, contextlib, gc, importlib, logging, sys, tempfile, threading
    from aurelis.cache import CacheConfig, CacheManager

    sys.unraisablehook = lambda left: print(left.exc_value)
    logging.basicConfig(stream=sys.stdout, level=logging.ERROR)
    name, = sys.argv[1:]
    library, binding = importlib.import_module(name), importlib.import_module(f"aurelis_{name}")
    held, urls, said = set(), [], []
    FIELDS = b"cache-control: max-age=1, stale-while-revalidate=3600\\r\\ncontent-length: 5\\r\\n\\r\\n"

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\\r\\n\\r\\n"):
                case = head.split(b"/")[1].decode()
                await asyncio.sleep(20 if case in held else 0.05)
                writer.write(b"HTTP/1.1 200 OK\\r\\n" + FIELDS + b"older")
        writer.close()

    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        listening.set()
        await asyncio.sleep(60)

    async def ask(below, pause):
        case = f"{below}-{pause}"
        url = f"{urls[0]}{case}/"
        manager = CacheManager(CacheConfig(cache_dir=tempfile.mkdtemp() if below == "disk" else None))
        inner = library.AsyncHTTPTransport(verify=False)
        transport = binding.AsyncCacheTransport(inner, cache=manager)
        async with library.AsyncClient(transport=transport) as client:
            answers = await asyncio.gather(*(client.get(url + str(number)) for number in range(3)))
            await asyncio.sleep(1.1)
            held.add(case)
            text = (await client.get(url + "0")).text
        said.append(f"{below} {pause} {text} {len(inner._pool.connections)}")
        if pause != "None":
            await asyncio.sleep(float(pause))

    listening = threading.Event()
    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    listening.wait()
    # Each in an event loop of its own, side by side, as all wait for what is stored to get stale.
    cases = [(below, pause) for below in ("memory", "disk") for pause in ("None", "0", "0.05")]
    threads = [threading.Thread(target=lambda case=case: asyncio.run(ask(*case))) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    print(*sorted(said), sep=chr(10))
"""


@pytest.mark.parametrize("threaded", [False, True], ids=["task", "thread"])
async def test_what_cannot_be_closed_later_is_told_without_its_words(
    manager: CacheManager, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, threaded: bool
) -> None:
    monkeypatch.setattr(_ongoing, "_UNCLOSED", Incidents("an inner transport could not be closed"))
    ongoing = ongoing_of(manager)

    def refuse() -> None:
        raise OSError("sk-secret")

    async def refuse_too() -> None:
        refuse()

    if threaded:
        go = threading.Event()

        def load() -> None:
            assert go.wait(WITHIN)

        assert Threads("some", 1, ongoing).begin(load) is not None
        ongoing.close(refuse)
        go.set()
    else:
        ongoing.watch(asyncio.create_task(asyncio.sleep(0.01)))
        await ongoing.aclose(refuse_too)
    await eventually(lambda: "an inner transport could not be closed (OSError)" in caplog.messages)
    assert "sk-secret" not in caplog.text
