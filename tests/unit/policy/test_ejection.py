"""Who of a pool may go on the edges' word: the capacity test, the panic rule, the last one.

I4 as a state machine over a pool of real breakers: whatever edges and agents say, at every soft
ejection the others could carry the load for 5 s, and edges' word never takes the last one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from trimtab.model import BreakerState as S
from trimtab.policy import breaker as breakers
from trimtab.policy import ejection
from trimtab.policy.breaker import SERVING, Breaker, Cause, Evidence, Word
from trimtab.policy.capacity import RHO, carries
from trimtab.policy.ejection import Docket, Member, Ruling

NOW_S = 1000.0


def well(name: str, carried: float = 100.0) -> Member:
    return Member(name, S.HEALTHY, carries_work_per_s=carried)


def sick(name: str, carried: float = 80.0) -> Member:
    return Member(name, S.DEGRADED, impaired=True, carries_work_per_s=carried)


def failing(name: str) -> Member:
    return Member(name, S.DEGRADED, condemned=True, impaired=True)


def out(name: str) -> Member:
    return Member(name, S.EJECTED, out=True)


def dead(name: str) -> Member:
    return Member(name, S.EJECTED)


def hold(
    members: Sequence[Member],
    offered: float,
    seconds: float,
    docket: Docket | None = None,
    from_s: float = 0.0,
) -> list[Ruling]:
    """The rulings while nothing changes, once a second."""
    docket = docket or Docket()
    return [
        ejection.rule(docket, members, offered, NOW_S + from_s + second)
        for second in range(round(seconds) + 1)
    ]


def spared(rulings: Sequence[Ruling]) -> list[int]:
    """The seconds in which one was."""
    return [second for second, ruling in enumerate(rulings) if ruling.spared]


def test_a_sick_one_goes_when_the_others_can_carry_its_load_for_5_s() -> None:
    assert spared(hold([well("a"), sick("b")], 90.0, 9)) == [5]


def test_it_stays_when_they_cannot() -> None:
    assert spared(hold([well("a"), sick("b")], 90.1, 60)) == []
    assert spared(hold([well("a", 0.0), sick("b")], 1.0, 60)) == []
    assert spared(hold([well("a"), sick("b")], math.inf, 60)) == []


def test_a_moment_of_load_begins_the_5_s_anew() -> None:
    docket, members = Docket(), [well("a"), sick("b")]
    loads = [90.0] * 4 + [95.0] + [90.0] * 6
    rulings = [
        ejection.rule(docket, members, load, NOW_S + second) for second, load in enumerate(loads)
    ]
    assert spared(rulings) == [10]


def test_the_well_are_not_spared() -> None:
    assert spared(hold([well("a"), well("b")], 1.0, 60)) == []


def test_one_in_ten_seconds_and_the_longest_sick_first() -> None:
    docket = Docket()
    members = [well(name) for name in "abcdef"]
    hold([*members, sick("y"), well("x")], 10.0, 3, docket)
    rulings = hold([*members, sick("y"), sick("x")], 10.0, 20, docket, from_s=4)
    assert [(at, rulings[at].spared) for at in spared(rulings)] == [(1, "y"), (11, "y")]


def test_at_most_half() -> None:
    assert spared(hold([well("a"), well("b"), sick("c"), out("d")], 10.0, 30)) == [5, 15, 25]
    assert spared(hold([well("a"), sick("c"), out("d")], 10.0, 30)) == []


def test_the_last_one_that_serves_is_kept() -> None:
    assert hold([sick("a")], 0.0, 9)[-1] == Ruling(kept=frozenset({"a"}))
    assert hold([failing("a"), dead("b")], 0.0, 0)[0].kept == {"a", "b"}
    assert hold([well("a"), failing("b")], 0.0, 0)[0].kept == {"a"}
    assert hold([well("a"), well("b")], 0.0, 0)[0].kept == frozenset()
    ramping = Member("c", S.RAMPING)
    assert hold([failing("a"), ramping], 0.0, 0)[0].kept == {"c"}


PANICS: dict[str, tuple[list[Member], bool]] = {
    "one of one": ([sick("a")], False),
    "one of two": ([well("a"), sick("b")], False),
    "two of two": ([failing("a"), sick("b")], True),
    "two of two, one is out already": ([out("a"), sick("b")], True),
    "two of three": ([well("a"), sick("b"), sick("c")], True),
    "two of four": ([well("a"), sick("b"), sick("c"), well("d")], False),
    "three of four": ([sick("a"), sick("b"), sick("c"), well("d")], True),
    "the dead have no vote": ([sick("a"), sick("b"), dead("c"), dead("d")], True),
    "nor have those that ramp": (
        [well("a"), well("b"), Member("c", S.RAMPING, impaired=True)],
        False,
    ),
}


@pytest.mark.parametrize("name", PANICS)
def test_two_thirds_at_once_are_a_common_cause(name: str) -> None:
    members, panic = PANICS[name]
    ruling = hold(members, 0.0, 0)[0]
    assert bool(ruling.alarm) is panic
    if panic:
        assert ruling.kept == {member.name for member in members}
        assert ruling.pardon is any(member.out for member in members)
        assert spared(hold(members, 0.0, 30)) == []


def test_one_after_the_other_is_no_common_cause() -> None:
    docket = Docket()
    hold([out("a"), well("b")], 0.0, 0, docket)
    late = NOW_S + ejection.PANIC_SPAN_S + 0.5
    ruling = ejection.rule(docket, [out("a"), sick("b")], 0.0, late)
    assert not ruling.alarm
    assert not ruling.pardon


def test_a_panic_outlives_its_signs() -> None:
    docket = Docket()
    assert hold([out("a"), sick("b")], 0.0, 0, docket)[0].pardon
    after = [well("a"), sick("b", 10.0)]
    during = ejection.rule(docket, after, 0.0, NOW_S + 59)
    assert during.alarm.startswith("2 of 2 replicas began to fail")
    assert during.kept == {"a", "b"}
    assert not during.pardon
    assert spared(hold(after, 0.0, 10, docket, from_s=60)) == [5]


def test_when_nobody_serves_the_ejected_come_back() -> None:
    ruling = hold([out("a"), dead("b")], 0.0, 0)[0]
    assert ruling.pardon
    assert not ruling.alarm
    assert not hold([out("a"), well("b")], 0.0, 0)[0].pardon
    assert not hold([dead("a")], 0.0, 0)[0].pardon


def test_the_docket_forgets_who_left() -> None:
    docket = Docket()
    hold([sick(name) for name in "abcdef"], 0.0, 0, docket)
    hold([well("a")], 0.0, 0, docket)
    assert not docket.onsets_s
    assert not docket.spare_since_s


# A pool of real breakers

WELL = Evidence(Word.SERVES, epoch=1, full_slots=64)


@dataclass
class Node:
    """One replica: what is true of it and what is said."""

    breaker: Breaker = field(default_factory=Breaker)
    seen: Evidence = WELL
    capacity: float = 100.0

    def member(self, name: str, now_s: float) -> Member:
        """As the pool sees it."""
        seen, state = self.seen, self.breaker.state
        ratio = seen.failed / seen.dispatched if seen.dispatched else 0.0
        return Member(
            name=name,
            state=state,
            condemned=breakers.is_condemned(self.breaker, seen),
            leaving=breakers.is_leaving(self.breaker, seen, now_s),
            impaired=breakers.is_impaired(seen),
            out=breakers.is_pardonable(self.breaker) and seen.word is Word.SERVES,
            carries_work_per_s=carries(state, self.capacity, ratio, self.breaker.cap_slots / 64),
        )


class PoolMachine(RuleBasedStateMachine):
    """Up to five replicas; edges and agents say anything, time passes."""

    @initialize(size=st.integers(1, 5), seed=st.integers(0, 99))
    def begin(self, size: int, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now_s = NOW_S
        self.docket = Docket()
        self.offered = math.inf
        self.nodes = {f"r{i}": Node() for i in range(size)}
        self.able_s: dict[str, float] = {}
        self.soft_s: list[float] = []

    def change(self, pick: int, change: Callable[[Evidence], Evidence]) -> None:
        node = self.nodes[f"r{pick % len(self.nodes)}"]
        node.seen = change(node.seen)

    @rule(pick=st.integers(0, 4), word=st.sampled_from(Word))
    def agent_says(self, pick: int, word: Word) -> None:
        self.change(pick, lambda seen: replace(seen, word=word))

    @rule(pick=st.integers(0, 4), epoch=st.integers(1, 3))
    def restart(self, pick: int, epoch: int) -> None:
        self.change(pick, lambda seen: replace(seen, word=Word.SERVES, epoch=epoch))

    @rule(pick=st.integers(0, 4), failed=st.sampled_from([0, 0, 2, 10, 40]))
    def edges_count(self, pick: int, failed: int) -> None:
        self.change(pick, lambda seen: replace(seen, dispatched=40, failed=failed))

    @rule(failed=st.sampled_from([0, 0, 10, 40]))
    def a_common_cause(self, failed: int) -> None:
        for pick in range(len(self.nodes)):
            self.edges_count(pick, failed)

    @rule(pick=st.integers(0, 4), edges=st.integers(0, 3))
    def edges_find_it_closed(self, pick: int, edges: int) -> None:
        self.change(pick, lambda seen: replace(seen, refusing_edges=edges))

    @rule(offered=st.sampled_from([0.0, 50.0, 150.0, 350.0, math.inf]))
    def clients_ask(self, offered: float) -> None:
        self.offered = offered

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        for _ in range(2 * seconds):
            self.now_s += 0.5
            self.tick()

    def tick(self) -> None:
        """As the leader does it."""
        members = {name: node.member(name, self.now_s) for name, node in self.nodes.items()}
        ruling = ejection.rule(self.docket, list(members.values()), self.offered, self.now_s)
        self.note_able(members)
        before = {name: node.breaker for name, node in self.nodes.items()}
        for name, node in self.nodes.items():
            probe = breakers.wants_probe(node.breaker, node.seen.word, self.now_s)
            seen = replace(
                node.seen,
                probe=probe or None,
                first_tokens=1,
                spared=ruling.spared == name,
                kept=name in ruling.kept,
                pardoned=ruling.pardon,
            )
            node.breaker = breakers.step(node.breaker, seen, self.now_s, self.dice)
        self.check(members, before, ruling)

    def note_able(self, members: dict[str, Member]) -> None:
        """Since when the others could carry each one's load, counted here on our own."""
        for name, member in members.items():
            others = sum(m.carries_work_per_s for m in members.values() if m is not member)
            sick = member.impaired and member.state in ejection.STEADY
            if sick and self.offered <= RHO * others:
                self.able_s.setdefault(name, self.now_s)
            else:
                self.able_s.pop(name, None)

    def check(self, members: dict[str, Member], before: dict[str, Breaker], ruling: Ruling) -> None:
        """I4, and that panic and the last one are left alone."""
        gone = {
            name: node.breaker.cause
            for name, node in self.nodes.items()
            if node.breaker.state is S.EJECTED and before[name].state is not S.EJECTED
        }
        by_edges = {
            n for n, c in gone.items() if c in {*breakers.PARDONABLE, Cause.REFUSED, Cause.STUMBLED}
        }
        if by_edges:
            assert not ruling.alarm
            assert any(m.serves for name, m in members.items() if name not in by_edges)
        for name in [name for name, cause in gone.items() if cause is Cause.SPARED]:
            assert self.now_s - self.able_s[name] >= ejection.HOLD_S
            assert all(self.now_s - at_s >= ejection.GAP_S for at_s in self.soft_s[-1:])
            out_now = sum(breakers.is_pardonable(node.breaker) for node in self.nodes.values())
            assert out_now <= max(1, len(self.nodes) // 2) + len(gone)
            self.soft_s.append(self.now_s)
        if by_edges and by_edges == set(gone):
            assert any(node.breaker.state in SERVING for node in self.nodes.values())


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
