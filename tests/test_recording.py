"""A body while it arrives: whoever reads it, and whenever, gets the same chunks; what is not kept stays bounded."""

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._recording import WINDOW, Reader, ReaderClosed, Recording
from tests.loops import LoopThread, loop_threads
from tests.managers import WITHIN, eventually, eventually_blocking


def recording(limit: int = 1_000_000) -> Recording:
    """Returns a recording whose source lives."""
    return Recording(limit, alive=lambda: True)


def reader(body: Recording) -> Reader:
    """Returns a reader from the start, which must still be there."""
    found = body.reader()
    assert found is not None
    return found


async def read(source: Reader) -> list[bytes]:
    """Returns all chunks up to the end."""
    chunks = []
    while (chunk := await source.next()) is not None:
        chunks.append(chunk)
    return chunks


def read_blocking(source: Reader) -> list[bytes]:
    """The same in a thread."""
    chunks = []
    while (chunk := source.next_blocking()) is not None:
        chunks.append(chunk)
    return chunks


def held(body: Recording) -> int:
    """Returns the bytes in memory."""
    return sum(map(len, body.chunks()))


async def test_readers_get_the_chunks_as_they_came_whenever_they_begin() -> None:
    body = recording()
    early = asyncio.create_task(read(reader(body)))
    body.append(b"one")
    await asyncio.sleep(0)
    middle = asyncio.create_task(read(reader(body)))
    body.append(b"two")
    body.finish()
    assert [await early, await middle, await read(reader(body))] == [[b"one", b"two"]] * 3
    assert body.chunks() == (b"one", b"two")
    assert body.size == 6


async def test_an_empty_body_ends_at_once() -> None:
    body = recording()
    body.finish()
    assert await read(reader(body)) == []


async def test_empty_chunks_are_left_out() -> None:
    body = recording()
    for chunk in (b"", b"a", b"", b"b", b""):
        body.append(chunk)
    body.finish()
    assert await read(reader(body)) == [b"a", b"b"]


async def test_a_body_that_breaks_off_gives_what_has_come_and_then_its_error_to_everybody() -> None:
    body, error = recording(), ConnectionResetError("reset")
    sources = [reader(body), reader(body)]
    body.append(b"half")
    waiting = [asyncio.create_task(read(source)) for source in sources]
    await asyncio.sleep(0)
    body.fail(error)
    late = reader(body)
    assert await late.next() == b"half"
    for attempt in (*waiting, late.next()):
        with pytest.raises(ConnectionResetError) as caught:
            await attempt
        assert caught.value is error


async def test_a_failure_after_the_end_is_no_failure() -> None:
    body = recording()
    body.append(b"whole")
    body.finish()
    body.fail(ConnectionResetError())
    assert await read(reader(body)) == [b"whole"]


async def test_a_closed_reader_stops_waiting() -> None:
    body = recording()
    source, other = reader(body), reader(body)
    waiting = asyncio.create_task(source.next())
    await asyncio.sleep(0)
    source.close()
    source.close()
    with pytest.raises(ReaderClosed):
        await waiting
    with pytest.raises(ReaderClosed):
        await source.next()
    body.append(b"more")
    body.finish()
    assert await read(other) == [b"more"]


async def test_closing_one_reader_at_the_end_does_not_make_another_wait() -> None:
    body = recording()
    body.finish()
    first, second = reader(body), reader(body)
    first.close()
    assert await asyncio.wait_for(read(second), WITHIN) == []


async def test_a_reader_knows_when_no_chunk_is_left() -> None:
    body = recording()
    source = reader(body)
    body.append(b"one")
    assert not source.at_end()
    await source.next()
    assert not source.at_end()
    body.append(b"two", last=True)
    assert not source.at_end()
    await source.next()
    assert source.at_end()
    assert not body._complete


async def test_a_reader_is_not_at_the_end_where_the_body_broke_off() -> None:
    body = recording()
    source = reader(body)
    body.fail(ConnectionResetError())
    assert not source.at_end()


# --- what is not kept


async def test_beyond_its_limit_a_body_is_not_kept_and_nobody_can_begin_to_read_it() -> None:
    body = recording(limit=4)
    early = reader(body)
    kept = []
    for chunk in (b"1234", b"5"):
        body.append(chunk)
        kept.append(body.kept)
    assert kept == [True, False]
    assert await early.next() == b"1234"
    assert body.reader() is None
    body.finish()
    assert await read(early) == [b"5"]


async def test_a_body_that_only_passes_through_is_dropped_as_it_is_read() -> None:
    body = recording(limit=0)
    source = reader(body)
    for _ in range(10):
        body.append(b"x" * 100)
        assert await source.next() == b"x" * 100
        assert held(body) == 0
    assert body.size == 1000


async def test_without_readers_nothing_is_held_and_nothing_waits() -> None:
    body = recording(limit=0)
    body.append(b"x" * (2 * WINDOW))
    await asyncio.wait_for(body.room(), WITHIN)
    assert held(body) == 0


