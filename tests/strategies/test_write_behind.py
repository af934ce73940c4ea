"""Write behind: acknowledged means journaled, and what is journaled reaches the store, in order."""

import asyncio
import contextlib
import gc
import math
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache import CacheConfig, CacheManager, UnifiedCacheManager, WriteBehind
from aurelis.cache.exceptions import (
    CacheClosedError,
    ConfigurationError,
    JournalFullError,
    LayerError,
    LayerTimeout,
    UnstorableValueError,
)
from aurelis.cache.journals import _stream
from aurelis.cache.journals._embedded import EmbeddedJournal
from aurelis.cache.journals._stream import StreamJournal
from aurelis.cache.strategies import _asking
from aurelis.cache.strategies._retries import delay
from aurelis.cache.telemetry import names
from tests.managers import configuration, count, eventually, opened, run_script, series
from tests.proxies import Hang, Latency, Proxy
from tests.servers import ServerProcess
from tests.strategies.stores import Batches, Journals, Table, on_disk
from tests.write_behind import kill_writers


@pytest.fixture(params=["embedded", "redis"])
def journals(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journals:
    """Where the journals of a test are."""
    if request.param == "embedded":
        return on_disk(tmp_path)
    monkeypatch.setattr(_stream, "LEASE", 0.5)
    return Journals("redis", {"redis_url": request.getfixturevalue("redis_url")})


def draining_tasks() -> int:
    """Returns how many tasks of the running event loop drain journals."""
    return len([task for task in asyncio.all_tasks() if "write-behind" in task.get_name()])


def waiting(behind: WriteBehind[Any]) -> Any:
    """Returns a coroutine for the number of keys that wait."""
    return behind._journal.backlog()


# --- what it does


async def test_a_write_is_in_the_cache_at_once_and_in_the_store_later(journals: Journals) -> None:
    async with journals.behind(store := Table()) as behind:
        assert await behind.set("k", {"name": "Ada"}) is True
        assert await behind.cache.get("k") == {"name": "Ada"}
        assert await behind.get("k") == {"name": "Ada"}
        assert store.rows == {}
        assert store.reads == []
        await eventually(lambda: count(behind.cache, names.WRITES_WAITING) == 1)
        assert await behind.flush() is True
        assert store.rows == {"k": {"name": "Ada"}}
        assert (await waiting(behind)).waiting == 0
        await eventually(lambda: count(behind.cache, names.WRITES_WAITING) == 0)


async def test_a_batch_is_written_when_it_is_full_and_given_whole(journals: Journals) -> None:
    async with journals.behind(store := Batches(), batch_size=3) as behind:
        for number in range(2):
            await behind.set(f"k{number}", number)
        await asyncio.sleep(0.05)
        assert store.batches == []
        await behind.set("k2", 2)
        await eventually(lambda: store.batches)
        assert store.batches == [{"k0": 0, "k1": 1, "k2": 2}]
        for number in range(10):
            await behind.set(f"l{number}", number)
        await behind.flush()
        assert max(map(len, store.batches)) == 3
        assert len(store.rows) == 13


async def test_what_is_no_batch_is_written_when_the_interval_is_over(journals: Journals) -> None:
    async with journals.behind(store := Table(), flush_interval=0.05) as behind:
        await behind.set("k", 1)
        await eventually(lambda: store.rows)
    async with journals.behind(store := Table(), flush_interval=0, batch_size=100, name="other") as behind:
        await behind.set("k", 1)
        await eventually(lambda: store.rows)


async def test_of_several_writes_of_a_key_the_last_is_written(journals: Journals) -> None:
    async with journals.behind(store := Table()) as behind:
        for number in range(5):
            await behind.set("k", number)
        await behind.flush()
        assert store.writes == [("k", 4)]
        assert counts(behind) == {"accepted": 5, "written": 1, "coalesced": 4}


def counts(behind: WriteBehind[Any]) -> dict[str, float]:
    """Returns what telemetry says of the writes; zeros are left out."""
    cache = behind.cache
    found = {
        "accepted": count(cache, names.WRITES_ACCEPTED),
        "retries": count(cache, names.WRITE_RETRIES),
        "replayed": count(cache, names.WRITES_REPLAYED),
    }
    for attributes, value in series(cache, names.WRITES_SETTLED).items():
        found[dict(attributes)[names.WRITE_RESULT]] = value
    return {name: value for name, value in found.items() if value}


async def test_a_write_of_a_key_that_is_just_being_written_comes_after_it(journals: Journals) -> None:
    store = Table()
    store.open.clear()
    async with journals.behind(store, batch_size=1) as behind, journals.behind(store, batch_size=1):
        await behind.set("k", 1)
        await eventually(lambda: store.entered == 1)
        await behind.set("k", 2)
        await behind.set("k", 3)
        await asyncio.sleep(0.1)
        assert store.entered == 1
        store.open.set()
        await behind.flush()
        assert store.writes == [("k", 1), ("k", 3)]


async def test_a_delete_is_a_write_like_any_other(journals: Journals) -> None:
    store = Table()
    store.rows["k"] = 0
    async with journals.behind(store) as behind:
        assert await behind.get("k") == 0
        await behind.delete("k")
        assert await behind.get("k") is None
        assert store.rows == {"k": 0}
        await behind.flush()
        assert store.rows == {}
        await behind.set("k", 1)
        await behind.delete("k")
        await behind.set("k", 2)
        await behind.flush()
        assert store.writes == [("k", None), ("k", 2)]


@dataclass(frozen=True)
class User:
    """A class of the app."""

    name: str
    since: datetime


async def test_values_come_to_the_store_as_they_were(journals: Journals) -> None:
    values: dict[str, Any] = {
        "tuple": (1, (2,), "ü"),
        "none": None,
        "large": list(range(20_000)),
        "user": User("Ada", datetime(1843, 1, 1, tzinfo=UTC)),
        "set": {1, 2},
    }
    journals.options["types"] = [User]
    async with journals.behind(store := Batches()) as behind:
        for key, value in values.items():
            await behind.set(key, value)
        await behind.flush()
        assert store.rows == values
        assert {key: type(value) for key, value in store.rows.items()} == {k: type(v) for k, v in values.items()}


# --- reading what was written


async def test_a_write_is_read_though_the_cache_has_lost_it_and_the_store_has_it_not_yet(journals: Journals) -> None:
    store = Table()
    store.rows["k"] = "old"
    async with journals.behind(store) as behind, journals.behind(store) as other:
        assert await behind.get("k") == "old"
        await behind.set("k", "new")
        await behind.cache.clear()
        assert await behind.get("k") == "new"
        while await other.get("k") != "new":  # word takes a moment to the memory of another process
            await asyncio.sleep(0.01)
        await other.cache.clear()
        assert await other.get("k") == "new"
        assert store.rows == {"k": "old"}
        # And while it is under way.
        store.open.clear()
        flushing = asyncio.ensure_future(behind.flush())
        await eventually(lambda: store.entered > 1)
        await behind.cache.clear()
        assert await behind.get("k") == "new"
        store.open.set()
        await flushing
        await behind.cache.clear()
        assert await behind.get("k") == "new"


async def test_a_key_that_nobody_has_written_comes_from_the_store_once(journals: Journals) -> None:
    store = Table()
    store.rows["k"] = 7
    async with journals.behind(store) as behind:
        assert await asyncio.gather(*(behind.get("k") for _ in range(20))) == [7] * 20
        assert await behind.get("none") is None
        assert await behind.get("none") is None
        assert store.reads == ["k", "none"]
        store.down = True
        with pytest.raises(ConnectionError):
            await behind.get("other")


# --- attempts


def test_pauses_grow_and_never_exceed_five_minutes_by_more_than_a_half() -> None:
    assert [delay(attempts, 0.5) for attempts in (1, 2, 3, 100, 10_000)] == [1, 3, 9, 300, 300]
    assert (delay(1, 0), delay(1, 1)) == (0.5, 1.5)


async def test_what_fails_is_tried_again_until_it_is_written(journals: Journals) -> None:
    store = Table()
    store.down = True
    async with journals.behind(store, max_attempts=1000) as behind:
        await behind.set("k", 1)
        flushing = asyncio.ensure_future(behind.flush())
        await eventually(lambda: store.entered >= 3)
        assert not flushing.done()
        assert await behind.get("k") == 1
        store.down = False
        assert await flushing is True
        assert store.rows == {"k": 1}
        assert await behind.dead_letters() == []
        assert counts(behind)["retries"] == count(behind.cache, names.ERRORS, {names.LAYER: "store"}) >= 3


async def test_of_a_batch_that_fails_only_what_is_refused_stays(
    journals: Journals, caplog: pytest.LogCaptureFixture
) -> None:
    store = Batches()
    store.refuses = {"k1"}
    async with journals.behind(store, max_attempts=3) as behind:
        for number in range(4):
            await behind.set(f"k{number}", number)
        assert await behind.flush() is True
        assert store.rows == {"k0": 0, "k2": 2, "k3": 3}
        (letter,) = await behind.dead_letters()
        assert (letter.key, letter.value, letter.deletes, letter.readable) == ("k1", 1, False, True)
        assert (letter.attempts, letter.error) == (3, "ConnectionError")
        assert "secret" not in repr(letter)
        assert counts(behind) == {"accepted": 4, "written": 3, "dead": 1, "retries": 5}
        await eventually(lambda: count(behind.cache, names.DEAD_LETTERS) == 1)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("ERROR", "write-behind: 1 writes are dead letters now (ConnectionError)") in told
    assert [text for _, text in told if "fails (" in text] == [
        "the data store of a write-behind fails (ConnectionError): what it does not take is tried again"
    ]
    assert "k1" not in caplog.text
    assert "secret" not in caplog.text


async def test_after_a_write_was_given_up_the_cache_has_what_the_store_has(journals: Journals) -> None:
    store = Table()
    store.rows["k"] = "old"
    store.refuses = {"k"}
    async with journals.behind(store, max_attempts=1) as behind:
        await behind.set("k", "new")
        store.refuses = set()
        store.down = True
        await behind.flush()
        store.down = False
        while await behind.get("k") != "old":  # taken out of the cache right after the flush has seen it
            await asyncio.sleep(0.001)


async def test_dead_letters_are_replayed_all_or_some(journals: Journals) -> None:
    store = Table()
    store.down = True
    async with journals.behind(store, max_attempts=2, batch_size=200) as behind:
        for number in range(120):
            await behind.set(f"k{number}", number)
        await behind.delete("gone")
        await behind.flush()
        letters = await behind.dead_letters(limit=200)
        assert [letter.key for letter in letters] == [*(f"k{number}" for number in range(120)), "gone"]
        assert letters[-1].deletes
        assert letters[-1].value is None
        assert len(await behind.dead_letters()) == 100
        store.down = False
        assert await behind.replay_dead_letters(["k7", "unknown", "k7"]) == 1
        assert await behind.get("k7") == 7
        await behind.flush()
        assert store.rows == {"k7": 7}
        assert await behind.replay_dead_letters() == 120
        assert await behind.replay_dead_letters() == 0
        await behind.flush()
        assert store.rows == {f"k{number}": number for number in range(120)}
        assert await behind.dead_letters() == []
        found = counts(behind)
        assert (found["replayed"], found["dead"], found["written"]) == (121, 121, 121)
        with pytest.raises(TypeError, match=r"\[key\]"):
            await behind.replay_dead_letters("k7")


async def test_a_newer_write_takes_a_dead_letter_away_which_is_never_written_after_it(journals: Journals) -> None:
    store = Table()
    store.down = True
    async with journals.behind(store, max_attempts=1) as behind:
        await behind.set("k", "old")
        await behind.flush()
        assert len(await behind.dead_letters()) == 1
        store.down = False
        await behind.set("k", "new")
        assert await behind.dead_letters() == []
        assert await behind.replay_dead_letters() == 0
        await behind.flush()
        assert store.writes == [("k", "new")]


async def test_a_store_that_hangs_or_cancels_itself_has_failed(journals: Journals) -> None:
    class Hangs(Table):
        async def set(self, key: str, value: object) -> None:
            self.entered += 1
            if key == "hangs":
                await asyncio.Event().wait()
            raise asyncio.CancelledError

    store = Hangs()
    async with journals.behind(store, max_attempts=1, timeout=0.05) as behind:
        await behind.set("hangs", 1)
        await behind.set("cancels", 1)
        await behind.flush()
        letters = {letter.key: letter.error for letter in await behind.dead_letters()}
        assert letters == {"hangs": "TimeoutError", "cancels": "CancelledError"}


async def test_what_a_process_cannot_read_is_kept_for_one_that_can(journals: Journals) -> None:
    store = Table()
    journals.options["types"] = [User]
    user = User("Ada", datetime(1843, 1, 1, tzinfo=UTC))
    async with journals.behind(store) as behind:
        await behind.set("k", user)
    journals.options["types"] = []
    async with journals.behind(store) as behind:
        await behind.flush()
        assert store.entered == 0
        (letter,) = await behind.dead_letters()
        assert (letter.readable, letter.value, letter.error, letter.attempts) == (False, None, "FrameError", 1)
    journals.options["types"] = [User]
    async with journals.behind(store) as behind:
        assert await behind.replay_dead_letters() == 1
        await behind.flush()
        assert store.rows == {"k": user}


async def test_a_journal_is_compressed_and_encrypted_as_the_cache_is(journals: Journals, tmp_path: Path) -> None:
    store = Table()
    key, other = bytes(range(32)), bytes(range(128, 160))
    text = "a private matter " * 1000
    journals.options |= {"encryption_key": key, "compression": "gzip"}
    async with journals.behind(store) as behind:
        await behind.set("k", text)
        frame = await behind._journal.pending("k")
        assert frame is not None
        assert len(frame) < 1000
        assert b"private" not in frame
        await behind.cache.clear()
        assert await behind.get("k") == text
    journals.options["encryption_key"] = other
    async with journals.behind(store) as behind:
        await behind.flush()
        (letter,) = await behind.dead_letters()
        assert (letter.readable, letter.value) == (False, None)
    journals.options["encryption_key"] = [other, key]
    async with journals.behind(store) as behind:
        await behind.replay_dead_letters()
        await behind.flush()
        assert store.rows == {"k": text}


# --- the bound


async def test_when_it_is_full_a_write_waits_for_room(journals: Journals) -> None:
    store = Table()
    store.open.clear()
    async with journals.behind(store, max_pending=2) as behind:
        await behind.set("a", 1)
        await behind.set("b", 1)
        third = asyncio.ensure_future(behind.set("c", 1))
        await eventually(lambda: store.entered == 2)  # room is made at once
        await asyncio.sleep(0.05)
        assert not third.done()
        await behind.set("a", 2)  # needs none
        store.open.set()
        await third
        await behind.flush()
        assert store.rows == {"a": 2, "b": 1, "c": 1}


async def test_a_write_that_gets_no_room_in_time_is_refused_and_leaves_nothing(journals: Journals) -> None:
    store = Table()
    store.down = True
    async with journals.behind(store, max_pending=1, timeout=0.2, max_attempts=1000) as behind:
        await behind.set("a", 1)
        with pytest.raises(JournalFullError, match="1 keys wait"):
            await behind.set("b", 1)
        assert await behind.cache.get("b") is None
        assert (await waiting(behind)).waiting == 1
        assert counts(behind)["accepted"] == 1


# --- the end, and the next beginning


async def test_what_is_left_when_a_process_ends_the_next_one_writes(journals: Journals) -> None:
    store = Table()
    async with journals.behind(store) as behind:
        await behind.set("a", 1)
        await behind.set("b", 1)
        store.down = True
        assert await behind.aclose(0.05) is False
        assert await behind.aclose() is False  # it is not in the store by now
        for use in (behind.get("a"), behind.set("a", 1), behind.delete("a"), behind.flush(), behind.dead_letters()):
            with pytest.raises(CacheClosedError):
                await use
        assert await behind.cache.get("a") == 1
    store.down = False
    async with journals.behind(store, flush_interval=math.inf):
        await eventually(lambda: len(store.rows) == 2)


async def test_what_waits_for_a_batch_when_a_process_begins_waits_no_more(journals: Journals) -> None:
    async with journals.behind(Table()) as behind:
        await behind._draining.stop()
        await behind._journal.append("k", behind._envelopes.frame("k", 1, None), 10)
    async with journals.behind(store := Table(), flush_interval=math.inf):
        await eventually(lambda: store.rows == {"k": 1})


async def test_closing_writes_what_waits(journals: Journals) -> None:
    async with journals.behind(store := Table()) as behind:
        await behind.set("k", 1)
        assert await behind.aclose() is True
        assert store.rows == {"k": 1}
    async with CacheManager(configuration(**journals.options, timeout=5)) as cache:
        async with WriteBehind(cache, store) as behind:
            await behind.set("k", 2)
        assert store.rows == {"k": 2}


async def test_what_is_given_up_while_it_closes_is_in_no_cache(tmp_path: Path, redis_url: str) -> None:
    store = Table()
    store.down = True
    with Proxy(redis_url) as proxy:
        async with CacheManager(configuration(redis_url=proxy.url, timeout=5)) as cache:
            behind = WriteBehind(cache, store, max_attempts=1, journal=tmp_path)
            await behind.set("k", 1)
            with proxy.during(Latency(0.5)):  # longer than a flush waits until it looks again
                assert await behind.aclose() is True
            assert await cache.get("k") is None


async def test_what_a_flush_has_seen_given_up_is_in_no_cache(tmp_path: Path, redis_url: str) -> None:
    store = Table()
    store.down = True
    with Proxy(redis_url) as proxy:
        slow, fast = (CacheManager(configuration(redis_url=url, timeout=5)) for url in (proxy.url, redis_url))
        async with slow, fast, WriteBehind(slow, store, max_attempts=1, journal=tmp_path) as behind:
            await behind.set("k", 1)
            with proxy.during(Latency(0.5)):  # longer than a flush waits until it looks again
                assert await behind.flush() is True
                assert await fast.get("k") is None


async def test_a_store_that_hangs_keeps_nobody_from_closing(journals: Journals) -> None:
    store = Table()
    async with journals.behind(store, batch_size=1) as behind:
        store.open.clear()
        await behind.set("k", 1)
        await eventually(lambda: store.entered == 1)
        assert await behind.aclose(0.05) is False
        assert draining_tasks() == 0
    store.open.set()
    async with journals.behind(store) as behind:  # claimed when nothing is heard of the other one
        assert await behind.get("k") == 1
        await eventually(lambda: store.rows == {"k": 1})


async def test_who_waits_when_it_is_closed_hears_of_it_and_nothing_goes_on(journals: Journals) -> None:
    store = Table()
    store.down = True
    async with journals.behind(store, max_pending=1, max_attempts=1000) as behind:
        await behind.set("a", 1)
        waiting_for_room = asyncio.ensure_future(behind.set("b", 1))
        flushing = asyncio.ensure_future(behind.flush())
        await eventually(lambda: store.entered)
        await behind.aclose(0)
        for use in (waiting_for_room, flushing):
            with pytest.raises(CacheClosedError):
                await use
        assert draining_tasks() == 0
        assert await behind.cache.get("b") is None


async def test_a_store_that_does_not_notice_its_end_leaves_no_connection_to_the_journal(redis_url: str) -> None:
    class Stubborn(Table):
        async def set(self, key: str, value: Any) -> None:
            self.entered += 1
            while not self.open.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.open.wait()

    store = Stubborn()
    store.open.clear()
    async with Journals("redis", {"redis_url": redis_url}).behind(store, batch_size=1) as behind:
        await behind.set("k", 1)
        await eventually(lambda: store.entered)
        assert await behind.aclose(0) is False
        assert draining_tasks() == 0
        assert isinstance(behind._journal, StreamJournal)
        assert len(behind._journal._backend._links) == 0
        store.open.set()


async def test_a_flush_gives_up_when_its_time_is_over(journals: Journals) -> None:
    store = Table()
    store.open.clear()
    async with journals.behind(store) as behind:
        await behind.set("k", 1)
        assert await behind.flush(timeout=0.05) is False
        store.open.set()
        assert await behind.flush(timeout=20) is True
        assert await behind.flush() is True


async def test_a_flush_waits_for_what_another_process_has_under_way(journals: Journals) -> None:
    slow, fast = Table(), Table()
    slow.open.clear()
    async with journals.behind(slow, batch_size=1) as one, journals.behind(fast) as other:
        await other._draining.stop()
        await one.set("k", 1)
        await eventually(lambda: slow.entered == 1)
        flushing = asyncio.ensure_future(other.flush())
        await asyncio.sleep(0.1)
        assert not flushing.done()
        slow.open.set()
        assert await flushing is True
        assert slow.rows == {"k": 1}
        assert fast.rows == {}


# --- what may fail


async def test_what_cannot_be_stored_is_refused_before_anything_is_written(journals: Journals) -> None:
    async with journals.behind(Table()) as behind:
        with pytest.raises(UnstorableValueError):
            await behind.set("k", object())
        with pytest.raises(ValueError, match="ttl"):
            await behind.set("k", 1, ttl=-1)
        with pytest.raises(TypeError, match="key must be a str"):
            await behind.set(b"k", 1)  # type: ignore[arg-type]
        assert (await waiting(behind)).waiting == 0


async def test_a_journal_that_fails_acknowledges_nothing(
    own_redis: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    store = Table()
    store.rows["k"] = "old"
    cache = CacheManager(configuration(redis_url=own_redis.url, timeout=0.2))
    behind = WriteBehind(cache, store)
    await behind.set("k", "new")
    own_redis.stop()
    with pytest.raises(LayerError, match="journal") as raised:
        await behind.set("k", "newer")
    assert not isinstance(raised.value, LayerTimeout)
    with pytest.raises(LayerError):
        await behind.flush()
    with pytest.raises(LayerError):
        await behind.dead_letters()
    # Nobody can say whether something waits; what the store has is given and not kept.
    assert await behind.get("k") == "old"
    assert await behind.get("k") == "old"
    assert store.reads == ["k", "k"]
    assert count(cache, names.ERRORS, {names.LAYER: "journal", names.OPERATION: "append"}) == 1
    assert caplog.text.count("the journal of a write-behind fails (ConnectionError)") == 1
    assert await behind.aclose(0.1) is False
    await cache.aclose()


async def test_a_journal_that_hangs_is_not_waited_for_for_ever(
    own_redis: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_asking, "PATIENCE", 0.2)
    cache = CacheManager(configuration(redis_url=own_redis.url, timeout=0.2))
    behind = WriteBehind(cache, store := Table(), flush_interval=0.05)
    await behind.set("a", 1)
    await eventually(lambda: store.rows)
    own_redis.pause()
    with pytest.raises(LayerTimeout, match="journal"):
        await behind.set("b", 2)
    own_redis.resume()
    await behind.set("c", 3)
    await eventually(lambda: "c" in store.rows)
    assert await behind.aclose() is True
    await cache.aclose()


async def test_a_write_that_is_cancelled_leaves_the_cache_without_an_older_value(journals: Journals) -> None:
    store = Table()
    async with journals.behind(store) as behind:
        await behind.set("k", 1)
        for pause in (0.0, 0.0005, 0.001, 0.002, 0.004):
            writing = asyncio.ensure_future(behind.set("k", pause))
            await asyncio.sleep(pause)
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing
            reading = asyncio.ensure_future(behind.get("k"))
            await asyncio.sleep(0.01)
            await reading
        # What was cancelled may be in the journal, and may come into it a moment later.
        await eventually(lambda: not behind.cache._engine.flights._last)
        await behind.flush()
        assert await behind.get("k") == store.rows["k"]


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "batch_size"),
    ({"max_attempts": 0}, "max_attempts"),
    ({"max_pending": 0}, "max_pending"),
    ({"flush_interval": -1}, "flush_interval"),
    ({"flush_interval": "1"}, "flush_interval"),
    ({"timeout": 0}, "timeout"),
    ({"name": ""}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"name": 7}, "name"),
    ({"journal": 7}, "journal"),
    ({"journal": ""}, "journal"),
    ({"journal": "http://localhost"}, "redis"),
]


