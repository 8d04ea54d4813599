"""The few shapes that our panels have, over Grafana's own SDK: Classic, for Grafana 11 to 13.

Rules: a panel's title says what is shown, its description what to make of it; every line is an
expression that knows its labels, so a legend can't name one that is not there. Data come from
${datasource}; nothing needs a plugin that Grafana does not bring.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as queries

from monitoring.promql import Expr, Scraped, of

WINDOW = "$__rate_interval"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 24, 8
TAG = "trimtab"
Panel = timeseries.Panel | stat.Panel | statetimeline.Panel | heatmap.Panel
P = TypeVar("P", timeseries.Panel, stat.Panel, statetimeline.Panel, heatmap.Panel)


@dataclass(frozen=True, slots=True)
class Line:
    """What is drawn, and what its legend says: text with {{labels}}."""

    expr: Expr
    legend: str

    def query(self, number: int) -> prometheus.Dataquery:
        """As Grafana asks it."""
        return (
            prometheus.Dataquery()
            .ref_id(chr(ord("A") + number))
            .expr(self.expr.text)
            .legend_format(self.expr.says(self.legend))
            .editor_mode(queries.QueryEditorMode.CODE)
            .range()
        )


def graph(title: str, about: str, unit: str, *lines: Line, stacked: bool = False) -> Panel:
    """Lines over time, or areas on each other."""
    panel = _filled(timeseries.Panel(), title, about, lines).unit(unit).min(0)
    panel.legend(
        common.VizLegendOptions().show_legend(True).placement(kinds.LegendPlacement.BOTTOM)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL)).fill_opacity(40)
    return panel


def figure(title: str, about: str, unit: str, line: Line, *steps: tuple[float, str]) -> Panel:
    """One number, coloured from these values on."""
    panel = _filled(stat.Panel(), title, about, [line]).unit(unit).height(4).span(4)
    colours = [model.Threshold(None, "green"), *(model.Threshold(at, to) for at, to in steps)]
    panel.thresholds(
        dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(colours)
    )
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def lanes(title: str, about: str, metric: Scraped, colours: Mapping[str, str], *by: str) -> Panel:
    """A lane for each of `by`, in the colour of the state that it is in."""
    found = [
        (of(metric, state=state).by("max", *by).number("==", "1")).number("*", str(number))
        for number, state in enumerate(colours)
    ]
    states = reduce(lambda one, other: one.meet("or", other), found)
    line = Line(states, " ".join(f"{{{{{label}}}}}" for label in by))
    panel = _filled(statetimeline.Panel(), title, about, [line]).span(WIDTH).merge_values(True)
    texts = {
        str(number): model.ValueMappingResult(text=state, color=colour, index=number)
        for number, (state, colour) in enumerate(colours.items())
    }
    return panel.mappings([model.ValueMap(texts)]).show_value(kinds.VisibilityMode.NEVER)


def cloud(title: str, about: str, unit: str, buckets: Expr) -> Panel:
    """How a histogram's counts lie over time."""
    query = Line(buckets, "{{le}}").query(0).format(queries.PromQueryFormat.HEATMAP)
    panel = _filled(heatmap.Panel(), title, about, []).with_target(query)
    return panel.y_axis(heatmap.YAxisConfig().unit(unit))


def build(board: Board) -> str:
    """The dashboard's JSON."""
    page = (
        dashboard.Dashboard(f"Trimtab / {board.title}")
        .uid(f"trimtab-{board.uid}")
        .description(board.about)
        .tags([TAG])
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data").type("prometheus"))
        .link(_links())
    )
    for variable in board.variables:
        page.with_variable(variable.build())
    for name, expr in board.marks.items():
        page.annotation(_mark(name, expr))
    number = 0
    for name, panels in board.rows.items():
        number += 1
        page.with_row(dashboard.Row(name).id(number))
        for panel in panels:
            number += 1
            page.with_panel(panel.id(number))
    return json.dumps(page.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top: the values of a label."""

    name: str
    expr: Expr

    def build(self) -> dashboard.QueryVariable:
        """As Grafana asks for it."""
        self.expr.has([self.name])
        return (
            dashboard.QueryVariable(self.name)
            .datasource(SOURCE)
            .query(f"label_values({self.expr.text}, {self.name})")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(selected=True, text="All", value="$__all"))
        )


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard: rows of panels, choices at its top, marks where an expression has a value."""

    uid: str
    title: str
    about: str
    variables: tuple[Variable, ...]
    rows: Mapping[str, tuple[Panel, ...]]
    marks: Mapping[str, Expr] = field(default_factory=dict)


def _mark(name: str, expr: Expr) -> dashboard.AnnotationQuery:
    query = dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True)
    return query.icon_color("orange").expr(expr.text)


def _filled(panel: P, title: str, about: str, lines: Sequence[Line]) -> P:
    panel.title(title).description(about).datasource(SOURCE).height(HEIGHT).span(WIDTH // 2)
    for number, line in enumerate(lines):
        panel.with_target(line.query(number))
    return panel


def _links() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Trimtab").type(model.DashboardLinkType.DASHBOARDS)
    return link.tags([TAG]).as_dropdown(True).include_vars(True).keep_time(True)