async def test_the_source_waits_for_the_slowest_reader_so_memory_stays_bounded() -> None:
    body = recording(limit=0)
    fast, slow = reader(body), reader(body)
    produced = 0

    async def produce() -> None:
        nonlocal produced
        for _ in range(20):
            body.append(b"x" * (WINDOW // 2))
            produced += 1
            await body.room()
        body.finish()

    source = asyncio.create_task(produce())
    fast_chunks = asyncio.create_task(read(fast))
    await eventually(lambda: produced == 3)
    for _ in range(100):
        await asyncio.sleep(0)
    assert produced == 3
    assert held(body) <= 2 * WINDOW
    slow_chunks = await read(slow)
    assert len(slow_chunks) == len(await fast_chunks) == 20
    await source


async def test_the_slowest_reader_lets_the_source_go_on_when_it_leaves() -> None:
    body = recording(limit=0)
    slow = reader(body)
    body.append(b"x" * (2 * WINDOW))
    room = asyncio.create_task(body.room())
    await asyncio.sleep(0)
    assert not room.done()
    slow.close()
    await asyncio.wait_for(room, WITHIN)
    assert held(body) == 0


async def test_a_body_that_is_kept_never_makes_its_source_wait() -> None:
    body = recording(limit=10 * WINDOW)
    reader(body)
    body.append(b"x" * (9 * WINDOW))
    await asyncio.wait_for(body.room(), WITHIN)


# --- several loops and threads


def test_readers_of_other_loops_and_threads_get_the_same() -> None:
    body = recording()
    results: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: results.append(read_blocking(reader(body)))) for _ in range(2)]
    with loop_threads(2) as loops:
        futures = [loop.submit(read(reader(body))) for loop in loops]
        for thread in threads:
            thread.start()
        expected = [str(number).encode() for number in range(500)]
        for chunk in expected:
            body.append(chunk)
        body.finish()
        results += [future.result(WITHIN) for future in futures]
        for thread in threads:
            thread.join(WITHIN)
    assert results == [expected] * 4


def test_a_thread_that_produces_waits_for_a_loop_that_reads() -> None:
    body = recording(limit=0)
    source = reader(body)

    def produce() -> None:
        for _ in range(20):
            body.append(b"x" * WINDOW)
            body.room_blocking()
        body.finish()

    producer = threading.Thread(target=produce)
    producer.start()
    with loop_threads(1) as (loop,):
        assert len(loop.run(read(source))) == 20
    producer.join(WITHIN)
    assert not producer.is_alive()


def test_readers_are_told_when_the_source_is_gone() -> None:
    leader = LoopThread()
    body = Recording(100, alive=leader.loop.is_running)
    body.append(b"begun")
    sources = [reader(body), reader(body)]
    with loop_threads(1) as (loop,):
        waiting = loop.submit(read(sources[0]))
        eventually_blocking(lambda: sources[0].position == 1)
        leader.end()
        with pytest.raises(ConnectionError):
            waiting.result(WITHIN)
    assert sources[1].next_blocking() == b"begun"
    with pytest.raises(ConnectionError):
        sources[1].next_blocking()


# --- any schedule


@given(
    st.lists(st.binary(max_size=3 * WINDOW // 2).map(lambda data: data * 3), max_size=8),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=4),
    st.sampled_from([0, 1, 100, 10**9]),
)
def test_whatever_the_pace_every_reader_gets_the_body(
    chunks: list[bytes], paces: list[tuple[int, int]], limit: int
) -> None:
    """`paces`: how many chunks have come when a reader begins, and how long it dawdles before each."""
    asyncio.run(asyncio.wait_for(play(chunks, paces, limit), WITHIN))


async def play(chunks: list[bytes], paces: list[tuple[int, int]], limit: int) -> None:
    """Plays one schedule."""
    body = recording(limit)
    expected = [chunk for chunk in chunks if chunk]
    tasks: list[asyncio.Task[Any]] = []

    async def dawdle(source: Reader, steps: int) -> list[bytes]:
        result: list[bytes] = []
        while True:
            for _ in range(steps):
                await asyncio.sleep(0)
            chunk = await source.next()
            if chunk is None:
                return result
            result.append(chunk)

    def begin(arrived: int) -> None:
        for when, steps in paces:
            if when == arrived:
                source = body.reader()
                assert source is not None or not body.kept
                if source is not None:
                    tasks.append(asyncio.create_task(dawdle(source, steps)))

    for number, chunk in enumerate(chunks):
        begin(number)
        body.append(chunk)
        await body.room()
    body.finish()
    for result in await asyncio.gather(*tasks):
        assert result == expected
    assert body.size == sum(map(len, chunks))
    assert body.kept == (limit > 0 and body.size <= limit)
    if body.kept:
        assert list(body.chunks()) == expected
