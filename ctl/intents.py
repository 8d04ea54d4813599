"""Stating an intent with care: what it does to the pool is said, and an outage is not one word.

Rules: closing the last open replica of a pool needs --confirm with its name; every change says
what changed, who else it affects, and how to undo it.
"""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctl import nouns
from ctl.drain import DrainWatch
from ctl.exits import CtlError, Exit
from ctl.screen import Screen
from trimtab.model import Intent
from trimtab.runtime import clock
from trimtab.verdict import is_open
from trimtab.views import Fleet, ReplicaView

if TYPE_CHECKING:
    from ctl.client import Client


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator typed."""

    replica: str
    intent: Intent
    reason: str
    confirm: str = ""


async def express(plane: Client, screen: Screen, wish: Wish) -> None:
    """State it, and say what that did."""
    fleet = await plane.fleet()
    replica = find(fleet, wish.replica)
    peers = open_peers(fleet, replica)
    if wish.intent is not Intent.ACTIVE:
        guard(replica, peers, wish)
    change = await plane.set_intent(wish.replica, wish.intent, wish.reason, actor())
    screen.data(
        f"{wish.replica}: {change.previous.name} -> {wish.intent.name} "
        f"(revision {change.revision})\n"
    )
    screen.talk(consequence(replica, peers, wish.intent))


async def wait_until_empty(plane: Client, screen: Screen, replica: str) -> None:
    """Follow a drain to its end."""
    from ctl.client import Lost  # noqa: PLC0415  grpc is slow to import

    watch, started_s, said = DrainWatch(replica), clock.now_s(), ""
    async for seen in plane.watch():
        if isinstance(seen, Lost):
            screen.talk(f"connection lost ({seen.reason}), trying again; the drain goes on")
            continue
        now_s = clock.now_s()
        waiting = watch.step(seen.fleet, now_s)
        if not waiting:
            screen.data(f"{replica}: empty after {now_s - started_s:.1f} s\n")
            return
        if waiting != said:
            screen.talk(f"{replica}: waiting for {waiting}")
            said = waiting


def find(fleet: Fleet, name: str) -> ReplicaView:
    """The replica of that name; CtlError when there is none."""
    known = {replica.route.replica: replica for replica in fleet.replicas}
    if name not in known:
        hint = nouns.closest(name, list(known)) or " See: ctl get replicas"
        raise CtlError(Exit.NOT_FOUND, f'there is no replica "{name}".{hint}')
    return known[name]


def open_peers(fleet: Fleet, replica: ReplicaView) -> list[ReplicaView]:
    """The others of its pool that take requests."""
    return [
        other
        for other in fleet.replicas
        if other.route.pool == replica.route.pool
        and other.route.replica != replica.route.replica
        and is_open(other)
    ]


def guard(replica: ReplicaView, peers: list[ReplicaView], wish: Wish) -> None:
    """Refuse to close a pool by accident."""
    if peers or not is_open(replica) or wish.confirm == wish.replica:
        return
    verb = "drain" if wish.intent is Intent.DRAINING else "cordon"
    raise CtlError(
        Exit.CONFLICT,
        f"{wish.replica} is the last open replica of {replica.route.pool}: this would leave 0 of "
        f"{replica.limit_slots} slots, and clients of that model would wait and be refused.\n"
        f"If you mean it: ctl {verb} {wish.replica} --confirm {wish.replica}",
    )


def consequence(replica: ReplicaView, peers: list[ReplicaView], intent: Intent) -> str:
    """What the change means for others, and how to undo it."""
    name, pool = replica.route.replica, replica.route.pool
    if intent is Intent.ACTIVE:
        return f"It gets requests again as its engine allows (now {replica.state.name})."
    slots = sum(peer.limit_slots for peer in peers)
    return (
        f"{replica.inflight} in flight go on. Open in {pool} from now on: {len(peers)}, with "
        f"{slots} slots.   Undo: ctl uncordon {name}"
    )


def actor() -> str:
    """Who is asking, for the record."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
