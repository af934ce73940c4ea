"""The rows of a journal in SQLite: each function is a part of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from aurelis.cache.codecs import to_bytes

from ._journal import Appended, Backlog, Failure, Letter, Outcome, Ticket

MARK: Final = 0x4175636A
"""`Aucj`, by which the file says whose it is."""
LONGEST_DELAY: Final = 3_600_000
"""Milliseconds. What is due later than in that time was noted by a clock that has been set back since."""

SCHEMA: Final = f"""
BEGIN;
PRAGMA application_id = {MARK};
CREATE TABLE writes (
    key BLOB NOT NULL UNIQUE, first INTEGER NOT NULL, sequence INTEGER NOT NULL, since INTEGER NOT NULL,
    due INTEGER NOT NULL, attempts INTEGER NOT NULL, writes INTEGER NOT NULL, frame BLOB NOT NULL
);
CREATE INDEX writes_in_order ON writes (first);
CREATE INDEX writes_by_time ON writes (due, first);
CREATE TABLE letters (
    key BLOB NOT NULL UNIQUE, sequence INTEGER NOT NULL, attempts INTEGER NOT NULL, error TEXT NOT NULL,
    at INTEGER NOT NULL, frame BLOB NOT NULL
);
CREATE INDEX letters_in_order ON letters (sequence);
CREATE TABLE totals (sequence INTEGER NOT NULL, waiting INTEGER NOT NULL, dead INTEGER NOT NULL);
INSERT INTO totals VALUES (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER), 0, 0);
CREATE TRIGGER write_in AFTER INSERT ON writes BEGIN UPDATE totals SET waiting = waiting + 1; END;
CREATE TRIGGER write_out AFTER DELETE ON writes BEGIN UPDATE totals SET waiting = waiting - 1; END;
CREATE TRIGGER letter_in AFTER INSERT ON letters BEGIN UPDATE totals SET dead = dead + 1; END;
CREATE TRIGGER letter_out AFTER DELETE ON letters BEGIN UPDATE totals SET dead = dead - 1; END;
PRAGMA user_version = 1;
COMMIT;
"""
# The number begins with the time in microseconds, so that it goes on above those of a file that is gone: what a session
# still has of that one is settled here.
# `first`: the first write that is not in the store. `due`: 0 before the first attempt; milliseconds since the epoch.


def append(connection: sqlite3.Connection, key: str, frame: bytes, limit: int, now: int) -> Appended | None:
    """See `Journal.append`. `now`: milliseconds since the epoch."""
    name = to_bytes(key)
    last, waiting, dead = connection.execute("SELECT sequence, waiting, dead FROM totals").fetchone()
    known = connection.execute("SELECT 1 FROM writes WHERE key = ?", (name,)).fetchone()
    if known is None and waiting + dead >= limit and not _is_dead(connection, name):
        return None
    sequence = last + 1
    connection.execute("UPDATE totals SET sequence = ?", (sequence,))
    if known is None:
        connection.execute("DELETE FROM letters WHERE key = ?", (name,))
        _insert(connection, name, sequence, frame, now)
        waiting += 1
    else:
        connection.execute(
            "UPDATE writes SET sequence = ?, attempts = 0, writes = writes + 1, frame = ? WHERE key = ?",
            (sequence, frame, name),
        )
    return Appended(sequence, waiting)


def pending(connection: sqlite3.Connection, key: str) -> bytes | None:
    """See `Journal.pending`."""
    found = connection.execute("SELECT frame FROM writes WHERE key = ?", (to_bytes(key),)).fetchone()
    return None if found is None else found[0]


def backlog(connection: sqlite3.Connection) -> Backlog:
    """See `Journal.backlog`."""
    last, waiting, dead = connection.execute("SELECT sequence, waiting, dead FROM totals").fetchone()
    (first,) = connection.execute("SELECT min(first) FROM writes").fetchone()
    return Backlog(waiting, dead, first, last)


def ready(connection: sqlite3.Connection, count: int, interval: float, upto: int, now: int) -> list[Ticket]:
    """See `Session.take`: the tickets, for whoever may take them. `interval`: milliseconds, may be infinite."""
    again = connection.execute(
        "SELECT key, sequence, frame, attempts, writes FROM writes WHERE due > 0 AND (due <= ? OR due > ?) "
        "ORDER BY first LIMIT ?",
        (now, now + LONGEST_DELAY, count),
    ).fetchall()
    found = [_ticket(row) for row in again]
    oldest = connection.execute("SELECT since, first FROM writes WHERE due = 0 ORDER BY first LIMIT 1").fetchone()
    if oldest is None or len(found) == count:
        return found
    since, first = oldest
    if not (since > now or now - since >= interval or first <= upto):
        (waiting,) = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM writes WHERE due = 0 LIMIT ?)", (count,)
        ).fetchone()
        if waiting < count:
            return found
    fresh = connection.execute(
        "SELECT key, sequence, frame, attempts, writes FROM writes WHERE due = 0 ORDER BY first LIMIT ?",
        (count - len(found),),
    )
    return found + [_ticket(row) for row in fresh]


def settle(connection: sqlite3.Connection, written: Sequence[Ticket], failed: Sequence[Failure], now: int) -> Outcome:
    """See `Session.settle`."""
    outcome = Outcome()
    for ticket in written:
        found = _state(connection, ticket)
        if found is None:
            continue
        name = to_bytes(ticket.key)
        if found[0] == ticket.sequence:
            connection.execute("DELETE FROM writes WHERE key = ?", (name,))
        else:  # a newer one has come meanwhile
            connection.execute(
                "UPDATE writes SET first = ?, since = ?, due = 0, attempts = 0, writes = writes - ? WHERE key = ?",
                (ticket.sequence + 1, now, ticket.writes, name),
            )
        outcome.written += 1
        outcome.coalesced += ticket.writes - 1
    for failure in failed:
        ticket = failure.ticket
        found = _state(connection, ticket)
        if found is None:
            continue
        name, newer = to_bytes(ticket.key), found[0] != ticket.sequence
        if failure.last and not newer:
            connection.execute("DELETE FROM writes WHERE key = ?", (name,))
            connection.execute(
                "INSERT INTO letters (key, sequence, attempts, error, at, frame) VALUES (?, ?, ?, ?, ?, ?)",
                (name, ticket.sequence, ticket.attempts + 1, failure.error, now, ticket.frame),
            )
            outcome.coalesced += ticket.writes - 1
            outcome.buried.append(ticket.key)
        else:
            connection.execute(
                "UPDATE writes SET due = ?, attempts = ? WHERE key = ?",
                (now + int(failure.delay * 1000), 0 if newer else ticket.attempts + 1, name),
            )
            outcome.retried += 1
    return outcome


def letters(connection: sqlite3.Connection, count: int) -> list[Letter]:
    """See `Journal.letters`."""
    found = connection.execute(
        "SELECT key, sequence, frame, attempts, error, at FROM letters ORDER BY sequence LIMIT ?", (count,)
    )
    return [
        Letter(to_text(key), sequence, frame, attempts, error, at / 1000)
        for key, sequence, frame, attempts, error, at in found
    ]


def replay(connection: sqlite3.Connection, keys: Sequence[str] | None, upto: int, count: int, now: int) -> list[str]:
    """See `Journal.replay`."""
    if keys is None:
        rows = connection.execute(
            "SELECT key, frame FROM letters WHERE sequence <= ? ORDER BY sequence LIMIT ?", (upto, count)
        ).fetchall()
    else:
        query = "SELECT key, frame FROM letters WHERE key = ?"
        rows = [row for key in keys for row in connection.execute(query, (to_bytes(key),))]
    (last,) = connection.execute("SELECT sequence FROM totals").fetchone()
    for number, (name, frame) in enumerate(rows, last + 1):
        connection.execute("DELETE FROM letters WHERE key = ?", (name,))
        _insert(connection, name, number, frame, now)
    connection.execute("UPDATE totals SET sequence = ?", (last + len(rows),))
    return [to_text(name) for name, _ in rows]


def to_text(name: bytes) -> str:
    """The key of its bytes."""
    return name.decode("utf-8", "surrogatepass")


def _insert(connection: sqlite3.Connection, name: bytes, sequence: int, frame: bytes, now: int) -> None:
    connection.execute(
        "INSERT INTO writes (key, first, sequence, since, due, attempts, writes, frame) "
        "VALUES (?, ?, ?, ?, 0, 0, 1, ?)",
        (name, sequence, sequence, now, frame),
    )


def _is_dead(connection: sqlite3.Connection, name: bytes) -> bool:
    return connection.execute("SELECT 1 FROM letters WHERE key = ?", (name,)).fetchone() is not None


def _state(connection: sqlite3.Connection, ticket: Ticket) -> tuple[int] | None:
    """The number of the newest write; `None`: this one is settled already."""
    query = "SELECT sequence FROM writes WHERE key = ? AND first <= ?"
    found: tuple[int] | None = connection.execute(query, (to_bytes(ticket.key), ticket.sequence)).fetchone()
    return found


def _ticket(row: tuple[bytes, int, bytes, int, int]) -> Ticket:
    key, sequence, frame, attempts, writes = row
    return Ticket(to_text(key), sequence, frame, attempts, writes)
