"""The invariants, as far as they show from outside: each a small function of a run's history.

Rules: a check returns what was violated, each with its time, or None where it does not apply: the
scenario does not try it, or the part that it is about does not exist or does not say. So a check
switches itself on when a part begins to fill its field of `seen.Steering` or `EdgeSeen`.
Not here: I1, I20's orders and I4's sums are properties of pure functions; I22 holds by construction
(nothing reads a clock); I24 is a test of whole runs; I25 needs prompts that kill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from sim.world.history import History, strikes_s
from sim.world.metrics import good_share, measure
from sim.world.scenario import ReplicaSpec
from sim.world.seen import Observation

Q_TARGET = 4  # requests that may wait in an engine, per replica
FAIR_SHARE_MIN = 0.7
SHARE_WINDOW = 100  # dispatches
CHANCE_SIGMAS = 4.0  # so far below the fair share chance comes once in 30,000 windows
SETTLED_S = 30.0  # after a disturbance, before shares are judged
QUEUE_SETTLES_S = 5.0
CONSERVATION_S = 1.5
FREE_SLOTS = 2  # fewer are on their way to be used
LAST_DISPATCH_S = {"crash": 1.0, "freeze": 3.5 + 0.6, "hang": 3.5 + 0.6}
"""Plus what a look at the engine and a push may take, for those that must be noticed."""
PROBE_EVERY_S = 5.0
EVACUATED_S = 11.0 + 0.6
RETRY_AFTER_S = (1.0, 120.0)
RETURNS_MIN = 50
FULL_SPEED_S = 20.0
SERVED_BLINDLY = 0.8
TAKES_AWAY = frozenset({"drain", "edge_kill"})
"""Faults that hide a healthy engine, or a gateway, on purpose."""
REFUSING_RATIO = 0.9
CONVERGED_S, CONVERGED_VARIANCE = 30.0, 2.0

Found = list[str] | None


def i2_overload_ejects_nobody(run: History) -> Found:
    """While all are healthy, and nobody says otherwise, all are eligible at every gateway."""
    unwell = any(not r.is_healthy for look in run.looks for r in look.replicas)
    if unwell or any(fault.kind in TAKES_AWAY for fault in run.scenario.faults):
        return None
    return [
        f"{look.now_s:.1f} s: r{i} is eligible at {replica.eligible:.0%} of the gateways"
        for look in run.measured()
        for i, replica in enumerate(look.replicas)
        if replica.eligible < 1.0
    ]


def i3_no_healthy_replica_starves(run: History) -> Found:
    """Calm and not overloaded, nobody gets less than 0.7 of its fair share for long."""
    total = sum(run.capacities)
    found = []
    for k in range(0, len(run.dispatches) - SHARE_WINDOW + 1, SHARE_WINDOW):
        window = run.dispatches[k : k + SHARE_WINDOW]
        start_s, end_s = window[0][0], window[-1][0]
        if start_s < run.start_s or run.calm_s(end_s) - (end_s - start_s) < SETTLED_S:
            continue
        if run.load(end_s) > 1.0 or not _all_healthy(run, start_s, end_s):
            continue
        for i, capacity in enumerate(run.capacities):
            fair = SHARE_WINDOW * capacity / total
            chance = CHANCE_SIGMAS * math.sqrt(fair * (1.0 - capacity / total))
            got = sum(1 for _, replica in window if replica == i)
            if got < min(FAIR_SHARE_MIN * fair, fair - chance):
                found.append(f"{start_s:.1f} s: r{i} got {got} of {fair:.0f} dispatches")
    return found


def i5_credits_are_bounded(run: History) -> Found:
    """Over all edges, leases and attempts are within the limit plus one an edge plus Q*."""
    if not run.measured() or not run.measured()[0].edges:
        return None
    found = []
    for look in run.measured():
        for i, replica in enumerate(look.replicas):
            limit = replica.steering.limit_slots
            if limit is None or not look.controlplane_up:
                continue
            up = [edge for edge in look.edges if edge.is_up]
            used = sum(max(edge.leases[i], edge.inflight[i]) for edge in up)
            most = limit + len(up) + Q_TARGET
            if used > most and run.calm_s(look.now_s) > QUEUE_SETTLES_S:
                found.append(f"{look.now_s:.1f} s: r{i} has {used} of {most} leased or in use")
    return found


def i5_engines_queue_little(run: History) -> Found:
    """Five seconds after a disturbance no engine has more than 4 Q* waiting."""
    if not run.measured() or not run.measured()[0].edges:
        return None
    return [
        f"{look.now_s:.1f} s: {replica.waiting} wait in r{i}"
        for look in run.measured()
        for i, replica in enumerate(look.replicas)
        if replica.waiting > 4 * Q_TARGET
        and look.controlplane_up
        and not replica.is_stopped
        and run.calm_s(look.now_s) > QUEUE_SETTLES_S
    ]


def i6_work_is_conserved(run: History) -> Found:
    """Nobody waits at an edge while an open, healthy engine has had slots free for 1.5 s."""
    if not run.measured() or not run.measured()[0].edges:
        return None
    found, since_s = [], None
    for look in run.measured():
        queued = sum(edge.queued for edge in look.edges)
        idle = [
            i
            for i, (spec, r) in enumerate(zip(run.scenario.replicas, look.replicas, strict=True))
            if _has_room(_taken_slots(spec), r.running, r.waiting)
        ]
        idle = [i for i in idle if look.replicas[i].is_healthy and look.replicas[i].eligible > 0]
        idle = [i for i in idle if look.replicas[i].steering.breaker in {None, "HEALTHY"}]
        if not (queued and idle):
            since_s = None
        elif since_s is None:
            since_s = look.now_s
        elif look.now_s - since_s > CONSERVATION_S:
            found.append(f"{look.now_s:.1f} s: {queued} wait while r{idle[0]} has free slots")
            since_s = None
    return found


def i8_attempts_are_few(run: History) -> Found:
    """At most 1.1 attempts a submission and a reserve; never over three for one."""
    most = [job for job in run.jobs if job.attempts > 3 * job.submissions]
    submissions = sum(job.submissions for job in run.jobs)
    attempts = sum(job.attempts for job in run.jobs)
    gateways = max(1, run.scenario.edges)
    reserve = gateways * (max(r.slots for r in run.looks[0].replicas) + 0.2 * run.end_s)
    found = [f"job {job.number} made {job.attempts} attempts" for job in most]
    if attempts > 1.1 * submissions + reserve:
        found.append(f"{attempts} attempts for {submissions} submissions")
    return found


def i9_bursts_leave_nothing_behind(run: History) -> Found:
    """After a burst, first tokens are normal again within the backlog's time and 30 s."""
    calm_s = run.scenario.calm_from_s
    if calm_s is None or run.scenario.faults:
        return None
    base = run.load(calm_s)
    if base > 0.9:
        return None
    most_s = run.scenario.queue_wait_s / (1.0 - base) + 30.0 if base > 0.8 else 90.0
    took_s = measure(run).ttr_s or 0.0
    return [f"back to normal only after {took_s:.0f} s, not {most_s:.0f} s"] * (took_s > most_s)


