"""What this edge remembers of arrivals, as the answer to the question "arrivals": a block a time.

Rules: a block of a few thousand at once, so that telling them holds nobody up; times go out by the
clock on the wall, since that is what edges share.
"""

from __future__ import annotations

import msgspec

from edge.core.arrivals import Arrivals
from trimtab.runtime import clock
from trimtab.v1.whatif_pb2 import ArrivalBlock


class Ask(msgspec.Struct, frozen=True):
    """What the argument says (proto/trimtab/v1/question.proto)."""

    pool: str
    since_ms: int
    block: int = 0


def arrivals(kept: Arrivals, argument: str) -> bytes:
    """One block of them; ValueError when the argument is none."""
    ask = msgspec.json.decode(argument, type=Ask)
    wall_s = clock.wall_s() - clock.now_s()  # when the own clock was 0
    return _told(kept, ask, wall_s).SerializeToString()


def _told(kept: Arrivals, ask: Ask, wall_s: float) -> ArrivalBlock:
    number = max(ask.block, kept.oldest)
    block = kept.block(number)
    rows = list(block.of(ask.pool, ask.since_ms / 1000 - wall_s))
    came_ms = [round(1000 * (row.since_s + wall_s)) for row in rows]
    return ArrivalBlock(
        tenants=[name for name, _ in block.tenants],
        urgency=[urgency.value for _, urgency in block.tenants],
        gap_ms=[at - then for then, at in zip([0, *came_ms], came_ms, strict=False)],
        tenant=[row.who for row in rows],
        prompt_tokens=[row.prompt_tokens for row in rows],
        output_tokens=[row.output_tokens for row in rows],
        end=[row.end for row in rows],  # type: ignore[misc]  # the same numbers
        stream=[bool(row.stream) for row in rows],
        retry=[row.retry for row in rows],
        wait_ms=[_ms(row.wait_s) for row in rows],
        first_ms_1=[_ms(row.first_s) + 1 if row.first_s >= 0.0 else 0 for row in rows],
        lasted_ms=[_ms(row.lasted_s) for row in rows],
        next=number + 1,
        more=number < kept.newest,
        forgot_before_ms=round(1000 * (kept.forgot_before_s + wall_s)),
    )


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))
