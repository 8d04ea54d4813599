"""Draining an edge: load balancers are told to leave it, and it serves what comes until they have.

Rules: an edge's workers are drained together; it is empty when all that were counted have said so
after it was asked; a drain that nobody takes back ends by itself after a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctl import nouns
from ctl.drain import PUSH_GRACE_S
from ctl.exits import CtlError, Exit
from ctl.screen import Screen
from trimtab.model import Intent
from trimtab.runtime import clock
from trimtab.runtime.certificates import WORKER_MARK
from trimtab.steered import Override, OverrideKind
from trimtab.views import EdgeView, Fleet

if TYPE_CHECKING:
    from ctl.client import Client
    from ctl.intents import Wish

DAY_MS = 86_400_000


async def express(plane: Client, screen: Screen, wish: Wish) -> list[str]:
    """Drain it or take that back, and say what that did; the edges that are drained now."""
    from ctl.steer import Steer  # noqa: PLC0415  grpc is slow to import

    fleet, steer = await plane.fleet(), Steer(plane)
    drains = wish.intent is Intent.DRAINING
    mine = find(fleet, wish.name, drained=not drains)
    if drains and not _may(screen, fleet, mine, wish):
        return []
    if (
        not drains
        and wish.care.dry_run
        and not wish.care.allows(screen, "Impact: it is used again")
    ):
        return []
    for name in mine:
        wanted = Override(OverrideKind.EDGE_DRAIN, name)
        revision = await steer.set_override(wanted, DAY_MS if drains else 0, wish.care.order)
        now = f"draining (revision {revision})" if drains else f"in use (revision {revision})"
        screen.data(f"{name}: {now if revision else 'was not drained'}\n")
    if drains:
        screen.talk(f"Its /readyz says 503 now; what comes is served.   Undo: {wish.undo}")
    return list(mine)


async def wait_until_empty(plane: Client, screen: Screen, edges: Sequence[str]) -> None:
    """Follow a drain to its end."""
    from ctl.client import Lost  # noqa: PLC0415  grpc is slow to import

    started_s, said = clock.now_s(), ""
    async for seen in plane.watch():
        if isinstance(seen, Lost):
            screen.talk(f"connection lost ({seen.reason}), trying again; the drain goes on")
            continue
        waiting = busy(seen.fleet, edges, 1000 * (clock.now_s() - started_s - PUSH_GRACE_S))
        if not waiting:
            screen.data(f"{', '.join(edges)}: empty after {clock.now_s() - started_s:.1f} s\n")
            return
        if waiting != said:
            screen.talk(f"waiting for {waiting}")
            said = waiting


def busy(fleet: Fleet, edges: Sequence[str], settled_ms: float) -> str:
    """What these edges still do; one that is not connected any more does nothing."""
    parts = []
    for edge in fleet.edges:
        if edge.edge not in edges:
            continue
        if edge.inflight or edge.queued:
            parts.append(f"{edge.edge}: {edge.inflight} in flight, {edge.queued} queued")
        elif edge.report_age_ms is None or edge.report_age_ms >= settled_ms:
            parts.append(f"{edge.edge} to confirm")
    return ", ".join(parts)


def find(fleet: Fleet, name: str, *, drained: bool = False) -> list[str]:
    """The edge and its other workers; of one that left, what is still set. CtlError for none."""
    known = [edge.edge for edge in fleet.edges]
    if drained:
        known += [one.target for one in fleet.overrides if one.kind is OverrideKind.EDGE_DRAIN]
    found = sorted({one for one in known if name in {one, one.partition(WORKER_MARK)[0]}})
    if not found:
        hint = nouns.closest(name, known) or " See: ctl get edges"
        raise CtlError(Exit.NOT_FOUND, f'there is no edge "{name}".{hint}')
    return found


def _may(screen: Screen, fleet: Fleet, mine: Sequence[str], wish: Wish) -> bool:
    gone = {one.target for one in fleet.overrides if one.kind is OverrideKind.EDGE_DRAIN}
    stay = [edge.edge for edge in fleet.edges if edge.edge not in {*mine, *gone}]
    impact = f"Impact: {_counts(fleet.edges, mine)}; left for others: {', '.join(stay) or 'none'}"
    if stay:
        return wish.care.allows(screen, impact)
    return wish.care.allows_outage(screen, wish.name, impact, wish.words)


def _counts(edges: Sequence[EdgeView], mine: Sequence[str]) -> str:
    running = sum(edge.inflight + edge.queued for edge in edges if edge.edge in mine)
    return f"{running} requests run or wait there and go on"
