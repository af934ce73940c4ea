"""The command line: what it accepts, and what it says when it cannot go on."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aurelis_cli import _extras
from aurelis_cli.commands import app
from aurelis_cli.main import main


def said(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner(env={"OPENAI_API_KEY": "", "COLUMNS": "200", **environment}).invoke(app, list(arguments))
    return result.exit_code, result.output


def test_it_knows_its_version() -> None:
    status, text = said("--version")
    assert status == 0
    assert text.startswith("aurelis-cache ")


def test_it_explains_its_command() -> None:
    status, text = said("demo", "--help")
    assert status == 0
    assert "--redis" in text
    assert "OPENAI_API_KEY" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seconds", "0"], "0.1"),
        (["--redis", "http://127.0.0.1"], "http"),
        (["--upstream", "http://127.0.0.1/v1"], "belong together"),
        (["--model", "m"], "belong together"),
        (["--upstream", "ftp://x", "--model", "m"], "base URL"),
        (["--upstream", "http://127.0.0.1/v1", "--model", "m"], "OPENAI_API_KEY"),
        (["--port", "65535"], "65534"),
        (["--rate", "0"], "0.1"),
        (["--faults", "-1"], "0"),
        (["--faults", "1", "--redis", "rediss://127.0.0.1"], "redis://"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_are_refused_with_the_way_out(arguments: list[str], complaint: str) -> None:
    status, text = said("demo", *arguments)
    assert status == 2
    assert complaint in text


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "folder"
    command = [sys.executable, "-m", "aurelis_cli", "demo", "--state-dir", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"cannot write to {folder}" in result.stderr
    assert "--state-dir" in result.stderr


def test_a_password_in_the_url_of_redis_is_not_repeated() -> None:
    _, text = said("demo", "--redis", "http://user:hunter2@127.0.0.1")
    assert "hunter2" not in text


def test_a_missing_module_is_named_together_with_its_extra() -> None:
    message = _extras.missing(["typer", "surely_absent", "surely_absent.inner"])
    assert message is not None
    assert "surely_absent, surely_absent.inner" in message
    assert "typer" not in message
    assert 'pip install "aurelis-cache[server]"' in message


def test_nothing_is_missing_here() -> None:
    assert _extras.missing([*_extras.COMMAND_LINE, *_extras.DEMO, *_extras.WARM]) is None


def test_without_the_extra_the_command_says_which_one_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aurelis_cli.main.COMMAND_LINE", ("surely_absent",))
    with pytest.raises(SystemExit, match=r'pip install "aurelis-cache\[server\]"'):
        main()


def test_without_the_extra_the_demo_says_which_one_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurelis_cli.commands.DEMO", ("surely_absent",))
    status, _ = said("demo")
    assert status == 1


def test_the_check_imports_nothing_heavy() -> None:
    heavy = ["fastapi", "typer", "rich", "openai", "httpx2", "redis", "uvicorn", "opentelemetry.sdk"]
    program = (
        "import sys; import aurelis_cli.main, aurelis_cli._extras as extras;"
        "extras.missing([*extras.COMMAND_LINE, *extras.DEMO]);"
        f"found = [name for name in {heavy!r} if name in sys.modules]; sys.exit(', '.join(found) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("module", ["aurelis_cli", "aurelis_cli.main"])
def test_it_also_runs_as_a_module(module: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.startswith("aurelis-cache ")
