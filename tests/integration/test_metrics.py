"""The catalogue, what processes really export, and what Prometheus thinks of it."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from controlplane.core.refusals import Kind as Refused
from controlplane.metrics import ControlMetrics
from tests.fakes.metrics import MODELS, REPLICAS, TENANTS, busy_edge, led, told
from trimtab import catalogue
from trimtab.metric import Kind, Part

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def defined(*parts: Part) -> set[str]:
    """Of the catalogue."""
    return {m.name for m in catalogue.METRICS if m.part in parts}


def exported(text: bytes) -> dict[str, set[tuple[str, ...]]]:
    """The metrics of a page, and the labels of each."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        labels = {tuple(sorted(sample.labels.keys() - {"le"})) for sample in family.samples}
        found[family.name] = labels
    return {name: labels for name, labels in found.items() if name.startswith("trimtab_")}


@pytest.fixture(scope="module")
def edge_page() -> bytes:
    return busy_edge().render()


@pytest.fixture(scope="module")
def control_page() -> bytes:
    numbers = told(led()) | {catalogue.CONTROLPLANE_LEADER: {(): 1}}
    metrics = ControlMetrics(lambda: numbers)
    metrics.refresh()
    return metrics.render()


def test_edges_export_what_the_catalogue_defines(edge_page: bytes) -> None:
    assert defined(Part.EDGE, Part.BOTH) == exported(edge_page).keys()


def test_leaders_export_what_the_catalogue_defines(control_page: bytes) -> None:
    of_loop = {name for name in defined(Part.LEADER) if name.startswith("trimtab_controlplane")}
    found = exported(control_page)
    assert defined(Part.LEADER, Part.CONTROLPLANE, Part.BOTH) - of_loop == found.keys()


def test_labels_are_those_of_the_catalogue(edge_page: bytes, control_page: bytes) -> None:
    for page in (edge_page, control_page):
        for name, seen in exported(page).items():
            declared = tuple(sorted(catalogue.BY_NAME[name].label_names))
            assert seen <= {declared}, name


def test_values_of_labels_are_those_of_the_catalogue(edge_page: bytes, control_page: bytes) -> None:
    for page in (edge_page, control_page):
        for family in text_string_to_metric_families(page.decode()):
            metric = catalogue.BY_NAME.get(family.name)
            for label in metric.labels if metric else ():
                seen = {sample.labels[label.name] for sample in family.samples}
                assert not label.values or seen <= set(label.values), family.name


def test_one_state_is_the_one(control_page: bytes) -> None:
    for family in text_string_to_metric_families(control_page.decode()):
        metric = catalogue.BY_NAME.get(family.name)
        if metric is not None and metric.kind is Kind.STATES:
            ones = [s.labels["replica"] for s in family.samples if s.value]
            assert len(ones) == len(set(ones)) == REPLICAS


def test_pages_stay_small(edge_page: bytes, control_page: bytes) -> None:
    assert edge_page.count(b"\n") < 3_000  # a line is 3 us of a scrape
    assert control_page.count(b"\n") < 4_000


@pytest.mark.parametrize("which", ["edge_page", "control_page"])
def test_prometheus_finds_nothing_to_complain_of(
    which: str, request: pytest.FixtureRequest
) -> None:
    assert promtool("check", "metrics", page=request.getfixturevalue(which)) == ""


def promtool(*command: str, page: bytes = b"") -> str:
    """What it complains of."""
    found = shutil.which("promtool")
    if found is None:
        assert not os.environ.get("TRIMTAB_CI"), "CI has no promtool: see .ci/run"
        pytest.skip("NOT CHECKED: no promtool here (apt-get install prometheus)")
    done = subprocess.run([found, *command], input=page, capture_output=True, check=False)
    return (done.stdout * bool(done.returncode) + done.stderr).decode()


def test_refusals_are_the_ones_listed() -> None:
    assert set(catalogue.CONTROLPLANE_REFUSED.labels[0].values) == {kind.value for kind in Refused}


def test_workers_add_up() -> None:
    workers = [busy_edge(), busy_edge()]
    pages = [worker.render().decode() for worker in workers]
    total = sum(
        sample.value
        for page in pages
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "trimtab_edge_requests_total"
    )
    assert total == 2 * 3 * TENANTS * MODELS


def test_queries_in_documents_are_right(tmp_path: pathlib.Path) -> None:
    text = (DOCS / "autoscaling.md").read_text()
    queries = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    assert len(queries) == 3
    rules = [{"record": f"q{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "docs", "rules": rules}]}))
    assert promtool("check", "rules", str(path)) == ""


def test_documents_name_only_metrics_that_there_are() -> None:
    known = catalogue.names() | catalogue.BY_NAME.keys()
    for page in DOCS.rglob("*.md"):
        named = set(re.findall(r"\btrimtab_(?:[a-z]+_)+[a-z]+\b", page.read_text()))
        assert named <= known, page.name
