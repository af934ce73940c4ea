"""Turns records into dashboards of Grafana's classic model, by its own builders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

from aurelis.cache.telemetry import names

from ._queries import PROCESSES, label, series
from ._records import Choice, Dashboard, Panel, Query, Row, Steps

TAG: Final = "aurelis-cache"
_PROMETHEUS: Final = model.DataSourceRef("prometheus", "${datasource}")
_COLUMNS: Final = 24
_LITTLE: Final = {"short": 1, "ops": 0.1, "reqps": 0.1, "wps": 0.1, "percentunit": 0.05, "currencyUSD": 0.01}
"""By unit how far an axis goes at least: without it, one of nothing but zeros goes to a hundred."""
_REQUESTS: Final = series(names.REQUESTS)
_NAME: Final = label(names.NAME)


def written(dashboard: Dashboard) -> str:
    """Returns the content of the file of a dashboard."""
    return json.dumps(_dashboard(dashboard).build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _dashboard(dashboard: Dashboard) -> builders.Dashboard:
    built = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags([TAG])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-30m", "now")
        .timezone("browser")
        .refresh("10s")
        .version(1)
        .annotations([])
        .variables(list(_variables(dashboard)))
        .links([_siblings(), _link("Traces", _traces_url())])
    )
    number, y = 0, 0
    for row in dashboard.rows:
        if row.title is not None:
            number += 1
            built.with_row(builders.Row(row.title).id(number).grid_pos(model.GridPos(h=1, w=_COLUMNS, x=0, y=y)))
            y += 1
        for panel, x, below in _placed(row):
            number += 1
            width, height = panel.size
            place = model.GridPos(h=height, w=width, x=x, y=y + below)
            built.with_panel(_panel(panel).id(number).grid_pos(place))
        y += max(below + panel.size[1] for panel, _, below in _placed(row))
    return built


def _placed(row: Row) -> Iterator[tuple[Panel, int, int]]:
    """The panels, each with its column and its distance from the top of the row."""
    x = below = tallest = 0
    for panel in row.panels:
        width, height = panel.size
        if x + width > _COLUMNS:
            x, below, tallest = 0, below + tallest, 0
        yield panel, x, below
        x, tallest = x + width, max(tallest, height)


# Variables and links


def _variables(dashboard: Dashboard) -> Iterator[Any]:  # builders of one interface, which has no name there
    yield builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    yield builders.DatasourceVariable("traces").label("Traces").type("tempo")
    yield _queried("job", "Job", f"label_values({_REQUESTS}, job)", ".+")
    yield _queried("instance", "Instance", f'label_values({_REQUESTS}{{job=~"$job"}}, instance)', ".+")
    if dashboard.caches is None:
        # It gets into links to traces as it stands, and in an address a plus would be a blank.
        yield _queried("name", "Cache", f"label_values({_REQUESTS}{{{PROCESSES}}}, {_NAME})", ".*")
    else:
        yield _queried("name", "Cache", dashboard.caches, None)
    yield from map(_choice, dashboard.choices)


def _choice(choice: Choice) -> Any:
    if choice.query:
        return _queried(choice.name, choice.label, choice.query, choice.every)
    pairs = [each.split(" : ") for each in choice.values]
    found = [model.VariableOption(selected=pair is pairs[0], text=pair[0], value=pair[1]) for pair in pairs]
    built = builders.CustomVariable(choice.name).label(choice.label).values(", ".join(choice.values))
    return built.current(found[0]).options(found)


def _queried(name: str, title: str, query: str, every: str | None) -> Any:
    built = (
        builders.QueryVariable(name)
        .label(title)
        .datasource(_PROMETHEUS)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return built if every is None else built.all_value(every)


def _siblings() -> builders.DashboardLink:
    """A menu of all dashboards of this tag, which takes the time range and what was chosen along."""
    link = builders.DashboardLink("Aurelis Cache").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.icon("external link").as_dropdown(True).include_vars(True).keep_time(True)


def _link(title: str, url: str) -> builders.DashboardLink:
    return builders.DashboardLink(title).type(model.DashboardLinkType.LINK).icon("bolt").url(url)


def _traces_url() -> str:
    """Grafana's Explore with the spans of the chosen caches. Variables stay as they are, all else is encoded."""
    source = {"type": "tempo", "uid": "${traces}"}
    query = f'{{ span.{names.NAME} =~ "${{name:pipe}}" }}'
    pane = {
        "datasource": "${traces}",
        "queries": [{"refId": "A", "datasource": source, "queryType": "traceql", "query": query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    parts = re.split(r"(\$\{[^}]*\})", json.dumps({"traces": pane}, separators=(",", ":")))
    panes = "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)
    return f"/explore?schemaVersion=1&panes={panes}"


# Panels


def _panel(panel: Panel) -> Any:  # the builders of panels have the same methods, and no common class
    match panel.kind:
        case "stat":
            built: Any = _stat()
        case "states":
            built = _states()
        case _:
            built = _graph(panel)
    built.title(panel.title).description(" ".join(panel.description.split())).datasource(_PROMETHEUS).unit(panel.unit)
    for number, query in enumerate(panel.queries):
        built.with_target(_target(query, chr(ord("A") + number), instant=panel.kind == "stat"))
    if panel.steps:
        built.thresholds(_thresholds(panel.steps))
    if panel.maximum is not None:
        built.max(panel.maximum)
    if panel.decimals is not None:
        built.decimals(panel.decimals)
    if panel.states:
        words = {
            value: model.ValueMappingResult(text=said, color=color) for value, (said, color) in panel.states.items()
        }
        built.mappings([model.ValueMap(words)])
    links = [_link("More about it", f"/d/{panel.to}?${{__url_time_range}}&${{__all_variables}}")] if panel.to else []
    links += [_link("Traces", _traces_url())] if panel.traced else []
    return built.links(links) if links else built


def _target(query: Query, reference: str, *, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(reference).datasource(_PROMETHEUS)
    target.expr(query.expression).legend_format(query.legend)
    if query.exemplars:
        target.exemplar(True)
    return target.instant() if instant else target.range()


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    found = [model.Threshold(value, color) for value, color in steps]
    return builders.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def _stat() -> stat.Panel:
    return (
        stat.Panel()
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    )


def _states() -> statetimeline.Panel:
    return (
        statetimeline.Panel()
        .color_scheme(builders.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .show_value(common.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(_legend())
        .tooltip(_tooltip())
    )


def _graph(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingMode.NORMAL if panel.stacked else common.StackingMode.NONE
    built = (
        timeseries.Panel()
        .color_scheme(builders.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .draw_style(common.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(20 if panel.stacked else 0)  # of lines that do not add up, fills hide each other
        .show_points(common.VisibilityMode.AUTO)  # alone between gaps they would be no line
        .span_nulls(False)
        .stacking(options.StackingConfig().mode(stacking).group("A"))
        .legend(_legend())
        .tooltip(_tooltip())
    )
    if panel.logarithmic:
        scale = options.ScaleDistributionConfig().type(common.ScaleDistribution.LOG)
        built.scale_distribution(scale.log(2 if panel.unit == "bytes" else 10))  # a power of ten is no round KiB
    else:
        built.min(0)
    if panel.maximum is None and panel.unit in _LITTLE:
        built.axis_soft_max(_LITTLE[panel.unit])
    if panel.steps:
        built.thresholds_style(options.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    if panel.dashed is not None:
        line = {"fill": "dash", "dash": [8, 8]}
        built.override_by_regexp(panel.dashed, [model.DynamicConfigValue("custom.lineStyle", line)])
    for pattern, color in panel.colors.items():
        fixed = {"mode": "fixed", "fixedColor": color}
        built.override_by_regexp(pattern, [model.DynamicConfigValue("color", fixed)])
    return built


def _legend() -> options.VizLegendOptions:
    legend = options.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    return legend.placement(common.LegendPlacement.BOTTOM).show_legend(True)


def _tooltip() -> options.VizTooltipOptions:
    return options.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
