"""How many requests a second does uvicorn serve when `CacheMiddleware` answers, compared with a bare ASGI app?

`wrk` asks for one URL over 32 connections, in interleaved rounds; the servers run all the time, one process each, with
telemetry on. The bare app sends the same bytes and bounds what any middleware can reach; the uncached route shows what
the cache saves.

The number misleads on a machine with fewer than two free cores, where server and load generator take time from each
other, and with another HTTP parser or event loop: the faster the server, the larger the share of the cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from rich.table import Table

from tests.benchmarks import apps
from tests.benchmarks.harness import Bench, Target
from tests.servers import HOST, free_port

_ROUNDS = 5
_SECONDS = 4
_CONNECTIONS = 32
_READY_WITHIN = 20.0  # seconds
_APPS = {
    "bare ASGI app": "bare",
    "uncached Starlette route": "uncached",
    "CacheMiddleware": "ours",
    "starlette-caches": "starlette-caches",
}
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(bench: Bench) -> None:
    """Print the table."""
    if shutil.which("wrk") is None:
        bench.console.print("[yellow]skipped: wrk is not installed")
        return
    names = {name: app for name, app in _APPS.items() if app != "starlette-caches" or find_spec("starlette_caches")}
    rounds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(serving(app, Path(folder))) for name, app in names.items()}
        for number in range(3 if bench.quick else _ROUNDS):
            order = list(names)
            turn = number % len(order)
            for name in order[turn:] + order[:turn]:
                rounds[name].append(requests_per_second(urls[name], 2 if bench.quick else _SECONDS))
    medians = {name: statistics.median(rates) for name, rates in rounds.items()}
    parser = "httptools" if find_spec("httptools") else "h11"
    table = Table(title=f"uvicorn (asyncio, {parser}) under wrk -t1 -c{_CONNECTIONS}, hits", title_justify="left")
    table.add_column("subject")
    for column in ("requests/s", "from", "to", "of bare", "target"):
        table.add_column(column, justify="right")
    table.add_column("")
    for name, rates in rounds.items():
        share = medians[name] / medians["bare ASGI app"]
        wanted = [Target(0.8, "share", at_least=True)] if name == "CacheMiddleware" else []
        table.add_row(
            name,
            f"{medians[name]:,.0f}",
            f"{min(rates):,.0f}",
            f"{max(rates):,.0f}",
            f"{share:.0%}",
            ", ".join(map(str, wanted)),
            bench.judge("requests/s", name, {"share": share}, wanted),
        )
    for name in _APPS.keys() - names.keys():
        table.add_row(name, "", "", "", "", "", "not installed", style="dim")
    bench.console.print(table)


@contextlib.contextmanager
def serving(app: str, folder: Path) -> Iterator[str]:
    """A uvicorn of its own for one of the apps; gives the URL to ask for."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "tests.benchmarks.apps:serve", "--host", HOST]
    command += ["--port", str(port), "--loop", "asyncio", "--no-access-log", "--log-level", "warning"]
    with (folder / f"{app}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "BENCHMARK_APP": app}
        )
    url = f"http://{HOST}:{port}{apps.PATH}"
    try:
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            try:
                with _opener.open(url, timeout=5) as response:
                    assert response.read() == apps.BODY
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    words = (folder / f"{app}.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"uvicorn with {app} does not answer:\n{words}") from None
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def requests_per_second(url: str, seconds: int) -> float:
    """What wrk reports, after checking that every answer was a 200."""
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in output, output
    found = re.search(r"Requests/sec:\s*([0-9.]+)", output)
    assert found is not None, output
    return float(found[1])
