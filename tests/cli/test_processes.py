"""Processes of the demo: started with their settings, and gone at the end in every case."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aurelis_cli.demo import processes
from aurelis_cli.demo.processes import DemoError, Interrupts, Processes, listener
from tests.demo.command import await_true, left_over

CHILD = """
import pathlib, signal, sys, time
from dataclasses import dataclass
from aurelis_cli.demo.lifeline import receive

@dataclass
class Settings:
    note: str
    stubborn: bool
    crash: bool
    folder: str | None

settings = receive(Settings, temporary="folder")
if settings.crash:
    sys.exit("something is wrong")
if settings.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(settings.note).write_text("here")
time.sleep(60)
"""


@dataclass
class Settings:
    note: str
    stubborn: bool = False
    crash: bool = False
    folder: str | None = None


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment for a child, in which the module `child` is the program above."""
    (tmp_path / "child.py").write_text(CHILD)
    path = os.pathsep.join([str(tmp_path), *(entry for entry in sys.path if entry)])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """Signal handlers of the demo, given back after the test."""
    with Interrupts() as handlers:
        yield handlers


def test_a_process_gets_its_settings_and_is_gone_at_the_end(
    tmp_path: Path, environment: dict[str, str], interrupts: Interrupts
) -> None:
    with Processes(tmp_path, interrupts) as started:
        child = started.start("a child", "child", Settings(str(tmp_path / "note")), environment=environment)
        await_true((tmp_path / "note").exists, "the child did not start")
        started.check()
    assert child.process.returncode == -signal.SIGTERM


def test_one_that_does_not_want_to_end_is_killed(
    tmp_path: Path, environment: dict[str, str], interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.3)
    with Processes(tmp_path, interrupts) as started:
        settings = Settings(str(tmp_path / "note"), stubborn=True)
        child = started.start("a child", "child", settings, environment=environment)
        await_true((tmp_path / "note").exists, "the child did not start")
    assert child.process.returncode == -signal.SIGKILL


def test_a_second_signal_ends_the_patience(
    tmp_path: Path, environment: dict[str, str], interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE", 600.0)
    with Processes(tmp_path, interrupts) as started:
        settings = Settings(str(tmp_path / "note"), stubborn=True)
        child = started.start("a child", "child", settings, environment=environment)
        await_true((tmp_path / "note").exists, "the child did not start")
        # A timer, so that it comes while the context is being left.
        signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
    assert child.process.returncode == -signal.SIGKILL


def test_all_are_gone_when_the_demo_fails(tmp_path: Path, environment: dict[str, str], interrupts: Interrupts) -> None:
    with contextlib.suppress(RuntimeError), Processes(tmp_path, interrupts) as started:
        child = started.start("a child", "child", Settings(str(tmp_path / "note")), environment=environment)
        raise RuntimeError("unforeseen")
    assert child.process.returncode is not None


def test_an_unexpected_end_is_an_error_with_the_last_words(
    tmp_path: Path, environment: dict[str, str], interrupts: Interrupts
) -> None:
    with Processes(tmp_path, interrupts) as started:
        child = started.start("a child", "child", Settings(str(tmp_path / "note"), crash=True), environment=environment)
        child.process.wait(timeout=20)
        with pytest.raises(DemoError, match="a child ended unexpectedly with status 1\n  something is wrong"):
            started.check()


def test_a_child_ends_and_tidies_up_when_its_parent_is_killed(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    note = tmp_path / "note"
    parent = f"""
import pathlib, time
from dataclasses import dataclass
from aurelis_cli.demo.processes import Interrupts, Processes

@dataclass
class Settings:
    note: str
    stubborn: bool
    crash: bool
    folder: str

started = Processes(pathlib.Path({str(tmp_path)!r}), Interrupts())
settings = Settings({str(note)!r}, False, False, {str(folder)!r})
child = started.start("child", "child", settings, environment=None)
print(child.process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        await_true(note.exists, "the child did not start")
        assert left_over([pid])
        process.kill()
    await_true(lambda: not left_over([pid]), "the child outlived its parent")
    assert not folder.exists()


def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    with listener() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DemoError, match=rf"cannot listen on 127.0.0.1:{port} .*choose another --port"):
            listener(port)


def test_a_listener_takes_connections_before_anybody_serves_it() -> None:
    with listener() as waiting, socket.create_connection(waiting.getsockname(), timeout=5) as connection:
        assert connection.getpeername() == waiting.getsockname()


def test_interrupts_end_a_sleep_and_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as handlers:
        assert not handlers.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        assert handlers.sleep(60)
        assert handlers.count == 1
    assert signal.getsignal(signal.SIGINT) == before