def i10_the_dead_get_nothing(run: History) -> Found:
    """The last request goes to a dead engine within 1 s, to a hung one within 3.5 s."""
    faults = [fault for fault in run.scenario.faults if fault.kind in LAST_DISPATCH_S]
    if not faults:
        return None
    found = []
    for fault in faults:
        index = run.scenario.replica_names().index(fault.replica)
        for at_s in strikes_s(fault, run.end_s):
            until_s = at_s + (run.end_s if fault.for_s is None else fault.for_s)
            from_s = at_s + LAST_DISPATCH_S[fault.kind]
            late = [t for t, r in run.dispatches if r == index and from_s < t < until_s]
            if len(late) > (until_s - from_s) / PROBE_EVERY_S:
                found.append(
                    f"{late[0]:.1f} s: r{index} got {len(late)} requests while {fault.kind}"
                )
    return found


def i10_the_waiting_are_evacuated(run: History) -> Found:
    """Who has no token yet is taken from a stopped engine within 11 s."""
    if not run.looks[0].edges or not any(r.is_stopped for o in run.looks for r in o.replicas):
        return None
    found = []
    waits_s: dict[int, float] = {}
    for look in run.looks:
        for i, replica in enumerate(look.replicas):
            left = sum(edge.unstarted[i] for edge in look.edges)
            if not replica.is_stopped or not left:
                waits_s.pop(i, None)
                continue
            since_s = waits_s.setdefault(i, look.now_s)
            if left > 1 and look.now_s - since_s > EVACUATED_S:
                found.append(f"{look.now_s:.1f} s: {left} still wait on r{i}")
    return found


