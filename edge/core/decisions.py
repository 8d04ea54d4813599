"""What this edge decided about each request, kept for whoever asks why.

Rules: one record for each request; of those that asked for a replica it is kept, found by the id
that its caller was given; bounded by number and by bytes; what was refused, failed or tried again
outlives what went well, because that is what people ask about. No prompt, answer, key or word of an
engine is in it. The path of a request only collects what exists anyway; what people read is made
when they ask. (Structs of msgspec are made in a third of a tuple's time.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import msgspec

from trimtab.model import Outcome, Urgency
from trimtab.policy.pick import Candidate
from trimtab.policy.queue import Forecast
from trimtab.trace import Trace

LATEST_MAX = 2_048
LATEST_BYTES = 4 * 1024 * 1024  # room for all of them up to 35 replicas
ODD_MAX = 512
ODD_BYTES = 1024 * 1024
ENTRY_BYTES = 256  # what a record takes beside its own bytes
FOREVER_S = 1e9  # JSON knows no infinity
UNEVENTFUL = frozenset({"ok", "client_error", "client_disconnect"})


class Attempt(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One try on one replica, and between which replicas the choice was."""

    replica: str
    picked_s: float
    ended_s: float
    outcome: Outcome
    fault: str
    status: int
    among: Sequence[Candidate]
    at_home: bool | None = None
    continued_at_tokens: int | None = None
    """How much of the answer its caller had; None for an attempt at the whole."""
    tokens: int = 0
    """Of the answer, as far as it came."""
    prompt_tokens: int = 0
    """Of the prompt, where the engine has said so."""
    cached_tokens: int = 0
    """Of these, found in the engine's cache."""
    reasoning_tokens: int = 0
    """Of the answer, those that were thought, where the engine has said so."""
    is_hedge: bool = False
    """Beside another one that was late."""


