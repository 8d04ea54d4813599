"""Stating an intent with care: what it does to each pool is said, and an outage is not one word.

Rules: taking the last open replica from a pool needs its name typed; every change says what
changed, who else it affects, and how to undo it. A node is all its replicas, closed at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctl import nouns
from ctl.care import Care
from ctl.columns import span
from ctl.drain import DrainWatch
from ctl.exits import CtlError, Exit
from ctl.screen import Screen
from trimtab.model import Intent
from trimtab.runtime import clock
from trimtab.verdict import is_open
from trimtab.views import Fleet, ReplicaView

if TYPE_CHECKING:
    from ctl.client import Client
    from trimtab.steered import Order

VERBS = {Intent.ACTIVE: "uncordon", Intent.CORDONED: "cordon", Intent.DRAINING: "drain"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator typed."""

    kind: str
    name: str
    intent: Intent
    care: Care

    @property
    def words(self) -> str:
        """The command, to be typed again."""
        return f"ctl {VERBS[self.intent]} {self.kind} {self.name}"

    @property
    def undo(self) -> str:
        """What takes it back."""
        return f"ctl uncordon {self.kind} {self.name}"


async def express(plane: Client, screen: Screen, wish: Wish) -> list[str]:
    """State it, and say what that did; whose it is now, nobody's after a dry run."""
    from ctl.steer import Steer  # noqa: PLC0415  grpc is slow to import

    fleet = await plane.fleet()
    replicas = resolve(fleet, wish)
    order = _allowed(screen, fleet, replicas, wish)
    if order is None:
        return []
    names = [replica.route.replica for replica in replicas]
    revision, before = await Steer(plane).set_intents(names, wish.intent, order)
    for name, old in zip(names, before, strict=True):
        screen.data(f"{name}: {old.name} -> {wish.intent.name} (revision {revision})\n")
    screen.talk(consequence(replicas, wish))
    return names


async def wait_until_empty(plane: Client, screen: Screen, replicas: Sequence[str]) -> None:
    """Follow a drain to its end."""
    from ctl.client import Lost  # noqa: PLC0415  grpc is slow to import

    watches = {name: DrainWatch(name) for name in replicas}
    started_s, said = clock.now_s(), dict.fromkeys(replicas, "")
    async for seen in plane.watch():
        if isinstance(seen, Lost):
            screen.talk(f"connection lost ({seen.reason}), trying again; the drain goes on")
            continue
        now_s = clock.now_s()
        for name, watch in [*watches.items()]:
            waiting = watch.step(seen.fleet, now_s)
            if not waiting:
                screen.data(f"{name}: empty after {now_s - started_s:.1f} s\n")
                del watches[name]
            elif waiting != said[name]:
                screen.talk(f"{name}: waiting for {waiting}")
                said[name] = waiting
        if not watches:
            return


def resolve(fleet: Fleet, wish: Wish) -> list[ReplicaView]:
    """The replicas that are meant; CtlError when there are none."""
    if wish.kind == "replica":
        return [find(fleet, wish.name)]
    found = [replica for replica in fleet.replicas if replica.route.node == wish.name]
    if not found:
        known = sorted({r.route.node for r in fleet.replicas if r.route.node})
        hint = nouns.closest(wish.name, known) or " See: ctl get agents"
        raise CtlError(Exit.NOT_FOUND, f'there is no node "{wish.name}" with replicas.{hint}')
    return found


def find(fleet: Fleet, name: str) -> ReplicaView:
    """The replica of that name; CtlError when there is none."""
    known = {replica.route.replica: replica for replica in fleet.replicas}
    if name not in known:
        hint = nouns.closest(name, list(known)) or " See: ctl get replicas"
        raise CtlError(Exit.NOT_FOUND, f'there is no replica "{name}".{hint}')
    return known[name]


@dataclass(frozen=True, slots=True)
class Impact:
    """What is left of one pool."""

    pool: str
    before: int
    after: int
    inflight: int
    leaves_nobody: bool

    def line(self) -> str:
        """For people."""
        over = self.inflight - self.after
        waits = f", so about {over} will wait" if over > 0 else ""
        return (
            f"{self.pool}: {self.before} -> {self.after} open slots; "
            f"{self.inflight} requests run now{waits}"
        )


def impacts(fleet: Fleet, replicas: Iterable[ReplicaView]) -> list[Impact]:
    """What closing these does, a pool each; pools that lose nothing are left out."""
    closing = {r.route.replica for r in replicas if is_open(r)}
    found = []
    for pool in sorted({r.route.pool for r in fleet.replicas if r.route.replica in closing}):
        members = [r for r in fleet.replicas if r.route.pool == pool]
        opened = [r for r in members if is_open(r)]
        stay = [r for r in opened if r.route.replica not in closing]
        before, after = (sum(r.limit_slots for r in some) for some in (opened, stay))
        found.append(Impact(pool, before, after, sum(r.inflight for r in members), not stay))
    return found


def _allowed(screen: Screen, fleet: Fleet, replicas: list[ReplicaView], wish: Wish) -> Order | None:
    """The order as it may be given; None after a dry run."""
    care = wish.care
    found = [] if wish.intent is Intent.ACTIVE else impacts(fleet, replicas)
    lines = "\n".join(f"Impact: {impact.line()}" for impact in found)
    emptied = [impact for impact in found if impact.leaves_nobody]
    if emptied:
        slots = " and ".join(f"0 of {one.before} slots of {one.pool}" for one in emptied)
        danger = (
            f"{wish.name} is the last that is open: this would leave {slots}, and clients would "
            f"wait and be refused.\n{lines}"
        )
        may = care.allows_outage(screen, wish.name, danger, wish.words)
        return replace(care.order, outage_ok=True) if may else None
    if not found and not care.dry_run:
        return care.order
    return care.order if care.allows(screen, lines or "Impact: none takes any less") else None


def consequence(replicas: Sequence[ReplicaView], wish: Wish) -> str:
    """What goes on, and how to undo it."""
    if wish.intent is Intent.ACTIVE:
        now = ", ".join(sorted({replica.state.name for replica in replicas}))
        return f"Requests come again as the engine allows (now {now})."
    running = sum(replica.inflight for replica in replicas)
    return f"{running} in flight go on.   Undo: {wish.undo}"


def timed_out(names: Sequence[str], fleet: Fleet, waited_ms: int, wish: Wish) -> CtlError:
    """The deadline passed."""
    counted = [(r.route.replica, r.inflight) for r in fleet.replicas]
    counted += [(edge.edge, edge.inflight + edge.queued) for edge in fleet.edges]
    left = [f"{name} has {n} in flight" for name, n in counted if name in names and n]
    return CtlError(
        Exit.TIMED_OUT,
        f"not empty after {span(waited_ms)}: {', '.join(left) or 'edges did not confirm'}. "
        f"It goes on draining.\nWatch: {wish.words}   Undo: {wish.undo}",
    )
