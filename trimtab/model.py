"""The domain's types: immutable values that policy, cores and tests speak.

Rules: a class here has the name and the field names of its message in proto/trimtab/v1, where each
field's meaning and unit are documented; `trimtab.codec` converts by that rule alone, and a test
holds the two together. None means absent, never zero. Nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from trimtab.directives import Drain, Restart, Restarted, Resume
from trimtab.facts import NodeFacts


class EngineState(IntEnum):
    """What the agent makes of one engine (health). Written by agents only."""

    UNSPECIFIED = 0
    STARTING = 1
    WARMING = 2
    READY = 3
    STALLED = 4
    DRAINING = 5
    SLEEPING = 6
    DEAD = 7
    UNKNOWN = 8


class Intent(IntEnum):
    """The operator's wish for a replica. Written by operators only."""

    UNSPECIFIED = 0
    ACTIVE = 1
    CORDONED = 2
    DRAINING = 3
    SPARE = 4


class Serving(IntEnum):
    """What an edge may do with a replica; computed by the leader, never set by hand."""

    UNSPECIFIED = 0
    OPEN = 1
    CLOSED = 2
    LOST = 3


class BreakerState(IntEnum):
    """What the policy makes of a replica over all edges (breaker). Written by the leader only."""

    UNSPECIFIED = 0
    JOINING = 1
    PROBING = 2
    RAMPING = 3
    HEALTHY = 4
    DEGRADED = 5
    EJECTED = 6
    DRAINING = 7


class Urgency(IntEnum):
    """How urgent a request is; the smaller number goes first. UNSPECIFIED reads as DEFAULT."""

    UNSPECIFIED = 0
    CRITICAL = 1
    INTERACTIVE = 2
    DEFAULT = 3
    BATCH = 4


class LimitSource(IntEnum):
    """Where max_num_seqs comes from: how far to trust it."""

    UNSPECIFIED = 0
    CONFIG = 1
    COMMAND_LINE = 2
    ASSUMED = 3


class Outcome(IntEnum):
    """How an attempt on a replica ended; see policy/classify."""

    UNSPECIFIED = 0
    OK = 1
    CLIENT = 2
    OVERLOAD = 3
    SOFT = 4
    HARD = 5
    PATH = 6
    UNKNOWN = 7


class GpuState(IntEnum):
    """Readability of one GPU."""

    UNSPECIFIED = 0
    OK = 1
    LOST = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class HistogramDelta:
    """New observations by bucket: le_s[i] is the upper bound of count[i]; not cumulative."""

    le_s: tuple[float, ...] = ()
    count: tuple[int, ...] = ()
    sum_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds GPU memory."""

    pid: int
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class XidEvent:
    """A critical event that the driver raised."""

    code: int
    age_ms: int


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One reading of one GPU."""

    index: int
    uuid: str = ""
    name: str = ""
    state: GpuState = GpuState.OK
    detail: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_ratio: float | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    throttle_reasons: int | None = None
    ecc_corrected_total: int | None = None
    ecc_uncorrected_total: int | None = None
    xids: tuple[XidEvent, ...] = ()
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeHello:
    """Who the agent is."""

    node: str
    agent_version: str = ""
    instance: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known about an engine beside its samples."""

    replica: str
    url: str
    served_models: tuple[str, ...]
    max_model_len_tokens: int | None
    max_num_seqs: int
    max_num_seqs_source: LimitSource
    kv_cache_tokens: int | None = None
    vllm_version: str = ""
    epoch: int = 0
    uptime_ms: int | None = None
    adapters: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One reading of one engine; counters are the engine's own totals."""

    replica: str
    state: EngineState
    reason: str = ""
    state_age_ms: int = 0
    epoch: int = 0
    metrics_age_ms: int | None = None
    no_progress_ms: int = 0
    running: int | None = None
    waiting: int | None = None
    kv_cache_usage_ratio: float | None = None
    prompt_tokens_total: int | None = None
    generation_tokens_total: int | None = None
    steps_total: int | None = None
    preemptions_total: int | None = None
    finished_total: int | None = None
    rejections_total: int | None = None
    prefix_cache_queries_tokens_total: int | None = None
    prefix_cache_hits_tokens_total: int | None = None
    ttft: HistogramDelta | None = None
    itl: HistogramDelta | None = None
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The periodic reading of a node."""

    seq: int
    engines: tuple[EngineSample, ...] = ()
    gpus: tuple[GpuSample, ...] = ()
    gpu_detail: str = ""


@dataclass(frozen=True, slots=True)
class Bye:
    """The agent leaves on purpose."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How a probe went."""

    probe_id: int
    replica: str
    ok: bool
    detail: str = ""
    duration_ms: int = 0
    outcome: Outcome = Outcome.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class SetReportPeriod:
    """A new report period."""

    period_ms: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask an engine for one token."""

    probe_id: int
    replica: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A message the control plane did not take."""

    reason: str


