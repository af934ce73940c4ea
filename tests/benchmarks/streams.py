"""What does a stream of a model cost when it is recorded, when it is replayed, and when it is too large to be kept?

Replaying: the time until the first chunk of a stream that memory has is compared with a whole answer that memory has.

Recording: a server in a process of its own sends 500 events with 5 ms between them over the loopback, and the same
client reads them with the cache and without it. What is added in time is little whatever is done, since most of it is
waiting; so the processor's time for each chunk is a target of its own.

Memory: the peak of what is allocated while one stream of 50 MB passes that is larger than what is kept, and while 200
streams of 500 chunks, 75 kB each, are recorded and read at once. Looking at each allocation makes everything slower, so
nothing is timed there.

The numbers mislead where chunks are large: then copying them is what there is, with a cache and without.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter, process_time
from typing import Any, TypeVar

from rich.table import Table

from aurelis.cache import CacheManager
from tests.benchmarks.harness import Bench, Subject, Target, always, module
from tests.benchmarks.transport_hit import CHAT, CHAT_URL, LIBRARIES, ours, posting

T = TypeVar("T")

EVENTS = 500
PAUSE = 0.005
LARGE = 50 * 2**20
_PIECE = 64 * 1024
STREAMS = 200
_ROUNDS = 7
_BOUND = 40.0
"""Megabytes for all streams at once: 200 kB for each."""
_KEPT = 8.4
"""Megabytes while a large one passes: twice what is kept of a body at most."""
_HEADERS = [(b"content-type", b"text/event-stream")]
_DELTA = {"index": 0, "delta": {"content": "word " * 8}, "finish_reason": None}
_EVENT = b"data: " + json.dumps({"id": "c", "model": "m", "choices": [_DELTA]}).encode() + b"\n\n"
_LAST = {"index": 0, "delta": {}, "finish_reason": "stop"}
_END = b"data: " + json.dumps({"id": "c", "model": "m", "choices": [_LAST]}).encode() + b"\n\ndata: [DONE]\n\n"

_SERVER = f"""
import asyncio

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\\r\\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n")
            writer.write(b"transfer-encoding: chunked\\r\\n\\r\\n")
            for event in [{_EVENT!r}] * {EVENTS - 1} + [{_END!r}]:
                writer.write(b"%x\\r\\n%b\\r\\n" % (len(event), event))
                await asyncio.sleep({PAUSE})
            writer.write(b"0\\r\\n\\r\\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def run(bench: Bench) -> None:
    """Print the tables."""
    for library in LIBRARIES:
        for name, asynchronous in (("AsyncClient", True), ("Client", False)):
            replaying(bench, library, name, asynchronous)
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1/chat/completions"
        recording(bench, url)
    finally:
        server.terminate()
        server.wait()
    memory(bench)


# Replaying


def replaying(bench: Bench, library: str, name: str, asynchronous: bool) -> None:
    """Print the table of one kind of client."""
    bench.compare(
        f"{library}.{name}, a stream of {EVENTS} chunks that memory has, until its first one is there",
        [
            posting(bench, "whole answer", ours(library, asynchronous), asynchronous, calls=1),
            first_chunk(bench, library, asynchronous),
        ],
        {"first chunk of a stream": [Target(1.5)]},
        rounds=60,
        count=100,
    )


def first_chunk(bench: Bench, library: str, asynchronous: bool) -> Subject:
    """A stream out of memory, of which one chunk is read."""
    httpx, call = module(library), {**CHAT, "stream": True}
    inner = Streams(library, [*[_EVENT] * (EVENTS - 1), _END])
    opened = client(library, inner, asynchronous)

    async def first(body: object) -> object:
        async with opened.stream("POST", CHAT_URL, json=body) as response:
            assert await anext(response.aiter_bytes()) == _EVENT
            return response

    def first_blocking(body: object) -> object:
        with opened.stream("POST", CHAT_URL, json=body) as response:
            assert next(response.iter_bytes()) == _EVENT
            return response

    for _ in range(2):
        if asynchronous:
            assert bench.wait(read(opened, CHAT_URL, call)) == EVENTS
        else:
            with opened.stream("POST", CHAT_URL, json=call) as response:
                assert len(list(response.iter_bytes())) == EVENTS
    assert inner.calls == 1, f"{httpx.__name__}: {inner.calls} calls of the origin, not 1"
    call_it = first if asynchronous else first_blocking
    return Subject("first chunk of a stream", call_it, always(call), blocking=not asynchronous)


class Streams:
    """Answers each call with the same stream, for one library; counts its answers.

    Args:
        copies: each chunk is an object of its own, as from a connection.
    """

    def __init__(self, library: str, chunks: Iterable[bytes], *, copies: bool = False) -> None:
        httpx = module(library)
        self.calls = 0

        class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either
            def __iter__(self) -> Iterator[bytes]:
                for chunk in chunks:
                    yield bytes(bytearray(chunk)) if copies else chunk

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in self:
                    await asyncio.sleep(0)
                    yield chunk

        def answer(request: Any) -> Any:
            self.calls += 1
            return httpx.Response(200, headers=_HEADERS, stream=Chunks())

        self.transport: Any = httpx.MockTransport(answer)


def client(library: str, inner: Streams | None, asynchronous: bool, *, cached: bool = True) -> Any:
    """A client over a new cache, or over none; without `inner` it goes to the network."""
    httpx = module(library)
    transport: Any
    if inner is None:
        transport = httpx.AsyncHTTPTransport(verify=False) if asynchronous else httpx.HTTPTransport(verify=False)
    else:
        transport = inner.transport
    if cached:
        binding = module(LIBRARIES[library])
        make = binding.AsyncCacheTransport if asynchronous else binding.CacheTransport
        transport = make(transport, cache=CacheManager())
    return httpx.AsyncClient(transport=transport) if asynchronous else httpx.Client(transport=transport)


async def read(opened: Any, url: str, body: object) -> int:
    """The number of chunks of a stream."""
    number = 0
    async with opened.stream("POST", url, json=body) as response:
        async for _ in response.aiter_bytes():
            number += 1
    return number


# Recording


def recording(bench: Bench, url: str) -> None:
    """Print the table of streams that are recorded while they come.

    Each stream with the cache has one without it right before or after, and what it has taken more is compared with the
    target: what else the machine does changes both alike, and by more than what is measured. The median of all pairs
    counts.
    """
    title = f"{EVENTS} chunks with {PAUSE * 1e3:g} ms between them, over the loopback · telemetry {bench.telemetry}"
    table = Table(title=title, title_justify="left")
    table.add_column("subject")
    for column in ("s without", "CPU µs a chunk without", "× wall", "added CPU µs a chunk", "from", "to", "target"):
        table.add_column(column, justify="right")
    table.add_column("")
    for library in LIBRARIES:
        for name, asynchronous in (("AsyncCacheTransport", True), ("CacheTransport", False)):
            pairs = paired(bench, library, url, asynchronous)
            wall = statistics.median(own.wall / bare.wall for bare, own in pairs)
            added = sorted((own.cpu - bare.cpu) / EVENTS * 1e6 for bare, own in pairs)
            targets = [Target(1.05), Target(40, "CPU µs a chunk")]
            values = {"wall": wall, "CPU µs a chunk": statistics.median(added)}
            table.add_row(
                f"{library}, {name}",
                f"{statistics.median(bare.wall for bare, _ in pairs):.2f}",
                f"{statistics.median(bare.cpu for bare, _ in pairs) / EVENTS * 1e6:.0f}",
                f"{wall:.3f}",
                f"{values['CPU µs a chunk']:.1f}",
                f"{added[0]:.1f}",
                f"{added[-1]:.1f}",
                ", ".join(map(str, targets)),
                bench.judge("recording", f"{library}, {name}", values, targets),
            )
    bench.console.print(table)


@dataclass(frozen=True)
class Taken:
    """What one stream has taken, in seconds: of time, and of the processor's by this process."""

    wall: float
    cpu: float


def paired(bench: Bench, library: str, url: str, asynchronous: bool) -> list[tuple[Taken, Taken]]:
    """Pairs of streams, without the cache and with it, taking turns at being first."""
    clients = {cached: client(library, None, asynchronous, cached=cached) for cached in (False, True)}

    def read_one(cached: bool, body: object) -> Taken:
        cpu, begin = process_time(), perf_counter()
        if asynchronous:
            chunks = bench.wait(read(clients[cached], url, body))
        else:
            chunks = read_blocking(clients[cached], url, body)
        assert chunks >= EVENTS, f"{chunks} chunks"
        return Taken(perf_counter() - begin, process_time() - cpu)

    pairs = []
    for number in range(-1, 2 if bench.quick else _ROUNDS):
        body = {**CHAT, "stream": True, "seed": number}  # never the same call
        taken = {cached: read_one(cached, body) for cached in ((False, True) if number % 2 else (True, False))}
        if number >= 0:  # the one before is to make the connections
            pairs.append((taken[False], taken[True]))
    # A second time they come out of memory, at once.
    again = read_one(True, body).wall
    assert again < EVENTS * PAUSE / 2, "it was not recorded"
    for opened in clients.values():
        if asynchronous:
            bench.wait(opened.aclose())
        else:
            opened.close()
    return pairs


def read_blocking(opened: Any, url: str, body: object) -> int:
    """The number of chunks of a stream."""
    with opened.stream("POST", url, json=body) as response:
        return sum(1 for _ in response.iter_bytes())


# Memory


def memory(bench: Bench) -> None:
    """Print the table of what is held at the peak."""
    table = Table(title="allocated at the peak", title_justify="left")
    for column in ("subject", "sent MB", "peak MB", "target", ""):
        table.add_column(column, justify="left" if column == "subject" else "right")
    for library in LIBRARIES:
        large = Streams(library, Repeated(b"x" * _PIECE, LARGE // _PIECE), copies=True)
        _, peak = traced(bench, read(client(library, large, True), CHAT_URL, {**CHAT, "stream": True}))
        row(bench, table, f"{library}, one stream that is too large", LARGE / 1e6, peak, _KEPT)
        many = Streams(library, [*[_EVENT] * (EVENTS - 1), _END], copies=True)
        numbers, peak = traced(bench, at_once(client(library, many, True)))
        assert numbers == [EVENTS] * STREAMS
        assert many.calls == STREAMS
        sent = STREAMS * (len(_EVENT) * (EVENTS - 1) + len(_END)) / 1e6
        row(bench, table, f"{library}, {STREAMS} streams at once", sent, peak, _BOUND)
    bench.console.print(table)


def row(bench: Bench, table: Table, name: str, sent: float, peak: float, bound: float) -> None:
    """Add a row, and compare it with its target."""
    target = Target(bound, "MB")
    table.add_row(name, f"{sent:.0f}", f"{peak:.1f}", str(target), bench.judge("memory", name, {"MB": peak}, [target]))


class Repeated:
    """The same chunk many times, without holding it as often."""

    def __init__(self, chunk: bytes, times: int) -> None:
        self._chunk = chunk
        self._times = times

    def __iter__(self) -> Iterator[bytes]:
        return repeat(self._chunk, self._times)


async def at_once(opened: Any) -> list[int]:
    """Read so many different streams at the same time."""
    calls = [{**CHAT, "stream": True, "seed": number} for number in range(STREAMS)]
    return await asyncio.gather(*[read(opened, CHAT_URL, call) for call in calls])


def traced(bench: Bench, work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Run it; what it gives, and the megabytes that were allocated at its peak."""
    tracemalloc.start()
    try:
        result = bench.wait(work)
        return result, tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
