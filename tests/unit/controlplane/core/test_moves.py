"""controlplane/core/moves: what counts as a fall, and when falls are ping-pong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.core.moves import LATELY_S, SOON_S, Moves
from controlplane.core.records import Wish
from controlplane.core.replica import Replica
from trimtab.model import BreakerState, Intent, Route, Serving
from trimtab.policy.breaker import Breaker, Cause, Hold

OPEN = Route("r1", "m", "n1", "http://h:1", "m", Serving.OPEN)


def replica(name: str = "r1", **changes: Any) -> Replica:
    made = Replica(name, "http://h:1", 0.0, health=Serving.OPEN)
    made.route = replace(OPEN, replica=name, serving=Serving.CLOSED)
    for field, value in changes.items():
        setattr(made, field, value)
    return made


def index(moves: Moves, now_s: float = 100.0) -> int:
    return moves.ping_pong("m", now_s)


@pytest.mark.parametrize(
    ("changes", "falls"),
    [
        ({}, True),
        ({"health": Serving.LOST}, False),  # its engine is to blame
        ({"wish": Wish(Intent.DRAINING)}, False),
        ({"hold": Hold.OPEN}, False),
        ({"hold": Hold.PAUSED}, True),
        ({"route": OPEN}, False),  # it is where it was
        ({"route": None}, False),
    ],
)
def test_what_is_a_fall(changes: dict[str, Any], falls: bool) -> None:
    moves = Moves()
    moves.reviewed(replica("r0"), OPEN, 99.0)
    moves.reviewed(replica(**changes), OPEN, 100.0)
    assert index(moves) == int(falls)


def test_one_alone_is_no_ping_pong() -> None:
    moves = Moves()
    for at_s in (1.0, 20.0, 40.0):
        moves.reviewed(replica("r1"), OPEN, at_s)
    assert index(moves) == 0


def test_who_was_out_does_not_fall() -> None:
    moves = Moves()
    closed = replace(OPEN, serving=Serving.CLOSED)
    moves.reviewed(replica("r1"), OPEN, 1.0)
    moves.reviewed(replica("r2"), closed, 2.0)
    moves.reviewed(replica("r2"), None, 2.0)
    assert index(moves) == 0


def test_falls_count_while_they_are_near_and_recent() -> None:
    moves = Moves()
    for name, at_s in (("r1", 0.0), ("r2", SOON_S), ("r1", 2 * SOON_S), ("r2", 3 * SOON_S + 1)):
        moves.reviewed(replica(name), OPEN, at_s)
    assert index(moves, 3 * SOON_S + 1) == 2
    assert moves.ping_pong("other", 3 * SOON_S + 1) == 0
    assert index(moves, LATELY_S + 2 * SOON_S + 1) == 0


def test_moves_are_counted_by_what_they_were() -> None:
    moves = Moves()
    before, after = (
        Breaker(BreakerState.HEALTHY),
        Breaker(BreakerState.EJECTED, cause=Cause.FAILING),
    )
    it = replica()
    moves.moved(it, before, after)
    moves.moved(it, before, after)
    ((move, count),) = moves.of["r1"].items()
    assert (tuple(move), count) == (("m", "healthy", "ejected", "failing"), 2)
    moves.forget("r1")
    assert not moves.of
