"""The journal over gRPC: what happened, and then what happens.

Rules: parts are bounded; a reader that is slow, or has seen less than is kept, is told how many it
missed; it ends with the leader, whose journal it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from trimtab.codec import encode
from trimtab.runtime import clock
from trimtab.v1 import admin_pb2
from trimtab.views import FleetEvent

PART_MAX = 256
PERIOD_S = 0.25


async def watch(
    seat: Seat, loop: ControlLoop, request: admin_pb2.WatchEventsRequest
) -> AsyncIterator[admin_pb2.WatchEventsResponse]:
    """What was asked for, part by part."""
    journal = loop.journal
    kept, _ = journal.after(0, request.about)
    oldest_ms = 1000 * clock.wall_s() - request.since_ms if request.since_ms else 0
    kept = [event for event in _of_kind(kept, request.what) if event.at_ms >= oldest_ms]
    seen = journal.newest
    for part in _parts(kept[-request.limit :], 0):
        yield part
    while request.follow and seat.loop is loop:
        await asyncio.sleep(PERIOD_S)
        news, lost = journal.after(seen, request.about)
        seen = journal.newest
        for part in _parts(_of_kind(news, request.what), lost):
            yield part


def _of_kind(events: list[FleetEvent], word: str) -> list[FleetEvent]:
    return [event for event in events if word.lower() in event.what.lower()]


def _parts(events: list[FleetEvent], lost: int) -> Iterator[admin_pb2.WatchEventsResponse]:
    for start in range(0, len(events), PART_MAX):
        part = [encode(event) for event in events[start : start + PART_MAX]]
        yield admin_pb2.WatchEventsResponse(events=part, lost=0 if start else lost)
