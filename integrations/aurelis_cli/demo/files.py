"""The folder with the files of a demo."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from .processes import DemoError

DATA: Final = "data"
"""Folder for what the app keeps; it goes with the demo."""
_OF_A_RUN: Final = ("catalog.sqlite", "driver.json", "faults.json")
_TARGETS: Final = "targets.json"


@contextmanager
def folder(state_dir: str | None) -> Iterator[Path]:
    """The folder for files: the user's, which stays, or one that is removed.

    Raises:
        DemoError: It cannot be written to.
    """
    if state_dir is None:
        temporary = Path(tempfile.mkdtemp(prefix="aurelis-cache-demo-"))
        try:
            (temporary / DATA).mkdir()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return
    given = Path(state_dir).resolve()
    data = given / DATA
    try:
        given.mkdir(parents=True, exist_ok=True)
        for name in _OF_A_RUN:  # of an earlier run
            (given / name).unlink(missing_ok=True)
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        write_json(given / _TARGETS, [])
    except OSError as error:
        raise DemoError(f"cannot write to {given} ({error.strerror}); choose another --state-dir") from error
    try:
        yield given
    finally:
        write_json(given / _TARGETS, [])  # a Prometheus that reads it stops asking
        (given / "catalog.sqlite").unlink(missing_ok=True)
        shutil.rmtree(data, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a file at once, so that nobody reads a half of it."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(value, indent=1))
    os.replace(partial, path)
