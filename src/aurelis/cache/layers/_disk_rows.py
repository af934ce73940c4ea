"""What the disk layer does with the rows of its file. Each function is a part of one transaction.

Instants are milliseconds of the wall clock, since what is stored outlives processes and the machine's other clocks. Who
is set back an hour finds what was stored in that hour gone, and keeps the rest for up to an hour more than it was to
live.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ._sqlite_file import Connection

NEVER: Final = 2**62
"""In place of the instant at which something expires that never does."""
FOREVER: Final = -1
"""In place of the rest of its life."""
_AHEAD: Final = 1000
"""Milliseconds by which clocks of processes may differ: what was stored later than that was stored by another time."""
_OVERHEAD: Final = 160
"""Bytes for an entry beside key and frame, approximately."""

_RECENT: Final = 10_000
"""Milliseconds for which an entry that was used counts as such, so that reading it again need not be noted."""

Found = tuple[int, bytes, int, int, bool]
"""Row, frame, rest of the life in milliseconds, age in milliseconds, and whether its use is worth noting."""

# Cast, since a bit that has changed may make it a text that is none, which SQLite's module would raise for.
_FIND: Final = "SELECT n, CAST(frame AS BLOB), expires, stored, used FROM entries WHERE scope = ? AND key = ?"
_PUT: Final = (
    "INSERT INTO entries (scope, key, size, expires, used, stored, frame) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (scope, key) DO UPDATE SET size = excluded.size, expires = excluded.expires, used = excluded.used, "
    "stored = excluded.stored, frame = excluded.frame"
)
_MANY: Final = 500


# Entries


def find(connection: Connection, scope: int, key: bytes, now: int) -> Found | None:
    """What is stored under the key and has not expired."""
    for n, frame, expires, stored, used in connection.execute(_FIND, (scope, key)).fetchall():
        if expires > now and stored <= now + _AHEAD:
            life = FOREVER if expires >= NEVER else expires - now
            return n, frame, life, max(0, now - stored), abs(now - used) > _RECENT
    return None


def put(connection: Connection, scope: int, key: bytes, frame: bytes, life: int | None, now: int) -> None:
    """Keep a frame for so many milliseconds; `None`: for ever."""
    expires = NEVER if life is None else now + life
    connection.execute(_PUT, (scope, key, size_of(key, frame), expires, now, now, frame))


def size_of(key: bytes, frame: bytes) -> int:
    """Bytes for which an entry counts."""
    return len(key) + len(frame) + _OVERHEAD


def unlink(connection: Connection, scope: int, key: bytes, now: int) -> bool:
    """Forget a key; whether it was there and had not expired."""
    rows = connection.execute("DELETE FROM entries WHERE scope = ? AND key = ? RETURNING expires", (scope, key))
    return any(expires > now for (expires,) in rows.fetchall())


def unlink_some(connection: Connection, scope: int) -> int:
    """Forget some of all keys; how many."""
    command = "DELETE FROM entries WHERE n IN (SELECT n FROM entries WHERE scope = ? LIMIT ?)"
    return connection.execute(command, (scope, _MANY)).rowcount


def keys_after(connection: Connection, scope: int, last: bytes | None) -> list[bytes]:
    """The next keys in their order, those of expired entries too; `None`: the first ones."""
    # From the index alone: to look at each entry would be to read all the file.
    command = "SELECT key FROM entries WHERE scope = ? AND key > ? ORDER BY key LIMIT ?"
    if last is None:
        command = command.replace("key > ?", "key >= ?")
    return [key for (key,) in connection.execute(command, (scope, last or b"", _MANY)).fetchall()]


# Leases


def lease(connection: Connection, scope: int, key: bytes, now: int) -> bytes:
    """The token; empty: nobody loads the key."""
    command = "SELECT token FROM leases WHERE scope = ? AND key = ? AND until > ? AND since <= ?"
    for (token,) in connection.execute(command, (scope, key, now, now + _AHEAD)).fetchall():
        return bytes(token)
    return b""


def grant(connection: Connection, scope: int, key: bytes, token: bytes, life: int, now: int) -> None:
    """Let this be the lease."""
    connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (scope, key, token, now, now + life))


def are_there_leases(connection: Connection) -> bool:
    """Whether anybody loads anything."""
    return bool(connection.execute("SELECT 1 FROM leases LIMIT 1").fetchall())


def end_lease(connection: Connection, scope: int, key: bytes) -> None:
    """Nobody loads the key."""
    connection.execute("DELETE FROM leases WHERE scope = ? AND key = ?", (scope, key))


# Numbers and tags


def present(connection: Connection, scope: int, now: int) -> int:
    """The number of the last change. One that was lost begins with the time in microseconds."""
    for (number,) in connection.execute("SELECT number FROM numbers WHERE scope = ?", (scope,)).fetchall():
        return int(number)
    return _begin(connection, scope, now * 1000)


def tick(connection: Connection, scope: int, floor: int, now: int) -> int:
    """The next number, above the floor."""
    command = "UPDATE numbers SET number = max(number, ?) + 1 WHERE scope = ? RETURNING number"
    for (number,) in connection.execute(command, (floor, scope)).fetchall():
        return int(number)
    return _begin(connection, scope, max(now * 1000, floor) + 1)


def _begin(connection: Connection, scope: int, number: int) -> int:
    connection.execute("INSERT INTO numbers VALUES (?, ?)", (scope, number))
    return number


def records(connection: Connection, scope: int, tags: Sequence[bytes]) -> dict[bytes, tuple[int, int, int]]:
    """The last hard and soft number of those tags that have one, and when it was last looked at."""
    command = "SELECT hard, soft, seen FROM tags WHERE scope = ? AND tag = ?"
    return {tag: row for tag in tags for row in connection.execute(command, (scope, tag)).fetchall()}


def ensure(connection: Connection, scope: int, tags: Sequence[bytes], now: int) -> dict[bytes, tuple[int, int, int]]:
    """The records of all tags; one that has none gets the present number, since it may have had one up to that."""
    found = records(connection, scope, tags)
    number = present(connection, scope, now)
    rows = {tag: (*found.get(tag, (number, 0))[:2], now) for tag in tags}
    _keep_tags(connection, scope, rows)
    return rows


def bump(connection: Connection, scope: int, tags: Sequence[bytes], number: int, soft: bool, now: int) -> None:
    """Give the tags this number. One without a record had one perhaps, so a soft invalidation of it is a hard one."""
    found = records(connection, scope, tags)
    rows = {}
    for tag in tags:
        hard, soft_before, _ = found.get(tag, (0, 0, 0))
        rows[tag] = (hard or number, number, now) if soft else (number, soft_before, now)
    _keep_tags(connection, scope, rows)


def outdate(connection: Connection, scope: int, tags: Sequence[bytes], number: int) -> None:
    """Give those tags this number that have a record."""
    # One look in place of many, since none has, unless there is a layer below.
    look = "SELECT 1 FROM tags WHERE scope = ? AND tag BETWEEN ? AND ? LIMIT 1"
    if tags and connection.execute(look, (scope, min(tags), max(tags))).fetchall():
        command = "UPDATE tags SET hard = ? WHERE scope = ? AND tag = ?"
        connection.executemany(command, [(number, scope, tag) for tag in tags])


def _keep_tags(connection: Connection, scope: int, rows: dict[bytes, tuple[int, int, int]]) -> None:
    command = (
        "INSERT INTO tags VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, tag) DO UPDATE "
        "SET hard = excluded.hard, soft = excluded.soft, seen = excluded.seen"
    )
    connection.executemany(command, [(scope, tag, *row) for tag, row in rows.items()])


# Words


def tell(connection: Connection, scope: int, word: bytes, now: int) -> None:
    """Leave a message for all who listen."""
    connection.execute("INSERT INTO words (scope, at, word) VALUES (?, ?, ?)", (scope, now, word))


def last_word(connection: Connection) -> int:
    """The number of the row of the last message of all; 0: there was none."""
    for (n,) in connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'words'").fetchall():
        return int(n)
    return 0


def words_after(connection: Connection, n: int) -> list[tuple[int, int, bytes]]:
    """Row, scope and bytes of the next messages."""
    return connection.execute("SELECT n, scope, word FROM words WHERE n > ? ORDER BY n LIMIT ?", (n, _MANY)).fetchall()


# Room


def totals(connection: Connection) -> tuple[int, int, int]:
    """Entries, their bytes, and records of tags."""
    found: tuple[int, int, int] = connection.execute("SELECT entries, bytes, tags FROM totals").fetchone()
    return found


def touch(connection: Connection, used: Iterable[tuple[int, int]]) -> None:
    """Note when rows were used: instant and row of each."""
    connection.executemany("UPDATE entries SET used = ? WHERE n = ?", used)


def drop_expired(connection: Connection, now: int, count: int) -> int:
    """Forget some of what has expired; how many."""
    command = "DELETE FROM entries WHERE n IN (SELECT n FROM entries WHERE expires <= ? ORDER BY expires LIMIT ?)"
    return connection.execute(command, (now, count)).rowcount


def drop_unused(connection: Connection, entries: int, size: int) -> int:
    """Forget what was not used for longest until so many entries and so many bytes are gone; how many entries."""
    gone = 0
    while entries > 0 or size > 0:
        oldest = connection.execute("SELECT n, size FROM entries ORDER BY used, n LIMIT 64").fetchall()
        if not oldest:
            break
        chosen = []
        for n, own in oldest:
            if entries <= 0 and size <= 0:
                break
            chosen.append((n,))
            entries, size = entries - 1, size - own
        connection.executemany("DELETE FROM entries WHERE n = ?", chosen)
        gone += len(chosen)
    return gone


def tidy(connection: Connection, now: int, tags: int) -> None:
    """Forget leases that have ended, words that everybody has heard, and tags that nobody asked for, above so many."""
    connection.execute("DELETE FROM leases WHERE until <= ?", (now,))
    words = "SELECT n FROM words ORDER BY n LIMIT 2000"
    connection.execute(
        f"DELETE FROM words WHERE n IN ({words}) AND at NOT BETWEEN ? AND ?", (now - 60_000, now + 60_000)
    )
    excess = totals(connection)[2] - tags
    if excess > 0:
        command = "DELETE FROM tags WHERE (scope, tag) IN (SELECT scope, tag FROM tags ORDER BY seen LIMIT ?)"
        connection.execute(command, (excess,))
