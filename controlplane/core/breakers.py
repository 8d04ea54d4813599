"""The breakers of all replicas: gathers the evidence, lets policy decide, asks for probes.

Rules: the agent's word acts at once (`judge`), what edges count at the next tick; one ruling a
pool and tick; a probe is asked of the replica's own agent, one at a time, and a result counts only
while it is waited for. Every move is one event with the evidence it was made on.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controlplane.core.credits import full_slots
from controlplane.core.edges import Edge
from controlplane.core.events import BreakerReset, Direct, Effect, Noted
from controlplane.core.moves import Moves
from controlplane.core.replica import Node, Replica
from controlplane.core.standing import Asked
from trimtab.model import (
    BreakerState,
    EngineSample,
    EngineState,
    Intent,
    Probe,
    ProbeResult,
    Serving,
)
from trimtab.policy import breaker as policy
from trimtab.policy import ejection
from trimtab.policy.breaker import SERVING, Breaker, Cause, Evidence, Hold, Word
from trimtab.policy.capacity import Offered, carries
from trimtab.policy.dice import Dice
from trimtab.policy.ejection import Docket, Member, Ruling
from trimtab.policy.progress import HANG_EJECT_S, idle_patience_s

PROBE_TIMEOUT_S = 30.0
"""An engine's first token after a start may wait for compilation; a hang is told by other means."""
PROBE_GIVE_UP_S = PROBE_TIMEOUT_S + 5.0
SILENT = Ruling()
PROBE_AGAIN_S = 2.0
"""After one that told nothing."""
_WORDS = {
    EngineState.READY: Word.SERVES,
    EngineState.WARMING: Word.SERVES,
    EngineState.STALLED: Word.STUCK,
    EngineState.STARTING: Word.STOPPED,
    EngineState.DRAINING: Word.LEAVING,
    EngineState.SLEEPING: Word.LEAVING,
}


@dataclass(slots=True)
class _Pool:
    docket: Docket = field(default_factory=Docket)
    offered: Offered = field(default_factory=Offered)
    ruling: Ruling = SILENT


