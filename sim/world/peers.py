"""What others do with the same engines and clients: the rules of well-known gateways.

Rules: each is modelled by its code or documents as a user would configure it, no better and no
worse; all stream, and none retries once a token reached the caller. Sources: LiteLLM 1.106
(router.py, router_utils/cooldown_handlers.py), Envoy's outlier detection, least request and panic
threshold documents.

shuffle          any engine by chance; no retry, no timeout
bounded          shuffle over engines that refuse above a queue limit; one retry at once, elsewhere
litellm          simple-shuffle over those not cooling; 20 retries without a pause; cooldown 5 s
                 after one 429, or when over half of 5 or more outcomes of a worker's minute failed;
                 fails at once when all cool; 60 s to the first token, neither retried nor counted
litellm-counted  the same, where the 60 s are retried and counted, as with timeouts before headers
envoy            least request of two by chance; 5 errors in a row eject for 30 s x n, at most one
                 host of few; one retry elsewhere, a fifth of what is active; panic under half
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sim.world.loop import Loop
from sim.world.replica import Attempt, Replica
from sim.world.requests import Call, Gateway
from sim.world.trace import Trace
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.dice import Dice

BOUNDED_QUEUE_RATIO = 1.53  # 196 for 128 slots: what the operators of the modelled fleet set
LITELLM_WORKERS = 4
COOLDOWN_S = 5.0
COOLDOWN_LAG_S = 1.0  # until other workers see it
LITELLM_RETRIES = 20
TTFT_TIMEOUT_S = 60.0
MINUTE_S = 60.0
MINUTE_OUTCOMES = 5
MINUTE_FAILURES = 0.5
ENVOY_CONSECUTIVE = 5
ENVOY_EJECTION_S, ENVOY_EJECTION_MAX_S = 30.0, 300.0
ENVOY_SWEEP_S = 10.0
ENVOY_EJECTED_RATIO = 0.1
ENVOY_PANIC_RATIO = 0.5
ENVOY_REQUESTS_MAX = 2048  # 1024 active and 1024 pending, by default
ENVOY_RETRY_RATIO, ENVOY_RETRY_MIN = 0.2, 3


@dataclass(frozen=True, slots=True)
class Error:
    """An error status as a peer sends it: without advice on when to come back."""

    status: int
    retry_after_s: float | None = None
    retry: bool | None = None


class Trip:
    """One call on its way through a peer."""

    __slots__ = ("attempt", "call", "retries", "started", "tried")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.attempt: Attempt | None = None
        self.retries = 0
        self.started = False
        self.tried: set[str] = set()


class Peer:
    """What peers have in common: send, relay, give up. This class itself is `shuffle`."""

    retries = 0

    def __init__(
        self, name: str, loop: Loop, replicas: Mapping[str, Replica], dice: Dice, trace: Trace
    ) -> None:
        self.name = name
        self._loop = loop
        self._replicas = replicas
        self._dice = dice
        self._trace = trace
        self._trips: dict[str, Trip] = {}  # by attempt

    def submit(self, call: Call) -> None:
        """Take a call."""
        trip = Trip(call)
        call.cancel = lambda: self._leave(trip)
        self._send(trip)

    def takes(self, replica: str) -> bool:
        """Whether a request may go to the replica now."""
        return replica in self._eligible()

    def began(self, attempt: Attempt) -> None:
        """The first token came."""
        trip = self._trips[attempt.name]
        trip.started = True
        trip.call.caller.began(trip.call)

    def ended(self, attempt: Attempt) -> None:
        """The answer is whole."""
        trip = self._trips.pop(attempt.name)
        self._succeeded(attempt.replica)
        trip.call.live = False
        trip.call.caller.ended(trip.call)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """The attempt failed so."""
        trip = self._trips.pop(attempt.name)
        trip.attempt = None
        self._failed(attempt.replica, failure)
        if trip.started:
            trip.call.live = False
            trip.call.caller.broke(trip.call)
        elif trip.retries < self.retries and self._may_retry(failure):
            trip.retries += 1
            self._send(trip)
        else:
            self._refuse(trip, failure.status or 500)

    # What differs

    def _eligible(self) -> Sequence[str]:
        return list(self._replicas)

    def _pick(self, trip: Trip, eligible: Sequence[str]) -> str:
        return eligible[int(self._dice.random() * len(eligible))]

    def _sent(self, attempt: Attempt) -> None:
        """An attempt set out."""

    def _succeeded(self, replica: str) -> None:
        """An attempt on the replica went well."""

    def _failed(self, replica: str, failure: Failure) -> None:
        """An attempt on the replica failed so."""

    def _may_retry(self, failure: Failure) -> bool:
        return failure.status == 0 or failure.status >= 500

    # Inside

    def _send(self, trip: Trip) -> None:
        eligible = self._eligible()
        if not eligible:
            self._refuse(trip, 429)
            return
        replica = self._pick(trip, eligible)
        trip.tried.add(replica)
        now_s, job = self._loop.now_s, trip.call.job
        attempt = trip.attempt = Attempt(job, replica, self, now_s)
        self._trips[attempt.name] = trip
        self._trace.decide(now_s, self.name, job.number, replica)
        self._replicas[replica].post(attempt)
        self._sent(attempt)

    def _refuse(self, trip: Trip, status: int) -> None:
        trip.call.live = False
        trip.call.caller.refused(trip.call, Error(status))

    def _leave(self, trip: Trip) -> None:
        if trip.attempt is not None:
            del self._trips[trip.attempt.name]
            self._replicas[trip.attempt.replica].abort(trip.attempt)


class Bounded(Peer):
    """One retry, at another engine."""

    retries = 1

    def _pick(self, trip: Trip, eligible: Sequence[str]) -> str:
        fresh = [name for name in eligible if name not in trip.tried] or eligible
        return super()._pick(trip, fresh)


@dataclass(slots=True)
class Minute:
    """A worker's outcomes of one engine."""

    since_s: float = 0.0
    failures: int = 0
    outcomes: int = 0

    def add(self, failed: bool, now_s: float) -> None:
        """Count one; a minute begins with its first."""
        if not self.outcomes or now_s - self.since_s >= MINUTE_S:
            self.since_s, self.failures, self.outcomes = now_s, 0, 0
        self.failures += failed
        self.outcomes += 1


