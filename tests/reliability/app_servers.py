"""Servers for ASGI apps, each with two workers of the app beside this module."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.conftest import ROOT
from tests.fleet import Json
from tests.managers import WITHIN
from tests.servers import HOST, free_port

APP = "tests.reliability.app:app"
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One server, and how it is started.

    Attributes:
        name: of the test.
        command: after `python -m`, with `{port}` in it.
        http2: requests come by HTTP/2, without TLS.
        preloads: imports the app before it forks its workers.
        replaces: workers that were killed.
        drains: answers requests under way before it ends.
    """

    name: str
    command: str
    http2: bool = False
    preloads: bool = False
    replaces: bool = True
    drains: bool = True

    def __str__(self) -> str:
        return self.name


_GUNICORN = f"gunicorn {APP} --workers {WORKERS} --bind {HOST}:{{port}} --log-level warning --no-control-socket"
_UVICORN_WORKER = "--worker-class uvicorn_worker.UvicornWorker"
# Once one of hypercorn's workers has ended, the others get a SIGTERM, which they do not handle.
_HYPERCORN = f"hypercorn {APP} --workers {WORKERS} --bind {HOST}:{{port}} --log-level warning"
KINDS = (
    Kind("uvicorn", f"uvicorn {APP} --workers {WORKERS} --host {HOST} --port {{port}} --log-level warning"),
    Kind("gunicorn", f"{_GUNICORN} {_UVICORN_WORKER}"),
    Kind("gunicorn-preload", f"{_GUNICORN} {_UVICORN_WORKER} --preload", preloads=True),
    Kind("gunicorn-asgi", f"{_GUNICORN} --worker-class asgi --preload", preloads=True),
    Kind(
        "granian",
        f"granian {APP} --interface asgi --workers {WORKERS} --host {HOST} --port {{port}} --log-level warning"
        " --respawn-failed-workers",
    ),
    Kind("hypercorn", _HYPERCORN, replaces=False, drains=False),
    Kind("hypercorn-http2", _HYPERCORN, http2=True, replaces=False, drains=False),
)


class AppServer:
    """A server that runs; make it with `serving`."""

    def __init__(self, kind: Kind, redis_url: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._log = folder / "log"
        path = os.pathsep.join(str(ROOT / part) for part in ("src", "integrations", "."))
        environ = {
            "PYTHONPATH": path,
            "APP_REDIS_URL": redis_url,
            "APP_FOLDER": str(folder),
            "PYTHONWARNINGS": "default",
        }
        for _ in range(3):  # somebody else may take the port in the meantime
            self._port = free_port()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *kind.command.format(port=self._port).split()],
                    env={**os.environ, **environ},
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            if self._is_up():
                return
            self.kill()
        raise AssertionError(f"{kind} does not start:\n{self.log()}")

    @property
    def pid(self) -> int:
        """The process that has started the workers."""
        return self._process.pid

    def log(self) -> str:
        """The end of what the server and its workers have written."""
        return self._log.read_text(errors="replace")[-4000:]

    @contextmanager
    def connected(self) -> Iterator[httpx.Client]:
        """A connection of its own, to any of the workers."""
        with httpx.Client(
            base_url=f"http://{HOST}:{self._port}",
            http1=not self.kind.http2,
            http2=self.kind.http2,
            timeout=WITHIN,
            trust_env=False,
            verify=False,  # to read certificates would take longer than all the rest
        ) as client:
            yield client

    def answers(self, path: str, times: int = 20) -> list[httpx.Response]:
        """Asks so often at once, each time on a connection of its own."""

        def ask(_: int) -> httpx.Response:
            with self.connected() as client:
                answer = client.get(path)
            assert answer.status_code == 200
            return answer

        with ThreadPoolExecutor(times) as threads:
            return list(threads.map(ask, range(times)))

    def words(self, path: str, times: int = 20) -> list[list[str]]:
        """The same; returns the words of the answers."""
        return [answer.text.split() for answer in self.answers(path, times)]

    def workers(self) -> set[int]:
        """The workers that answer just now, or some of them."""
        try:
            return {int(worker) for _, worker in self.words("/value/0", 8)}
        except httpx.TransportError:  # not up yet, or just killed
            time.sleep(0.05)
            return set()

    def end(self) -> None:
        """Tells the server to end, and returns when it has."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(WITHIN)
        assert status in (0, -signal.SIGTERM), f"{self.kind} ended with status {status}:\n{self.log()}"

    def kill(self) -> None:
        """Ends the server, whatever it does; workers see that by themselves."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def said(self) -> Mapping[int, Json]:
        """What the workers have written down when they had closed their caches."""
        return {int(path.name): json.loads(path.read_text()) for path in self._folder.glob("[0-9]*[0-9]")}

    def _is_up(self) -> bool:
        deadline = time.monotonic() + WITHIN
        workers: set[int] = set()
        while len(workers) < WORKERS and self._process.poll() is None and time.monotonic() < deadline:
            workers |= self.workers()
        return len(workers) == WORKERS


@contextmanager
def serving(kind: Kind, redis_url: str, folder: Path) -> Iterator[AppServer]:
    """The server with all its workers; at the end nothing of it is left."""
    server = AppServer(kind, redis_url, folder)
    try:
        yield server
    finally:
        server.kill()


def is_alive(pid: int) -> bool:
    """Whether the process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "XZ"
