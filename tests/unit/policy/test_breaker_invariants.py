"""What no sequence of events may do to a breaker.

I1: overload, callers, paths and the unknown move nothing (exhaustive to depth 6, and at random);
agents' silence ejects nobody; a crash loop waits ever longer.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes.dice import Loaded
from trimtab.model import BreakerState as S
from trimtab.model import Cohort, Outcome, OutcomeCount
from trimtab.policy import breaker as policy
from trimtab.policy.breaker import SERVING, TABLE, Breaker, Cause, Evidence, Hold, Word, step
from trimtab.policy.cohorts import FAILURES, Window

FULL_SLOTS = 132
NOW_S = 1000.0
WELL = Evidence(Word.SERVES, epoch=7, full_slots=FULL_SLOTS)
NEW = Breaker()
STARTS = {
    "joining": NEW,
    "probing": Breaker(S.PROBING, since_s=NOW_S, due_s=NOW_S, epoch=7),
    "ramping": Breaker(S.RAMPING, since_s=NOW_S, due_s=NOW_S + 2, cap_slots=6.6, epoch=7),
    "healthy": Breaker(S.HEALTHY, epoch=7),
    "degraded": Breaker(S.DEGRADED, epoch=7),
    "ejected": Breaker(S.EJECTED, Cause.LOST, NOW_S, 1, until_s=NOW_S + 5, epoch=7),
    "draining": Breaker(S.DRAINING, epoch=7),
}


# I1: a small world in which attempts start and end and the agent speaks, over all sequences


@dataclass(frozen=True)
class World:
    """A breaker and everything that it is told; hashable, so that equal worlds are met once."""

    breaker: Breaker
    word: Word = Word.SERVES
    epoch: int = 7
    counts: tuple[tuple[int, tuple[int, int]], ...] = ()
    now_s: float = NOW_S

    def tick(self, seconds: float, probe: bool | None = None) -> World:
        """Time passes, then the breaker looks."""
        now_s = self.now_s + seconds
        counts = self.window().count(self.breaker.counts_from_s, now_s)
        seen = Evidence(
            word=self.word,
            epoch=self.epoch,
            full_slots=FULL_SLOTS,
            dispatched=counts.dispatched,
            failed=counts.failed,
            lately_dispatched=counts.lately_dispatched,
            lately_failed=counts.lately_failed,
            first_tokens=1,
            probe=probe,
        )
        breaker = step(self.breaker, seen, now_s, Loaded())
        return replace(self, breaker=breaker, now_s=now_s).reported()

    def window(self) -> Window:
        window = Window()
        window._counts = dict(self.counts)
        return window

    def reported(self, *cohorts: Cohort) -> World:
        """An edge's report comes in."""
        window = self.window()
        window.add(cohorts, self.now_s)
        return replace(self, counts=tuple(sorted(window._counts.items())))


HARMLESS = [Outcome.OVERLOAD, Outcome.CLIENT, Outcome.PATH, Outcome.UNKNOWN, Outcome.OK]
DEPTH = 6
BATCH = 10  # so that six events are enough for every threshold


def ended(outcome: Outcome) -> Cohort:
    return Cohort(0, 0, (OutcomeCount(outcome, BATCH),))


def next_worlds(world: World) -> Iterator[World]:
    """One more event of every kind that may matter."""
    yield world.reported(Cohort(0, BATCH))
    yield world.reported(ended(Outcome.SOFT))
    yield world.reported(ended(Outcome.HARD))
    for word in Word:
        if word is not world.word:
            yield replace(world, word=word)
    yield replace(world, epoch=world.epoch + 1)
    yield world.tick(0.5)
    yield world.tick(6.0)
    yield world.tick(31.0)
    yield world.tick(0.5, probe=True)
    yield world.tick(0.5, probe=False)


