"""What is held about one replica."""

from __future__ import annotations

from controlplane.core.replica import Replica
from tests.fakes.peers import sample
from trimtab.model import EngineState


def test_before_the_first_sample_nothing_is_known() -> None:
    replica = Replica("r1", "http://h:1", known_since_s=100.0)
    assert replica.state is EngineState.UNKNOWN
    assert replica.age_s(130.0) is None
    assert replica.unheard_s(130.0) == 30.0


def test_ages_count_from_the_newest_sample() -> None:
    replica = Replica("r1", "http://h:1", known_since_s=100.0)
    replica.sample, replica.sampled_at_s = sample("r1", EngineState.WARMING), 120.0
    assert replica.state is EngineState.WARMING
    assert replica.age_s(130.0) == replica.unheard_s(130.0) == 10.0
