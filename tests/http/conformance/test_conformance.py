"""The public conformance cases, each played in several ways; exactly those that are named in `expected` do not pass."""

import re
from collections.abc import Awaitable, Callable, Mapping

import pytest

from tests.conftest import MISSING_SHARED, ROOT
from tests.http.conformance import runs
from tests.http.conformance.cases import VARIABLE, Case, folder, load
from tests.http.conformance.expected import BY_RUN, OF_THE_LIBRARYS_CONNECTIONS
from tests.http.conformance.judge import GOOD, judge, table
from tests.http.conformance.play import Result

Run = Callable[[Mapping[str, Case]], Awaitable[dict[str, Result]]]


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """The cases, where they are at hand."""
    if not (folder() / "cases.json").is_file():
        pytest.skip(f"{MISSING_SHARED}{folder()}; {VARIABLE} may name another")
    return load()


@pytest.mark.parametrize("run", [getattr(runs, name) for name in BY_RUN])
async def test_all_cases_but_the_named_ones_pass(cases: dict[str, Case], run: Run) -> None:
    results = await run(cases)
    verdicts = judge(cases, results)
    print(f"\n{run.__name__}\n{table(cases, results, verdicts)}")  # noqa: T201  # shown with -s, and when it fails
    expected = BY_RUN[run.__name__]
    failed = {name for name, verdict in verdicts.items() if verdict not in GOOD}
    assert failed - expected.keys() == set(), "these should pass"
    assert expected.keys() - failed == set(), "these pass by now"


async def test_the_librarys_connections_give_no_interim_responses(cases: dict[str, Case]) -> None:
    interim = runs.of_interim_responses(cases)
    results = await runs.through_the_librarys_connections(interim)
    wanting = {name for name, result in results.items() if "interim responses []" in result.detail}
    assert wanting == OF_THE_LIBRARYS_CONNECTIONS.keys() == interim.keys(), results


def test_what_does_not_pass_is_on_the_page_about_it() -> None:
    page = (ROOT / "docs" / "http-conformance.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:304|ccreq|conditional|heuristic|interim|other)-[\w-]+)`", page))
    assert named == set().union(*BY_RUN.values())
