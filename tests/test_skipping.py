"""No test is skipped unnoticed: the last line names what lacks a server, and CI=true fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TESTS = """
import pytest

def test_passes(): pass
def test_redis(redis_url): pass
def test_prometheus(prometheus_server): prometheus_server([])
def test_shared(shared_dir): pass
"""


def run_pytest(folder: Path, source: str, *, ci: str, workers: int) -> tuple[int, list[str]]:
    """Runs tests with our conftest where no server and no shared folder exists; returns status and lines."""
    (folder / "test_it.py").write_text(source)
    environ = {
        **os.environ,
        "AURELIS_TESTS_SHARED": str(folder / "absent"),
        "CI": ci,
        "PATH": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(folder), "-n", str(workers), str(folder)]
    completed = subprocess.run(command, check=False, cwd=folder, env=environ, capture_output=True, text=True)
    return completed.returncode, completed.stdout.splitlines()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_line_names_each_test_that_lacks_its_server(tmp_path: Path, workers: int) -> None:
    status, lines = run_pytest(tmp_path, TESTS, ci="", workers=workers)
    assert status == 0
    assert lines[-1] == (
        "Skipped for want of a server: prometheus: test_it.py::test_prometheus; redis-server: test_it.py::test_redis"
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skip_fails_in_ci_and_is_named(tmp_path: Path, workers: int) -> None:
    status, lines = run_pytest(tmp_path, TESTS, ci="true", workers=workers)
    assert status == 1
    (line,) = [line for line in lines if line.startswith("CI=true")]
    assert "test_it.py::test_redis" in line
    assert "test_it.py::test_prometheus" in line
    assert "test_it.py::test_shared" not in line
    assert lines[-1].startswith("Skipped for want of a server: prometheus")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_module_that_skips_itself_fails_in_ci(tmp_path: Path, workers: int) -> None:
    source = "import pytest; pytest.skip('no reason', allow_module_level=True)"
    status, lines = run_pytest(tmp_path, source, ci="true", workers=workers)
    assert status != 0
    assert lines[-1] == "Skipped for want of a server: none"


def test_without_the_shared_folder_ci_passes(tmp_path: Path) -> None:
    status, lines = run_pytest(tmp_path, "def test_shared(shared_dir): pass", ci="true", workers=0)
    assert status == 0
    assert lines[-1] == "Skipped for want of a server: none"
