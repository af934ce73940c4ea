"""What all benchmarks share: how to measure subjects side by side, and how to report what came out.

All subjects of a table are measured in one process and one run, in interleaved rounds whose order rotates, so that
whatever slows the machine down for a while slows down all of them. A number by itself says little; only ratios count.

A round calls each subject many times in a row under one pair of clocks, which gives the time and the CPU time of one
operation, and then some times under a pair of clocks each, which gives p50 and p99. What the empty loop and the clocks
themselves take is measured in the same rounds and subtracted, for all subjects alike. Arguments are made outside of the
clocks.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import platform
import statistics
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter, process_time
from types import FunctionType
from typing import Any, Literal, TypeVar, cast

from opentelemetry import metrics
from rich.console import Console
from rich.table import Table

T = TypeVar("T")

_TIMED_ONE_BY_ONE = 0.25  # part of a round's operations that is done once more, each with clocks of its own
_PACKAGES = (
    "aurelis-cache",
    "cachetools",
    "msgpack",
    "opentelemetry-sdk",
    "redis",
    "hiredis",
    "starlette",
    "fastapi",
    "httpx",
    "httpx2",
    "uvicorn",
    "httptools",
    "uvloop",
    "aiocache",
    "cashews",
    "diskcache",
    "hishel",
    "starlette-caches",
    "fastapi-cache2",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to measure.

    Attributes:
        name: for the table.
        call: the operation: a function of one argument, which gives an awaitable unless `blocking`.
        arguments: makes that many arguments, one for each operation.
        before: called before each batch, outside of the clocks.
        blocking: it is called outside of the event loop.
    """

    name: str
    call: Callable[[Any], Any]
    arguments: Callable[[int], Sequence[object]]
    before: Callable[[], Coroutine[Any, Any, object]] | None = None
    blocking: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """A peer that cannot be measured here."""

    name: str
    reason: str


@dataclass(slots=True)
class Measured:
    """What a subject took, in seconds for one operation.

    Attributes:
        wall: the best or the median round.
        cpu: likewise, all threads of this process.
        p50: of single operations.
        p99: of single operations.
    """

    name: str
    wall: float
    cpu: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Target:
    """What a row must reach.

    Attributes:
        limit: the bound.
        quantity: what is bounded; `wall` and `cpu` are ratios to the baseline.
        at_least: the bound is a lower one.
    """

    limit: float
    quantity: str = "wall"
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is on the right side."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one row compares with its target."""

    benchmark: str
    telemetry: str
    table: str
    row: str
    quantity: str
    value: float
    target: str
    holds: bool


