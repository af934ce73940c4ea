"""Writes the tables of options into the page on configuration, from what the classes say of themselves.

`python -m scripts.options_table` after a change of one of them; a test compares.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from aurelis.cache import CacheConfig, CacheLayer, EntryOptions
from aurelis.cache._settings import PREFIX

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
TABLES: tuple[type, ...] = (CacheConfig, CacheLayer, EntryOptions)
_ENTRY = re.compile(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", re.MULTILINE)


def meanings(kind: type) -> dict[str, str]:
    """Returns what the docstring says of each attribute."""
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = _ENTRY.findall(re.sub("^", "    ", section, flags=re.MULTILINE))
    return {name: " ".join(text.split()) for name, text in found}


def rows(kind: type) -> Iterator[tuple[str, ...]]:
    """Yields a row for each option."""
    said = meanings(kind)
    for each in dataclasses.fields(kind):
        default = each.default
        if default is dataclasses.MISSING and each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        shown = "required" if default is dataclasses.MISSING else f"`{default!r}`"
        cells = [f"`{each.name}`", shown, said[each.name]]
        if kind is CacheConfig:
            variable = f"`{PREFIX}{each.name.upper()}`"
            cells.insert(1, variable if each.repr else f"{variable}, or its file: `…_FILE`")
        yield tuple(cell.replace("|", "\\|") for cell in cells)


def table(kind: type) -> str:
    """Returns the table of one class."""
    head = ["option", "default", "meaning"]
    if kind is CacheConfig:
        head.insert(1, "environment")
    lines = [head, ["---"] * len(head), *rows(kind)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(page: str) -> str:
    """Returns the page with the tables as they should be."""
    for kind in TABLES:
        begin, end = f"<!-- options of {kind.__name__} -->\n", "\n<!-- end -->"
        before, found, rest = page.partition(begin)
        if not found:
            raise ValueError(f"{PAGE} has no place for the options of {kind.__name__}")
        page = before + begin + table(kind) + end + rest.partition(end)[2]
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