class Breakers:
    """Decides who is in use; the registry owns the replicas."""

    def __init__(self, dice: Dice, stale_s: float) -> None:
        self._dice = dice
        self._stale_s = stale_s
        self._pools: defaultdict[str, _Pool] = defaultdict(_Pool)
        self._probe_ids = itertools.count(1)
        self.moves = Moves()

    def alarm(self, pool: str) -> str:
        """What a person must know of a pool; empty when all is well."""
        return self._pools[pool].ruling.alarm if pool in self._pools else ""

    def sampled(
        self, replica: Replica, before: EngineSample | None, sample: EngineSample, now_s: float
    ) -> None:
        """An agent's sample of a replica."""
        if replica.facts is None:
            return
        limit = replica.facts.max_num_seqs
        done, finished = replica.standing.take_sample(before, sample, limit, now_s)
        self._pools[_pool(replica)].offered.delivered(done, finished, now_s)

    def used(self, edge: Edge, replicas: Mapping[str, Replica], now_s: float) -> None:
        """An edge's newest report."""
        for use in edge.news:
            replicas[use.replica].standing.take_use(edge.hello.edge, use, now_s)
        for pool in edge.pools.values():
            if pool.pool in self._pools:
                self._pools[pool.pool].offered.asked(pool.requests, now_s)

    def probed(
        self, replica: Replica, node: Node, result: ProbeResult, now_s: float
    ) -> list[Effect]:
        """A probe ended."""
        standing = replica.standing
        if standing.asked is None or standing.asked.probe_id != result.probe_id:
            return []
        standing.take_probe(result)
        return self.judge(replica, node, now_s)

    def judge(self, replica: Replica, node: Node, now_s: float) -> list[Effect]:
        """Take the newest word of its agent into account, and nothing else."""
        ruling = Ruling(kept=frozenset({replica.name}))
        seen = self._evidence(replica, node, now_s)
        return self._step(replica, _ruled(seen, ruling, replica.name), now_s)

    def reset(self, replica: Replica, event: BreakerReset, now_s: float) -> list[Effect]:
        """An operator wants that nothing is held against it."""
        standing = replica.standing
        fields = {"replica": replica.name, "state": standing.breaker.state.name}
        standing.breaker, standing.unsaved = policy.reset(standing.breaker, now_s), True
        return [Noted("breaker reset", {**fields, "reason": event.reason, "actor": event.actor})]

    def ticking(
        self, replicas: Iterable[Replica], nodes: Mapping[str, Node], now_s: float
    ) -> Generator[list[Effect], None, None]:
        """Decide on all of them, and ask for the probes that are due; a pool is one step."""
        pools: defaultdict[str, list[Replica]] = defaultdict(list)
        for replica in replicas:
            pools[_pool(replica)].append(replica)
        for name, members in pools.items():
            yield self._tick_pool(name, members, nodes, now_s)
        for gone in [name for name in self._pools if name not in pools]:
            del self._pools[gone]

    def _tick_pool(
        self, name: str, replicas: Sequence[Replica], nodes: Mapping[str, Node], now_s: float
    ) -> list[Effect]:
        pool = self._pools[name]
        evidence = {r.name: self._evidence(r, nodes.get(r.node), now_s) for r in replicas}
        _compare(replicas, evidence)
        members = [
            _member(replica, evidence[replica.name], now_s)
            for replica in replicas
            if _counts(replica)
        ]
        before, offered = pool.ruling, pool.offered.work_per_s(now_s)
        pool.ruling = ejection.rule(pool.docket, members, offered, now_s)
        effects = _alarm(name, before.alarm, pool.ruling.alarm)
        for replica in replicas:
            seen = _ruled(evidence[replica.name], pool.ruling, replica.name)
            effects += self._step(replica, seen, now_s)
            effects += self._ask(replica, nodes.get(replica.node), seen.word, now_s)
        return effects

    def _evidence(self, replica: Replica, node: Node | None, now_s: float) -> Evidence:
        standing, sample = replica.standing, replica.sample
        age_s = replica.age_s(now_s)
        fresh = age_s is not None and age_s <= self._stale_s
        counts = standing.window.count(standing.breaker.counts_from_s, now_s)
        idle_s = now_s - replica.unseen_since_s if fresh and replica.unseen_since_s else 0.0
        return Evidence(
            word=word(replica),
            epoch=sample.epoch if sample else 0,
            full_slots=full_slots(replica, now_s),
            dispatched=counts.dispatched,
            failed=counts.failed,
            lately_dispatched=counts.lately_dispatched,
            lately_failed=counts.lately_failed,
            refusing_edges=standing.refusing_edges(now_s),
            agent_silent=not fresh or node is None or node.stream is None,
            unanswered_s=min(idle_s, standing.waited_s(now_s)),
            patience_s=idle_patience_s(sample, standing.slowest_s) if sample else HANG_EJECT_S,
            first_tokens=standing.first_tokens,
            waiting=sample.waiting if sample and fresh else None,
            probe=standing.probe,
            probes_tell=standing.probes_tell,
            hold=replica.hold,
        )

    def _step(self, replica: Replica, seen: Evidence, now_s: float) -> list[Effect]:
        standing, before = replica.standing, replica.standing.breaker
        standing.first_tokens, standing.probe = 0, None
        after = policy.step(before, seen, now_s, self._dice)
        if after is before:
            return []
        standing.breaker = after
        standing.unsaved = True
        if after.state is before.state:
            return []
        standing.asked, standing.probes_tell, standing.evidence = None, True, seen
        self.moves.moved(replica, before, after)
        return [_moved(replica, before, after, seen, now_s)]

    def _ask(self, replica: Replica, node: Node | None, said: Word, now_s: float) -> list[Effect]:
        standing = replica.standing
        if node is None or node.stream is None:
            return []
        if not policy.wants_probe(standing.breaker, said, now_s):
            return []
        asked = standing.asked
        waits = asked is not None and now_s - asked.at_s < PROBE_GIVE_UP_S
        if asked is not None and waits and asked.stream == node.stream:
            return []
        if not standing.probes_tell and now_s < standing.asked_s + PROBE_AGAIN_S:
            return []
        standing.asked_s = now_s
        number = next(self._probe_ids)
        standing.asked = Asked(number, node.stream, now_s)
        return [Direct(node.stream, Probe(number, replica.name, round(1000 * PROBE_TIMEOUT_S)))]


