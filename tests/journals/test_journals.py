"""What a journal promises, whatever keeps it; and what is particular to a file and to Redis."""

import asyncio
import contextlib
import math
import random
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from aurelis.cache import CacheConfig
from aurelis.cache._clock import SYSTEM_CLOCK, Clock
from aurelis.cache.journals import _embedded, _stream
from aurelis.cache.journals._embedded import EmbeddedJournal
from aurelis.cache.journals._journal import Failure, Journal, Session, Ticket
from aurelis.cache.journals._stream import StreamJournal
from aurelis.cache.layers import _sqlite_file
from tests.disks import aside, open_files
from tests.servers import ServerProcess

ALL = 2**52
"""A number above that of every write."""


@pytest.fixture(params=["embedded", "server", "cluster"])
async def make(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Journal]]:
    """A function that opens the same journal again, as another process would; another one by its namespace or name."""
    monkeypatch.setattr(_stream, "LEASE", 0.3)
    opened: list[Journal] = []
    url = "" if request.param == "embedded" else request.getfixturevalue("topology_url")(request.param)

    def make(namespace: str = "test", name: str = "j") -> Journal:
        if not url:
            opened.append(EmbeddedJournal(tmp_path, namespace, name, SYSTEM_CLOCK))
        else:
            opened.append(StreamJournal(CacheConfig(redis_url=url, namespace=namespace), name))
        return opened[-1]

    yield make
    for journal in opened:
        await journal.aclose()


@pytest.fixture
def journal(make: Callable[..., Journal]) -> Journal:
    """An empty journal."""
    return make()


@contextlib.asynccontextmanager
async def session_of(journal: Journal) -> AsyncIterator[Session]:
    """A session that ends in order."""
    session = journal.session()
    try:
        yield session
    finally:
        session.abandon()
        await session.leave()


async def append(journal: Journal, *keys: str, frame: bytes = b"frame", limit: int = 1000) -> None:
    """Appends writes for which there is room."""
    for key in keys:
        assert await journal.append(key, frame, limit) is not None


async def take(session: Session, count: int = 10) -> list[Ticket]:
    """Returns the next tickets, for which it is time."""
    return list(await session.take(count, math.inf, ALL))


def remove_files(folder: Path) -> None:
    """Removes the journals in a folder, as somebody may who should not."""
    for path in folder.glob("*.sqlite3*"):
        path.unlink()


def failure(ticket: Ticket, *, last: bool = False, delay: float = 0.0) -> Failure:
    """Returns an attempt in vain."""
    return Failure(ticket, "OSError", delay, last)


# --- one after the other


async def test_what_is_appended_is_taken_in_order_and_gone_when_it_is_written(journal: Journal) -> None:
    await append(journal, "a", "b", "c")
    assert (await journal.backlog()).waiting == 3
    async with session_of(journal) as session:
        first = await take(session, 2)
        assert [(ticket.key, ticket.frame, ticket.attempts, ticket.writes) for ticket in first] == [
            ("a", b"frame", 0, 1),
            ("b", b"frame", 0, 1),
        ]
        outcome = await session.settle(first, [])
        assert (outcome.written, outcome.coalesced, outcome.retried, outcome.buried) == (2, 0, 0, [])
        assert [ticket.key for ticket in await take(session)] == ["c"]
    backlog = await journal.backlog()
    assert (backlog.waiting, backlog.dead) == (1, 0)
    assert backlog.first == backlog.last


@pytest.mark.parametrize("key", ["", ":", "a b", "ü\ud800", "{x}", "0", "a" * 5000], ids=range(7))
async def test_any_key_and_any_bytes(journal: Journal, key: str) -> None:
    frame = bytes(range(256)) * 4 + b":\r\n::"
    await append(journal, key, frame=frame)
    assert await journal.pending(key) == frame
    async with session_of(journal) as session:
        (ticket,) = await take(session)
        assert (ticket.key, ticket.frame) == (key, frame)
        outcome = await session.settle([], [failure(ticket, last=True)])
        assert outcome.buried == [key]
    (letter,) = await journal.letters(10)
    assert (letter.key, letter.frame, letter.attempts, letter.error) == (key, frame, 1, "OSError")
    assert abs(letter.at - SYSTEM_CLOCK.time()) < 60
    assert await journal.replay([key], 0, 10) == [key]
    assert await journal.pending(key) == frame