@pytest.mark.parametrize("name", STARTS)
def test_harmless_outcomes_move_nothing_exhaustively(name: str) -> None:
    seen = front = {World(STARTS[name])}
    for _ in range(DEPTH - 1):  # the last event is one that must do nothing
        front = {after for world in front for after in next_worlds(world)} - seen
        front = {w for w in front if w.epoch <= 8 and sum(n for _, (_, n) in w.counts) <= 20}
        seen = seen | front
    told = {(world.counts, world.now_s): world for world in seen}
    for world in told.values():  # a report changes nothing else
        for outcome in HARMLESS:
            assert world.reported(ended(outcome)) == world
    assert len(seen) > 1000


@given(
    st.lists(
        st.tuples(
            st.sampled_from([o for o in Outcome if o not in FAILURES]),
            st.integers(0, 500),
            st.integers(0, 500),
        ),
        max_size=60,
    )
)
def test_harmless_outcomes_move_nothing_ever(batches: list[tuple[Outcome, int, int]]) -> None:
    for name in ("healthy", "ramping"):
        world = World(STARTS[name])
        for outcome, dispatched, count in batches:
            cohort = Cohort(0, dispatched, (OutcomeCount(outcome, count),))
            world = world.reported(cohort).tick(1.0)
            assert world.breaker.state in SERVING
            assert world.breaker.ejections == 0


