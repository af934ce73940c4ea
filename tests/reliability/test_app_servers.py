"""Servers with several workers: these share what they should, and leave nothing when they end or are killed."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.managers import eventually_blocking
from tests.reliability.app_servers import KINDS, WORKERS, AppServer, Kind, is_alive, serving
from tests.servers import ServerProcess, connections, keys

NOTHING = b"*0\r\n"
LEFT_OPEN = ("Traceback", "never awaited", "Task was destroyed", "unclosed Connection", "unclosed transport")
"""What a log has when something was not closed, or failed."""


def long(kind: Kind) -> Any:  # `Any`: pytest does not say what it makes
    """Leaves a server to `make reliability`, where others show the same."""
    return pytest.param(kind, marks=pytest.mark.reliability)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_workers_share_one_cache_and_end_cleanly(kind: Kind, own_redis: ServerProcess, tmp_path: Path) -> None:
    with serving(kind, own_redis.url, tmp_path) as server:
        workers = share_values(server)
        share_what_threads_ask_for(server)
        share_responses(server)
        say_when_it_was_made(server)
        hear_of_changes(server)
        end_during_a_load(server, own_redis)
    assert not [pid for pid in workers if is_alive(pid)]
    assert connections(own_redis) == 0
    eventually_blocking(lambda: keys(own_redis, "app:l:*") == NOTHING)  # that of a worker that was killed ends soon
    said = server.said()
    assert workers >= set(said)
    assert len(said) == WORKERS if kind.drains else said
    for left in said.values():
        assert left == {"connections": 0, "tasks": 0, "threads": 0}
    assert not [words for words in LEFT_OPEN if words in server.log()], server.log()


def share_values(server: AppServer) -> set[int]:
    """One load for all; returns the workers."""
    answers = server.words("/value/1")
    assert len({load for load, _ in answers}) == 1
    workers = {int(worker) for _, worker in answers}
    while len(workers) < WORKERS:  # the server has seen to it that there are so many
        workers |= server.workers()
    return workers


def share_what_threads_ask_for(server: AppServer) -> None:
    """Synchronous code in threads of an app, by a client that was used when the app was imported."""
    before = {load for load, _ in server.words("/service/at-import")}
    assert len(before) <= WORKERS  # they may have been imported at the same time
    if server.kind.preloads:
        (load,) = before
        assert load.startswith(f"{server.pid}-")
    first = {load for load, _ in server.words("/service/1")}
    assert len(first) <= WORKERS  # workers do not wait for each other's responses
    assert {load for load, _ in server.words("/service/1")} <= first


def share_responses(server: AppServer) -> None:
    """The middleware answers for the app."""
    made = server.answers("/page/1")
    first = {answer.text for answer in made}
    assert len(first) <= WORKERS
    for answer in [*made, *server.answers("/page/1")]:
        assert len(answer.headers.get_list("date")) == 1  # the server's: the app says none
    for answer in server.answers("/page/1"):
        assert answer.http_version == ("HTTP/2" if server.kind.http2 else "HTTP/1.1")
        assert answer.headers["cache-status"].startswith("default; hit; ttl=")
        assert answer.headers["age"].isdigit()
        assert answer.text in first


def say_when_it_was_made(server: AppServer) -> None:
    """A response that has a Date is replayed with it (RFC 9110 §6.6.1)."""
    # The app's own is half a minute older than that of a server which adds one.
    made = {
        answer.text: min(answer.headers.get_list("date"), key=parsedate_to_datetime)
        for answer in server.answers("/page/1/proxied")
    }
    for answer in server.answers("/page/1/proxied"):
        assert answer.headers["cache-status"].startswith("default; hit; ttl=")
        assert made[answer.text] in answer.headers.get_list("date")


def hear_of_changes(server: AppServer) -> None:
    """What one worker makes out of date all others load anew."""
    values = {load for load, _ in server.words("/value/1")}
    pages = {answer.text for answer in server.answers("/page/1")}
    assert server.words("/invalidate", 1) == [["done"]]
    eventually_blocking(lambda: is_loaded_anew(server, values))
    eventually_blocking(lambda: pages.isdisjoint(answer.text for answer in server.answers("/page/1")))


def is_loaded_anew(server: AppServer, before: set[str]) -> bool:
    """Whether all workers answer with one later load."""
    answers = server.words("/value/1")
    loads = {load for load, _ in answers}
    return len(loads) == 1 and before.isdisjoint(loads) and len({worker for _, worker in answers}) == WORKERS


def end_during_a_load(server: AppServer, redis: ServerProcess) -> None:
    """Whoever waits gets an answer, where the server lets it."""
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.words, "/value/last?seconds=0.5", 1)
        eventually_blocking(lambda: keys(redis, "app:l:*") != NOTHING)
        server.end()
        if server.kind.drains:
            assert len(waiting.result()) == 1
        else:
            waiting.exception()


@pytest.mark.parametrize("kind", [each if each.preloads else long(each) for each in KINDS if each.replaces], ids=str)
def test_what_a_killed_worker_was_loading_others_load_and_its_successor_goes_on(
    kind: Kind, own_redis: ServerProcess, tmp_path: Path
) -> None:
    with serving(kind, own_redis.url, tmp_path) as server:
        before = share_values(server)
        with server.connected() as client, ThreadPoolExecutor(1) as threads:
            victim = int(client.get("/value/0").text.split()[1])
            waiting = threads.submit(client.get, "/value/held?seconds=60")  # on the connection to that worker
            eventually_blocking(lambda: keys(own_redis, "app:l:*") != NOTHING)
            os.kill(victim, signal.SIGKILL)
            assert isinstance(waiting.exception(), httpx.TransportError)
        eventually_blocking(lambda: victim not in server.workers() and len(server.workers()) == WORKERS)
        answers = server.words("/value/held?seconds=0")
        assert len({load for load, _ in answers}) == 1
        after = share_values(server)
        assert len(after - before) == 1
        share_responses(server)
        hear_of_changes(server)
        server.end()
    assert not [pid for pid in before | after if is_alive(pid)]
    assert connections(own_redis) == 0
    assert keys(own_redis, "app:l:*") == NOTHING
    assert set(server.said()) == after
