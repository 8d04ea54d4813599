"""A line in the log for each failed attempt, and never a flood of them.

Rules: at most LINES_PER_S of each outcome, so that a storm of refusals can't hide a dead engine;
the next line that passes says how many were left out; an engine's words stay out of the log.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from edge.core.decisions import Attempt
from trimtab.model import Outcome

LINES_PER_S = 5
log = logging.getLogger("edge.failures")


@dataclass(slots=True)
class _Second:
    """What was logged of one outcome in the current second."""

    ends_s: float = float("-inf")
    lines: int = 0
    left_out: int = 0


class Failures:
    """Where failed attempts are told."""

    def __init__(self) -> None:
        self._seconds = {outcome: _Second() for outcome in Outcome}

    def tell(self, request_id: str, attempt: Attempt) -> None:
        """An attempt failed, and its caller is not the cause."""
        second = self._seconds[attempt.outcome]
        if attempt.ended_s >= second.ends_s:
            second.ends_s, second.lines = attempt.ended_s + 1.0, 0
        if second.lines >= LINES_PER_S:
            second.left_out += 1
            return
        fields = {
            "request_id": request_id,
            "replica": attempt.replica,
            "outcome": attempt.outcome.name.lower(),
            "fault": attempt.fault,
            "status": attempt.status,
            "after_ms": int(1000 * (attempt.ended_s - attempt.picked_s)),
            "left_out": second.left_out,
        }
        second.lines += 1
        second.left_out = 0
        # to be full is no fault: see policy/classify
        level = logging.INFO if attempt.outcome is Outcome.OVERLOAD else logging.WARNING
        log.log(level, "attempt failed", extra={"fields": fields})
