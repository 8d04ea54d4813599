"""What was not taken from peers: every refusal is counted, and few are worth a line in the log.

Rules: a kind is a label of a metric, so there are few and none comes from outside; the log has one
line a peer and kind in AGAIN_S, with how many there were since the last one; peers beyond
PEERS_LIMIT in that time share one line, so that no number of names makes us hold or write more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

AGAIN_S = 60.0
PEERS_LIMIT = 1_024
OTHERS = "others"


class Kind(StrEnum):
    """What was wrong."""

    MESSAGE = "message"  # a number or a field that no peer should send
    SIZE = "size"  # larger than any honest message of its kind
    ORDER = "order"  # before the hello, a second hello, a seq that was there already
    NAME = "name"  # no usable name, or one that another living peer has
    CLAIM = "claim"  # speaks for what belongs to another node
    FACTS = "facts"  # an engine that cannot be as it is told
    SAMPLE = "sample"  # of an engine that nobody told us of
    NONCE = "nonce"  # an ack of what was not sent
    FLOOD = "flood"  # more messages a second than any honest peer sends
    FULL = "full"  # more peers, replicas or streams than we hold
    SILENT = "silent"  # says no hello, reads nothing or acks nothing


@dataclass(slots=True)
class _Told:
    at_s: float
    since: int = 0  # refusals after that line


class Refusals:
    """Counts them, and says which to log."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._told: dict[tuple[str, Kind], _Told] = {}

    def take(self, peer: str, kind: Kind, now_s: float) -> int:
        """One more; how many a line in the log stands for now, 0 if there is to be none."""
        self.counts[kind] += 1
        told = self._told.get((peer, kind)) or self._room(peer, kind, now_s)
        told.since += 1
        if now_s < told.at_s:
            return 0
        count, told.since, told.at_s = told.since, 0, now_s + AGAIN_S
        return count

    def _room(self, peer: str, kind: Kind, now_s: float) -> _Told:
        if len(self._told) >= PEERS_LIMIT:
            self._told = {who: told for who, told in self._told.items() if now_s < told.at_s}
        who = (peer if len(self._told) < PEERS_LIMIT else OTHERS, kind)
        return self._told.setdefault(who, _Told(now_s))