class LiteLlm(Peer):
    """One worker of LiteLLM's proxy."""

    retries = LITELLM_RETRIES
    counts_timeouts = False

    def __init__(
        self, name: str, loop: Loop, replicas: Mapping[str, Replica], dice: Dice, trace: Trace
    ) -> None:
        super().__init__(name, loop, replicas, dice, trace)
        self.workers: list[LiteLlm] = [self]
        self._minutes = {replica: Minute() for replica in replicas}
        self._cooling: dict[str, tuple[float, float]] = {}  # seen from, until

    def _eligible(self) -> Sequence[str]:
        now_s = self._loop.now_s
        never = (0.0, 0.0)
        return [
            name
            for name in self._replicas
            if not (span := self._cooling.get(name, never))[0] <= now_s < span[1]
        ]

    def _sent(self, attempt: Attempt) -> None:
        self._loop.after(TTFT_TIMEOUT_S, self._late, attempt)

    def _late(self, attempt: Attempt) -> None:
        if attempt.over or attempt.began_s is not None:
            return
        self._replicas[attempt.replica].abort(attempt)
        if self.counts_timeouts:
            self.failed(attempt, Failure(Fault.STATUS, 408))
        else:  # it surfaces as APIConnectionError, which is neither counted nor retried
            self._refuse(self._trips.pop(attempt.name), 500)

    def _may_retry(self, failure: Failure) -> bool:
        return failure.status in {0, 408, 409, 429} or failure.status >= 500

    def _succeeded(self, replica: str) -> None:
        self._minutes[replica].add(failed=False, now_s=self._loop.now_s)

    def _failed(self, replica: str, failure: Failure) -> None:
        now_s, minute = self._loop.now_s, self._minutes[replica]
        minute.add(failed=True, now_s=now_s)
        often = minute.failures > MINUTE_FAILURES * minute.outcomes
        if failure.status == 429 or (often and minute.outcomes >= MINUTE_OUTCOMES):
            for worker in self.workers:  # also while it cools: what was in flight prolongs it
                lag_s = 0.0 if worker is self else COOLDOWN_LAG_S * self._dice.random()
                worker.cool(replica, now_s + lag_s, now_s + COOLDOWN_S)

    def cool(self, replica: str, from_s: float, until_s: float) -> None:
        """Avoid an engine; one that cools already goes on without a gap."""
        seen_from_s, seen_until_s = self._cooling.get(replica, (from_s, until_s))
        is_cooling = seen_until_s >= from_s
        self._cooling[replica] = (seen_from_s if is_cooling else from_s, until_s)


