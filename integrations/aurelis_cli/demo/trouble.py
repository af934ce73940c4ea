"""Lets things fail on purpose while the demo runs, as the script in `faults` says, and brings them back."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from .asking import ask
from .faults import MODEL, REDIS, TABLE, Fault, steps
from .files import write_json
from .gate import Gate

FILE: Final = "faults.json"
_PATIENCE: Final = 2.0


class Trouble:
    """Follows the script, in a thread of its own: each step takes its time, however slow this machine is.

    A context manager; after it nothing fails any more.

    Args:
        after: Seconds of traffic before the first fault.
        folder: Where it is written what failed and when.
        web: Port of a worker's app.
        switches: Ports of all that has a switch for faults.
        gate: The door in front of Redis; `None`: there is no Redis that could fail.
        model: Whether the model can fail: a real one does so by itself.
    """

    def __init__(
        self, after: float, folder: Path, *, web: int, switches: Sequence[int], gate: Gate | None, model: bool
    ) -> None:
        """Let nothing fail yet."""
        self._after = after
        self._file = folder / FILE
        self._web = web
        self._switches = switches
        self._gate = gate
        self._safe = {name for name, fails in ((REDIS, gate is not None), (MODEL, model)) if not fails}
        self._now: list[Fault] = []
        self._log: list[dict[str, Any]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trouble", daemon=True)

    def __enter__(self) -> Self:
        """Begin with the seconds in which all is well."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let nothing fail any more."""
        self._ended.set()
        self._thread.join()
        self._change([])

    @property
    def words(self) -> str:
        """What fails now; empty if nothing does."""
        return " and ".join(fault.words for fault in self._now)

    def _run(self) -> None:
        if self._ended.wait(self._after):
            return
        for faults, seconds in itertools.cycle(steps()):
            self._change([fault for fault in faults if fault.name not in self._safe])
            if self._ended.wait(seconds):
                return

    def _change(self, wanted: list[Fault]) -> None:
        before, self._now = {fault.name for fault in self._now}, wanted
        names = {fault.name for fault in wanted}
        if names == before:
            return
        if self._gate is not None:
            (self._gate.shut if REDIS in names else self._gate.open)()
        query = urlencode([("name", name) for name in sorted(names)])
        for port in self._switches:
            with contextlib.suppress(OSError):  # one that has died is found out by whoever started it
                ask(port, f"/faults?{query}", method="PUT", timeout=_PATIENCE)
        now = time.time()
        for entry in self._log:
            if entry["ended"] is None and entry["name"] not in names:
                entry["ended"] = now
        self._log += [{"name": name, "began": now, "ended": None} for name in sorted(names - before)]
        write_json(self._file, self._log)
        if TABLE in before - names:
            with contextlib.suppress(OSError):  # what an operator does when a store is well again
                ask(self._web, "/ratings", method="POST", timeout=_PATIENCE)
