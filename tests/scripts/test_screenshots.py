"""Pictures of the dashboards: which there are and where they are used, and what they are drawn from.

Drawing needs a browser and is left to `make screenshots`; what it is given is seen here, from a real Prometheus.
"""

import io
import json
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.screenshots import _dashboard, _pictures, _run
from scripts.screenshots._prometheus import Prometheus, Window
from tests import servers
from tests.conftest import ROOT

DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
PANELS = [panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]]
PAGES = [ROOT / "README.md", *DOCS.rglob("*.md")]
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")

# --- the pictures


def shown(page: Path) -> dict[Path, str]:
    """The pictures of a page, with what they say to those who do not see them."""
    return {(page.parent / place).resolve(): text for text, place in IMAGE.findall(page.read_text())}


@pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])
def test_each_dashboard_has_its_picture_in_the_page_about_them(name: str) -> None:
    pictures = shown(DOCS / "dashboards.md")
    assert len(pictures[IMAGES / f"{name}.png"].split()) >= 10


def test_each_picture_is_used_and_each_that_is_used_is_there() -> None:
    used = {picture for page in PAGES for picture in shown(page)}
    assert used == set(IMAGES.iterdir())
    assert IMAGES / "overview.png" in shown(ROOT / "README.md")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_picture_is_small_and_has_the_size_of_its_dashboard(path: Path) -> None:
    picture = IMAGES / f"{path.stem}.png"
    content = picture.read_bytes()
    assert len(content) <= _pictures.LARGEST
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    places = [panel["gridPos"] for panel in json.loads(path.read_text())["panels"]]
    drawn = struct.unpack(">II", content[16:24])
    assert drawn == (_dashboard.WIDTH, _dashboard.height(places)), "run: make screenshots"


