"""When an engine that is to stop is empty."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.leaving import QUIET_S, Leaving


def test_an_engine_without_work_is_empty_only_after_a_while() -> None:
    leaving = Leaving(busy_s=10.0).seen(0, 10.5, gone=False)
    assert not leaving.empty(10.5)
    assert not leaving.empty(10.0 + QUIET_S - 0.01)
    assert leaving.empty(10.0 + QUIET_S)


def test_late_work_begins_the_while_anew() -> None:
    leaving = Leaving(busy_s=10.0).seen(0, 11.0, gone=False).seen(1, 11.5, gone=False)
    leaving = leaving.seen(0, 12.0, gone=False)
    assert not leaving.empty(12.5)
    assert leaving.empty(11.5 + QUIET_S)


def test_what_cannot_be_read_is_not_empty() -> None:
    assert not Leaving(busy_s=0.0).seen(None, 60.0, gone=False).empty(60.0)


def test_an_engine_that_is_gone_is_empty_at_once() -> None:
    assert Leaving(busy_s=10.0).seen(None, 10.5, gone=True).empty(10.5)


@given(st.lists(st.tuples(st.sampled_from([0, 1, None]), st.floats(0.1, 1.0)), max_size=30))
def test_empty_means_no_work_was_seen_for_as_long(looks: list[tuple[int | None, float]]) -> None:
    now_s, last_s, leaving = 0.0, 0.0, Leaving(busy_s=0.0)
    for work, step_s in looks:
        now_s += step_s
        last_s = last_s if work == 0 else now_s
        leaving = leaving.seen(work, now_s, gone=False)
        assert leaving.empty(now_s) <= (work == 0 and now_s - last_s >= QUIET_S)
