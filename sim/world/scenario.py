"""A scenario: a fleet, its traffic, and what goes wrong, in a short YAML file.

Rules: unknown keys and wrong types are refused with their place; every name a fault uses must
exist; times are seconds from the start; the same file and seed give the same run, always.
"""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Annotated, Literal

import msgspec

from sim.engine import EngineSpec
from sim.world.arrivals import Load, Plan, points
from sim.world.client import ClientSpec
from sim.world.network import NetworkSpec
from sim.world.shapes import Shape
from trimtab.model import EdgePolicy

Seconds = Annotated[float, msgspec.Meta(ge=0, le=100_000)]
Kind = Literal[
    "crash",  # the process dies; with for_s it is back after that, cold for cold_s
    "freeze",  # the engine core stands still behind a live API
    "hang",  # the API too
    "slow",  # every step takes `value` times as long
    "fail",  # this share of requests is answered 500 after after_s
    "cut",  # this share of streams is cut within after_s of its first token
    "reject",  # every request is answered 503
    "queue_limit",  # max_num_queued_reqs
    "agent_kill",  # the agent dies; with for_s it is back
    "agent_freeze",  # the agent stands still
    "agent_lie",  # its numbers say: nothing to do
    "agent_stuck",  # its numbers never move
    "controlplane_kill",  # with for_s it is back, in a new term
    "edge_kill",  # of `edge`
    "partition",  # nothing passes between `one` and `other`
    "lag",  # everything to and from `one` takes `value` s longer
    "shift",  # all clients call `edge`
    "drain",  # an operator drains the replica; with for_s he undoes it
]


class ReplicaSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One engine: a large GPU's unless told otherwise."""

    speed: float = 1.0
    slots: int = 128
    model_len_tokens: int = 32_768
    kv_tokens: int = 524_288
    queue_limit: int | None = None

    def engine(self) -> EngineSpec:
        """As the engine model wants it. Blocks of 64 tokens are coarse enough to be quick."""
        spec = EngineSpec(
            max_num_seqs=self.slots,
            max_model_len=self.model_len_tokens,
            block_size=64,
            num_gpu_blocks=self.kv_tokens // 64 + 1,
            max_num_queued_reqs=self.queue_limit,
        )
        return spec.faster(self.speed)


class SourceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stream of requests."""

    load: Load
    """In units of what the whole fleet can do with requests of this shape."""
    tenant: str = "a"
    shape: Shape = Shape()
    client: ClientSpec = ClientSpec()


class FaultSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that goes wrong, and maybe is mended after `for_s`."""

    at_s: Seconds
    kind: Kind
    replica: str = ""
    edge: str = ""
    one: str = ""
    other: str = ""
    for_s: Seconds | None = None
    value: float = 1.0
    after_s: Seconds = 0.05
    cold_s: Seconds = 0.0
    """After a crash: for so long the port refuses although a process is there; then, for as long
    again, steps are slow."""
    repeat_s: Seconds | None = None
    """It happens again after each such time."""


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run should reach, where the scenario is about that."""

    goodput_60: float | None = None
    """At least; share of capacity."""
    goodput_15: float | None = None
    attempts_per_job: float | None = None
    """At most."""
    ttr_s: float | None = None
    """At most."""
    light_tenant: float | None = None
    """At least; good work of the tenant that asks least, as a share of what it asks."""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the rules at the top of this file."""

    about: str
    duration_s: Seconds
    warmup_s: Seconds = 0.0
    """What comes before is not measured. Traffic begins at 3 s, when the fleet stands."""
    calm_from_s: Seconds | None = None
    """From here on nothing disturbs: recovery is measured from here."""
    replicas: tuple[ReplicaSpec, ...] = (ReplicaSpec(), ReplicaSpec())
    edges: int = 1
    sources: tuple[SourceSpec, ...]
    network: NetworkSpec = NetworkSpec()
    faults: tuple[FaultSpec, ...] = ()
    targets: Targets = Targets()
    grid: bool = False
    """It is one of those that are run over many seeds."""
    queue_limit: int = 256
    queue_wait_s: float = 45.0
    idle_timeout_s: float = 120.0
    hedge: bool = False

    def __post_init__(self) -> None:
        names = {*self.replica_names(), *self.edge_names(), "controlplane", "edges", "agents", ""}
        names |= {f"agent-{name}" for name in self.replica_names()}
        for fault in self.faults:
            unknown = {fault.replica, fault.edge, fault.one, fault.other} - names
            if unknown:
                raise ValueError(f"{fault.kind} at {fault.at_s} s: no such part: {min(unknown)}")

    def replica_names(self) -> tuple[str, ...]:
        """r0, r1, ..."""
        return tuple(f"r{i}" for i in range(len(self.replicas)))

    def edge_names(self) -> tuple[str, ...]:
        """e0, e1, ..."""
        return tuple(f"e{i}" for i in range(self.edges))

    def policy(self) -> EdgePolicy:
        """The edges' limits."""
        return replace(
            EdgePolicy(),
            queue_limit=self.queue_limit,
            queue_wait_ms=round(self.queue_wait_s * 1000),
            idle_timeout_ms=round(self.idle_timeout_s * 1000),
        )

    def plans(self) -> tuple[Plan, ...]:
        """Each source's load over time."""
        return tuple(Plan(points(source.load, self.duration_s)) for source in self.sources)


def parse(text: str) -> Scenario:
    """A scenario file's text; ValueError says what is wrong and where."""
    return msgspec.yaml.decode(text, type=Scenario)


def load(path: pathlib.Path) -> Scenario:
    """A scenario file."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
