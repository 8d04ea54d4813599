"""trimtab/trace: what of a caller's trace context is believed, and what an engine hears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import trace

ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LOT = int("1" * 32 + "8" * 16, 16)


@pytest.mark.parametrize(
    ("parent", "sampled"),
    [
        (f"00-{ID}-{PARENT}-01", True),
        (f"00-{ID}-{PARENT}-00", False),
        (f"00-{ID}-{PARENT}-03", True),
        (f"cc-{ID}-{PARENT}-01", True),
        (f"cc-{ID}-{PARENT}-00-what-comes-later", False),
    ],
)
def test_a_trace_that_is_right_goes_on(parent: str, sampled: bool) -> None:
    begun = trace.begin(parent, "a=1,b=2", LOT, 0.0)
    assert (begun.trace_id, begun.parent_id) == (ID, int(PARENT, 16))
    assert (begun.state, begun.sampled) == ("a=1,b=2", sampled)
    flag = "01" if sampled else "00"
    said = begun.headers(3)
    assert said == {
        "traceparent": f"00-{ID}-{begun.attempt_id(3):016x}-{flag}",
        "tracestate": "a=1,b=2",
    }


@pytest.mark.parametrize(
    "parent",
    [
        "",
        f"ff-{ID}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID.upper()}-{PARENT}-01",
        f"00-{ID}-{PARENT}-01-more",
        f"cc-{ID}-{PARENT}-01more",
        f"00-{ID}-{PARENT}-1",
        f"00-{ID}-{PARENT}-01, 00-{ID}-{PARENT}-01",
    ],
)
def test_another_begins_where_it_is_not(parent: str) -> None:
    begun = trace.begin(parent, "a=1", LOT)
    assert begun == trace.begin("", "", LOT)
    assert (begun.trace_id, begun.parent_id, begun.state) == ("1" * 32, 0, "")
    assert "tracestate" not in begun.headers(1)


@pytest.mark.parametrize("state", ["", "a=\x01", "é=1", "x" * 513])
def test_a_state_that_is_wrong_is_nobodys(state: str) -> None:
    assert trace.begin(f"00-{ID}-{PARENT}-01", state, LOT).state == ""


@given(st.integers(0, 2**trace.LOT_BITS - 1), st.floats(0, 1))
def test_every_lot_makes_a_trace_that_others_take(lot: int, ratio: float) -> None:
    begun = trace.begin("", "", lot, ratio)
    again = trace.begin(begun.headers(2)["traceparent"], "", lot + 1)
    assert (again.trace_id, again.parent_id) == (begun.trace_id, begun.attempt_id(2))
    assert again.sampled is begun.sampled
    assert ratio < 1 or begun.sampled
    ids = {begun.span_id, *map(begun.attempt_id, range(1, 9)), *map(begun.wait_id, range(1, 9))}
    assert len(ids) == 17
    assert all(0 < each < 2**64 for each in ids)


def test_the_ratio_is_that_of_other_sdks() -> None:
    low, high = int("3" * 16, 16), int("c" * 16, 16)  # of an id, its last 64 bits decide
    kept = [trace.begin("", "", half << 64, 0.5).sampled for half in (low, high)]
    assert kept == [True, False]
