"""Rows and data as values; the golden files hold what they look like."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from dataclasses import replace

import pytest
import yaml

from ctl import render
from ctl.columns import REPLICAS, VIEWS
from ctl.options import Format
from tests.fakes.fleet import FLEET, GPU0, WELL
from trimtab.model import BreakerState, Route
from trimtab.views import ReplicaView


def test_why_is_there_when_a_replica_is_closed_and_url_only_when_wide() -> None:
    assert "WHY" in render.table(REPLICAS, FLEET, wide=False).titles
    assert "WHY" not in render.table(REPLICAS, WELL, wide=False).titles
    assert "URL" not in render.table(REPLICAS, FLEET, wide=False).titles
    assert {"URL", "WHY"} <= set(render.table(REPLICAS, WELL, wide=True).titles)


def test_item_has_every_field_of_the_model_once() -> None:
    fields = [f.name for f in dataclasses.fields(Route)]
    fields += [f.name for f in dataclasses.fields(ReplicaView) if f.name != "route"]
    assert list(render.item(GPU0)) == fields


@pytest.mark.parametrize("noun", VIEWS)
def test_data_formats_agree(noun: str) -> None:
    view = VIEWS[noun]
    listed = json.loads(render.data(view, FLEET, Format.JSON))
    assert listed["apiVersion"] == "trimtab/v1"
    assert listed["kind"] == f"{view.kind}List"
    assert yaml.safe_load(render.data(view, FLEET, Format.YAML)) == listed
    lines = render.data(view, FLEET, Format.JSONL).splitlines()
    assert [json.loads(line) for line in lines] == listed["items"]
    rows = list(csv.DictReader(io.StringIO(render.data(view, FLEET, Format.CSV))))
    assert [list(row) for row in rows] == [list(item) for item in listed["items"]]


def test_csv_leaves_absent_empty_and_keeps_zero() -> None:
    rows = list(csv.DictReader(io.StringIO(render.data(REPLICAS, FLEET, Format.CSV))))
    assert (rows[2]["running"], rows[3]["running"]) == ("", "0")


@pytest.mark.parametrize("form", [Format.TABLE, Format.WIDE, Format.JSON, Format.NAME])
def test_time_alone_is_no_news(form: Format) -> None:
    out = replace(GPU0, route=replace(GPU0.route, breaker=BreakerState.EJECTED))
    young = replace(out, ejected_for_ms=9_000)
    older = replace(out, report_age_ms=900, uptime_ms=1, state_age_ms=1)
    older = replace(older, breaker_age_ms=5, ejected_for_ms=4_000)
    failed = replace(young, failures_1m=1)
    looks = [render.news(REPLICAS, replace(WELL, replicas=(r,)), form) for r in (young, older)]
    assert looks[0] == looks[1]
    assert render.news(REPLICAS, replace(WELL, replicas=(failed,)), form) != looks[0]
