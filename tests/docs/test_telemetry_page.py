"""The page on telemetry says what the code emits."""

import re
from pathlib import Path

from aurelis.cache.telemetry import names

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "telemetry.md").read_text()


def test_the_table_lists_every_metric_with_kind_and_unit_and_no_other() -> None:
    rows = re.findall(r"^\| `(aurelis\.cache\.[a-z_.]+)` \| (\w+) \| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert rows == [(metric.name, metric.kind, metric.unit) for metric in names.METRICS]


def test_every_attribute_is_on_the_page() -> None:
    constants = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}
    attributes = {value for value in constants if value.startswith(names.SCOPE + ".") and value[-1] != "."}
    assert attributes
    assert {attribute for attribute in attributes if f"`{attribute}`" not in PAGE} == set()
