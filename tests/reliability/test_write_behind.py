"""Processes that write behind, killed hundreds of times, with both journals."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.write_behind import kill_writers

TIMES = 300


@pytest.mark.reliability
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("writers", [1, 3])
def test_with_a_file(tmp_path: Path, writers: int) -> None:
    print(kill_writers(tmp_path, "", times=TIMES, writers=writers, seed=writers))


@pytest.mark.reliability
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("writers", [1, 3])
def test_with_redis(tmp_path: Path, redis_url: str, writers: int) -> None:
    print(kill_writers(tmp_path, redis_url, times=TIMES, writers=writers, seed=writers))
