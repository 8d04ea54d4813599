"""What dies, how, and for how long: the rows of the matrix.

A part that was killed is started again after `down_s`, as systemd would; a frozen one goes on then.
Between what is cut off no packet passes, and nobody is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.cluster.fleet import STATES

How = Literal["killed", "frozen", "ended", "cut off"]


@dataclass(frozen=True, slots=True)
class Case:
    """One row."""

    title: str
    parts: tuple[str, ...]
    """Names as in bench/cluster; `leader` and `follower` are looked up."""
    how: How = "killed"
    down_s: float = 5.0
    hosts: tuple[str, ...] = ()
    """From whom the parts are cut off: hosts as in bench/cluster."""


ALL_ETCD = ("etcd1", "etcd2", "etcd3")
ALL_CP = ("cp1", "cp2", "cp3")
CASES = (
    Case("nothing", (), down_s=10.0),
    Case("an engine", ("engine1",)),
    Case("an engine, frozen for 20 s", ("engine1",), "frozen", 20.0),
    Case("an agent", ("agent1",)),
    Case("an edge", ("edge1",)),
    Case("the leader", ("leader",)),
    Case("the leader, in order (an upgrade)", ("leader",), "ended"),
    Case("the leader, frozen for 10 s", ("leader",), "frozen", 10.0),
    Case("a follower", ("follower",)),
    Case("all control planes, for 20 s", ALL_CP, down_s=20.0),
    Case("one etcd", ("etcd1",)),
    Case("two etcds: no quorum, for 20 s", ALL_ETCD[:2], down_s=20.0),
    Case("all control planes and etcds, for 30 s", (*ALL_CP, *ALL_ETCD), down_s=30.0),
    Case("the leader from the others, not from edges", ("leader",), "cut off", 10.0, STATES),
    Case("an edge from all control planes", ("edge1",), "cut off", 20.0, STATES),
    Case("an agent from all control planes", ("agent1",), "cut off", 20.0, STATES),
    Case("an edge from one engine", ("edge1",), "cut off", 20.0, ("gpu1",)),
    Case("a whole node", ("etcd1", "cp1", "agent1", "engine1"), down_s=15.0),
)
