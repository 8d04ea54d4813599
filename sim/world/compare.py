"""What is run to compare policies: goodput over load, and every scenario.

Rules: all policies meet the same requests (equal seeds draw equal arrivals and lengths) and the
same engines; a peer has no edges to scale, so only our own rows vary in their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sim.world import peers
from sim.world.grid import Task
from sim.world.report import LOADS
from sim.world.scenario import Scenario, SourceSpec
from sim.world.shapes import Shape

OURS = "trimtab"
EDGES = (1, 4, 8)
FAULTY = (
    *("burst", "square", "kill", "freeze", "hang", "slow", "fail-some", "fail-all"),
    *("crash-loop", "refusing", "uneven", "mixed", "tenants"),
)
"""Scenarios that every policy can be put through: the others are about parts that peers lack."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Goodput over load for one kind of jobs."""

    title: str
    shape: Shape
    duration_s: float
    warmup_s: float

    def tasks(self, seeds: int) -> Iterator[Task]:
        """All runs of it."""
        variants = [(OURS, edges) for edges in EDGES] + [(kind, 1) for kind in peers.KINDS]
        for policy, edges in variants:
            for load in LOADS:
                scenario = Scenario(
                    about=self.title,
                    duration_s=self.duration_s,
                    warmup_s=self.warmup_s,
                    edges=edges,
                    sources=(SourceSpec(load=load, shape=self.shape),),
                )
                for seed in range(1, seeds + 1):
                    yield Task(f"{load:g}@{edges}", scenario, policy, seed)


CURVES = (
    Curve("answers of 855 tokens, two engines of 128 slots", Shape(), 600.0, 200.0),
    Curve(
        "answers of 150 tokens, two engines of 128 slots", Shape(output_tokens=150), 300.0, 150.0
    ),
)


def row_labels() -> dict[str, str]:
    """What a row of a curve is called, by policy@edges."""
    ours = {f"{OURS}@{n}": f"{OURS}, {n} edge{'s' * (n > 1)}" for n in EDGES}
    return ours | {f"{kind}@1": kind for kind in peers.KINDS}


def scenario_tasks(
    scenarios: Mapping[str, Scenario], policies: Sequence[str], seeds: int
) -> Iterator[Task]:
    """Every policy through every scenario that all can be put through."""
    for name in FAULTY:
        for policy in policies:
            for seed in range(1, seeds + 1):
                yield Task(name, scenarios[name], policy, seed)
