"""Sets up what a make target needs on a machine with nothing but Python: environment, packages, servers.

It runs before anything is installed, hence the standard library only.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Inside an active environment `sys.executable` may be the very one that is to be replaced.
BASE_PYTHON: str = getattr(sys, "_base_executable", sys.executable)


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one make target needs."""

    extra: str
    requirements: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()


PROFILES: Mapping[str, Profile] = {
    "demo": Profile("server"),
    "test": Profile("all", ("tests/requirements.txt",), ("redis-server", "prometheus")),
    "compat": Profile("all", ("tests/requirements.txt", "tests/compat/requirements.txt")),
    "screenshots": Profile(
        "all", ("tests/requirements.txt",), ("redis-server", "prometheus", "chromium", "node", "npm")
    ),
    "bench": Profile("all", ("tests/requirements.txt", "tests/benchmarks/requirements.txt"), ("redis-server",)),
}


@dataclass(frozen=True, slots=True)
class PackageManager:
    """How one system installs a package, and its names for what we may need."""

    refresh: tuple[str, ...]
    install: tuple[str, ...]
    packages: Mapping[str, str]
    needs_root: bool = True


PACKAGE_MANAGERS: Mapping[str, PackageManager] = {
    "apt-get": PackageManager(
        # A machine that has just started may still be updating itself: wait for its lock.
        refresh=("apt-get", "-o", "DPkg::Lock::Timeout=120", "update"),
        install=(
            *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"),
            *("install", "--yes", "--no-install-recommends"),
        ),
        packages={
            "venv": "python3-venv",
            "redis-server": "redis-server",
            "prometheus": "prometheus",
            "chromium": "chromium",
            "node": "nodejs",
            "npm": "npm",
        },
    ),
    "dnf": PackageManager(
        refresh=(),
        install=("dnf", "install", "--assumeyes"),
        packages={
            "venv": "python3-virtualenv",
            "redis-server": "redis",
            "prometheus": "golang-github-prometheus",
            "chromium": "chromium",
            "node": "nodejs",
            "npm": "nodejs-npm",
        },
    ),
    "apk": PackageManager(
        refresh=("apk", "update"),
        install=("apk", "add"),
        packages={
            "venv": "py3-virtualenv",
            "redis-server": "redis",
            "prometheus": "prometheus",
            "chromium": "chromium",
            "node": "nodejs",
            "npm": "npm",
        },
    ),
    "brew": PackageManager(
        refresh=(),
        install=("brew", "install"),
        packages={
            "venv": "virtualenv",
            "redis-server": "redis",
            "prometheus": "prometheus",
            "chromium": "google-chrome",
            "node": "node",
            "npm": "node",
        },
        needs_root=False,
    ),
}


def say(message: str) -> None:
    """Tells the user what is going on, before the output of what comes next."""
    print(f"setup: {message}", flush=True)


def run(command: Sequence[str], *, quiet: bool = False, environ: Mapping[str, str] | None = None) -> bool:
    """Runs a command in the repository without standard input and says whether it succeeded."""
    output = subprocess.DEVNULL if quiet else None
    try:
        completed = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    except OSError:
        return False
    return completed.returncode == 0


# --- the system's packages


def find_package_manager() -> PackageManager | None:
    """Returns the package manager of this system, if it is one we know."""
    return next((manager for name, manager in PACKAGE_MANAGERS.items() if shutil.which(name)), None)


def privilege(manager: PackageManager) -> tuple[str, ...] | None:
    """Returns what to put before a command of the manager; `None`: we may not use it."""
    if not manager.needs_root or os.geteuid() == 0:
        return ()
    return ("sudo", "-n") if run(("sudo", "-n", "true"), quiet=True) else None


def command_for_user(manager: PackageManager, needs: Iterable[str]) -> str:
    """Returns the line to type where we may not install by ourselves."""
    sudo = ("sudo",) if manager.needs_root and os.geteuid() != 0 else ()
    install = (*sudo, *manager.install, *(manager.packages[need] for need in needs))
    steps = [(*sudo, *manager.refresh), install] if manager.refresh else [install]
    return " && ".join(" ".join(step) for step in steps)


def install_system_packages(needs: Sequence[str]) -> str | None:
    """Installs the packages for `needs`; returns `None`, or else what the user should do."""
    manager = find_package_manager()
    if manager is None:
        return f"install {' and '.join(needs)} with the package manager of your system"
    prefix = privilege(manager)
    if prefix is None:
        return f"run: {command_for_user(manager, needs)}"
    if manager.refresh:
        run((*prefix, *manager.refresh), quiet=True)
    # One by one: a package that a system lacks must not keep the others away.
    failed = [need for need in needs if not run((*prefix, *manager.install, manager.packages[need]))]
    return f"run, and see why it fails: {command_for_user(manager, failed)}" if failed else None


