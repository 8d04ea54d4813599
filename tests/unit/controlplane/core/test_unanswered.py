"""Engines that answer nothing and show no work: out, while those that may be at work stay."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.core.events import Noted
from tests.unit.controlplane.core.test_breakers import Fleet, S, fleet
from trimtab.model import EngineState, ProbeResult, Serving

IDLE: dict[str, Any] = {
    "running": 0,
    "waiting": 0,
    "steps_total": 500,
    "generation_tokens_total": 500,
}


def silent(made: Fleet, name: str, **engine: Any) -> None:
    made.set(name, EngineState.READY, **{**IDLE, **engine})
    made.silent_since_s[name] = made.now_s


def test_an_idle_engine_that_answers_nothing_is_out_and_the_probe_decides() -> None:
    made = fleet("r1", "r2")
    made.probes_end = None
    silent(made, "r1")
    made.live(9.0)
    assert made.serving() is Serving.OPEN
    made.live(2.0)
    assert (made.breaker().state, made.serving()) == (S.EJECTED, Serving.LOST)
    (moved,) = [e for e in made.log if isinstance(e, Noted) and e.fields.get("to") == "EJECTED"]
    assert moved.fields["unanswered_s"] == 10.0
    del made.silent_since_s["r1"]
    made.live(6.0)
    assert (made.breaker().state, made.serving()) == (S.PROBING, Serving.CLOSED)
    made.say(ProbeResult(made.probes()[-1].probe_id, "r1", ok=False))
    assert made.breaker().state is S.EJECTED
    made.probes_end = True
    made.live(40.0)
    assert made.breaker().state is S.HEALTHY


@pytest.mark.parametrize(
    "engine",
    [
        {"running": 1},  # a long prefill
        {"waiting": 3},
        {"running": None},  # it tells nothing of that
        {"steps_total": 19},  # it may compile still
        {"slow": True},  # it has been seen to take that long
    ],
)
def test_an_engine_that_may_be_at_work_is_not_taken_for_hung(engine: dict[str, Any]) -> None:
    made = fleet("r1", "r2")
    slow = engine.pop("slow", False)
    silent(made, "r1", **engine)
    made.registry.replicas["r1"].standing.slowest_s = 40.0 if slow else 0.1
    made.live(30.0)
    assert made.serving() is Serving.OPEN


def test_an_engine_that_moves_is_not_taken_for_hung() -> None:
    made = fleet("r1", "r2")
    silent(made, "r1")
    for steps in range(500, 530):
        made.set("r1", EngineState.READY, **{**IDLE, "steps_total": steps})
        made.live(1.0)
    assert made.serving() is Serving.OPEN


def test_the_last_one_that_serves_stays_whatever_waits() -> None:
    made = fleet("r1")
    silent(made, "r1")
    made.live(60.0)
    assert made.serving() is Serving.OPEN
