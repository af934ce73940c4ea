"""What fails on purpose in the demo, in which order, and that all of it is well again."""

import asyncio
import contextlib
import json
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from aurelis_cli.demo import trouble
from aurelis_cli.demo.faults import APP, MODEL, PERIOD, REDIS, SCRIPT, TABLE, Fault, Switch, steps
from aurelis_cli.demo.gate import Gate
from aurelis_cli.demo.ratings import Ratings, key
from aurelis_cli.demo.trouble import FILE, Trouble
from tests.servers import ServerProcess, until


def test_a_round_lets_each_thing_fail_for_its_time_and_ends_with_none() -> None:
    found = steps()
    assert sum(seconds for _, seconds in found) == PERIOD
    for fault in SCRIPT:
        assert sum(seconds for faults, seconds in found if fault in faults) == fault.ends - fault.begins
    assert found[-1][0] == []
    assert all(one != other for (one, _), (other, _) in pairwise(found))


def test_a_switch_says_what_was_named_last() -> None:
    switch = Switch()
    assert APP not in switch
    switch.set([APP, MODEL])
    assert APP in switch
    switch.set([])
    assert APP not in switch


async def test_a_gate_lets_redis_be_reached_until_it_is_shut(own_redis: ServerProcess) -> None:
    with Gate(own_redis.url) as gate:
        assert gate.url != own_redis.url
        client = redis.asyncio.Redis.from_url(gate.url, retry=None, socket_connect_timeout=2)
        waiting = redis.asyncio.Redis.from_url(gate.url, retry=None)
        async with client, waiting:
            assert await client.set("a", "1")
            pending = asyncio.ensure_future(_popped(waiting))
            await asyncio.sleep(0)
            gate.shut()
            with pytest.raises(RedisConnectionError):
                await asyncio.wait_for(pending, 10)  # what is under way ends
            with pytest.raises(RedisConnectionError):
                await asyncio.wait_for(_asked_until_it_fails(client), 10)
            gate.open()
            assert await asyncio.wait_for(_asked_until_it_works(client), 10) == b"1"


async def _popped(client: Any) -> Any:
    return await client.blpop(["nothing"], timeout=20)


async def _asked_until_it_fails(client: Any) -> None:
    while True:
        await client.get("a")


async def _asked_until_it_works(client: Any) -> Any:
    while True:
        with contextlib.suppress(RedisConnectionError):
            return await client.get("a")
        await asyncio.sleep(0.01)


def test_a_gate_keeps_user_password_and_database_of_an_url() -> None:
    with Gate("redis://someone:hunter2@redis.example:7000/3?protocol=3") as gate:
        assert gate.url.startswith("redis://someone:hunter2@127.0.0.1:")
        assert gate.url.endswith("/3?protocol=3")


class _Handler(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        server: Any = self.server
        server.asked.append((self.command, self.path))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the standard library
        """Log nothing."""


@pytest.fixture
def worker() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The port of something with a switch and with ratings, and what it was asked."""
    asked: list[tuple[str, str]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.asked = asked  # type: ignore[attr-defined]  # for the handler
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1], asked
        server.shutdown()
        thread.join()


QUICK = (
    ([Fault(REDIS, 0, 0, "Redis"), Fault(TABLE, 0, 0, "the table")], 0.01),
    ([Fault(MODEL, 0, 0, "the model")], 0.01),
    ([Fault(APP, 0, 0, "the app")], 60.0),
)


def test_it_goes_through_the_script_and_leaves_nothing_broken(
    worker: tuple[int, list[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Redis and a model of its own it leaves those two alone; a table that is well again gets its letters."""
    monkeypatch.setattr(trouble, "steps", lambda: list(QUICK))
    port, asked = worker
    with Trouble(0, tmp_path, web=port, switches=[port], gate=None, model=False) as running:
        until(lambda: running.words == "the app", "the last step")
    assert running.words == ""
    assert asked == [
        ("PUT", "/faults?name=table"),
        ("PUT", "/faults?"),
        ("POST", "/ratings"),
        ("PUT", "/faults?name=app"),
        ("PUT", "/faults?"),
    ]
    log = json.loads((tmp_path / FILE).read_text())
    assert [entry["name"] for entry in log] == ["table", "app"]
    assert all(entry["ended"] >= entry["began"] for entry in log)


def test_it_may_end_before_anything_has_failed(tmp_path: Path) -> None:
    with Trouble(60, tmp_path, web=1, switches=[1], gate=None, model=True) as running:
        assert running.words == ""
    assert not (tmp_path / FILE).exists()


def test_workers_that_do_not_answer_do_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "steps", lambda: list(QUICK))
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as nobody:
        port = nobody.server_address[1]
    with Trouble(0, tmp_path, web=port, switches=[port], gate=None, model=True) as running:
        until(lambda: running.words == "the app", "the last step")


async def test_ratings_are_written_and_those_who_show_them_are_told(tmp_path: Path) -> None:
    told: list[set[str]] = []

    async def written(packages: set[str]) -> None:
        told.append(packages)

    switch = Switch()
    table = Ratings(tmp_path / "ratings.sqlite", switch, written)
    await table.set_many({key("a", "one"): 5, key("a", "two"): 2, key("b", "one"): 1})
    await table.set(key("a", "one"), 4)
    assert told == [{"a", "b"}, {"a"}]
    assert await table.get(key("a", "one")) == 4
    assert await table.get(key("c", "one")) is None
    assert (table.of("a"), table.of("c")) == ((3.0, 2), (None, 0))
    switch.set([TABLE])
    with pytest.raises(sqlite3.OperationalError, match="on purpose"):
        await table.set(key("a", "one"), 1)
    assert await table.get(key("a", "one")) == 4
