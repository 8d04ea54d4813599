"""The record of a request that asked for no replica: refused before, or answered by the edge.

Rule: only what the edge itself knows is in it; a path that is not served is not repeated.
"""

from __future__ import annotations

from edge.core.decisions import Ending, Notes, Record
from edge.core.headers import Journey
from trimtab.model import Urgency


def record(journey: Journey, ending: Ending, ended_s: float, wall_s: float) -> Record:
    """What there is to say of any."""
    return Record(
        request_id=journey.request_id,
        pool="",
        tenant=journey.tenant,
        urgency=Urgency.UNSPECIFIED,
        came_ms=int(1000 * (wall_s - ended_s + journey.came_s)),
        since_s=journey.came_s,
        notes=Notes(),
        first_byte_s=None,
        ended_s=ended_s,
        ending=ending,
        caller_id=journey.caller_id,
        path=journey.path,
        trace_id=journey.trace_id,
        client=journey.client,
        trace=journey.trace,
    )


def ending(status: int, code: str) -> Ending:
    """How an answer with this status ended; 0: nobody was there any more."""
    if not status:
        return Ending("client_disconnect")
    if status < 400:
        return Ending("ok", status)
    kind = "client_error" if status < 500 else "shed" if status == 503 else "internal_error"
    return Ending(kind, status, code)