@pytest.mark.parametrize(("options", "named"), OPTIONS, ids=[str(options) for options, _ in OPTIONS])
async def test_a_wrong_option_is_named(options: dict[str, Any], named: str) -> None:
    async with opened() as cache:
        with pytest.raises(ConfigurationError, match=named):
            WriteBehind(cache, Table(), **options)


async def test_a_store_without_delete_cannot_delete(tmp_path: Path) -> None:
    class Keeps:
        async def get(self, key: str) -> None: ...

        async def set(self, key: str, value: object) -> None: ...

    async with opened() as cache, WriteBehind(cache, Keeps(), journal=tmp_path) as behind:
        with pytest.raises(ConfigurationError, match="Keeps has no delete"):
            await behind.delete("k")
        with pytest.raises(ConfigurationError, match=r"get\(key\) and set\(key, value\)"):
            WriteBehind(cache, None)  # type: ignore[type-var]


# --- where the journal is


def test_the_journal_is_in_redis_else_in_the_folder_of_the_cache_else_in_cache(tmp_path: Path) -> None:
    redis_url = "redis://127.0.0.1:1/0"

    def journal(config: CacheConfig, **options: Any) -> Any:
        return WriteBehind(UnifiedCacheManager(config), Table(), **options)._journal

    assert isinstance(journal(CacheConfig(redis_url=redis_url, cache_dir=tmp_path)), StreamJournal)
    found = journal(CacheConfig(cache_dir=tmp_path), name="a/../b")
    assert isinstance(found, EmbeddedJournal)
    assert found._path.parent == tmp_path
    assert journal(CacheConfig())._path.parent == Path("cache").absolute()
    assert journal(CacheConfig(redis_url=redis_url), journal=tmp_path / "x")._path.parent == tmp_path / "x"
    other = journal(CacheConfig(redis_password="secret"), journal="redis://127.0.0.1:2/1")
    assert isinstance(other, StreamJournal)
    assert other._backend._config.redis_password is None
    assert list(tmp_path.iterdir()) == []


