"""`ctl top`: who has how much to do, the busiest and the sick first, drawn again each second.

Rules: on a terminal it fills the screen until Ctrl-C; elsewhere it is one look in plain rows, so
that nothing hangs in a script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctl import render
from ctl.client import Lost
from ctl.columns import EDGES, POOLS, REPLICAS, VIEWS, Column, Noun, count, ratio
from ctl.exits import Exit
from ctl.screen import Screen
from trimtab.verdict import in_full_use, is_open
from trimtab.views import EdgeView, Fleet, PoolView, ReplicaView

if TYPE_CHECKING:
    from ctl.client import Client

BAR_CELLS = 20


def bar(used: int, room: int) -> str:
    """How full, drawn and in numbers."""
    part = min(1.0, used / room) if room else 0.0
    filled = round(BAR_CELLS * part)
    return f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}] {used}/{room}"


def _sick(replica: ReplicaView) -> bool:
    return not is_open(replica) or not in_full_use(replica)


def _replica_rank(replica: ReplicaView) -> tuple[bool, float, str]:
    load = replica.inflight / replica.limit_slots if replica.limit_slots else 0.0
    return not _sick(replica), -load, replica.route.replica


def _pool_rank(pool: PoolView) -> tuple[bool, int, str]:
    return pool.open == pool.replicas, -pool.queued, pool.pool


def _edge_rank(edge: EdgeView) -> tuple[bool, int, str]:
    return edge.in_sync, -edge.inflight, edge.edge


def _of(noun: Noun[Any], *titles: str) -> list[Column[Any]]:
    """Its columns of these titles."""
    return [next(c for c in noun.columns if c.title == title) for title in titles]


RANKS: dict[str, Any] = {"replicas": _replica_rank, "pools": _pool_rank, "edges": _edge_rank}
COLUMNS: dict[str, list[Column[Any]]] = {
    "replicas": [
        *_of(REPLICAS, "REPLICA", "STATE", "BREAKER"),
        Column("LOAD", lambda r: bar(r.inflight, r.limit_slots)),
        *_of(REPLICAS, "SHARE 1m", "RUN", "WAIT", "KV"),
        Column("TOKENS/s", lambda r: _whole(r.generation_tokens_per_s)),
        *_of(REPLICAS, "TTFT p50", "FAIL 1m", "BACKPR", "GPU"),
    ],
    "pools": [
        *_of(POOLS, "POOL", "OPEN"),
        Column("LOAD", lambda p: bar(p.inflight, p.open_slots)),
        *_of(POOLS, "QUEUED", "REQUESTS 1m", "SHED 1m"),
        Column("SHED", lambda p: ratio(p.shed_1m / p.requests_1m if p.requests_1m else None)),
    ],
    "edges": _of(EDGES, "EDGE", "SYNC", "IN-FLIGHT", "QUEUED", "REQUESTS 1m", "SHED 1m"),
}


def _whole(value: float | None) -> str:
    return count(None if value is None else round(value))


def page(screen: Screen, fleet: Fleet, noun: str) -> str:
    """One look."""
    view: Noun[Any] = VIEWS[noun]
    items = sorted(view.items(fleet), key=RANKS[noun])
    rows = screen.table(render.rows(COLUMNS[noun], items)) if items else f"{view.none}\n"
    head = render.status(fleet).head
    return "".join(f"{line}\n" for line in head) + f"\n{rows}"


async def look(plane: Client, screen: Screen, noun: str) -> Exit:
    """Once, or on a terminal until interrupted."""
    if not screen.tty:
        screen.data(page(screen, await plane.fleet(), noun))
        return Exit.OK
    with screen.board(full=True) as board:
        shown = ""
        async for seen in plane.watch():
            if isinstance(seen, Lost):
                board.show(f"{shown}\nconnection lost ({seen.reason}), trying again")
                continue
            shown = page(screen, seen.fleet, noun)
            board.show(shown)
    return Exit.OK