@dataclass(slots=True)
class Bench:
    """One run of one benchmark: its options, its event loop, and the verdicts it came to.

    Attributes:
        name: of the benchmark.
        telemetry: `on`: a meter provider with a reader is set; `off`: there is no SDK, and the API does nothing.
        quick: fewer rounds, for a look that is not worth writing down.
        large: also the sizes that take minutes.
    """

    name: str
    telemetry: Literal["on", "off"]
    quick: bool
    large: bool
    console: Console
    runner: asyncio.Runner
    verdicts: list[Verdict] = field(default_factory=list)
    _ends: list[Callable[[], Coroutine[Any, Any, object]]] = field(default_factory=list)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the benchmark's event loop."""
        return self.runner.run(coroutine)

    def at_end(self, close: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Call this in the event loop when the benchmark has ended."""
        self._ends.append(close)

    def end(self) -> None:
        """Close what is open."""
        while self._ends:
            self.wait(self._ends.pop()())

    def measure(
        self, subjects: Sequence[Subject | Absent], *, rounds: int, count: int, best: bool = True
    ) -> list[Measured | Absent]:
        """Measure all subjects in interleaved rounds.

        Args:
            rounds: how many; a fifth of them when `quick`.
            count: operations of each subject in each round.
            best: report the best round, which suits work that nothing outside can speed up; otherwise the median.
        """
        rounds = max(3, rounds // 5) if self.quick else rounds
        meters = [_Meter(subject, count, self.runner) for subject in subjects if isinstance(subject, Subject)]
        for meter in meters:
            meter.round()  # imports, connections and caches of the interpreter
            meter.forget()
        gc.collect()
        gc.freeze()  # what was set up must not be searched for garbage during every round
        for number in range(rounds):
            turn = number % len(meters)
            for meter in meters[turn:] + meters[:turn]:
                meter.round()
        gc.unfreeze()
        measured = {meter.name: meter.measured(best) for meter in meters}
        return [subject if isinstance(subject, Absent) else measured[subject.name] for subject in subjects]

    def compare(
        self,
        title: str,
        subjects: Sequence[Subject | Absent],
        targets: Mapping[str, Sequence[Target]],
        *,
        rounds: int,
        count: int,
        best: bool = True,
    ) -> None:
        """Measure, print the table, and take down how its rows compare with their targets.

        Args:
            subjects: the first one is the baseline.
            targets: by name of the subject.
        """
        rows = self.measure(subjects, rounds=rounds, count=count, best=best)
        base = rows[0]
        assert isinstance(base, Measured)
        table = Table(title=f"{title} · telemetry {self.telemetry}", title_justify="left")
        table.add_column("subject")
        for column in ("best µs" if best else "median µs", "p50 µs", "p99 µs", "CPU µs", "× wall", "× CPU", "target"):
            table.add_column(column, justify="right")
        table.add_column("")
        for row in rows:
            if isinstance(row, Absent):
                table.add_row(row.name, *[""] * 7, row.reason, style="dim")
                continue
            ratios = {"wall": row.wall / base.wall, "cpu": row.cpu / base.cpu if base.cpu else float("nan")}
            wanted = targets.get(row.name, ())
            table.add_row(
                f"{row.name} (baseline)" if row is base else row.name,
                *[_micros(seconds) for seconds in (row.wall, row.p50, row.p99, row.cpu)],
                f"{ratios['wall']:.2f}",
                f"{ratios['cpu']:.2f}",
                ", ".join(dict.fromkeys(map(str, wanted))),
                self.judge(title, row.name, ratios, wanted),
            )
        self.console.print(table)

    def judge(self, table: str, row: str, values: dict[str, float], targets: Sequence[Target]) -> str:
        """Compare values with their targets; take it down, and say it in words for the table."""
        words = []
        for target in targets:
            value = values[target.quantity]
            holds = target.holds(value)
            self.verdicts.append(
                Verdict(self.name, self.telemetry, table, row, target.quantity, value, str(target), holds)
            )
            word = "[green]within target" if holds else "[red]over target"
            if target.at_least and not holds:
                word = "[red]under target"
            words.append(f"{word}[/] ({target.quantity})" if len(targets) > 1 else f"{word}[/]")
        return ", ".join(words)


class _Meter:
    """Measures one subject, round by round."""

    def __init__(self, subject: Subject, count: int, runner: asyncio.Runner) -> None:
        self.name = subject.name
        self._subject = subject
        self._count = count
        self._single = max(1, int(count * _TIMED_ONE_BY_ONE))
        self._runner = runner
        # Each subject has loops of its own: the interpreter adapts a loop's code to what it calls, as it does at the
        # places of an app that call one function, and would unlearn that with each change of the subject.
        self._batch = _own(_batch_blocking if subject.blocking else _batch)
        self._singles = _own(_singles_blocking if subject.blocking else _singles)
        self.forget()

    def forget(self) -> None:
        """Begin again."""
        self._wall: list[float] = []
        self._cpu: list[float] = []
        self._idle: list[float] = []
        self._one_by_one: list[float] = []

    def round(self) -> None:
        """Do one round."""
        subject = self._subject
        self._prepare()
        arguments = subject.arguments(self._count)
        self._idle.append(_idle(arguments))
        wall, cpu = self._do(self._batch(subject.call, arguments))
        self._wall.append(wall)
        self._cpu.append(cpu)
        self._prepare()
        arguments = subject.arguments(self._single)
        idle = statistics.median(_idle_singles(arguments))
        self._one_by_one += [time - idle for time in self._do(self._singles(subject.call, arguments))]

    def measured(self, best: bool) -> Measured:
        """What came out of all rounds."""
        pick: Callable[[list[float]], float] = min if best else statistics.median
        idle = min(self._idle)
        wall, cpu = [(pick(rounds) - idle) / self._count for rounds in (self._wall, self._cpu)]
        times = sorted(self._one_by_one)
        return Measured(self.name, wall, cpu, times[len(times) // 2], times[int(len(times) * 0.99)])

    def _prepare(self) -> None:
        if self._subject.before is not None:
            self._runner.run(self._subject.before())

    def _do(self, run: Any) -> Any:
        return run if self._subject.blocking else self._runner.run(run)


def _own(loop: Callable[..., Any]) -> Callable[..., Any]:
    assert isinstance(loop, FunctionType)
    return FunctionType(loop.__code__.replace(), loop.__globals__)


async def _batch(call: Callable[[Any], Any], arguments: Sequence[object]) -> tuple[float, float]:
    cpu = process_time()
    begin = perf_counter()
    for argument in arguments:
        await call(argument)
    return perf_counter() - begin, process_time() - cpu


def _batch_blocking(call: Callable[[Any], Any], arguments: Sequence[object]) -> tuple[float, float]:
    cpu = process_time()
    begin = perf_counter()
    for argument in arguments:
        call(argument)
    return perf_counter() - begin, process_time() - cpu


def _idle(arguments: Sequence[object]) -> float:
    begin = perf_counter()
    for _argument in arguments:
        pass
    return perf_counter() - begin


async def _singles(call: Callable[[Any], Any], arguments: Sequence[object]) -> list[float]:
    times = []
    for argument in arguments:
        begin = perf_counter()
        await call(argument)
        times.append(perf_counter() - begin)
    return times


def _singles_blocking(call: Callable[[Any], Any], arguments: Sequence[object]) -> list[float]:
    times = []
    for argument in arguments:
        begin = perf_counter()
        call(argument)
        times.append(perf_counter() - begin)
    return times


def _idle_singles(arguments: Sequence[object]) -> list[float]:
    times = []
    for _argument in arguments:
        begin = perf_counter()
        times.append(perf_counter() - begin)
    return times


def always(argument: object) -> Callable[[int], Sequence[object]]:
    """Arguments for operations that all take the same."""
    return lambda count: [argument] * count


def peer(name: str, make: Callable[[], Subject]) -> Subject | Absent:
    """A subject of another project, if its packages are installed."""
    try:
        return make()
    except ImportError as error:
        return Absent(name, f"not installed ({error})")


def module(name: str) -> Any:  # `Any`: peers are optional, so their types are not known where this is checked
    """A module of a peer.

    Raises:
        ImportError: it is not installed.
    """
    return importlib.import_module(name)


def describe(console: Console) -> None:
    """Print what the numbers depend on."""
    console.print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}; {', '.join(_versions())}"
    )


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            if name == "aurelis-cache":
                found.append(f"{name} (checkout)")
    return found


def _micros(seconds: float) -> str:
    micros = seconds * 1e6
    return f"{micros:.3f}" if micros < 10 else f"{micros:.1f}"


def attach_reader() -> None:
    """Set a meter provider of the SDK with a reader, as an app with telemetry has."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))


def leave_out_the_sdk() -> None:
    """From now on the SDK cannot be imported, as where it is not installed."""
    assert "opentelemetry.sdk" not in sys.modules, "something has imported it already"
    cast(Any, sys.modules)["opentelemetry.sdk"] = None
