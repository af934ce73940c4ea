"""Several processes ask and change without a break, and meanwhile Redis and the network fail in every way.

No request fails or is lost, each answer was right a short time ago, nobody waits for long, and all heals by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.fleet import Fleet, Json
from tests.managers import WITHIN, eventually_blocking
from tests.proxies import Drop, Fault, Hang, Latency, Proxy, Refuse
from tests.reliability.board import Board, figures
from tests.reliability.traffic import EPOCH, HEALED, LENGTH, OVER, PROCESSES, work
from tests.servers import ServerProcess, redis_command

TIMEOUT, LEASE, L1_TTL = 0.25, 0.6, 1.0
OPTIONS = {
    "timeout": TIMEOUT,
    "lease": LEASE,
    "l1_ttl": L1_TTL,
    "heartbeat": 0.3,
    "breaker_pause": 0.3,
}
ALLOWED = 2 * L1_TTL
"""Seconds for which an answer may be older than a confirmed change: in memory, and for what is known of tags."""
SLACK = 1.0
"""Seconds that a process may have to wait for its turn on a busy machine."""
POLL = 0.4
LONGEST = 2 * TIMEOUT + LEASE + POLL
"""Seconds that a request may wait: to find, to store, and for a process that has the lease and cannot give it back."""


@dataclass
class Bed:
    """What can be made to fail."""

    server: ServerProcess
    proxies: list[Proxy]
    fleet: Fleet
    board: Board
    seconds: float

    def redis(self, command: str) -> bytes:
        """Runs a command, past the proxies."""
        answer = redis_command(self.server.port, command)
        assert not answer.startswith(b"-"), answer
        return answer


Happening: TypeAlias = Callable[[Bed], None]


def restarted(bed: Bed) -> None:
    """Redis is killed and comes back empty."""
    os.kill(bed.server.pid, signal.SIGKILL)
    bed.server.stop()
    time.sleep(bed.seconds)
    bed.server.start()


def paused(bed: Bed) -> None:
    """Redis hangs."""
    bed.server.pause()
    time.sleep(bed.seconds)
    bed.server.resume()


def clients_killed(bed: Bed) -> None:
    """Redis ends the connections of commands and of subscribers."""
    for kind in ("normal", "pubsub", "normal", "pubsub"):
        bed.redis(f"CLIENT KILL TYPE {kind}")
        time.sleep(bed.seconds / 8)


def clients_paused(bed: Bed) -> None:
    """Redis answers nobody for a while, or nobody who writes."""
    for what in ("ALL", "WRITE"):
        bed.redis(f"CLIENT PAUSE {int(bed.seconds * 1000)} {what}")
        time.sleep(bed.seconds)


def out_of_memory(bed: Bed) -> None:
    """Redis refuses to write."""
    bed.redis("CONFIG SET maxmemory-policy noeviction")
    bed.redis("CONFIG SET maxmemory 1")
    time.sleep(bed.seconds)
    bed.redis("CONFIG SET maxmemory 0")


_EVICT = """EVAL "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end return 1" 0 """


def order_evicted(bed: Bed) -> None:
    """Redis forgets tags, leases and the number of changes, as it may under `allkeys-lru`."""
    end = time.monotonic() + bed.seconds
    for what in itertools.cycle(["fleet:t:*", "fleet:l:*", "fleet:clock", "fleet:[tl]:*"]):
        bed.redis(_EVICT + what)
        time.sleep(0.02)
        if time.monotonic() > end:
            return


def least_recently_used_evicted(bed: Bed) -> None:
    """Redis has less memory than it needs, and forgets what it likes."""
    bed.redis("CONFIG SET maxmemory-policy allkeys-lru")
    evicted = _number(bed, "stats", b"evicted_keys")
    end = time.monotonic() + bed.seconds
    while time.monotonic() < end or _number(bed, "stats", b"evicted_keys") < evicted + 50:
        bed.redis(f"CONFIG SET maxmemory {_number(bed, 'memory', b'used_memory') - 200}")
        time.sleep(0.05)
    bed.redis("CONFIG SET maxmemory 0")
    bed.redis("CONFIG SET maxmemory-policy noeviction")


def _number(bed: Bed, section: str, name: bytes) -> int:
    return int(bed.redis(f"INFO {section}").split(name + b":")[1].split()[0])


def process_stopped(bed: Bed) -> None:
    """A process stands still, and goes on."""
    bed.fleet.pause(PROCESSES - 1)
    time.sleep(bed.seconds)
    bed.fleet.resume(PROCESSES - 1)


def network(fault: Fault, *, all_of_them: bool = False, reset: bool = False) -> Happening:
    """What lies between one process and Redis fails, or between all and Redis."""

    def happens(bed: Bed) -> None:
        proxies = bed.proxies if all_of_them else bed.proxies[1:2]
        with contextlib.ExitStack() as stack:
            for proxy in proxies:
                stack.enter_context(proxy.during(fault))
                if reset:
                    proxy.reset()
            time.sleep(bed.seconds)
        if isinstance(fault, Drop | Refuse):
            for proxy in proxies:  # what has disappeared stays so
                proxy.reset()

    return happens


def reset_again_and_again(bed: Bed) -> None:
    """Connections are reset."""
    for proxy in bed.proxies * 2:
        proxy.reset()
        time.sleep(bed.seconds / 6)


HAPPENINGS: dict[str, Happening] = {
    "restarted": restarted,
    "paused": paused,
    "clients killed": clients_killed,
    "clients paused": clients_paused,
    "out of memory": out_of_memory,
    "order evicted": order_evicted,
    "least recently used evicted": least_recently_used_evicted,
    "half open, nothing arrives there": network(Drop("to_server")),
    "half open, nothing comes back": network(Drop("to_client")),
    "hanging": network(Hang(), all_of_them=True),
    "slow": network(Latency(0.05, jitter=0.1), all_of_them=True),
    "slower than the timeout": network(Latency(0.4)),
    "refused": network(Refuse(), reset=True),
    "reset": reset_again_and_again,
    "process stopped": process_stopped,
}


LONG = ("stale", "acknowledged", "slow")
"""What is too much to be printed."""


@dataclass
class Phase:
    """When something failed, and when it was well again."""

    name: str
    begin: float
    end: float = 0.0
    healed: float = 0.0


def test_whatever_happens_no_request_fails_and_it_heals(own_redis: ServerProcess, tmp_path: Path) -> None:
    """One thing after the other, with requests all the time."""
    phases, results = run(own_redis, tmp_path, HAPPENINGS, 0.35)
    check(phases, results)


@pytest.mark.reliability
@pytest.mark.parametrize("name", HAPPENINGS)
def test_while_it_happens_again_and_again_no_request_fails_and_it_heals(
    own_redis: ServerProcess, tmp_path: Path, name: str
) -> None:
    happenings = {f"{name} {turn}": HAPPENINGS[name] for turn in range(5)}
    phases, results = run(own_redis, tmp_path, happenings, 1.5)
    check(phases, results)


def run(
    server: ServerProcess, folder: Path, happenings: dict[str, Happening], seconds: float
) -> tuple[list[Phase], list[Json]]:
    """Traffic while things happen; returns when they did, and what each process says."""
    board = Board(folder / "board", LENGTH)
    phases = []
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(server.url)) for _ in range(PROCESSES)]
        arguments = [
            {"url": proxy.url, "board": str(folder / "board"), "number": number, "options": OPTIONS}
            for number, proxy in enumerate(proxies)
        ]
        fleet = stack.enter_context(Fleet(work, arguments))
        bed = Bed(server, proxies, fleet, board, seconds)
        wait_until_healed(board)
        for name, happening in happenings.items():
            phases.append(phase := Phase(name, time.monotonic()))
            happening(bed)
            phase.end = time.monotonic()
            wait_until_healed(board)
            phase.healed = time.monotonic()
        board[OVER] = 1
        time.sleep(0.2)
        board[OVER] = 2
        return phases, fleet.results(within=60)


def wait_until_healed(board: Board) -> None:
    """Until all processes use Redis and hear of changes again."""
    board[EPOCH] += 1
    eventually_blocking(lambda: all(board[HEALED + n] == board[EPOCH] for n in range(PROCESSES)), WITHIN)


def check(phases: list[Phase], results: list[Json]) -> None:
    """Nothing may have gone wrong, and the figures are printed."""
    for phase in phases:
        every = [(begin, lasted) for result in results for begin, lasted, _ in result["slow"]]
        slow = [lasted for begin, lasted in every if phase.begin - 1 < begin < phase.healed]
        print(
            f"{phase.name}: for {phase.end - phase.begin:.2f} s, well again after {phase.healed - phase.end:.2f} s, "
            f"slowest request {max(slow, default=0.0):.2f} s, {len(slow)} slow"
        )
    for number, result in enumerate(results):
        said = [f"{name}: {value}" for name, value in result.items() if name not in LONG]
        print(f"process {number}: {', '.join(said)}")
    for result in results:
        for wrong in result["wrong"]:
            print(wrong)
    for result in results:
        assert result["wrong"] == []
        assert result["behind"] == []
        assert result["counted"] == result["asked"]
        assert result["loads counted"] == result["loads"]
        assert result["breaker"] == "closed"
        assert result["max"] < LONGEST + SLACK + (2.0 if any("stopped" in phase.name for phase in phases) else 0.0)
    delays = staleness(results)
    print(f"answers older than a confirmed change: {len(delays)} of {sum(result['asked'] for result in results)}")
    if delays:
        print(f"older by {figures([delay for delay, _, _ in delays])}")
        for delay, key, begin in sorted(delays)[-5:]:
            print(f"  key {key}: {delay:.3f} s, while {names_of(phases, begin)}")
    assert max((delay for delay, _, _ in delays), default=0.0) < ALLOWED + SLACK


def staleness(results: list[Json]) -> list[tuple[float, int, float]]:
    """Returns for each answer that was older than a confirmed change: by how much, its key, and when it was asked."""
    changes: dict[int, list[tuple[int, float]]] = {}
    for result in results:
        for key, version, when in result["acknowledged"]:
            changes.setdefault(key, []).append((version, when))
    for versions in changes.values():
        versions.sort()
    found = []
    for result in results:
        for key, version, begin in result["stale"]:
            versions = changes.get(key, [])
            later = versions[bisect_right(versions, (version, float("inf"))) :]
            if later and (when := min(when for _, when in later)) < begin:
                found.append((begin - when, key, begin))
    return found


def names_of(phases: list[Phase], instant: float) -> str:
    """Returns what happened then, or last."""
    return next((phase.name for phase in reversed(phases) if phase.begin <= instant), "nothing had happened")
