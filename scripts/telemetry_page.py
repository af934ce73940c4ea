"""Writes what telemetry emits into its page, and as a registry of OpenTelemetry's conventions, from what names declare.

`python -m scripts.telemetry_page` after a change of one of them; a test compares.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.names import Attribute, Metric, SpanKind, Use
from aurelis_cli.demo.metrics import series

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "telemetry.md"
REGISTRY = DOCS / "registry"

_INSTRUMENTS = {"counter": "counter", "gauge": "updowncounter", "histogram": "histogram"}
_STABILITY = "development"
_SHOWN = 8
"""Values at most that are in the table of metrics; more are in that of attributes alone."""


def query(metric: Metric) -> str:
    """Returns the example of a metric, with its name in Prometheus."""
    return metric.example.replace("$", series(metric))


# The page


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _used(use: Use) -> str:
    values = use.values or tuple(names.ATTRIBUTES[use.attribute].values)
    shown = values if use.values or len(values) <= _SHOWN else ()
    listed = ": " + ", ".join(f"`{value}`" for value in shown) if shown else ""
    return f"`{use.attribute}`{f' {use.only}' if use.only else ''}{listed}"


def _uses(uses: Iterable[Use]) -> str:
    return "; ".join(map(_used, uses))


def metrics_table() -> str:
    """Returns a row for each metric."""
    return _table(
        ("metric", "kind", "unit", "further attributes", "counted or recorded", "for example"),
        (
            (f"`{each.name}`", each.kind, f"`{each.unit}`", _uses(each.attributes), each.when, f"`{query(each)}`")
            for each in names.METRICS
        ),
    )


def attributes_table() -> str:
    """Returns a row for each value of an attribute, and one for each attribute whose values are not listed."""
    rows = []
    for each in names.ATTRIBUTES.values():
        examples = ", ".join(f"`{example}`" for example in each.examples)
        rows.append((f"`{each.name}`", f"for example {examples}" if examples else "", each.brief))
        rows += [("", f"`{value}`", meaning) for value, meaning in each.values.items()]
        if each.open:
            rows.append(("", "others", "what the app names so: layers of its own"))
    return _table(("attribute", "value", "meaning"), rows)


def spans_table() -> str:
    """Returns a row for each kind of span."""
    return _table(
        ("span", "what it is", "when", "attributes beside the name"),
        ((f"`{each.name}`", each.brief, each.when, _uses(each.attributes)) for each in names.SPANS),
    )


def number_of_series(config: CacheConfig) -> int:
    """Returns how many series a cache reports before anything has happened."""
    table = CacheManager(config)._engine.telemetry.table
    return sum(map(len, table.cells.values())) + len(table.gauges)


def sizes() -> str:
    """Returns how many series caches begin with."""
    memory = number_of_series(CacheConfig(name="memory"))
    redis = number_of_series(CacheConfig(name="redis", redis_url="redis://localhost:6379/0"))
    return (
        f"A cache in memory begins with {memory} series, one with Redis with {redis}, and none of them grows with keys "
        "or callers.\n"
        f"A histogram is as many series as it has buckets: {len(names.DURATION_BUCKETS) + 3} for each operation, layer "
        f"and type of error that occurs, {len(names.SIZE_BUCKETS) + 3} for each layer, and "
        f"{len(names.LAG_BUCKETS) + 3} with other processes."
    )


def written(page: str) -> str:
    """Returns the page with the tables as they should be."""
    tables = {
        "metrics": metrics_table(),
        "attributes": attributes_table(),
        "spans": spans_table(),
        "number of series": sizes(),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", "\n<!-- end -->"
        before, found, rest = page.partition(begin)
        if not found:
            raise ValueError(f"{PAGE} has no place for: {name}")
        page = before + begin + table + end + rest.partition(end)[2]
    return page


# The registry. Each value is written as JSON, which YAML contains.


def _line(key: str, value: object, indent: int) -> str:
    return f"{' ' * indent}{key}: {json.dumps(value, ensure_ascii=False)}"


def _item(fields: Mapping[str, object], indent: int) -> list[str]:
    """An item of a list, whose fields may be lists of items themselves."""
    lines: list[str] = []
    for key, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{' ' * (indent + 2)}{key}:")
            for each in value:
                lines += _item(each, indent + 4)
        elif isinstance(value, dict):
            lines.append(f"{' ' * (indent + 2)}{key}:")
            for inner, values in value.items():
                if isinstance(values, list):
                    lines.append(f"{' ' * (indent + 4)}{inner}:")
                    for each in values:
                        lines += _item(each, indent + 6)
                else:
                    lines.append(_line(inner, values, indent + 4))
        else:
            lines.append(_line(key, value, indent + 2))
    lines[0] = f"{' ' * indent}- {lines[0].lstrip()}"
    return lines


def _document(groups: Iterable[Mapping[str, object]]) -> str:
    lines = ["# Written by scripts/telemetry_page.py; do not edit.", "groups:"]
    for group in groups:
        lines += _item(group, 2)
    return "\n".join(lines) + "\n"


def _attribute(attribute: Attribute) -> dict[str, object]:
    kind: object = attribute.type
    if attribute.values:
        kind = {
            "members": [
                {"id": value, "value": value, "brief": meaning, "stability": _STABILITY}
                for value, meaning in attribute.values.items()
            ]
        }
    found: dict[str, object] = {
        "id": attribute.name,
        "type": kind,
        "stability": _STABILITY,
        "brief": attribute.brief,
    }
    if attribute.examples:
        found["examples"] = list(attribute.examples)
    return found


def _reference(use: Use) -> dict[str, object]:
    level: object = {"conditionally_required": use.only} if use.only else "required"
    found: dict[str, object] = {"ref": use.attribute, "requirement_level": level}
    if use.values:
        found["note"] = "One of: " + ", ".join(use.values) + "."
    return found


def _metric(metric: Metric) -> dict[str, object]:
    return {
        "id": f"metric.{metric.name}",
        "type": "metric",
        "metric_name": metric.name,
        "stability": _STABILITY,
        "brief": metric.description,
        "note": metric.when,
        "instrument": _INSTRUMENTS[metric.kind],
        "unit": metric.unit,
        "attributes": [_reference(Use(names.NAME)), *map(_reference, metric.attributes)],
    }


def _span(span: SpanKind) -> dict[str, object]:
    return {
        "id": f"span.{names.SCOPE}.{span.name.split()[0]}",
        "type": "span",
        "span_kind": "internal",
        "stability": _STABILITY,
        "brief": span.brief,
        "note": f"Its name is `{span.name}`. {span.when}",
        "attributes": [_reference(Use(names.NAME)), *map(_reference, span.attributes)],
    }


def registry() -> dict[str, str]:
    """Returns what the files of the registry should hold, by name."""
    foreign = [each for each in names.ATTRIBUTES.values() if each.foreign]
    groups = [
        {
            "id": f"registry.{names.SCOPE}",
            "type": "attribute_group",
            "display_name": "Attributes of aurelis-cache",
            "brief": "Attributes of the metrics and spans of a cache.",
            "attributes": [_attribute(each) for each in names.ATTRIBUTES.values() if not each.foreign],
        },
        {
            "id": f"registry.{names.SCOPE}.foreign",
            "type": "attribute_group",
            "display_name": "Attributes of OpenTelemetry",
            "brief": "Attributes of OpenTelemetry's conventions, as a cache uses them.",
            "attributes": [_attribute(each) for each in foreign],
        },
    ]
    return {
        "attributes.yaml": _document(groups),
        "metrics.yaml": _document(map(_metric, names.METRICS)),
        "spans.yaml": _document(map(_span, names.SPANS)),
    }


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
    for name, text in registry().items():
        (REGISTRY / name).write_text(text)
