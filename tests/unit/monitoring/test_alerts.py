"""Each alert fires when it should, and not just before: by promtool, over the generated files."""

from __future__ import annotations

import pathlib
import re

import pytest

from monitoring import foreign
from monitoring.alerts import ALERTS, Alert
from monitoring.promql import buckets, count, of
from sim.world.scenario import Scenario, load
from tests.fakes import storms
from tests.fakes.promtool import LINKS, Case, Series, check, notation, promtool, scraped
from tests.fakes.promtool import RULES as FOLDER
from trimtab import catalogue

BURST = pathlib.Path(__file__).parents[2] / "sim/scenarios/burst.yaml"
M, R = {"model": "m"}, {"model": "m", "replica": "r1"}
AT = {"job": foreign.EDGES, "instance": "edge:4001"}
GPU = {"job": foreign.GPUS, "instance": "n1:9400", "Hostname": "n1", "gpu": "0", "UUID": "GPU-1"}


def _outcomes(good: str, shed: str) -> Series:
    requests = of(catalogue.EDGE_REQUESTS)
    return {
        scraped(requests, **M, tenant="t", code="200", outcome="ok"): good,
        scraped(requests, **M, tenant="t", code="503", outcome="shed"): shed,
    }


def _ttft(fast: str, every: str) -> Series:
    """First tokens up to 10 s, up to 20 s, and all."""
    bucket = buckets(catalogue.EDGE_TTFT)
    return {
        scraped(bucket, **M, le="10.0"): fast,
        scraped(bucket, **M, le="20.0"): every,
        scraped(bucket, **M, le="+Inf"): every,
        scraped(count(catalogue.EDGE_TTFT), **M): every,
    }


def _engine(running: str, steps: str) -> Series:
    labels = {"replica": "r1", "model_name": "m", "engine": "0"}
    return {
        scraped(of(foreign.VLLM_RUNNING), **labels): running,
        scraped(count(foreign.VLLM_ITERATIONS), **labels): steps,
    }


def _kv(usage: str, preemptions: str) -> Series:
    labels = {"replica": "r1", "model_name": "m", "engine": "0"}
    return {
        scraped(of(foreign.VLLM_KV), **labels): usage,
        scraped(of(foreign.VLLM_PREEMPTIONS), **labels): preemptions,
    }


def _replica(open_slots: str) -> Series:
    return {
        scraped(of(catalogue.MODEL_SLOTS), **M): open_slots,
        scraped(of(catalogue.MODEL_REPLICAS), **M): "2x80",
    }


def _retries(growth: str) -> Series:
    retries = {scraped(of(catalogue.EDGE_CLIENT_RETRIES), attempt="1"): growth}
    return {**retries, **_outcomes("0+100x80", "0x80")}


