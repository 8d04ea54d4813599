"""The breaker: every move of its table, its ramp, its waits. Its invariants have their own file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.dice import Loaded
from trimtab.model import BreakerState as S
from trimtab.policy import breaker as policy
from trimtab.policy.breaker import TABLE, Breaker, Cause, Evidence, Hold, Word, step

FULL_SLOTS = 132
NOW_S = 1000.0
WELL = Evidence(Word.SERVES, epoch=7, full_slots=FULL_SLOTS)
USED = replace(WELL, dispatched=40)
SOFT = replace(USED, failed=3)
HARD = replace(WELL, dispatched=8, failed=8)
NEW_START = replace(WELL, epoch=8)
GOOD_PROBE, BAD_PROBE = replace(WELL, probe=True), replace(WELL, probe=False)
REFUSED = replace(WELL, refusing_edges=2)
MUTE = replace(WELL, unanswered_s=10.0, patience_s=10.0)
TOKENS = replace(WELL, first_tokens=1)
OUT = replace(WELL, hold=Hold.OPEN)
GONE = replace(WELL, word=Word.LOST)


def said(word: Word) -> Evidence:
    return replace(WELL, word=word)


NEW = Breaker()
COLD = Breaker(cold=True)
PROBING = Breaker(S.PROBING, since_s=NOW_S, due_s=NOW_S, epoch=7)
RAMPING = Breaker(S.RAMPING, since_s=NOW_S, due_s=NOW_S + 2, cap_slots=6.6, epoch=7)
HEALTHY = Breaker(S.HEALTHY, epoch=7)
DEGRADED = Breaker(S.DEGRADED, epoch=7)
DRAINING = Breaker(S.DRAINING, epoch=7)


def ejected(cause: Cause, count: int = 1) -> Breaker:
    return Breaker(S.EJECTED, cause, NOW_S, count, until_s=NOW_S + 5, epoch=7)


DEAD = ejected(Cause.LOST)

MOVES: dict[str, tuple[Breaker, Evidence, float, S, Cause | None]] = {
    "serves at first sight": (NEW, WELL, 0, S.HEALTHY, Cause.FOUND),
    "nothing said yet": (NEW, Evidence(), 0, S.JOINING, None),
    "not there yet": (NEW, said(Word.STOPPED), 0, S.JOINING, None),
    "dead before it served": (NEW, said(Word.LOST), 0, S.JOINING, None),
    "started before our eyes": (COLD, WELL, 0, S.PROBING, Cause.STARTED),
    "still loading": (COLD, said(Word.STOPPED), 0, S.JOINING, None),
    "not probed yet": (PROBING, WELL, 0, S.PROBING, None),
    "a good probe": (PROBING, GOOD_PROBE, 0, S.RAMPING, Cause.PROBED),
    "a good probe, once ejected": (
        replace(PROBING, ejections=1),
        GOOD_PROBE,
        0,
        S.RAMPING,
        Cause.PROBED,
    ),
    "a good probe, ejected often": (replace(PROBING, ejections=7), GOOD_PROBE, 0, S.PROBING, None),
    "the last good probe": (
        replace(PROBING, ejections=7, probes=2),
        GOOD_PROBE,
        2,
        S.RAMPING,
        Cause.PROBED,
    ),
    "a bad probe": (PROBING, BAD_PROBE, 2, S.EJECTED, Cause.PROBE_FAILED),
    "dies while probed": (PROBING, said(Word.LOST), 0, S.EJECTED, Cause.LOST),
    "starts anew while probed": (PROBING, NEW_START, 0, S.EJECTED, Cause.STOPPED),
    "sleeps while probed": (PROBING, said(Word.LEAVING), 0, S.DRAINING, Cause.LEAVING),
    "agent away, a moment": (PROBING, replace(WELL, agent_silent=True), 1, S.PROBING, None),
    "agent away": (PROBING, replace(WELL, agent_silent=True), 3, S.RAMPING, Cause.UNPROBED),
    "probes tell nothing": (
        PROBING,
        replace(WELL, probes_tell=False),
        3,
        S.RAMPING,
        Cause.UNPROBED,
    ),
    "agent away, it had been lost": (
        PROBING,
        replace(said(Word.STUCK), agent_silent=True),
        9,
        S.PROBING,
        None,
    ),
    "ramps on": (RAMPING, TOKENS, 0, S.RAMPING, None),
    "ramped": (replace(RAMPING, cap_slots=88.0, due_s=NOW_S), TOKENS, 0, S.HEALTHY, Cause.FULL),
    "one failure of few": (
        RAMPING,
        replace(WELL, dispatched=9, failed=1),
        0,
        S.EJECTED,
        Cause.STUMBLED,
    ),
    "one failure of many": (RAMPING, replace(WELL, dispatched=20, failed=1), 0, S.RAMPING, None),
    "fails while kept": (
        RAMPING,
        replace(WELL, dispatched=9, failed=9, kept=True),
        0,
        S.RAMPING,
        None,
    ),
    "a bad probe while it ramps": (RAMPING, BAD_PROBE, 2, S.EJECTED, Cause.PROBE_FAILED),
    "dies while it ramps": (RAMPING, said(Word.LOST), 0, S.EJECTED, Cause.LOST),
    "starts anew while it ramps": (RAMPING, NEW_START, 0, S.EJECTED, Cause.STOPPED),
    "leaves while it ramps": (RAMPING, said(Word.LEAVING), 0, S.DRAINING, Cause.LEAVING),
    "refused while it ramps": (RAMPING, REFUSED, 0, S.EJECTED, Cause.REFUSED),
    "answers nothing while it ramps": (RAMPING, MUTE, 0, S.EJECTED, Cause.UNANSWERED),
    "stuck while it ramps": (RAMPING, said(Word.STUCK), 0, S.RAMPING, None),
    "well": (HEALTHY, USED, 0, S.HEALTHY, None),
    "stuck": (HEALTHY, said(Word.STUCK), 0, S.HEALTHY, None),
    "silent agent": (HEALTHY, replace(USED, agent_silent=True), 0, S.HEALTHY, None),
    "an agent that knows nothing": (HEALTHY, said(Word.NONE), 0, S.HEALTHY, None),
    "dies": (HEALTHY, said(Word.LOST), 0, S.EJECTED, Cause.LOST),
    "its engine starts": (HEALTHY, said(Word.STOPPED), 0, S.EJECTED, Cause.STOPPED),
    "it is another start": (HEALTHY, NEW_START, 0, S.EJECTED, Cause.STOPPED),
    "its start becomes known": (replace(HEALTHY, epoch=0), NEW_START, 0, S.HEALTHY, None),
    "its start becomes unknown": (HEALTHY, replace(WELL, epoch=0), 0, S.HEALTHY, None),
    "leaves": (HEALTHY, said(Word.LEAVING), 0, S.DRAINING, Cause.LEAVING),
    "refused at one edge": (HEALTHY, replace(WELL, refusing_edges=1), 0, S.HEALTHY, None),
    "refused at two edges": (HEALTHY, REFUSED, 0, S.EJECTED, Cause.REFUSED),
    "refused at two, kept": (HEALTHY, replace(REFUSED, kept=True), 0, S.HEALTHY, None),
    "refused at one, agent silent": (
        HEALTHY,
        replace(WELL, refusing_edges=1, agent_silent=True),
        0,
        S.EJECTED,
        Cause.REFUSED,
    ),
    "answers nothing": (HEALTHY, MUTE, 0, S.EJECTED, Cause.UNANSWERED),
    "answers nothing yet": (HEALTHY, replace(MUTE, unanswered_s=9.9), 0, S.HEALTHY, None),
    "answers nothing, may be slow": (HEALTHY, replace(MUTE, patience_s=60.0), 0, S.HEALTHY, None),
    "answers nothing, kept": (HEALTHY, replace(MUTE, kept=True), 0, S.HEALTHY, None),
    "answers nothing, paused": (HEALTHY, replace(MUTE, hold=Hold.PAUSED), 0, S.HEALTHY, None),
    "answers nothing any more": (
        DEGRADED,
        replace(SOFT, unanswered_s=60.0),
        0,
        S.EJECTED,
        Cause.UNANSWERED,
    ),
    "fails all of eight": (HEALTHY, HARD, 0, S.EJECTED, Cause.FAILING),
    "fails all of seven": (HEALTHY, replace(WELL, dispatched=7, failed=7), 0, S.HEALTHY, None),
    "failed all lately": (
        HEALTHY,
        replace(WELL, dispatched=100, failed=30, lately_dispatched=30, lately_failed=27),
        0,
        S.EJECTED,
        Cause.FAILING,
    ),
    "failed most lately": (
        HEALTHY,
        replace(WELL, dispatched=100, failed=30, lately_dispatched=30, lately_failed=26),
        0,
        S.DEGRADED,
        Cause.IMPAIRED,
    ),
    "failed all of the newest few": (
        HEALTHY,
        replace(WELL, dispatched=29, failed=20, lately_dispatched=29, lately_failed=29),
        0,
        S.DEGRADED,
        Cause.IMPAIRED,
    ),
    "fails all, kept": (HEALTHY, replace(HARD, kept=True), 0, S.DEGRADED, Cause.IMPAIRED),
    "fails some": (HEALTHY, SOFT, 0, S.DEGRADED, Cause.IMPAIRED),
    "fails some, spared": (HEALTHY, replace(SOFT, spared=True), 0, S.EJECTED, Cause.SPARED),
    "fails some, spared and kept": (
        HEALTHY,
        replace(SOFT, spared=True, kept=True),
        0,
        S.DEGRADED,
        Cause.IMPAIRED,
    ),
    "spared for nothing": (HEALTHY, replace(USED, spared=True), 0, S.HEALTHY, None),
    "fails 5 %": (HEALTHY, replace(USED, failed=2), 0, S.HEALTHY, None),
    "fails 2 of 19": (HEALTHY, replace(WELL, dispatched=19, failed=2), 0, S.HEALTHY, None),
    "still fails some": (DEGRADED, SOFT, 0, S.DEGRADED, None),
    "fails less, not little": (DEGRADED, replace(USED, failed=2), 0, S.DEGRADED, None),
    "fails little": (DEGRADED, replace(USED, failed=1), 0, S.HEALTHY, Cause.RECOVERED),
    "unused": (DEGRADED, WELL, 0, S.HEALTHY, Cause.RECOVERED),
    "fails on, spared": (DEGRADED, replace(SOFT, spared=True), 0, S.EJECTED, Cause.SPARED),
    "fails all by now": (DEGRADED, HARD, 0, S.EJECTED, Cause.FAILING),
    "degraded, dies": (DEGRADED, said(Word.LOST), 0, S.EJECTED, Cause.LOST),
    "degraded, starts": (DEGRADED, said(Word.STOPPED), 0, S.EJECTED, Cause.STOPPED),
    "degraded, leaves": (DEGRADED, said(Word.LEAVING), 0, S.DRAINING, Cause.LEAVING),
    "degraded, refused": (DEGRADED, REFUSED, 0, S.EJECTED, Cause.REFUSED),
    "waits": (DEAD, WELL, 4.9, S.EJECTED, None),
    "waited": (DEAD, WELL, 5, S.PROBING, Cause.WAITED),
    "waited, still dead": (DEAD, said(Word.LOST), 5, S.EJECTED, None),
    "waited, stuck": (DEAD, said(Word.STUCK), 5, S.EJECTED, None),
    "a clean restart": (DEAD, NEW_START, 0.5, S.PROBING, Cause.RESTARTED),
    "a restart that still loads": (
        DEAD,
        replace(NEW_START, word=Word.STOPPED),
        9,
        S.EJECTED,
        None,
    ),
    "a second restart": (ejected(Cause.LOST, 2), NEW_START, 0.5, S.EJECTED, None),
    "pardoned": (
        ejected(Cause.SPARED, 3),
        replace(NEW_START, pardoned=True),
        0.5,
        S.DEGRADED,
        Cause.PARDONED,
    ),
    "pardoned, but dead": (
        ejected(Cause.FAILING),
        replace(said(Word.LOST), pardoned=True),
        0.5,
        S.EJECTED,
        None,
    ),
    "no pardon for what its agent said": (DEAD, replace(WELL, pardoned=True), 0.5, S.EJECTED, None),
    "still away": (DRAINING, said(Word.LEAVING), 0, S.DRAINING, None),
    "away, agent unsure": (DRAINING, said(Word.NONE), 0, S.DRAINING, None),
    "back": (DRAINING, WELL, 0, S.JOINING, Cause.RETURNED),
    "held out, new": (NEW, OUT, 0, S.EJECTED, Cause.HELD),
    "held out while probed": (PROBING, OUT, 0, S.EJECTED, Cause.HELD),
    "held out while it ramps": (RAMPING, OUT, 0, S.EJECTED, Cause.HELD),
    "held out": (HEALTHY, OUT, 0, S.EJECTED, Cause.HELD),
    "held out, and failing": (DEGRADED, OUT, 0, S.EJECTED, Cause.HELD),
    "held out, though needed": (HEALTHY, replace(OUT, kept=True), 0, S.EJECTED, Cause.HELD),
    "still held out": (ejected(Cause.HELD), OUT, 900, S.EJECTED, None),
    "held out, a new start": (DEAD, replace(NEW_START, hold=Hold.OPEN), 900, S.EJECTED, None),
    "held out, no pardon": (
        ejected(Cause.FAILING),
        replace(OUT, pardoned=True),
        0,
        S.EJECTED,
        None,
    ),
    "let go": (
        replace(ejected(Cause.HELD), until_s=NOW_S),
        WELL,
        0.5,
        S.PROBING,
        Cause.WAITED,
    ),
    "held in, failing": (HEALTHY, replace(HARD, hold=Hold.CLOSED), 0, S.DEGRADED, Cause.IMPAIRED),
    "held in, spared": (
        DEGRADED,
        replace(SOFT, spared=True, hold=Hold.CLOSED),
        0,
        S.DEGRADED,
        None,
    ),
    "held in, stumbling": (
        RAMPING,
        replace(WELL, dispatched=9, failed=9, hold=Hold.CLOSED),
        0,
        S.RAMPING,
        None,
    ),
    "held in, dies": (
        HEALTHY,
        replace(said(Word.LOST), hold=Hold.CLOSED),
        0,
        S.EJECTED,
        Cause.LOST,
    ),
    "held in, port closed": (
        HEALTHY,
        replace(REFUSED, hold=Hold.CLOSED),
        0,
        S.EJECTED,
        Cause.REFUSED,
    ),
    "held in, had been ejected for its counts": (
        ejected(Cause.SPARED),
        replace(WELL, hold=Hold.CLOSED),
        0.5,
        S.DEGRADED,
        Cause.PARDONED,
    ),
    "held in, had died": (DEAD, replace(WELL, hold=Hold.CLOSED), 0.5, S.EJECTED, None),
    "paused, failing": (HEALTHY, replace(HARD, hold=Hold.PAUSED), 0, S.DEGRADED, Cause.IMPAIRED),
    "paused, dies": (HEALTHY, replace(GONE, hold=Hold.PAUSED), 0, S.EJECTED, Cause.LOST),
    "paused, no pardon": (
        ejected(Cause.SPARED),
        replace(WELL, hold=Hold.PAUSED),
        0.5,
        S.EJECTED,
        None,
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    before, seen, later_s, state, cause = MOVES[name]
    after = step(before, seen, NOW_S + later_s, Loaded())
    assert after.state is state
    if cause is not None:
        assert after.cause is cause
        assert after.since_s == NOW_S + later_s
    else:
        assert (after.cause, after.since_s) == (before.cause, before.since_s)


def test_an_operators_hold_costs_no_penance() -> None:
    before = replace(HEALTHY, ejections=2, due_s=NOW_S + 60)
    held = step(before, OUT, NOW_S, Loaded())
    assert (held.ejections, held.until_s) == (2, NOW_S)


@pytest.mark.parametrize("before", [replace(DEAD, ejections=5), replace(DEGRADED, ejections=3)])
def test_a_reset_forgets_and_takes_nothing_away(before: Breaker) -> None:
    after = policy.reset(before, NOW_S + 1)
    assert (after.ejections, after.state, after.counts_from_s) == (0, before.state, NOW_S + 1)
    on = step(after, WELL, NOW_S + 1, Loaded())
    assert on.state is (S.PROBING if before.state is S.EJECTED else S.HEALTHY)


def test_every_row_of_the_table_is_tried() -> None:
    tried = {(b.state, cause, to) for b, _, _, to, cause in MOVES.values() if cause is not None}
    assert tried == {(of, cause, to) for of, row in TABLE.items() for cause, to in row}


def test_every_state_has_a_way_on() -> None:
    assert set(TABLE) == set(S) - {S.UNSPECIFIED}
    assert {cause for row in TABLE.values() for cause, _ in row} == set(Cause)


def live(breaker: Breaker, seen: Evidence, seconds: float, from_s: float) -> Breaker:
    """So long with the same evidence, twice a second; probes are answered as the evidence says."""
    for tick in range(round(seconds * 2)):
        now_s = from_s + tick / 2
        asked = policy.wants_probe(breaker, seen.word, now_s)
        breaker = step(breaker, replace(seen, probe=True if asked else None), now_s, Loaded())
    return breaker


def test_a_cold_start_is_back_in_seconds() -> None:
    started = live(COLD, TOKENS, 1.5, NOW_S)
    assert (started.state, started.cap_slots) == (S.RAMPING, 0.25 * FULL_SLOTS)
    grown = live(started, TOKENS, 4.5, NOW_S + 1.5)
    assert grown.cap_slots == pytest.approx(0.25 * FULL_SLOTS * 1.5**2)
    assert live(grown, TOKENS, 4, NOW_S + 6).state is S.HEALTHY


def test_one_that_fails_again_and_again_gets_less() -> None:
    caps, probes = [], []
    for ejections in range(8):
        began = replace(PROBING, ejections=ejections)
        asked = 0
        while began.state is S.PROBING:
            began, asked = step(began, GOOD_PROBE, NOW_S, Loaded()), asked + 1
        caps.append(began.cap_slots / FULL_SLOTS)
        probes.append(asked)
    assert caps == [0.25, 0.25, 0.125, 0.0625, 0.05, 0.05, 0.05, 0.05]
    assert probes == [1, 1, 2, 3, 3, 3, 3, 3]
    slowest = live(replace(RAMPING, cap_slots=0.05 * FULL_SLOTS), TOKENS, 16.5, NOW_S)
    assert slowest.state is S.HEALTHY


def test_small_engines_begin_with_four() -> None:
    small = replace(GOOD_PROBE, full_slots=12)
    began = step(PROBING, small, NOW_S, Loaded())
    assert (began.cap_slots, policy.slots(began, 12)) == (4, 4)


HOLDS = {
    "no token": WELL,
    "its queue grows": replace(TOKENS, waiting=5),
    "slower than its peers": replace(TOKENS, itl_ratio=1.6),
    "failures, kept": replace(TOKENS, dispatched=10, failed=2, kept=True),
}


@pytest.mark.parametrize("name", HOLDS)
def test_the_ramp_holds(name: str) -> None:
    for now_s in (NOW_S + 2, NOW_S + 60):
        assert step(RAMPING, HOLDS[name], now_s, Loaded()).cap_slots == RAMPING.cap_slots


def test_the_ramp_grows_on_evidence_that_came_before_it_was_due() -> None:
    fine = replace(WELL, waiting=4, itl_ratio=1.5)
    early = step(RAMPING, TOKENS, NOW_S + 0.5, Loaded())
    assert early.cap_slots == RAMPING.cap_slots
    grown = step(early, fine, NOW_S + 2, Loaded())
    assert grown.cap_slots == pytest.approx(1.5 * RAMPING.cap_slots)
    assert step(grown, fine, NOW_S + 4, Loaded()).cap_slots == grown.cap_slots


def test_who_is_probed() -> None:
    assert policy.wants_probe(PROBING, Word.SERVES, NOW_S)
    assert not policy.wants_probe(PROBING, Word.STUCK, NOW_S)
    once = step(replace(PROBING, ejections=2), GOOD_PROBE, NOW_S + 0.1, Loaded())
    assert not policy.wants_probe(once, Word.SERVES, NOW_S + 1.0)
    assert policy.wants_probe(once, Word.SERVES, NOW_S + 1.1)
    assert not policy.wants_probe(RAMPING, Word.SERVES, NOW_S + 1)
    assert policy.wants_probe(RAMPING, Word.SERVES, NOW_S + 2)
    busy = replace(RAMPING, first_token=True)
    assert not policy.wants_probe(busy, Word.SERVES, NOW_S + 2)
    assert not policy.wants_probe(HEALTHY, Word.SERVES, NOW_S + 99)


@pytest.mark.parametrize(
    ("breaker", "slots"),
    [
        (NEW, 0),
        (PROBING, 0),
        (RAMPING, 6),
        (replace(RAMPING, cap_slots=140.0), FULL_SLOTS),
        (HEALTHY, FULL_SLOTS),
        (DEGRADED, FULL_SLOTS),
        (DEAD, 0),
        (DRAINING, 0),
    ],
)
def test_slots(breaker: Breaker, slots: int) -> None:
    assert policy.slots(breaker, FULL_SLOTS) == slots


@pytest.mark.parametrize(
    ("breaker", "seen", "condemned"),
    [
        (HEALTHY, USED, False),
        (HEALTHY, SOFT, False),
        (HEALTHY, HARD, True),
        (DEGRADED, REFUSED, True),
        (RAMPING, SOFT, True),
        (RAMPING, USED, False),
        (DEAD, HARD, False),
    ],
)
def test_who_is_condemned(breaker: Breaker, seen: Evidence, *, condemned: bool) -> None:
    assert policy.is_condemned(breaker, seen) is condemned


def test_what_a_pardon_may_undo() -> None:
    assert policy.is_pardonable(ejected(Cause.FAILING))
    assert not policy.is_pardonable(DEAD)
    assert not policy.is_pardonable(replace(HEALTHY, cause=Cause.FAILING))


@pytest.mark.parametrize(("dice", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_waits_double_up_to_five_minutes(dice: float, factor: float) -> None:
    waits_s, breaker = [], HEALTHY
    for _ in range(9):
        breaker = step(replace(breaker, state=S.DEGRADED), said(Word.LOST), NOW_S, Loaded(dice))
        waits_s.append(breaker.until_s - NOW_S)
    expected = [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert waits_s == pytest.approx([factor * wait_s for wait_s in expected], rel=1e-4)
    assert breaker.ejections == policy.EJECTIONS_MAX


def test_time_in_use_forgives() -> None:
    entered = step(replace(RAMPING, cap_slots=FULL_SLOTS, ejections=3), WELL, NOW_S, Loaded())
    assert (entered.state, entered.ejections) == (S.HEALTHY, 3)
    counts = {at_s: live(entered, WELL, at_s, NOW_S).ejections for at_s in (180, 181, 301, 361)}
    assert counts == {180: 3, 181: 2, 301: 1, 361: 0}
    assert live(entered, WELL, 3600, NOW_S).ejections == 0


def test_another_life_is_not_held_against_it() -> None:
    assert step(NEW, WELL, NOW_S, Loaded()).counts_from_s == NOW_S
    ramping = step(PROBING, GOOD_PROBE, NOW_S, Loaded())
    assert ramping.counts_from_s == NOW_S
    full = step(replace(ramping, cap_slots=FULL_SLOTS), WELL, NOW_S + 20, Loaded())
    assert (full.state, full.counts_from_s) == (S.HEALTHY, NOW_S)
    assert step(full, SOFT, NOW_S + 30, Loaded()).counts_from_s == NOW_S
    pardoned = step(ejected(Cause.SPARED), replace(WELL, pardoned=True), NOW_S + 1, Loaded())
    assert pardoned.counts_from_s == NOW_S + 1
