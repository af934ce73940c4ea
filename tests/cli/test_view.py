"""What is drawn from what the workers report."""

import io
import math
import re

import pytest
from rich.console import Console

from aurelis_cli.demo.metrics import CacheView
from aurelis_cli.demo.view import Board, Frame, Rates, duration, line, number, percent, size, table

WEB = CacheView(
    results={"hit": 1900, "miss": 100},
    hits={"l1": 1800, "l2": 100},
    coalesced=20,
    seconds_saved=12.34,
    entries=80,
    usage=300_000,
    limit=64 * 2**20,
    hit_seconds={"l1": {1e-5: 8.0, 2e-5: 10.0, math.inf: 10.0}, "l2": {1e-3: 10.0, math.inf: 10.0}},
    load_seconds={0.01: 90.0, 0.1: 100.0, math.inf: 100.0},
)
MODELS = CacheView(results={"hit": 50, "miss": 50}, hits={"l1": 50}, tokens_saved=12_345, seconds_saved=99)


def drawn(shared: bool) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(table({"web": WEB, "models": MODELS}, shared=shared))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each row by its title."""
    cells = [re.split(r"\s{2,}", row.strip()) for row in text.splitlines() if row.strip()]
    return {title: values for title, *values in cells}


def test_the_table_says_what_the_caches_did_and_fits_into_80_columns() -> None:
    text = drawn(shared=False)
    lines = rows(text)
    assert max(len(row) for row in text.splitlines()) <= 80
    assert lines["requests"] == ["2 000", "100"]
    assert lines["hit ratio"] == ["95.0 %", "50.0 %"]
    assert lines["upstream calls avoided"] == ["1 920", "50"]
    assert lines["tokens saved"] == ["–", "12 345"]
    assert lines["upstream time saved"] == ["12.3 s", "99.0 s"]
    assert lines["memory, of its limit"] == ["293 KiB of 64 MiB", "0 B of 0 B"]
    assert "Redis" not in text


def test_with_a_shared_layer_it_tells_the_layers_apart() -> None:
    text = drawn(shared=True)
    lines = rows(text)
    assert max(len(row) for row in text.splitlines()) <= 80
    assert lines["from the worker's memory (L1)"] == ["90.0 %", "50.0 %"]
    assert lines["from Redis (L2)"] == ["5.0 %", "0.0 %"]
    assert lines["hits one worker owes to the other"] == ["100", "0"]


def test_a_line_holds_the_chief_figures() -> None:
    frame = Frame(12.3, {"web": WEB, "models": MODELS}, "traffic")
    text = line("web", frame, 163.4, shared=False)
    assert "163.4/s" in text
    assert "hit 95.0 %" in text
    assert "1 920 calls avoided" in text
    assert "tokens" not in text
    assert "12 345 tokens saved" in line("models", frame, 1.0, shared=False)
    assert "100 hits owed to the other worker" in line("web", frame, 1.0, shared=True)


def test_rates_are_taken_over_the_last_seconds() -> None:
    rates = Rates()

    def at(time: float, requests: float) -> float:
        return rates.add(Frame(time, {"web": CacheView(results={"hit": requests})}, ""))["web"]

    assert math.isnan(at(0.0, 0))
    assert at(1.0, 100) == 100
    assert at(5.0, 500) == 100
    assert at(10.0, 500) == 0  # the last five seconds had none
    assert at(12.5, 1000) == pytest.approx(500 / 7.5)  # from the last frame outside the window


def test_without_a_terminal_the_board_prints_a_line_now_and_then() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    with Board(console, shared=False) as board:
        for tenth in range(45):
            board.show(Frame(tenth / 10, {"web": WEB}, "traffic"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert [row.split()[0] for row in text.splitlines()] == ["0", "2", "4"]
    assert "\x1b" not in text


def test_in_a_terminal_the_board_is_redrawn_and_then_removed() -> None:
    console = Console(file=io.StringIO(), width=80, height=40, force_terminal=True, legacy_windows=False)
    with Board(console, shared=False) as board:
        board.show(Frame(1.0, {"web": WEB}, "traffic"))
        board.show(Frame(2.0, {"web": WEB}, "traffic"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("hit ratio") >= 2
    assert text.rstrip("\x1b[?25h").endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (math.nan, "–"),
        (0.0, "0 µs"),
        (1.5e-5, "15 µs"),
        (0.00234, "2.34 ms"),
        (1.5, "1.5 s"),
        (30.0, "30 s"),
        (0.9998, "1000 ms"),
        (1234.5, "1234 s"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_numbers_percentages_and_sizes_are_written_for_people() -> None:
    assert (number(1_234_567), number(math.nan), number(1.25, 1)) == ("1 234 567", "–", "1.2")
    assert (percent(0.5), percent(math.nan)) == ("50.0 %", "–")
    assert (size(17), size(2048), size(64 * 2**20)) == ("17 B", "2 KiB", "64 MiB")
    assert (size(1010 * 2**10), size(5000 * 2**30)) == ("1010 KiB", "5000 GiB")
