"""What an attempt's end says about the replica.

Rules (the taxonomy on which the breaker and the retry rule both stand):
overload is not failure; only evidence of no useful work is HARD; what may be this edge's own path
is PATH; what the caller did is CLIENT. Facts about vLLM (0.32): a 503 is its queue limit speaking,
`finish_reason: "abort"`, an empty stream, and "after shutdown" are an engine that takes requests
and does none, and a 500 that names EngineCore is an engine that died.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from trimtab.model import Outcome

DEAD_ENGINE_HINTS = ("EngineCore encountered an issue", "EngineDeadError", "after shutdown")


class Fault(Enum):
    """How an attempt went wrong, as the edge saw it."""

    STATUS = auto()  # an answer with an error status, or an error event in a stream
    EMPTY = auto()  # a stream that ended well and said nothing
    ABORTED = auto()  # the engine aborted the request by itself
    CUT = auto()  # the connection ended before the answer did
    REFUSED = auto()  # nothing listens
    UNREACHABLE = auto()  # connecting timed out or failed otherwise
    STALE = auto()  # a kept-alive connection was closed before a byte of the answer
    SILENT = auto()  # nothing came for the idle time
    LOST = auto()  # the control plane says that the replica does no useful work
    MALFORMED = auto()  # what came is no HTTP or no stream of events
    CLIENT_GONE = auto()  # the caller left
    OUTRUN = auto()  # another attempt at the same request was faster
    LATE = auto()  # its time was up: no answer would have helped its caller any more


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt. `status` and `message` are the engine's, when it said something."""

    fault: Fault
    status: int = 0
    message: str = ""


_OUTCOMES = {
    Fault.EMPTY: Outcome.HARD,
    Fault.ABORTED: Outcome.HARD,
    Fault.CUT: Outcome.SOFT,
    Fault.REFUSED: Outcome.HARD,
    Fault.UNREACHABLE: Outcome.PATH,
    Fault.STALE: Outcome.UNKNOWN,
    Fault.SILENT: Outcome.UNKNOWN,
    Fault.LOST: Outcome.HARD,
    Fault.MALFORMED: Outcome.SOFT,
    Fault.CLIENT_GONE: Outcome.CLIENT,
    Fault.LATE: Outcome.CLIENT,
    Fault.OUTRUN: Outcome.CLIENT,
}


def classify(failure: Failure | None) -> Outcome:
    """The class of an attempt that failed so, or of one that did not fail."""
    if failure is None:
        return Outcome.OK
    if failure.fault is Fault.STATUS:
        return _status(failure.status, failure.message)
    return _OUTCOMES[failure.fault]


def _status(status: int, message: str) -> Outcome:
    if status in {429, 503}:
        return Outcome.OVERLOAD
    if status in {401, 403}:
        return Outcome.SOFT  # the key it refused is the fleet's, not the caller's
    if status < 500:
        return Outcome.CLIENT
    dead = any(hint in message for hint in DEAD_ENGINE_HINTS)
    return Outcome.HARD if dead else Outcome.SOFT
