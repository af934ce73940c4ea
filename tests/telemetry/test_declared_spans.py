"""Spans of a run of nearly everything are what is declared, and no key, URL or prompt is in them."""

from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from tests.managers import own_counts
from tests.servers import ServerProcess
from tests.telemetry.collecting import Metrics, record_spans
from tests.telemetry.whole_run import whole_run

TYPES: dict[str, type | tuple[type, ...]] = {"string": str, "int": int, "double": (int, float), "boolean": bool}
OF_OTHERS = "current"
"""A span that is none of ours, on which the result of what waited for nothing is set."""
NOT_HERE = {
    ("get {name}", names.KEY_HASH): "tests/telemetry/test_spans.py switches it on",
    ("fill {name}", names.KEY_HASH): "likewise",
    ("revalidate {name}", names.KEY_HASH): "likewise",
    (OF_OTHERS, names.KEY_HASH): "likewise",
    (OF_OTHERS, names.FWD): "tests/telemetry/test_spans.py has a request that is to bypass the cache",
    ("revalidate {name}", names.ERROR_TYPE): "tests/telemetry/test_refreshes.py has some that fail",
    ("recover {name}", names.ERROR_TYPE): "likewise",
    ("compare {name}", names.ERROR_TYPE): "what a judge raises is handled",
}
"""Attributes that the run need not bring about, and why."""


def undeclared(span: ReadableSpan, uses: dict[str, names.Use]) -> set[str]:
    """Returns what of our attributes is not declared for a span."""
    found = set()
    told: dict[str, Any] = dict(span.attributes or {})
    for name, value in told.items():
        if not name.startswith("aurelis.cache.") and name != names.ERROR_TYPE:
            continue
        if name == names.NAME:
            assert isinstance(value, str)
            continue
        use = uses.get(name)
        if use is None:
            found.add(f"{span.name.split()[0]} {name}")
            continue
        attribute = names.ATTRIBUTES[name]
        assert isinstance(value, TYPES[attribute.type]), (name, value)
        allowed = use.values or tuple(attribute.values)
        if allowed and value not in allowed and not attribute.open:
            found.add(f"{span.name.split()[0]} {name}={value}")
    return found


async def test_the_spans_of_a_run_are_what_is_declared(
    tmp_path: Path, redis_url: str, own_redis: ServerProcess
) -> None:
    recorder = record_spans()
    with own_counts():
        metrics = Metrics()

        def timed(cache: CacheManager) -> list[dict[str, Any]]:
            return [attributes for attributes, _ in metrics.points(names.DURATION, cache.config.name)]

        with trace.get_tracer("test").start_as_current_span(OF_OTHERS):
            await whole_run(tmp_path, redis_url, own_redis, lambda: None, timed)
    declared = {kind.name: {use.attribute: use for use in kind.attributes} for kind in names.SPANS}
    declared[OF_OTHERS] = {use.attribute: use for use in names.ANSWERED}
    wrong: set[str] = set()
    seen: dict[str, set[str]] = {}
    for span in recorder.ended():
        scope = span.instrumentation_scope
        ours = scope is not None and scope.name == names.SCOPE
        assert ours or span.name == OF_OTHERS, span.name
        kind = f"{span.name.split()[0]} {{name}}" if ours else OF_OTHERS
        wrong |= undeclared(span, declared[kind])
        told: dict[str, Any] = dict(span.attributes or {})
        seen.setdefault(kind, set()).update(told)
        missing = {use.attribute for use in declared[kind].values() if not use.only} - told.keys()
        assert not missing or names.ERROR_TYPE in told or kind == OF_OTHERS, (span.name, missing)
    assert wrong == set()
    assert seen.keys() == declared.keys()
    lacking = {
        (kind, name)
        for kind, uses in declared.items()
        for name in uses
        if name not in seen[kind] and (kind, name) not in NOT_HERE
    }
    assert lacking == set()
