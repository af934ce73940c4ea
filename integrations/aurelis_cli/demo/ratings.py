"""The ratings that users give to packages: a table in SQLite, and how the cache writes to it behind."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from .faults import TABLE, Switch

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rating (
    package TEXT NOT NULL, user TEXT NOT NULL, stars INTEGER NOT NULL, PRIMARY KEY (package, user)
);
"""
_WRITE: Final = "INSERT OR REPLACE INTO rating VALUES (?, ?, ?)"

Written = Callable[[set[str]], Awaitable[None]]
"""Told which packages have new ratings; what it raises lets the write be tried again."""


def key(package: str, user: str) -> str:
    """The key of one rating."""
    return f"{user}/{package}"


class Ratings:
    """The table, as a store for `WriteBehind`: keys are those of `key`, values stars from 1 to 5."""

    def __init__(self, path: str | Path, faults: Switch, written: Written) -> None:
        """Make the file if it is not there."""
        self._path = path
        self._faults = faults
        self._written = written
        with closing(self._connect()) as db:
            db.executescript(_SCHEMA)

    async def get(self, key: str) -> int | None:
        """One rating."""
        user, _, package = key.partition("/")
        query = "SELECT stars FROM rating WHERE package = ? AND user = ?"
        row = await asyncio.to_thread(self._one, query, (package, user))
        return None if row is None else int(row[0])

    async def set(self, key: str, value: int) -> None:
        """Write one rating."""
        await self.set_many({key: value})

    async def set_many(self, values: Mapping[str, int]) -> None:
        """Write several ratings at once, then say whose pages are out of date."""
        if TABLE in self._faults:
            raise sqlite3.OperationalError("it takes no writes, on purpose")
        rows = [(package, user, stars) for (user, _, package), stars in _parted(values)]
        await asyncio.to_thread(self._write, rows)
        await self._written({package for package, _, _ in rows})

    def of(self, package: str) -> tuple[float | None, int]:
        """Mean and number of the ratings of one package. It blocks."""
        row = self._one("SELECT avg(stars), count(*) FROM rating WHERE package = ?", (package,))
        assert row is not None
        return row[0], row[1]

    def _one(self, query: str, values: tuple[str, ...]) -> tuple[float, int] | None:
        with closing(self._connect()) as db:
            row: tuple[float, int] | None = db.execute(query, values).fetchone()
            return row

    def _write(self, rows: list[tuple[str, str, int]]) -> None:
        with closing(self._connect()) as db, db:
            db.executemany(_WRITE, rows)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)


def _parted(values: Mapping[str, int]) -> list[tuple[tuple[str, str, str], int]]:
    return [(name.partition("/"), stars) for name, stars in values.items()]
