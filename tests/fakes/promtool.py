"""Asks Prometheus' own promtool whether alerts fire: all cases in one call.

Rule: a case names series as they are scraped, in promtool's notation of values ('0+3x60'), and when
to look; whether an alert fires is read from Prometheus' own ALERTS series.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import yaml

from monitoring.alerts import ALERTS
from monitoring.promql import Expr

RULES = pathlib.Path(__file__).parents[2] / "deploy/monitoring"
LINKS = {"grafana": "http://grafana", "runbooks": "http://books"}
Series = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """The alert fires at `at` with these labels, or, if there are none, does not."""

    alert: str
    series: Series
    at: str
    labels: Mapping[str, str] | None
    interval: str = "15s"
    """Between the values of a series."""

    def as_test(self) -> dict[str, object]:
        """As promtool reads it."""
        return {
            "name": f"{self.alert} {'fires' if self.labels is not None else 'is silent'}",
            "interval": self.interval,
            "external_labels": LINKS,
            "input_series": [{"series": k, "values": v} for k, v in self.series.items()],
            "promql_expr_test": [
                {
                    "expr": f'ALERTS{{alertname="{self.alert}", alertstate="firing"}}',
                    "eval_time": self.at,
                    "exp_samples": self._expected(),
                }
            ],
        }

    def _expected(self) -> Sequence[Mapping[str, object]]:
        if self.labels is None:
            return []
        severity = next(alert.severity for alert in ALERTS if alert.name == self.alert)
        named = {"alertname": self.alert, "alertstate": "firing", "severity": severity}
        inner = ", ".join(f'{k}="{v}"' for k, v in {**named, **self.labels}.items())
        return [{"labels": f"ALERTS{{{inner}}}", "value": 1}]


def promtool(*arguments: str) -> str:
    """Its words; fails with them when it is not content."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("TRIMTAB_CI"):
            pytest.fail("promtool is missing: apt install prometheus")
        pytest.skip("ALERTS ARE NOT TESTED: promtool is missing (apt install prometheus)")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(
    cases: Sequence[Mapping[str, object]], folder: pathlib.Path, evaluated: str = "1m"
) -> None:
    """All of them, the rules evaluated that often."""
    path = folder / "tests.yml"
    files = [str(RULES / name) for name in ("recording.yml", "alerts.yml")]
    path.write_text(
        yaml.safe_dump(
            {"rule_files": files, "evaluation_interval": evaluated, "tests": list(cases)}
        )
    )
    promtool("test", "rules", str(path))


def notation(values: Sequence[float | None]) -> str:
    """Scraped values as promtool reads them."""
    return " ".join("_" if value is None else f"{value:g}" for value in values)


def scraped(expr: Expr, **labels: str) -> str:
    """A series' name as it is scraped: all labels that it is given must be its own."""
    expr.has(name.rstrip("_") for name in labels)
    inner = ", ".join(f'{name.rstrip("_")}="{value}"' for name, value in labels.items())
    return f"{expr.text}{{{inner}}}"
