"""What the parts show of themselves: the interface between them and the checks.

Rules: plain values, taken every SAMPLE_S; a part that does not exist, or does not say, leaves None,
and whatever needs it is not checked. Fields marked truth are what only a simulation knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SAMPLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Steering:
    """What the control plane means to do with a replica. None: it has no such part."""

    limit_slots: int | None = None
    breaker: str | None = None
    """The state's name: JOINING PROBING RAMPING HEALTHY DEGRADED EJECTED DRAINING."""
    cap_slots: float | None = None
    """The most that a returning replica may get now."""
    ejections: int | None = None
    """Its k: how often it was ejected, less what was forgiven."""


@dataclass(frozen=True, slots=True)
class ReplicaSeen:
    """One replica at one time."""

    is_healthy: bool  # truth
    is_stopped: bool  # truth: it does no work at all
    slots: int
    running: int
    waiting: int
    tokens: int  # made since the start
    eligible: float  # share of gateways that would send to it
    steering: Steering


@dataclass(frozen=True, slots=True)
class EdgeSeen:
    """One edge at one time; by replica in the fleet's order."""

    is_up: bool
    applied: tuple[int, int]  # term and version
    queued: int
    inflight: tuple[int, ...]  # by its own accounts
    live: tuple[int, ...]  # attempts it holds in truth
    unstarted: tuple[int, ...]  # those without a token; counted for stopped replicas only
    leases: tuple[int, ...]
    tenants_queued: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything at one time."""

    now_s: float
    controlplane_up: bool
    replicas: tuple[ReplicaSeen, ...]
    edges: tuple[EdgeSeen, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client was told, and what became of its return."""

    at_s: float
    status: int
    retry_after_s: float | None