def i11_exposure_is_capped(run: History) -> Found:
    """A returning replica gets no more than its cap, and is at full speed within 20 s."""
    if all(r.steering.cap_slots is None for look in run.looks for r in look.replicas):
        return None
    found = []
    since_s: dict[int, float] = {}
    for look in run.looks:
        for i, replica in enumerate(look.replicas):
            cap = replica.steering.cap_slots
            if cap is None or replica.steering.breaker != "RAMPING":
                since_s.pop(i, None)
                continue
            used = sum(edge.inflight[i] for edge in look.edges)
            if used > cap + len(look.edges):
                found.append(f"{look.now_s:.1f} s: r{i} has {used}, its cap is {cap:.0f}")
            start_s = since_s.setdefault(i, look.now_s)
            if look.now_s - start_s > FULL_SPEED_S and replica.is_healthy:
                found.append(f"{look.now_s:.1f} s: r{i} is healthy and still ramps")
                since_s[i] = look.now_s
    return found


def i12_crash_loops_are_backed_off(run: History) -> Found:
    """Each crash of a loop is counted, so that the next return comes later."""
    loops = [fault for fault in run.scenario.faults if fault.kind == "crash" and fault.repeat_s]
    last = run.looks[-1]
    if not loops or last.replicas[0].steering.ejections is None:
        return None
    found = []
    for fault in loops:
        index = run.scenario.replica_names().index(fault.replica)
        most = max(look.replicas[index].steering.ejections or 0 for look in run.looks)
        crashes = len(strikes_s(fault, run.end_s))
        if crashes > 2 and most < 2:
            found.append(f"{crashes} crashes of r{index} and its count is {most}")
    return found


def i13_refusals_say_when(run: History) -> Found:
    """Every refusal names a time to come back between 1 and 120 s."""
    low, high = RETRY_AFTER_S
    return [
        f"{refusal.at_s:.1f} s: {refusal.status} says {refusal.retry_after_s}"
        for refusal in run.refusals
        if refusal.retry_after_s is None or not low <= refusal.retry_after_s <= high
    ]


def i14_refusals_are_honest(run: History) -> Found:
    """Who comes back when told is let in four times of five, where there is room for all in time.

    Where more is asked for without end, nobody can promise that: see docs/decisions/0006.
    """
    came, taken = run.returns
    load = sum(plan.mean(0.0, run.end_s) for plan in run.plans)
    if came < RETURNS_MIN or load > 1.0:
        return None
    return [f"only {taken} of {came} that came back when told were let in"] * (taken < 0.8 * came)


def i15_deadlines_are_kept(run: History) -> Found:
    """Nobody is sent to an engine whose caller does not wait any more."""
    late = run.late_dispatches
    return [f"{late} dispatched after their deadline"] * (late > 0)


def i16_light_tenants_are_served(run: History) -> Found:
    """A tenant within its share is served as if the others were not there."""
    if len({source.tenant for source in run.scenario.sources}) < 2:
        return None
    if all(edge.tenants_queued is None for look in run.looks for edge in look.edges):
        return None
    fair = 1.0 / len(run.scenario.sources)
    goodput = measure(run).tenants
    return [
        f"tenant {source.tenant} gets {goodput[source.tenant]:.0%} of its {plan.highest:.0%}"
        for source, plan in zip(run.scenario.sources, run.plans, strict=True)
        if plan.highest <= fair and goodput[source.tenant] < 0.97
    ]


def i18_accounts_are_right(run: History) -> Found:
    """Each call has one end, and slots in use are attempts that live."""
    found = [f"{run.double_ends} calls ended twice"] * (run.double_ends > 0)
    for look in run.looks:
        for number, edge in enumerate(look.edges):
            if edge.inflight != edge.live:
                found.append(
                    f"{look.now_s:.1f} s: e{number} counts {edge.inflight}, has {edge.live}"
                )
    return found