async def test_journals_of_another_name_are_others(journals: Journals) -> None:
    one, two = Table(), Table()
    async with journals.behind(one, name="one") as first, journals.behind(two, name="two") as second:
        await first.set("k", 1)
        await second.flush()
        assert two.rows == {}
        await first.flush()
        assert one.rows == {"k": 1}


async def test_a_manager_that_keeps_objects_by_reference_still_journals_values(tmp_path: Path) -> None:
    store = Table()
    async with opened(configuration(copy=False)) as cache, WriteBehind(cache, store, journal=tmp_path) as behind:
        value = [1]
        await behind.set("k", value)
        assert await behind.get("k") is value
        value.append(2)
        await behind.flush()
        assert store.rows == {"k": [1]}
        with pytest.raises(UnstorableValueError):
            await behind.set("k", object())


# --- several loops, threads and processes


def test_it_works_on_in_the_next_event_loop(journals: Journals) -> None:
    class Rows:
        def __init__(self) -> None:
            self.rows: dict[str, Any] = {}

        async def get(self, key: str) -> Any:
            return self.rows.get(key)

        async def set(self, key: str, value: Any) -> None:
            self.rows[key] = value

    store = Rows()
    cache = CacheManager(configuration(timeout=5, **journals.options))
    behind = WriteBehind(cache, store, flush_interval=3600)  # no loop runs

    async def write(number: int) -> None:
        await behind.set(f"k{number}", number)
        if number % 2:
            await behind.flush()

    for number in range(4):
        asyncio.run(write(number))
    assert len(store.rows) == 4

    async def close() -> None:
        await behind.aclose()
        await cache.aclose()

    asyncio.run(close())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_under_a_batch_leaves_it_to_the_next(journals: Journals) -> None:
    class Hangs:
        def __init__(self) -> None:
            self.entered = 0
            self.rows: dict[str, Any] = {}

        async def get(self, key: str) -> Any:
            return self.rows.get(key)

        async def set(self, key: str, value: Any) -> None:
            self.entered += 1
            if self.entered == 1:
                await asyncio.Event().wait()
            self.rows[key] = value

    store = Hangs()
    cache = CacheManager(configuration(timeout=5, **journals.options))
    behind = WriteBehind(cache, store, batch_size=1)

    async def begin() -> None:
        await behind.set("k", 1)
        await eventually(lambda: store.entered)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_asyncgens())  # connections end with their loop
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what this test is about
    loop.close()
    del loop
    gc.collect()

    async def go_on() -> None:
        await behind.set("k", 2)
        await behind.flush()
        assert store.rows == {"k": 2}
        await behind.aclose()
        await cache.aclose()

    asyncio.run(go_on())


