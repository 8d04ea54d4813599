"""edge/core/envelopes: one problem, the words of each dialect."""

from __future__ import annotations

import json

import pytest

from edge.core import envelopes, problems
from edge.core.problems import Problem
from edge.core.surface import Dialect
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.queue import Refusal

FULL = problems.overloaded(Refusal(3, 2.0, 1.5))
LOST = problems.attempt_failed(Failure(Fault.CUT), 2, started=True)


@pytest.mark.parametrize(
    ("problem", "status", "kind"),
    [
        (problems.no_key(), 401, "authentication_error"),
        (problems.unknown_model("x", []), 404, "not_found_error"),
        (problems.bad_json("x"), 400, "invalid_request_error"),
        (problems.too_large(1), 413, "request_too_large"),
        (problems.too_slow("body", 1), 408, "invalid_request_error"),
        (FULL, 529, "overloaded_error"),
        (problems.no_replica("m", 2), 503, "overloaded_error"),
        (problems.internal(), 500, "api_error"),
        (LOST, 502, "api_error"),
        (problems.attempt_failed(Failure(Fault.SILENT), 1, started=False), 504, "timeout_error"),
    ],
    ids=lambda value: value.code if isinstance(value, Problem) else "",
)
def test_anthropic(problem: Problem, status: int, kind: str) -> None:
    assert envelopes.status(problem, Dialect.ANTHROPIC) == status
    body = json.loads(envelopes.body(problem, Dialect.ANTHROPIC, "req_1"))
    error = {"type": kind, "message": problem.message}
    assert body == {"type": "error", "error": error, "request_id": "req_1"}
    event = envelopes.event(problem, Dialect.ANTHROPIC, "req_1")
    name, data = event.split(b"\ndata: ")
    assert (name, json.loads(data)) == (b"event: error", body)


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.RESPONSES])
def test_openai(dialect: Dialect) -> None:
    assert envelopes.status(FULL, dialect) == 503
    assert envelopes.body(FULL, dialect, "req_1") == FULL.body()
    assert envelopes.event(LOST, Dialect.OPENAI, "req_1") == b"data: " + LOST.body() + b"\n\n"


def test_an_event_of_a_responses_stream_is_an_error_to_both_kinds_of_readers() -> None:
    name, data = envelopes.event(LOST, Dialect.RESPONSES, "req_1").split(b"\ndata: ")
    event = json.loads(data)
    assert name == b"event: error"
    assert (event["type"], event["code"]) == ("error", "replica_lost")
    assert event["error"]["message"] == event["message"] == LOST.message


def test_ids() -> None:
    assert envelopes.ids(Dialect.RESPONSES, "r") == {"x-request-id": "r"}
    assert envelopes.ids(Dialect.ANTHROPIC, "r") == {"x-request-id": "r", "request-id": "r"}
