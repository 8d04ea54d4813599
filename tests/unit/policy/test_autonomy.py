"""policy/autonomy: silence is counted while awake, and room floats between two bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy.autonomy import (
    CUT,
    CUT_GAP_S,
    FLOOR_SLOTS,
    MEMORY,
    REFUSED_GAP_S,
    Lease,
    Mode,
    Silence,
)

NORMAL_S = 1.0


def taught(first_s: float = NORMAL_S) -> Lease:
    """A lease that knows what is normal."""
    lease = Lease()
    for _ in range(int(MEMORY)):
        lease.began(first_s, 10, 0.0)
    return lease


def floating(slots: int = 10, limit: int = 40) -> Lease:
    lease = taught()
    lease.take_over(slots, limit)
    return lease


@pytest.mark.parametrize(
    ("looks", "mode"),
    [
        ([0.25] * 12, Mode.NORMAL),
        ([0.25] * 13, Mode.HOLD),
        ([0.25] * 20, Mode.HOLD),
        ([0.25] * 21, Mode.AUTONOMOUS),
        ([3600.0], Mode.NORMAL),  # we slept; the pushes are in the socket
        ([-5.0, 0.25], Mode.NORMAL),
    ],
)
def test_silence_is_counted_only_while_we_listened(looks: list[float], mode: Mode) -> None:
    silence = Silence()
    for elapsed_s in looks:
        silence.passed(elapsed_s)
    assert silence.mode is mode


def test_any_push_ends_the_silence() -> None:
    silence = Silence(seconds=100.0)
    assert silence.mode is Mode.AUTONOMOUS
    assert silence.heard() is Mode.NORMAL


def test_under_a_control_plane_nothing_floats() -> None:
    lease = taught()
    lease.refused(1.0)
    lease.gone()
    lease.began(100.0, 10, 2.0)
    assert lease.slots is None


def test_own_room_begins_with_what_was_granted_and_ends_with_new_credits() -> None:
    lease = floating(10)
    assert lease.slots == 10
    lease.began(NORMAL_S, 10, 1.0)
    lease.take_over(10, 40)  # still alone: nothing begins anew
    assert lease.slots == 11
    lease.give_back()
    assert lease.slots is None
    lease.take_over(7, 40)
    assert lease.slots == 7


def test_who_was_granted_nothing_may_try_one() -> None:
    assert floating(0).slots == 1


@pytest.mark.parametrize(
    ("first_s", "used", "slots"),
    [
        (NORMAL_S, 8, 11.0),
        (NORMAL_S, 7, 10.0),  # what is not used says nothing
        (0.01, 10, 11.0),
    ],
)
def test_a_first_byte_in_time_gives_one_more_where_room_is_used(
    first_s: float, used: int, slots: float
) -> None:
    lease = floating(10)
    lease.began(first_s, used, 1.0)
    assert lease.slots == slots


def test_room_grows_to_the_limit_and_no_further() -> None:
    lease = floating(10, 13)
    for _ in range(100):
        lease.began(NORMAL_S, 13, 1.0)
    assert lease.slots == 13


def test_without_a_known_limit_the_credits_are_held() -> None:
    lease = floating(10, 0)
    lease.began(NORMAL_S, 10, 1.0)
    assert lease.slots == 10


def test_late_first_bytes_cut_a_tenth_every_five_seconds_down_to_the_floor() -> None:
    lease = floating(20)
    for _ in range(30):
        lease.began(20.0, 20, 1.0)
    held = lease.slots
    assert held is not None
    lease.began(20.0, 20, 1.0 + CUT_GAP_S)
    assert lease.slots == pytest.approx(CUT * held)
    for k in range(2, 100):
        lease.began(20.0, 20, 1.0 + k * CUT_GAP_S)
    assert lease.slots == FLOOR_SLOTS


def test_between_quick_and_late_it_stays() -> None:
    lease = floating(10)
    for _ in range(50):
        lease.began(3.0 * NORMAL_S, 10, 1.0)
    held = lease.slots
    for _ in range(50):
        lease.began(3.0 * NORMAL_S, 10, 100.0)
    assert lease.slots == held


def test_normal_does_not_follow_the_queue_while_nobody_rules() -> None:
    lease = floating(10)
    wait_s = NORMAL_S
    for k in range(400):
        wait_s = min(20.0, wait_s * 1.02)
        lease.began(wait_s, 40, 10.0 * k)
    assert lease.slots == FLOOR_SLOTS


def test_one_long_prompt_among_short_ones_changes_little() -> None:
    lease = floating(10)
    lease.began(10.0 * NORMAL_S, 10, 1.0)
    lease.began(NORMAL_S, 10, 1.0)
    assert lease.slots is not None
    assert lease.slots >= 11


def test_who_knows_no_normal_learns_it_first() -> None:
    lease = Lease()
    lease.take_over(10, 40)
    for _ in range(int(MEMORY) - 1):
        lease.began(2.0, 10, 1.0)
    assert lease.slots == 10
    lease.began(2.0, 10, 1.0)
    assert lease.slots == 11


def test_whole_answers_are_judged_by_their_seconds_a_token() -> None:
    lease = Lease()
    for tokens in (100, 200, 50, 400) * 2:
        lease.ended(0.05 * tokens, tokens, 10, 0.0)
    lease.take_over(10, 40)
    lease.ended(0.05 * 300, 300, 10, 1.0)
    assert lease.slots == 11
    for _ in range(30):
        lease.ended(0.5 * 100, 100, 10, 2.0)
    held = lease.slots
    lease.ended(0.5 * 100, 100, 10, 2.0 + CUT_GAP_S)
    assert held is not None
    assert lease.slots == pytest.approx(CUT * held)


def test_a_refusal_cuts_once_a_second() -> None:
    lease = floating(20)
    lease.refused(1.0)
    lease.refused(1.5)
    assert lease.slots == pytest.approx(18.0)
    lease.refused(1.0 + REFUSED_GAP_S)
    assert lease.slots == pytest.approx(16.2)


def test_what_was_gone_begins_small() -> None:
    lease = floating(30)
    lease.gone()
    assert lease.slots == FLOOR_SLOTS
    small = floating(2)
    small.gone()
    assert small.slots == 2


EVENTS = st.one_of(
    st.tuples(st.just("began"), st.floats(0.0, 1000.0), st.integers(0, 300)),
    st.tuples(st.just("ended"), st.floats(0.0, 1000.0), st.integers(0, 300)),
    st.tuples(st.just("refused"), st.just(0.0), st.just(0)),
    st.tuples(st.just("gone"), st.just(0.0), st.just(0)),
)


@given(st.integers(0, 300), st.integers(0, 300), st.lists(EVENTS, max_size=200))
def test_room_stays_between_a_few_and_the_limit(
    granted: int, limit: int, events: list[tuple[str, float, int]]
) -> None:
    lease = taught()
    lease.take_over(granted, limit)
    for k, (kind, seconds, used) in enumerate(events):
        before = lease.slots
        match kind:
            case "began":
                lease.began(seconds, used, float(k))
            case "ended":
                lease.ended(seconds, used, used, float(k))
            case "refused":
                lease.refused(float(k))
            case _:
                lease.gone()
        assert before is not None
        assert lease.slots is not None
        assert min(granted, FLOOR_SLOTS, 1) <= lease.slots <= max(1, granted, limit)
        assert lease.slots >= min(before, FLOOR_SLOTS)
        assert lease.slots <= before + 1.0