def test_who_waits_for_a_flush_goes_on_with_it_when_the_loop_that_did_ends(journals: Journals) -> None:
    class Hangs:
        """Its first call never ends."""

        def __init__(self) -> None:
            self.entered = 0
            self.rows: dict[str, Any] = {}

        async def get(self, key: str) -> Any:
            return self.rows.get(key)

        async def set(self, key: str, value: Any) -> None:
            self.entered += 1
            if self.entered == 1:
                await asyncio.Event().wait()
            self.rows[key] = value

    store = Hangs()
    cache = CacheManager(configuration(timeout=5, **journals.options))
    behind = WriteBehind(cache, store, batch_size=1)
    ending = threading.Event()

    async def first() -> None:
        await behind.set("k", 1)
        await eventually(ending.is_set)

    thread = threading.Thread(target=asyncio.run, args=(first(),))
    thread.start()

    async def second() -> None:
        await eventually(lambda: store.entered)
        flushing = asyncio.ensure_future(behind.flush(20))
        await asyncio.sleep(0.05)
        assert not flushing.done()
        ending.set()
        assert await flushing is True
        assert store.rows == {"k": 1}
        await behind.aclose()
        await cache.aclose()

    asyncio.run(second())
    thread.join()


async def test_a_session_that_is_not_heard_of_in_time_stops_writing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_stream, "LEASE", 0.3)
    journals = Journals("redis", {"redis_url": redis_url})
    slow, fast = Table(), Table()
    slow.open.clear()
    async with journals.behind(slow, batch_size=1) as one:
        await one.set("k", 1)
        await eventually(lambda: slow.entered == 1)

        async def silent(tickets: object) -> bool:
            raise ConnectionError

        assert one._draining._session is not None
        monkeypatch.setattr(one._draining._session, "renew", silent)
        async with journals.behind(fast) as other:
            await eventually(lambda: fast.rows == {"k": 1})
            await eventually(lambda: "a batch was lost" in caplog.text)
            renewing = {names.LAYER: "journal", names.OPERATION: "renew"}
            assert count(one.cache, names.ERRORS, renewing | {names.ERROR_TYPE: "lost"}) >= 1
            slow.open.set()
            assert await other.flush() is True
        assert slow.rows == {}


