"""Who runs what, and who differs."""

from __future__ import annotations

from dataclasses import replace

from ctl import versions
from tests.fakes.fleet import FLEET, GPU0, GPU1, WELL


def test_what_differs_from_the_leader_is_said() -> None:
    edge = replace(FLEET.edges[0], edge_version="0.2.0")
    found = versions.parts(replace(FLEET, edges=(edge, FLEET.edges[1])), "0.1.0")
    assert [part.name for part in found if part.differs] == ["edge-a"]
    assert [part.kind for part in found[:2]] == ["controlplane", "ctl"]
    assert not any(part.differs for part in versions.parts(WELL, "0.1.0"))
    assert versions.parts(WELL, "0.2.0")[1].differs


def test_engines_are_compared_within_their_pool() -> None:
    third = replace(GPU0, route=replace(GPU0.route, replica="gpu9"))
    older = replace(GPU1, vllm_version="0.31.1")
    found = versions.parts(replace(FLEET, replicas=(GPU0, third, older)), "0.1.0")
    assert [part.name for part in found if part.kind == "vllm" and part.differs] == ["gpu1"]
