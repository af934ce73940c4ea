"""Worker processes that begin together, report, and can be paused or killed one by one."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self, TypeAlias

Json: TypeAlias = Any  # only whoever wrote a text knows what `json` makes of it
Report: TypeAlias = Callable[[Json], None]

# Not from `tests.managers`, which imports so much that each worker would begin later.
WITHIN = 30.0
"""Seconds after which waiting for a worker has failed: far more than it takes."""
_HEAD_START = 0.02
"""Seconds between the signal to begin and the beginning, so that all have heard it by then."""
_TAIL = 4000  # characters of a worker's stderr that are shown
_DUMP = signal.SIGUSR1  # makes a worker print its stacks


class FleetError(AssertionError):
    """A worker has failed, or is late.

    Attributes:
        index: which one.
    """

    def __init__(self, index: int, what: str, stderr: str) -> None:
        super().__init__(f"worker {index} {what}; its stderr ends with:\n{stderr[-_TAIL:] or '(nothing)'}")
        self.index = index


class _Worker:
    """One process, seen from the test. What it says is read in a thread."""

    def __init__(self, index: int, function: str, arguments: Mapping[str, Json]) -> None:
        self.index = index
        self.reports: deque[Json] = deque()
        self.results: list[Json] = []
        self.killed = self.paused = self.blamed = False
        self._ready = self._silent = False
        self._changed = threading.Condition()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 — as long as the worker lives
        self.process = subprocess.Popen(
            # Not `-m tests.fleet`: then there would be two of this module, where the function imports it.
            [sys.executable, "-c", "from tests.fleet import _work; _work()", function, json.dumps(arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self, deadline: float) -> None:
        """Returns when the function is imported."""
        self._wait(lambda: self._ready, deadline, "has not started")
        if not self._ready:
            raise self.failure("ended before it began")

    def begin(self, at: float) -> None:
        """Lets the function run, from this time of the monotonic clock on, which all processes share."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: that is told with its result
            self.process.stdin.write(f"{at}\n".encode())
            self.process.stdin.flush()

    def report(self, deadline: float) -> Json:
        """Returns the next report."""
        self._wait(lambda: self.reports, deadline, "has not reported")
        if not self.reports:
            raise self.failure("ended without a further report")
        return self.reports.popleft()

    def result(self, deadline: float) -> Json:
        """Returns what the function returned; `None` if the worker was killed before."""
        self._wait(lambda: self._silent, deadline, "has not finished")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.1, deadline - time.monotonic()))
        if self.process.returncode == 0 and self.results:
            return self.results[0]
        if self.killed:
            return None
        raise self.ended_badly()

    def has_failed(self) -> bool:
        """Whether the process has ended by itself, and not well."""
        if self._silent:  # as good as ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
        return bool(self.process.poll()) and not self.killed

    def ended_badly(self) -> FleetError:
        """Returns the error for this worker after its end."""
        return self.failure(f"ended with status {self.process.returncode}")

    def failure(self, what: str) -> FleetError:
        """Returns the error for this worker."""
        self.blamed = True
        # Not by `seek`: the process writes at the same position of the same open file.
        descriptor = self._stderr.fileno()
        begin = max(0, os.fstat(descriptor).st_size - _TAIL)
        return FleetError(self.index, what, os.pread(descriptor, _TAIL, begin).decode(errors="replace"))

    def close(self) -> None:
        """Kills the process if it still runs, and frees everything."""
        if self.process.poll() is None:
            self.killed = True
            self.process.kill()  # also one that is paused
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self._stderr):
            assert pipe is not None
            pipe.close()

    def _wait(self, condition: Callable[[], object], deadline: float, late: str) -> None:
        """Waits until something is true, or nothing more comes."""
        with self._changed:
            if self._changed.wait_for(lambda: condition() or self._silent, max(0.0, deadline - time.monotonic())):
                return
        if not self.paused and self._ready:
            self.process.send_signal(_DUMP)
            time.sleep(0.2)  # for writing the stacks
        raise self.failure(f"{late} in time{' and is paused' if self.paused else ''}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                try:
                    kind, value = json.loads(line)
                except ValueError:  # killed in the middle of a line
                    break
                self._ready = True
                if kind != "ready":
                    (self.reports if kind == "report" else self.results).append(value)
                self._changed.notify_all()
        with self._changed:
            self._silent = True
            self._changed.notify_all()


class Fleet:
    """Runs a function of a test module in processes of their own, once with each of the given arguments.

    The function is `def work(report: Report, **arguments: Json) -> Json`, or the same with `async`. What it gives to
    `report` arrives at once. Its module is imported in each process before all begin together, within a millisecond or
    so. It may print: that goes to stderr.

    At the end of the block no process is left, not even when the test fails; if the test itself is killed, they end.

    Args:
        function: at the top of a module that can be imported.
        arguments: for each worker, what `json` can carry, 100 kB at most.

    Raises:
        FleetError: a worker fails or is late, with the end of its stderr. The end of the block raises it, too, for one
            that has failed and was not asked.

    Example:
        async def work(report: Report, url: str, number: int) -> int:
            report("begun")
            ...

        with Fleet(work, [{"url": redis_url, "number": number} for number in range(4)]) as fleet:
            assert fleet.report(2) == "begun"
            fleet.kill(2)
            first, second, nothing, last = fleet.results()
    """

    def __init__(self, function: Callable[..., Json], arguments: Sequence[Mapping[str, Json]]) -> None:
        assert "." not in function.__qualname__, f"{function.__qualname__} is not at the top of its module"
        self._function = f"{function.__module__}:{function.__qualname__}"
        self._arguments = arguments
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        try:
            for index, arguments in enumerate(self._arguments):
                self._workers.append(_Worker(index, self._function, arguments))
            deadline = time.monotonic() + WITHIN
            for worker in self._workers:
                worker.wait_until_ready(deadline)
        except BaseException:
            self._close()
            raise
        begin = time.monotonic() + _HEAD_START
        for worker in self._workers:
            worker.begin(begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        failures = [worker.ended_badly() for worker in self._workers if worker.has_failed() and not worker.blamed]
        self._close()
        if error is None and failures:
            raise failures[0]

    def report(self, index: int, within: float = WITHIN) -> Json:
        """Returns the next report of one worker, waiting for it at most so many seconds."""
        return self._workers[index].report(time.monotonic() + within)

    def result(self, index: int, within: float = WITHIN) -> Json:
        """Returns what the function returned in one worker; `None` if it was killed before."""
        return self._workers[index].result(time.monotonic() + within)

    def results(self, within: float = WITHIN) -> list[Json]:
        """Returns the results of all, in the order of the arguments, waiting at most so many seconds in all."""
        deadline = time.monotonic() + within
        return [worker.result(deadline) for worker in self._workers]

    def pid(self, index: int) -> int:
        """The process of one worker."""
        return self._workers[index].process.pid

    def kill(self, index: int) -> None:
        """Ends one worker without a chance to clean up (SIGKILL); returns when it is gone."""
        worker = self._workers[index]
        worker.killed = worker.killed or worker.process.poll() is None
        worker.process.kill()
        worker.process.wait()

    def pause(self, index: int) -> None:
        """Stops one worker where it is (SIGSTOP); returns when it stands still."""
        worker = self._workers[index]
        worker.paused = True
        worker.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self, index: int) -> None:
        """Lets a paused worker go on."""
        self._workers[index].paused = False
        self._workers[index].process.send_signal(signal.SIGCONT)

    def _close(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.killed = True
                worker.process.kill()
        for worker in self._workers:
            worker.close()


# --- in the worker


def _work() -> None:
    """Is the main program of a worker. Its stdin says when to begin, and ends when the test does."""
    faulthandler.register(_DUMP)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nobody else writes into the channel
    writing = threading.Lock()

    def say(kind: str, value: Json) -> None:
        line = json.dumps([kind, value])
        with writing:
            channel.write(f"{line}\n")
            channel.flush()

    module, _, name = sys.argv[1].partition(":")
    function, arguments = getattr(importlib.import_module(module), name), json.loads(sys.argv[2])
    say("ready", None)
    if not (begin := sys.stdin.readline()):
        sys.exit("the test has ended before it began")
    threading.Thread(target=_end_with_test, daemon=True).start()
    time.sleep(max(0.0, float(begin) - time.monotonic()))
    result = function(lambda value: say("report", value), **arguments)
    say("result", asyncio.run(result) if inspect.iscoroutine(result) else result)


def _end_with_test() -> None:
    # Not by `sys.stdin`, whose lock would be held while the interpreter shuts down.
    os.read(0, 1)
    os._exit(3)