WITHHELD = scraped(of(catalogue.MODEL_WITHHELD), **M)
STARTS = scraped(of(catalogue.REPLICA_STARTS), **R)
XID = scraped(of(foreign.GPU_XID), **GPU)
STALLED = scraped(of(catalogue.REPLICA_STATE), **R, state="stalled")
UP = scraped(of(foreign.UP), **AT)
LEADS = scraped(of(catalogue.CONTROLPLANE_LEADER), job=foreign.CONTROLPLANES, instance="cp1")
ALONE = scraped(of(catalogue.EDGE_AUTONOMY), **AT)
SILENT = scraped(of(catalogue.AGENT_REPORT_AGE), node="n1")
STORE = scraped(of(catalogue.CONTROLPLANE_STORE_FAILURES), instance="cp1")
CONFIG = scraped(of(catalogue.CONFIG_RELOADED), **AT)
PEER = scraped(of(catalogue.CERT_EXPIRY), **AT, use="peer")
LISTENER = scraped(of(catalogue.CERT_EXPIRY), **AT, use="listener")
PING_PONG = scraped(of(catalogue.MODEL_PING_PONG), **M)
CASES = (
    Case("TrimtabPingPong", {PING_PONG: "0x8 1x8 2x60"}, "6m", M),
    Case("TrimtabPingPong", {PING_PONG: "0x8 1x60"}, "6m", None),  # an accident
    Case("TrimtabHealthyCapacityWithheld", {WITHHELD: "0.5x80"}, "10m", M),
    # out for five seconds of ten, and each other scrape sees it in
    Case("TrimtabHealthyCapacityWithheld", {WITHHELD: "0 1" + " 0 1" * 40}, "10m", M),
    Case("TrimtabHealthyCapacityWithheld", {WITHHELD: "0x12 1x4 0x60"}, "8m", None),
    Case("TrimtabModelUnserved", _replica("10x8 0x60"), "5m", M),
    Case("TrimtabModelUnserved", _replica("10x8 0x1 10x60"), "5m", None),
    Case("TrimtabEngineHung", _engine("7x80", "0+9x8 72x60"), "8m", {"replica": "r1"}),
    Case("TrimtabEngineHung", {STALLED: "0x8 1x60"}, "5m", {"replica": "r1"}),
    Case("TrimtabEngineHung", _engine("7x80", "0+9x80"), "8m", None),
    Case("TrimtabEngineHung", _engine("0x80", "72x80"), "8m", None),  # idle
    Case("TrimtabReplicaCrashLoop", {STARTS: "1x8 2x8 3x8 4x90"}, "20m", R),
    Case("TrimtabReplicaCrashLoop", {STARTS: "1x8 2x80"}, "20m", None),
    Case("TrimtabGPUXid", {XID: "0x8 79x60"}, "4m", GPU),
    Case("TrimtabGPUXid", {XID: "79x80"}, "10m", None),  # the last one, of long ago
    Case("TrimtabGPUXid", {XID: "79x8 0x60"}, "4m", None),  # the exporter was restarted
    Case("TrimtabKVCacheExhausted", _kv("0.99x80", "0+2x80"), "10m", {"replica": "r1"}),
    Case("TrimtabKVCacheExhausted", _kv("0.99x80", "0x80"), "10m", None),  # full is well used
    Case("TrimtabTTFTDegraded", _ttft("0x80", "0+9x80"), "16m", M),
    Case("TrimtabTTFTDegraded", _ttft("0+9x80", "0+9x80"), "16m", None),
    Case("TrimtabShedding", _outcomes("0+90x80", "0+10x80"), "18m", M),
    Case("TrimtabShedding", _outcomes("0+99x80", "0+1x80"), "18m", None),
    Case("TrimtabRetryStorm", _retries("0+30x80"), "12m", {}),
    Case("TrimtabRetryStorm", _retries("0+10x80"), "12m", None),
    Case("TrimtabErrorBudgetBurn", _outcomes("0+90x400", "0+10x400"), "70m", M),
    Case("TrimtabErrorBudgetBurn", _ttft("0+70x400", "0+90x400"), "70m", M),
    # over since ten minutes: the hour still shows it, the five minutes do not
    Case("TrimtabErrorBudgetBurn", _outcomes("0+90x400", "0+30x240 7200x160"), "70m", None),
    Case("TrimtabErrorBudgetLow", _outcomes("0+95x400", "0+5x400"), "90m", M),
    Case("TrimtabErrorBudgetLow", _outcomes("0+99x400", "0+1x400"), "90m", None),
    Case("TrimtabEdgeDown", {UP: "1x8 0x60"}, "5m", AT),
    Case("TrimtabEdgeDown", {UP: "1x8 0x2 1x60"}, "3m", None),  # a restart
    Case("TrimtabControlPlaneDown", {LEADS: "1x8 0x60"}, "5m", {}),
    Case("TrimtabControlPlaneDown", {LEADS: "1x80"}, "5m", None),
    Case("TrimtabEdgeStaleConfig", {ALONE: "0x8 2x60"}, "6m", AT),
    Case("TrimtabEdgeStaleConfig", {ALONE: "0x8 2x2 0x60"}, "6m", None),  # a new leader
    Case("TrimtabAgentSilent", {SILENT: "0x8 45x60"}, "5m", {"node": "n1"}),
    Case("TrimtabAgentSilent", {SILENT: "2x80"}, "5m", None),
    Case("TrimtabStoreFailing", {STORE: "0+1x80"}, "12m", {}),
    Case("TrimtabStoreFailing", {STORE: "0x8 1x80"}, "12m", None),  # one, tried again
    Case("TrimtabConfigRefused", {CONFIG: "1x8 0x60"}, "10m", AT),
    Case("TrimtabConfigRefused", {CONFIG: "1x80"}, "10m", None),
    Case("TrimtabCertExpiring", {PEER: "80000x100"}, "20m", {**AT, "use": "peer"}),
    Case("TrimtabCertExpiring", {LISTENER: "1000000x100"}, "20m", {**AT, "use": "listener"}),
    Case("TrimtabCertExpiring", {PEER: "200000x100", LISTENER: "2000000x100"}, "20m", None),
)


