"""Threads that go on with what no caller waits for: so many, also in a child, and none where there can be no more."""

import threading
from typing import Any

import pytest

from aurelis.cache.client._ongoing import Ongoing
from aurelis.cache.client._threads import Threads
from tests.client.stack import Stack
from tests.client.upstream import Reply, Upstream
from tests.managers import eventually, run_script
from tests.models.examples import chat, completion, dump


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As where the system gives no more threads of this name."""
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)


async def test_there_are_so_many_and_no_more() -> None:
    threads = Threads("some", 2, Ongoing(print))
    gate = threading.Event()
    begun = [threads.begin(gate.wait), threads.begin(gate.wait)]  # type: ignore[arg-type]  # what it gives is nobody's
    assert all(thread is not None and thread.daemon and thread.name == "some" for thread in begun)
    assert threads.begin(gate.wait) is None  # type: ignore[arg-type]
    gate.set()
    for thread in begun:
        assert thread is not None
        thread.join()
    again = threads.begin(gate.wait)  # type: ignore[arg-type]
    assert again is not None
    again.join()


async def test_one_that_cannot_begin_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads("some", 1, Ongoing(print))
    ran = threading.Event()
    with monkeypatch.context() as patch:
        refuse(patch, "some")
        for _ in range(3):
            assert threads.begin(ran.set) is None
    assert not ran.is_set()
    assert threads.begin(ran.set) is not None
    await eventually(ran.is_set)


def test_a_child_has_all_places() -> None:
    printed = run_script(
        """
        import os, threading, warnings
        from aurelis.cache.client._threads import Threads
        from aurelis.cache.client._ongoing import Ongoing

        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what this is about
        threads, gate = Threads("some", 1, Ongoing(print)), threading.Event()
        assert threads.begin(gate.wait) is not None
        assert threads.begin(gate.wait) is None
        if (child := os.fork()) == 0:
            gate.set()
            print("child", threads.begin(gate.wait) is not None, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("parent", threads.begin(gate.wait) is not None, flush=True)
        gate.set()
        """
    )
    assert printed.splitlines() == ["child True", "parent False"]


async def test_a_stale_answer_is_given_where_no_thread_can_load_it_anew(
    sync_stack: Stack, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = sync_stack
    client = stack.client(ttl=0.05, stale_while_revalidate=60)
    upstream.replies(Reply(200, [("content-type", "application/json")], [dump(completion())], length=True))
    url = f"{upstream.url}/v1/chat/completions"

    async def ask() -> Any:
        return await stack.send("POST", url, json=chat(), client=client)

    first = await ask()
    refuse(monkeypatch, "aurelis-cache-refresh")
    answer = first

    async def is_stale() -> bool:
        nonlocal answer
        answer = await ask()
        return "ttl=-" in answer.cache_status

    for _ in range(200):
        if await is_stale():
            break
        await eventually(lambda: True)
    assert "ttl=-" in answer.cache_status
    assert answer.body == first.body
    assert upstream.calls == 1