def i19_the_control_plane_is_not_missed(run: History) -> Found:
    """While it is gone, requests fare as before (constant load)."""
    faults = [f for f in run.scenario.faults if f.kind == "controlplane_kill"]
    if not faults or len(run.scenario.faults) > 1 or any(p.changes_s[1:] for p in run.plans):
        return None
    fault = faults[0]
    until_s = min(run.end_s, fault.at_s + (fault.for_s or run.end_s))
    before = good_share(run, run.start_s, fault.at_s)
    during = good_share(run, fault.at_s, until_s)
    return [f"{before:.2f} served in time before, {during:.2f} during"] * (during < 0.95 * before)


def i20_edges_never_go_back(run: History) -> Found:
    """What an edge has applied only gets newer while it lives."""
    if not run.looks[0].edges:
        return None
    return [
        f"{new.now_s:.1f} s: e{i} went from {then.applied} to {now.applied}"
        for old, new in pairwise(run.looks)
        for i, (then, now) in enumerate(zip(old.edges, new.edges, strict=True))
        if then.is_up and now.is_up and (0, 0) != now.applied < then.applied
    ]


def i21_silence_ejects_nobody(run: History) -> Found:
    """Whatever agents say or don't, most requests are served in time."""
    kinds = {fault.kind for fault in run.scenario.faults}
    if not kinds or not all(kind.startswith("agent") for kind in kinds):
        return None
    served = good_share(run, run.start_s, run.end_s)
    return [f"only {served:.0%} were served in time"] * (served < SERVED_BLINDLY)


def i23_limits_come_to_rest(run: History) -> Found:
    """At constant load the limits stand still at last."""
    if len(run.disturbances_s) > 1 or run.end_s < 3 * CONVERGED_S:
        return None
    looks = [look for look in run.looks if look.now_s >= run.end_s - CONVERGED_S]
    found = []
    for i in range(len(run.capacities)):
        limits = [look.replicas[i].steering.limit_slots for look in looks]
        known = [limit for limit in limits if limit is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        variance = sum((limit - mean) ** 2 for limit in known) / len(known)
        if variance >= CONVERGED_VARIANCE:
            found.append(f"the limit of r{i} varies by {variance:.1f} around {mean:.0f}")
    return found


Check = Callable[[History], Found]
CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        i2_overload_ejects_nobody,
        i3_no_healthy_replica_starves,
        i5_credits_are_bounded,
        i5_engines_queue_little,
        i6_work_is_conserved,
        i8_attempts_are_few,
        i9_bursts_leave_nothing_behind,
        i10_the_dead_get_nothing,
        i10_the_waiting_are_evacuated,
        i11_exposure_is_capped,
        i12_crash_loops_are_backed_off,
        i13_refusals_say_when,
        i14_refusals_are_honest,
        i15_deadlines_are_kept,
        i16_light_tenants_are_served,
        i18_accounts_are_right,
        i19_the_control_plane_is_not_missed,
        i20_edges_never_go_back,
        i21_silence_ejects_nobody,
        i23_limits_come_to_rest,
    )
}


def check(run: History) -> dict[str, list[str]]:
    """What every check that applies found, by its name."""
    results = {name: look(run) for name, look in CHECKS.items()}
    return {name: found for name, found in results.items() if found is not None}


def _all_healthy(run: History, start_s: float, end_s: float) -> bool:
    return all(r.is_healthy for look in _between(run, start_s, end_s) for r in look.replicas)


def _between(run: History, start_s: float, end_s: float) -> Iterator[Observation]:
    return (look for look in run.looks if start_s <= look.now_s <= end_s)


def _taken_slots(spec: ReplicaSpec) -> float:
    """What it runs at once; one that refuses is kept a step below where it does."""
    most = math.inf if spec.queue_limit is None else REFUSING_RATIO * spec.queue_limit
    return min(spec.slots, most)


def _has_room(slots: float, running: int, waiting: int) -> bool:
    return waiting == 0 and slots - running >= FREE_SLOTS
