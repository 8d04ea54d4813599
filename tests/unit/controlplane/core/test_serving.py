"""What a replica may get, from its agent's word and the operator's wish."""

from __future__ import annotations

import pytest

from controlplane.core.records import Wish
from controlplane.core.replica import Node, Replica
from controlplane.core.serving import believed, combine, emptied, explain, judge, silence
from controlplane.core.standing import Standing
from trimtab.model import BreakerState, EngineSample, EngineState, Intent, NodeHello, Route, Serving
from trimtab.policy.breaker import SERVING, Breaker, Cause

OPEN, CLOSED, LOST = Serving.OPEN, Serving.CLOSED, Serving.LOST


@pytest.mark.parametrize(
    ("state", "no_progress_ms", "warming", "before", "after"),
    [
        (EngineState.READY, 0, False, CLOSED, OPEN),
        (EngineState.WARMING, 0, False, CLOSED, OPEN),
        (EngineState.STALLED, 3_000, False, OPEN, CLOSED),
        (EngineState.STALLED, 9_999, False, CLOSED, CLOSED),
        (EngineState.STALLED, 10_000, False, CLOSED, LOST),
        (EngineState.STALLED, 18_000, True, OPEN, CLOSED),
        (EngineState.STALLED, 60_000, True, CLOSED, LOST),
        (EngineState.DEAD, 0, False, OPEN, LOST),
        (EngineState.STARTING, 0, False, OPEN, CLOSED),
        (EngineState.SLEEPING, 0, False, OPEN, CLOSED),
        (EngineState.DRAINING, 0, False, OPEN, CLOSED),
        (EngineState.UNKNOWN, 0, False, OPEN, OPEN),
        (EngineState.UNKNOWN, 0, False, LOST, LOST),
        (EngineState.UNSPECIFIED, 0, False, OPEN, OPEN),
    ],
)
def test_judge(
    state: EngineState, no_progress_ms: int, warming: bool, before: Serving, after: Serving
) -> None:
    sample = EngineSample("r", state, no_progress_ms=no_progress_ms)
    assert judge(sample, before, warming) is after


@pytest.mark.parametrize(
    ("state", "tokens_at_s", "believed_state"),
    [
        (EngineState.STALLED, 98.6, EngineState.UNKNOWN),
        (EngineState.STALLED, 98.4, EngineState.STALLED),
        (EngineState.STALLED, None, EngineState.STALLED),
        (EngineState.DEAD, 100.0, EngineState.DEAD),
        (EngineState.READY, 100.0, EngineState.READY),
    ],
)
def test_tokens_at_edges_outweigh_an_agent_that_sees_none(
    state: EngineState, tokens_at_s: float | None, believed_state: EngineState
) -> None:
    sample = EngineSample("r", state, running=3, no_progress_ms=20_000, reason="said")
    heard = believed(sample, tokens_at_s, now_s=100.0)
    assert heard.state is believed_state
    assert judge(heard, OPEN, stalled_warming=False) is judge(
        EngineSample("r", believed_state, no_progress_ms=20_000), OPEN, stalled_warming=False
    )
    assert heard.running == 3


def test_every_state_is_judged() -> None:
    for state in EngineState:
        assert judge(EngineSample("r", state), OPEN, stalled_warming=False) in Serving


@pytest.mark.parametrize(
    ("health", "intent", "together"),
    [
        (OPEN, Intent.ACTIVE, OPEN),
        (OPEN, Intent.UNSPECIFIED, OPEN),
        (OPEN, Intent.CORDONED, CLOSED),
        (OPEN, Intent.DRAINING, CLOSED),
        (OPEN, Intent.SPARE, CLOSED),
        (CLOSED, Intent.ACTIVE, CLOSED),
        (LOST, Intent.CORDONED, LOST),
    ],
)
def test_operator_and_breaker_can_only_take_away(
    health: Serving, intent: Intent, together: Serving
) -> None:
    for breaker in BreakerState:
        closed = CLOSED if health is OPEN else health
        expected = together if breaker in SERVING else closed
        assert combine(health, intent, breaker) is expected


