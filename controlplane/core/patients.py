"""Who is of no use, for how long, and whether it may be restarted: what policy/remedy judges by.

Rules: a stall is the agent's word, on an engine that it reaches now; one that hung while idle is
known by requests that got nothing and by a probe that got nothing either, under the same start.
An engine that fails, is dead or has lost its GPU is nobody's patient: systemd starts what died, and
a restart mends no hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.core.replica import Node, Replica
from controlplane.core.serving import WARMING_PATIENCE
from trimtab.model import BreakerState, EngineState, Intent, Serving
from trimtab.policy.breaker import SERVING, Cause, Hold
from trimtab.policy.remedy import Patient


@dataclass(frozen=True, slots=True)
class _Mute:
    epoch: int
    since_s: float
    probed: bool = False


class Patients:
    """Remembers why breakers moved."""

    def __init__(self) -> None:
        self._mute: dict[str, _Mute] = {}

    def look(
        self, replicas: Iterable[Replica], nodes: Mapping[str, Node], stale_s: float, now_s: float
    ) -> list[Patient]:
        """All replicas, as they are now."""
        found = [
            self._patient(replica, nodes.get(replica.node), stale_s, now_s) for replica in replicas
        ]
        self._mute = {one.name: self._mute[one.name] for one in found if one.name in self._mute}
        return found

    def _patient(
        self, replica: Replica, node: Node | None, stale_s: float, now_s: float
    ) -> Patient:
        breaker, sample = replica.standing.breaker, replica.sample
        useless_s, why = 0.0, ""
        if sample is not None and not replica.gpu_fault:
            mute_s = self._mute_s(replica, sample.epoch, now_s)
            if sample.state is EngineState.STALLED and replica.health is Serving.LOST:
                patience = WARMING_PATIENCE if replica.stalled_warming else 1
                useless_s = sample.no_progress_ms / 1000 / patience
                why = f"{sample.reason}, for {sample.no_progress_ms / 1000:.0f} s"
            elif mute_s:
                useless_s = mute_s
                why = f"neither requests nor a probe got an answer, for {mute_s:.0f} s"
        serves = breaker.state in SERVING and replica.health is Serving.OPEN and not useless_s
        return Patient(
            name=replica.name,
            pool=replica.route.pool if replica.route else "",
            epoch=sample.epoch if sample else 0,
            useless_s=useless_s,
            why=why,
            serves=serves and replica.wish.intent in {Intent.ACTIVE, Intent.UNSPECIFIED},
            barred=_barred(replica, node, stale_s, now_s),
        )

    def _mute_s(self, replica: Replica, epoch: int, now_s: float) -> float:
        """How long it answers neither requests nor probes; 0 before a probe has told."""
        breaker, name = replica.standing.breaker, replica.name
        if breaker.cause is Cause.UNANSWERED:
            self._mute.setdefault(name, _Mute(epoch, breaker.since_s))
        mute = self._mute.get(name)
        out = breaker.state in {BreakerState.EJECTED, BreakerState.PROBING}
        if mute is None or not out or mute.epoch != epoch:
            self._mute.pop(name, None)
            return 0.0
        if breaker.cause is Cause.PROBE_FAILED:
            self._mute[name] = _Mute(epoch, mute.since_s, probed=True)
        return now_s - mute.since_s if self._mute[name].probed else 0.0


def _barred(replica: Replica, node: Node | None, stale_s: float, now_s: float) -> str:
    age_s = replica.age_s(now_s)
    if not (replica.facts and replica.facts.unit):
        return "its agent knows no unit of it that it may restart (unit in the agent's file)"
    if replica.wish.intent not in {Intent.ACTIVE, Intent.UNSPECIFIED}:
        return f"an operator has it {replica.wish.intent.name.lower()}"
    if replica.hold is Hold.PAUSED:
        return "what is automatic is paused (ctl pause)"
    if replica.hold is not Hold.NONE:
        return f"an operator holds its breaker {replica.hold.name.lower()}"
    if node is None or node.stream is None or age_s is None or age_s > stale_s:
        return "its agent is not heard"
    return ""
