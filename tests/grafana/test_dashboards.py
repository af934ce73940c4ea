"""The dashboards: what their script builds, what they draw, and where their links go.

That each query has data is seen in tests/demo, on a Prometheus.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model

from aurelis.cache.telemetry import names
from aurelis_cli.demo.metrics import label, series
from scripts.dashboards import files
from tests import servers
from tests.conftest import ROOT
from tests.demo.observed import EXPRESSIONS
from tests.grafana.test_alerts import RECORDING
from tests.servers import ServerProcess

FOLDER = files.FOLDER
DOCUMENTS: dict[str, dict[str, Any]] = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
UIDS = {document["uid"] for document in DOCUMENTS.values()}
OTHERS = {"http_server_request_duration_seconds", "ALERTS"}
"""What the framework's own instrumentation and Prometheus give."""
NAME_OF_SERIES = re.compile(r'(?<![\w"$])([a-zA-Z_:][\w:]*)\{|__name__="(\w+)"')


def panels() -> Iterator[Any]:
    for name, document in sorted(DOCUMENTS.items()):
        for panel in document["panels"]:
            if panel["type"] != "row":
                yield pytest.param(document, panel, id=f"{name} {panel['title']}")


def expressions() -> Iterator[str]:
    """All that is asked of Prometheus, for variables too."""
    for document in DOCUMENTS.values():
        yield from (target["expr"] for panel in document["panels"] for target in panel.get("targets", []))
        for variable in document["templating"]["list"]:
            if variable["type"] == "query":
                yield variable["query"]["query"]


def family(name: str) -> str:
    """The metric of a series: a histogram has several."""
    return re.sub(r"_(bucket|count|sum)$", "", name)


def drawn() -> set[str]:
    return {found[1] or found[2] for text in expressions() for found in NAME_OF_SERIES.finditer(text)}


def test_the_files_are_what_the_script_builds() -> None:
    texts = files.texts()
    assert sorted(texts) == sorted(DOCUMENTS)
    for name, text in texts.items():
        assert (FOLDER / name).read_text() == text, "run: python -m scripts.dashboards"


def test_every_metric_is_drawn_and_nothing_that_is_not_emitted() -> None:
    emitted = {series(metric) for metric in names.METRICS}
    recorded = set(re.findall(r"- record: (\S+)", RECORDING.read_text()))
    found = {name if name in emitted | recorded else family(name) for name in drawn()}
    assert emitted - found == set()
    assert found - emitted - recorded - OTHERS == set()


def test_every_attribute_in_a_query_or_a_legend_is_one_of_telemetry() -> None:
    attributes = {label(value) for value in vars(names).values() if isinstance(value, str)}
    legends = [
        target["legendFormat"]
        for document in DOCUMENTS.values()
        for panel in document["panels"]
        for target in panel.get("targets", [])
    ]
    labels = {name for text in expressions() for name in re.findall(r'(\w+)(?:=~|!~|!=|=)"', text)}
    labels |= {
        name for text in expressions() for by in re.findall(r"(?:by|on) \(([^)]*)\)", text) for name in by.split(", ")
    }
    labels |= {name for text in legends for name in re.findall(r"{{(\w+)}}", text)}
    of_prometheus = {"", "__name__", "job", "instance", "le", "alertname", "alertstate", "severity"}
    of_http = {"http_route", "http_response_status_code"}
    assert labels - attributes == labels & (of_prometheus | of_http)
    assert label(names.NAME) in labels


@pytest.mark.parametrize(("document", "panel"), list(panels()))
def test_a_panel_says_what_it_shows_and_what_to_do(document: dict[str, Any], panel: dict[str, Any]) -> None:
    assert len(panel["description"].split()) >= 15
    assert panel["description"].count(". ") >= 1, "the second sentence is for when it is bad"
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters) > 0
    if panel["type"] in ("stat", "state-timeline"):
        assert len(defaults["thresholds"]["steps"]) >= 2
    titles = [each["title"] for each in document["panels"]]
    assert titles.count(panel["title"]) == 1