async def test_a_newer_write_takes_the_place_of_one_that_waits(journal: Journal) -> None:
    await append(journal, "a", "b")
    for number in range(3):
        await append(journal, "a", frame=b"newer %d" % number)
    async with session_of(journal) as session:
        one, other = await take(session)
        assert (one.key, one.frame, one.writes, other.key) == ("a", b"newer 2", 4, "b")
        outcome = await session.settle([one, other], [])
        assert (outcome.written, outcome.coalesced) == (2, 3)
    assert (await journal.backlog()).waiting == 0


async def test_a_newer_write_of_what_is_taken_waits_for_its_end(journal: Journal) -> None:
    await append(journal, "a")
    async with session_of(journal) as session:
        (old,) = await take(session)
        await append(journal, "a", frame=b"newer")
        await append(journal, "a", frame=b"newest")
        assert await journal.pending("a") == b"newest"
        async with session_of(journal) as other:
            assert await take(other) == []
        first = (await journal.backlog()).first
        assert first is not None
        assert first <= old.sequence
        outcome = await session.settle([old], [])
        assert (outcome.written, outcome.coalesced) == (1, 0)
        first = (await journal.backlog()).first
        assert first is not None
        assert first > old.sequence
        (new,) = await take(session)
        assert (new.frame, new.writes, new.attempts) == (b"newest", 2, 0)
        outcome = await session.settle([new], [])
        assert (outcome.written, outcome.coalesced) == (1, 1)
    assert (await journal.backlog()).first is None


async def test_it_is_not_time_before_there_is_a_batch_or_the_interval_is_over(journal: Journal) -> None:
    await append(journal, "a", "b")
    last = (await journal.backlog()).last
    async with session_of(journal) as session:
        assert list(await session.take(3, math.inf, -1)) == []
        assert list(await session.take(3, 3600, -1)) == []
        taken = list(await session.take(2, math.inf, -1))
        assert len(taken) == 2
        await session.settle([], [failure(ticket) for ticket in taken])
        # What failed has waited long enough.
        await eventually_taken(session, 2)
        await append(journal, "c")
        assert list(await session.take(3, math.inf, last)) == []
        assert len(await session.take(3, math.inf, last + 1)) == 1
    await append(journal, "d")
    async with session_of(journal) as session:
        await asyncio.sleep(0.06)
        assert "d" in [ticket.key for ticket in await session.take(3, 0.05, -1)]


async def eventually_taken(session: Session, count: int) -> None:
    """Takes so many tickets as soon as it is time, and settles them."""
    taken: list[Ticket] = []
    while not taken:
        taken = list(await session.take(count, math.inf, -1))
        await asyncio.sleep(0.002)
    await session.settle(taken, [])
    assert len(taken) == count


async def test_what_failed_waits_for_its_time_and_counts_its_attempts(journal: Journal) -> None:
    await append(journal, "a")
    async with session_of(journal) as session:
        for attempts in range(3):
            taken: list[Ticket] = []
            while not taken:
                taken = await take(session)
            assert taken[0].attempts == attempts
            outcome = await session.settle([], [failure(taken[0], delay=0.02)])
            assert outcome.retried == 1
        assert (await session.settle([], [])).retried == 0
        (again,) = await _until(session)
        await session.settle([], [failure(again, delay=600)])
        assert await take(session) == []
        await append(journal, "a", frame=b"newer")
        assert await take(session) == []  # the store is no better because there is something new
    assert (await journal.backlog()).waiting == 1


async def _until(session: Session) -> list[Ticket]:
    while not (taken := await take(session)):
        await asyncio.sleep(0.002)
    return taken


async def test_a_newer_write_has_all_attempts_before_it(journal: Journal) -> None:
    await append(journal, "a")
    async with session_of(journal) as session:
        (old,) = await take(session)
        await append(journal, "a", frame=b"newer")
        outcome = await session.settle([], [failure(old, last=True)])
        assert (outcome.buried, outcome.retried) == ([], 1)
        (new,) = await _until(session)
        assert (new.frame, new.attempts, new.writes) == (b"newer", 0, 2)


