"""A whole fleet in virtual time: builds it from a scenario, runs it, and says how it went.

Rules: every part draws from dice of its own, seeded by the run's seed and its name, so that two
policies meet the same requests, and a change in one part moves no other's chance; traffic begins
at BOOT_S, so that it meets a fleet that stands.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sim.world import peers
from sim.world.agent import Agent
from sim.world.arrivals import times
from sim.world.checks import check
from sim.world.client import Client
from sim.world.controlplane import ControlPlane
from sim.world.edge import Edge
from sim.world.faults import Parts, plan
from sim.world.history import History
from sim.world.loop import Loop
from sim.world.metrics import Metrics, measure
from sim.world.network import Network
from sim.world.replica import Replica
from sim.world.requests import Gateway, Job
from sim.world.scenario import Scenario, SourceSpec
from sim.world.seen import SAMPLE_S, Observation, Steering
from sim.world.shapes import Worth, worth
from sim.world.trace import Trace

BOOT_S = 3.0
LOOKS_PER_SUMMARY = 20


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    metrics: Metrics
    violations: dict[str, list[str]]
    """What each check that applied found."""
    trace: Trace
    events: int


class Source:
    """One stream of jobs."""

    def __init__(self, number: int, spec: SourceSpec, cost: Worth, client: Client) -> None:
        self.number = number
        self.spec = spec
        self.cost = cost
        self.client = client
        self.arrivals: Iterator[float] = iter(())
        self.dice = random.Random()


class World:
    """See the rules at the top of this file."""

    def __init__(self, scenario: Scenario, policy: str, seed: int) -> None:
        self.scenario = scenario
        self._seed = seed
        self.loop = Loop()
        self.trace = Trace()
        self.looks: list[Observation] = []
        self._summed = [0] * (len(scenario.replicas) + 1)
        self.jobs: list[Job] = []
        self.network = Network(self.loop, scenario.network, self._dice("network"))
        names = scenario.replica_names()
        specs = [spec.engine() for spec in scenario.replicas]
        self.replicas = {
            name: Replica(name, spec, self.loop, self.network, self._dice(name))
            for name, spec in zip(names, specs, strict=True)
        }
        first = scenario.sources[0].shape
        base = worth(specs[0], first).rate_per_s
        self.capacities = tuple(worth(spec, first).rate_per_s / base for spec in specs)
        self.parts, self.gateways = self._fleet() if policy == "trimtab" else self._peers(policy)
        self._targets = list(self.gateways)
        self.sources = [self._source(n, spec) for n, spec in enumerate(scenario.sources)]

    def run(self) -> Result:
        """From the start to the end."""
        scenario = self.scenario
        for fault in scenario.faults:
            plan(fault, self.parts)
        for source in self.sources:
            self._next_arrival(source)
        self.loop.at(0.0, self._look)
        self.loop.run(scenario.duration_s)
        history = self._history()
        return Result(measure(history), check(history), self.trace, self.loop.events)

    # Building

    def _dice(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{name}")

    def _peers(self, policy: str) -> tuple[Parts, Sequence[Gateway]]:
        """Somebody else's gateway over the same engines."""
        dice = self._dice(policy)
        gateways = peers.build(policy, self.loop, self.replicas, dice, self.trace)
        return Parts(self.loop, self.network, self.trace, self.replicas), gateways

    def _fleet(self) -> tuple[Parts, Sequence[Gateway]]:
        """Control plane, agents and edges."""
        loop, network, trace = self.loop, self.network, self.trace
        controlplane = ControlPlane(loop, self.scenario.policy(), self._dice("controlplane"), trace)
        agents = {
            name: Agent(replica, loop, network, self._dice(f"agent-{name}"))
            for name, replica in self.replicas.items()
        }
        edges = {
            name: Edge(name, loop, network, self.replicas, self._dice(name), trace)
            for name in self.scenario.edge_names()
        }
        controlplane.start()
        for agent in agents.values():
            agent.start(controlplane)
        for edge in edges.values():
            edge.hedges = self.scenario.hedge
            edge.start(controlplane)
        parts = Parts(loop, network, trace, self.replicas, agents, edges, controlplane, self._shift)
        return parts, list(edges.values())

    def _source(self, number: int, spec: SourceSpec) -> Source:
        scenario = self.scenario
        cost = worth(scenario.replicas[0].engine(), spec.shape)
        dice = self._dice(f"client-{number}")
        client = Client(spec.client, self.loop, self._targets, dice, scenario.duration_s)
        source = Source(number, spec, cost, client)
        source.dice = self._dice(f"source-{number}")
        rate = cost.rate_per_s * sum(self.capacities)
        arrivals = self._dice(f"arrivals-{number}")
        source.arrivals = times(scenario.plans()[number], rate, scenario.duration_s, arrivals)
        return source

    # Running

    def _next_arrival(self, source: Source) -> None:
        at_s = next((at_s for at_s in source.arrivals if at_s >= BOOT_S), None)
        if at_s is not None:
            self.loop.at(at_s, self._arrive, source)

    def _arrive(self, source: Source) -> None:
        shape, dice, now_s = source.spec.shape, source.dice, self.loop.now_s
        job = Job(len(self.jobs), source.number, source.spec.tenant, now_s)
        job.prompt_tokens = shape.prompt(dice.gauss(0.0, 1.0))
        job.output_tokens = shape.output(dice.gauss(0.0, 1.0))
        job.hashes = shape.shared_blocks(job.prompt_tokens, self._block_size)
        job.work = source.cost.work(job.prompt_tokens, job.output_tokens)
        self.jobs.append(job)
        source.client.submit(job)
        self._next_arrival(source)

    @property
    def _block_size(self) -> int:
        return next(iter(self.replicas.values())).spec.block_size

    def _shift(self, edge: str) -> None:
        """All clients call one edge; an empty name undoes it."""
        self._targets[:] = [g for g in self.gateways if g.name == edge] or self.gateways

    def _look(self) -> None:
        replicas, controlplane = list(self.replicas.values()), self.parts.controlplane
        nothing = Steering()
        look = Observation(
            now_s=self.loop.now_s,
            controlplane_up=controlplane is not None and controlplane.is_up,
            replicas=tuple(
                replica.seen(
                    self._eligible(replica.name),
                    controlplane.seen(replica.name) if controlplane else nothing,
                )
                for replica in replicas
            ),
            edges=tuple(edge.seen(replicas) for edge in self.parts.edges.values()),
        )
        self.looks.append(look)
        if len(self.looks) % LOOKS_PER_SUMMARY == 0:
            self._summarize(look)
        self.loop.after(SAMPLE_S, self._look)

    def _summarize(self, look: Observation) -> None:
        """A line on the time since the last one."""
        totals = [len(replica.posts_s) for replica in self.replicas.values()]
        totals.append(sum(len(source.client.refusals) for source in self.sources))
        *sent, refused = (now - then for now, then in zip(totals, self._summed, strict=True))
        self._summed = totals
        queued = sum(edge.queued for edge in look.edges)
        running = [f"{replica.running}+{replica.waiting}" for replica in look.replicas]
        words = f"sent {sent} running+waiting {running} queued {queued} refused {refused}"
        self.trace.note(look.now_s, words.replace("'", ""))

    def _eligible(self, replica: str) -> float:
        return sum(gateway.takes(replica) for gateway in self.gateways) / len(self.gateways)

    # Ending

    def _history(self) -> History:
        replicas, clients = list(self.replicas.values()), [s.client for s in self.sources]
        edges = self.parts.edges.values()
        return History(
            scenario=self.scenario,
            plans=self.scenario.plans(),
            capacities=self.capacities,
            looks=self.looks,
            jobs=self.jobs,
            progress={job: share for replica in replicas for job, share in replica.progress()},
            dispatches=sorted((t, i) for i, r in enumerate(replicas) for t in r.posts_s),
            refusals=[refusal for client in clients for refusal in client.refusals],
            returns=(sum(c.returned for c in clients), sum(c.returned_taken for c in clients)),
            double_ends=sum(client.double_ends for client in clients),
            late_dispatches=sum(edge.late_dispatches for edge in edges),
            wasted_tokens=sum(replica.wasted_tokens for replica in replicas),
            useful_tokens=sum(replica.useful_tokens for replica in replicas),
        )
