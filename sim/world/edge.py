"""One edge process: the very routing table, dispatch and policy, without sockets.

Rules: this file stands for edge/{feed,admission,course,attempt}.py and does what they do, in their
order. Whoever changes those, changes this. Every answer is a stream.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from edge.core import problems
from edge.core.dispatch import Dispatch, Placement, with_tried
from edge.core.table import RoutingTable
from sim.world.controlplane import POOL, ControlPlane, EdgePeer
from sim.world.loop import Loop
from sim.world.network import Network, Stream
from sim.world.replica import Attempt, Replica
from sim.world.requests import Call, Reply
from sim.world.seen import EdgeSeen
from sim.world.trace import Trace
from trimtab.model import Ack, Credits, EdgeHello, EdgeReport, EdgeUpdate, Outcome, Serving
from trimtab.policy.autonomy import Mode, Silence
from trimtab.policy.classify import Failure, Fault, classify
from trimtab.policy.dice import Dice
from trimtab.policy.hedge import Hedging
from trimtab.policy.queue import Ticket
from trimtab.policy.retry import History, Move, next_move
from trimtab.runtime.backoff import Backoff

PUMP_PERIOD_S = 0.25
REPORT_PERIOD_S = 0.5
REPORT_GAP_S = 0.1
CONNECT_S = 1.0  # until a connection into a partition is given up
LOST = Failure(Fault.LOST)
SILENT = Failure(Fault.SILENT)


class NoAnswer:
    """What a caller gets from an edge that is not there."""

    status = 0
    retry_after_s: float | None = None
    retry: bool | None = None


class Ride:
    """One call on its way through this edge: it waits, or it has an attempt."""

    __slots__ = (
        *("attempt", "beside", "call", "counted", "history", "placement", "started", "ticket"),
    )

    def __init__(self, call: Call, ticket: Ticket) -> None:
        self.call = call
        self.ticket = ticket
        self.history = History()
        self.attempt: Attempt | None = None
        self.placement: Placement | None = None
        self.beside: tuple[Attempt, Placement] | None = None  # a hedge; none of both has begun
        self.counted = 0  # tokens told to dispatch
        self.started = False

    def on(self, replica: str) -> Attempt | None:
        """Its attempt there."""
        hedge = self.beside[0] if self.beside else None
        return hedge if hedge and hedge.replica == replica else self.attempt


class Edge:
    """See the rules at the top of this file."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        network: Network,
        replicas: Mapping[str, Replica],
        dice: Dice,
        trace: Trace,
    ) -> None:
        self.name = name
        self.hedges = False
        self.pump_period_s, self.period_s = PUMP_PERIOD_S, REPORT_PERIOD_S
        self._loop = loop
        self._network = network
        self._replicas = replicas
        self._dice = dice
        self._trace = trace
        self._life = 0
        self.is_up = False
        self.late_dispatches = 0
        self._boot()

    # Life

    def start(self, controlplane: ControlPlane) -> None:
        """Begin to serve, knowing nothing."""
        self._life += 1
        self.is_up = True
        self._boot(controlplane)
        self._connect(self._life)
        self._report_at_s = self._loop.now_s + self.period_s * self._dice.random()
        self._loop.at(self._report_at_s, self._report, self._life)
        self._loop.after(self.pump_period_s * self._dice.random(), self._pump_again, self._life)

    def stop(self) -> None:
        """The process is gone; its callers' connections are cut."""
        self.is_up = False
        self._life += 1
        if self._stream is not None:
            self._stream.end()
        running = [ride for rides in self._running.values() for ride in rides.values()]
        for ride in dict.fromkeys([*self._waiting.values(), *running]):
            self._settle(ride, Outcome.CLIENT)
            if ride.attempt is not None:
                self._replicas[ride.attempt.replica].abort(ride.attempt)
            if ride.started:
                self._break(ride)
            else:
                self._refuse(ride, NoAnswer())
        self._boot()

    def _boot(self, controlplane: ControlPlane | None = None) -> None:
        self._controlplane = controlplane
        self.table = RoutingTable()
        self.dispatch = Dispatch(self.table, self._dice)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Ride] = {}
        self._finished: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._running: defaultdict[str, dict[str, Ride]] = defaultdict(dict)
        self._stream: Stream | None = None
        self._peer: EdgePeer | None = None
        self._backoff = Backoff(self._dice)
        self._silence = Silence()
        self._hedging = Hedging() if self.hedges else None
        self._seq = 0
        self._report_at_s = self._reported_s = float("-inf")

    # Callers

    def submit(self, call: Call) -> None:
        """Take a call in, or refuse it."""
        prompt_tokens = call.job.prompt_tokens
        ticket = Ticket(
            number=next(self._numbers),
            since_s=self._loop.now_s,
            patience_s=call.patience_s,
            work=self.dispatch.work(POOL, prompt_tokens, None),
            prompt_tokens=prompt_tokens,
            tenant=call.job.tenant,
            urgency=call.job.urgency,
        )
        ride = Ride(call, ticket)
        call.cancel = lambda: self._leave(ride)
        if not self.is_up:
            self._refuse(ride, NoAnswer())
        elif not self.table.ready:
            self._refuse(ride, problems.not_ready())
        else:
            self._acquire(ride, again=False)

    def takes(self, replica: str) -> bool:
        """Whether a request may go to the replica now, were there room."""
        credit = self.table.credits.get(replica)
        routes = self.table.routes(POOL)
        is_open = any(r.replica == replica and r.serving is Serving.OPEN for r in routes)
        if not is_open or credit is None or credit.slots < 1:
            return False
        return not self.dispatch.replica(replica).suspicion.active(self._loop.now_s)

    def seen(self, replicas: Sequence[Replica]) -> EdgeSeen:
        """This edge as the checks see it."""
        states = [self.dispatch.replica(replica.name) for replica in replicas]
        running = [self._running.get(replica.name, {}) for replica in replicas]
        credits = [self.table.credits.get(replica.name) for replica in replicas]  # noqa: A001
        return EdgeSeen(
            is_up=self.is_up,
            applied=(self.table.term, self.table.version),
            queued=len(self._waiting),
            inflight=tuple(state.inflight for state in states),
            live=tuple(len(rides) for rides in running),
            unstarted=tuple(
                sum(not ride.started for ride in rides.values()) if replica.is_stopped else 0
                for replica, rides in zip(replicas, running, strict=True)
            ),
            leases=tuple(credit.slots if credit else 0 for credit in credits),
            tenants_queued=self._tenants_queued(),
        )

    def _tenants_queued(self) -> Mapping[str, int]:
        queued: Counter[str] = Counter()
        for _, tenant, line in self.dispatch.pool(POOL).queue.lines():
            queued[tenant] += len(line.tickets)
        return queued

    # As edge/admission.py

    def _acquire(self, ride: Ride, *, again: bool) -> None:
        now_s, ticket = self._loop.now_s, ride.ticket
        if not again and (placement := self.dispatch.admit(POOL, ticket, now_s)):
            self._place(placement, ride)
            return
        if not self.dispatch.has_open(POOL):
            self._refuse(ride, problems.no_replica(POOL, len(self.table.routes(POOL))))
            return
        if again:
            self.dispatch.requeue(POOL, ticket)
        elif refusal := self.dispatch.offer(POOL, ticket, now_s):
            self._refuse(ride, problems.overloaded(refusal))
            return
        self._waiting[ticket.number] = ride
        self._pump()
        if ticket.number in self._waiting:
            at_s = max(now_s, self.dispatch.gives_up_s(POOL, ticket))
            self._loop.at(at_s, self._expire, ride, self._life)
            if len(self._waiting) == 1:
                self._report_soon()

    def _pump(self) -> None:
        now_s = self._loop.now_s
        for placement in self.dispatch.place(now_s):
            self._place(placement, self._waiting.pop(placement.ticket.number))

    def _place(self, placement: Placement, ride: Ride) -> None:
        ride.placement, ride.counted = placement, 0
        self._send(ride, placement.route.replica)

    def _expire(self, ride: Ride, life: int) -> None:
        if life != self._life or ride.ticket.number not in self._waiting:
            return
        now_s = self._loop.now_s
        if now_s < self.dispatch.gives_up_s(POOL, ride.ticket):
            return  # it was placed and came back; another timer runs
        del self._waiting[ride.ticket.number]
        refusal = self.dispatch.expire(POOL, ride.ticket, now_s)
        if self.dispatch.has_open(POOL):
            self._refuse(ride, problems.overloaded(refusal))
        else:
            self._refuse(ride, problems.no_replica(POOL, len(self.table.routes(POOL))))

    def _release(
        self, attempt: Attempt, outcome: Outcome, tokens: int, *, refused: bool = False
    ) -> Ride:
        ride = self._running[attempt.replica].pop(attempt.name)
        ride.attempt = None
        self._finished[POOL, attempt.replica] += tokens - ride.counted
        if ride.placement is not None:
            now_s = self._loop.now_s
            self.dispatch.finish(ride.placement, outcome, now_s, tokens, refused=refused)
        self._pump()
        return ride

    def _pump_again(self, life: int) -> None:
        if life == self._life:
            self._enter(self._silence.passed(self.pump_period_s))
            self._count_tokens()
            if self._waiting:
                self._pump()
            self._loop.after(self.pump_period_s, self._pump_again, life)

    def _count_tokens(self) -> None:
        tokens, self._finished = self._finished, defaultdict(int)
        asked_s: dict[str, float] = {}
        for replica, rides in self._running.items():
            if rides:
                generated = self._replicas[replica].engine.generated
                tokens[POOL, replica] += _new_tokens(rides, generated)
                attempts = (ride.on(replica) for ride in rides.values())
                silent_s = [a.posted_s for a in attempts if a and a.began_s is None]
                asked_s |= {replica: min(silent_s)} if silent_s else {}
        self.dispatch.streamed(tokens, self.pump_period_s, self._loop.now_s)
        self.dispatch.wait(asked_s)

    # As edge/course.py and edge/attempt.py

    def _send(self, ride: Ride, replica: str) -> None:
        now_s = self._loop.now_s
        attempt = ride.attempt = Attempt(ride.call.job, replica, self, now_s)
        self._running[replica][attempt.name] = ride
        self._trace.decide(now_s, self.name, ride.call.job.number, replica)
        self.late_dispatches += now_s > ride.call.since_s + ride.call.patience_s
        self._replicas[replica].post(attempt)
        idle_s = self.table.policy.idle_timeout_ms / 1000
        self._loop.after(idle_s, self._guard, attempt)
        if self._hedging is not None:
            if not ride.history.attempts:
                self._hedging.deposit()
            delay_s = self._hedging.delay_s(ride.ticket.prompt_tokens)
            if delay_s is not None:
                self._loop.after(delay_s, self._hedge, ride, attempt)

    # As edge/hedging.py

    def _hedge(self, ride: Ride, attempt: Attempt) -> None:
        hedging, now_s = self._hedging, self._loop.now_s
        if attempt.over or ride.started or hedging is None or hedging.tokens < 1.0:
            return
        placement = self.dispatch.beside(ride.placement, now_s) if ride.placement else None
        if placement is not None:
            hedging.withdraw()
            hedge = Attempt(ride.call.job, placement.route.replica, self, now_s)
            ride.beside = (hedge, placement)
            self._running[hedge.replica][hedge.name] = ride
            self._trace.decide(now_s, "hedge", ride.call.job.number, hedge.replica)
            self._replicas[hedge.replica].post(hedge)
            self._loop.after(self.table.policy.idle_timeout_ms / 1000, self._guard, hedge)

    def _first(self, ride: Ride, attempt: Attempt) -> None:
        """Of the attempts at a ride, this one is it from now on."""
        was, placement = ride.attempt, ride.placement
        if ride.beside is not None and ride.beside[0] is attempt and was and placement:
            (ride.attempt, ride.placement), ride.beside = ride.beside, (was, placement)

    def _settle(self, ride: Ride, outcome: Outcome) -> None:
        """The other attempt at it is over."""
        if ride.beside is not None:
            other, placement = ride.beside
            ride.beside = None
            self._observe(other)
            if not other.over:
                self._replicas[other.replica].abort(other)
            del self._running[other.replica][other.name]
            self.dispatch.finish(placement, outcome, self._loop.now_s)
            self._pump()

    def _observe(self, attempt: Attempt) -> None:
        if self._hedging is not None:
            took_s = self._loop.now_s - attempt.posted_s
            self._hedging.observe(attempt.replica, attempt.job.prompt_tokens, took_s)

    # As edge/course.py and edge/attempt.py

    def began(self, attempt: Attempt) -> None:
        """The first data event arrived."""
        ride = self._running[attempt.replica][attempt.name]
        ride.started = True
        self._first(ride, attempt)
        self._settle(ride, Outcome.CLIENT)
        self._observe(attempt)
        if ride.placement is not None:
            self.dispatch.began(ride.placement, self._loop.now_s)
        ride.call.caller.began(ride.call)

    def ended(self, attempt: Attempt) -> None:
        """The answer is whole."""
        call = self._release(attempt, Outcome.OK, attempt.job.output_tokens).call
        call.live = False
        call.caller.ended(call)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """The attempt failed so."""
        ride = self._running[attempt.replica][attempt.name]
        if ride.beside is not None:
            other = ride.beside[0] if attempt is ride.attempt else ride.attempt
            if other is not None:
                self._first(ride, other)
            self._settle(ride, classify(failure))
            return
        refused = failure.fault is Fault.REFUSED
        tokens = self._running[attempt.replica][attempt.name].counted
        ride = self._release(attempt, classify(failure), tokens, refused=refused)
        attempts = ride.history.attempts + 1
        if ride.started:
            self._break(ride)
            return
        budget, now_s = self.dispatch.pool(POOL).budget, self._loop.now_s
        if next_move(ride.history, failure, attempt.replica, budget, now_s) is Move.GIVE_UP:
            self._refuse(ride, problems.attempt_failed(failure, attempts, started=False))
            return
        ride.ticket = with_tried(ride.ticket, ride.history.tried)
        self._acquire(ride, again=True)

    def _guard(self, attempt: Attempt) -> None:
        """Nothing may be silent for the idle time."""
        if attempt.over:
            return
        idle_s = self.table.policy.idle_timeout_ms / 1000
        due_s = self._replicas[attempt.replica].last_token_s(attempt) + idle_s
        if due_s > self._loop.now_s:
            self._loop.at(due_s, self._guard, attempt)
        else:
            self._interrupt(attempt, SILENT)

    def _interrupt(self, attempt: Attempt, failure: Failure) -> None:
        if not attempt.over:
            self._replicas[attempt.replica].abort(attempt)
            self.failed(attempt, failure)

    def _leave(self, ride: Ride) -> None:
        """The caller is gone."""
        self._settle(ride, Outcome.CLIENT)
        if self._waiting.pop(ride.ticket.number, None) is not None:
            self.dispatch.withdraw(POOL, ride.ticket.number)
        elif ride.attempt is not None:
            self._replicas[ride.attempt.replica].abort(ride.attempt)
            self._release(ride.attempt, Outcome.CLIENT, ride.counted)

    def _refuse(self, ride: Ride, reply: Reply) -> None:
        call = ride.call
        call.live = False
        self._trace.decide(self._loop.now_s, "refuse", call.job.number, self.name)
        call.caller.refused(call, reply)

    def _break(self, ride: Ride) -> None:
        ride.call.live = False
        ride.call.caller.broke(ride.call)

    # As edge/feed.py

    def _connect(self, life: int) -> None:
        controlplane = self._controlplane
        if life != self._life or controlplane is None:
            return
        if self._network.is_cut(self.name, controlplane.name):
            self._loop.after(CONNECT_S + self._backoff.next_s(), self._connect, life)
            return
        if not controlplane.is_up:
            self._loop.after(self._backoff.next_s(), self._connect, life)
            return
        stream = Stream(self._network, self.name, controlplane.name)
        peer = controlplane.open_edge(stream, self._receive)
        stream.on_end = (lambda: self._lost(life), lambda: controlplane.edge_gone(peer))
        self._stream, self._peer = stream, peer
        hello = EdgeHello(edge=self.name, term=self.table.term, version=self.table.version)
        stream.up(controlplane.edge_said, peer, hello)

    def _lost(self, life: int) -> None:
        if life == self._life:
            self._stream = self._peer = None
            self._loop.after(self._backoff.next_s(), self._connect, life)

    def _enter(self, mode: Mode) -> None:
        if mode is not self.dispatch.mode:
            self.dispatch.enter(mode)
            self._trace.note(self._loop.now_s, f"{self.name} {mode.name}")

    def _receive(self, update: EdgeUpdate) -> None:
        self._backoff.reset()
        error = self._apply(update)
        if not error:
            self._enter(self._silence.heard())
        if self._stream is not None and self._peer is not None and self._controlplane is not None:
            ack = Ack(update.nonce, error)
            self._stream.up(self._controlplane.edge_said, self._peer, ack)

    def _apply(self, update: EdgeUpdate) -> str:
        refusal = self.table.apply(update)
        if not refusal:
            self.dispatch.resize()
            if isinstance(update.body, Credits):
                self.dispatch.hear(self._loop.now_s)
            for route in self.table.snapshot.routes:
                if route.serving is Serving.LOST:
                    for ride in self._running[route.replica].values():
                        self._loop.after(0.0, self._interrupt, ride.on(route.replica), LOST)
            self._pump()
        return refusal

    def _report_soon(self) -> None:
        at_s = max(self._loop.now_s, self._reported_s + REPORT_GAP_S)
        if at_s < self._report_at_s:
            self._report_at_s = at_s
            self._loop.at(at_s, self._report, self._life)

    def _report(self, life: int) -> None:
        now_s = self._loop.now_s
        if life != self._life or now_s < self._report_at_s:
            return
        if self._stream is not None and self._peer is not None and self._controlplane is not None:
            self._seq += 1
            uses, pools = self.dispatch.report_replicas(now_s), self.dispatch.report_pools(now_s)
            report = EdgeReport(self._seq, uses, pools)
            self._stream.up(self._controlplane.edge_said, self._peer, report)
        self._reported_s, self._report_at_s = now_s, now_s + self.period_s
        self._loop.at(self._report_at_s, self._report, life)


def _new_tokens(rides: Mapping[str, Ride], generated: Callable[[str], int]) -> int:
    """How many tokens came since the last count; a dead engine has none of them any more."""
    total = 0
    for name, ride in rides.items():
        new = generated(name) - ride.counted
        if new > 0:
            ride.counted += new
            total += new
    return total
