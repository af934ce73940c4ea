"""Programs as a user starts them: `opentelemetry-instrument`, uvicorn, gunicorn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.conftest import ROOT
from tests.managers import WITHIN
from tests.servers import HOST, free_port

APP = "tests.telemetry.integration.app:app"
INSTRUMENT, UVICORN, GUNICORN = (
    str(Path(sys.executable).parent / name) for name in ("opentelemetry-instrument", "uvicorn", "gunicorn")
)
_PATIENCE = 60.0
"""Seconds for an answer: the worker may have to start first, with all instrumentations that there are."""
_PATH = [str(ROOT / part) for part in ("src", "integrations", ".")]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Variables for a program that finds the library as it is here, its entry points included.

    Args:
        folder: gets what an installation would say of the library.
        more: further variables.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = folder / f"aurelis_cache-{project['version']}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: aurelis-cache\nVersion: {project['version']}\n")
    groups = (
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in table.items())])
        for group, table in project["entry-points"].items()
    )
    (about / "entry_points.txt").write_text("\n".join(groups) + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(folder), *_PATH]), **more}


@dataclass
class Running:
    """A server that answers.

    Attributes:
        sent: requests that were answered.
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    sent: int = 0

    def get(self, *paths: str) -> list[httpx.Response]:
        """Asks for all of them at once, on connections of their own, so that any worker may answer."""

        def ask(path: str) -> httpx.Response:
            answer = httpx.get(self.url + path, timeout=_PATIENCE, trust_env=False, verify=False)
            assert answer.status_code == 200, answer.text
            return answer

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, paths))
        self.sent += len(answers)
        return answers

    def visit(self) -> None:
        """Ten misses, and thirty hits."""
        items = [f"/items/{number}" for number in range(10)]
        self.get(*items)
        self.get(*items * 3)

    def end(self) -> str:
        """Ends it as a service manager does; returns what it has written."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(WITHIN)
        return self.log.read_text()


@contextmanager
def serving(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """Starts a server, with `{port}` and `{host}` in its command, and kills it in the end if it still runs."""
    for _ in range(3):  # somebody else may take the port in the meantime
        port = free_port()
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [word.format(host=HOST, port=port) for word in command],
                env=dict(environ),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            running = Running(process, f"http://{HOST}:{port}", log)
            if _is_up(running):
                yield running
                return
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with its workers: it leads a group of its own
            process.wait()
    raise AssertionError(f"{command[0]} does not start:\n{log.read_text()[-4000:]}")


def _is_up(running: Running) -> bool:
    deadline = time.monotonic() + WITHIN
    while running.process.poll() is None and time.monotonic() < deadline:
        try:
            running.get("/process")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return True
    return False