class BreakerMachine(RuleBasedStateMachine):
    """Anything may happen to one replica; what must always hold."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now_s = NOW_S
        self.breaker = NEW
        self.seen = Evidence(full_slots=FULL_SLOTS, epoch=1)

    @rule(word=st.sampled_from(Word))
    def agent_says(self, word: Word) -> None:
        self.seen = replace(self.seen, word=word)

    @rule()
    def restart(self) -> None:
        self.seen = replace(self.seen, word=Word.SERVES, epoch=self.seen.epoch + 1)

    @rule(dispatched=st.integers(0, 60), failed=st.integers(0, 60), edges=st.integers(0, 3))
    def edges_say(self, dispatched: int, failed: int, edges: int) -> None:
        failed = min(dispatched, failed)
        self.seen = replace(self.seen, dispatched=dispatched, failed=failed, refusing_edges=edges)

    @rule(
        waited_s=st.sampled_from([0.0, 9.9, 10.0, 70.0]), patience_s=st.sampled_from([10.0, 60.0])
    )
    def requests_wait(self, waited_s: float, patience_s: float) -> None:
        self.seen = replace(self.seen, unanswered_s=waited_s, patience_s=patience_s)

    @rule(kept=st.booleans(), spared=st.booleans(), pardoned=st.booleans(), silent=st.booleans())
    def pool_says(self, kept: bool, spared: bool, pardoned: bool, silent: bool) -> None:
        self.seen = replace(
            self.seen, kept=kept, spared=spared, pardoned=pardoned, agent_silent=silent
        )

    @rule(hold=st.sampled_from(Hold))
    def operator_holds(self, hold: Hold) -> None:
        self.seen = replace(self.seen, hold=hold)

    @rule()
    def operator_resets(self) -> None:
        before, self.breaker = self.breaker, policy.reset(self.breaker, self.now_s)
        assert self.breaker.state is before.state

    @rule(
        seconds=st.sampled_from([0.5, 1.0, 2.0, 10.0, 400.0]),
        probe=st.sampled_from([None, True, False]),
        tokens=st.integers(0, 2),
    )
    def look(self, seconds: float, probe: bool | None, tokens: int) -> None:
        before, self.now_s = self.breaker, self.now_s + seconds
        seen = replace(self.seen, probe=probe, first_tokens=tokens)
        self.breaker = after = step(before, seen, self.now_s, self.dice)
        self.check(before, seen, after)

    @precondition(lambda self: self.breaker.state is S.EJECTED)
    @rule()
    def wait(self) -> None:
        before = self.breaker
        self.now_s = max(self.now_s, before.until_s)
        seen = replace(self.seen, word=Word.SERVES, hold=Hold.NONE)
        self.breaker = step(before, seen, self.now_s, self.dice)
        assert self.breaker.state in {S.PROBING, S.DEGRADED}

    def check(self, before: Breaker, seen: Evidence, after: Breaker) -> None:
        """What one step may do."""
        if after.state is not before.state:
            assert (after.cause, after.state) in TABLE[before.state]
        self.check_hold(before, seen, after)
        if after.cause is Cause.HELD and after is not before:
            assert after.ejections <= before.ejections
        elif after.state is S.EJECTED and before.state is not S.EJECTED:
            assert after.ejections == min(policy.EJECTIONS_MAX, before.ejections + 1)
            wait_s = after.until_s - self.now_s
            expected_s = min(300.0, 5.0 * 2 ** (after.ejections - 1))
            assert 0.8 * expected_s <= wait_s <= 1.2 * expected_s
            agent_said = seen.word in {Word.LOST, Word.STOPPED} or seen.probe is False
            agent_said = agent_said or seen.epoch != before.epoch
            assert agent_said or not seen.kept
            mute = seen.unanswered_s >= seen.patience_s
            assert agent_said or seen.failed or seen.refusing_edges or mute
            assert after.cause is not Cause.UNANSWERED or mute
        if before.state is S.EJECTED and after.state is not S.EJECTED:
            over = self.now_s >= before.until_s
            first_restart = before.ejections <= 1 and seen.epoch != before.epoch
            held_in = seen.hold is Hold.CLOSED
            assert over or first_restart or seen.pardoned or held_in
        if before.state is S.RAMPING and after.state is S.RAMPING:
            assert before.cap_slots <= after.cap_slots <= 1.5 * before.cap_slots
        if after.state in SERVING and before.state not in SERVING:
            assert seen.word is Word.SERVES or after.cause is Cause.PROBED

    def check_hold(self, before: Breaker, seen: Evidence, after: Breaker) -> None:
        """What an operator may do, and may not."""
        if seen.word is Word.LOST and before.state is not S.JOINING:
            assert after.state not in SERVING, "whatever anybody says"
        if seen.hold is Hold.OPEN:
            assert after.state in {S.EJECTED, S.DRAINING, S.JOINING}
        if seen.hold in {Hold.CLOSED, Hold.PAUSED} and after.state is not before.state:
            counted = {Cause.FAILING, Cause.STUMBLED, Cause.SPARED, Cause.UNANSWERED}
            assert after.cause not in counted

    @invariant()
    def bounded(self) -> None:
        if not hasattr(self, "breaker"):
            return
        assert 0 <= self.breaker.ejections <= policy.EJECTIONS_MAX
        held = policy.slots(self.breaker, FULL_SLOTS)
        assert (held > 0) == (self.breaker.state in SERVING)
        assert held <= FULL_SLOTS


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_crash_loop_waits_ever_longer() -> None:
    """An engine that dies 3 s after it gets clients, for an hour."""
    breaker, now_s, deaths_s = STARTS["healthy"], NOW_S, []
    epoch, serves_from_s = 7, NOW_S
    while now_s < NOW_S + 3600:
        now_s += 0.5
        seen = replace(WELL, epoch=epoch, first_tokens=1)
        if breaker.state in SERVING and now_s >= serves_from_s + 3:
            epoch += 1
            seen = replace(WELL, word=Word.LOST)
            deaths_s.append(now_s)
        asked = policy.wants_probe(breaker, seen.word, now_s)
        in_use = breaker.state in SERVING
        breaker = step(breaker, replace(seen, probe=asked or None), now_s, Loaded())
        if breaker.state in SERVING and not in_use:
            serves_from_s = now_s
    gaps_s = [b - a for a, b in itertools.pairwise(deaths_s)]
    assert gaps_s == sorted(gaps_s)
    assert gaps_s[-1] >= 300
    assert len(deaths_s) <= 18