def ensure_servers(names: Iterable[str]) -> None:
    """Installs the servers that are absent; where that is impossible, tells the user how to."""
    missing = [name for name in names if shutil.which(name) is None]
    if not missing:
        return
    say(f"installing {' and '.join(missing)}")
    advice = install_system_packages(missing)
    if advice is not None:
        say(f"what needs a server that is missing will be skipped; to have it, {advice}")


# --- the environment


def is_usable(environment: Path) -> bool:
    """Says whether the environment can install packages."""
    return run((str(environment / "bin" / "python"), "-m", "pip", "--version"), quiet=True)


def make_with_venv(environment: Path) -> None:
    """Uses the standard library; Debian keeps the `ensurepip` it needs in another package."""
    run((BASE_PYTHON, "-m", "venv", str(environment)), quiet=True)


def make_with_virtualenv(environment: Path) -> None:
    """Uses a virtualenv that is already installed."""
    run((BASE_PYTHON, "-m", "virtualenv", str(environment)), quiet=True)


def make_with_uv(environment: Path) -> None:
    """Uses uv, seeded with the pip that installs the packages in every case."""
    run(("uv", "venv", "--seed", "--python", BASE_PYTHON, str(environment)), quiet=True)


def make_with_downloaded_virtualenv(environment: Path) -> None:
    """Lets pip put virtualenv into a folder of its own, which also a managed Python allows."""
    folder = str(ROOT / ".cache" / "virtualenv")
    install = ("install", "--quiet", "--upgrade", "--target", folder, "virtualenv")
    if run((BASE_PYTHON, "-m", "pip", *install), quiet=True):
        run((BASE_PYTHON, "-m", "virtualenv", str(environment)), quiet=True, environ={"PYTHONPATH": folder})


MAKERS: tuple[Callable[[Path], None], ...] = (
    make_with_venv,
    make_with_virtualenv,
    make_with_uv,
    make_with_downloaded_virtualenv,
)


def made_by_any(environment: Path) -> bool:
    """Tries every way to make the environment; what a failed one leaves behind is removed."""
    for make in MAKERS:
        make(environment)
        if is_usable(environment):
            return True
        shutil.rmtree(environment, ignore_errors=True)
    return False


def make_environment(environment: Path) -> None:
    """Makes the environment, if need be with the help of the system's package manager.

    Raises:
        SetupError: no way works.
    """
    say(f"making {environment} with {BASE_PYTHON}")
    if made_by_any(environment):
        return
    say("this Python can make no environment (no venv with ensurepip, virtualenv, uv or pip)")
    advice = install_system_packages(["venv"])
    if advice is not None:
        raise SetupError(f"no environment: {advice}")
    if not made_by_any(environment):
        raise SetupError(f"{BASE_PYTHON} makes no environment; choose another: make PYTHON=/path/to/python3")


def ensure_environment(environment: Path) -> None:
    """Makes the environment unless it is there, for this Python and this place (scripts know their path)."""
    stamp = environment / ".made-by"
    identity = f"{sys.base_prefix}\n{sys.version}\n{ROOT}\n"
    if stamp.is_file() and stamp.read_text() == identity and is_usable(environment):
        return
    if environment.exists() and not (environment / "pyvenv.cfg").is_file():
        raise SetupError(f"{environment} is no Python environment; remove it or choose another: make VENV=…")
    shutil.rmtree(environment, ignore_errors=True)
    make_environment(environment)
    stamp.write_text(identity)


# --- the packages


def fingerprint(profile: Profile) -> str:
    """Returns a digest of all that decides what the profile installs."""
    digest = hashlib.sha256(profile.extra.encode())
    for name in ("pyproject.toml", *profile.requirements):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def ensure_packages(environment: Path, name: str) -> None:
    """Installs the packages of the profile unless its stamp says that this has been done.

    Raises:
        SetupError: pip failed; it has printed why.
    """
    profile = PROFILES[name]
    stamp = environment / f".installed-{name}"
    wanted = fingerprint(profile)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    say("installing packages; the first time this takes a while")
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", "-qq"]  # errors only
    command += ["--editable", f".[{profile.extra}]"]
    for requirements in profile.requirements:
        command += ["--requirement", requirements]
    if not run(command, environ={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}):
        raise SetupError("the packages could not be installed, see above")
    stamp.write_text(wanted)


def main() -> int:
    """Sets up one profile; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", choices=PROFILES)
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="folder of the environment")
    arguments = parser.parse_args()
    environment = ROOT / arguments.venv
    try:
        ensure_environment(environment)
        ensure_packages(environment, arguments.profile)
        ensure_servers(PROFILES[arguments.profile].servers)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
