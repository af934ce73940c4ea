"""The data of the demo: the metadata of the installed Python distributions, in a SQLite file."""

from __future__ import annotations

import csv
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

PAGE_SIZE: Final = 20

_SCHEMA: Final = """
CREATE TABLE package (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, version TEXT NOT NULL,
    summary TEXT NOT NULL, license TEXT NOT NULL, requires_python TEXT NOT NULL, description TEXT NOT NULL
);
CREATE TABLE requirement (package INTEGER NOT NULL REFERENCES package, target TEXT NOT NULL,
    text TEXT NOT NULL, optional INTEGER NOT NULL);
CREATE TABLE classifier (package INTEGER NOT NULL REFERENCES package, text TEXT NOT NULL);
CREATE TABLE file (package INTEGER NOT NULL REFERENCES package, path TEXT NOT NULL, bytes INTEGER NOT NULL);
"""
_INDEXES: Final = """
CREATE INDEX requirement_package ON requirement (package);
CREATE INDEX requirement_target ON requirement (target);
CREATE INDEX classifier_package ON classifier (package);
CREATE INDEX file_package ON file (package);
"""

_LIST: Final = """
SELECT name, version, summary,
    (SELECT count(*) FROM file WHERE file.package = package.id) AS files,
    (SELECT coalesce(sum(bytes), 0) FROM file WHERE file.package = package.id) AS bytes,
    (SELECT count(DISTINCT package) FROM requirement
        WHERE target = package.key AND NOT optional) AS dependents
FROM package ORDER BY dependents DESC, key LIMIT ? OFFSET ?
"""
_DEPENDENTS: Final = """
WITH RECURSIVE dependent(id) AS (
    SELECT package FROM requirement WHERE target = :key AND NOT optional
    UNION
    SELECT requirement.package FROM requirement JOIN package ON package.key = requirement.target
        JOIN dependent ON dependent.id = package.id WHERE NOT requirement.optional
)
SELECT name FROM package JOIN dependent USING (id) ORDER BY key
"""
_SEARCH: Final = r"""
WITH files AS (SELECT package, count(*) AS n FROM file WHERE path LIKE :q ESCAPE '\' GROUP BY package),
found AS (
    SELECT name, version, summary, coalesce(files.n, 0) AS files,
        100 * (name LIKE :q ESCAPE '\') + 20 * (summary LIKE :q ESCAPE '\')
        + 5 * (description LIKE :q ESCAPE '\')
        + 10 * EXISTS (SELECT 1 FROM classifier WHERE package = package.id AND text LIKE :q ESCAPE '\')
        + min(coalesce(files.n, 0), 9) AS score
    FROM package LEFT JOIN files ON files.package = package.id
)
SELECT * FROM found WHERE score > 0 ORDER BY score DESC, name LIMIT 25
"""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list: its number from 1, the number of pages, all packages, and this page's rows."""

    number: int
    pages: int
    total: int
    packages: list[dict[str, Any]]  # rows of SQLite


