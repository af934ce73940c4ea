"""Starts the processes of the demo and makes sure that each of them is gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from .lifeline import dump_settings
from .settings import HOST

GRACE: Final = 6.0
"""Seconds that a process may take to end after SIGTERM; then it is killed."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """The demo cannot go on; the message is for the user."""


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into a count for loops to look at. A context of the main thread."""

    def __init__(self) -> None:
        """No signal has come."""
        self.count = 0
        self._previous: dict[signal.Signals, Any] = {}  # what `signal.signal` returns

    def __enter__(self) -> Self:
        """Take the signals over."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        """Give them back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def sleep(self, seconds: float, *, until: int = 1) -> bool:
        """Wait; return early, and true, once `until` signals have come since the beginning."""
        deadline = time.monotonic() + seconds
        while self.count < until:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            # The handler sets no event: to set one while this thread is inside its lock would never return.
            time.sleep(min(remaining, 0.05))
        return True


class Child:
    """One process that `Processes` started."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """`log` is where its output goes."""
        self.name = name
        self.process = process
        self._log = log

    def check(self) -> None:
        """Raise `DemoError` with the end of its output if it has ended."""
        if (status := self.process.poll()) is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
            tail = "".join(f"\n  {line}" for line in lines[-12:])
            raise DemoError(f"{self.name} ended unexpectedly with status {status}{tail}")

    def terminate(self) -> None:
        """Ask it to end in order."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self, *, wait: Callable[[], bool]) -> None:
        """Wait for its end while `wait` (a short pause) says that it may take longer, then kill it."""
        while self.process.poll() is None and wait():
            pass
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Processes:
    """The processes of one demo. Leaving the context ends them all, also those that do not want to."""

    def __init__(self, logs: Path, interrupts: Interrupts) -> None:
        """Output of the processes goes to files in `logs`."""
        self._logs = logs
        self._interrupts = interrupts
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them all at once, then wait."""
        for child in reversed(self._children):
            child.terminate()
        deadline = time.monotonic() + GRACE
        impatience = self._interrupts.count + 1  # one more signal, and there is no grace

        def wait() -> bool:
            return not self._interrupts.sleep(0.02, until=impatience) and time.monotonic() < deadline

        for child in self._children:
            child.end(wait=wait)

    def start(
        self,
        name: str,
        module: str,
        settings: Any,
        *,
        listeners: Sequence[socket.socket] = (),
        environment: Mapping[str, str],
    ) -> Child:
        """Start `python -m module` with its settings on standard input; see `lifeline`.

        Args:
            name: For messages, and for the file with its output.
            module: One that calls `lifeline.receive` first.
            settings: A dataclass of JSON values.
            listeners: Sockets that it inherits under the same numbers; they are closed here.
            environment: Its whole environment.
        """
        log = self._logs / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                # -P: a module in the folder where the user happens to be must not hide one of ours.
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[listener.fileno() for listener in listeners],
                # Ctrl-C in a terminal goes to the whole foreground group. Only this process shall get it, so
                # that the traffic can end before the servers do.
                process_group=0,
                env=environment,
            )
        child = Child(name, process, log)
        self._children.append(child)
        for listener in listeners:
            listener.close()
        assert process.stdin is not None
        try:
            process.stdin.write(dump_settings(settings))
            process.stdin.flush()
        except BrokenPipeError:
            process.wait()
            child.check()
        return child

    def check(self) -> None:
        """Raise `DemoError` if one of them has ended by itself."""
        for child in self._children:
            child.check()

    def finish(self, child: Child, *, wait: Callable[[], bool]) -> None:
        """End this one now, and expect it no longer."""
        child.terminate()
        child.end(wait=wait)
        self._children.remove(child)


def listener(port: int = 0) -> socket.socket:
    """A listening socket on loopback; port 0: a free one.

    A parent that opens the sockets knows all ports before any process runs, and connections wait for it.

    Raises:
        DemoError: The port is taken.
    """
    try:
        return socket.create_server((HOST, port), backlog=1024)
    except OSError as error:
        raise DemoError(
            f"cannot listen on {HOST}:{port} ({os.strerror(error.errno or 0)}); choose another --port"
        ) from error
