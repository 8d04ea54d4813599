"""What is refused is counted, and logged no more than once a minute."""

from __future__ import annotations

from controlplane.core.refusals import AGAIN_S, PEERS_LIMIT, Kind, Refusals


def test_one_line_a_peer_and_kind_and_minute_with_how_many_it_stands_for() -> None:
    refusals = Refusals()
    said = [refusals.take("a", Kind.FACTS, 100.0 + second) for second in range(100)]
    assert [(at, count) for at, count in enumerate(said) if count] == [(0, 1), (60, 60)]
    assert refusals.take("a", Kind.CLAIM, 101.0) == 1
    assert refusals.take("b", Kind.FACTS, 101.0) == 1
    assert refusals.counts == {Kind.FACTS: 101, Kind.CLAIM: 1}


def test_any_number_of_peers_makes_a_bounded_number_of_lines_and_is_held_in_bounds() -> None:
    refusals = Refusals()
    lines = sum(refusals.take(f"n{n}", Kind.NAME, 100.0) > 0 for n in range(10 * PEERS_LIMIT))
    assert lines == PEERS_LIMIT + 1
    assert len(refusals._told) <= PEERS_LIMIT + len(Kind)
    assert refusals.take("late", Kind.NAME, 100.0 + AGAIN_S) == 1
    assert refusals.counts[Kind.NAME] == 10 * PEERS_LIMIT + 1
