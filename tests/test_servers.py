"""The servers that tests stand on start, hang, go on, restart and end when told."""

import json
import os
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.servers import HOST, ServerProcess, query_prometheus, redis_command


def test_each_test_finds_an_empty_redis(redis_url: str, shared_redis: ServerProcess) -> None:
    assert redis_url == shared_redis.url
    assert redis_command(shared_redis.port, "DBSIZE").startswith(b":0")
    redis_command(shared_redis.port, "SET left behind")


def test_each_test_finds_an_empty_redis_again(redis_url: str, shared_redis: ServerProcess) -> None:
    assert redis_command(shared_redis.port, "DBSIZE").startswith(b":0")


def test_own_redis_stops_and_starts_at_the_same_url(own_redis: ServerProcess) -> None:
    url, pid = own_redis.url, own_redis.pid
    own_redis.stop()
    assert redis_command(own_redis.port, "PING") == b""
    own_redis.start()
    assert own_redis.url == url
    assert own_redis.pid != pid
    assert redis_command(own_redis.port, "PING").startswith(b"+PONG")


def test_own_redis_hangs_while_paused_and_goes_on(own_redis: ServerProcess) -> None:
    own_redis.pause()
    state = Path(f"/proc/{own_redis.pid}/stat")
    deadline = time.monotonic() + 5
    while state.exists() and state.read_text().split()[2] != "T":
        assert time.monotonic() < deadline
    own_redis.resume()
    assert redis_command(own_redis.port, "PING").startswith(b"+PONG")


def test_a_paused_redis_can_be_stopped(own_redis: ServerProcess) -> None:
    pid = own_redis.pid
    own_redis.pause()
    own_redis.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


class _Metrics(BaseHTTPRequestHandler):
    """Answers a scrape with one sample."""

    def do_GET(self) -> None:
        body = b"# TYPE answer gauge\nanswer 42\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Keeps the test's output clean."""


def test_prometheus_scrapes_targets_from_files(
    prometheus_server: Callable[[Sequence[str | Path]], ServerProcess], tmp_path: Path
) -> None:
    with HTTPServer((HOST, 0), _Metrics) as target:
        Thread(target=target.serve_forever, daemon=True).start()
        (tmp_path / "one.json").write_text(json.dumps([{"targets": [f"{HOST}:{target.server_port}"]}]))
        server = prometheus_server([tmp_path / "*.json"])
        deadline = time.monotonic() + 20
        while not (found := query_prometheus(server, "answer")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        target.shutdown()
    assert [value for _, value in found] == [42]
    with pytest.raises(ValueError, match="parse error"):
        query_prometheus(server, "answer{")
