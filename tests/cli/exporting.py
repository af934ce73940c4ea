"""A process with a cache and a metrics endpoint, which does as it is told and no more."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import ROOT

_PROGRAM = """
    import asyncio, sys

    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import start_http_server

    from aurelis.cache import CacheConfig, CacheManager
    from aurelis.cache.telemetry.otel import instrument

    instrument(MeterProvider([PrometheusMetricReader()]))
    server, _ = start_http_server(int(sys.argv[1]), "127.0.0.1")
    print(server.server_port, flush=True)


    async def load():
        return b"a value"


    async def main():
        loop = asyncio.get_running_loop()
        async with CacheManager(CacheConfig(name=sys.argv[2])) as cache:
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                what, count = line.split()
                for number in range(int(count)):
                    if what == "hit":
                        await cache.get_or_compute("one", load)
                    else:
                        await cache.get(f"none {number}")
                print("done", flush=True)


    asyncio.run(main())
"""


class Exporting:
    """The process; make it with `exporting`."""

    def __init__(self, cache: str, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM), str(port), cache],
            cwd=ROOT,
            env={"PYTHONPATH": "src"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._said())

    @property
    def url(self) -> str:
        """Of its metrics."""
        return f"http://127.0.0.1:{self.port}/metrics"

    def hit(self, count: int) -> None:
        """Ask so often for what is there; the very first time it is loaded."""
        self._do(f"hit {count}")

    def miss(self, count: int) -> None:
        """Ask so often for what is not there."""
        self._do(f"miss {count}")

    def end(self) -> None:
        """Kill it. Twice is harmless."""
        self._process.kill()
        self._process.communicate()

    def _do(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._said() == "done"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def exporting(cache: str, port: int = 0) -> Iterator[Exporting]:
    """A process that is gone at the end. `port`: of its metrics; 0: any."""
    process = Exporting(cache, port)
    try:
        yield process
    finally:
        process.end()
