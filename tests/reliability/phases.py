"""What several processes go through while they ask and change without a break, and what must be true of it."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.fleet import Fleet, Json
from tests.managers import WITHIN, eventually_blocking
from tests.reliability.board import Board, figures
from tests.reliability.traffic import EPOCH, HEALED, LENGTH, OVER, PROCESSES, work

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


LONG = ("stale", "acknowledged", "slow")
"""What is too much to be printed."""


@dataclass
class Phase:
    """When something failed, and when it was well again."""

    name: str
    begin: float
    end: float = 0.0
    healed: float = 0.0


def run(
    urls: Sequence[str], folder: Path, happenings: Mapping[str, Callable[[Fleet], None]], **options: object
) -> tuple[list[Phase], list[Json]]:
    """Traffic while things happen; returns when they did, and what each process says.

    Args:
        urls: where each process finds Redis.
        options: of each cache, in place of `OPTIONS`.
    """
    board = Board(folder / "board", LENGTH)
    phases = []
    with ExitStack() as stack:
        arguments = [
            {"url": url, "board": str(folder / "board"), "number": number, "options": {**OPTIONS, **options}}
            for number, url in enumerate(urls)
        ]
        fleet = stack.enter_context(Fleet(work, arguments))
        wait_until_healed(board)
        for name, happening in happenings.items():
            phases.append(phase := Phase(name, time.monotonic()))
            happening(fleet)
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
