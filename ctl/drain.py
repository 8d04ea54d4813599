"""When is a drained replica empty: only when every edge has said so after the replica was closed.

An edge that has not heard of the drain yet may still start requests, so a zero is believed only
from reports made a while after the replica was seen closed.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.verdict import is_open
from trimtab.views import Fleet

PUSH_GRACE_S = 1.0  # ten times what a push to an edge may take


@dataclass(slots=True)
class DrainWatch:
    """Follows one replica from look to look."""

    replica: str
    closed_s: float | None = None

    def step(self, fleet: Fleet, now_s: float) -> str:
        """What is still waited for; empty when nothing is."""
        view = next((r for r in fleet.replicas if r.route.replica == self.replica), None)
        if view is None:  # a control plane that just started has not heard of it yet
            return "its agent to report it again"
        if is_open(view):
            self.closed_s = None
            return "the control plane to close it"
        if self.closed_s is None:
            self.closed_s = now_s
        if view.inflight:
            return f"{view.inflight} in flight"
        if not fleet.edges:
            return "an edge to say that nothing is in flight; none is connected"
        settled_ms = (now_s - self.closed_s - PUSH_GRACE_S) * 1000
        late = [
            edge.edge
            for edge in fleet.edges
            if edge.report_age_ms is None or edge.report_age_ms >= settled_ms
        ]
        return f"edges to confirm: {', '.join(late)}" if late else ""
