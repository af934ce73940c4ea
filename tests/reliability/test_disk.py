"""Processes that share a folder, for long, and one that is killed again and again while it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.disks import aside, hammer, kill_again_and_again


@pytest.mark.reliability
def test_two_processes_for_a_minute(tmp_path: Path) -> None:
    written = hammer(tmp_path, 60.0)
    print(f"values written by each process: {[number for number, _ in written]}")
    assert aside(tmp_path) == []


@pytest.mark.reliability
def test_killed_a_hundred_times(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 100)
