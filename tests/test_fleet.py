"""Workers begin together, report, fail loudly, and are gone at the end, whatever happened to them."""

import asyncio
import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fleet import Fleet, FleetError, Json, Report
from tests.managers import eventually_blocking
from tests.servers import ServerProcess, redis_command


def add(report: Report, left: int, right: int = 1) -> int:
    """Returns the sum."""
    print("this does not disturb")  # noqa: T201 — meant
    return left + right


async def echo(report: Report, values: list[Json]) -> list[Json]:
    """Reports each value, and returns them all."""
    for value in values:
        await asyncio.sleep(0)
        report(value)
    return values


def tell_time(report: Report) -> float:
    """Returns when it began."""
    return time.monotonic()


def count(report: Report, path: str) -> None:
    """Writes into a file for ever."""
    report(os.getpid())
    with Path(path).open("a", buffering=1) as file:
        while True:
            file.write("x\n")
            time.sleep(0.001)


def fail(report: Report, how: str) -> object:
    """Fails in one of several ways."""
    report("begun")
    match how:
        case "raises":
            raise ValueError("meant to fail")
        case "exits":
            os._exit(7)
        case "returns what JSON cannot carry":
            return object()
        case "hangs":
            threading.Event().wait()
    return how


def is_larger(path: Path, size: int) -> bool:
    """Returns whether the file has grown."""
    return path.stat().st_size > size


def is_alive(pid: int) -> bool:
    """Returns whether there is such a process, other than one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_worker_gets_its_arguments_and_results_come_in_order() -> None:
    with Fleet(add, [{"left": 1}, {"left": 20}, {"left": 300, "right": -1}]) as fleet:
        pids = {fleet.pid(index) for index in range(3)}
        assert len(pids) == 3
        assert os.getpid() not in pids
        assert fleet.results() == [2, 21, 299]
        assert fleet.result(1) == 21


def test_reports_come_one_by_one_and_the_function_may_be_asynchronous() -> None:
    values = [1, None, "ä\n", {"deep": [True, 1.5]}]
    with Fleet(echo, [{"values": values}, {"values": []}]) as fleet:
        assert [fleet.report(0) for _ in values] == values
        with pytest.raises(FleetError, match="worker 1 ended without a further report") as raised:
            fleet.report(1)
        assert raised.value.index == 1
        assert fleet.results() == [values, []]


def test_all_begin_together() -> None:
    spread = 1.0
    for _ in range(5):
        with Fleet(tell_time, [{}] * 4) as fleet:
            times = fleet.results()
        spread = min(spread, max(times) - min(times))
        if spread < 0.02:  # that of starting processes is ten times as much
            return
    pytest.fail(f"they began within {spread} s")


def test_workers_share_a_real_server(redis_url: str, shared_redis: ServerProcess) -> None:
    with Fleet(increment, [{"port": shared_redis.port}] * 3) as fleet:
        fleet.results()
    assert redis_command(shared_redis.port, "GET count").startswith(b"$2\r\n30\r\n")


def increment(report: Report, port: int) -> None:
    """Counts up to ten in Redis."""
    for _ in range(10):
        redis_command(port, "INCR count")


def test_a_killed_worker_has_no_result_and_harms_no_other(tmp_path: Path) -> None:
    with Fleet(count, [{"path": str(tmp_path / name)} for name in "ab"]) as fleet:
        pids = [fleet.report(0), fleet.report(1)]
        assert pids == [fleet.pid(0), fleet.pid(1)]
        fleet.kill(0)
        assert not is_alive(pids[0])
        assert fleet.result(0) is None
        assert is_alive(pids[1])
        fleet.kill(0)
        fleet.kill(1)
        assert fleet.results() == [None, None]


def test_a_paused_worker_stands_still_until_it_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "count"
    with Fleet(count, [{"path": str(path)}]) as fleet:
        fleet.report(0)
        eventually_blocking(lambda: path.exists() and path.stat().st_size)
        for _ in range(2):
            fleet.pause(0)
            size = path.stat().st_size
            time.sleep(0.05)
            assert path.stat().st_size == size
            fleet.resume(0)
            eventually_blocking(functools.partial(is_larger, path, size))
        fleet.pause(0)
        pid = fleet.pid(0)
        with pytest.raises(FleetError, match="worker 0 has not finished in time and is paused"):
            fleet.result(0, within=0.1)
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raises", r"(?s)worker 1 ended with status 1; its stderr ends with:.*ValueError: meant to fail"),
        ("exits", r"worker 1 ended with status 7; its stderr ends with:\n\(nothing\)"),
        ("returns what JSON cannot carry", "(?s)status 1; .*TypeError: Object of type object is not JSON"),
        ("hangs", r"(?s)worker 1 has not finished in time; .*test_fleet.py., line \d+ in fail"),
    ],
)
def test_a_failing_worker_is_named_with_its_stderr(how: str, words: str) -> None:
    with Fleet(fail, [{"how": "works"}, {"how": how}]) as fleet:
        pids = [fleet.pid(0), fleet.pid(1)]
        assert fleet.report(1) == "begun"
        with pytest.raises(FleetError, match=words):
            fleet.results(within=0.5 if how == "hangs" else 20)
    assert not any(map(is_alive, pids))


def test_a_failure_that_nobody_asked_for_is_raised_at_the_end() -> None:
    def leave() -> None:
        with Fleet(fail, [{"how": "exits"}]) as fleet:
            assert fleet.report(0) == "begun"
            os.waitid(os.P_PID, fleet.pid(0), os.WEXITED | os.WNOWAIT)

    with pytest.raises(FleetError, match="worker 0 ended with status 7"):
        leave()


def test_a_function_that_cannot_be_called_is_an_error_too() -> None:
    with Fleet(add, [{"wrong": 1}]) as fleet, pytest.raises(FleetError, match="unexpected keyword argument 'wrong'"):
        fleet.results()
    with pytest.raises(AssertionError, match="is not at the top of its module"):
        Fleet(lambda report: None, [{}])


def test_a_worker_that_cannot_start_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add, "__module__", "tests.no_such_module")
    fleet = Fleet(add, [{"left": 1}, {"left": 2}])
    with pytest.raises(FleetError, match=r"(?s)worker 0 ended before it began; .*No module named 'tests.no_such"):
        fleet.__enter__()


def test_no_process_survives_a_test_that_fails(tmp_path: Path) -> None:
    pids: list[int] = []

    def break_off() -> None:
        with Fleet(count, [{"path": str(tmp_path / name)} for name in "abc"]) as fleet:
            pids.extend(fleet.report(index) for index in range(3))
            fleet.pause(1)
            raise KeyError("the test fails")

    with pytest.raises(KeyError, match="the test fails"):
        break_off()
    assert len(pids) == 3
    assert not any(map(is_alive, pids))


def test_no_process_survives_a_test_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from tests.fleet import Fleet; from tests.test_fleet import count\n"
        "with Fleet(count, [{'path': sys.argv[1]}] * 2) as fleet:\n"
        "    print(fleet.report(0), fleet.report(1), flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "count")], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    ) as test:
        assert test.stdout is not None
        pids = [int(pid) for pid in test.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        test.kill()
    eventually_blocking(lambda: not any(map(is_alive, pids)))
