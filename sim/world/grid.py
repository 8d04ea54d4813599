"""Many runs at once: scenarios x policies x seeds, over all cores.

Rules: a run is one task in a process of its own kind, so the order of tasks changes nothing; what
comes back is figures, never worlds. Seeds count from 1. Nearly all that a run makes lives until its
end, so the collector of cycles rests during a run, and clears up once after it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sim.world.metrics import Metrics
from sim.world.scenario import Scenario, Targets, load
from sim.world.world import World

LOW_SHARE = 0.05  # the run that only one of twenty is worse than
CHUNK = 4  # tasks that a worker takes at once; some are long, and no core shall wait for another


@dataclass(frozen=True, slots=True)
class Task:
    """One run to make."""

    label: str
    scenario: Scenario
    policy: str
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run made."""

    label: str
    policy: str
    seed: int
    metrics: Metrics
    checked: tuple[str, ...]
    violated: dict[str, str]
    """By check, the first thing it found."""
    digest: str


@dataclass(frozen=True, slots=True)
class Cell:
    """All seeds of one scenario under one policy."""

    label: str
    policy: str
    outcomes: tuple[Outcome, ...]

    def mean(self, figure: str) -> float:
        """The mean of a figure over the seeds; what is None counts as nothing."""
        values = self._values(figure)
        return sum(values) / len(values) if values else 0.0

    def low(self, figure: str) -> float:
        """The figure that one seed of twenty falls short of."""
        values = self._values(figure)
        return values[int(LOW_SHARE * len(values))] if values else 0.0

    def high(self, figure: str) -> float:
        """The figure that one seed of twenty exceeds."""
        values = self._values(figure)
        return values[-1 - int(LOW_SHARE * len(values))] if values else 0.0

    def violations(self) -> dict[str, list[Outcome]]:
        """The runs that violated each check."""
        found: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in self.outcomes:
            for name in outcome.violated:
                found[name].append(outcome)
        return dict(found)

    def _values(self, figure: str) -> list[float]:
        values = (getattr(outcome.metrics, figure) for outcome in self.outcomes)
        return sorted(value for value in values if value is not None)


def scenarios(folder: pathlib.Path, *, all_of_them: bool = False) -> dict[str, Scenario]:
    """The scenario files of a folder, by name: those of the grid, or all."""
    found = {path.stem: load(path) for path in sorted(folder.glob("*.yaml"))}
    return {name: scenario for name, scenario in found.items() if all_of_them or scenario.grid}


def run(tasks: Sequence[Task], workers: int | None = None) -> list[Cell]:
    """Make all runs; cells in the order of their first task."""
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        outcomes: Iterable[Outcome] = map(_make, tasks)
        return _cells(outcomes)
    # not forked: a fork of a process with threads (gRPC has some) may hang for ever
    with multiprocessing.get_context("spawn").Pool(workers, _begin) as pool:
        return _cells(pool.imap(_make, tasks, chunksize=CHUNK))


def missed(cell: Cell, targets: Targets) -> list[str]:
    """The targets that the mean over the seeds falls short of."""
    at_least = {"goodput_60": targets.goodput_60, "goodput_15": targets.goodput_15}
    at_most = {"attempts_per_job": targets.attempts_per_job, "ttr_s": targets.ttr_s}
    short = [
        f"{name} {cell.mean(name):.2f} < {target}"
        for name, target in at_least.items()
        if target is not None and cell.mean(name) < target
    ]
    short += [
        f"{name} {cell.mean(name):.2f} > {target}"
        for name, target in at_most.items()
        if target is not None and cell.mean(name) > target
    ]
    if targets.light_tenant is not None and light(cell) < targets.light_tenant:
        short.append(f"light tenant {light(cell):.2f} < {targets.light_tenant}")
    return short


def light(cell: Cell) -> float:
    """How well the tenant called light is served, over the seeds."""
    served = [outcome.metrics.tenants.get("light", 1.0) for outcome in cell.outcomes]
    return sum(served) / len(served)


def _begin() -> None:
    gc.disable()
    gc.freeze()


def _make(task: Task) -> Outcome:
    outcome = _run(task)
    gc.collect()
    return outcome


def _run(task: Task) -> Outcome:
    result = World(task.scenario, task.policy, task.seed).run()
    return Outcome(
        label=task.label,
        policy=task.policy,
        seed=task.seed,
        metrics=result.metrics,
        checked=tuple(result.violations),
        violated={name: found[0] for name, found in result.violations.items() if found},
        digest=result.trace.digest(),
    )


def _cells(outcomes: Iterable[Outcome]) -> list[Cell]:
    by_place: defaultdict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_place[outcome.label, outcome.policy].append(outcome)
    return [Cell(label, policy, tuple(made)) for (label, policy), made in by_place.items()]
