"""The fleet as people see it: what `ctl` and the status page show.

Rules: as in `trimtab.model`, whose types these are made of: same names as on the wire
(proto/trimtab/v1/admin.proto has meanings and units), None is absent, nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from trimtab.model import (
    ApiKey,
    EdgePolicy,
    EngineState,
    GpuSample,
    Intent,
    LimitSource,
    Pool,
    Route,
)
from trimtab.steered import Override

SYNC_LAG_MAX = 4  # pushes on their way: credits go out twice a second, an ack takes milliseconds


class Concern(IntEnum):
    """How much a finding matters."""

    UNSPECIFIED = 0
    BLOCKS = 1
    LIMITS = 2
    FINE = 3


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica for people."""

    route: Route
    state: EngineState = EngineState.UNKNOWN
    state_reason: str = ""
    state_age_ms: int = 0
    intent: Intent = Intent.ACTIVE
    limit_slots: int = 0
    max_num_seqs: int = 0
    max_num_seqs_source: LimitSource = LimitSource.ASSUMED
    weight: float = 0.0
    inflight: int = 0
    running: int | None = None
    waiting: int | None = None
    kv_cache_usage_ratio: float | None = None
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    generation_tokens_per_s: float | None = None
    share_ratio: float | None = None
    failures_1m: int = 0
    overloads_1m: int = 0
    report_age_ms: int | None = None
    vllm_version: str = ""
    uptime_ms: int | None = None
    gpus: tuple[GpuSample, ...] = ()
    full_slots: int = 0
    breaker_reason: str = ""
    breaker_age_ms: int = 0
    ejected_for_ms: int | None = None
    ejections: int = 0


@dataclass(frozen=True, slots=True)
class EdgeView:
    """One edge for people."""

    edge: str
    edge_version: str = ""
    listen_url: str = ""
    acked_version: int = 0
    sent_version: int = 0
    last_error: str = ""
    inflight: int = 0
    queued: int = 0
    requests_1m: int = 0
    shed_1m: int = 0
    connected_ms: int = 0
    report_age_ms: int | None = None

    @property
    def in_sync(self) -> bool:
        """Whether it works with what was pushed to it, give or take what is on its way."""
        return not self.last_error and self.sent_version - self.acked_version <= SYNC_LAG_MAX


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent for people."""

    node: str
    agent_version: str = ""
    connected: bool = False
    report_age_ms: int | None = None
    gpu_detail: str = ""


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool for people."""

    pool: str
    replicas: int = 0
    open: int = 0
    open_slots: int = 0
    healthy_slots: int = 0
    inflight: int = 0
    queued: int = 0
    shed_1m: int = 0
    requests_1m: int = 0
    alarm: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything at a glance."""

    name: str = ""
    leader: str = ""
    term: int = 0
    version: int = 0
    controlplane_version: str = ""
    replicas: tuple[ReplicaView, ...] = ()
    edges: tuple[EdgeView, ...] = ()
    agents: tuple[AgentView, ...] = ()
    pools: tuple[PoolView, ...] = ()
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True)
class Detail:
    """A fact."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FleetEvent:
    """Something that happened to the fleet."""

    number: int
    at_ms: int
    about: str
    what: str
    text: str = ""
    details: tuple[Detail, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    concern: Concern
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one replica gets the traffic it gets."""

    replica: str
    headline: str
    in_rotation: bool
    traffic: str
    findings: tuple[Finding, ...]
    effect: str
    advice: tuple[str, ...] = ()
    events: tuple[FleetEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a request."""

    after_ms: int
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class EdgeRecord:
    """What one edge remembers of a request."""

    edge: str
    json: str


@dataclass(frozen=True, slots=True)
class Account:
    """Why a request, a tenant or a model is as it is."""

    subject: str
    name: str
    headline: str
    concern: Concern
    findings: tuple[Finding, ...] = ()
    steps: tuple[Step, ...] = ()
    advice: tuple[str, ...] = ()
    records: tuple[EdgeRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class TenantInPool:
    """One tenant in one pool at one edge: what waits, and what ended lately."""

    pool: str
    queued: int = 0
    oldest_wait_ms: int = 0
    queued_all: int = 0
    requests: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    left: int = 0
    predicted_wait_ms: int = 0
    wait_budget_ms: int = 0
    nobody_open: int = 0
    latest_odd: str = ""


@dataclass(frozen=True, slots=True)
class TenantAtEdge:
    """What one edge tells of a tenant."""

    pools: tuple[TenantInPool, ...] = ()
    span_ms: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaAtEdge:
    """Attempts for which a replica could have been picked, at one edge."""

    picked: int = 0
    at_home_elsewhere: int = 0
    without_room: int = 0
    busier: int = 0
    span_ms: int = 0


@dataclass(frozen=True, slots=True)
class StateHeader:
    """Of what a saved state is."""

    fleet: str
    software_version: str
    schema: int
    revision: int
    at_ms: int
    records: int


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One key of the store."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class ConfiguredEngine:
    """Where an engine belongs."""

    url: str
    pool: str = ""
    name: str = ""
    served_as: str = ""


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """The part of the configuration that changes while everything runs, whole."""

    pools: tuple[Pool, ...] = ()
    engines: tuple[ConfiguredEngine, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    policy: EdgePolicy = field(default_factory=EdgePolicy)


@dataclass(frozen=True, slots=True)
class ConfigRevision:
    """Who put a configuration into effect."""

    revision: int
    at_ms: int = 0
    actor: str = ""
    reason: str = ""
    is_file: bool = False
    file_of: str = ""
    pools: int = 0
    engines: int = 0
    keys: int = 0


@dataclass(frozen=True, slots=True)
class ConfigSetting:
    """One setting of a process's own file; the value is JSON."""

    path: str
    value: str
