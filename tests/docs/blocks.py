"""The blocks of Python in a page, and how one of them is run."""

import re
import sys
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.conftest import ROOT

PARSER = Sybil(parsers=[PythonCodeBlockParser()])


def page_of(sdk: str) -> Path:
    """Returns the page about an SDK."""
    return ROOT / "docs" / "sdks" / f"{sdk}.md"


def blocks(page: Path) -> list[Example]:
    """Returns the blocks of a page, each with a namespace of its own."""
    return list(PARSER.parse(page).examples())


def files(page: Path) -> dict[str, str]:
    """Returns the blocks of a page that are files, which others of the page import, by the name in their first line."""
    named = [(re.match(r"# (\w+\.py)\n", block.parsed), str(block.parsed)) for block in blocks(page)]
    return {match.group(1): text for match, text in named if match is not None}


def run_block(page: Path, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one block; the files of the page are in the folder."""
    for name, text in files(page).items():
        (folder / name).write_text(text)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(folder)
    document: Document = PARSER.parse(page)
    (example,) = [example for example in document.examples() if str(example.line) == line]
    document.namespace["__name__"] = "example"
    example.evaluate()
