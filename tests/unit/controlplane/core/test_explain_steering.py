"""What operators did to a replica is named: who, until when, why, and what ends it."""

from __future__ import annotations

import pytest

from controlplane.core import explain_steering, explanation
from controlplane.core.looks import Case, span
from controlplane.core.replica import Replica
from trimtab.model import BreakerState, Route, Serving
from trimtab.steered import Override, OverrideKind, Share
from trimtab.views import Concern, ReplicaView

K = OverrideKind
OUT = Override(K.HOLD_OPEN, "r1", actor="ada", reason="fan", left_ms=90_000)
IN = Override(K.HOLD_CLOSED, "r1", actor="ada", left_ms=90_000)
PAUSE = Override(K.PAUSE, actor="bob", left_ms=90_000)


def case(
    *overrides: Override, slots: int = 100, breaker: BreakerState = BreakerState.HEALTHY
) -> Case:
    route = Route("r1", "m", "n1", "http://h", "m", Serving.OPEN, breaker=breaker)
    view = ReplicaView(route, limit_slots=slots, full_slots=100)
    replica = Replica("r1", "http://h", known_since_s=0.0)
    return Case(replica, view, None, None, (), 0.0, 0.0, 2.0, overrides=overrides)


def weighed(**weights: float) -> Override:
    shares = tuple(Share(name, weight) for name, weight in weights.items())
    return Override(K.WEIGHTS, "m", shares, actor="ada", reason="fan", left_ms=5_400_000)


@pytest.mark.parametrize(
    ("overrides", "concern", "text"),
    [
        ((), Concern.FINE, "nobody holds its breaker"),
        ((OUT, PAUSE), Concern.BLOCKS, "held out by ada for another 1.5 min (fan)"),
        (
            (PAUSE, IN),
            Concern.FINE,
            "held in by ada for another 1.5 min: edges' counts do not eject it",
        ),
        (
            (PAUSE,),
            Concern.FINE,
            "automation is paused by bob for another 1.5 min: counts eject nobody",
        ),
        ((Override(K.HOLD_OPEN, "r2"),), Concern.FINE, "nobody holds its breaker"),
    ],
)
def test_hold(overrides: tuple[Override, ...], concern: Concern, text: str) -> None:
    assert explain_steering.hold(case(*overrides), span) == (concern, text)


@pytest.mark.parametrize(
    ("weights", "slots", "breaker", "concern", "begins"),
    [
        ({"r1": 30, "r2": 70}, 42, BreakerState.HEALTHY, Concern.LIMITS, "30 where the largest is"),
        ({"r1": 70, "r2": 30}, 100, BreakerState.HEALTHY, Concern.FINE, "70 where the largest is"),
        ({"r2": 30}, 100, BreakerState.HEALTHY, Concern.FINE, "30 where the largest is 30"),
        ({"r1": 0, "r2": 30}, 0, BreakerState.HEALTHY, Concern.BLOCKS, "0 where the largest is 30"),
        ({"r1": 0, "r2": 30}, 100, BreakerState.HEALTHY, Concern.FINE, "0 where the largest is"),
        ({"r1": 30, "r2": 70}, 4, BreakerState.RAMPING, Concern.FINE, "30 where the largest is"),
    ],
)
def test_weights(
    weights: dict[str, float], slots: int, breaker: BreakerState, concern: Concern, begins: str
) -> None:
    about = case(weighed(**weights), slots=slots, breaker=breaker)
    found, text = explain_steering.weights(about, span)
    assert found is concern
    assert text.startswith(begins)
    assert text.endswith(f"by ada for another 1.5 h (fan): it may hold {slots} of 100")


def test_a_hold_is_the_headline_and_its_end_the_advice() -> None:
    found = explanation.explain(case(OUT))
    held = [finding for finding in found.findings if finding.what == "hold"]
    assert [finding.concern for finding in held] == [Concern.BLOCKS]
    assert "ctl breaker reset r1" in found.advice
    found = explanation.explain(case(weighed(r1=30, r2=70), slots=42))
    assert "ctl weights reset m" in found.advice
