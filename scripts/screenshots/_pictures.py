"""Has dashboards drawn in a browser without a window, and makes small files of what it shows."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image

WEB: Final = Path(__file__).resolve().parent / "web"
"""The page."""
LARGEST: Final = 400_000
"""Bytes of a picture at most."""
_BROWSERS: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_COLOURS: Final = 256
_SCALE: Final = 1


class DrawingError(RuntimeError):
    """There is no picture; the message says why and what to do."""


def draw(folder: Path, pictures: Mapping[Path, Path]) -> None:
    """Draws each file of data into a picture.

    Args:
        folder: where the page is built; packages of npm stay there.
        pictures: by data, as `_dashboard.resolved` makes it; none is replaced unless all could be drawn.

    Raises:
        DrawingError: A program is missing or failed, or a panel could not be drawn.
    """
    node, npm, browser = _program("node"), _program("npm"), _program(*_BROWSERS)
    _install(folder, npm)
    _call("the page could not be built", npm, "run", "--silent", "build", folder=folder)
    drawn = {data: folder / f"{data.stem}.png" for data in pictures}
    jobs = {
        "chromium": browser,
        # A browser of root has no sandbox; the page is our own.
        "sandbox": os.geteuid() != 0,
        "scale": _SCALE,
        "pictures": [{"data": str(data), "picture": str(picture)} for data, picture in drawn.items()],
    }
    (folder / "jobs.json").write_text(json.dumps(jobs))
    print(_call("a dashboard could not be drawn", node, "draw.mjs", "jobs.json", folder=folder), end="", flush=True)
    few = {target: few_colours(drawn[data]) for data, target in pictures.items()}
    for target, content in few.items():
        target.write_bytes(content)


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise DrawingError(f"missing: {names[0]}; install it with the package manager of your system")
    return found


def _install(folder: Path, npm: str) -> None:
    """Copies the page, and gets its packages unless they are there."""
    shutil.copytree(WEB, folder, dirs_exist_ok=True)
    stamp = folder / "node_modules" / ".installed-for"
    wanted = hashlib.sha256((WEB / "package.json").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("screenshots: getting Grafana's components from npm, some hundred megabytes", flush=True)
    # Their peers ask for other versions of React than they work with.
    install = ("install", "--legacy-peer-deps", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
    _call("the packages could not be installed", npm, *install, folder=folder)
    stamp.write_text(wanted)


def _call(failure: str, *command: str, folder: Path) -> str:
    """Runs a program and returns what it says."""
    completed = subprocess.run(
        command, check=False, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = completed.stdout.decode(errors="replace")
    if completed.returncode != 0:
        raise DrawingError(f"{failure}:\n{said[-4000:]}")
    return said


def few_colours(picture: Path) -> bytes:
    """Returns a picture with the colours that can be told apart, which is a third of the bytes.

    Raises:
        DrawingError: It is too large even so.
    """
    content = io.BytesIO()
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    few.save(content, "PNG", optimize=True)
    size = content.tell()
    if size > LARGEST:
        raise DrawingError(f"the picture of {picture.stem} has {size} bytes, more than {LARGEST}")
    return content.getvalue()
