"""The page on telemetry and the registry say what is declared, and what is declared agrees with itself."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from aurelis.cache.telemetry import names
from scripts import telemetry_page

PAGE = telemetry_page.PAGE.read_text()
FILES = {path.name: path.read_text() for path in telemetry_page.REGISTRY.glob("*.yaml")}

TYPES = {"string", "int", "double", "boolean"}
STABILITIES = {"stable", "development", "alpha", "beta", "release_candidate"}
INSTRUMENTS = {"counter", "gauge", "histogram", "updowncounter"}
OF_GROUPS = {"id", "type", "brief", "note", "attributes", "display_name", "stability"}
OF_SIGNALS = {"metric": {"metric_name", "instrument", "unit"}, "span": {"span_kind"}, "attribute_group": set()}
ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*(?:\.[a-z][a-z0-9]*(?:_[a-z0-9]+)*)+")


def groups() -> Iterator[dict[str, Any]]:
    for text in FILES.values():
        document = yaml.safe_load(text)
        assert set(document) == {"groups"}
        yield from document["groups"]


def signals() -> list[dict[str, Any]]:
    return [group for group in groups() if group["type"] != "attribute_group"]


# --- the page


def test_the_page_is_what_the_declarations_say() -> None:
    assert telemetry_page.written(PAGE) == PAGE, "run: python -m scripts.telemetry_page"


def test_the_registry_is_what_the_declarations_say() -> None:
    assert telemetry_page.registry() == FILES, "run: python -m scripts.telemetry_page"


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for: metrics"):
        telemetry_page.written("# A page\n")


def test_the_table_lists_every_metric_with_kind_and_unit_and_no_other() -> None:
    rows = re.findall(r"^\| `(aurelis\.cache\.[a-z_.]+)` \| (\w+) \| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert rows == [(metric.name, metric.kind, metric.unit) for metric in names.METRICS]


def test_every_attribute_is_on_the_page() -> None:
    assert [name for name in names.ATTRIBUTES if f"| `{name}` |" not in PAGE] == []


def test_what_the_page_names_is_declared() -> None:
    """The text between the tables, too."""
    declared = {*names.ATTRIBUTES, *(metric.name for metric in names.METRICS)}
    assert set(re.findall(r"`(aurelis\.cache\.[a-z_]+(?:\.[a-z_]+)*)`", PAGE)) <= declared


# --- the declarations


def test_every_attribute_that_has_a_name_is_declared() -> None:
    constants = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}
    attributes = {value for value in constants if value.startswith(names.SCOPE + ".")}
    assert attributes
    assert attributes <= names.ATTRIBUTES.keys()


@pytest.mark.parametrize("signal", [*names.METRICS, *names.SPANS], ids=lambda signal: signal.name)
def test_a_signal_has_attributes_that_are_declared_with_values_that_they_have(
    signal: names.Metric | names.SpanKind,
) -> None:
    used = [use.attribute for use in signal.attributes]
    assert len(set(used)) == len(used)
    for use in signal.attributes:
        assert set(use.values) <= names.ATTRIBUTES[use.attribute].values.keys()
        assert use.attribute != names.NAME


def test_every_value_of_an_attribute_is_of_use_to_some_metric() -> None:
    used: dict[str, set[str]] = {}
    for metric in names.METRICS:
        for use in metric.attributes:
            values = use.values or tuple(names.ATTRIBUTES[use.attribute].values)
            used.setdefault(use.attribute, set()).update(values)
    for attribute, found in used.items():
        assert found == set(names.ATTRIBUTES[attribute].values), attribute


def test_what_begins_with_zero_is_declared() -> None:
    for attribute, values in (
        (names.STALE_REASON, names.STALE_REASONS),
        (names.GAP_REASON, names.GAP_REASONS),
        (names.BREAKER_STATE, names.BREAKER_STATES),
        (names.VERDICT, names.VERDICTS),
        (names.SIMILARITY_RESULT, names.SIMILARITY_RESULTS),
        (names.RECOVERY_RESULT, names.RECOVERY_RESULTS),
        (names.KIND, names.MESSAGE_KINDS),
    ):
        assert set(values) == set(names.ATTRIBUTES[attribute].values), attribute
    assert set(names.STORE_RESULTS) <= names.ATTRIBUTES[names.STORE_RESULT].values.keys()
    assert set(names.REFRESH_REASONS) <= names.ATTRIBUTES[names.REFRESH_REASON].values.keys()


def test_a_metric_follows_the_conventions() -> None:
    """Counters end in no `total`, units are UCUM, and none has the unit 1, which exporters name differently."""
    for metric in names.METRICS:
        assert ATTRIBUTE_NAME.fullmatch(metric.name)
        assert metric.unit in ("s", "By") or re.fullmatch(r"\{\w+\}", metric.unit)
        assert not metric.name.endswith((".total", "_total"))
        assert metric.when
        assert metric.example.count("$")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert bool(metric.buckets) == (metric.kind == "histogram")


# --- the registry, by the rules of the format that OpenTelemetry's tools read


@pytest.mark.parametrize("group", list(groups()), ids=lambda group: group["id"])
def test_a_group_of_the_registry_has_what_the_format_demands(group: dict[str, Any]) -> None:
    kind = group["type"]
    assert {"id", "type", "brief", "attributes"} <= group.keys() <= OF_GROUPS | OF_SIGNALS[kind]
    assert OF_SIGNALS[kind] <= group.keys()
    if kind == "attribute_group":
        for attribute in group["attributes"]:
            _check_definition(attribute)
        return
    assert group["stability"] in STABILITIES
    for reference in group["attributes"]:
        assert {"ref"} <= reference.keys() <= {"ref", "requirement_level", "note"}
        level = reference["requirement_level"]
        assert level == "required" or (list(level) == ["conditionally_required"] and level["conditionally_required"])
    if kind == "metric":
        assert group["id"] == f"metric.{group['metric_name']}"
        assert group["instrument"] in INSTRUMENTS
        assert group["unit"]
    else:
        assert group["id"].startswith("span.")
        assert group["span_kind"] == "internal"


def _check_definition(attribute: dict[str, Any]) -> None:
    assert {"id", "type", "stability", "brief"} <= attribute.keys() <= {"id", "type", "stability", "brief", "examples"}
    assert ATTRIBUTE_NAME.fullmatch(attribute["id"])
    assert attribute["stability"] in STABILITIES
    kind = attribute["type"]
    if isinstance(kind, dict):
        assert list(kind) == ["members"]
        ids = [member["id"] for member in kind["members"]]
        assert len(set(ids)) == len(ids) > 0
        for member in kind["members"]:
            assert member.keys() == {"id", "value", "brief", "stability"}
            assert all(isinstance(value, str) for value in member.values())
    else:
        assert kind in TYPES
        assert kind != "string" or attribute["examples"], "those of a text must be given"


def test_ids_are_there_once_and_references_lead_somewhere() -> None:
    ids = [group["id"] for group in groups()]
    assert len(set(ids)) == len(ids)
    defined = [
        attribute["id"] for group in groups() if group["type"] == "attribute_group" for attribute in group["attributes"]
    ]
    assert len(set(defined)) == len(defined)
    assert {reference["ref"] for group in signals() for reference in group["attributes"]} <= set(defined)


def test_the_registry_has_every_metric_and_span() -> None:
    assert [group["metric_name"] for group in signals() if group["type"] == "metric"] == [
        metric.name for metric in names.METRICS
    ]
    assert len([group for group in signals() if group["type"] == "span"]) == len(names.SPANS)
