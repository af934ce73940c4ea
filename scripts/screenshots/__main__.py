"""`python -m scripts.screenshots`: a run of the demo, and a picture of each dashboard over it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from scripts.dashboards import files

from . import _dashboard, _pictures, _run
from ._prometheus import Prometheus

ROOT: Final = Path(__file__).resolve().parents[2]
IMAGES: Final = ROOT / "docs" / "images"
CACHE: Final = ROOT / ".cache" / "screenshots"
SECONDS: Final = 200


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.screenshots", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of the traffic (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="draw the last run, and make no other")
    arguments = parser.parse_args()
    if arguments.seconds < _run.LEAST:
        parser.error(f"--seconds must be {_run.LEAST} or more")
    try:
        if not arguments.again:
            print(f"screenshots: the demo runs for {arguments.seconds} s", flush=True)
            _run.record(CACHE / "run", arguments.seconds)
        pictures = _asked()
        print("screenshots: drawing", flush=True)
        _pictures.draw(CACHE / "web", pictures)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for picture in pictures.values():
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size // 1000} kB")
    return 0


def _asked() -> dict[Path, Path]:
    """The data of each dashboard, in a file, and where its picture goes."""
    data = CACHE / "data"
    data.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    pictures = {}
    with _run.recorded(CACHE / "run") as (url, window):
        for source in sorted(files.FOLDER.glob("*.json")):
            dashboard = json.loads(source.read_text())
            found = _dashboard.resolved(dashboard, Prometheus(url), window, _run.SCRAPE)
            for title in _dashboard.empty(found):
                print(f"screenshots: {source.name}: no data: {title}", file=sys.stderr)
            target = data / source.name
            target.write_text(json.dumps(found))
            pictures[target] = IMAGES / f"{source.stem}.png"
    return pictures


if __name__ == "__main__":
    sys.exit(main())
