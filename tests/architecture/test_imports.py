"""The floor plan holds: what imports what, who reads time, and that each module says its purpose."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

CORE = ROOT / "src" / "aurelis" / "cache"
INTEGRATIONS = ROOT / "integrations"
SOURCES = sorted([*CORE.rglob("*.py"), *INTEGRATIONS.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])

# What tells the time, by module. `_clock` is the one that may.
TIME_READERS = {
    "time": {
        name + unit
        for name in ("monotonic", "perf_counter", "process_time", "thread_time", "time")
        for unit in ("", "_ns")
    },
    "datetime": {"now", "today", "utcnow"},
}


def relative(path: Path) -> str:
    """Returns the path below the repository, as a test's identifier."""
    return str(path.relative_to(ROOT))


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Yields the dotted name of everything that is imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def time_readings(tree: ast.AST) -> list[int]:
    """Returns the lines that read time, whatever name the module was imported as."""
    lines = []
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in TIME_READERS:
            # `from time import monotonic` is a reading already; `from datetime import datetime` is not.
            lines += [node.lineno for alias in node.names if alias.name in TIME_READERS[node.module]]
            aliases |= {alias.asname or alias.name: "datetime" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else None
            owner = node.value.id if isinstance(node.value, ast.Name) else owner
            if node.attr in TIME_READERS.get(aliases.get(owner or "", owner or ""), ()):
                lines.append(node.lineno)
    return lines


def test_import_contracts_hold() -> None:
    """The contracts are in pyproject.toml; a process of its own, as the linter sets up logging."""
    lint = "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True, no_logo=True))"
    completed = subprocess.run([sys.executable, "-c", lint], check=False, cwd=ROOT, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_aurelis_is_a_namespace_in_the_tree() -> None:
    """PEP 420: a file in `aurelis` itself would shut other distributions out."""
    assert [path.name for path in (ROOT / "src" / "aurelis").iterdir() if path.is_file()] == []


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=relative)
def test_only_the_clock_reads_time(path: Path) -> None:
    if path == CORE / "_clock.py":
        return
    assert time_readings(ast.parse(path.read_text())) == [], f"{relative(path)}: take a clock as an argument"


@pytest.mark.parametrize(
    "source",
    [
        "import time; time.time()",
        "import time as t; t.monotonic_ns()",
        "from time import perf_counter",
        "from datetime import datetime; datetime.now()",
        "import datetime; datetime.datetime.now()",
        "import datetime as dt; dt.datetime.now()",
    ],
)
def test_the_scan_finds_readings_of_time(source: str) -> None:
    assert time_readings(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source", ["import time; time.sleep(1)", "clock.now()", "entry.time", "from datetime import datetime"]
)
def test_the_scan_leaves_other_code_alone(source: str) -> None:
    assert time_readings(ast.parse(source)) == []


@pytest.mark.parametrize("path", sorted(INTEGRATIONS.rglob("*.py")), ids=relative)
def test_integrations_use_public_names_of_the_core_only(path: Path) -> None:
    core = [name for name in imported_names(ast.parse(path.read_text())) if name.startswith("aurelis.cache")]
    assert [name for name in core if any(part.startswith("_") for part in name.split("."))] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_says_its_purpose_in_its_first_line(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    assert docstring, f"{relative(path)} has no docstring"
    assert docstring.splitlines()[0].strip(), f"{relative(path)}: the docstring begins with an empty line"
