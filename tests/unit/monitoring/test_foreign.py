"""Others' metrics exist: vLLM's on pages of a real one, DCGM's among its exporter's defaults."""

from __future__ import annotations

import pathlib

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from monitoring import foreign
from monitoring.foreign import Foreign
from trimtab.runtime.telemetry import ProcessMetrics

DATA = pathlib.Path(__file__).parents[2] / "data"
PAGES = ("metrics-idle.txt", "metrics-kv-full-preempt.txt", "metrics-dp2-load.txt")
"""Idle, at work, and with two engines behind one port."""
USED = [metric for metric in vars(foreign).values() if isinstance(metric, Foreign)]


@pytest.mark.parametrize("page", PAGES)
def test_vllms_are_on_a_real_page(page: str) -> None:
    families = {
        family.name: family
        for family in text_string_to_metric_families((DATA / "vllm" / page).read_text())
    }
    for metric in (metric for metric in USED if metric.name.startswith("vllm:")):
        family = families[metric.name]
        assert family.type == metric.kind.value, metric.name
        ours = {label.name for label in metric.labels} - {foreign.REPLICA.name}
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == ours, metric.name


def test_dcgms_are_among_what_its_exporter_ships() -> None:
    lines = (DATA / "monitoring/dcgm-default-counters.txt").read_text().split("\n")
    shipped = dict(line.split() for line in lines if line)
    for metric in (metric for metric in USED if metric.name.startswith("DCGM")):
        assert shipped[metric.name] == metric.kind.value


def test_a_process_ones_are_what_our_pages_have() -> None:
    registry = CollectorRegistry()
    ProcessMetrics(registry, "edge")
    ours = {family.name: family.type for family in registry.collect()}
    for metric in (metric for metric in USED if metric.name.startswith("process_")):
        assert ours[metric.name] == metric.kind.value


def test_nothing_else_is_used() -> None:
    known = ("vllm:", "DCGM_", "process_")
    assert {metric.name for metric in USED if not metric.name.startswith(known)} == {"up"}