def word(replica: Replica) -> Word:
    """The agent's word, as the policy understands it."""
    if replica.sample is None or replica.facts is None or not replica.facts.served_models:
        return Word.NONE
    if replica.health is Serving.LOST:
        return Word.LOST
    return _WORDS.get(replica.state, Word.NONE)


def _pool(replica: Replica) -> str:
    return replica.route.pool if replica.route else ""


def _counts(replica: Replica) -> bool:
    """Whether its pool can count on it, as far as agent and operator are concerned."""
    wanted = replica.wish.intent in {Intent.ACTIVE, Intent.UNSPECIFIED}
    return wanted and replica.health is Serving.OPEN


def _member(replica: Replica, seen: Evidence, now_s: float) -> Member:
    standing, breaker = replica.standing, replica.standing.breaker
    failed_ratio = seen.failed / seen.dispatched if seen.dispatched else 0.0
    ramped_ratio = breaker.cap_slots / seen.full_slots if seen.full_slots else 0.0
    return Member(
        name=replica.name,
        state=breaker.state,
        condemned=policy.is_condemned(breaker, seen),
        leaving=policy.is_leaving(breaker, seen, now_s),
        impaired=policy.is_impaired(seen),
        held=seen.hold in {Hold.CLOSED, Hold.PAUSED},
        out=policy.is_pardonable(breaker) and seen.word is Word.SERVES,
        carries_work_per_s=carries(
            breaker.state, standing.capacity.work_per_s(now_s), failed_ratio, ramped_ratio
        ),
    )


def _ruled(seen: Evidence, ruling: Ruling, name: str) -> Evidence:
    if ruling == SILENT:
        return seen
    return replace(
        seen,
        spared=ruling.spared == name,
        kept=name in ruling.kept,
        pardoned=ruling.pardon,
    )


def _compare(replicas: Sequence[Replica], evidence: dict[str, Evidence]) -> None:
    """Set the time between tokens of those that ramp against that of those in full use."""
    ramping = [r for r in replicas if r.standing.breaker.state is BreakerState.RAMPING]
    if not ramping:
        return
    steady = [r.standing.itl_s for r in replicas if r.standing.breaker.state in ejection.STEADY]
    known = [itl_s for itl_s in steady if itl_s]
    for replica in ramping if known else ():
        itl_s = replica.standing.itl_s
        ratio = itl_s / statistics.median(known) if itl_s else None
        evidence[replica.name] = replace(evidence[replica.name], itl_ratio=ratio)


def _alarm(pool: str, before: str, now: str) -> list[Effect]:
    if bool(before) == bool(now):
        return []
    what = "failures have a common cause" if now else "failures have no common cause any more"
    return [Noted(what, {"pool": pool, "alarm": now})]


def _moved(
    replica: Replica, before: Breaker, after: Breaker, seen: Evidence, now_s: float
) -> Noted:
    fields: dict[str, object] = {
        "replica": replica.name,
        "pool": _pool(replica),
        "from": before.state.name,
        "to": after.state.name,
        "cause": after.cause.value if after.cause else "",
        "word": seen.word.name,
        "epoch": seen.epoch,
        "dispatched": seen.dispatched,
        "failed": seen.failed,
        "refusing_edges": seen.refusing_edges,
        "agent_silent": seen.agent_silent,
        "waiting": seen.waiting,
        "itl_ratio": None if seen.itl_ratio is None else round(seen.itl_ratio, 2),
        "probe": seen.probe,
        "ejections": after.ejections,
    }
    if after.cause is Cause.UNANSWERED:
        fields |= {"unanswered_s": round(seen.unanswered_s, 1), "patience_s": seen.patience_s}
    if after.state is BreakerState.EJECTED:
        fields["wait_s"] = round(after.until_s - now_s, 1)
    if after.state in SERVING:
        fields["slots"] = policy.slots(after, seen.full_slots)
    return Noted("breaker moved", fields)
