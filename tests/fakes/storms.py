"""What Prometheus would scrape in a storm, by LiteLLM's rules and by ours: out of the simulator.

The same requests meet the same engines by both rules, in virtual time; a scrape is a look each
15 s. LiteLLM exports nothing of the kind: a cooldown at all of its workers is taken for what it
is in our words, an ejection, and counted by the same code. Ours is read as a scrape would read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from prometheus_client.samples import Sample

from controlplane.core import view
from controlplane.core.moves import Moves
from controlplane.core.replica import Replica
from controlplane.metrics import of_fleet
from sim.world.arrivals import Point
from sim.world.scenario import ReplicaSpec, Scenario, SourceSpec
from sim.world.seen import ReplicaSeen
from sim.world.shapes import Shape
from sim.world.world import World
from trimtab import catalogue
from trimtab.model import Route, Serving
from trimtab.runtime import telemetry

SCRAPE_S = 15.0
STEERING = (
    *(catalogue.REPLICA_TRANSITIONS, catalogue.REPLICA_HEALTHY, catalogue.REPLICA_STARTS),
    *(catalogue.MODEL_WITHHELD, catalogue.MODEL_SLOTS, catalogue.MODEL_REPLICAS),
    *(catalogue.REPLICA_STATE, catalogue.MODEL_PING_PONG),
)
Page = dict[str, float]
Series = Mapping[str, Sequence[float | None]]
STORM = Scenario(
    about="Two and a half minutes of nearly twice what two engines can do, which refuse beyond 98.",
    duration_s=240.0,
    edges=2,
    replicas=(ReplicaSpec(slots=64, queue_limit=98), ReplicaSpec(slots=64, queue_limit=98)),
    sources=(
        SourceSpec(
            load=(
                *(Point(at_s=0.0, load=0.7), Point(at_s=30.0, load=1.9)),
                Point(at_s=180.0, load=0.7),
            ),
            shape=Shape(output_tokens=300),
        ),
    ),
)
"""The lab's engines in small: it ran 128 at once and refused beyond 196."""


def ours(scenario: Scenario) -> Series:
    """By the very code with which a control plane answers a scrape."""
    world = World(scenario, "trimtab", seed=1)
    plane = world.parts.controlplane
    assert plane is not None
    scraped: list[Page] = []

    def scrape() -> None:
        leader = view.Leader("storm", "cp1", "0", plane.term, plane.version)
        fleet = view.fleet(leader, plane.registry, plane.subscriptions(), world.loop.now_s)
        numbers = of_fleet(fleet, plane.registry, world.loop.now_s)
        families = (telemetry.family(metric, numbers[metric]) for metric in STEERING)
        scraped.append({_name(s): s.value for family in families for s in family.samples})
        world.loop.after(SCRAPE_S, scrape)

    world.loop.at(SCRAPE_S, scrape)
    world.run()
    return _over_time(scraped)


def litellms(scenario: Scenario) -> Series:
    """LiteLLM's rules, counted by the code that counts ours."""
    world = World(scenario, "litellm", seed=1)
    world.run()
    moves, scraped = Moves(), list[Page]()
    for before, look in pairwise(world.looks):
        for name, was, now in zip(world.replicas, before.replicas, look.replicas, strict=True):
            health = Serving.OPEN if now.is_healthy else Serving.LOST
            replica = Replica(name, "", 0.0, health=health, route=_route(name, now))
            moves.reviewed(replica, _route(name, was), look.now_s)
        if look.now_s % SCRAPE_S == 0:
            healthy = [seen.eligible for seen in look.replicas if seen.is_healthy]
            page = {
                catalogue.MODEL_PING_PONG: float(moves.ping_pong("m", look.now_s)),
                catalogue.MODEL_WITHHELD: 1 - sum(healthy) / len(healthy),
            }
            scraped.append({f'{of.name}{{model="m"}}': value for of, value in page.items()})
    return _over_time(scraped)


def _route(name: str, seen: ReplicaSeen) -> Route:
    """It is out when no worker of the gateway would send to it."""
    return Route(name, "m", "", "", "m", Serving.OPEN if seen.eligible else Serving.CLOSED)


def _name(sample: Sample) -> str:
    inner = ", ".join(f'{label}="{value}"' for label, value in sample.labels.items())
    return f"{sample.name}{{{inner}}}"


def _over_time(pages: Sequence[Page]) -> Series:
    """Each series' values, None where it was not there."""
    names = {name for page in pages for name in page}
    return {name: [page.get(name) for page in pages] for name in sorted(names)}
