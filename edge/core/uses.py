"""What an edge tells: who waits and who was served, bounded, and nothing told twice.

Rules: at most USES_LIMIT entries and AGES_LIMIT ages a pool; the tenants with the most news come
first, and charges that found no place stay for the next report.
"""

from __future__ import annotations

from itertools import islice

from trimtab.model import EdgeReport, ReplicaUse, SteadyUse, TenantUse, Urgency
from trimtab.policy.progress import HANG_SUSPECT_S
from trimtab.policy.queue import Line, Queue

USES_LIMIT = 64
AGES_LIMIT = 64


def tenants(queue: Queue, now_s: float) -> tuple[TenantUse, ...]:
    """What is told of one pool; takes the charges told out of the queue."""
    lines = {(urgency, tenant): line for urgency, tenant, line in queue.lines()}
    known = {*lines, *queue.charges}
    most = sorted(known, key=lambda who: _news(lines.get(who), queue.charges.get(who, 0.0)))
    told = most[-USES_LIMIT:]
    ages = AGES_LIMIT // max(1, sum(who in lines for who in told))
    return tuple(_use(who, lines.get(who), queue, ages, now_s) for who in reversed(told))


def folded(report: EdgeReport) -> EdgeReport:
    """The same, with the replicas on which attempts only go on as columns."""
    steady = [use for use in report.replicas if _is_steady(use)]
    return EdgeReport(
        report.seq,
        tuple(use for use in report.replicas if not _is_steady(use)),
        report.pools,
        SteadyUse(
            tuple(use.replica for use in steady),
            tuple(use.inflight for use in steady),
            tuple(use.tokens for use in steady),
        ),
    )


def unanswered_ms(since_s: float | None, served_s: float, now_s: float) -> int:
    """For how long attempts have got nothing of a replica; a wait that may be a prefill is none."""
    silent_s = 0.0 if since_s is None else now_s - max(since_s, served_s)
    return round(1000 * silent_s) if silent_s >= HANG_SUSPECT_S else 0


def _is_steady(use: ReplicaUse) -> bool:
    return use == ReplicaUse(use.replica, use.inflight, tokens=use.tokens)


def _news(line: Line | None, charged_work: float) -> tuple[float, float]:
    return line.work if line else 0.0, abs(charged_work)


def _use(
    who: tuple[Urgency, str], line: Line | None, queue: Queue, ages: int, now_s: float
) -> TenantUse:
    waiting = line.tickets.values() if line else ()
    return TenantUse(
        tenant=who[1],
        urgency=who[0],
        queued=len(waiting),
        queued_work=max(0.0, line.work) if line else 0.0,
        ages_ms=tuple(
            max(0, round(1000 * (now_s - ticket.since_s))) for ticket in islice(waiting, ages)
        ),
        charged_work=queue.charges.pop(who, 0.0),
    )
