"""Long work of the pure core, done a slice at a time, so that it holds nobody up.

Rules: between two slices everything else that is ready has its turn; what the work reads may change
meanwhile, so what must be of one moment is one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar, cast

from trimtab.runtime import clock

T = TypeVar("T")
SLICE_S = 0.005


async def sliced(steps: Generator[None, None, T]) -> tuple[T, float]:
    """Take all steps; what they come to, and how long they took without the rest."""
    slice_s, worked_s = clock.now_s(), 0.0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value), worked_s + clock.now_s() - slice_s
        now_s = clock.now_s()
        if now_s - slice_s >= SLICE_S:
            worked_s += now_s - slice_s
            await asyncio.sleep(0)
            slice_s = clock.now_s()
