"""One line a burst, a limit a minute, and no more memory than that."""

from __future__ import annotations

from controlplane.core.bursts import KEYS_LIMIT, WINDOW_S, Bursts


def test_the_first_of_a_burst_is_told_and_the_next_burst_begins_later() -> None:
    bursts = Bursts()
    assert [bursts.add("a", now_s) for now_s in (0.0, 1.0, WINDOW_S - 0.1)] == [True, False, False]
    assert bursts.count("a", 2.0) == 3
    assert bursts.add("b", 2.0), "another's"
    assert bursts.count("a", WINDOW_S) == 0
    assert bursts.add("a", WINDOW_S)
    assert (bursts.count("a", WINDOW_S), bursts.total) == (1, 5)


def test_strangers_do_not_make_it_grow() -> None:
    bursts = Bursts()
    for number in range(2 * KEYS_LIMIT):
        bursts.add(str(number), 0.0)
    assert bursts.count("0", 0.0) == 0, "the first gave way"
    held = [number for number in range(2 * KEYS_LIMIT) if bursts.count(str(number), 0.0)]
    assert len(held) == KEYS_LIMIT
