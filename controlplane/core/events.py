"""What the registry is told (events) and what it asks for in return (effects).

Rules: a stream is a number that the shell gives to each connection and never uses again; effects
are carried out by the shell, in order, and none of them can fail back into the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.core.placement import Placement
from controlplane.core.records import ConfigRecord, ReplicaRecord, Wish
from controlplane.core.refusals import Kind
from trimtab.model import (
    AgentDirective,
    AgentMessage,
    EdgeHello,
    EdgeReport,
    EngineState,
    Serving,
)
from trimtab.steered import Override
from trimtab.views import FleetEvent


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the store held when this control plane started; the first event, if any."""

    replicas: Mapping[str, ReplicaRecord]
    wishes: Mapping[str, Wish]
    overrides: Mapping[str, Override] = field(default_factory=dict)
    config: ConfigRecord = field(default_factory=ConfigRecord)
    journal: Mapping[str, tuple[FleetEvent, ...]] = field(default_factory=dict)
    """What happened before, a page a key."""


@dataclass(frozen=True, slots=True)
class AgentSaid:
    """A message came up an agent's stream."""

    stream: int
    message: AgentMessage


@dataclass(frozen=True, slots=True)
class AgentGone:
    """An agent's stream ended."""

    stream: int


@dataclass(frozen=True, slots=True)
class EdgeSaid:
    """A message came up an edge's stream; acks are the subscription's business."""

    stream: int
    message: EdgeHello | EdgeReport


@dataclass(frozen=True, slots=True)
class EdgeGone:
    """An edge's stream ended."""

    stream: int


@dataclass(frozen=True, slots=True)
class IntentSet:
    """An operator's wish is in the store."""

    replica: str
    wish: Wish


@dataclass(frozen=True, slots=True)
class OverrideSet:
    """An operator's override is in the store; None: it was ended."""

    key: str
    override: Override | None
    actor: str


@dataclass(frozen=True, slots=True)
class BreakerReset:
    """An operator wants that nothing is held against a replica."""

    replica: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Configured:
    """Another configuration is in effect: its pools and engines; and what is to be told of it."""

    placement: Placement
    noted: tuple[Noted, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Said = AgentSaid | AgentGone | EdgeSaid | EdgeGone
ByHand = IntentSet | OverrideSet | BreakerReset
Event = Loaded | Said | ByHand | Configured | Tick


@dataclass(frozen=True, slots=True)
class Save:
    """Keep this in the store; None removes the key."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Direct:
    """Tell an agent something."""

    stream: int
    directive: AgentDirective


@dataclass(frozen=True, slots=True)
class EndStream:
    """Close a stream and tell the peer why; a kind makes it a refusal."""

    stream: int
    reason: str
    kind: Kind | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something of a peer was not taken, and its stream goes on."""

    peer: str
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A replica's state or serving changed; logged once, with what it was judged by."""

    replica: str
    state: tuple[EngineState, EngineState]
    serving: tuple[Serving, Serving]
    reason: str
    evidence: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Noted:
    """Something else worth one line in the log."""

    what: str
    fields: Mapping[str, object]


Effect = Save | Direct | EndStream | Refusal | Transition | Noted
