"""When edges took an update from a control plane, by their own metrics."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Sequence

import aiohttp

from trimtab.runtime import clock

POLL_S = 0.1
REVISION = re.compile(r"^trimtab_edge_config_revision (\S+)$", re.MULTILINE)


class Pushes:
    """Looks at every edge ten times a second."""

    def __init__(self, admins: Sequence[str]) -> None:
        self._admins = admins
        self._moments_s: dict[str, list[float]] = {admin: [] for admin in admins}

    async def watch(self) -> None:
        """For ever."""
        last: dict[str, str] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(1)) as session:
            while True:
                for admin in self._admins:
                    revision = await _revision(session, admin)
                    if revision and revision != last.get(admin):
                        last[admin] = revision
                        self._moments_s[admin].append(clock.now_s())
                await asyncio.sleep(POLL_S)

    def longest_gap_s(self, from_s: float, to_s: float) -> float:
        """The longest time in which an edge that was there took no update; the worst edge's."""
        return max(_longest(moments, from_s, to_s) for moments in self._moments_s.values())

    def first_after_s(self, since_s: float) -> float:
        """When the last of the edges took its first update after a moment; inf for never."""
        return max(
            next((moment for moment in moments if moment >= since_s), float("inf"))
            for moments in self._moments_s.values()
        )


async def revisions(admins: Sequence[str]) -> list[str]:
    """What each edge has applied; "" where it does not answer."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(1)) as session:
        return [await _revision(session, admin) for admin in admins]


async def _revision(session: aiohttp.ClientSession, admin: str) -> str:
    try:
        async with session.get(f"{admin}/metrics") as answer:
            found = REVISION.search(await answer.text())
    except (aiohttp.ClientError, TimeoutError):
        return ""
    return found[1] if found else ""


def _longest(moments_s: Sequence[float], from_s: float, to_s: float) -> float:
    inside = [from_s, *(moment for moment in moments_s if from_s <= moment < to_s), to_s]
    return max(later - earlier for earlier, later in itertools.pairwise(inside))