# --- dead letters


async def bury(journal: Journal, *keys: str) -> None:
    """Makes dead letters."""
    await append(journal, *keys)
    async with session_of(journal) as session:
        taken = await take(session, len(keys))
        outcome = await session.settle([], [failure(ticket, last=True) for ticket in taken])
        assert outcome.buried == list(keys)


async def test_dead_letters_come_in_order_and_wait_again_as_new_writes(journal: Journal) -> None:
    await bury(journal, "c", "a", "b")
    assert (await journal.backlog()).dead == 3
    assert [letter.key for letter in await journal.letters(2)] == ["c", "a"]
    assert await journal.pending("a") is None
    last = (await journal.backlog()).last
    assert await journal.replay(None, last, 2) == ["c", "a"]
    assert await journal.replay(["unknown"], last, 10) == []
    assert await journal.replay(None, 0, 10) == []
    backlog = await journal.backlog()
    assert (backlog.waiting, backlog.dead) == (2, 1)
    assert backlog.first is not None
    assert backlog.first > last
    async with session_of(journal) as session:
        assert [(ticket.key, ticket.attempts) for ticket in await take(session)] == [("c", 0), ("a", 0)]


async def test_a_newer_write_takes_a_dead_letter_away(journal: Journal) -> None:
    await bury(journal, "a")
    await append(journal, "a", frame=b"newer", limit=1)
    assert await journal.letters(10) == []
    assert await journal.replay(None, ALL, 10) == []
    assert await journal.pending("a") == b"newer"


async def test_it_is_full_when_so_many_keys_wait_or_are_dead(journal: Journal) -> None:
    await bury(journal, "dead")
    await append(journal, "a", limit=2)
    assert await journal.append("b", b"frame", 2) is None
    assert await journal.pending("b") is None
    await append(journal, "a", limit=2)
    async with session_of(journal) as session:
        await session.settle(await take(session), [])
    await append(journal, "b", limit=2)


# --- several sessions and processes


async def test_journals_of_another_name_or_namespace_have_nothing_in_common(make: Callable[..., Journal]) -> None:
    await append(make("one", "x"), "a")
    for other in (make("one", "y"), make("two", "x"), make("one:x", "x"), make("one", "x:")):
        assert (await other.backlog()).waiting == 0
        assert await other.pending("a") is None
    assert await make("one", "x").pending("a") == b"frame"


async def test_what_a_session_has_nobody_else_gets(make: Callable[..., Journal]) -> None:
    one, other = make(), make()
    await append(one, "a")
    async with session_of(one) as session, session_of(other) as another:
        (ticket,) = await take(session)
        for _ in range(10):
            assert await take(another) == []
            assert await session.renew([ticket])
            await asyncio.sleep(0.05)
        await session.settle([ticket], [])
        assert await take(another) == []
        await append(one, "b")
        assert [ticket.key for ticket in await take(another)] == ["b"]


async def test_what_an_abandoned_session_had_somebody_else_gets_and_it_cannot_settle_it(
    make: Callable[..., Journal],
) -> None:
    journal = make()
    await append(journal, "a")
    lost = journal.session()
    (old,) = await take(lost)
    lost.abandon()
    async with session_of(make()) as session:
        taken: list[Ticket] = []
        while not taken:
            taken = await take(session)
        assert [ticket.key for ticket in taken] == ["a"]
        if session.lease is not None:
            assert not await lost.renew([old])
            outcome = await lost.settle([old], [])
            assert outcome.written == 0
        assert (await journal.backlog()).waiting == 1
        assert (await session.settle(taken, [])).written == 1
    await lost.leave()