class Catalog:
    """Queries over a file that `build` wrote. They block, and any thread may ask."""

    def __init__(self, path: str | Path) -> None:
        """Open nothing yet; `path` names the file."""
        self._uri = f"{Path(path).resolve().as_uri()}?mode=ro"

    def page(self, number: int, size: int = PAGE_SIZE) -> Page:
        """The packages, most required first. Beyond the last page there are no rows."""
        with self._connect() as db:
            (total,) = db.execute("SELECT count(*) FROM package").fetchone()
            rows = db.execute(_LIST, (size, (number - 1) * size))
            return Page(number, -(-total // size), total, [dict(row) for row in rows])

    def detail(self, name: str) -> dict[str, Any] | None:
        """Everything about one package, or `None`. The name is normalised as package indexes do it."""
        with self._connect() as db:
            row = db.execute("SELECT * FROM package WHERE key = ?", (normalised(name),)).fetchone()
            if row is None:
                return None
            found = dict(row)
            package, key = found.pop("id"), found.pop("key")
            found["requires"] = _column(
                db, "SELECT text FROM requirement WHERE package = ? AND NOT optional ORDER BY text", package
            )
            found["optional"] = _column(
                db, "SELECT text FROM requirement WHERE package = ? AND optional ORDER BY text", package
            )
            found["classifiers"] = _column(db, "SELECT text FROM classifier WHERE package = ? ORDER BY text", package)
            found["dependents"] = [row["name"] for row in db.execute(_DEPENDENTS, {"key": key})]
            found["largest_files"] = [
                dict(row)
                for row in db.execute(
                    "SELECT path, bytes FROM file WHERE package = ? ORDER BY bytes DESC, path LIMIT 10",
                    (package,),
                )
            ]
            return found

    def search(self, text: str) -> list[dict[str, Any]]:
        """Packages with `text` in name, summary, description, classifiers or paths of files; best first."""
        escaped = re.sub(r"([\\%_])", r"\\\1", text)
        with self._connect() as db:
            return [dict(row) for row in db.execute(_SEARCH, {"q": f"%{escaped}%"})]

    def names(self) -> list[str]:
        """All packages, most required first."""
        with self._connect() as db:
            return [row["name"] for row in db.execute(_LIST, (-1, 0))]

    def facts(self, question: str) -> list[str]:
        """One sentence for each package that the question names."""
        words = {normalised(word) for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", question)}
        facts = []
        for word in sorted(words):
            if (found := self.detail(word)) is not None:
                required = ", ".join(found["dependents"][:5]) or "no other package here"
                facts.append(f"{found['name']} {found['version']}: {found['summary']}. Required by {required}.")
        return facts

    def _connect(self) -> closing[sqlite3.Connection]:
        db = sqlite3.connect(self._uri, uri=True)
        db.row_factory = sqlite3.Row
        return closing(db)


def build(path: Path, installed: Iterable[Distribution] | None = None) -> int:
    """Write the catalogue of `installed` to `path` and return the number of packages.

    `None` stands for what this interpreter finds. Of two distributions of one name the first is taken.
    """
    count = 0
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.executescript(_SCHEMA)
        for distribution in distributions() if installed is None else installed:
            count += _insert(db, distribution)
        db.executescript(_INDEXES)
        db.commit()
    return count


def normalised(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _insert(db: sqlite3.Connection, distribution: Distribution) -> bool:
    metadata = distribution.metadata

    def field(name: str) -> str:
        return metadata[name] if name in metadata else ""  # noqa: SIM401  # it is no dictionary and has no `get`

    name = field("Name")
    if not name:  # a leftover folder
        return False
    cursor = db.execute(
        "INSERT OR IGNORE INTO package (key, name, version, summary, license, requires_python, description)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            normalised(name),
            name,
            field("Version"),
            " ".join(field("Summary").split()).rstrip("."),
            field("License-Expression") or field("License").partition("\n")[0],
            field("Requires-Python"),
            field("Description"),
        ),
    )
    if not cursor.rowcount:
        return False
    package = cursor.lastrowid
    requirements = [(package, *_requirement(text)) for text in distribution.requires or ()]
    db.executemany("INSERT INTO requirement VALUES (?, ?, ?, ?)", requirements)
    db.executemany(
        "INSERT INTO classifier VALUES (?, ?)",
        [(package, text) for text in metadata.get_all("Classifier") or ()],
    )
    files = [(package, path, size) for path, size in _files(distribution)]
    db.executemany("INSERT INTO file VALUES (?, ?, ?)", files)
    return True


def _requirement(text: str) -> tuple[str, str, bool]:
    """Target, text, and whether only an extra asks for it."""
    name = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", text)
    return (normalised(name[1]) if name else ""), text, re.search(r";.*\bextra\b", text) is not None


def _files(distribution: Distribution) -> list[tuple[str, int]]:
    """Paths and sizes from the installer's record; packages of an operating system often have none."""
    record = distribution.read_text("RECORD")
    if record is None:
        return []
    return [(row[0], int(row[2] or 0)) for row in csv.reader(record.splitlines()) if len(row) == 3]


def _column(db: sqlite3.Connection, query: str, package: int) -> Sequence[str]:
    return [row[0] for row in db.execute(query, (package,))]
