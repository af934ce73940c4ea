"""What ties a process of the demo to the one that started it.

A child gets its settings as one line of JSON on standard input, which its parent then keeps open. When the
parent goes, however abruptly, the kernel closes the pipe and the child ends: no polling, no process left
behind, and nothing secret on a command line.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import IO, Any, Final, TypeVar

GRACE: Final = 3.0
"""Seconds that an abandoned process may take to end in order."""

S = TypeVar("S")


def dump_settings(settings: Any) -> bytes:
    """A dataclass of JSON values as the line that `receive` reads."""
    return json.dumps(dataclasses.asdict(settings)).encode() + b"\n"


def receive(kind: type[S], *, temporary: str | None = None) -> S:
    """Read this process's settings and end it when its parent has gone. Call once, first.

    Args:
        kind: The dataclass that the parent wrote.
        temporary: Name of the field with a folder to remove if the parent goes without doing so; its value
            may be `None`.

    Raises:
        SystemExit: The parent has gone already.
    """
    # The buffered object is never closed: a daemon thread may sit in it when the interpreter ends.
    pipe = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    line = _read_line(pipe)
    if not line:
        sys.exit("standard input ended before the settings came; this module is started by `aurelis-cache demo`")
    settings = kind(**json.loads(line))
    folder = getattr(settings, temporary) if temporary else None
    threading.Thread(target=_watch, args=(pipe, folder), name="lifeline", daemon=True).start()
    return settings


def _read_line(pipe: IO[bytes]) -> bytes:
    line = bytearray()
    while (byte := pipe.read(1)) not in (b"\n", b""):
        line += byte
    return bytes(line)


def _watch(pipe: IO[bytes], folder: str | None) -> None:
    while pipe.read(4096):
        pass

    def remove() -> None:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    # Now, and at the very end, since a process may write until then. What ends at once has nothing to write.
    remove()
    atexit.register(remove)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    remove()
    os._exit(1)