def test_a_picture_gets_few_colours_and_keeps_its_size(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    Image.linear_gradient("L").convert("RGB").resize((300, 200)).save(drawn)
    with Image.open(io.BytesIO(_pictures.few_colours(drawn))) as small:
        assert (small.format, small.mode, small.size) == ("PNG", "P", (300, 200))


def test_a_picture_that_stays_large_is_refused(tmp_path: Path) -> None:
    drawn = tmp_path / "noise.png"
    Image.effect_noise((1000, 1000), 100).save(drawn)
    with pytest.raises(_pictures.DrawingError, match=r"the picture of noise has \d+ bytes, more than 400000"):
        _pictures.few_colours(drawn)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(_run.RunError, match="missing: redis-server, prometheus; install"):
        _run.record(tmp_path / "run", _run.LEAST)
    with pytest.raises(_pictures.DrawingError, match="missing: node; install"):
        _pictures.draw(tmp_path / "web", {})
    assert list(tmp_path.iterdir()) == []


# --- the page that draws


def test_each_type_of_panel_is_drawn() -> None:
    source = (_pictures.WEB / "src" / "panels.jsx").read_text()
    table = re.search(r"export const PANELS = \{(.*?)\};", source, re.DOTALL)
    assert table is not None
    drawn = {"row", *re.findall(r"^  '?([\w-]+)'?:", table[1], re.MULTILINE)}
    assert {panel["type"] for panel in PANELS} == drawn


def test_what_the_page_imports_is_among_its_packages() -> None:
    packages = json.loads((_pictures.WEB / "package.json").read_text())["dependencies"]
    sources = [path.read_text() for path in _pictures.WEB.rglob("*.*s*") if path.suffix in (".js", ".jsx", ".mjs")]
    found = {name for text in sources for name in re.findall(r"(?:from |import )'((?:@[\w-]+/)?[\w-]+)[^':]*'", text)}
    assert found <= set(packages)
    assert all(re.fullmatch(r"\^\d+\.\d+\.\d+", wanted) for wanted in packages.values())


def test_no_panel_asks_for_what_the_page_does_not_do() -> None:
    """Transformations, several calculations, and repeated panels would be left out in silence."""
    for panel in PANELS:
        assert not panel.get("transformations"), panel["title"]
        assert not panel.get("repeat"), panel["title"]
        assert not panel.get("collapsed"), panel["title"]
        matchers = {rule["matcher"]["id"] for rule in panel.get("fieldConfig", {}).get("overrides", [])}
        assert matchers <= {"byRegexp", "byName"}, panel["title"]


# --- what is drawn


@pytest.mark.parametrize(
    ("seconds", "points", "scrape", "expected"),
    [(180, 600, 1, 1), (1800, 600, 1, 2), (1800, 600, 15, 15), (3600, 600, 1, 5), (86400, 600, 1, 120)],
)
def test_an_interval_is_one_of_grafanas_and_never_finer_than_the_samples(
    seconds: int, points: int, scrape: int, expected: int
) -> None:
    assert _dashboard.interval(Window(0, seconds), points, scrape) == expected


def test_rates_look_at_four_samples_or_at_an_interval_and_one_more() -> None:
    window = Window(0, 600)
    assert _dashboard.times(window, 1, 1)["__rate_interval"] == "4s"
    assert _dashboard.times(window, 30, 5)["__rate_interval"] == "35s"
    assert _dashboard.times(window, 1, 1)["__range"] == "600s"


def test_what_is_shown_of_a_run_is_traffic_and_ends_behind_a_time_of_the_axis() -> None:
    for began in range(1_000_000, 1_000_000 + 2 * _run.TICK):
        window = _run.shown(began, _run.LEAST)
        assert began < window.start < window.end <= began + _run.LEAST
        assert window.end % _run.TICK == 25
        assert window.seconds >= _run.LEAST / 2


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Window]]:
    """One with the series `sample` of two instances, and the last seconds."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = folder / "sample.rules.yml"
    recorded = [
        {"record": "sample", "expr": f"vector({value})", "labels": {"job": "a", "instance": instance}}
        for value, instance in ((1, "one.example"), (2, "two+2"), ("1/0", "three"))
    ]
    rules.write_text(json.dumps({"groups": [{"name": "samples", "rules": recorded}]}))
    (folder / "targets.json").write_text("[]")
    server = servers.prometheus(folder, [folder / "targets.json"], [rules])
    server.start()
    try:
        servers.until(lambda: len(servers.query_prometheus(server, "count_over_time(sample[10s]) > 2")) == 3, "samples")
        now = int(time.time())
        yield Prometheus(server.url), Window(now - 60, now)
    finally:
        server.stop()


def dashboard(*targets: dict[str, Any], all_value: str | None = None) -> dict[str, Any]:
    """One panel, and a variable for instances."""
    every = {"current": {"text": ["All"], "value": ["$__all"]}, "allValue": all_value, "type": "query"}
    return {
        "title": "A dashboard",
        "refresh": "10s",
        "links": [],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                {
                    **every,
                    "name": "instance",
                    "label": "Instance",
                    "query": {"query": "label_values(sample, instance)"},
                },
                {"name": "n", "label": "N", "type": "custom", "current": {"text": "three", "value": "3"}},
            ]
        },
        "panels": [
            {
                "title": "A panel",
                "type": "timeseries",
                "gridPos": {"x": 12, "y": 1, "w": 12, "h": 8},
                "targets": list(targets),
            }
        ],
    }


def resolved(given: dict[str, Any], prometheus: tuple[Prometheus, Window]) -> Any:
    return _dashboard.resolved(given, *prometheus, 1)


def test_series_have_the_names_of_their_legend_and_values_that_can_be_drawn(
    prometheus: tuple[Prometheus, Window],
) -> None:
    target = {"refId": "A", "expr": 'sample{instance=~"$instance"} * $n', "legendFormat": "{{instance}}: {{absent}}"}
    (panel,) = resolved(dashboard(target), prometheus)["panels"]
    (query,) = panel["queries"]
    last = {series["name"]: series["values"][-1] for series in query["series"]}
    assert last == {"one.example:": 3, "two+2:": 6, "three:": None}
    assert query["interval"] == 1000
    window = prometheus[1]
    assert query["times"] == [1000 * moment for moment in range(window.start, window.end + 1)]
    assert {len(series["values"]) for series in query["series"]} == {len(query["times"])}
    # It began to sample later than that.
    assert all(series["values"][0] is None for series in query["series"])


def test_a_single_value_is_the_one_at_the_end(prometheus: tuple[Prometheus, Window]) -> None:
    target = {"refId": "A", "expr": "sum(sample < 3) + ${n}", "legendFormat": "Sum", "instant": True}
    found = resolved(dashboard(target, all_value=".+"), prometheus)
    (query,) = found["panels"][0]["queries"]
    (series,) = query["series"]
    assert (series["name"], series["values"], query["times"]) == ("Sum", [6], [prometheus[1].end * 1000])


def test_all_is_a_pattern_of_the_values_that_there_are(prometheus: tuple[Prometheus, Window]) -> None:
    """Each is a value, and not a pattern itself; in a string of PromQL a backslash is two."""
    given = dashboard(all_value=None)
    variable = given["templating"]["list"][1]
    assert _dashboard.everything(variable, {}, *prometheus) == r"(one\\.example|three|two\\+2)"


def test_what_is_shown_above_the_panels(prometheus: tuple[Prometheus, Window]) -> None:
    texts = {each["label"]: each["text"] for each in resolved(dashboard(), prometheus)["variables"]}
    assert texts == {"Data source": "Prometheus", "Instance": "All", "N": "three"}


def test_an_unknown_variable_is_refused(prometheus: tuple[Prometheus, Window]) -> None:
    target = {"refId": "A", "expr": 'sample{instance="$other"}', "legendFormat": ""}
    with pytest.raises(ValueError, match=r"\$other is no variable"):
        resolved(dashboard(target), prometheus)


def test_a_query_that_is_not_understood_is_told(prometheus: tuple[Prometheus, Window]) -> None:
    with pytest.raises(ValueError, match=r"Prometheus refuses .*sum\(.*parse error"):
        resolved(dashboard({"refId": "A", "expr": "sum(", "legendFormat": ""}), prometheus)


def test_panels_without_a_number_are_told(prometheus: tuple[Prometheus, Window]) -> None:
    target = {"refId": "A", "expr": "sample / 0 > 0 < 0", "legendFormat": ""}
    assert _dashboard.empty(resolved(dashboard(target), prometheus)) == ["A panel"]
    target["expr"] = "sample"
    assert _dashboard.empty(resolved(dashboard(target), prometheus)) == []


def test_panels_lie_in_the_grid_beside_each_other() -> None:
    left, right = (_dashboard.box({"x": x, "y": 0, "w": 12, "h": 8}) for x in (0, 12))
    assert left["x"] + left["width"] + 8 == pytest.approx(right["x"])
    assert right["x"] + right["width"] + left["x"] == pytest.approx(_dashboard.WIDTH)
    assert left["height"] == 296
