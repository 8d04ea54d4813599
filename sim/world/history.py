"""A whole run, ready to be measured and checked.

Rules: nothing here changes once the run is over; everything is derived from what the parts showed
(`seen.py`), what was asked (`scenario.py`) and what became of it (`requests.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sim.world.arrivals import Plan
from sim.world.requests import Job
from sim.world.scenario import FaultSpec, Scenario
from sim.world.seen import Observation, Refusal


@dataclass(frozen=True)
class History:
    """A whole run."""

    scenario: Scenario
    plans: tuple[Plan, ...]
    capacities: tuple[float, ...]  # work per second of each replica
    looks: Sequence[Observation]
    jobs: Sequence[Job]
    progress: Mapping[int, float]  # share done of jobs still running, by number
    dispatches: Sequence[tuple[float, int]]  # when, to which replica
    refusals: Sequence[Refusal]
    returns: tuple[int, int]  # submissions at the time a refusal named, and how many were taken
    double_ends: int  # calls that were told an end twice
    late_dispatches: int  # attempts made after their caller's patience
    wasted_tokens: int
    useful_tokens: int

    @property
    def start_s(self) -> float:
        """Where measuring begins."""
        return self.scenario.warmup_s

    @property
    def end_s(self) -> float:
        """Where it ends."""
        return self.scenario.duration_s

    def measured(self) -> list[Observation]:
        """The looks after the warm-up."""
        return [look for look in self.looks if look.now_s >= self.start_s]

    def load(self, now_s: float) -> float:
        """The load offered at a time, over all sources."""
        return sum(plan.at(now_s) for plan in self.plans)

    @cached_property
    def disturbances_s(self) -> tuple[float, ...]:
        """When something changed from outside: the start, faults, mendings, steps of load."""
        times = [0.0, *(point_s for plan in self.plans for point_s in plan.changes_s)]
        for fault in self.scenario.faults:
            for at_s in strikes_s(fault, self.end_s):
                mended_s = at_s + (fault.for_s or 0.0)
                times += [at_s, mended_s, mended_s + fault.cold_s]
        return tuple(sorted(set(times)))

    def calm_s(self, now_s: float) -> float:
        """How long nothing has disturbed."""
        index = bisect_right(self.disturbances_s, now_s)
        return now_s - self.disturbances_s[index - 1] if index else 0.0


def strikes_s(fault: FaultSpec, until_s: float) -> list[float]:
    """When a fault strikes."""
    times, at_s = [], fault.at_s
    while at_s < until_s:
        times.append(at_s)
        if fault.repeat_s is None:
            break
        at_s += fault.repeat_s
    return times
