"""Runs the demo as a user does, and knows what it left."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO


def start(
    *arguments: str, environment: Mapping[str, str] | None = None, output: IO[str] | None = None
) -> subprocess.Popen[str]:
    """The command without a terminal. What it says goes to a file where nobody reads it for long: a pipe gets full."""
    return subprocess.Popen(
        [sys.executable, "-m", "aurelis_cli", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def first_lines(demo: subprocess.Popen[str]) -> list[str]:
    """Its output until the traffic is under way; the time for that is bounded by the test's own."""
    assert demo.stdout is not None
    lines: list[str] = []
    while not any("  traffic  " in line for line in lines):
        line = demo.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    return lines


def _processes() -> dict[int, tuple[int, str, str]]:
    """Parent, state and command line of every process."""
    if Path("/proc/self/stat").exists():  # Linux, where `ps` may be missing
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = (int(parent), state, command)
        return found
    columns = "pid=,ppid=,stat=,args="
    listing = subprocess.run(["ps", "-A", "-ww", "-o", columns], capture_output=True, text=True, check=True)
    rows = [row.split(maxsplit=3) for row in listing.stdout.splitlines()]
    return {int(pid): (int(parent), state, "".join(command)) for pid, parent, state, *command in rows}


def children(parent: int) -> dict[int, str]:
    """Processes that it started, with their command lines."""
    return {pid: command for pid, (of, _, command) in _processes().items() if of == parent}


def left_over(pids: Iterable[int]) -> list[int]:
    """Which of them still run; one that only waits to be reaped by whoever adopted it has ended."""
    table = _processes()
    return [pid for pid in pids if pid in table and not table[pid][1].startswith("Z")]


def await_true(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
