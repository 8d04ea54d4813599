"""What the page shows of a control plane that does not lead, and of one that begins to."""

from __future__ import annotations

import pytest

from controlplane.core.placement import Placement
from controlplane.leader import Tenure
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.settings import Settings
from controlplane.watch import Watch
from tests.fakes.store import FakeStore
from trimtab import status
from trimtab.model import EdgePolicy, Pool

SETTINGS = Settings("lab", "cp1", "0", Placement([Pool("m")]), (), EdgePolicy(), stale_s=2.0)
AT_S = 1_800_000_000.0


async def test_who_does_not_lead_says_who_does() -> None:
    seat = Seat(SETTINGS, FakeStore())
    watch = Watch(seat)
    assert watch.remember(AT_S) == []
    found = status.document(watch.look(AT_S))
    assert (found["level"], found["pools"]) == ("DEGRADED", [])
    assert found["sentence"] == "no control plane leads; edges go on with what they have"
    seat.leave("cp2:7000")
    found = status.document(watch.look(AT_S))
    assert (found["level"], found["replicas"]) == ("OK", {})
    assert found["sentence"].startswith("this control plane stands by; cp2:7000 leads")
    with pytest.raises(KeyError):
        await watch.explain("r1")


async def test_a_new_leader_begins_a_new_past() -> None:
    seat, store = Seat(SETTINGS, FakeStore()), FakeStore()
    watch = Watch(seat)
    for term in (1, 2):
        seat.take(ControlLoop(SETTINGS, store, term, Tenure()))
        watch.remember(AT_S + term)
        assert watch.past().since_s == AT_S + term
        assert len(watch.remember(AT_S + term + 1)) == 1
        found = status.document(watch.look(AT_S + term + 1))
        assert (found["name"], dict(found["facts"])["term"]) == ("cp1", str(term))
        assert [pool["pool"] for pool in found["pools"]] == ["m"]