@dataclass
class Model:
    """What must be true of a journal in which anything happens."""

    appended: dict[str, dict[int, int]] = field(default_factory=dict)
    stored: dict[str, list[int]] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    written: int = 0
    coalesced: int = 0
    dead: int = 0
    replayed: int = 0


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_each_key_is_written_in_order_by_one_at_a_time(
    make: Callable[..., Journal], seed: int
) -> None:
    rng = random.Random(seed)
    journals = [make(), make()]
    model = Model()
    number = 0

    async def append_one() -> None:
        nonlocal number
        key = f"k{rng.randrange(4)}"
        number = own = number + 1
        appended = await rng.choice(journals).append(key, b"%d" % own, 1000)
        assert appended is not None
        model.appended.setdefault(key, {})[own] = appended.sequence
        model.accepted += 1

    async def drain(journal: Journal, owner: int) -> None:
        session = journal.session()
        for _ in range(40):
            taken = list(await session.take(3, math.inf, ALL))
            done, failed = [], []
            for ticket in taken:
                assert ticket.key not in model.held, "two have it at once"
                model.held[ticket.key] = owner
            await asyncio.sleep(0)
            for ticket in taken:
                if rng.random() < 0.6:
                    model.stored.setdefault(ticket.key, []).append(int(ticket.frame))
                    done.append(ticket)
                else:
                    failed.append(failure(ticket, last=rng.random() < 0.3))
            if rng.random() < 0.3:
                await append_one()
            for ticket in taken:
                del model.held[ticket.key]
            outcome = await session.settle(done, failed)
            model.written += outcome.written
            model.coalesced += outcome.coalesced
            model.dead += len(outcome.buried)
            if rng.random() < 0.2:
                again = await journal.replay(None, ALL, 2)
                model.replayed += len(again)
            if rng.random() < 0.1:
                session.abandon()
                session = journal.session()
        session.abandon()

    async def write() -> None:
        for _ in range(60):
            await append_one()

    await asyncio.gather(write(), *(drain(journal, owner) for owner, journal in enumerate(journals)))
    async with session_of(journals[0]) as session:
        while (await journals[0].backlog()).waiting:
            taken = await take(session)
            for ticket in taken:
                model.stored.setdefault(ticket.key, []).append(int(ticket.frame))
            outcome = await session.settle(taken, [])
            model.written += outcome.written
            model.coalesced += outcome.coalesced
    letters = {letter.key: int(letter.frame) for letter in await journals[0].letters(100)}
    for key, appended in model.appended.items():
        stored = model.stored.get(key, [])
        assert set(stored) <= set(appended)
        assert stored == sorted(stored, key=lambda number: appended[number])
        newest = letters.get(key, stored[-1] if stored else None)
        assert newest == max(appended, key=lambda number: appended[number])
    assert model.accepted + model.replayed == model.written + model.coalesced + model.dead


# --- in a file


async def test_the_file_is_for_nobody_elses_eyes(tmp_path: Path) -> None:
    journal = EmbeddedJournal(tmp_path / "a" / "b", "ns", "n", SYSTEM_CLOCK)
    await append(journal, "k")
    async with session_of(journal) as session:
        await take(session)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b").iterdir()}
    assert len(modes) >= 4
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    await journal.aclose()
    assert open_files(tmp_path) == []


