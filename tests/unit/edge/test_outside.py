"""core/outside: who may leave the fleet, and as what."""

from __future__ import annotations

import json

import pytest

from edge.core import openai, problems
from edge.core.openai import Call
from edge.core.outside import Target, elsewhere, may_leave
from edge.core.problems import Problem
from edge.core.surface import CHAT, Entry, Found
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.queue import Refusal

OVERLOADED = problems.overloaded(Refusal(7, 12.0, 3.2))


def call(path: str = CHAT, body: bytes = b'{"model":"demo"}') -> Call:
    found = openai.parse(Found(Entry(path)), "application/json", body)
    assert isinstance(found, Call)
    return found


@pytest.mark.parametrize(
    ("problem", "allowed", "started", "leaves"),
    [
        (OVERLOADED, True, False, True),
        (problems.no_replica("m", 2), True, False, True),
        (OVERLOADED, False, False, False),
        (OVERLOADED, True, True, False),
        (problems.attempt_failed(Failure(Fault.STATUS, 503), 4, started=False), True, False, True),
        (problems.attempt_failed(Failure(Fault.CUT), 3, started=False), True, False, False),
        (problems.attempt_failed(Failure(Fault.STATUS, 400), 1, started=False), True, False, False),
        (problems.unknown_model("a", ["b"]), True, False, False),
        (problems.too_large(10), True, False, False),
    ],
)
def test_who_may_leave(problem: Problem, allowed: bool, started: bool, leaves: bool) -> None:
    assert may_leave(call(), problem, allowed=allowed, started=started) is leaves
    assert not may_leave(call("/v1/embeddings"), problem, allowed=allowed, started=started)


@pytest.mark.parametrize(
    "body", [b'{"model":"demo","priority":-9,"prompt":"hi"}', b'{"prompt":"hi","cache_salt":"x"}']
)
def test_what_leaves_names_the_other_model_and_nothing_of_ours(body: bytes) -> None:
    there = elsewhere(call("/v1/completions", body))
    assert there.path == "/completions"
    assert json.loads(b"".join(there.body_for("theirs"))) == {"model": "theirs", "prompt": "hi"}


def test_a_key_is_not_shown() -> None:
    assert "sk-theirs" not in repr(Target("https://a/v1", "m", 1, "sk-theirs"))


def test_a_fallback_that_does_not_help_leaves_the_refusal_as_it_was() -> None:
    problem = problems.nowhere(OVERLOADED, "has no room")
    assert (problem.status, problem.retry_after_s) == (503, 3.2)
    assert problem.message.startswith(OVERLOADED.message)
    assert problem.message.endswith("The external fallback has no room.")
