"""policy/ranking: many queues in the order of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import TenantUse, Urgency
from trimtab.policy.ranking import first


def use(
    *ages_ms: int, tenant: str = "t", urgency: Urgency = Urgency.DEFAULT, more: int = 0
) -> TenantUse:
    queued = len(ages_ms) + more
    return TenantUse(tenant, urgency, queued, 10.0 * queued, ages_ms)


@pytest.mark.parametrize(
    ("waiting", "counters", "count", "expected"),
    [
        pytest.param(
            {"e1": [use(900, 100)], "e2": [use(800, 700)]}, {}, 3, {"e1": 1, "e2": 2}, id="age"
        ),
        pytest.param(
            {"e1": [use(900)], "e2": [use(800)]}, {}, 1.5, {"e1": 1, "e2": 0.5}, id="part"
        ),
        pytest.param(
            {"e1": [use(900, more=5)], "e2": [use(901)]}, {}, 4, {"e1": 3, "e2": 1}, id="untold"
        ),
        pytest.param({"e1": [use(5)]}, {}, 9, {"e1": 1}, id="fewer than asked"),
        pytest.param({}, {}, 9, {}, id="nobody"),
        pytest.param(
            {"e1": [use(900, more=50, tenant="flood")], "e2": [use(5, more=9, tenant="light")]},
            {"flood": 500.0, "light": 500.0},
            10,
            {"e1": 5, "e2": 5},
            id="tenants take turns, however old",
        ),
        pytest.param(
            {"e1": [use(900, more=50, tenant="flood")], "e2": [use(5, more=9, tenant="light")]},
            {"flood": 500.0, "light": 460.0},
            10,
            {"e1": 3, "e2": 7},
            id="who had less work first",
        ),
        pytest.param(
            {
                "e1": [use(9, more=99, urgency=Urgency.CRITICAL)],
                "e2": [use(9_000, more=99, urgency=Urgency.BATCH)],
            },
            {},
            20,
            {"e1": 19, "e2": 1},
            id="urgency before age",
        ),
    ],
)
def test_first(
    waiting: dict[str, list[TenantUse]],
    counters: dict[str, float],
    count: float,
    expected: dict[str, float],
) -> None:
    assert first(waiting, counters, count) == pytest.approx(expected)


USES = st.builds(
    TenantUse,
    tenant=st.sampled_from("abc"),
    urgency=st.sampled_from(Urgency),
    queued=st.integers(0, 20),
    queued_work=st.floats(0, 1e5),
    ages_ms=st.lists(st.integers(0, 100_000), max_size=20).map(
        lambda ages: tuple(sorted(ages, reverse=True))
    ),
)


@given(
    st.dictionaries(st.sampled_from(["e1", "e2", "e3"]), st.lists(USES, max_size=4)),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e6)),
    st.floats(0, 100),
)
def test_as_many_as_asked_and_no_edge_more_than_wait_there(
    waiting: dict[str, list[TenantUse]], counters: dict[str, float], count: float
) -> None:
    queued = {edge: sum(u.queued for u in uses) for edge, uses in waiting.items()}
    found = first(waiting, counters, count)
    assert sum(found.values()) == pytest.approx(min(count, sum(queued.values())))
    assert all(number <= queued[edge] + 1e-6 for edge, number in found.items())
