"""The fleet as this one edge believes it to be: what it was told, what it may do, what it sees.

Rules: nothing here asks anybody; routes, breakers and reasons are the control plane's last word,
room is what this edge may use of a replica, traffic is its own and no other edge's.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edge.core.dispatch import Dispatch, PoolState, ReplicaState
from edge.core.table import RoutingTable
from trimtab import history, status
from trimtab.model import Credit, EngineState, Route, Serving
from trimtab.policy.autonomy import Mode
from trimtab.verdict import Level, Verdict, judge
from trimtab.views import (
    Concern,
    EdgeView,
    Explanation,
    Finding,
    Fleet,
    PoolView,
    ReplicaView,
)

WINDOW = 60  # moments: a minute
_NOBODY = Credit("", 0)


@dataclass(frozen=True, slots=True)
class Self:
    """What an edge knows of itself."""

    name: str
    version: str
    listen_url: str
    silent_s: float
    """Since the control plane was heard."""
    draining: bool = False


class Belief:
    """Reads one edge's accounts; `take` once a second keeps the last minute and the timeline."""

    def __init__(self, table: RoutingTable, dispatch: Dispatch, at_s: float) -> None:
        self._table = table
        self._dispatch = dispatch
        self.history = history.History(at_s)
        self._totals = Counter[tuple[str, str]]()
        self._minute: deque[Counter[tuple[str, str]]] = deque(maxlen=WINDOW)

    def take(self, now_s: float, at_s: float) -> list[history.Finished]:
        """Note this moment; the cells of the timeline that are finished by it."""
        totals, routes = self._counted(), self._table.snapshot.routes
        new = totals - self._totals if self._totals or self._minute else Counter()
        self._totals = totals
        self._minute.append(new)
        replicas = {r.replica: self._moment(r, new["started", r.replica], now_s) for r in routes}
        pools = {
            name: history.Pool(new["asked", name], new["shed", name], len(state.queue))
            for name, state in self._pools().items()
        }
        return self.history.add(at_s, replicas, pools)

    def fleet(self, about: Self, now_s: float) -> Fleet:
        """As the control plane would show it, if it were this edge."""
        table, lately = self._table, sum(self._minute, Counter[tuple[str, str]]())
        replicas = tuple(self._replica(route, lately, now_s) for route in table.snapshot.routes)
        pools = tuple(
            self._pool(pool, state, replicas, lately) for pool, state in self._pools().items()
        )
        inflight, queued = self._dispatch.totals()
        asked = sum(pool.requests_1m for pool in pools)
        shed = sum(pool.shed_1m for pool in pools)
        own = EdgeView(
            about.name,
            listen_url=about.listen_url,
            acked_version=table.version,
            sent_version=table.version,
            inflight=inflight,
            queued=queued,
            requests_1m=asked,
            shed_1m=shed,
        )
        return Fleet(
            leader="the control plane",
            term=table.term,
            version=table.version,
            controlplane_version=about.version,
            replicas=replicas,
            edges=(own,),
            pools=pools,
        )

    def avoided(self, now_s: float) -> frozenset[str]:
        """Replicas that this edge looks away from for a moment."""
        routes = self._table.snapshot.routes
        return frozenset(r.replica for r in routes if self._doubts(r, now_s))

    def judge(self, fleet: Fleet, about: Self, now_s: float) -> Verdict:
        """Whether this edge serves well, as far as it knows."""
        if not self._table.ready:
            return Verdict(Level.DOWN, "this edge was told no routing yet: it serves nobody", ())
        found = judge(fleet)
        problems = [*found.problems]
        problems += [
            f"replica {name}: this edge looks elsewhere for a moment, its requests failed there"
            for name in sorted(self.avoided(now_s))
        ]
        if self._dispatch.mode is not Mode.NORMAL:
            how = "holds what it was given" if self._dispatch.mode is Mode.HOLD else "goes on alone"
            text = f"the control plane is silent for {about.silent_s:.0f} s: this edge {how}"
            problems.insert(0, text)
        if about.draining:
            problems.insert(0, "this edge drains: it takes no new requests")
        level = Level.DEGRADED if problems and found.level is Level.OK else found.level
        return replace(found, level=level, problems=tuple(problems))

    def tenants(self, running: Iterable[tuple[str, str]], now_s: float) -> list[status.Tenant]:
        """Who waits and runs here; `running` are pool and tenant of each attempt."""
        inflight = Counter(running)
        queued, oldest_s = Counter[tuple[str, str]](), dict[tuple[str, str], float]()
        for pool, state in self._dispatch.pools().items():
            for _, tenant, line in state.queue.lines():
                who = (pool, tenant)
                queued[who] += len(line.tickets)
                ages_s = [now_s - ticket.since_s for ticket in line.tickets.values()]
                oldest_s[who] = max(oldest_s.get(who, 0.0), *ages_s, 0.0)
        return [
            status.Tenant(
                tenant=who[1],
                pool=who[0],
                queued=queued[who],
                oldest_wait_s=round(oldest_s.get(who, 0.0), 1),
                inflight=inflight[who],
            )
            for who in sorted(inflight.keys() | queued.keys())
        ]

    def explain(self, name: str, now_s: float) -> Explanation:
        """Why this edge sends a replica what it sends; KeyError when it knows none of this name."""
        route = next((r for r in self._table.snapshot.routes if r.replica == name), None)
        if route is None:
            raise KeyError(name)
        state, credit = self._dispatch.replica(name), self._credit(route)
        findings = sorted(self._looks(route, credit, state, now_s), key=lambda one: one.concern)
        worst = findings[0]
        blocked = worst.concern is Concern.BLOCKS
        does = "sends it no new requests" if blocked else "sends it requests"
        but = "" if worst.concern is Concern.FINE else f": {worst.text}"
        started = sum(moment["started", name] for moment in self._minute)
        return Explanation(
            replica=name,
            headline=f"this edge {does}{but}",
            in_rotation=not blocked,
            traffic=f"{started} attempts of this edge in the last minute, {state.inflight} now",
            findings=tuple(findings),
            effect=f"as told by the control plane, term {self._table.term}, "
            f"version {self._table.version}; it knows why: ctl explain replica {name}",
        )

    # Inside

    def _looks(
        self, route: Route, credit: Credit, state: ReplicaState, now_s: float
    ) -> Iterable[Finding]:
        told = route.serving.name.lower() + (f": {route.reason}" if route.reason else "")
        is_open = route.serving is Serving.OPEN
        yield Finding(Concern.FINE if is_open else Concern.BLOCKS, "told", told)
        doubts = self._doubts(route, now_s)
        left_s = state.suspicion.until_s - now_s
        text = f"its requests failed there; {left_s:.1f} s more" if doubts else "none"
        yield Finding(Concern.BLOCKS if doubts else Concern.FINE, "doubt", text)
        room = state.room(credit.slots, now_s)
        text = f"{state.inflight} of {room} slots in use; all edges have {credit.limit_slots}"
        full = is_open and state.inflight >= room
        yield Finding(Concern.LIMITS if full else Concern.FINE, "room", text)
        mode = self._dispatch.mode
        alone = Concern.FINE if mode is Mode.NORMAL else Concern.LIMITS
        yield Finding(alone, "rule", f"{mode.name.lower()}: who says how much room there is")

    def _counted(self) -> Counter[tuple[str, str]]:
        found = Counter[tuple[str, str]]()
        for route in self._table.snapshot.routes:
            found["started", route.replica] = self._dispatch.replica(route.replica).started
        for name, state in self._dispatch.pools().items():
            found["asked", name] = state.told_requests + state.requests
            found["shed", name] = state.told_shed + state.shed
        return found

    def _pools(self) -> dict[str, PoolState]:
        return {pool.name: self._dispatch.pool(pool.name) for pool in self._table.snapshot.pools}

    def _moment(self, route: Route, started: int, now_s: float) -> history.Replica:
        state, credit = self._dispatch.replica(route.replica), self._credit(route)
        is_open = route.serving is Serving.OPEN
        return history.Replica(
            pool=route.pool,
            started=started,
            inflight=state.inflight,
            limit=state.room(credit.slots, now_s) if is_open else 0,
            waiting=credit.waiting or 0,
            use=status.code(status.use(route, avoided=self._doubts(route, now_s))),
        )

    def _replica(self, route: Route, lately: Counter[tuple[str, str]], now_s: float) -> ReplicaView:
        state, credit = self._dispatch.replica(route.replica), self._credit(route)
        routes = self._table.routes(route.pool)
        of_pool = sum(lately["started", other.replica] for other in routes)
        return ReplicaView(
            route=route,
            state=EngineState.UNSPECIFIED,
            limit_slots=state.room(credit.slots, now_s) if route.serving is Serving.OPEN else 0,
            full_slots=credit.limit_slots,
            weight=credit.weight,
            inflight=state.inflight,
            running=credit.running,
            waiting=credit.waiting,
            share_ratio=lately["started", route.replica] / of_pool if of_pool else None,
            report_age_ms=credit.report_age_ms,
        )

    def _pool(
        self,
        name: str,
        state: PoolState,
        replicas: Iterable[ReplicaView],
        lately: Counter[tuple[str, str]],
    ) -> PoolView:
        mine = [replica for replica in replicas if replica.route.pool == name]
        slots = sum(replica.limit_slots for replica in mine)
        return PoolView(
            pool=name,
            replicas=len(mine),
            open=sum(replica.route.serving is Serving.OPEN for replica in mine),
            open_slots=slots,
            healthy_slots=slots,
            inflight=sum(replica.inflight for replica in mine),
            queued=len(state.queue),
            shed_1m=lately["shed", name],
            requests_1m=lately["asked", name],
        )

    def _credit(self, route: Route) -> Credit:
        return self._table.credits.get(route.replica, _NOBODY)

    def _doubts(self, route: Route, now_s: float) -> bool:
        return self._dispatch.replica(route.replica).suspicion.active(now_s)
