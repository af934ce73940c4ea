"""The page that lists every name of the interface, and a test for each: all of them exist, and none is forgotten."""

import ast
import operator
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aurelis.cache
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "reference.md"
_ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]*) ?\| `(tests/[\w/]+\.py)::(\w+)` \|$")


def rows() -> list[tuple[str, str, str]]:
    """Returns the name, the file and the function of each row."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    found = [_ROW.match(line) for line in lines]
    assert [line for line, match in zip(lines, found, strict=True) if match is None] == []
    return [(match.group(1), match.group(3), match.group(4)) for match in found if match is not None]


def interface(reference: Path) -> Iterator[str]:
    """Yields what the reference imports from here, and the public methods and fields of its classes."""
    for block in re.findall(r"```python\n(.*?)```", reference.read_text(), re.DOTALL):
        tree = ast.parse(block)
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == "aurelis.cache":
                for alias in node.names:
                    yield alias.name
        for name in classes.keys() & {*aurelis.cache.__all__}:
            yield name
            for part in classes[name].body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_"):
                    yield f"{name}.{part.name}"
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield f"{name}.{part.target.id}"


def test_every_name_has_one_row() -> None:
    names = [name for name, _, _ in rows()]
    assert len(names) > 40
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", [name for name, _, _ in rows()])
def test_every_name_is_there(name: str) -> None:
    assert name.partition(".")[0] in aurelis.cache.__all__
    operator.attrgetter(name)(aurelis.cache)


def test_every_test_that_is_named_is_there() -> None:
    files = {file for _, file, _ in rows()}
    there = {
        (file, node.name)
        for file in files
        for node in ast.parse((ROOT / file).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert [(file, test) for _, file, test in rows() if (file, test) not in there or not test.startswith("test_")] == []


def test_no_name_of_the_reference_is_forgotten(shared_dir: Path) -> None:
    names = {*interface(shared_dir / "reference" / "cache-api.md")}
    assert {"CacheManager", "CacheLayer.ttl", "CacheStats.record_hit", "WriteBehind.set"} <= names
    listed = {name for name, _, _ in rows()}
    assert sorted(names - listed) == []
