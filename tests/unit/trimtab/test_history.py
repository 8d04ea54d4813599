"""The timeline's memory: what a cell makes of its moments, and what it never grows beyond."""

from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.history import (
    ENGINES,
    REPLICAS_MAX,
    SPANS,
    USES,
    History,
    Pool,
    Replica,
)
from trimtab.model import EngineState

T0 = 30 * 1_000_000
"""A moment at which cells of every span begin."""


def column(history: History, span: str, name: str, replica: str = "r") -> list[int]:
    """One column of a replica, the oldest cell first."""
    view = history.view(span)
    codes = dict(view["columns"]["replicas"])  # type: ignore[index]
    return list(array(codes[name], view["replicas"][replica][name]))  # type: ignore[index]


def test_a_cell_has_sums_peaks_and_the_worst_state() -> None:
    history, ejected = History(T0), USES.index("ejected")
    moments = [
        Replica("m", started=2, inflight=9, limit=16, waiting=3, use=1, engine=1),
        Replica("m", started=3, inflight=4, limit=8, use=ejected, engine=ENGINES.index("DEAD")),
        Replica("m", started=1, inflight=1, limit=12, use=1, engine=1),
    ]
    for second, moment in enumerate(moments):
        history.add(T0 + second, {"r": moment}, {})
    assert [column(history, "1h", name)[-1] for name in ("started", "inflight", "limit")] == [
        *(6, 9, 16)
    ]
    assert column(history, "6h", "use")[-1] == ejected
    assert column(history, "6h", "engine")[-1] == ENGINES.index("DEAD")
    assert column(history, "15m", "started")[-3:] == [2, 3, 1]


def test_finished_cells_are_told_once() -> None:
    history = History(T0)
    told = [
        (cell.span, cell.at_s - T0, cell.replicas["r"][0], cell.pools["m"])
        for second in range(7)
        for one in history.add(T0 + second, {"r": Replica("m", 1)}, {"m": Pool(2, 1, second)})
        for cell in [history.cell(*one)]
    ]
    assert told == [
        *(("15m", s, 1, [2, 1, s]) for s in range(5)),
        ("1h", 0, 5, [10, 5, 4]),
        ("15m", 5, 1, [2, 1, 5]),
    ]


@pytest.mark.parametrize("gap_s", [3, 899, 900, 5_000])
def test_a_time_in_which_nobody_wrote_is_blank(gap_s: int) -> None:
    history = History(T0)
    history.add(T0, {"r": Replica("m", 7, use=1)}, {})
    history.add(T0 + gap_s, {"r": Replica("m", 8, use=1)}, {})
    cells = column(history, "15m", "started")
    assert cells[-1] == 8
    assert sum(cells) == (15 if gap_s < 900 else 8)


@pytest.mark.parametrize("gap_s", [1, 7, 40, 899, 900, 901, 4_000])
def test_a_longer_cell_keeps_what_was_before_a_gap(gap_s: int) -> None:
    history = History(T0)
    history.add(T0, {"r": Replica("m", 3, use=1)}, {})
    history.add(T0 + 1, {"r": Replica("m", 4, use=1)}, {})
    history.add(T0 + 1 + gap_s, {"r": Replica("m", 5, use=1)}, {})
    assert sum(column(history, "6h", "started")) == 12
    assert column(history, "6h", "started")[-1] == (12 if gap_s < 29 else 5)
    history.add(T0 + 2 + gap_s, {}, {})
    assert column(history, "15m", "started")[-2:] == [5, 0]


def test_a_clock_that_steps_back_breaks_nothing() -> None:
    history = History(T0)
    for at_s in (T0, T0 + 1, T0 - 500):
        history.add(at_s, {"r": Replica("m", 1)}, {})
    assert column(history, "15m", "started")[-2:] == [1, 2]


def test_values_beyond_a_column_are_cut() -> None:
    history = History(T0)
    history.add(T0, {"r": Replica("m", 2**40, 10**6, -1)}, {"m": Pool(queued=10**9)})
    assert [column(history, "15m", c)[-1] for c in ("started", "inflight", "limit")] == [
        *(2**32 - 1, 2**16 - 1, 0)
    ]


def test_it_is_bounded() -> None:
    history = History(T0)
    many = {f"r{i}": Replica("m", 1) for i in range(REPLICAS_MAX + 10)}
    history.add(T0, many, {f"m{i}": Pool() for i in range(1_000)})
    assert len(list(history.names())) == REPLICAS_MAX
    assert len(history.view("15m")["pools"]) == 100  # type: ignore[arg-type]
    history.add(T0 + 6 * 3600 + 1, {"new": Replica("m")}, {})
    assert list(history.names()) == ["new"]


def test_a_hundred_replicas_over_six_hours_take_less_than_30_mb() -> None:
    history = History(T0)
    history.add(T0, {f"r{i}": Replica("m", 1) for i in range(100)}, {"m": Pool(1)})
    total_bytes = sum(
        sys.getsizeof(ring)
        for track in history._replicas.values()
        for rings in track.rings
        for ring in rings
    )
    assert total_bytes < 30e6 / 8


def test_every_engine_state_has_a_code() -> None:
    assert {s.name for s in EngineState if s} == {*ENGINES[1:]}


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=60),
    st.sampled_from(SPANS),
)
def test_no_attempt_is_lost_or_counted_twice(moves: list[tuple[int, int]], span: object) -> None:
    history, at_s = History(T0), T0
    for gap_s, started in moves:
        at_s += gap_s
        history.add(at_s, {"r": Replica("m", started)}, {})
    if at_s - T0 < 600:
        name = span.name  # type: ignore[attr-defined]
        assert sum(column(history, name, "started")) == sum(n for _, n in moves)
