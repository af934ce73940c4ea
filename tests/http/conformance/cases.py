"""The cases: data of a public suite, found beside the repository."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.conftest import ROOT

Kind = Literal["required", "optimal", "check"]

VARIABLE = "AURELIS_TESTS_HTTP_CASES"
"""Environment variable that names the folder of the cases."""


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation and what it has to prove.

    Attributes:
        depends_on: other cases without which the result of this one means nothing.
        requests: one mapping for each request and its answer, as in the file.
    """

    id: str
    kind: Kind
    depends_on: tuple[str, ...]
    requests: Sequence[Mapping[str, Any]]


def folder() -> Path:
    """Where the cases are, if they are anywhere."""
    shared = os.environ.get("AURELIS_TESTS_SHARED") or ROOT.parent / "shared"
    return Path(os.environ.get(VARIABLE) or Path(shared) / "http-cache-cases")


def load() -> dict[str, Case]:
    """The cases by id, in the order of the file."""
    data = json.loads((folder() / "cases.json").read_text(encoding="utf-8"))
    found = (test for suite in data["suites"] for test in suite["tests"])
    return {
        test["id"]: Case(test["id"], test["kind"], tuple(test.get("depends_on", ())), test["requests"])
        for test in found
    }
