"""Which software every part of a fleet runs, and what differs from the leader's. Pure.

Rule: one minor version apart works in both directions (docs/upgrade.md), and is still worth saying.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ctl.columns import text
from ctl.pages import Page
from ctl.render import Table, item
from trimtab.views import Fleet


@dataclass(frozen=True, slots=True)
class Part:
    """One process and its software."""

    kind: str
    name: str
    version: str
    differs: bool


def parts(fleet: Fleet, own: str) -> list[Part]:
    """All that are known; engines are compared with the most of their pool."""
    leader = fleet.controlplane_version
    found = [("controlplane", fleet.leader, leader), ("ctl", "this one", own)]
    found += [("edge", edge.edge, edge.edge_version) for edge in fleet.edges]
    found += [("agent", agent.node, agent.agent_version) for agent in fleet.agents]
    ours = [Part(kind, name, version, version != leader) for kind, name, version in found]
    usual = {
        pool.pool: Counter(
            one.vllm_version
            for one in fleet.replicas
            if one.route.pool == pool.pool and one.vllm_version
        ).most_common(1)
        for pool in fleet.pools
    }
    return ours + [
        Part("vllm", one.route.replica, one.vllm_version, one.vllm_version != most[0][0])
        for one in fleet.replicas
        if one.vllm_version and (most := usual.get(one.route.pool))
    ]


def page(found: Sequence[Part]) -> Page:
    """As a table, or as data."""
    rows = [(p.kind, text(p.name), text(p.version), "differs" if p.differs else "") for p in found]
    table = Table(("PART", "NAME", "VERSION", "SKEW"), tuple(rows))
    return Page("Version", tuple(item(p) for p in found), tuple(p.name for p in found), table)
