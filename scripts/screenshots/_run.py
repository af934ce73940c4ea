"""A run to draw: the demo with two workers, a Redis and faults on purpose, beside a Prometheus."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

# The servers are those of the tests: started on free ports, and ended by their PID.
from tests import servers

from ._prometheus import Window

SCRAPE: Final = 2
"""Seconds between two looks at the workers: a busy machine may be late by one."""
LEAST: Final = 90
"""Seconds of traffic that a run needs at least."""
_WELL: Final = 45
"""Seconds before the first fault."""
_RATE: Final = 80
"""Requests per second: a laptop that draws something else has to keep up."""
_FIRST: Final = 15
"""Seconds until there are rates, and most of what happens all the time has happened once."""
TICK: Final = 30
_BEHIND: Final = 25
"""Graphs have times at multiples of so many seconds, and end so long behind one."""
_READY: Final = 60.0
"""Seconds that the demo may take to begin."""
_RULES: Final = sorted((Path(__file__).resolve().parents[2] / "grafana" / "prometheus").glob("*.rules.yml"))
_NEEDED: Final = ("redis-server", "prometheus")


class RunError(RuntimeError):
    """There is no run to draw; the message says why."""


def record(folder: Path, seconds: int) -> None:
    """Makes a run; what Prometheus has seen of it stays in the folder, which is emptied first.

    Raises:
        RunError: A server is missing, or the demo failed.
    """
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise RunError(f"missing: {', '.join(missing)}; install it with the package manager of your system")
    shutil.rmtree(folder, ignore_errors=True)
    state = folder / "state"
    state.mkdir(parents=True)
    with ExitStack() as stack:
        redis = servers.redis(folder)
        prometheus = servers.prometheus(folder, [state / "targets.json"], _RULES, f"{SCRAPE}s")
        for server in (redis, prometheus):
            stack.callback(server.stop)
            server.start()
        demo = stack.enter_context(_demo(folder, seconds, redis.url))
        window = _watch(demo, state, seconds)
    if demo.returncode != 0:
        raise RunError(f"the demo failed, see {folder / 'demo.log'}")
    (folder / "window.json").write_text(json.dumps([window.start, window.end]))


@contextmanager
def _demo(folder: Path, seconds: int, redis: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command; it has ended afterwards."""
    command = [sys.executable, "-m", "aurelis_cli", "demo", "--seconds", str(seconds), "--rate", str(_RATE)]
    command += ["--faults", str(_WELL), "--redis", redis, "--state-dir", str(folder / "state")]
    with (folder / "demo.log").open("wb") as log:
        demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield demo
    finally:
        if demo.poll() is None:
            demo.send_signal(signal.SIGINT)
            demo.wait(_READY)


def _watch(demo: subprocess.Popen[bytes], state: Path, seconds: int) -> Window:
    """Stays until the demo has ended."""
    deadline = time.monotonic() + _READY
    while not (state / "demo.json").exists() and demo.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    began = int(time.time())
    try:
        demo.wait(seconds + _READY)
    except subprocess.TimeoutExpired:
        raise RunError("the demo does not end") from None
    return shown(began, seconds)


def shown(began: int, seconds: int) -> Window:
    """What of a run is looked at: traffic only, up to where no time below a graph stands at its edge."""
    last = began + seconds
    return Window(began + _FIRST, last - (last - _BEHIND) % TICK)


@contextmanager
def recorded(folder: Path) -> Iterator[tuple[str, Window]]:
    """The URL of a Prometheus with the run in the folder, and when that was.

    Raises:
        RunError: There is none.
    """
    try:
        start, end = json.loads((folder / "window.json").read_text())
    except FileNotFoundError:
        raise RunError(f"there is no run in {folder} yet") from None
    prometheus = servers.prometheus(folder, [folder / "state" / "targets.json"])
    prometheus.start()
    try:
        yield prometheus.url, Window(start, end)
    finally:
        prometheus.stop()
