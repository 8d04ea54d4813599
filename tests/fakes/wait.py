"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 30.0
POLL_S = 0.01


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Return as soon as the condition holds; TimeoutError when it never does."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - whatever a test waits for has no event
            await asyncio.sleep(POLL_S)
