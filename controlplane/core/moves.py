"""How replicas moved in and out of use since this leader began, for metrics and alerts.

Rules: a fall is a replica that edges may no more use although its own agent says that its engine
works and no operator took it out. One soon after another's in the same pool is ping-pong: the load
that one was spared threw the next one over.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from controlplane.core.replica import Replica
from trimtab.model import Intent, Route, Serving
from trimtab.policy.breaker import Breaker, Hold

SOON_S = 60.0
LATELY_S = 600.0
FALLS_MAX = 1_000


class Move(NamedTuple):
    """From one state of the breaker to another, as metrics name them."""

    pool: str
    before: str
    after: str
    cause: str


class _Fall(NamedTuple):
    at_s: float
    pool: str
    replica: str


class Moves:
    """Of all replicas."""

    def __init__(self) -> None:
        self.of: dict[str, Counter[Move]] = {}
        """How often each replica made which."""
        self._falls: deque[_Fall] = deque(maxlen=FALLS_MAX)

    def moved(self, replica: Replica, before: Breaker, after: Breaker) -> None:
        """Its breaker did."""
        pool = replica.route.pool if replica.route else ""
        cause = after.cause.name.lower() if after.cause else ""
        move = Move(pool, before.state.name.lower(), after.state.name.lower(), cause)
        self.of.setdefault(replica.name, Counter())[move] += 1

    def reviewed(self, replica: Replica, old: Route | None, now_s: float) -> None:
        """What edges may do with it was decided anew."""
        new = replica.route
        if old is None or new is None or old.serving is not Serving.OPEN:
            return
        wanted = replica.wish.intent in {Intent.ACTIVE, Intent.UNSPECIFIED}
        meant = replica.hold is Hold.OPEN or not wanted
        if new.serving is not Serving.OPEN and replica.health is Serving.OPEN and not meant:
            self._falls.append(_Fall(now_s, old.pool, replica.name))

    def ping_pong(self, pool: str, now_s: float) -> int:
        """How often in LATELY_S one of the pool fell within SOON_S after another one."""
        falls = [one for one in self._falls if one.pool == pool and now_s - one.at_s <= LATELY_S]
        return sum(
            any(e.replica != one.replica and one.at_s - e.at_s <= SOON_S for e in falls[:place])
            for place, one in enumerate(falls)
        )

    def forget(self, replica: str) -> None:
        """There is no such replica any more."""
        self.of.pop(replica, None)