async def test_a_session_that_does_not_reach_redis_has_stopped_before_others_begin(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stream, "LEASE", 1.0)

    class Leaving(Table):
        """Notes who else is still there when somebody enters."""

        async def set(self, key: str, value: Any) -> None:
            inside.append(self)
            self.entered += 1
            overlaps.append(len(inside) - 1)
            try:
                await self.open.wait()
            finally:
                inside.remove(self)

    inside: list[Leaving] = []
    overlaps: list[int] = []
    cut_off, other = Leaving(), Leaving()
    cut_off.open.clear()
    with Proxy(redis_url) as proxy:
        async with Journals("redis", {"redis_url": proxy.url}).behind(cut_off, batch_size=1) as behind:
            await behind.set("k", 1)
            await eventually(lambda: cut_off.entered)
            with proxy.during(Hang()):
                async with Journals("redis", {"redis_url": redis_url}).behind(other, batch_size=1):
                    await eventually(lambda: other.entered)
            proxy.reset()
    assert overlaps == [0] * len(overlaps)


def test_several_loops_write_at_once(journals: Journals) -> None:
    class Rows:
        def __init__(self) -> None:
            self.writes: list[tuple[str, int]] = []
            self.now: set[str] = set()
            self.overlaps: list[str] = []

        async def get(self, key: str) -> Any:
            return None

        async def set(self, key: str, value: int) -> None:
            if key in self.now:
                self.overlaps.append(key)
            self.now.add(key)
            try:
                await asyncio.sleep(0.0005)  # here it is cancelled when its loop ends
                self.writes.append((key, value))
            finally:
                self.now.discard(key)

    store = Rows()
    cache = CacheManager(configuration(timeout=5, **journals.options))
    behind = WriteBehind(cache, store, batch_size=3, flush_interval=0.01)

    async def write(owner: int) -> None:
        for number in range(60):
            await behind.set(f"k{owner}-{number % 2}", number)
        await behind.flush()

    threads = [threading.Thread(target=lambda owner=owner: asyncio.run(write(owner))) for owner in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def close() -> None:
        assert await behind.aclose() is True
        await cache.aclose()

    asyncio.run(close())
    assert store.overlaps == []
    for owner in range(3):
        for part in range(2):
            written = [value for key, value in store.writes if key == f"k{owner}-{part}"]
            assert written == sorted(written)
            assert written[-1] == 58 + part


async def test_two_processes_share_the_work_and_never_a_key(journals: Journals) -> None:
    busy: set[str] = set()
    written: list[tuple[str, int]] = []
    overlaps: list[str] = []

    class Shared(Table):
        async def set(self, key: str, value: int) -> None:
            if key in busy:
                overlaps.append(key)
            busy.add(key)
            try:
                await asyncio.sleep(0.001)
                written.append((key, value))
            finally:
                busy.discard(key)

    stores = Shared(), Shared()
    async with (
        journals.behind(stores[0], batch_size=2, flush_interval=0.01) as one,
        journals.behind(stores[1], batch_size=2, flush_interval=0.01) as two,
    ):
        for number in range(60):
            await (one, two)[number % 2].set(f"k{number % 5}", number)
        assert await one.flush() is True
    assert overlaps == []
    for part in range(5):
        values = [value for key, value in written if key == f"k{part}"]
        assert values == sorted(values)
        assert values[-1] == 55 + part


FORK = """
    import asyncio, os, sys
    from pathlib import Path
    from aurelis.cache import CacheConfig, CacheManager, WriteBehind

    folder, url = Path(sys.argv[1]), sys.argv[2]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Store:
        async def get(self, key):
            return None

        async def set(self, key, value):
            os.write(log, f"{key} {value}\\n".encode())

    config = CacheConfig(redis_url=url, timeout=5) if url else CacheConfig(cache_dir=folder, timeout=5)
    cache = CacheManager(config)
    behind = WriteBehind(cache, Store(), flush_interval=3600, batch_size=100)

    async def use(key):
        for number in range(5):
            assert await behind.set(key, number)
        assert await behind.get(key) == 4
        assert await behind.flush(30)

    asyncio.run(use("parent"))

    async def in_a_loop():
        await behind.set("before", 1)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert await behind.flush(30)

    asyncio.run(in_a_loop())
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(use(f"child{number}"))
                os._exit(0)
            except BaseException as error:
                print("child:", repr(error), flush=True)
                os._exit(1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 3
    asyncio.run(use("after"))
    lines = (folder / "log").read_text().splitlines()
    assert {"parent 4", "before 1", "after 4", *(f"child{n} 4" for n in range(3))} <= set(lines), lines
"""


def test_a_forked_child_and_its_parent_both_go_on(journals: Journals, tmp_path: Path) -> None:
    url = str(journals.options.get("redis_url", ""))
    run_script(FORK, str(tmp_path), url, within=60, PYTHONWARNINGS="error,ignore::DeprecationWarning")


ALONE = """
    import asyncio, gc, sys, threading, weakref
    from aurelis.cache import CacheConfig, CacheManager, WriteBehind

    class Store:
        async def get(self, key):
            return None

        async def set(self, key, value):
            pass

    async def main():
        behind = WriteBehind(CacheManager(CacheConfig(cache_dir=sys.argv[1], timeout=5)), Store())
        await behind.set("k", 1)
        return weakref.ref(behind)

    reference = asyncio.run(main())
    gc.collect()
    assert reference() is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aurelis-writes")]
"""


def test_one_that_is_forgotten_keeps_nothing_alive(tmp_path: Path) -> None:
    run_script(ALONE, str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("writers", [1, 3])
def test_killed_at_any_moment_nothing_is_lost_and_nothing_out_of_order(tmp_path: Path, writers: int) -> None:
    done = kill_writers(tmp_path, "", times=10, writers=writers)
    assert done["killed"] == 10


def test_killed_at_any_moment_nothing_is_lost_in_redis_either(tmp_path: Path, redis_url: str) -> None:
    done = kill_writers(tmp_path, redis_url, times=10, writers=3)
    assert done["killed"] == 10
