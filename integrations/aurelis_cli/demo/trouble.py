"""Lets things fail on purpose while the demo runs, as the script in `faults` says, and brings them back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from .asking import ask
from .faults import MODEL, REDIS, TABLE, Fault, active
from .files import write_json
from .gate import Gate

FILE: Final = "faults.json"


class Trouble:
    """Follows the script.

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

    def step(self, seconds: float) -> str:
        """Let fail what is to fail so many seconds after the traffic began; return that in words."""
        wanted = [fault for fault in active(seconds - self._after) if fault.name not in self._safe]
        if wanted != self._now:
            self._change(wanted)
        return " and ".join(fault.words for fault in wanted)

    def end(self) -> None:
        """Let nothing fail any more."""
        if self._now:
            self._change([])

    def _write_again(self) -> None:
        """What an operator does when a store is well again."""
        with contextlib.suppress(OSError):
            ask(self._web, "/ratings", method="POST")

    def _change(self, wanted: list[Fault]) -> None:
        before, self._now = {fault.name for fault in self._now}, wanted
        names = {fault.name for fault in wanted}
        if self._gate is not None and (REDIS in names) != (REDIS in before):
            (self._gate.shut if REDIS in names else self._gate.open)()
        query = urlencode([("name", name) for name in sorted(names)])
        for port in self._switches:
            with contextlib.suppress(OSError):  # one that has died is found out by whoever started it
                ask(port, f"/faults?{query}", method="PUT")
        if TABLE in before - names:
            # Aside: it may take its time, and the script goes on.
            threading.Thread(target=self._write_again, name="write again", daemon=True).start()
        now = time.time()
        for entry in self._log:
            if entry["ended"] is None and entry["name"] not in names:
                entry["ended"] = now
        self._log += [{"name": name, "began": now, "ended": None} for name in sorted(names - before)]
        write_json(self._file, self._log)
