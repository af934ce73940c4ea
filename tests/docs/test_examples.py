"""The examples in the README, in the pages and in the docstrings run."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import aurelis.cache
from aurelis.cache import set_cache_manager

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "integrations").glob("*/README.md")),
]
PARSER = Sybil(parsers=[PythonCodeBlockParser()])


def examples() -> Iterator[tuple[str, str]]:
    """Yields page and position of each block of Python."""
    for page in PAGES:
        for example in blocks(page):
            yield str(page.relative_to(ROOT)), str(example.line)


def blocks(page: Path) -> list[Example]:
    """Returns the blocks of a page, each with a namespace of its own."""
    return list(PARSER.parse(page).examples())


@pytest.fixture(autouse=True)
def own_process_manager() -> Iterator[None]:
    """No example sees what another one left in the process's manager."""
    set_cache_manager(None)
    yield
    set_cache_manager(None)


@pytest.mark.parametrize(("page", "line"), [pytest.param(*each, id=":".join(each)) for each in examples()])
def test_a_block_of_python_runs(page: str, line: str) -> None:
    document: Document = PARSER.parse(ROOT / page)
    (example,) = [example for example in document.examples() if str(example.line) == line]
    document.namespace["__name__"] = "example"
    example.evaluate()


def modules() -> list[str]:
    """Returns the names of all modules of the core."""
    found = pkgutil.walk_packages(aurelis.cache.__path__, "aurelis.cache.")
    return ["aurelis.cache", *(module.name for module in found), "aurelis_asgi", "aurelis_httpx", "aurelis_httpx2"]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
