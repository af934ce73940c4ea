"""How callers without an event loop run coroutines, and how that ends."""

import asyncio
import gc
import threading
import weakref
from contextvars import ContextVar, copy_context

import pytest

from aurelis.cache import _bridge
from aurelis.cache._bridge import Bridge, run_inline
from aurelis.cache.exceptions import CacheClosedError
from tests.managers import WITHIN, run_script


async def double(number: int) -> int:
    """A coroutine that waits."""
    await asyncio.sleep(0)
    return 2 * number


def bridge_threads() -> list[threading.Thread]:
    """Returns the private threads that run."""
    return [thread for thread in threading.enumerate() if thread.name == "aurelis-cache"]


def test_many_threads_get_their_results_from_one_private_thread() -> None:
    bridge = Bridge()
    before = len(bridge_threads())
    results: dict[int, int] = {}

    def work(number: int) -> None:
        results[number] = bridge.run(double(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert results == {number: 2 * number for number in range(20)}
    assert len(bridge_threads()) == before + 1
    assert bridge_threads()[-1].daemon
    bridge.close()
    assert len(bridge_threads()) == before


def test_the_private_thread_does_not_wait_for_itself() -> None:
    """Code of a registered type runs there, and could call a cached function."""
    bridge = Bridge()

    async def calls_back() -> int:
        return bridge.run(double(1))

    with pytest.raises(RuntimeError, match="would wait for itself"):
        bridge.run(calls_back())
    assert bridge.run(double(2)) == 4
    bridge.close()


def test_no_thread_begins_before_it_is_needed() -> None:
    before = len(bridge_threads())

    async def last() -> None: ...

    bridge = Bridge()
    bridge.close(last())
    bridge.close()
    assert len(bridge_threads()) == before


def test_an_error_reaches_the_caller_as_it_was() -> None:
    error = LookupError("as it was")

    async def fails() -> None:
        raise error

    bridge = Bridge()
    with pytest.raises(LookupError) as caught:
        bridge.run(fails())
    assert caught.value is error
    bridge.close()


def test_closing_runs_what_is_to_be_done_last_in_the_private_loop() -> None:
    bridge = Bridge()
    loops: list[asyncio.AbstractEventLoop] = []

    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    bridge.run(note())
    bridge.close(note())
    assert loops[0] is loops[1]
    assert loops[0].is_closed()


@pytest.mark.parametrize("last", ["fails", "hangs"])
def test_the_thread_ends_whatever_is_to_be_done_last(monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    monkeypatch.setattr(_bridge, "_PATIENCE", 0.2)

    async def fail() -> None:
        raise LookupError

    async def hang() -> None:
        await asyncio.Event().wait()

    before = len(bridge_threads())
    bridge = Bridge()
    bridge.run(double(1))
    if last == "fails":
        with pytest.raises(LookupError):
            bridge.close(fail())
    else:
        bridge.close(hang())
    assert len(bridge_threads()) == before


def test_closing_leaves_nobody_waiting() -> None:
    bridge = Bridge()
    begun = threading.Event()
    outcomes: list[BaseException] = []

    async def hangs() -> None:
        begun.set()
        await asyncio.Event().wait()

    def work() -> None:
        try:
            bridge.run(hangs())
        except CacheClosedError as error:
            outcomes.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(WITHIN)
    bridge.close()
    thread.join(WITHIN)
    assert len(outcomes) == 1


def test_closing_while_others_call_leaves_nobody_waiting() -> None:
    for _ in range(30):
        bridge = Bridge()
        together = threading.Barrier(5)
        outcomes: list[object] = []

        def work(bridge: Bridge, together: threading.Barrier, outcomes: list[object]) -> None:
            together.wait(WITHIN)
            try:
                outcomes.append(bridge.run(double(1)))
            except CacheClosedError:
                outcomes.append("closed")

        threads = [threading.Thread(target=work, args=(bridge, together, outcomes)) for _ in range(4)]
        for thread in threads:
            thread.start()
        together.wait(WITHIN)
        bridge.close()
        for thread in threads:
            thread.join(WITHIN)
        assert len(outcomes) == 4
        bridge.close()  # a caller that came after may have begun another thread


def test_it_keeps_no_program_alive() -> None:
    printed = run_script(
        """
        import asyncio
        from aurelis.cache._bridge import Bridge

        bridge = Bridge()

        async def work() -> str:
            asyncio.ensure_future(asyncio.Event().wait())
            return "done"

        print(bridge.run(work()))
        """
    )
    assert printed == "done\n"


def test_a_forked_child_gets_a_thread_of_its_own() -> None:
    printed = run_script(
        """
        import asyncio, os
        from aurelis.cache._bridge import Bridge

        bridge = Bridge()

        async def work() -> int:
            return os.getpid()

        assert bridge.run(work()) == os.getpid()
        child = os.fork()
        if child == 0:
            os._exit(0 if bridge.run(work()) == os.getpid() else 1)
        print(os.waitpid(child, 0)[1])
        bridge.close()
        """,
        PYTHONWARNINGS="ignore",
    )
    assert printed == "0\n"


def test_a_coroutine_that_does_not_wait_runs_without_an_event_loop() -> None:
    async def ready() -> int:
        return 1

    assert run_inline(ready()) == 1


def test_a_coroutine_that_waits_must_not_be_run_inline() -> None:
    with pytest.raises(RuntimeError, match="must not wait"):
        run_inline(double(1))


def test_whoever_calls_first_is_let_go_of() -> None:
    """A loop keeps the context in which it was made, for as long as it lives."""

    class Session:
        pass

    session: ContextVar[Session] = ContextVar("session")
    bridge = Bridge()

    def call() -> weakref.ref[Session]:
        mine = Session()
        session.set(mine)
        assert bridge.run(double(1)) == 2
        return weakref.ref(mine)

    called = copy_context().run(call)
    assert bridge.run(double(2)) == 4  # the thread has let go of what it called back
    gc.collect()
    assert called() is None
    bridge.close()
