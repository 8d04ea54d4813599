"""edge/failures: each failed attempt is told, and no storm drowns the log or another's word."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from edge.core.decisions import Attempt
from edge.failures import LINES_PER_S, Failures
from trimtab.model import Outcome


def failed(ended_s: float, outcome: Outcome = Outcome.OVERLOAD) -> Attempt:
    return Attempt("gpu0", ended_s - 0.25, ended_s, outcome, "status", 503, ())


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [(record.levelname, vars(record)["fields"]) for record in caplog.records]


def test_a_line_says_who_failed_and_how(caplog: pytest.LogCaptureFixture) -> None:
    Failures().tell("req_1", failed(10.0, Outcome.HARD))
    fields = {"request_id": "req_1", "replica": "gpu0", "outcome": "hard", "fault": "status"}
    assert lines(caplog) == [
        ("WARNING", fields | {"status": 503, "after_ms": 250, "left_out": 0}),
    ]


def test_a_storm_is_cut_short_and_counted_and_hides_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    failures = Failures()
    for number in range(1000):
        failures.tell(f"req_{number}", failed(10.0 + number / 2000))
    failures.tell("req_dead", failed(10.5, Outcome.HARD))
    failures.tell("req_next", failed(11.0))
    failures.tell("req_last", failed(11.1))
    told = [(level, fields["request_id"], fields["left_out"]) for level, fields in lines(caplog)]
    assert told == [
        *(("INFO", f"req_{number}", 0) for number in range(LINES_PER_S)),
        ("WARNING", "req_dead", 0),
        ("INFO", "req_next", 1000 - LINES_PER_S),
        ("INFO", "req_last", 0),
    ]
