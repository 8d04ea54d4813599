"""What a line of the access log says of a request, and who gets one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge.core import access
from edge.core.access import Line, Which
from edge.core.decisions import Attempt, Ending, Notes, Record
from trimtab.model import Outcome, Urgency


def attempt(replica: str, picked_s: float, ended_s: float, tokens: int = 0, **more: Any) -> Attempt:
    outcome = Outcome.OK if tokens else Outcome.HARD
    return Attempt(replica, picked_s, ended_s, outcome, "", 200, (), tokens=tokens, **more)


def record(*attempts: Attempt, ending: Ending | None = None, **more: Any) -> Record:
    """It came at 10 s, had its first data at 11.5 s, and ended at 14 s."""
    notes = Notes(None, list(attempts))
    who = ("req_1", "big", "lab", Urgency.BATCH, 1_000_000, 10.0, notes, 11.5, 14.0)
    values: dict[str, Any] = {
        "prompt_tokens": 7,
        "model": "gpt",
        "path": "/v1/x",
        "stream": True,
    } | more
    return Record(*who, ending or Ending("ok", 200), **values)


def said(*attempts: Attempt, **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(access.line(record(*attempts, **more), "e1"))
    return fields


def test_a_plain_request() -> None:
    plain = attempt("r0", 11.0, 14.0, 40, prompt_tokens=9, cached_tokens=4)
    assert said(plain, own_s=0.0004, retries=1) == {
        "ts": 1_004.0,
        "edge": "e1",
        "request_id": "req_1",
        "trace_id": "",
        "caller_id": "",
        "tenant": "lab",
        "pool": "big",
        "model": "gpt",
        "path": "/v1/x",
        "stream": True,
        "code": 200,
        "outcome": "ok",
        "error": "",
        "shed_reason": "",
        "retry_after_ms": None,
        "queue_ms": 1_000,
        "ttft_ms": 1_500,
        "duration_ms": 4_000,
        "overhead_ms": 0.4,
        "input_tokens": 9,
        "cached_tokens": 4,
        "output_tokens": 40,
        "attempts": 1,
        "replicas": ["r0"],
        "hedged": False,
        "failovers": 0,
        "client_retries": 1,
        "client_gone": False,
        "event": "request",
    }


@pytest.mark.parametrize(
    ("attempts", "fields"),
    [
        # tried again before the first data
        (
            [attempt("r0", 10.0, 11.0), attempt("r1", 11.0, 14.0, 5)],
            {"replicas": ["r0", "r1"], "queue_ms": 0, "output_tokens": 5, "failovers": 0},
        ),
        # cut in the middle: who goes on has the answer so far in its prompt
        (
            [
                attempt("r0", 10.0, 12.0, 5),
                attempt("r1", 12.5, 14.0, 6, prompt_tokens=14, continued_at_tokens=5),
            ],
            {"failovers": 1, "queue_ms": 500, "input_tokens": 14, "output_tokens": 11},
        ),
        # two at once: their times are not added
        (
            [attempt("r1", 12.0, 14.0, 5, is_hedge=True), attempt("r0", 11.0, 14.0)],
            {"hedged": True, "queue_ms": 1_000, "output_tokens": 5, "replicas": ["r1", "r0"]},
        ),
        ([], {"attempts": 0, "input_tokens": 7, "queue_ms": 4_000}),
    ],
)
def test_of_several_attempts(attempts: list[Attempt], fields: dict[str, Any]) -> None:
    line = said(*attempts)
    assert {name: line[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("ending", "fields"),
    [
        (
            Ending("shed", 503, "server_is_overloaded", 1.25, "queue_full"),
            {"shed_reason": "queue_full", "retry_after_ms": 1_250, "code": 503},
        ),
        (Ending("client_disconnect"), {"client_gone": True, "code": 0, "error": ""}),
        (
            Ending("replica_error", 502, "replica_lost"),
            {"error": "replica_lost", "shed_reason": "", "client_gone": False},
        ),
    ],
)
def test_of_endings(ending: Ending, fields: dict[str, Any]) -> None:
    line = said(ending=ending)
    assert {name: line[name] for name in fields} == fields


def test_the_callers_address_only_where_it_is_known() -> None:
    assert said(client="10.0.0.9")["client"] == "10.0.0.9"
    assert "client" not in said()


@pytest.mark.parametrize(
    ("what", "errors"),
    [
        (record(attempt("r0", 10.0, 14.0, 5)), False),
        (record(attempt("r0", 10.0, 11.0), attempt("r1", 11.0, 14.0, 5)), True),
        (record(ending=Ending("client_disconnect")), True),
        (record(ending=Ending("client_error", 404, "model_not_found")), True),
        (record(ending=Ending("shed", 503)), True),
    ],
)
def test_who_gets_a_line(what: Record, errors: bool) -> None:
    assert access.wanted(what, Which.ALL)
    assert access.wanted(what, Which.ERRORS) is errors
    assert not access.wanted(what, Which.NONE)


def test_every_field_says_what_it_is() -> None:
    assert list(said()) == [name for name in Line.__struct_fields__ if name != "client"]
