"""What the runs mean: a failure counts only where everything that the case stands on works."""

from collections import Counter
from collections.abc import Mapping

from tests.http.conformance.cases import Case
from tests.http.conformance.play import Result

GOOD = frozenset({"pass", "yes"})
_VERDICTS = {
    "required": ("pass", "fail"),
    "optimal": ("pass", "optional_fail"),
    "check": ("yes", "no"),
}


def judge(cases: Mapping[str, Case], results: Mapping[str, Result]) -> dict[str, str]:
    """The verdict on each case: `pass`, `fail`, `optional_fail`, `yes`, `no`, or why there is none."""
    verdicts: dict[str, str] = {}

    def verdict(name: str) -> str:
        if name not in verdicts:
            case, result = cases[name], results[name]
            if any(verdict(other) not in GOOD for other in case.depends_on):
                verdicts[name] = "dependency_fail"
            elif result.outcome in ("setup", "retry", "error"):
                verdicts[name] = {"setup": "setup_fail", "retry": "retry", "error": "harness_fail"}[result.outcome]
            else:
                verdicts[name] = _VERDICTS[case.kind][result.outcome != "success"]
        return verdicts[name]

    return {name: verdict(name) for name in cases}


def table(cases: Mapping[str, Case], results: Mapping[str, Result], verdicts: Mapping[str, str]) -> str:
    """The counts by kind, and each case that did not end well, for people."""
    lines = []
    for kind in ("required", "optimal", "check"):
        of_kind = [name for name in cases if cases[name].kind == kind]
        counts = Counter(verdicts[name] for name in of_kind)
        good = sum(counts[verdict] for verdict in GOOD)
        rest = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()) if verdict not in GOOD)
        lines.append(f"{kind:<9} {good:>3} of {len(of_kind):>3}  {rest}")
    for name, verdict in verdicts.items():
        if verdict not in GOOD:
            lines.append(f"  {cases[name].kind:<9} {verdict:<15} {name}  {results[name].detail}")
    return "\n".join(lines)
