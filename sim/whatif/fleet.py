"""A fleet for a replay: the simulated control plane, agents and engines, behind one edge.

Rules: one edge stands for all, since the leader makes many queue like one (docs/decisions/0006),
and its queue is as long as all of theirs; what looks twice a second looks once a second here, which
costs less and changes figures by less than another seed does (docs/what-if.md).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sim.engine import EngineSpec
from sim.world.agent import Agent
from sim.world.controlplane import ControlPlane
from sim.world.edge import Edge
from sim.world.loop import Loop
from sim.world.network import Network, NetworkSpec
from sim.world.replica import Replica
from sim.world.trace import Trace
from trimtab.model import EdgePolicy
from trimtab.recording import Policy
from trimtab.recording import Replica as Facts
from trimtab.whatif import Costs

PERIOD_S = 1.0
BLOCK_TOKENS = 64
KV_TOKENS = 524_288  # where it is not known
MODEL_LEN_TOKENS = 131_072  # where it is not known


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is made under."""

    replicas: tuple[Facts, ...]
    policy: Policy
    edges: int
    costs: Costs


class Unheard(Trace):
    """Nobody compares these runs decision by decision."""

    def decide(self, now_s: float, what: str, number: int, where: str) -> None:
        """Nothing."""


class Fleet:
    """See the rules at the top of this file."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.loop = Loop()
        self._seed = seed
        trace = Unheard()
        network = Network(self.loop, NetworkSpec(), self._dice("network"))
        specs = [spec(facts, setting.costs) for facts in setting.replicas]
        self.replicas = {
            f"r{n}": Replica(f"r{n}", spec, self.loop, network, self._dice(f"r{n}"))
            for n, spec in enumerate(specs)
        }
        policy = replace(
            EdgePolicy(),
            queue_limit=setting.policy.queue_limit * setting.edges,
            queue_wait_ms=round(1000 * setting.policy.queue_wait_s),
        )
        plane = ControlPlane(self.loop, policy, self._dice("controlplane"), trace)
        plane.period_s = PERIOD_S
        plane.start()
        for name, engine in self.replicas.items():
            agent = Agent(engine, self.loop, network, self._dice(f"agent-{name}"))
            agent.period_s = PERIOD_S
            agent.start(plane)
        self.edge = Edge("e0", self.loop, network, self.replicas, self._dice("e0"), trace)
        self.edge.hedges = setting.policy.hedge
        self.edge.pump_period_s = self.edge.period_s = PERIOD_S
        self.edge.start(plane)

    def _dice(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{name}")


def spec(facts: Facts, costs: Costs) -> EngineSpec:
    """An engine as the model wants it."""
    kv_tokens = facts.kv_cache_tokens or KV_TOKENS
    longest = min(facts.max_model_len_tokens or MODEL_LEN_TOKENS, kv_tokens)
    return EngineSpec(
        max_num_seqs=facts.max_num_seqs,
        max_num_batched_tokens=max(8192, 2 * facts.max_num_seqs),
        max_model_len=longest,
        block_size=BLOCK_TOKENS,
        num_gpu_blocks=-(-kv_tokens // BLOCK_TOKENS) + 1,
        step_base_s=costs.base_s,
        step_per_sequence_s=costs.per_sequence_s,
        step_per_prefill_token_s=costs.per_prefill_token_s,
    )


def slots(replicas: Sequence[Facts]) -> int:
    """Of all of them."""
    return sum(facts.max_num_seqs for facts in replicas)
