"""Is the fleet all right: one word, one sentence, and what speaks against it.

Rules: what an operator asked for (cordoned, draining, spare) is no fault of the fleet; being full
is one only when clients feel it. DOWN means that, as far as the control plane can see, nobody is
served; DEGRADED that something needs a look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from trimtab.model import BreakerState, Intent, Serving
from trimtab.steered import OverrideKind
from trimtab.views import EdgeView, Fleet, PoolView, ReplicaView

SHED_DEGRADED_RATIO = 0.01  # one refusal in a hundred: clients' own retries hide less than that
LEADERLESS = "no control plane leads; this is what is stored"
_UNREMARKABLE = frozenset({BreakerState.UNSPECIFIED, BreakerState.JOINING, BreakerState.HEALTHY})
_MINOR = re.compile(r"(\d{1,9})\.(\d{1,9})\b")


class Level(Enum):
    """How bad it is."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word, the sentence, and one line a problem."""

    level: Level
    sentence: str
    problems: tuple[str, ...]


def judge(fleet: Fleet) -> Verdict:
    """What a look at the fleet says."""
    problems = _problems(fleet)
    down = _why_down(fleet)
    if down:
        return Verdict(Level.DOWN, down, problems)
    if problems:
        return Verdict(Level.DEGRADED, _summary(fleet), problems)
    return Verdict(Level.OK, _summary(fleet), ())


def is_open(replica: ReplicaView) -> bool:
    """Whether it may get new requests."""
    return replica.route.serving is Serving.OPEN


def in_full_use(replica: ReplicaView) -> bool:
    """Whether its breaker has nothing against it; JOINING is for the agent to explain."""
    return replica.route.breaker in _UNREMARKABLE


def is_far(version: str, other: str) -> bool:
    """Whether two versions are more than one minor apart; unreadable ones say nothing."""
    found = [_MINOR.match(v) for v in (version, other)]
    majors = {int(match[1]) for match in found if match}
    minors = [int(match[2]) for match in found if match]
    return len(minors) == 2 and (len(majors) > 1 or abs(minors[0] - minors[1]) > 1)


def why(replica: ReplicaView) -> str:
    """Why a replica is as it is, in words; empty when all is well."""
    reasons = [replica.route.reason, replica.state_reason]
    if is_open(replica):
        return replica.route.reason
    if replica.intent not in (Intent.ACTIVE, Intent.UNSPECIFIED):
        reasons.insert(0, replica.intent.name.lower())
    told = [r for r in dict.fromkeys(reasons) if not any(r != o and r in o for o in reasons)]
    return "; ".join(filter(None, told))


def _why_down(fleet: Fleet) -> str:
    if not fleet.leader:
        return ""  # edges go on with what they were given, as far as anybody can see
    if not fleet.replicas:
        return "no replica is known: no agent has reported an engine"
    if not any(is_open(replica) for replica in fleet.replicas):
        return "no replica takes requests"
    if not fleet.edges:
        return "no edge is connected, so nobody here serves clients"
    return ""


def _summary(fleet: Fleet) -> str:
    if not fleet.leader:
        return LEADERLESS
    total = len(fleet.replicas)
    takes = sum(is_open(replica) for replica in fleet.replicas)
    held = sum(not is_open(r) and _on_purpose(fleet, r) for r in fleet.replicas)
    sentence = f"{takes} of {total} replicas take requests"
    return sentence + (f", {held} held back on purpose" if held else "")


def _on_purpose(fleet: Fleet, replica: ReplicaView) -> bool:
    """Whether an operator closed it."""
    if replica.intent in (Intent.CORDONED, Intent.DRAINING, Intent.SPARE):
        return True
    name = replica.route.replica
    return any((o.kind, o.target) == (OverrideKind.HOLD_OPEN, name) for o in fleet.overrides)


def _problems(fleet: Fleet) -> tuple[str, ...]:
    if not fleet.leader:
        return ("edges go on with what they were given; nothing can be changed",)
    lines = [f"pool {p.pool}: no replica takes requests" for p in fleet.pools if not p.open]
    lines += [_closed(r) for r in fleet.replicas if not is_open(r) and not _on_purpose(fleet, r)]
    lines += [_failing(r) for r in fleet.replicas if _is_failing(r)]
    lines += [f"pool {p.pool}: {p.alarm}" for p in fleet.pools if p.alarm]
    lines += [f"edge {e.edge}: {_behind(e)}" for e in fleet.edges if not e.in_sync]
    lines += [f"agent {a.node}: not connected" for a in fleet.agents if not a.connected]
    versions = {f"edge {e.edge}": e.edge_version for e in fleet.edges}
    versions |= {f"agent {a.node}": a.agent_version for a in fleet.agents}
    lines += [
        f"{peer}: version {version}, more than one minor from the control plane's"
        f" {fleet.controlplane_version}; see docs/upgrade.md"
        for peer, version in versions.items()
        if is_far(version, fleet.controlplane_version)
    ]
    lines += [_shedding(pool) for pool in fleet.pools if _sheds(pool)]
    return tuple(lines)


def _closed(replica: ReplicaView) -> str:
    reason = why(replica) or f"engine {replica.state.name}"
    return f"replica {replica.route.replica}: {replica.route.serving.name.lower()}, {reason}"


def _is_failing(replica: ReplicaView) -> bool:
    return is_open(replica) and replica.route.breaker is BreakerState.DEGRADED


def _failing(replica: ReplicaView) -> str:
    return f"replica {replica.route.replica}: open, but {replica.breaker_reason}"


def _behind(edge: EdgeView) -> str:
    if edge.last_error:
        return f"refused an update: {edge.last_error}"
    return f"acked version {edge.acked_version} of {edge.sent_version}"


def _sheds(pool: PoolView) -> bool:
    return pool.shed_1m > SHED_DEGRADED_RATIO * pool.requests_1m


def _shedding(pool: PoolView) -> str:
    return f"pool {pool.pool}: {pool.shed_1m} of {pool.requests_1m} requests refused in 1m, full"