def test_panels_that_are_named_elsewhere_are_there() -> None:
    """In other panels, and in what to do about an alert."""
    every = [panel for document in DOCUMENTS.values() for panel in document["panels"]]
    titles = {panel["title"] for panel in every}
    named = {name for panel in every for name in re.findall(r'"([A-Z][^"]+)"', panel.get("description", ""))}
    named |= set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*", (ROOT / "docs" / "alerts.md").read_text()))
    assert named - titles == set()
    assert len(named) > 15


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_dashboard_has_the_variables_and_leads_to_the_others_and_to_traces(name: str) -> None:
    document = DOCUMENTS[name]
    variables = {each["name"]: each for each in document["templating"]["list"]}
    assert list(variables)[:5] == ["datasource", "traces", "job", "instance", "name"]
    assert (variables["datasource"]["query"], variables["traces"]["query"]) == ("prometheus", "tempo")
    siblings, traces = document["links"]
    assert set(siblings["tags"]) <= set(document["tags"])
    assert siblings["includeVars"]
    assert siblings["keepTime"]
    # Grafana puts in values for what looks so; all else is read by Explore.
    pane = json.loads(parse_qs(urlsplit(traces["url"]).query)["panes"][0])["traces"]
    assert pane["datasource"] == "${traces}"
    assert pane["queries"][0]["query"] == '{ span.aurelis.cache.name =~ "${name:pipe}" }'
    assert re.findall(r"\$\{[^}]*\}", traces["url"]) == re.findall(r"\$\{[^}]*\}", unquote(traces["url"]))


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("chosen", ["web|models", None], ids=["two caches", "all"])
def test_a_link_to_traces_asks_for_the_chosen_caches(name: str, chosen: str | None) -> None:
    """As Grafana fills it in and reads it: what stands for all is not encoded."""
    document = DOCUMENTS[name]
    variables = {each["name"]: each for each in document["templating"]["list"]}
    names_of_caches = chosen or variables["name"].get("allValue") or "faq|models"
    values = {"name:pipe": names_of_caches, "traces": "tempo", "__from": "1000", "__to": "2000"}
    links = [link["url"] for panel in document["panels"] for link in panel.get("links") or []]
    for url in (document["links"][1]["url"], *(link for link in links if link.startswith("/explore"))):
        filled = re.sub(r"\$\{([^}]*)\}", lambda found: values[found[1]], url)
        pane = json.loads(parse_qs(urlsplit(filled).query)["panes"][0])["traces"]
        assert pane["queries"][0]["query"] == f'{{ span.aurelis.cache.name =~ "{names_of_caches}" }}'
        assert (pane["datasource"], pane["range"]) == ("tempo", {"from": "1000", "to": "2000"})


def test_links_of_panels_go_to_dashboards_that_exist_and_take_the_choices_along() -> None:
    links = [
        link["url"]
        for document in DOCUMENTS.values()
        for panel in document["panels"]
        for link in panel.get("links") or []
    ]
    inner = [link for link in links if link.startswith("/d/")]
    assert {link.removeprefix("/d/").partition("?")[0] for link in inner} <= UIDS
    assert all(link.endswith("?${__url_time_range}&${__all_variables}") for link in inner)
    assert all(link.startswith(("/d/", "/explore?")) for link in links)


def test_each_dashboard_can_be_reached_from_the_overview() -> None:
    overview = DOCUMENTS["overview.json"]
    to = {link["url"].split("?")[0] for panel in overview["panels"] for link in panel.get("links") or []}
    assert {f"/d/{uid}" for uid in UIDS - {overview["uid"]}} <= to


@pytest.mark.parametrize("name", DOCUMENTS)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DOCUMENTS[name]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
    assert {x for x, _ in taken} == set(range(24))
    # A row that is not full would leave a hole.
    assert len(taken) == 24 * (max(y for _, y in taken) + 1)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_grafanas_own_types_read_a_dashboard(name: str) -> None:
    register_default_plugins()
    read = model.Dashboard.from_json(DOCUMENTS[name])
    assert read.uid == DOCUMENTS[name]["uid"]
    assert len(read.panels or []) == len(DOCUMENTS[name]["panels"])


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A Prometheus that has seen nothing."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "targets.json").write_text("[]")
    server = servers.prometheus(folder, [folder / "targets.json"], [])
    server.start()
    yield server
    server.stop()


def test_where_nobody_reports_no_panel_says_zero(nobody: ServerProcess) -> None:
    """A green zero would say that all is well when every process is gone."""
    drawn = {panel: servers.query_prometheus(nobody, asked) for panel, asked in EXPRESSIONS.items()}
    assert [panel for panel, found in drawn.items() if found] == []


def test_each_result_has_one_colour_on_all_dashboards() -> None:
    layers = (names.L1, names.L2, names.L3, names.FILES, names.NEGATIVE)
    results = [names.HIT, names.STALE, names.REVALIDATED, names.MISS, names.BYPASS, names.JOINED]
    series_names = [f"{names.HIT} {layer}" for layer in layers] + [f"{result} " for result in results] + results
    found: dict[str, set[str]] = {name: set() for name in series_names}
    by_result = [
        panel
        for document in DOCUMENTS.values()
        for panel in document["panels"]
        for target in panel.get("targets", [])
        if target["legendFormat"].startswith("{{aurelis_cache_result}}")
    ]
    assert len(by_result) >= 4
    for panel in by_result:
        rules = panel["fieldConfig"]["overrides"]
        for name in series_names:
            # As Grafana does: the whole name has to match.
            matching = [rule for rule in rules if re.fullmatch(rule["matcher"]["options"], name)]
            assert len(matching) == 1, (panel["title"], name)
            [color] = matching[0]["properties"]
            found[name].add(color["value"]["fixedColor"])
    assert all(len(colors) == 1 for colors in found.values()), found
