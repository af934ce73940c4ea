"""`aurelis-cache top`, from what endpoints say to what is on the screen."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aurelis.cache.telemetry import names
from aurelis_cli.demo.metrics import Snapshot, label, parse, series
from aurelis_cli.top.figures import CacheFigures, figures
from aurelis_cli.top.readings import WINDOW, Endpoint, Reading, parsed
from aurelis_cli.top.run import shown_names
from aurelis_cli.top.screen import document, drawn

BREAKER = series(names.BREAKERS)
REQUESTS = series(names.REQUESTS)


def sample(name: str, value: float, cache: str = "web", **labels: str) -> str:
    """One line of an exposition; `labels` by the last word of the attribute."""
    attributes = {
        "result": names.RESULT,
        "layer": names.LAYER,
        "operation": names.OPERATION,
        "state": names.BREAKER_STATE,
    }
    given = {label(attributes.get(key, key)): text for key, text in labels.items()}
    pairs = ",".join(f'{key}="{text}"' for key, text in {label(names.NAME): cache, **given}.items())
    return f"{name}{{{pairs}}} {value}\n"


def snapshot(*lines: str, start: float | None = None) -> Snapshot:
    """What an endpoint says, with the start of its process."""
    return parse("".join(lines) + ("" if start is None else f"process_start_time_seconds {start}\n"))


def hits(count: float, start: float | None = None) -> Snapshot:
    """So many hits, and as many misses."""
    return snapshot(
        sample(REQUESTS, count, result="hit", layer="l1"), sample(REQUESTS, count, result="miss"), start=start
    )


def hits_of(layer: str) -> str:
    """A hit that a layer has answered."""
    return sample(REQUESTS, 1, result="hit", layer=layer)


def shown(*readings: Reading) -> CacheFigures:
    """The figures of the only cache."""
    (found,) = figures(readings)
    return found


# Readings


def test_what_came_in_the_window_is_told_apart_from_all() -> None:
    endpoint = Endpoint()
    endpoint.take(100.0, hits(50))
    endpoint.take(104.0, hits(70))
    found = shown(endpoint.reading())
    assert (found.requests, found.requests_total, found.hit_ratio) == (10.0, 140, 0.5)
    assert found.results == {"hit": 5.0, "miss": 5.0}


def test_one_look_gives_totals_and_no_rates() -> None:
    endpoint = Endpoint()
    endpoint.take(100.0, hits(50))
    found = shown(endpoint.reading())
    assert (found.requests_total, found.hit_ratio_total) == (100, 0.5)
    assert math.isnan(found.requests)
    assert math.isnan(found.hit_ratio)


def test_what_is_older_than_the_window_counts_no_more() -> None:
    endpoint = Endpoint()
    for second in range(100):
        endpoint.take(float(second), hits(1000 if second < 50 else 1000 + second))
    found = endpoint.reading()
    assert found.span == WINDOW
    assert shown(found).requests == 2.0


@pytest.mark.parametrize("start", [None, 7.0])
def test_a_process_that_begins_again_counts_on(start: float | None) -> None:
    endpoint = Endpoint()
    endpoint.take(0.0, hits(100, start))
    endpoint.take(1.0, hits(10, None if start is None else start + 1))
    found = shown(endpoint.reading())
    assert (found.requests, found.requests_total) == (20.0, 220)


def test_a_process_that_has_overtaken_the_one_before_is_seen_by_its_start() -> None:
    endpoint = Endpoint()
    endpoint.take(0.0, hits(100, 7.0))
    endpoint.take(1.0, hits(130, 8.0))
    assert shown(endpoint.reading()).requests == 260.0


def test_a_series_that_is_gone_means_another_process() -> None:
    endpoint = Endpoint()
    endpoint.take(0.0, hits(5))
    endpoint.take(1.0, snapshot(sample(REQUESTS, 9, result="hit", layer="l1")))
    assert shown(endpoint.reading()).requests == 9.0


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), min_size=1, max_size=5))
def test_totals_are_those_of_all_processes_together(runs: list[list[int]]) -> None:
    """Each run is a process; its numbers are what it counts between two looks."""
    endpoint, now, all_of_them = Endpoint(), 0.0, 0
    for start, run in enumerate(runs):
        count = 0
        for more in run:
            count += more
            now += 1.0
            endpoint.take(now, snapshot(sample(REQUESTS, count, result="hit", layer="l1"), start=float(start + 1)))
        all_of_them += count
    found = endpoint.reading()
    assert shown(found).requests_total == all_of_them
    assert all(value >= 0 for value in found.recent.values())


def test_an_endpoint_that_is_down_keeps_its_totals_and_has_no_levels() -> None:
    endpoint = Endpoint()
    entries = sample(series(names.ENTRIES), 3, layer="l1")
    endpoint.take(0.0, snapshot(sample(REQUESTS, 1, result="hit", layer="l1"), entries))
    assert shown(endpoint.reading()).layers[0].entries == 3
    endpoint.fail("cannot be reached")
    found = shown(endpoint.reading())
    assert (found.requests_total, endpoint.problem) == (1, "cannot be reached")
    assert math.isnan(found.layers[0].entries)
    assert math.isnan(found.requests)
    endpoint.take(60.0, snapshot(sample(REQUESTS, 61, result="hit", layer="l1"), entries))
    assert (shown(endpoint.reading()).requests, endpoint.problem) == (1.0, "")


def test_memory_stays_bounded() -> None:
    endpoint = Endpoint()
    for look in range(10_000):
        endpoint.take(look / 10, hits(look))
    assert len(endpoint._past) <= 10 * WINDOW + 2
    foreign = parse("some_app_requests_total 5\n")
    endpoint.take(1001.0, {**hits(10_000), **foreign})
    assert not set(foreign) & set(endpoint.reading().counts)


def test_only_what_is_wanted_is_parsed() -> None:
    """What is not wanted may be more, and slower to parse."""
    assert parsed(
        "# HELP aurelis_cache_requests_total of a cache\n"
        "# TYPE aurelis_cache_requests_total counter\n"
        + sample(REQUESTS, 3, result="hit")
        + "\n"
        + sample(f"{series(names.DURATION)}_sum", 1)
        + "some_app_requests_total{broken 5\n"
        + "process_start_time_seconds 17\n"
    ) == snapshot(sample(REQUESTS, 3, result="hit"), start=17)


@pytest.mark.parametrize(
    "text", ["<html>", '{"some": "json"}', "some words", "5", sample(REQUESTS, 1, "a" * 5000), f"{REQUESTS}{{broken 5"]
)
def test_what_is_not_in_the_format_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whose text is nobody's
        parsed(f"process_start_time_seconds 17\n{text}\n")


# Figures


def test_a_stale_answer_is_one_of_memorys() -> None:
    """It names no layer, but a reason."""
    endpoint = Endpoint()
    for at, count in ((0.0, 0), (10.0, 10)):
        lines = [sample(REQUESTS, count, result="hit", layer=layer) for layer in ("l1", "l2")]
        endpoint.take(at, snapshot(*lines, sample(REQUESTS, count, result="stale", stale_reason="error")))
    found = shown(endpoint.reading())
    assert (found.hit_ratio, found.hit_ratio_total) == (1.0, 1.0)
    assert {layer.name: layer.hits for layer in found.layers} == {"l1": 2 / 3, "l2": 1 / 3}


@pytest.mark.parametrize("labels", [{}, {"le": "much"}, {"le": "NaN"}])
def test_a_bucket_without_a_bound_is_none(labels: dict[str, str]) -> None:
    endpoint = Endpoint()
    name = f"{series(names.DURATION)}_bucket"
    for at, count in ((0.0, 0), (1.0, 10)):
        whole = sample(name, count, operation="fill", le="+Inf") + sample(name, count, operation="fill", le="1.0")
        endpoint.take(at, snapshot(whole, sample(name, count, operation="fill", **labels)))
    assert shown(endpoint.reading()).load.median == 0.5


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-5", "1e308"])
def test_numbers_that_make_no_sense_are_shown_and_no_error(value: str) -> None:
    endpoint = Endpoint()
    for at in (0.0, 1.0):
        lines = [sample(series(metric), 1, layer="l1").replace(" 1\n", f" {value}\n") for metric in names.METRICS]
        endpoint.take(at, snapshot(*lines, sample(REQUESTS, at, result="hit")))
    found = figures([endpoint.reading()])
    assert "web" in on_screen(found, 200)
    json.dumps(document(found, {}, ["a:1"]), allow_nan=False)


def test_several_endpoints_are_one_cache() -> None:
    """Rates are added, each over its own time; ratios and latencies are those of all requests."""
    first, second = Endpoint(), Endpoint()
    for at, count in ((0.0, 0), (10.0, 100)):
        first.take(at, hits(count))
    for at, count in ((5.0, 0), (7.0, 10)):
        second.take(at, snapshot(sample(REQUESTS, count, result="hit", layer="l2")))
    found = shown(first.reading(), second.reading())
    assert (found.requests, found.requests_total) == (25.0, 210)
    assert found.hit_ratio == 110 / 210
    assert {layer.name: layer.hits for layer in found.layers} == {"l1": 100 / 210, "l2": 10 / 210}


def test_what_processes_share_on_a_disk_is_there_once() -> None:
    readings = []
    for memory, disk in ((1, 100), (2, 101)):  # the second one has seen one more
        endpoint = Endpoint()
        lines = [sample(series(names.ENTRIES), memory, layer="l1")]
        for layer in ("l3", "files"):
            lines += [sample(series(metric), disk, layer=layer) for metric in (names.ENTRIES, names.USAGE, names.LIMIT)]
        endpoint.take(0.0, snapshot(*lines))
        readings.append(endpoint.reading())
    memory_layer, *disks = shown(*readings).layers
    assert memory_layer.entries == 3
    assert [(layer.name, layer.entries, layer.usage, layer.limit) for layer in disks] == [
        ("l3", 101, 101, 101),
        ("files", 101, 101, 101),
    ]


def test_caches_are_told_apart_and_may_be_chosen() -> None:
    endpoint = Endpoint()
    lines = [sample(REQUESTS, 1, cache, result="miss") for cache in ("web", "models")]
    endpoint.take(0.0, snapshot(*lines))
    assert [found.name for found in figures([endpoint.reading()])] == ["models", "web"]
    assert [found.name for found in figures([endpoint.reading()], ["web", "absent"])] == ["web"]


def test_latencies_are_those_of_the_window() -> None:
    def durations(fast: int, slow: int) -> Snapshot:
        name = f"{series(names.DURATION)}_bucket"
        return snapshot(
            sample(name, fast, operation="fill", le="0.1"),
            sample(name, fast + slow, operation="fill", le="1.0"),
            sample(name, fast + slow, operation="fill", le="+Inf"),
        )

    endpoint = Endpoint()
    endpoint.take(0.0, durations(1000, 0))
    endpoint.take(1.0, durations(1000, 10))
    load = shown(endpoint.reading()).load
    assert load.median == pytest.approx(0.55)
    assert load.high == pytest.approx(0.955)
    assert math.isnan(shown(endpoint.reading()).hit.median)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ({}, ""),
        ({"open": 0, "half_open": 0, "closed": 0}, ""),
        ({"open": 1, "half_open": 0, "closed": 3}, "open"),
        ({"open": 0, "half_open": 1, "closed": 3}, "half_open"),
        ({"open": 0, "half_open": 0, "closed": 4}, "closed"),
    ],
)
def test_the_worst_state_of_a_breaker_is_shown(states: dict[str, int], state: str) -> None:
    endpoint = Endpoint()
    lines = [sample(BREAKER, count, layer="l2", state=name) for name, count in states.items()]
    endpoint.take(0.0, snapshot(sample(series(names.ENTRIES), 1, layer="l2"), *lines))
    assert shown(endpoint.reading()).layers[0].breaker == state


def test_a_breaker_of_a_process_that_is_gone_is_not_open() -> None:
    endpoint = Endpoint()
    opened = snapshot(hits_of("l2"), sample(BREAKER, 1, layer="l2", state="open"), start=1.0)
    endpoint.take(0.0, opened)
    assert shown(endpoint.reading()).layers[0].breaker == "open"
    endpoint.fail("cannot be reached")
    assert shown(endpoint.reading()).layers[0].breaker == ""
    endpoint.take(1.0, snapshot(hits_of("l2"), sample(BREAKER, 1, layer="l2", state="closed"), start=2.0))
    assert shown(endpoint.reading()).layers[0].breaker == "closed"


# The screen


def lines_of(text: str) -> list[str]:
    """Without the blanks that fill a line."""
    return [line.rstrip() for line in text.splitlines()]


def on_screen(
    caches: list[CacheFigures],
    width: int,
    problems: dict[str, str] | None = None,
    asked: int = 1,
    height: int | None = None,
) -> str:
    """What a terminal so wide shows."""
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(drawn(caches, problems or {}, asked, width, height), highlight=False)
    return captured.get()


def web() -> list[CacheFigures]:
    """Figures of a cache with two layers."""
    endpoint = Endpoint()
    for at, count in ((0.0, 0), (10.0, 1000)):
        endpoint.take(
            at,
            snapshot(
                sample(REQUESTS, count, result="hit", layer="l1"),
                sample(REQUESTS, count, result="miss"),
                sample(series(names.ERRORS), count / 100, layer="l2", operation="get"),
                sample(series(names.USAGE), 2048, layer="l1"),
                sample(series(names.LIMIT), 4096, layer="l1"),
                sample(BREAKER, 1, layer="l2", state="open"),
            ),
        )
    return figures([endpoint.reading()])


def test_a_wide_terminal_shows_everything() -> None:
    text = lines_of(on_screen(web(), 250))
    assert text[0] == "1 of 1 endpoints answer"
    words = [" ".join(line.split()) for line in text]
    assert words[2] == (
        "cache req/s hits hit p50 / p95 load p50 / p95 hit/s stale/s revalidated/s miss/s bypass/s waiting errors/s"
        " time saved tokens saved money saved requests of them hits"
    )
    assert words[3] == "web 200.0 50.0 % – – 100.0 0.0 0.0 100.0 0.0 0 1.0 0.0 s – – 2 000 50.0 %"
    assert words[6] == "web l1 50.0 % – – 2 KiB of 4 KiB 0.0 0.0 –"
    assert words[7] == "web l2 0.0 % – – – 0.0 1.0 open"


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20, 5])
def test_a_narrow_terminal_shows_the_chief_figures_whole(width: int) -> None:
    text = lines_of(on_screen(web(), width))
    assert all(len(line) <= width for line in text)
    if width >= 40:
        assert "…" not in "".join(text)
        assert text[2].split()[:3] == ["cache", "req/s", "hits"]
        assert text[3].split()[:4] == ["web", "200.0", "50.0", "%"]


def test_an_endpoint_that_is_down_is_named_with_the_reason() -> None:
    text = lines_of(on_screen(web(), 80, {"127.0.0.1:9465": "cannot be reached"}, 2))
    assert text[:2] == ["1 of 2 endpoints answer", "127.0.0.1:9465: cannot be reached"]


def test_endpoints_without_a_cache_are_said_to_be_so() -> None:
    assert lines_of(on_screen([], 80)) == ["1 of 1 endpoints answer", "no cache is reported there"]
    assert "no cache" not in on_screen([], 80, {"a:1": "cannot be reached"})


def test_a_name_cannot_command_the_terminal() -> None:
    endpoint = Endpoint()
    endpoint.take(0.0, snapshot(sample(REQUESTS, 1, "we\x1b[2Jb", result="miss", layer="l\x071")))
    text = on_screen(figures([endpoint.reading()]), 200)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "we\ufffd[2Jb" in text


@pytest.mark.parametrize("name", ["n" * 500, "名" * 30], ids=["long", "wide"])
def test_a_name_leaves_room_for_figures(name: str) -> None:
    endpoint = Endpoint()
    endpoint.take(0.0, snapshot(sample(REQUESTS, 2, name, result="hit", layer="l1")))
    text = lines_of(on_screen(figures([endpoint.reading()]), 100))
    assert text[2].split()[:3] == ["cache", "req/s", "hits"]
    assert text[3].startswith(name[:19])
    assert "…" not in text[2]


def test_of_very_many_caches_some_are_drawn() -> None:
    endpoint = Endpoint()
    endpoint.take(0.0, snapshot(*(sample(REQUESTS, 1, f"c{at:03}", result="hit", layer="l1") for at in range(300))))
    text = lines_of(on_screen(figures([endpoint.reading()]), 100))
    assert [line.split()[0] for line in text if line.startswith("c")].count("c199") == 2
    assert not any(line.startswith("c200") for line in text)
    assert text[-1] == "there are 300 caches with 300 layers: choose by --cache"


def many() -> list[CacheFigures]:
    """Twenty caches with two layers each: most are idle, a few are busy, and one of the last has an open breaker."""
    endpoint = Endpoint()
    for at in (0.0, 10.0):
        lines = []
        for number in range(20):
            name, count = f"c{number:02}", at if number in (7, 12) else 0
            lines += [
                sample(REQUESTS, count, name, result="hit", layer="l1"),
                sample(BREAKER, 1 if number == 17 else 0, name, layer="l2", state="open"),
            ]
        endpoint.take(at, snapshot(*lines))
    return figures([endpoint.reading()])


@pytest.mark.parametrize("height", [70, 67, 66, 40, 24, 12, 10])
def test_a_low_terminal_shows_first_what_is_a_reason_to_look(height: int) -> None:
    text = lines_of(on_screen(many(), 120, height=height))
    assert len(text) <= height
    rows = [line.split()[:2] for line in text if line.startswith("c") and not line.startswith("cache")]
    assert ["c17", "l2"] in rows
    assert "open" in next(line for line in text if line.split()[:2] == ["c17", "l2"])
    assert rows == sorted(rows, key=lambda row: (row[1].startswith("l"), row[0]))
    left = 60 - len(rows)
    assert (text[-1] == f"{left} more: a taller terminal, --cache or --once shows them") == (left > 0)
    assert left == (0 if height >= 65 else 60 - (height - 6))
    if height >= 24:
        assert [row for row in rows if row[0] in ("c07", "c12") and row[1] == "l1"] == [["c07", "l1"], ["c12", "l1"]]


def test_endpoints_that_are_down_leave_room_for_those_that_are_not() -> None:
    problems = {f"10.0.0.{number}:9464": "no answer within 5 s" for number in range(50)}
    text = lines_of(on_screen(many(), 100, problems, 51, height=24))
    assert len(text) <= 24
    assert text[0] == "1 of 51 endpoints answer"
    assert "43 more do not answer" in text
    assert any(line.startswith("c17") and "open" in line for line in text)


def test_the_document_is_json_without_what_json_has_not() -> None:
    found: dict[str, Any] = json.loads(
        json.dumps(document(web(), {"a:1": "cannot be reached"}, ["a:1", "a:2"]), allow_nan=False)
    )
    assert found["endpoints"] == [{"name": "a:1", "problem": "cannot be reached"}, {"name": "a:2", "problem": None}]
    (cache,) = found["caches"]
    assert (cache["name"], cache["requests"], cache["hit_ratio"], cache["load"]["median"]) == ("web", 200.0, 0.5, None)
    assert [layer["breaker"] for layer in cache["layers"]] == ["", "open"]


def test_endpoints_are_named_without_credentials() -> None:
    urls = [
        "http://user:secret@shop.example:9464/metrics",
        "https://shop.example/metrics?token=secret",
        "http://[::1]:9464/other",
        "https://shop.example/metrics?token=another",
    ]
    assert shown_names(urls) == ["shop.example:9464", "shop.example", "[::1]:9464/other", "shop.example (4)"]
