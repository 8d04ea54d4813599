"""edge/core/problems: OpenAI's shape, whose fault, when to come back."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from edge.core import problems
from edge.core.problems import Problem
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.deadline import Deadline
from trimtab.policy.poison import Incident, Way
from trimtab.policy.queue import Refusal

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "errors.md"
KEY = "sk-secret-of-somebody-1234"
ALL = [
    problems.no_key(),
    problems.bad_key(KEY),
    problems.expired_key(KEY, "2027-03-31T00:00:00+00:00"),
    problems.bad_json("x"),
    problems.bad_content_type("text/html"),
    problems.bad_form("x"),
    problems.not_a_websocket(),
    problems.session_without_model(),
    problems.other_model("m"),
    problems.session_over(),
    problems.too_large(10),
    problems.unknown_model("gpt", ["gpt-4", "demo"]),
    problems.model_required(["a"]),
    problems.answer_too_long(200, 100),
    problems.unknown_path("GET", "/v1/files", ["POST /v1/completions"]),
    problems.not_by_the_model("m", "/v1/embeddings"),
    problems.wrong_method("GET", "/v1/completions", "POST"),
    problems.bad_request("x"),
    problems.bad_body("x"),
    problems.bad_encoding("br"),
    problems.bad_expectation("a pony"),
    problems.bomb(200),
    problems.head_too_large(65_536),
    problems.too_many_headers(128),
    problems.url_too_long(16_384),
    problems.too_slow("body", 30),
    problems.quarantined(Incident("inc", Way.DIED, ("r0", "r1"), 60.0)),
    problems.overloaded(Refusal(7, 12.0, 3.2)),
    problems.no_replica("m", 2),
    problems.key_reused(),
    problems.key_in_use(45.0),
    problems.fallback_broke(),
    problems.too_late(Deadline(60.0, "this model allows"), started=False),
    problems.unknown_response("resp_1"),
    problems.replica_away("resp_1"),
    problems.not_ready(),
    problems.internal(),
    problems.attempt_failed(Failure(Fault.CUT), 2, started=True),
    problems.attempt_failed(Failure(Fault.REFUSED), 3, started=False),
    problems.attempt_failed(Failure(Fault.SILENT), 1, started=False),
    problems.attempt_failed(Failure(Fault.STATUS, 503, "busy"), 4, started=False),
    problems.attempt_failed(Failure(Fault.STATUS, 500, "boom"), 2, started=False),
    problems.attempt_failed(Failure(Fault.STATUS, 400, "too long"), 1, started=False),
]


@pytest.mark.parametrize("problem", ALL, ids=lambda p: p.code)
def test_the_envelope_is_openais(problem: Problem) -> None:
    error = json.loads(problem.body())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert all(isinstance(error[name], str) for name in ("message", "type", "code"))
    assert problem.event() == b"data: " + problem.body() + b"\n\n"


@pytest.mark.parametrize("problem", ALL, ids=lambda p: p.code)
def test_what_can_pass_says_when_and_what_cannot_says_no(problem: Problem) -> None:
    headers = problem.headers("req_1")
    if problem.status == 503:
        assert 1 <= int(headers["retry-after"]) <= 120
        assert int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
    if problem.status < 500 and problem.status not in {408, 409}:
        assert headers["x-should-retry"] == "false"
    assert (problem.status == 401) == ("www-authenticate" in headers)


def test_a_wait_beyond_the_callers_time_says_so() -> None:
    refusal = Refusal(7, 12.0, 3.2)
    assert "your time limit of 15 s" in problems.overloaded(refusal, 15.0).message
    assert "time limit" not in problems.overloaded(refusal, 16.5).message


def test_who_asks_while_the_first_one_runs_is_told_to_come_back() -> None:
    headers = problems.key_in_use(45.0).headers("req_1")
    assert headers["x-should-retry"] == "true"
    assert 2_000 <= int(headers["retry-after-ms"]) <= 3_000


def test_a_timeout_says_which_timer() -> None:
    late = problems.too_late(Deadline(60.0, "this model allows"), started=True)
    assert "within 60 s, which is all that this model allows" in late.message
    silent = Failure(Fault.SILENT, message="120 s")
    assert "120 s, the idle timeout" in problems.attempt_failed(silent, 1, started=True).message


def test_a_key_is_never_repeated() -> None:
    assert KEY not in problems.bad_key(KEY).message
    assert "sk-…1234" in problems.bad_key(KEY).message
    assert "short" not in problems.bad_key("short").message
    assert "sk-…1234) expired at then." in problems.expired_key(KEY, "then").message


def test_a_wrong_model_gets_the_right_names() -> None:
    message = problems.unknown_model("gpt4", ["gpt-4", "demo"]).message
    assert "Did you mean 'gpt-4'?" in message
    assert "demo" in message


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Failure(Fault.CUT), 502, "replica_lost"),
        (Failure(Fault.LOST), 502, "replica_lost"),
        (Failure(Fault.SILENT), 504, "upstream_timeout"),
        (Failure(Fault.STATUS, 503), 503, "server_is_overloaded"),
        (Failure(Fault.STATUS, 500, "m"), 502, "replica_error"),
        (Failure(Fault.STATUS, 400, "m"), 400, "bad_request"),
    ],
)
def test_failed_attempts(failure: Failure, status: int, code: str) -> None:
    problem = problems.attempt_failed(failure, 1, started=False)
    assert (problem.status, problem.code) == (status, code)


def test_an_incomplete_answer_says_so() -> None:
    assert "incomplete" in problems.attempt_failed(Failure(Fault.CUT), 1, started=True).message


TOO_LONG = b'{"error":{"message":"This model\'s maximum context length is 100 tokens.","code":400}}'


@pytest.mark.parametrize(
    ("verdict", "named"),
    [
        (TOO_LONG, TOO_LONG.replace(b"400", b'"context_length_exceeded"')),
        (b'{"error":{"message":"other","code":400}}',) * 2,
        (b"maximum context length",) * 2,
        (b'{"detail":{"msg":"maximum context length"}}',) * 2,
    ],
    ids=["too long", "other", "no JSON", "another shape"],
)
def test_an_engines_verdict_is_named_where_clients_look_for_a_name(
    verdict: bytes, named: bytes
) -> None:
    assert problems.named(verdict) == named


def test_the_page_lists_what_there_is() -> None:
    rows = re.findall(r"^\|.*\| (\d+) \| `(\w+)` / `(\w+)`", PAGE.read_text(), re.MULTILINE)
    said = {(int(status), kind, code) for status, kind, code in rows}
    assert said == {(p.status, p.type, p.code) for p in ALL}
