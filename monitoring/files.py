"""What is generated: rules, dashboards, and examples that plug them into Prometheus and Grafana.

Rules: where Grafana and the runbooks are is for the operator to say, once, in prometheus.yml's
`external_labels`; links in alerts are made from these when an alert fires.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from monitoring import foreign
from monitoring.alerts import GROUPS, Alert
from monitoring.boards_fleet import FLEET, MODEL_BOARD, PINGPONG, REPLICA_BOARD
from monitoring.boards_service import CONTROLPLANE_BOARD, EDGE_BOARD, SLO_BOARD, TENANT_BOARD
from monitoring.panels import build
from monitoring.recording import RULES, Recorded

BOARDS = (
    *(FLEET, PINGPONG, MODEL_BOARD, REPLICA_BOARD),
    *(TENANT_BOARD, EDGE_BOARD, CONTROLPLANE_BOARD, SLO_BOARD),
)
GENERATED = "# Generated from monitoring/ by `./run docs`: change it there.\n"


def all_files() -> Mapping[str, str]:
    """Every file's text, by its path below deploy/monitoring."""
    boards = {f"grafana/dashboards/{board.uid}.json": build(board) for board in BOARDS}
    return {
        "prometheus.yml": GENERATED + PROMETHEUS,
        "recording.yml": _rules({"trimtab-recording": [_record(rule) for rule in RULES]}),
        "alerts.yml": _rules(
            {f"trimtab-{name}": [_alert(one) for one in group] for name, group in GROUPS.items()}
        ),
        "grafana/provisioning/datasources/trimtab.yml": GENERATED + DATASOURCE,
        "grafana/provisioning/dashboards/trimtab.yml": GENERATED + PROVIDER,
        **boards,
    }


def _record(rule: Recorded) -> dict[str, str]:
    return {"record": rule.record, "expr": rule.expr.text}


def dashboard_url(alert: Alert) -> str:
    """The dashboard to look at, with what the alert is about chosen in it."""
    board = next(board for board in BOARDS if board.uid == alert.dashboard)
    chosen = [
        f"var-{variable.name}={{{{ $labels.{variable.name} }}}}"
        for variable in board.variables
        if variable.name in alert.expr.labels
    ]
    query = f"?{'&'.join(chosen)}" if chosen else ""
    return f"{{{{ $externalLabels.grafana }}}}/d/trimtab-{board.uid}{query}"


def _alert(alert: Alert) -> dict[str, object]:
    return {
        "alert": alert.name,
        "expr": alert.expr.text,
        "for": alert.wait,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.expr.says(alert.summary),
            "description": alert.expr.says(alert.description),
            "runbook_url": f"{{{{ $externalLabels.runbooks }}}}/{alert.name}.md",
            "dashboard_url": dashboard_url(alert),
        },
    }


def _rules(groups: Mapping[str, object]) -> str:
    body = {"groups": [{"name": name, "rules": rules} for name, rules in groups.items()]}
    return GENERATED + yaml.safe_dump(body, sort_keys=False, width=100, allow_unicode=True)


PROMETHEUS = f"""\
global:
  scrape_interval: 15s
  evaluation_interval: 15s
  external_labels: # where the links in alerts lead; change both
    grafana: http://127.0.0.1:3000
    runbooks: http://127.0.0.1:8080/docs/runbooks

rule_files:
  - recording.yml
  - alerts.yml

# alerting:
#   alertmanagers:
#     - static_configs: [{{ targets: ["127.0.0.1:9093"] }}]

scrape_configs:
  - job_name: {foreign.EDGES} # each edge's `admin`
    static_configs:
      - targets: ["127.0.0.1:4001"]

  - job_name: {foreign.CONTROLPLANES} # each control plane's `controlplane_metrics`
    static_configs:
      - targets: ["127.0.0.1:4002"]

  - job_name: {foreign.ENGINES} # each engine, by the name that its replica has: `ctl get replicas`
    static_configs:
      - targets: ["127.0.0.1:8000"]
        labels: {{ replica: gpu-box-8000 }}
      - targets: ["127.0.0.1:8001"]
        labels: {{ replica: gpu-box-8001 }}

  - job_name: {foreign.GPUS} # NVIDIA's dcgm-exporter on each node, if you run it
    static_configs:
      - targets: []
"""
DATASOURCE = """\
apiVersion: 1
datasources:
  - name: Prometheus
    type: prometheus
    access: proxy
    url: http://127.0.0.1:9090
    isDefault: true
    jsonData: { timeInterval: 15s }
"""
PROVIDER = """\
apiVersion: 1
providers:
  - name: trimtab
    folder: Trimtab
    type: file
    allowUiUpdates: false
    options: { path: /var/lib/grafana/dashboards/trimtab }
"""
