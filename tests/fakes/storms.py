"""What Prometheus would scrape in a storm, by LiteLLM's rules and by ours: out of the simulator.

The same requests meet the same engines by both rules, in virtual time; a scrape is a look each
15 s. LiteLLM exports nothing of the kind: a cooldown at all of its workers is put down as what
it is in our words, an ejection. Whether an engine is healthy is the simulator's own truth in both.
"""

from __future__ import annotations

from collections import defaultdict

from sim.world.arrivals import Point
from sim.world.scenario import ReplicaSpec, Scenario, SourceSpec
from sim.world.seen import ReplicaSeen
from sim.world.shapes import Shape
from sim.world.world import World

SCRAPE_S = 15.0
STORM = Scenario(
    about="Four minutes of nearly twice what two engines can do, which refuse beyond 98.",
    duration_s=330.0,
    edges=2,
    replicas=(ReplicaSpec(slots=64, queue_limit=98), ReplicaSpec(slots=64, queue_limit=98)),
    sources=(
        SourceSpec(
            load=(
                *(Point(at_s=0.0, load=0.7), Point(at_s=60.0, load=1.9)),
                Point(at_s=300.0, load=0.7),
            ),
            shape=Shape(output_tokens=300),
        ),
    ),
)
"""The lab's engines in small: it ran 128 at once and refused beyond 196."""


def series(policy: str, scenario: Scenario = STORM) -> dict[str, list[float]]:
    """Each series' values, by its name with labels."""
    world = World(scenario, policy, seed=1)
    world.run()
    is_out = _is_ejected if policy == "trimtab" else _is_cooled
    names = list(world.replicas)
    values: defaultdict[str, list[float]] = defaultdict(list)
    falls = [0] * len(world.replicas)
    was_out = [True] * len(world.replicas)
    next_s = 0.0
    for look in world.looks:
        for number, seen in enumerate(look.replicas):
            falls[number] += is_out(seen) and not was_out[number]
            was_out[number] = is_out(seen)
        if look.now_s < next_s:
            continue
        next_s += SCRAPE_S
        for number, seen in enumerate(look.replicas):
            of = f'model="m", replica="r{number}"'
            moves = f'{of}, from="healthy", to="ejected", reason="{policy}"'
            routed = sum(at_s <= look.now_s for at_s in world.replicas[names[number]].posts_s)
            values[f"trimtab_replica_breaker_transitions_total{{{moves}}}"].append(falls[number])
            values[f"trimtab_replica_engine_healthy{{{of}}}"].append(seen.is_healthy)
            values[f"trimtab_replica_routed_total{{{of}}}"].append(routed)
        healthy = [seen for seen in look.replicas if seen.is_healthy]
        withheld = 1 - sum(seen.eligible for seen in healthy) / len(healthy)
        values['trimtab_model_capacity_withheld_ratio{model="m"}'].append(round(withheld, 3))
    return dict(values)


def _is_cooled(seen: ReplicaSeen) -> bool:
    return seen.eligible == 0.0


def _is_ejected(seen: ReplicaSeen) -> bool:
    return seen.steering.breaker not in {"HEALTHY", "DEGRADED", "RAMPING"}
