"""Hedges in the simulated fleet: few, and the accounts stay right whatever goes wrong."""

from __future__ import annotations

import pytest

from sim.world.scenario import FaultSpec, ReplicaSpec, Scenario, SourceSpec
from sim.world.world import World


def scenario(*, hedge: bool, kind: str = "slow", for_s: float = 1.0) -> Scenario:
    fault = {"at_s": 20.0, "replica": "r1", "value": 20.0, "for_s": for_s, "repeat_s": 10.0 * for_s}
    return Scenario(
        about="one of four has a trouble, again and again",
        duration_s=80.0,
        warmup_s=30.0,
        replicas=(ReplicaSpec(),) * 4,
        sources=(SourceSpec(load=0.4),),
        faults=(FaultSpec(kind=kind, **fault),),  # type: ignore[arg-type]
        hedge=hedge,
    )


def test_hedges_are_few_and_every_job_ends_once() -> None:
    result = World(scenario(hedge=True), "trimtab", 1).run()
    assert 1.0 < result.metrics.attempts_per_job <= 1.1  # ten saved up, and a twentieth
    assert result.metrics.failed == result.metrics.broken == 0
    assert not any(result.violations.values())


@pytest.mark.parametrize("kind", ["crash", "fail"])
def test_no_account_is_lost(kind: str) -> None:
    result = World(scenario(hedge=True, kind=kind, for_s=5.0), "trimtab", 2).run()
    assert not result.violations["i18_accounts_are_right"]
