"""Numbers that processes of one machine share without any server: the truth that a cache is measured by."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from aurelis.cache import CacheManager
from tests.managers import configuration

_SIZE = 8


class Board:
    """A row of whole numbers in a file that several processes have mapped; all are 0 at first.

    Each number has one writer, and is written in one step. What one process has written, all others see at once.

    Args:
        path: of the file, which is made if it is not there.
        length: how many numbers; the same in all processes.
    """

    def __init__(self, path: str | Path, length: int) -> None:
        with Path(path).open("a+b") as file:
            file.truncate(length * _SIZE)
            self._memory = memoryview(mmap.mmap(file.fileno(), length * _SIZE)).cast("q")

    def __getitem__(self, position: int) -> int:
        return self._memory[position]

    def __setitem__(self, position: int, value: int) -> None:
        self._memory[position] = value

    def __len__(self) -> int:
        return len(self._memory)


def cache_of(url: str, **options: object) -> CacheManager:
    """A cache as each process of a fleet makes it; the same namespace makes them share."""
    return CacheManager(configuration(**{"redis_url": url, "namespace": "fleet", "timeout": 2.0, **options}))


def percentile(values: list[float], part: float) -> float:
    """The value that this part (0 to 1) of all are not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def figures(values: list[float], unit: Callable[[float], str] = lambda value: f"{value * 1000:.2f} ms") -> str:
    """Median, p99 and maximum, to be printed."""
    median, p99 = percentile(values, 0.5), percentile(values, 0.99)
    return f"median {unit(median)}, p99 {unit(p99)}, max {unit(max(values))} of {len(values)}"
