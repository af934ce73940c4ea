"""The set-up works on poor machines, does nothing twice, and says what to do where it may not help."""

import os
import sys
from pathlib import Path

import pytest

from scripts import bootstrap

CALLS = "calls.log"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, for a user who is not root, and the root of a repository."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    return tmp_path


def add_program(machine: Path, name: str, script: str = "") -> Path:
    """Adds a program that notes each call and then runs a shell script."""
    program = machine / name
    program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{machine / CALLS}"\n{script}\n')
    program.chmod(0o755)
    return program


def calls(machine: Path) -> list[str]:
    """Returns the commands run so far."""
    log = machine / CALLS
    return log.read_text().splitlines() if log.exists() else []


# --- the system's packages


def test_root_installs_each_missing_server_after_one_update(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    add_program(machine, "apt-get")
    add_program(machine, "env", 'while [ "${1#*=}" != "$1" ]; do export "$1"; shift; done; exec "$@"')
    bootstrap.ensure_servers(["redis-server", "prometheus"])
    update, *rest = [call for call in calls(machine) if call.startswith("apt-get ")]
    assert update.endswith(" update")
    assert [call.split()[-1] for call in rest] == ["redis-server", "prometheus"]
    assert all("install --yes --no-install-recommends" in call for call in rest)


def test_a_server_that_is_there_is_not_installed(machine: Path) -> None:
    add_program(machine, "apt-get")
    add_program(machine, "redis-server")
    bootstrap.ensure_servers(["redis-server"])
    assert calls(machine) == []


def test_sudo_is_used_where_it_asks_for_no_password(machine: Path) -> None:
    add_program(machine, "apt-get")
    add_program(machine, "sudo")
    assert bootstrap.install_system_packages(["redis-server"]) is None
    assert all(call.startswith("sudo -n ") for call in calls(machine))
    assert calls(machine)[-1].endswith(" redis-server")


def test_the_exact_command_is_told_where_sudo_asks_for_a_password(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_program(machine, "apt-get")
    add_program(machine, "sudo", "exit 1")
    bootstrap.ensure_servers(["redis-server"])
    told = capsys.readouterr().out
    assert "run: sudo apt-get" in told
    assert "--no-install-recommends redis-server" in told
    assert calls(machine) == ["sudo -n true"]


def test_homebrew_needs_no_root(machine: Path) -> None:
    add_program(machine, "brew")
    assert bootstrap.install_system_packages(["redis-server"]) is None
    assert calls(machine) == ["brew install redis"]


def test_an_unknown_system_is_told_what_is_missing(machine: Path) -> None:
    advice = bootstrap.install_system_packages(["redis-server", "prometheus"])
    assert advice == "install redis-server and prometheus with the package manager of your system"


def test_a_failed_install_names_what_failed_only(machine: Path) -> None:
    add_program(machine, "brew", '[ "$2" = redis ]')
    advice = bootstrap.install_system_packages(["redis-server", "prometheus"])
    assert advice == "run, and see why it fails: brew install prometheus"


# --- the environment


def test_virtualenv_helps_where_venv_fails(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Debian without python3-venv; virtualenv is the real one."""
    script = f'[ "$2" = venv ] && {{ PATH=/bin:/usr/bin mkdir "$3"; exit 1; }}\nexec "{sys.executable}" "$@"'
    monkeypatch.setattr(bootstrap, "BASE_PYTHON", str(add_program(machine, "python", script)))
    environment = machine / "environment"
    bootstrap.ensure_environment(environment)
    assert bootstrap.is_usable(environment)
    bootstrap.ensure_environment(environment)
    assert [call.split()[2] for call in calls(machine)] == ["venv", "virtualenv"]


def test_the_system_is_asked_last_and_then_all_ways_are_tried_again(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = machine / "installed"
    script = f'[ "$2" = venv ] && [ -e "{installed}" ] && exec "{sys.executable}" -m virtualenv "$3"\nexit 1'
    monkeypatch.setattr(bootstrap, "BASE_PYTHON", str(add_program(machine, "python", script)))
    add_program(machine, "brew", f': > "{installed}"')
    bootstrap.ensure_environment(machine / "environment")
    assert bootstrap.is_usable(machine / "environment")
    assert "brew install virtualenv" in calls(machine)


def test_without_any_way_the_command_to_run_is_told(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BASE_PYTHON", str(add_program(machine, "python", "exit 1")))
    add_program(machine, "apt-get")
    add_program(machine, "sudo", "exit 1")
    with pytest.raises(bootstrap.SetupError, match=r"no environment: run: sudo apt-get .* python3-venv$"):
        bootstrap.ensure_environment(machine / "environment")
    assert not (machine / "environment").exists()


def test_a_folder_that_is_no_environment_is_left_alone(machine: Path) -> None:
    (machine / "photos").mkdir()
    with pytest.raises(bootstrap.SetupError, match="is no Python environment"):
        bootstrap.ensure_environment(machine / "photos")
    assert (machine / "photos").is_dir()


# --- the packages


def test_packages_are_installed_again_only_when_their_sources_change(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "environment" / "bin").mkdir(parents=True)
    add_program(machine / "environment" / "bin", "python")
    (machine / "pyproject.toml").write_text("one")
    log = machine / "environment" / "bin"

    bootstrap.ensure_packages(machine / "environment", "demo")
    bootstrap.ensure_packages(machine / "environment", "demo")
    assert len(calls(log)) == 1
    assert calls(log)[0].endswith("--editable .[server]")

    (machine / "pyproject.toml").write_text("two")
    bootstrap.ensure_packages(machine / "environment", "demo")
    assert len(calls(log)) == 2


def test_a_failed_installation_is_tried_again(machine: Path) -> None:
    (machine / "environment" / "bin").mkdir(parents=True)
    add_program(machine / "environment" / "bin", "python", "exit 1")
    (machine / "pyproject.toml").write_text("")
    for _ in range(2):
        with pytest.raises(bootstrap.SetupError, match="could not be installed"):
            bootstrap.ensure_packages(machine / "environment", "demo")
    assert len(calls(machine / "environment" / "bin")) == 2
