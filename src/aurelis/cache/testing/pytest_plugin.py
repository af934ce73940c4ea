"""A fixture for pytest: `cassette`, a folder of recordings for each test.

To be named in the `conftest.py` at the top: `pytest_plugins = ["aurelis.cache.testing.pytest_plugin"]`. What was
recorded is replayed, and the network is never asked, unless `--cassette-mode` or the setting `cassette_mode` says
`auto` or `record`. `@pytest.mark.cassette(path=…, mode=…, scrub=…)` says it for one test.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from .cassettes import Cassette

_FAILED = pytest.StashKey[bool]()
_MODES = ("record", "replay", "auto")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting."""
    help_text = "replay what cassettes have (replay), and record what they have not (auto), or everything (record)"
    parser.getgroup("aurelis-cache").addoption("--cassette-mode", choices=_MODES, default=None, help=help_text)
    parser.addini("cassette_mode", help_text, default="replay")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "cassette(path, mode, scrub): where and how the fixture `cassette` records")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether the test itself has failed."""
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Iterator[Cassette]:
    """The cassette of a test, below `cassettes` beside its file.

    A test that made a call which was not recorded fails, even if its code has caught the error.
    """
    mark = request.node.get_closest_marker("cassette")
    options = dict(mark.kwargs) if mark is not None else {}
    path = options.pop("path", None)
    mode = options.pop("mode", None)
    mode = request.config.getoption("--cassette-mode") or mode or request.config.getini("cassette_mode")
    file = request.path
    name = request.node.nodeid.partition("::")[2]  # with its class
    folder = _own_folder(file, name) if path is None else file.parent / path
    found = Cassette(folder, mode, **options)
    yield found
    if found.unmatched and not request.node.stash.get(_FAILED, False):
        pytest.fail("\n\n".join(map(str, found.unmatched)), pytrace=False)


def _own_folder(file: Path, test: str) -> Path:
    """A folder with a name that any system takes, and no two tests have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", test)[:80].strip("-.")
    if name != test:
        name = f"{name}-{blake2b(test.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"
    return file.parent / "cassettes" / file.stem / name
