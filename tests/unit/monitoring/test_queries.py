"""Every query of every panel is evaluated, and finds data, where all that may be exported is there.

The series are made from the catalogue: what processes export is held against it elsewhere
(tests/integration/test_metrics.py). So an empty panel means that nothing happened, not that its
query asks for what can't be.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
from collections.abc import Iterator

from monitoring import foreign
from monitoring.files import BOARDS
from monitoring.foreign import Foreign
from monitoring.panels import build
from monitoring.promql import Scraped
from tests.fakes.promtool import Case, check
from trimtab import catalogue
from trimtab.metric import Kind, Metric, Part

COMBINATIONS_MAX = 100
ALL: tuple[Scraped, ...] = (
    *catalogue.METRICS,
    *(metric for metric in vars(foreign).values() if isinstance(metric, Foreign)),
)


def _job(metric: Scraped) -> str:
    if isinstance(metric, Metric):
        of_edges = metric.part in {Part.EDGE, Part.BOTH}
        return foreign.EDGES if of_edges else foreign.CONTROLPLANES
    prefixes = {"vllm": foreign.ENGINES, "DCGM": foreign.GPUS}
    return prefixes.get(metric.name[:4], foreign.EDGES)


def _labels(metric: Scraped) -> Iterator[dict[str, str]]:
    """Each value of each label at least once; all combinations where they are few."""
    values = {label.name: label.values or (f"a-{label.name}",) for label in metric.labels}
    combinations = itertools.product(*values.values())
    if len(list(itertools.product(*values.values()))) <= COMBINATIONS_MAX:
        yield from (dict(zip(values, each, strict=True)) for each in combinations)
        return
    first = {name: each[0] for name, each in values.items()}
    yield from (first | {name: value} for name, each in values.items() for value in each)


def _series(metric: Scraped) -> Iterator[tuple[str, str]]:
    bounds = [f"{float(bound)}" for bound in metric.buckets] or ["10.0"]
    for labels in _labels(metric):
        all_labels = {"job": _job(metric), "instance": "a:1"} | labels
        if metric.kind is not Kind.HISTOGRAM:
            ending = "_total" if metric.kind is Kind.COUNTER else ""
            grows = "0+1x40" if metric.kind is Kind.COUNTER else "1x40"
            yield _named(metric.name + ending, all_labels), grows
            continue
        for part in ("count", "sum"):
            yield _named(f"{metric.name}_{part}", all_labels), "0+1x40"
        for bound in (*bounds, "+Inf"):
            yield _named(f"{metric.name}_bucket", all_labels | {"le": bound}), "0+1x40"


def _named(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _queries() -> Iterator[str]:
    for board in BOARDS:
        for panel in json.loads(build(board))["panels"]:
            for target in panel.get("targets", ()):
                windowed = target["expr"].replace("$__rate_interval", "1m")
                yield re.sub(r"\$\w+", ".*", windowed)


def test_every_query_finds_what_it_asks_for(tmp_path: pathlib.Path) -> None:
    series = {name: values for metric in ALL for name, values in _series(metric)}
    asked = [
        {
            "expr": f"count({query}) > bool 0",
            "eval_time": "9m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for query in _queries()
    ]
    assert len(asked) > 100
    check([Case("all", series, "9m", None).as_test() | {"promql_expr_test": asked}], tmp_path)