class Ending(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What the caller was told; status 0 when nothing was."""

    outcome: str
    status: int = 0
    code: str = ""
    retry_after_s: float | None = None
    reason: str = ""
    """Why it was shed, if it was."""


class Notes(msgspec.Struct, array_like=True):
    """What is noted while a request is on its way."""

    forecast: Forecast | None = None
    attempts: list[Attempt] = []
    not_continued: str = ""
    """Why a stream that was cut ended there."""
    outside: bool = False
    """Whether the external fallback was asked."""

    @property
    def answered(self) -> bool:
        """Whether the caller got all of an answer."""
        return bool(self.attempts) and self.attempts[-1].outcome is Outcome.OK


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One request, from its arrival to its end."""

    request_id: str
    pool: str
    tenant: str
    urgency: Urgency
    came_ms: int
    since_s: float
    notes: Notes
    first_byte_s: float | None
    ended_s: float
    ending: Ending
    caller_id: str = ""
    """What the caller calls it."""
    path: str = ""
    stream: bool = False
    prompt_tokens: int = 0
    """An estimate by its length."""
    own_s: float = 0.0
    """What it neither waited nor was with a replica."""
    retries: int = 0
    """How often its caller had tried before, by his own word."""
    is_pass: bool = False
    """Whether it is a pass over its prompt, which makes no token."""
    model: str = ""
    """What it asked for: the name of a pool, an alias or an adapter that there is."""
    trace_id: str = ""
    """Of W3C trace context, 32 hex digits, if its caller traces."""
    client: str = ""
    """The address that it came from, where operators want to know."""
    trace: Trace | None = None
    """Where it stood in its trace, if it was in one."""

    @property
    def odd(self) -> bool:
        """Whether it was refused, failed or tried again."""
        uneventful = self.ending.outcome in UNEVENTFUL and len(self.notes.attempts) <= 1
        return not uneventful or self.notes.outside


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


class _Ring:
    """The newest records; what is beyond its bounds falls out, the oldest first."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.records: OrderedDict[str, bytes] = OrderedDict()
        self.size_bytes = 0
        self._most = most
        self._most_bytes = most_bytes

    def put(self, request_id: str, record: bytes) -> list[tuple[str, bytes]]:
        """Take one in; what fell out."""
        self.records[request_id] = record
        self.size_bytes += len(record) + ENTRY_BYTES
        fallen = []
        while len(self.records) > self._most or self.size_bytes > self._most_bytes:
            oldest = self.records.popitem(last=False)
            self.size_bytes -= len(oldest[1]) + ENTRY_BYTES
            fallen.append(oldest)
        return fallen


class Decisions:
    """The latest records, and older ones of requests that did not just go well.

    They are kept as bytes: as objects each is twenty places in memory, which by the time it falls
    out are in no cache of the processor's, and whoever asks for memory next waits for them.
    """

    def __init__(self) -> None:
        self._latest = _Ring(LATEST_MAX, LATEST_BYTES)
        self._odd = _Ring(ODD_MAX, ODD_BYTES)
        self._are_odd: set[str] = set()
        """Of the latest, by their ids."""

    def add(self, record: Record) -> None:
        """A request has ended."""
        if record.odd:
            self._are_odd.add(record.request_id)
        for request_id, old in self._latest.put(record.request_id, _ENCODER.encode(record)):
            if request_id in self._are_odd:
                self._are_odd.remove(request_id)
                self._odd.put(request_id, old)

    def get(self, request_id: str) -> Record | None:
        """The record of this request, if it is still kept."""
        kept = self._latest.records.get(request_id) or self._odd.records.get(request_id)
        return _DECODER.decode(kept) if kept else None

    def called(self, caller_id: str) -> Record | None:
        """The newest of those that their caller called so."""
        if not caller_id:
            return None
        return next((one for one in self._saying(caller_id) if one.caller_id == caller_id), None)

    def newest(self, limit: int, outcome: str = "") -> list[Record]:
        """The newest first, at most `limit`; those that ended so, if an outcome is given."""
        found = self._saying(outcome)
        return list(islice((r for r in found if outcome in {"", r.ending.outcome}), limit))

    def _saying(self, word: str) -> Iterator[Record]:
        """The newest first, less those that do not have this word in any field."""
        kept = chain(reversed(self._latest.records.values()), reversed(self._odd.records.values()))
        said = word.encode(errors="replace")
        return (_DECODER.decode(record) for record in kept if said in record)


def view(record: Record) -> dict[str, object]:
    """A record as people read it; times count from the request's arrival."""
    forecast, attempts, ending = record.notes.forecast, record.notes.attempts, record.ending
    served_s = sum(attempt.ended_s - attempt.picked_s for attempt in attempts)
    lasted_s = record.ended_s - record.since_s
    return {
        "request_id": record.request_id,
        "caller_id": record.caller_id,
        "pool": record.pool,
        "tenant": record.tenant,
        "urgency": record.urgency.name.lower(),
        "path": record.path,
        "stream": record.stream,
        "prompt_tokens": record.prompt_tokens,
        "came_ms": record.came_ms,
        "predicted_wait_ms": forecast and _ms(forecast.wait_s),
        "wait_budget_ms": forecast and _ms(forecast.budget_s),
        "waited_ms": _ms(lasted_s - served_s),
        "attempts": [_attempt(attempt, record.since_s) for attempt in attempts],
        "not_continued": record.notes.not_continued,
        "outside": record.notes.outside,
        "first_byte_ms": _since(record.first_byte_s, record.since_s),
        "ended_ms": _ms(lasted_s),
        "outcome": ending.outcome,
        "status": ending.status,
        "code": ending.code,
        "retry_after_ms": _since(ending.retry_after_s, 0.0),
    }


def _attempt(attempt: Attempt, since_s: float) -> dict[str, object]:
    return {
        "replica": attempt.replica,
        "picked_ms": _ms(attempt.picked_s - since_s),
        "ended_ms": _ms(attempt.ended_s - since_s),
        "outcome": attempt.outcome.name.lower(),
        "fault": attempt.fault,
        "status": attempt.status,
        "at_home": attempt.at_home,
        "continued_at_tokens": attempt.continued_at_tokens,
        "tokens": attempt.tokens,
        "among": [_candidate(candidate) for candidate in attempt.among],
    }


def _candidate(candidate: Candidate) -> dict[str, object]:
    return {
        "replica": candidate.replica,
        "inflight": candidate.inflight,
        "slots": candidate.slots,
        "waiting": candidate.waiting,
        "penalty_slots": round(candidate.penalty_slots, 2),
        "score": round(candidate.score, 3),
    }


def _since(moment_s: float | None, since_s: float) -> int | None:
    return None if moment_s is None else _ms(moment_s - since_s)


def _ms(seconds: float) -> int:
    return int(1000 * min(seconds, FOREVER_S))
