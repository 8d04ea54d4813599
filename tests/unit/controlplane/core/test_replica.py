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


def test_starts_are_those_of_the_engine_not_of_its_agent() -> None:
    replica = Replica("r1", "http://h:1", known_since_s=100.0)
    starts = []
    for epoch in (0, 7, 7, 0, 7, 9, 0, 12):
        replica.take(sample("r1", epoch=epoch), 0, 101.0)
        starts.append(replica.starts)
    assert starts == [0, 0, 0, 0, 0, 1, 1, 2]


def test_since_when_its_engine_knows_nothing_of_what_edges_sent() -> None:
    replica = Replica("r1", "http://h:1", known_since_s=100.0)
    idle = sample("r1", running=0, waiting=0, finished_total=7)
    for now_s, inflight in ((101.0, 0), (102.0, 3), (103.0, 3)):
        replica.take(idle, inflight, now_s)
    assert replica.unseen_since_s == 102.0
    replica.take(sample("r1", running=0, waiting=0, finished_total=8), 3, 104.0)
    assert replica.unseen_since_s is None, "short requests come and go between two samples"
