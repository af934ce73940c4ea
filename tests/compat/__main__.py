"""Runs the tests of each SDK in an environment of its own, with what is published today: `make compat`.

Some SDKs exclude each other's requirements, so no environment has two of them that were not made for each other.
Environments are kept in `.cache/compat`, and brought up to date with `--upgrade`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = ROOT / ".cache" / "compat"
TABLE: Final = ROOT / "docs" / "sdk-tests.md"
TOOLS: Final = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "sybil", "uvicorn")
"""What the tests need beside the SDK; `tests/requirements.txt` says which versions."""

SDKS: Final[Mapping[str, Sequence[str]]] = {
    "openai": ["openai"],
    "anthropic": ["anthropic"],
    "google-genai": ["google-genai"],
    "mistralai": ["mistralai"],
    "cohere": ["cohere"],
    "ollama": ["ollama"],
    "litellm": ["litellm"],
    "langchain": ["langchain", "langchain-openai", "langchain-anthropic"],
    "langchain-google-genai": ["langchain-google-genai"],
    "pydantic-ai": ["pydantic-ai-slim[openai,anthropic]"],
    "openai-agents": ["openai-agents"],
    "llama-index": ["llama-index-llms-openai", "llama-index-embeddings-openai"],
}
"""By the name of the test file, with dashes: what is installed."""


@dataclass(frozen=True)
class Outcome:
    """What the tests of one SDK said."""

    name: str
    versions: str
    summary: str
    seconds: float
    passed: bool


def main() -> int:
    """Runs what was asked for; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SDK", help=f"{', '.join(SDKS)}; all, if none is given")
    parser.add_argument("--upgrade", action="store_true", help="bring the environments up to date first")
    parser.add_argument("--table", action="store_true", help="write what is tested into docs/sdk-tests.md, and end")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in SDKS]:
        parser.error(f"there is no {', '.join(unknown)}; choose from {', '.join(SDKS)}")
    if arguments.table:
        write_table()
        return 0
    outcomes = []
    for name in arguments.names or SDKS:
        print(f"== {name}", flush=True)
        outcomes.append(outcome := tried(name, upgrade=arguments.upgrade))
        print(f"   {outcome.versions}: {outcome.summary} in {outcome.seconds:.0f} s", flush=True)
    print("\n| SDK | versions | tests | |\n|---|---|---|---|")
    for outcome in outcomes:
        verdict = "ok" if outcome.passed else "FAILED"
        print(f"| {outcome.name} | {outcome.versions} | {outcome.summary} | {verdict} |")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def tried(name: str, *, upgrade: bool) -> Outcome:
    """Sets up one environment and runs the tests there."""
    began = time.monotonic()
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        shutil.rmtree(ENVIRONMENTS / name, ignore_errors=True)
        subprocess.run(uv("venv", "--quiet", "--python", sys.executable, str(ENVIRONMENTS / name)), check=True)
    install = ["pip", "install", "--quiet", "--python", str(python), "--override", str(HERE / "overrides.txt")]
    install += ["--upgrade"] if upgrade else []
    command = uv(*install, "--editable", f"{ROOT}[httpx,httpx2,otel]", *TOOLS, *SDKS[name])
    if subprocess.run(command, check=False).returncode:
        return Outcome(name, "-", "could not be installed", time.monotonic() - began, passed=False)
    options = ["-o", "addopts=--import-mode=importlib --strict-markers", "-o", "filterwarnings=default"]
    test = HERE / f"test_{module(name)}.py"
    ran = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(test)],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ran.returncode:
        print(ran.stdout)
    found = re.findall(r"^(.*\b(?:passed|failed|error)\b.*) in [\d.]+s", ran.stdout, re.MULTILINE)
    summary = re.sub(r", \d+ warnings?", "", found[-1]).strip("= ") if found else "no test ran"
    return Outcome(name, versions(python, SDKS[name]), summary, time.monotonic() - began, passed=ran.returncode == 0)


def write_table() -> None:
    """Replaces the rows of the page by those of all environments, which must be there."""
    program = "import sys; from tests.compat.contract import rows_of; print(*rows_of(*sys.argv[1:]), sep='\\n')"
    rows = []
    for name in SDKS:
        command = [
            str(ENVIRONMENTS / name / "bin" / "python"),
            "-c",
            program,
            name,
            f"tests.compat.test_{module(name)}",
        ]
        rows += subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    lines = TABLE.read_text("utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|---")) + 1
    last = next((number for number in range(first, len(lines)) if not lines[number].startswith("|")), len(lines))
    TABLE.write_text("\n".join([*lines[:first], *rows, *lines[last:]]) + "\n", "utf-8")


def module(name: str) -> str:
    """The name of an SDK as it is in the names of modules."""
    return name.replace("-", "_")


def uv(*arguments: str) -> list[str]:
    """The command of uv, which can override what a package requires."""
    return [sys.executable, "-m", "uv", *arguments]


def versions(python: Path, requirements: Sequence[str]) -> str:
    """What is installed of these, and of the HTTP libraries."""
    names = [requirement.partition("[")[0] for requirement in requirements] + ["httpx2", "httpx"]
    program = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    ran = subprocess.run([str(python), "-c", program, *names], check=True, stdout=subprocess.PIPE, text=True)
    return ran.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
