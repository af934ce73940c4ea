"""The examples in the README, in the pages and in the docstrings run."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aurelis.cache
from aurelis.cache import set_cache_manager
from aurelis.cache.testing import LayerContract
from tests.conftest import ROOT
from tests.docs.blocks import blocks, files, page_of, run_block
from tests.managers import own_counts

SDKS = ("openai", "anthropic")  # the pages about others run where those are installed: `make compat`
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *map(page_of, SDKS),
    *sorted((ROOT / "integrations").glob("*/README.md")),
]


def examples() -> Iterator[tuple[str, str]]:
    """Yields page and position of each block of Python."""
    for page in PAGES:
        for block in blocks(page):
            yield str(page.relative_to(ROOT)), str(block.line)


@pytest.fixture(autouse=True)
def own_process_manager() -> Iterator[None]:
    """No example sees what another one left in the process's manager."""
    set_cache_manager(None)
    yield
    set_cache_manager(None)


@pytest.fixture(autouse=True)
def its_own_counts() -> Iterator[None]:
    """An example that reads metrics sees its own."""
    with own_counts():
        yield


@pytest.mark.parametrize(("page", "line"), [pytest.param(*each, id=":".join(each)) for each in examples()])
def test_a_block_of_python_runs(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_block(ROOT / page, line, tmp_path, monkeypatch)


def test_the_layer_of_the_page_on_layers_passes_its_tests(tmp_path: Path) -> None:
    for name, text in files(ROOT / "docs" / "layers.md").items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-c", "/dev/null"]
    completed = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    passed = re.search(r"^(\d+) passed", completed.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed.group(1)) == sum(name.startswith("test_") for name in dir(LayerContract))


_CLIENTS = [f"aurelis_{library}{module}" for library in ("httpx", "httpx2") for module in ("", "._wrap", ".cassettes")]


def modules() -> list[str]:
    """Returns the names of all modules of the core."""
    found = pkgutil.walk_packages(aurelis.cache.__path__, "aurelis.cache.")
    return ["aurelis.cache", *(module.name for module in found), "aurelis_asgi", *_CLIENTS]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