async def test_what_is_acknowledged_is_brought_to_the_disk(tmp_path: Path) -> None:
    journal = EmbeddedJournal(tmp_path, "ns", "n", SYSTEM_CLOCK)
    await append(journal, "k")

    def level(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    assert await journal._transactions.write(level) == 2  # FULL
    await journal.aclose()


async def test_a_damaged_file_is_kept_and_said_so_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        journal = EmbeddedJournal(tmp_path, "ns", "n", SYSTEM_CLOCK)
        await append(journal, "k")
        await journal.aclose()
        journal._path.write_bytes(b"garbage" * 1000)
        caplog.clear()
        await append(journal, "other")
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert (await journal.backlog()).waiting == 1
        await journal.aclose()
        assert len([name for name in aside(tmp_path) if name[-1].isdigit()]) == number + 1


def remove_turn(folder: Path) -> None:
    """Removes the file whose lock is the turn."""
    (turn,) = folder.glob("*.turn")
    turn.unlink()


async def test_a_turn_whose_file_was_removed_is_taken_anew(tmp_path: Path) -> None:
    one = EmbeddedJournal(tmp_path, "ns", "n", SYSTEM_CLOCK)
    other = EmbeddedJournal(tmp_path, "ns", "n", SYSTEM_CLOCK)
    await append(one, "k")
    async with session_of(one) as session, session_of(other) as another:
        await session.settle([], [failure(ticket) for ticket in await take(session)])
        remove_turn(tmp_path)
        (ticket,) = await _until(another)
        assert await take(session) == []
        await another.settle([ticket], [])
    await one.aclose()
    await other.aclose()


async def test_a_turn_whose_file_is_removed_while_it_is_taken_is_not_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = EmbeddedJournal(tmp_path, "ns", "n", SYSTEM_CLOCK)
    await append(journal, "k")

    def removes(descriptor: int, kind: int) -> bool:
        for path in tmp_path.glob("*.turn"):
            path.unlink()
        return _sqlite_file.try_lock(descriptor, kind)

    async with session_of(journal) as session, session_of(journal) as another:
        with monkeypatch.context() as patch:
            patch.setattr(_embedded, "try_lock", removes)
            assert await take(session) == []
        assert len(await take(another)) == 1
        assert await take(session) == []
    await journal.aclose()


async def test_what_was_taken_of_a_file_that_is_gone_settles_nothing_of_the_next_one(tmp_path: Path) -> None:
    journal = EmbeddedJournal(tmp_path, "ns", "n", SYSTEM_CLOCK)
    await append(journal, "k")
    async with session_of(journal) as session:
        taken = await take(session)
        remove_files(tmp_path)
        await append(journal, "k", frame=b"newer")
        await session.settle(taken, [])
        assert await journal.pending("k") == b"newer"
    await journal.aclose()


async def test_a_clock_that_is_set_back_delays_nothing(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    journal = EmbeddedJournal(tmp_path, "ns", "n", Clock(wall=lambda: now))
    await append(journal, "k")
    async with session_of(journal) as session:
        now -= 86_400
        (ticket,) = await session.take(10, 3600, -1)
        now += 86_400
        await session.settle([], [failure(ticket, delay=60)])
        assert await take(session) == []
        now -= 86_400
        assert len(await take(session)) == 1
    await journal.aclose()


# --- in Redis


async def test_no_consumer_is_left_of_sessions_that_have_ended(redis_url: str) -> None:
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    await append(journal, "k")
    for _ in range(3):
        async with session_of(journal) as session:
            await session.settle([], [failure(ticket) for ticket in await take(session)])
    assert await journal.link().execute("XINFO", "CONSUMERS", journal.names[0], "drain") == []
    async with session_of(journal) as session:
        await session.settle(await _until(session), [])
    assert await journal.link().execute("XLEN", journal.names[0]) == 0
    kept = [name for name in journal.names if await journal.link().execute("EXISTS", name)]
    assert [name.rpartition(b":")[2] for name in kept] == [b"stream", b"clock"]
    await journal.aclose()


async def test_a_session_that_leaves_with_tickets_keeps_its_name_until_they_are_claimed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stream, "LEASE", 0.2)
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    await append(journal, "k")
    leaving = journal.session()
    assert len(await take(leaving)) == 1
    await leaving.leave()
    async with session_of(journal) as session:
        assert [ticket.key for ticket in await _until(session)] == ["k"]
    await journal.aclose()


async def test_word_of_a_batch_that_comes_late_settles_nothing_that_was_claimed_since(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stream, "LEASE", 0.2)
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    await append(journal, "k")
    link, late = journal.link(), []

    class Slow:
        """Sends nothing yet."""

        async def script(self, *call: Any) -> Any:
            late.append(call)
            raise ConnectionError

    async with session_of(journal) as session, session_of(journal) as another:
        taken = await take(session)
        with monkeypatch.context() as patch:
            patch.setattr(journal, "link", Slow)
            with pytest.raises(ConnectionError):
                await session.settle(taken, [])
        await append(journal, "k", frame=b"newer")
        (claimed,) = await _until(session)
        await link.script(*late[0])
        assert await session.renew([claimed])
        assert await take(another) == []
        assert (await session.settle([claimed], [])).written == 1
    await journal.aclose()


async def test_what_waits_for_another_attempt_is_not_kept_by_a_clock_that_is_set_back(redis_url: str) -> None:
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    await append(journal, "k")
    async with session_of(journal) as session:
        await session.settle([], [failure(ticket, delay=86_400) for ticket in await take(session)])
        assert [ticket.key for ticket in await take(session)] == ["k"]
    await journal.aclose()


@pytest.mark.parametrize("gone", ["stream", "writes", "order", "retries", "attempts"])
async def test_what_is_left_when_redis_has_thrown_away_a_part_is_written_once(redis_url: str, gone: str) -> None:
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    (name,) = (name for name in journal.names if name.endswith(gone.encode()))
    await append(journal, "a", "b", "c")
    async with session_of(journal) as session:
        await session.settle([], [failure(ticket) for ticket in await take(session, 1)])
        await journal.link().execute("UNLINK", name)
        await append(journal, "a", "b", frame=b"newer")
        written: list[tuple[str, bytes]] = []
        while taken := await take(session, 1):
            written += [(ticket.key, ticket.frame) for ticket in taken]
            await session.settle(taken, [])
    left = {"a": b"newer", "b": b"newer"} | ({} if gone == "writes" else {"c": b"frame"})
    assert sorted(written) == sorted(left.items())
    assert (await journal.backlog()).waiting == await journal.link().execute("XLEN", journal.names[0]) == 0
    await journal.aclose()


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_redis_that_is_full_lets_what_waits_be_written_also_when_nobody_has_drained_it(
    redis_url: str, evicted: bool
) -> None:
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    await append(journal, "k")
    link = journal.link()
    if evicted:
        await link.execute("UNLINK", journal.names[0])
    await link.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        async with session_of(journal) as session:
            taken = await take(session)
            assert [ticket.key for ticket in taken] == ["k"]
            assert (await session.settle(taken, [])).written == 1
    finally:
        await link.execute("CONFIG", "SET", "maxmemory", "0")
    await journal.aclose()


async def test_the_number_goes_on_above_all_before_when_it_is_lost(redis_url: str) -> None:
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    await append(journal, "a")
    before = (await journal.backlog()).last
    await journal.link().execute("UNLINK", journal.names[7])
    await append(journal, "b")
    assert (await journal.backlog()).last > before
    await journal.aclose()


@pytest.mark.parametrize(("policy", "warns"), [("allkeys-lru", True), ("volatile-lru", False), ("noeviction", False)])
async def test_a_redis_that_evicts_any_key_is_warned_of_once(
    policy: str, warns: bool, redis_server: Callable[..., ServerProcess], caplog: pytest.LogCaptureFixture
) -> None:
    server = redis_server(maxmemory="100mb", maxmemory_policy=policy)
    journal = StreamJournal(CacheConfig(redis_url=server.url), "n")
    for _ in range(2):
        async with session_of(journal) as session:
            await take(session)
    assert [policy in record.message for record in caplog.records] == [True] * warns
    await journal.aclose()


async def test_a_redis_that_is_full_refuses_a_write_as_a_whole_and_lets_others_end(redis_url: str) -> None:
    journal = StreamJournal(CacheConfig(redis_url=redis_url), "n")
    await append(journal, "a", "b")
    async with session_of(journal) as session:
        one, two = await take(session)
        await append(journal, "a", frame=b"newer")
        link = journal.link()
        await link.execute("CONFIG", "SET", "maxmemory", "1")
        try:
            for key in ("a", "c"):
                with pytest.raises(ResponseError, match="maxmemory"):
                    await journal.append(key, b"refused", 100)
            outcome = await session.settle([one], [failure(two)])
            assert (outcome.written, outcome.retried) == (1, 1)
            written: dict[str, bytes] = {}
            while len(written) < 2:
                taken = await _until(session)
                written |= {ticket.key: ticket.frame for ticket in taken}
                await session.settle(taken, [])
        finally:
            await link.execute("CONFIG", "SET", "maxmemory", "0")
        assert written == {"a": b"newer", "b": b"frame"}
    assert (await journal.backlog()).waiting == 0
    await journal.aclose()
