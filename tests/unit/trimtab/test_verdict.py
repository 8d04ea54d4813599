"""What makes a fleet OK, DEGRADED or DOWN."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.fleet import GPU0, GPU1, GPU2, WELL
from trimtab.model import BreakerState, Intent, Serving
from trimtab.verdict import Level, is_far, judge, why
from trimtab.views import SYNC_LAG_MAX, AgentView, EdgeView, Fleet, PoolView, ReplicaView

SPARE = replace(GPU2, intent=Intent.SPARE)
LAG = EdgeView("e", acked_version=0, sent_version=SYNC_LAG_MAX + 1)


@pytest.mark.parametrize(
    ("fleet", "level", "said"),
    [
        (WELL, Level.OK, "1 of 1 replicas take requests"),
        (Fleet(leader="cp1"), Level.DOWN, "no replica is known"),
        (replace(WELL, leader="", edges=()), Level.DEGRADED, "no control plane leads"),
        (replace(WELL, replicas=(GPU1,)), Level.DOWN, "no replica takes requests"),
        (replace(WELL, replicas=(SPARE,)), Level.DOWN, "no replica takes requests"),
        (replace(WELL, edges=()), Level.DOWN, "no edge is connected"),
        (replace(WELL, replicas=(GPU0, GPU1)), Level.DEGRADED, "1 of 2"),
        (replace(WELL, replicas=(GPU0, SPARE)), Level.OK, "1 of 2 replicas take requests, 1 held"),
        (replace(WELL, edges=(*WELL.edges, LAG)), Level.DEGRADED, "1 of 1"),
        (replace(WELL, agents=(AgentView("n"),)), Level.DEGRADED, "1 of 1"),
        (replace(WELL, pools=(PoolView("p"),)), Level.DEGRADED, "1 of 1"),
        (
            replace(WELL, pools=(PoolView("p", 1, 1, shed_1m=1, requests_1m=100),)),
            Level.OK,
            "1 of 1",
        ),
        (
            replace(WELL, pools=(PoolView("p", 1, 1, shed_1m=2, requests_1m=100),)),
            Level.DEGRADED,
            "1 of 1",
        ),
    ],
)
def test_judge(fleet: Fleet, level: Level, said: str) -> None:
    verdict = judge(fleet)
    assert verdict.level is level
    assert verdict.sentence.startswith(said)
    assert bool(verdict.problems) or level is not Level.DEGRADED


def test_what_fails_in_use_is_a_problem() -> None:
    failing = replace(
        GPU0,
        route=replace(GPU0.route, breaker=BreakerState.DEGRADED),
        breaker_reason="it fails requests",
    )
    pool = replace(WELL.pools[0], alarm="2 of 2 fail")
    assert judge(replace(WELL, replicas=(failing,), pools=(pool,))).problems == (
        "replica gpu0: open, but it fails requests",
        "pool gpt-oss-120b: 2 of 2 fail",
    )
    ramping = replace(GPU0, route=replace(GPU0.route, breaker=BreakerState.RAMPING))
    assert judge(replace(WELL, replicas=(ramping,))).level is Level.OK


def test_problems_name_the_culprit() -> None:
    fleet = replace(
        WELL,
        replicas=(GPU0, GPU1),
        edges=(LAG,),
        agents=(AgentView("h200b"),),
        pools=(PoolView("qwen"), PoolView("big", 1, 1, shed_1m=50, requests_1m=100)),
    )
    assert [line.split(":")[0] for line in judge(fleet).problems] == [
        "pool qwen",
        "replica gpu1",
        "edge e",
        "agent h200b",
        "pool big",
    ]


def test_peers_of_far_versions_are_named() -> None:
    fleet = replace(
        WELL,
        controlplane_version="0.3.0",
        edges=(EdgeView("e", "0.1.9"), EdgeView("f", "0.2.0")),
        agents=(AgentView("n", "1.3.0", connected=True), AgentView("o", "", connected=True)),
    )
    assert judge(fleet).problems == (
        "edge e: version 0.1.9, more than one minor from the control plane's 0.3.0;"
        " see docs/upgrade.md",
        "agent n: version 1.3.0, more than one minor from the control plane's 0.3.0;"
        " see docs/upgrade.md",
    )


@pytest.mark.parametrize(
    ("version", "other", "far"),
    [
        ("0.1.0", "0.1.7", False),
        ("0.1.0", "0.2.0", False),
        ("0.2.0.dev1", "0.1", False),
        ("0.1.0", "0.3.0", True),
        ("0.9.0", "1.0.0", True),
        ("", "0.9.0", False),
        ("unknown", "0.9.0", False),
    ],
)
def test_is_far(version: str, other: str, far: bool) -> None:
    assert is_far(version, other) is far


@pytest.mark.parametrize(
    ("edge", "synced"),
    [
        (EdgeView("e"), True),
        (EdgeView("e", acked_version=8, sent_version=8 + SYNC_LAG_MAX), True),
        (LAG, False),
        (EdgeView("e", acked_version=8, sent_version=8, last_error="no"), False),
    ],
)
def test_in_sync(edge: EdgeView, synced: bool) -> None:
    assert edge.in_sync is synced


def _closed(reason: str, state_reason: str, intent: Intent = Intent.ACTIVE) -> ReplicaView:
    route = replace(GPU0.route, serving=Serving.CLOSED, reason=reason)
    return replace(GPU0, route=route, state_reason=state_reason, intent=intent)


@pytest.mark.parametrize(
    ("replica", "words"),
    [
        (GPU0, ""),
        (_closed("", ""), ""),
        (_closed("fan", "", Intent.CORDONED), "cordoned; fan"),
        (_closed("engine is DEAD: refused", "refused"), "engine is DEAD: refused"),
        (_closed("a", "b"), "a; b"),
        (_closed("", "", Intent.CORDONED), "cordoned"),
        (_closed("cordoned by op", "", Intent.CORDONED), "cordoned by op"),
    ],
)
def test_why(replica: ReplicaView, words: str) -> None:
    assert why(replica) == words
