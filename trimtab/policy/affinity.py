"""Which replica a conversation comes back to, so that its prompt is still in the prefix cache.

A key stands for what requests have in common, a session or a prompt's beginning: a hash, never
the text. Each key has an order of the replicas, the first of them its home: rendezvous hashing,
weighted by capacity. So every edge finds the same home without a word and without memory, and a
replica that comes or goes moves no more than its own share of the keys.

Rules: affinity breaks ties and costs less than it saves. A home is taken only if it has room, at
most BOUND of its share of all load, and a backlog that exceeds the shortest by no more than WORTH
of the prefill that a cached prompt may save; else the next in the key's order that fits, else the
least loaded: one key's flood spreads. What is not open and healthy is no home, at once and until
AWAY_S after: what conversations have built up elsewhere by then is worth more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from trimtab.policy.pick import TIE_RATIO, Candidate
from trimtab.policy.work import PREFILL_WORK

BOUND = 1.25  # of the mean load (Mirrokni 2018: consistent hashing with bounded loads)
WORTH = 1.5
SAVED_MAX_TOKENS = 16_384  # nobody knows what is cached: half a second of prefill may be at stake
AWAY_S = 60.0
KEY_BYTES = 8


def key(*parts: bytes) -> bytes:
    """The key of what these parts name together."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8))  # so that no two lists of parts are the same bytes
        digest.update(part)
    return digest.digest()


def order(of: bytes, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that may be home to the key, the first one first."""
    homes = [c for c in candidates if c.is_settled and c.weight > 0.0]
    return sorted(homes, key=lambda c: _distance(of, c.replica) / c.weight)


def gain_slots(prompt_tokens: int, answer_tokens: float) -> float:
    """How many requests' worth of load a cached prompt makes up for.

    A request in flight is its answer's worth of work, so replicas' speed cancels out.
    """
    saved = PREFILL_WORK * min(prompt_tokens, SAVED_MAX_TOKENS)
    return WORTH * saved / max(1.0, answer_tokens)


def take(
    homes: Sequence[Candidate], candidates: Sequence[Candidate], gain: float
) -> Candidate | None:
    """The first home that costs less than it saves; None when the least loaded is to be picked."""
    best = min((c.score for c in candidates if c.has_room), default=math.inf)
    load = 1.0 + sum(c.load for c in candidates)
    slots = max(1, sum(c.slots for c in candidates))
    for home in homes:
        bound = math.ceil(BOUND * load * home.slots / slots)
        cheap = home.score <= best + TIE_RATIO + gain / max(1, home.slots)
        if home.has_room and cheap and home.load + 1.0 <= bound:
            return home
    return None


def _distance(of: bytes, replica: str) -> float:
    """Exponentially distributed: the least of several, each over its weight, is a fair draw."""
    digest = hashlib.blake2b(replica.encode(), digest_size=8, key=of).digest()
    # 52 bits and a half: never 0 nor 1
    return -math.log(((int.from_bytes(digest) >> 12) + 0.5) / 2.0**52)
