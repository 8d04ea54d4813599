"""What an edge remembers of one tenant, or of one replica, for whoever explains it.

Rules: counts and ids, of requests that ended within LATELY_S, as far as their records are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from edge.core.decisions import LATEST_MAX, Attempt, Record
from trimtab.policy.queue import Queue
from trimtab.views import ReplicaAtEdge, TenantAtEdge, TenantInPool

LATELY_S = 300.0
NOBODY_OPEN = "no_replica_available"


def lately(newest_first: Iterable[Record], now_s: float) -> list[Record]:
    """Those that ended within LATELY_S, the newest first."""
    return list(takewhile(lambda record: now_s - record.ended_s <= LATELY_S, newest_first))


def tenant(
    name: str, records: Sequence[Record], queues: Iterable[tuple[str, Queue]], now_s: float
) -> TenantAtEdge:
    """How it is served here; `records` of all tenants."""
    theirs: dict[str, list[Record]] = {}
    for record in records:
        if record.tenant == name:
            theirs.setdefault(record.pool, []).append(record)
    pools = []
    for pool, queue in queues:
        tickets = [
            t for _, who, line in queue.lines() if who == name for t in line.tickets.values()
        ]
        ended = theirs.pop(pool, [])
        if tickets or ended:
            oldest_s = min((ticket.since_s for ticket in tickets), default=now_s)
            waits = (len(tickets), _ms(now_s - oldest_s), len(queue))
            pools.append(_in_pool(pool, waits, ended))
    pools += [_in_pool(pool, (0, 0, 0), ended) for pool, ended in theirs.items()]
    return TenantAtEdge(tuple(pools), _span_ms(records, now_s))


def replica(name: str, records: Sequence[Record], now_s: float) -> ReplicaAtEdge:
    """Why it was picked, or was not, where it could have been."""
    picked = elsewhere = roomless = busier = 0
    for attempt in (attempt for record in records for attempt in record.notes.attempts):
        mine = next((c for c in attempt.among if c.replica == name), None)
        if mine is None:
            continue
        if attempt.replica == name:
            picked += 1
        elif not mine.has_room:
            roomless += 1
        elif attempt.at_home and mine.score < _score(attempt):
            elsewhere += 1
        else:
            busier += 1
    return ReplicaAtEdge(picked, elsewhere, roomless, busier, _span_ms(records, now_s))


def _score(attempt: Attempt) -> float:
    return next((c.score for c in attempt.among if c.replica == attempt.replica), 0.0)


def _in_pool(pool: str, waits: tuple[int, int, int], ended: Sequence[Record]) -> TenantInPool:
    outcomes = [record.ending.outcome for record in ended]
    refused = [record for record in ended if record.ending.outcome == "shed"]
    met = [record.notes.forecast for record in refused if record.notes.forecast]
    worst = max(met, key=lambda forecast: forecast.wait_s, default=None)
    counted = {"ok": 0, "shed": 0, "client_error": 0, "client_disconnect": 0}
    counted |= {outcome: outcomes.count(outcome) for outcome in counted}
    odd = (r.request_id for r in ended if r.ending.outcome not in {"ok", "client_disconnect"})
    return TenantInPool(
        pool,
        *waits,
        requests=len(ended),
        answered=counted["ok"] + counted["client_error"],
        refused=counted["shed"],
        failed=len(ended) - sum(counted.values()),
        left=counted["client_disconnect"],
        predicted_wait_ms=_ms(worst.wait_s) if worst else 0,
        wait_budget_ms=_ms(worst.budget_s) if worst else 0,
        nobody_open=sum(record.ending.code == NOBODY_OPEN for record in refused),
        latest_odd=next(odd, ""),
    )


def _span_ms(records: Sequence[Record], now_s: float) -> int:
    """All of LATELY_S, unless what is kept began after that."""
    full = len(records) >= LATEST_MAX
    return _ms(now_s - records[-1].ended_s if full else LATELY_S)


def _ms(seconds: float) -> int:
    return int(1000 * min(max(seconds, 0.0), 1e9))