AgentMessage = NodeHello | EngineFacts | Report | ProbeResult | Bye | NodeFacts | Restarted
AgentDirective = SetReportPeriod | Probe | Drain | Resume | Refused | Restart


@dataclass(frozen=True, slots=True)
class EdgeHello:
    """Who the edge is and what it last applied."""

    edge: str
    edge_version: str = ""
    instance: str = ""
    listen_url: str = ""
    term: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Ack:
    """Applied, or refused and why."""

    nonce: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """Attempts that ended in one class since the last report."""

    outcome: Outcome
    count: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """Attempts that were started within one second, and what became of them."""

    age_ms: int
    dispatched: int = 0
    outcomes: tuple[OutcomeCount, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaUse:
    """One replica as one edge uses it."""

    replica: str
    inflight: int = 0
    dispatched: int = 0
    outcomes: tuple[OutcomeCount, ...] = ()
    suspect: bool = False
    cohorts: tuple[Cohort, ...] = ()
    refused: int = 0
    tokens: int = 0
    unanswered_ms: int = 0


@dataclass(frozen=True, slots=True)
class TenantUse:
    """One tenant's requests of one urgency in one pool at one edge."""

    tenant: str = ""
    urgency: Urgency = Urgency.DEFAULT
    queued: int = 0
    queued_work: float = 0.0
    ages_ms: tuple[int, ...] = ()
    charged_work: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolUse:
    """One pool as one edge serves it."""

    pool: str
    queued: int = 0
    oldest_wait_ms: int = 0
    requests: int = 0
    shed: int = 0
    tenants: tuple[TenantUse, ...] = ()


@dataclass(frozen=True, slots=True)
class SteadyUse:
    """Replicas on which attempts of one edge only go on, as columns."""

    replicas: tuple[str, ...] = ()
    inflight: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """What an edge does and sees."""

    seq: int
    replicas: tuple[ReplicaUse, ...] = ()
    pools: tuple[PoolUse, ...] = ()
    steady: SteadyUse | None = None


EdgeMessage = EdgeHello | Ack | EdgeReport


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas that serve one model."""

    name: str
    aliases: tuple[str, ...] = ()
    no_failover: bool = False
    request_timeout_ms: int = 0
    idle_timeout_ms: int = 0
    hedge: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One replica as an edge reaches it."""

    replica: str
    pool: str
    node: str
    url: str
    served_as: str
    serving: Serving = Serving.CLOSED
    reason: str = ""
    max_model_len_tokens: int | None = None
    breaker: BreakerState = BreakerState.UNSPECIFIED
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that may call, by the SHA-256 of its text."""

    sha256: bytes
    name: str = ""
    urgency: Urgency = Urgency.DEFAULT
    models: tuple[str, ...] = ()
    fallback: bool = False
    expires_ms: int = 0

    def expired(self, wall_s: float) -> bool:
        """Whether it is good no more, by the clock on the wall."""
        return 0 < self.expires_ms <= 1000 * wall_s


@dataclass(frozen=True, slots=True)
class EdgePolicy:
    """Limits and timers of every edge. Reasons for the defaults: docs/configuration.md."""

    queue_limit: int = 256
    queue_wait_ms: int = 45_000
    head_hold_ms: int = 10_000
    idle_timeout_ms: int = 120_000
    total_timeout_ms: int = 3_600_000
    body_limit_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything an edge needs to serve alone."""

    pools: tuple[Pool, ...] = ()
    routes: tuple[Route, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    policy: EdgePolicy = EdgePolicy()


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed against the snapshot of version base_version."""

    base_version: int
    pools: tuple[Pool, ...] = ()
    pools_gone: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    routes_gone: tuple[str, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    keys_gone: tuple[bytes, ...] = ()
    policy: EdgePolicy | None = None


@dataclass(frozen=True, slots=True)
class Credit:
    """One replica's room for one edge."""

    replica: str
    slots: int
    weight: float = 0.0
    running: int | None = None
    waiting: int | None = None
    report_age_ms: int | None = None
    limit_slots: int = 0
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What one tenant has waiting and has used at the other edges."""

    tenant: str = ""
    urgency: Urgency = Urgency.DEFAULT
    queued_work: float = 0.0
    charged_work: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolPace:
    """One pool as the leader sees it over all edges."""

    pool: str
    work_per_s: float | None = None
    elsewhere: tuple[Elsewhere, ...] = ()
    answer_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Credits:
    """Room and weights of every replica, whole each time."""

    credits: tuple[Credit, ...] = ()
    paces: tuple[PoolPace, ...] = ()
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class EdgeUpdate:
    """One push: newer than another when (term, version) is greater."""

    term: int
    version: int
    nonce: int
    body: Snapshot | Delta | Credits