@pytest.mark.parametrize("fires", [True, False])
def test_every_alert_is_tried(fires: bool) -> None:
    tried = {case.alert for case in CASES if (case.labels is not None) is fires}
    assert tried == {alert.name for alert in ALERTS}


def test_they_fire_and_they_do_not(tmp_path: pathlib.Path) -> None:
    check([case.as_test() for case in CASES], tmp_path)


def test_what_was_slow_yesterday_is_no_news(tmp_path: pathlib.Path) -> None:
    slow = _ttft("0x800", "0+9x800")
    today = Case("TrimtabTTFTDegraded", slow, "1h", M, "2m")
    tomorrow = Case("TrimtabTTFTDegraded", slow, "25h", None, "2m")
    check([today.as_test(), tomorrow.as_test()], tmp_path, evaluated="5m")


STEERING = ("TrimtabPingPong", "TrimtabHealthyCapacityWithheld")


LEADS_NOT = "TrimtabControlPlaneDown"
"""Fires where nobody exports that he leads, as in these series."""


def _values(series: storms.Series) -> Series:
    return {name: notation(values) for name, values in series.items()}


def test_a_storm_by_litellms_rules_is_told(tmp_path: pathlib.Path) -> None:
    values = _values(storms.litellms(storms.STORM))
    check([Case(name, values, "3m", M).as_test() for name in STEERING], tmp_path)


@pytest.mark.parametrize("scenario", [storms.STORM, load(BURST)], ids=["storm", "burst"])
def test_ours_is_silent_in_the_same_storm(scenario: Scenario, tmp_path: pathlib.Path) -> None:
    values = _values(storms.ours(scenario))
    assert len(values) > len(storms.STEERING)
    whole = f"{round(scenario.duration_s)}s"
    told = f'count_over_time(ALERTS{{alertstate="firing", alertname!~"{LEADS_NOT}"}}[{whole}])'
    silence = {"expr": told, "eval_time": whole, "exp_samples": []}
    test = Case("all", values, whole, None).as_test() | {"promql_expr_test": [silence]}
    check([test], tmp_path, evaluated="15s")


def test_what_an_alert_says_is_rendered(tmp_path: pathlib.Path) -> None:
    case = Case("TrimtabShedding", _outcomes("0+90x80", "0+10x80"), "18m", M)
    annotations = {
        "summary": "m: 10% of requests are refused",
        "description": "More is asked of m than its replicas can do in time.",
        "runbook_url": f"{LINKS['runbooks']}/TrimtabShedding.md",
        "dashboard_url": f"{LINKS['grafana']}/d/trimtab-model?var-model=m",
    }
    expected = {"exp_labels": {**M, "severity": "ticket"}, "exp_annotations": annotations}
    told = {"eval_time": case.at, "alertname": case.alert, "exp_alerts": [expected]}
    test = {**case.as_test(), "alert_rule_test": [told]}
    check([test], tmp_path)


def test_prometheus_takes_the_files() -> None:
    rules = promtool("check", "rules", str(FOLDER / "recording.yml"), str(FOLDER / "alerts.yml"))
    assert re.findall(r"(\d+) rules found", rules)[-1] == str(len(ALERTS))
    promtool("check", "config", str(FOLDER / "prometheus.yml"))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_says_what_and_how_bad(alert: Alert) -> None:
    assert alert.severity in {"page", "ticket"}
    assert re.fullmatch(r"Trimtab[A-Z]\w+", alert.name)
    assert alert.summary
    assert alert.description.endswith(".")
