"""When requests came and how they went, in 35 bytes each: what a simulation replays.

Rules: times, tokens and outcomes, and whose key it was; no prompt, answer, key or id. Kept in
blocks in the order of their ends; the oldest goes when there are ROWS_MAX rows, or when all in it
ended KEPT_S ago. A request costs one `add` at its end, under 2 us; what people ask is worked out
when they ask.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from edge.core.decisions import Record
from trimtab.model import Urgency

ROWS_MAX = 200_000
KEPT_S = 2 * 3600.0
BLOCK_ROWS = 2_048  # what is told at once: 4 ms of an edge's time, 30 KB
RETRY_HEADER = "x-stainless-retry-count"
"""OpenAI's and Anthropic's SDKs count so."""
_ROW = struct.Struct("<dfffIIHHBBB")  # as Row
NO_FIRST_S = -1.0
MOST = 2**32 - 1
RETRY_MAX, RETRY_DIGITS = 255, 3


class End(IntEnum):
    """How a request ended for its caller: RequestEnd in proto/trimtab/v1/whatif.proto."""

    UNKNOWN = 0
    SERVED = 1
    REFUSED = 2
    LEFT = 3
    FAILED = 4
    REJECTED = 5


ENDS = {
    "ok": End.SERVED,
    "shed": End.REFUSED,
    "client_disconnect": End.LEFT,
    "client_error": End.REJECTED,
}


class Row(NamedTuple):
    """One submission of a request; times are seconds."""

    since_s: float
    """When it came, by the edge's own clock."""
    wait_s: float
    first_s: float
    """NO_FIRST_S: no data came, or it was no stream."""
    lasted_s: float
    prompt_tokens: int
    output_tokens: int
    who: int
    """Index into the block's tenants."""
    pool: int
    """Index into the block's pools."""
    end: int
    stream: int
    retry: int


@dataclass(slots=True)
class Block:
    """Requests that ended one after the other."""

    rows: bytearray = field(default_factory=bytearray)
    tenants: dict[tuple[str, Urgency], int] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)
    last_s: float = 0.0
    """When the last of them ended."""

    def __len__(self) -> int:
        return len(self.rows) // _ROW.size

    def of(self, pool: str, since_s: float) -> Iterator[Row]:
        """Those of a pool that came no earlier than this."""
        number = self.pools.get(pool)
        for row in map(Row._make, _ROW.iter_unpack(self.rows)):
            if row.pool == number and row.since_s >= since_s:
                yield row


def retry(caller: Mapping[str, str]) -> int:
    """How often the caller had tried before, if its SDK says so."""
    count = caller.get(RETRY_HEADER, "0")
    return int(count) if count.isdecimal() and len(count) <= RETRY_DIGITS else 0


class Arrivals:
    """What is remembered."""

    def __init__(self, now_s: float) -> None:
        self._blocks = deque([Block()])
        self._first = 0
        """Number of the oldest block."""
        self.forgot_before_s = now_s
        """Not all that ended earlier is known."""

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def add(self, record: Record) -> None:
        """A request has ended."""
        block = self._blocks[-1]
        since_s, attempts, first_byte_s = record.since_s, record.notes.attempts, record.first_byte_s
        lasted_s = record.ended_s - since_s
        who = (record.tenant, record.urgency)
        first_s = NO_FIRST_S if first_byte_s is None else first_byte_s - since_s
        tokens, prompt_tokens = 0, 0
        wait_s = lasted_s
        for attempt in attempts:
            tokens += attempt.tokens
            prompt_tokens = prompt_tokens or attempt.prompt_tokens  # who goes on has a longer one
            if first_byte_s is None or attempt.picked_s <= first_byte_s:
                wait_s = attempt.picked_s - since_s  # the last one before data came
        block.rows += _ROW.pack(
            *(since_s, wait_s, first_s, lasted_s),
            min(prompt_tokens or record.prompt_tokens, MOST),
            1 if record.is_pass and tokens else tokens,
            block.tenants.setdefault(who, len(block.tenants)),
            block.pools.setdefault(record.pool, len(block.pools)),
            ENDS.get(record.ending.outcome, End.FAILED),
            record.stream,
            min(record.retries, RETRY_MAX),
        )
        block.last_s = record.ended_s
        if len(block.rows) >= BLOCK_ROWS * _ROW.size:
            self._turn(record.ended_s)

    def block(self, number: int) -> Block:
        """The block of this number; if it is forgotten the oldest, if it is not there yet none."""
        place = max(0, number - self._first)
        return self._blocks[place] if place < len(self._blocks) else Block()

    @property
    def newest(self) -> int:
        """Number of the block that fills."""
        return self._first + len(self._blocks) - 1

    @property
    def oldest(self) -> int:
        """Number of the oldest block."""
        return self._first

    def _turn(self, now_s: float) -> None:
        """Begin a new block, and forget old ones."""
        blocks = self._blocks
        while len(blocks) * BLOCK_ROWS >= ROWS_MAX or blocks[0].last_s < now_s - KEPT_S:
            self.forgot_before_s = blocks.popleft().last_s
            self._first += 1
        blocks.append(Block())