class LiteLlmCounted(LiteLlm):
    """As it was briefed to us: a late first token is a failure like others."""

    counts_timeouts = True


@dataclass(slots=True)
class Host:
    """What Envoy remembers of one engine."""

    active: int = 0
    errors_in_a_row: int = 0
    ejections: int = 0
    ejected_until_s: float | None = None


class Envoy(Peer):
    """One Envoy with outlier detection as documented, and its defaults."""

    retries = 1

    def __init__(
        self, name: str, loop: Loop, replicas: Mapping[str, Replica], dice: Dice, trace: Trace
    ) -> None:
        super().__init__(name, loop, replicas, dice, trace)
        self._hosts = {replica: Host() for replica in replicas}
        loop.after(ENVOY_SWEEP_S, self._sweep)

    def submit(self, call: Call) -> None:
        if sum(host.active for host in self._hosts.values()) >= ENVOY_REQUESTS_MAX:
            call.live = False
            call.caller.refused(call, Error(503))
        else:
            super().submit(call)

    def _eligible(self) -> Sequence[str]:
        well = [name for name, host in self._hosts.items() if host.ejected_until_s is None]
        return list(self._hosts) if len(well) < ENVOY_PANIC_RATIO * len(self._hosts) else well

    def _pick(self, trip: Trip, eligible: Sequence[str]) -> str:
        fresh = [name for name in eligible if name not in trip.tried] or eligible
        one, other = super()._pick(trip, fresh), super()._pick(trip, fresh)
        return one if self._hosts[one].active <= self._hosts[other].active else other

    def _sent(self, attempt: Attempt) -> None:
        self._hosts[attempt.replica].active += 1

    def _succeeded(self, replica: str) -> None:
        host = self._hosts[replica]
        host.active -= 1
        host.errors_in_a_row = 0

    def _failed(self, replica: str, failure: Failure) -> None:
        host = self._hosts[replica]
        host.active -= 1
        if failure.status == 0 or failure.status >= 500:
            host.errors_in_a_row += 1
        if host.errors_in_a_row >= ENVOY_CONSECUTIVE and host.ejected_until_s is None:
            self._eject(host)

    def _eject(self, host: Host) -> None:
        out = sum(other.ejected_until_s is not None for other in self._hosts.values())
        if out and out >= ENVOY_EJECTED_RATIO * len(self._hosts):
            return
        host.ejections += 1
        host.errors_in_a_row = 0
        length_s = min(ENVOY_EJECTION_MAX_S, ENVOY_EJECTION_S * host.ejections)
        host.ejected_until_s = self._loop.now_s + length_s

    def _may_retry(self, failure: Failure) -> bool:
        active = sum(host.active for host in self._hosts.values())
        allowed = max(ENVOY_RETRY_MIN, ENVOY_RETRY_RATIO * active)
        retrying = sum(trip.retries > 0 for trip in self._trips.values())
        return super()._may_retry(failure) and retrying < allowed

    def _leave(self, trip: Trip) -> None:
        if trip.attempt is not None:
            self._hosts[trip.attempt.replica].active -= 1
        super()._leave(trip)

    def _sweep(self) -> None:
        now_s = self._loop.now_s
        for host in self._hosts.values():
            if host.ejected_until_s is not None and now_s >= host.ejected_until_s:
                host.ejected_until_s = None
            elif host.ejected_until_s is None and not host.errors_in_a_row:
                host.ejections = max(0, host.ejections - 1)
        self._loop.after(ENVOY_SWEEP_S, self._sweep)


KINDS: dict[str, type[Peer]] = {
    "litellm": LiteLlm,
    "litellm-counted": LiteLlmCounted,
    "envoy": Envoy,
    "shuffle": Peer,
    "bounded": Bounded,
}


def build(
    kind: str, loop: Loop, replicas: Mapping[str, Replica], dice: Dice, trace: Trace
) -> list[Gateway]:
    """The processes of a peer in front of the engines."""
    maker = KINDS[kind]
    if kind == "bounded":
        for replica in replicas.values():
            if replica.spec.max_num_queued_reqs is None:
                replica.limit_queue(round(BOUNDED_QUEUE_RATIO * replica.spec.max_num_seqs))
    count = LITELLM_WORKERS if issubclass(maker, LiteLlm) else 1
    peers = [maker(f"{kind}-{n}", loop, replicas, dice, trace) for n in range(count)]
    workers = [peer for peer in peers if isinstance(peer, LiteLlm)]
    for worker in workers:
        worker.workers = workers
    return list(peers)
