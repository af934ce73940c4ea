"""Runs benchmarks, each in a process of its own, and sums up which targets were reached. It never fails for a number.

python -m tests.benchmarks                          all of them
python -m tests.benchmarks l1_hit l2_hit --quick    some, with fewer rounds
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import harness

BENCHMARKS: Mapping[str, Sequence[str]] = {
    "l1_hit": ("on", "off"),
    "l1_mutable_hit": ("on", "off"),
    "decorator_hit": ("on", "off"),
    "telemetry_cost": ("on", "off"),
    "asgi_hit": ("on", "off"),
    "transport_hit": ("on", "off"),
    "streams": ("on", "off"),
    "l2_hit": ("on", "off"),
    "l2_many": ("on",),
    "disk": ("on", "off"),
    "frames": ("off",),
    "invalidation": ("on",),
    "distinct_misses": ("on",),
    "l1_overhead": ("on",),
    "stampede": ("on",),
    "uvicorn_wrk": ("on",),
}
"""Each with the telemetry it is measured with."""


def main() -> int:
    """Read the command line; the result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds: a look, nothing to write down")
    parser.add_argument("--large", action="store_true", help="also the sizes that take minutes")
    parser.add_argument("--telemetry", choices=("on", "off", "both"), default="both")
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)  # given to the process of one benchmark
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if options.results is not None:
        run_here(options.names[0], options, options.results)
        return 0
    return run_all(options.names or list(BENCHMARKS), options)


def run_all(names: Sequence[str], options: argparse.Namespace) -> int:
    """Run each benchmark in a process, so that none meets what another one left, and sum up."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    harness.describe(console)
    verdicts: list[dict[str, Any]] = []
    broken = []
    flags = [flag for flag in ("quick", "large") if getattr(options, flag)]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        for name in names:
            for telemetry in BENCHMARKS[name]:
                if options.telemetry not in (telemetry, "both"):
                    continue
                results.unlink(missing_ok=True)
                command = [sys.executable, "-m", "tests.benchmarks", name, "--telemetry", telemetry]
                command += ["--results", str(results), *[f"--{flag}" for flag in flags]]
                ended = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
                if ended.returncode == 0 and results.exists():
                    verdicts += json.loads(results.read_text())
                else:
                    broken.append(f"{name} (telemetry {telemetry})")
    sum_up(console, verdicts)
    for run in broken:
        console.print(f"[red]broke off: {run}")
    return 1 if broken else 0


def run_here(name: str, options: argparse.Namespace, results: Path) -> None:
    """Run one benchmark in this process."""
    if options.telemetry == "on":
        harness.attach_reader()
    else:
        harness.leave_out_the_sdk()
    benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.rule(f"[bold]{name}", align="left")
    console.print((benchmark.__doc__ or "").partition("\n\n")[0].strip(), style="italic")
    with asyncio.Runner() as runner:
        bench = harness.Bench(name, options.telemetry, options.quick, options.large, console, runner)
        try:
            benchmark.run(bench)
        finally:
            bench.end()
    results.write_text(json.dumps([dataclasses.asdict(verdict) for verdict in bench.verdicts]))


def sum_up(console: Console, verdicts: Sequence[dict[str, Any]]) -> None:
    """Print each target beside what was measured."""
    if not verdicts:
        return
    console.rule("[bold]targets", align="left")
    table = Table()
    for column in ("benchmark", "telemetry", "table", "row", "quantity"):
        table.add_column(column)
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    table.add_column("")
    for verdict in verdicts:
        table.add_row(
            verdict["benchmark"],
            verdict["telemetry"],
            verdict["table"],
            verdict["row"],
            verdict["quantity"],
            f"{verdict['value']:.2f}",
            verdict["target"],
            "within target" if verdict["holds"] else "[red]not within target",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
