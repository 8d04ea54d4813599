"""controlplane/core/autoscale: how many replicas."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.autoscale import Demand, by_first_token, by_queue, demand
from tests.fakes.metrics import led

SLO_S = 5.0


def four(**changes: Any) -> Demand:
    """Four replicas of 36 slots each, half used."""
    values: dict[str, Any] = {"replicas": 4, "working": 4, "slots": 144, "used": 72}
    return Demand(**(values | {"work_per_s": 4_000.0, "asked": True} | changes))


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        (four(), 3),  # 72 of 28.8 each
        (four(used=0), 1),
        (four(used=0, asked=False), 0),
        (four(used=115), 4),
        (four(used=116), 5),
        (four(used=144, queued=40, queued_work=20_000.0), 9),  # 5 to run, 4 more to be through
        (four(used=144, queued=40, work_per_s=None), 7),  # nobody knows how fast: by slots
        (four(used=144, starting=2, replicas=6), 5),  # those to come are no reason for more
        (four(replicas=6), 5),  # two spares stay on top
        (four(replicas=6, used=0, asked=False), 2),
        (four(working=3, slots=108, used=108), 5),  # one is out of use: in its stead, one more
        (Demand(), 0),
        (Demand(asked=True), 1),  # from nothing
        (Demand(replicas=3, starting=3, asked=True), 3),
        (Demand(replicas=3, asked=True), 3),  # all are broken: more of them is no help
    ],
)
def test_by_queue(what: Demand, wanted: int) -> None:
    assert by_queue(what, SLO_S) == wanted


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        (four(), 1),  # nothing was seen
        (four(first_token_s=2.4), 1),  # early enough to let others decide
        (four(first_token_s=3.0), 4),  # in time, but not with fewer
        (four(first_token_s=6.0), 5),
        (four(first_token_s=60.0), 8),  # twice as many at once, no more
        (four(first_token_s=60.0, used=71), 1),  # idle engines, long prompts
        (four(first_token_s=60.0, used=71, queued=1), 8),
        (four(first_token_s=6.0, replicas=6), 7),
        (four(asked=False, used=0), 0),
        (Demand(replicas=2, first_token_s=60.0), 2),
    ],
)
def test_by_first_token(what: Demand, wanted: int) -> None:
    assert by_first_token(what, SLO_S) == wanted


@given(
    used=st.integers(0, 500),
    more=st.integers(0, 500),
    queued_work=st.floats(0, 1e6),
    spares=st.integers(0, 5),
)
def test_more_to_do_never_asks_for_fewer_and_spares_stay(
    used: int, more: int, queued_work: float, spares: int
) -> None:
    calm = four(used=used, queued_work=queued_work)
    busy = four(used=used + more, queued_work=queued_work, replicas=4 + spares)
    assert by_queue(busy, SLO_S) >= by_queue(calm, SLO_S) + spares


def test_what_is_known_of_a_model() -> None:
    found = demand(led(), "m0", 101.0)
    assert (found.replicas, found.working, found.starting) == (25, 25, 0)
    assert (found.used, found.queued, found.queued_work) == (3, 2, 40.0)
    assert found.first_token_s == pytest.approx(0.5)
    assert found.is_active
    assert not demand(led(), "m1", 101.0).is_active
    assert demand(led(), "nobody's", 101.0).replicas == 0
