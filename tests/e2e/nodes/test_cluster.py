"""Three nodes as processes, over a real etcd cluster and closed wires, while parts of them die."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from bench.cluster.fleet import Cluster
from bench.kill.load import Load
from tests.e2e.nodes.trouble import errors_under, more_answers, next_push

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_without_its_leader_the_fleet_has_another_and_nobody_notices(
    cluster: Cluster, how: str
) -> None:
    leader = await asyncio.to_thread(cluster.leader)
    part = cluster.parts[leader]

    async def trouble(_load: Load) -> None:
        part.strike(how)
        await next_push(cluster)
        part.recover(how)

    assert await errors_under(cluster, trouble) == []
    assert await asyncio.to_thread(cluster.leader) != leader


@pytest.mark.parametrize(
    "names", [("etcd1", "etcd2"), ("cp1", "cp2", "cp3", "etcd1", "etcd2", "etcd3")]
)
async def test_without_its_state_the_fleet_serves_on_and_comes_back(
    cluster: Cluster, names: Sequence[str]
) -> None:
    async def trouble(load: Load) -> None:
        for name in names:
            cluster.parts[name].kill()
        await more_answers(load)
        for name in names:
            cluster.parts[name].start()
        await next_push(cluster)

    assert await errors_under(cluster, trouble) == []


async def test_a_whole_node_may_die(cluster: Cluster) -> None:
    names = ("etcd1", "cp1", "agent1", "engine1")

    async def trouble(load: Load) -> None:
        for name in names:
            cluster.parts[name].kill()
        await more_answers(load)
        for name in names:
            cluster.parts[name].start()

    assert await errors_under(cluster, trouble) == []


def test_what_an_admin_says_is_kept_by_the_next_leader(cluster: Cluster) -> None:
    cluster.settle()
    _ = cluster.ctl("cordon", "engine3", "--reason", "fan", "--yes")
    cluster.parts[cluster.leader()].end()
    shown = cluster.ctl("get", "replicas")
    assert "fan" in shown
    _ = cluster.ctl("uncordon", "engine3")
    for part in cluster.parts.values():
        part.start()
