"""The file beside this one is read by the type checker: what is wrong in it must be found, and nothing else."""

import subprocess
import sys

from tests.conftest import ROOT

API = ROOT / "tests" / "typing" / "api.py"


def test_the_type_checker_accepts_right_calls_and_rejects_wrong_ones() -> None:
    """Each wrong line says what mypy has to say of it; an unused `type: ignore` is an error of its own."""
    assert API.read_text().count("type: ignore[") > 10
    completed = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(API.relative_to(ROOT))],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert completed.returncode in (0, 1), completed.stderr
    # What is wrong elsewhere is for the type check of the whole.
    found = [line for line in completed.stdout.splitlines() if line.startswith(str(API.relative_to(ROOT)))]
    assert not found, "\n".join(found)
