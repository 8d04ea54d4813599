"""What is measured of each proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.edge.front import Front
from bench.edge.load import Tally, open_callers, quantile_ms, request
from trimtab.runtime.clock import now_s

WARM_S = 0.5
LARGE_BODY_BYTES = 500_000  # about 100,000 tokens
PACED_STREAMS, PACED_GAP_US = 200, 20_000
FLAT_STREAMS, FLAT_BURST = 100, 8
ENDLESS = 10_000_000
OPEN_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """Callers that do the same, and what is counted of them."""

    name: str
    callers: int
    prompt_bytes: int = 1_700
    shape: str = ""


ONE = Load("one", 1)
MANY = Load("many", 64)
LARGE = Load("large", 8, LARGE_BODY_BYTES)
PACED = Load("paced", PACED_STREAMS, shape=f"shape-{ENDLESS}-1-{PACED_GAP_US}")
FLAT = Load("flat", FLAT_STREAMS, shape=f"shape-2000-{FLAT_BURST}-0")
LOADS = (ONE, MANY, LARGE, PACED, FLAT)


@dataclass(frozen=True, slots=True)
class Cell:
    """One load on one proxy."""

    load: Load
    span_s: float
    answers: int
    events: int
    errors: int
    cpu_s: float
    others_cores: float
    """What others took of the proxy's core."""
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        """Events of streams, else answers."""
        return (self.events if self.load.shape else self.answers) / self.span_s

    @property
    def cpu_us(self) -> float:
        """For each of these."""
        return 1e6 * self.cpu_s / max(1.0, self.per_s * self.span_s)


@dataclass(slots=True)
class Row:
    """One proxy."""

    title: str
    version: str
    is_direct: bool = False
    """There is none."""
    cells: dict[str, Cell] = field(default_factory=dict)
    stream_bytes: float | None = None


async def measure(front: Front, load: Load, seconds: float) -> Cell:
    """Play a load for so long."""
    tally = Tally()
    async with _callers(front, load, tally):
        await _flows(tally, load)
        await asyncio.sleep(WARM_S)
        tally.clear()
        began_s, cpu_s, core_s = now_s(), front.cpu_s(), front.core_s()
        await asyncio.sleep(seconds)
        span_s, cpu_s, core_s = now_s() - began_s, front.cpu_s() - cpu_s, front.core_s() - core_s
        took_s = list(tally.took_s)
        counts = tally.answers, tally.events, tally.errors
    others = max(0.0, core_s - cpu_s) / span_s if front.pid else 0.0
    tail = quantile_ms(took_s, 0.5), quantile_ms(took_s, 0.99)
    return Cell(load, span_s, *counts, cpu_s, others, *tail)


async def stream_bytes(front: Front, streams: int) -> float:
    """Memory of one open stream that gets an event a second, over `streams`."""
    tally = Tally()
    before = front.memory_bytes()
    load = Load("open", streams, shape=f"shape-{ENDLESS}-1-1000000")
    async with _callers(front, load, tally):
        await _flows(tally, load)
        await asyncio.sleep(2.0)
        return (front.memory_bytes() - before) / streams


@asynccontextmanager
async def _callers(front: Front, load: Load, tally: Tally) -> AsyncIterator[None]:
    question = request(front.port, load.prompt_bytes, load.shape)
    callers = await open_callers(front.port, load.callers, question, tally)
    try:
        yield
    finally:
        for caller in callers:
            caller.close()
        await asyncio.sleep(WARM_S)  # for the proxy to see that they left


async def _flows(tally: Tally, load: Load) -> None:
    """Wait until each has something; raises TimeoutError."""
    async with asyncio.timeout(OPEN_TIMEOUT_S):
        while (tally.opened if load.shape else tally.answers) < load.callers:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # an event would be set for each answer
