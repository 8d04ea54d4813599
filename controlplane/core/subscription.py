"""One edge's stream: what it was sent, what it acked, what it gets next.

Rules: of each kind (routing, credits) at most one update is un-acked; after the ack the newest
state goes out, never a backlog. Routing starts with a full snapshot, then deltas against the last
one acked; a nack means a full snapshot next, after a wait that doubles. No ack for ACK_LIMIT_S:
the edge is stuck, drop the stream. Nonces count up within the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from controlplane.core.bounds import clip
from trimtab.model import Ack, Credits, Delta, EdgeUpdate, Snapshot
from trimtab.policy.delta import diff

ACK_LIMIT_S = 10.0
NACK_WAIT_FIRST_S = 0.25
NACK_WAIT_CAP_S = 30.0  # an edge that refuses everything is not flooded, and heals soon enough
KNOWN_LIMIT = 8  # edges that ack late are some states behind


@dataclass(slots=True)
class _Lane:
    """The one outstanding update of a kind."""

    nonce: int = 0  # 0: none is outstanding
    version: int = 0
    sent_at_s: float = 0.0
    nacks: int = 0
    not_before_s: float = 0.0

    def free(self, now_s: float) -> bool:
        """Whether the next one may go."""
        return not self.nonce and now_s >= self.not_before_s

    def settle(self, error: str, now_s: float) -> None:
        """The outstanding one was acked or nacked."""
        self.nonce = 0
        self.nacks = self.nacks + 1 if error else 0
        wait_s = min(NACK_WAIT_CAP_S, NACK_WAIT_FIRST_S * 2.0 ** min(self.nacks - 1, 30))
        self.not_before_s = now_s + wait_s if error else 0.0


class Differences:
    """Differences between snapshots, worked out once for all edges that are told the same one."""

    def __init__(self) -> None:
        self._new: Snapshot | None = None
        self._known: list[tuple[Snapshot, Delta | None]] = []

    def find(self, old: Snapshot, new: Snapshot, base_version: int) -> Delta | None:
        """See policy/delta; equal snapshots are found by being the same one."""
        if new is not self._new:
            self._new, self._known = new, []
        for before, delta in self._known:
            if before is old:
                return delta and replace(delta, base_version=base_version)
        delta = diff(old, new, base_version)
        self._known = [*self._known[1 - KNOWN_LIMIT :], (old, delta)]
        return delta


class Subscription:
    """The down side of one edge's stream."""

    def __init__(self, differences: Differences | None = None) -> None:
        self._differences = differences or Differences()
        self.acked_version = 0
        self.sent_version = 0
        self.last_error = ""
        self._nonce = 0
        self._routing = _Lane()
        self._credits = _Lane()
        self._sent: Snapshot | None = None  # outstanding, or acked when none is
        self._acked: Snapshot | None = None
        self._acked_routing_version = 0
        self._credits_sent: Credits | None = None

    def next(
        self,
        term: int,
        next_version: Callable[[], int],
        routing: Snapshot,
        credit: Credits | None,
        now_s: float,
    ) -> list[EdgeUpdate]:
        """What to send now; identity tells whether state is new, so keep passing the same one."""
        updates: list[EdgeUpdate] = []
        if self._routing.free(now_s) and routing is not self._acked:
            body = self._body(routing)
            if body is not None:
                self._sent = routing
                updates.append(self._update(self._routing, term, next_version(), body, now_s))
        if credit is not None and credit is not self._credits_sent and self._credits.free(now_s):
            self._credits_sent = credit
            updates.append(self._update(self._credits, term, next_version(), credit, now_s))
        return updates

    def ack(self, ack: Ack, now_s: float) -> bool:
        """The edge's verdict; False, and nothing is done, if it is on what is not outstanding."""
        lane = {self._routing.nonce: self._routing, self._credits.nonce: self._credits}.get(
            ack.nonce
        )
        if lane is None or not ack.nonce:
            return False
        lane.settle(ack.error, now_s)
        if ack.error:
            self.last_error = clip(ack.error)
        else:
            self.acked_version = max(self.acked_version, lane.version)
        if lane is self._routing:
            self._acked = None if ack.error else self._sent
            self._acked_routing_version = lane.version
        elif ack.error:
            self._credits_sent = None
        return True

    def stuck(self, now_s: float) -> bool:
        """Whether an update has waited too long for its ack."""
        lanes = (self._routing, self._credits)
        return any(lane.nonce and now_s - lane.sent_at_s >= ACK_LIMIT_S for lane in lanes)

    def lag_s(self, now_s: float) -> float:
        """Age of the oldest update that waits for its ack; 0 if none does."""
        sent = (lane.sent_at_s for lane in (self._routing, self._credits) if lane.nonce)
        return now_s - min(sent, default=now_s)

    def _body(self, routing: Snapshot) -> Snapshot | Delta | None:
        """Full, difference, or nothing when the new state equals the old."""
        if self._acked is None:
            return routing
        delta = self._differences.find(self._acked, routing, self._acked_routing_version)
        if delta is None:
            self._acked = routing
        return delta

    def _update(
        self, lane: _Lane, term: int, version: int, body: Snapshot | Delta | Credits, now_s: float
    ) -> EdgeUpdate:
        self._nonce += 1
        lane.nonce, lane.version, lane.sent_at_s = self._nonce, version, now_s
        self.sent_version = version
        return EdgeUpdate(term, version, self._nonce, body)