def replica(**changes: object) -> Replica:
    made = Replica("r", "http://h:1", known_since_s=0.0)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


READY = EngineSample("r", EngineState.READY)
HEARD = {"sample": READY, "sampled_at_s": 100.0}
CONNECTED = Node(NodeHello("n"), heard_at_s=0.0, stream=1)
LOST_AGENT = Node(NodeHello("n"), heard_at_s=0.0)
GONE = Node(NodeHello("n"), heard_at_s=0.0, bye="update")
GONE_MUTE = Node(NodeHello("n"), heard_at_s=0.0, bye="")


@pytest.mark.parametrize(
    ("known", "node", "now_s", "text"),
    [
        (replica(), None, 0.0, "no report yet"),
        (replica(loaded=True), None, 0.0, "as before the restart, no report yet"),
        (replica(cause="not watched"), None, 0.0, "not watched"),
        (replica(**HEARD), CONNECTED, 101.0, "engine READY"),
        (replica(**HEARD, cause="idle"), CONNECTED, 101.0, "engine READY: idle"),
        (
            replica(**HEARD),
            CONNECTED,
            103.0,
            "engine READY; its agent is silent, last report over 2 s ago; the last decision stands",
        ),
        (
            replica(**HEARD),
            LOST_AGENT,
            100.5,
            "engine READY; its agent is disconnected, last report less than 2 s ago; "
            "the last decision stands",
        ),
        (
            replica(**HEARD),
            GONE,
            200.0,
            "engine READY; its agent left (update), last report over 1 min ago; "
            "the last decision stands",
        ),
        (
            replica(**HEARD),
            GONE_MUTE,
            112.0,
            "engine READY; its agent left, last report over 10 s ago; the last decision stands",
        ),
        (
            replica(**HEARD, wish=Wish(Intent.CORDONED, "fan", "ada")),
            CONNECTED,
            100.0,
            "cordoned by ada: fan; engine READY",
        ),
        (
            replica(**HEARD, standing=Standing(Breaker(BreakerState.EJECTED, Cause.FAILING))),
            CONNECTED,
            100.0,
            "ejected: it fails nearly every request; engine READY",
        ),
        (
            replica(**HEARD, standing=Standing(Breaker(BreakerState.HEALTHY, Cause.FULL))),
            CONNECTED,
            100.0,
            "engine READY",
        ),
        (
            replica(**HEARD, gpu_fault="GPU 1 is lost"),
            CONNECTED,
            100.0,
            "GPU 1 is lost; engine READY",
        ),
        (
            replica(wish=Wish(Intent.SPARE)),
            CONNECTED,
            100.0,
            "kept as a spare; no report yet",
        ),
    ],
)
def test_explain(known: Replica, node: Node | None, now_s: float, text: str) -> None:
    assert explain(known, silence(known, node, now_s, stale_s=2.0)) == text


def test_a_reason_changes_rarely_while_an_agent_is_silent() -> None:
    known = replica(**HEARD)
    texts = {silence(known, LOST_AGENT, 100.0 + age_s, 2.0) for age_s in range(4 * 3600)}
    assert len(texts) <= 10


@pytest.mark.parametrize(
    ("closing", "pools"),
    [
        ([], []),
        (["a1"], []),
        (["a1", "a2"], ["a"]),
        (["b1"], ["b"]),
        (["b1", "a2", "a1"], ["a", "b"]),
        (["b2", "unknown"], []),
    ],
)
def test_the_last_open_replica_of_a_pool(closing: list[str], pools: list[str]) -> None:
    serving = {"a1": OPEN, "a2": OPEN, "a3": LOST, "b1": OPEN, "b2": CLOSED}
    replicas = [
        Replica(name, "", known_since_s=0, route=Route(name, name[0], "", "", "", now))
        for name, now in serving.items()
    ]
    assert emptied([*replicas, Replica("new", "", known_since_s=0)], closing) == pools
