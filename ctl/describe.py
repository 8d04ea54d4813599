"""Everything about one thing: what `get` has of it, why it is so, and its newest events.

Rules: gathered from the questions that have commands of their own, so that nothing is told in two
ways; an event counts as its own when it is about it, or about what runs in it (a node's replicas,
a pool's).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctl import accounts, render, told
from ctl.client import Happened
from ctl.columns import VIEWS, Noun, text
from ctl.listing import check
from trimtab.v1.admin_pb2 import WatchEventsRequest
from trimtab.views import Account, Explanation, Fleet, FleetEvent, ReplicaView

if TYPE_CHECKING:
    from ctl.client import Client

EVENTS_SHOWN = 20
EVENTS_SEEN = 4_096
TITLES = {"agents": "node", "pools": "model"}


@dataclass(frozen=True, slots=True)
class Description:
    """What was found of one thing."""

    noun: str
    fleet: Fleet
    item: Any
    replicas: tuple[ReplicaView, ...]
    why: Explanation | Account | None
    events: tuple[FleetEvent, ...]


async def gather(plane: Client, noun: str, name: str) -> Description:
    """Ask for all of it; raises CtlError."""
    fleet, view = await plane.fleet(), VIEWS[noun]
    check(noun, fleet, name)
    item = next(one for one in view.items(fleet) if view.name(one) == name)
    replicas = tuple(r for r in fleet.replicas if name in _places(noun, r))
    why: Explanation | Account | None = None
    if noun == "replicas":
        why = await plane.explain(name)
    elif noun == "pools":
        why = await accounts.ask(plane, "model", name)
    about = {name, *(replica.route.replica for replica in replicas)}
    return Description(noun, fleet, item, replicas, why, await _events(plane, about))


def _places(noun: str, replica: ReplicaView) -> set[str]:
    return {"agents": {replica.route.node}, "pools": {replica.route.pool}}.get(noun, set())


async def _events(plane: Client, about: set[str]) -> tuple[FleetEvent, ...]:
    only = next(iter(about)) if len(about) == 1 else ""
    request = WatchEventsRequest(about=only, limit=EVENTS_SHOWN if only else EVENTS_SEEN)
    found: list[FleetEvent] = []
    async for seen in plane.events(request):
        if isinstance(seen, Happened):
            found += [event for event in seen.events if event.about in about]
    return tuple(found[-EVENTS_SHOWN:])


def page(found: Description) -> str:
    """For people: the answer, every column, what runs in it, what happened."""
    noun: Noun[Any] = VIEWS[found.noun]
    cells = [(c.title, c.cell(found.item)) for c in noun.columns if c.title != "WHY"]
    width = max(len(title) for title, _ in cells)
    lines = [f"{TITLES.get(found.noun, noun.kind.lower())} {text(noun.name(found.item))}"]
    lines += [f"  {title:<{width}}  {cell}" for title, cell in cells if cell != "-"]
    if found.replicas:
        lines += ["", "REPLICAS", *(f"  {_short(replica)}" for replica in found.replicas)]
    if found.why is not None:
        lines += ["", "WHY", f"  {text(found.why.headline)}"]
        lines += [f"  {line}" for line in told.findings(found.why.findings)]
        if found.why.advice:
            lines += ["", "TRY", *(f"  {text(hint)}" for hint in found.why.advice)]
    if found.events:
        lines += ["", "EVENTS", *(f"  {told.event(event)}" for event in found.events)]
    return "".join(f"{line}\n" for line in lines)


def _short(replica: ReplicaView) -> str:
    route = replica.route
    words = f"{replica.state.name.lower()}, {route.serving.name.lower()}"
    return f"{text(route.replica)}: {words}, {replica.inflight}/{replica.limit_slots} in flight"


def document(found: Description) -> str:
    """For programs."""
    whole = {
        "apiVersion": render.API_VERSION,
        "kind": "Description",
        "item": {"kind": VIEWS[found.noun].kind, **render.item(found.item)},
        "replicas": [replica.route.replica for replica in found.replicas],
        "why": None if found.why is None else _why(found.why),
        "events": _items(found.events),
    }
    return json.dumps(whole, indent=2) + "\n"


def _why(why: Explanation | Account) -> dict[str, Any]:
    return {key: value for key, value in render.item(why).items() if key not in {"events", "steps"}}


def _items(found: Sequence[Any]) -> list[dict[str, Any]]:
    return [render.item(one) for one in found]
