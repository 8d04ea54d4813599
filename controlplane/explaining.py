"""Explanations, with what the leader holds and what its edges tell."""

from __future__ import annotations

from controlplane.core import explanation
from controlplane.loop import ControlLoop
from trimtab.runtime import clock
from trimtab.views import Explanation


def replica(loop: ControlLoop, name: str) -> Explanation:
    """Why it gets the traffic it gets; KeyError when there is none of this name."""
    found, now_s = loop.registry.replicas[name], clock.now_s()
    node = loop.registry.agents.by_node.get(found.node)
    stale_s = loop.settings.stale_s
    case = explanation.case(loop.fleet(), found, node, now_s, clock.wall_s(), stale_s)
    return explanation.explain(case, loop.journal.latest(name, explanation.EVENTS_SHOWN))
