"""Asks the caches for model calls all probes, and prints the table of what they did: `make compare-models`.

They are installed in an environment of their own, `.cache/compare`, and brought up to date with `--upgrade`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.compare.bench import PASSED, VOID
from tests.compare.probes import PROBES
from tests.compat.__main__ import HERE as COMPAT
from tests.compat.__main__ import ROOT, TOOLS, uv

ENVIRONMENT: Final = ROOT / ".cache" / "compare"
PAGE: Final = ROOT / "docs" / "model-probes.md"
BEGIN, END = "<!-- begin of what `make compare-models` writes -->", "<!-- end -->"
PACKAGES: Final = (
    "openai",
    "hishel[async,httpx2]",
    "litellm",
    *("fastapi", "orjson", "soundfile"),  # LiteLLM imports these for each answer from its cache, and requires none
)


def main() -> int:
    """Runs the probes; the exit status is 1 if this cache did worse than its page says."""
    parser = argparse.ArgumentParser(prog="python -m tests.compare", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="bring the environment up to date first")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    python = installed(upgrade=arguments.upgrade)
    command = [str(python), "-m", "tests.compare.probing"]
    ran = subprocess.run(command, check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        return ran.returncode
    found = json.loads(ran.stdout)
    text = table(found)
    print(text)
    if arguments.write:
        page = PAGE.read_text()
        PAGE.write_text(page[: page.index(BEGIN) + len(BEGIN)] + f"\n\n{text}\n\n" + page[page.index(END) :])
    ours = {name: outcomes["aurelis-cache"] for name, outcomes in found["outcomes"].items()}
    return 1 if any(ours[name] != PASSED for name in passed()) else 0


def installed(*, upgrade: bool) -> Path:
    """Sets up the environment."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        subprocess.run(uv("venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)), check=True)
    command = uv("pip", "install", "--quiet", "--python", str(python), "--override", str(COMPAT / "overrides.txt"))
    command += ["--upgrade"] if upgrade else []
    subprocess.run([*command, "--editable", f"{ROOT}[httpx,httpx2,otel]", *TOOLS, *PACKAGES], check=True)
    return python


def table(found: dict[str, Any]) -> str:
    """The outcomes as Markdown, with the versions."""
    names = list(found["outcomes"][PROBES[0].name])
    lines = ["Versions: " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()) + ".", ""]
    group = ""
    for probe in PROBES:
        if probe.group != group:
            group = probe.group
            lines += ["", f"| {group} | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
        cells = [_cell(found["outcomes"][probe.name][name]) for name in names]
        lines.append(f"| {probe.name} | {' | '.join(cells)} |")
    totals = []
    for name in names:
        outcomes = [outcomes[name] for outcomes in found["outcomes"].values()]
        failed = sum(outcome not in (PASSED, VOID) for outcome in outcomes)
        void = f", {outcomes.count(VOID)} without meaning" if VOID in outcomes else ""
        totals.append(f"{outcomes.count(PASSED)} passed, {failed} failed{void}")
    lines += ["", f"| In all | {' | '.join(names)} |", "|---|" + "---|" * len(names), f"| | {' | '.join(totals)} |"]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def _cell(outcome: str) -> str:
    if outcome == VOID:
        return "–"
    return outcome if outcome == PASSED else f"**HARD fail**: {outcome}"


def passed() -> list[str]:
    """The probes of which the page says that this cache passes them."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    return [name for name, ours in rows if ours == PASSED]


if __name__ == "__main__":
    sys.exit(main())
