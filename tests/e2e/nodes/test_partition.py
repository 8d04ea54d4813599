"""Hosts that cannot hear each other, without a word from the network: no RST, no ICMP.

What is cut are the wires between control planes, and those to edges and agents; requests still
pass, as users must not notice. Loss is a cut that comes and goes: not every kernel has netem.
Skipped where network namespaces can't be made.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence

import pytest

from bench.cluster.fleet import HOSTS, STATES, Cluster
from bench.cluster.net import Net
from bench.kill.load import Load
from tests.e2e.nodes.trouble import DEADLINE_S, errors_under, more_answers, next_push
from tests.fakes.wait import until
from trimtab.runtime.tasks import TaskRunner

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
CONTROL_PLANES, EDGES = ("cp1", "cp2", "cp3"), ("edge1", "edge2")
BEGINS, ENDS = '"event":"leads"', '"event":"leads no longer"'
REFUSED = '"event":"refused an update"'
GONE, ALONE = '"event":"agent disconnected"', '"mode":"AUTONOMOUS"'
WHOLE = r"3 of 3 replicas take requests\nedges 2/2 in sync +agents 3/3 connected"


@pytest.fixture
def network(net: Net | None) -> Iterator[Net]:
    if net is None:
        pytest.skip(f"PARTITIONS ARE NOT TESTED HERE: {Net.refusal()}")
    try:
        yield net
    finally:
        net.heal()


async def until_whole(cluster: Cluster) -> None:
    """Wait until `ctl status` misses nobody."""
    async with asyncio.timeout(DEADLINE_S):
        while not re.search(WHOLE, await asyncio.to_thread(cluster.ctl, "status")):
            pass


def said(cluster: Cluster, words: str, *parts: str) -> int:
    """How often the logs of these parts have these words."""
    return sum(cluster.parts[part].log.read_text().count(words) for part in parts)


async def until_said(cluster: Cluster, words: str, *parts: str, since: int) -> None:
    """Wait until they say it again."""
    await until(lambda: said(cluster, words, *parts) > since, DEADLINE_S)


async def test_a_leader_that_only_edges_hear_stops_before_another_begins(
    cluster: Cluster, network: Net
) -> None:
    old = await asyncio.to_thread(cluster.leader)
    own = f"state{old[-1]}"
    others = [part for part in CONTROL_PLANES if part != old]
    ended, begun = said(cluster, ENDS, old), said(cluster, BEGINS, *others)
    refused = said(cluster, REFUSED, *EDGES)

    async def trouble(load: Load) -> None:
        network.cut([own], [host for host in STATES if host != own])
        await until_said(cluster, BEGINS, *others, since=begun)
        await next_push(cluster)
        await more_answers(load)
        network.heal()
        await until_whole(cluster)

    assert await errors_under(cluster, trouble) == []
    assert said(cluster, ENDS, old) > ended
    assert said(cluster, REFUSED, *EDGES) == refused, "none was of the old leader's term"


async def test_an_edge_and_an_agent_that_no_control_plane_hears_serve_on(
    cluster: Cluster, network: Net
) -> None:
    async def trouble(load: Load) -> None:
        alone, gone = said(cluster, ALONE, "edge1"), said(cluster, GONE, *CONTROL_PLANES)
        network.cut(["edge1", "gpu2"], STATES)
        await until_said(cluster, ALONE, "edge1", since=alone)
        await until_said(cluster, GONE, *CONTROL_PLANES, since=gone)
        cut = len(load.asks)
        await more_answers(load)
        assert {ask.edge for ask in load.asks[cut:]} == {0, 1}
        await asyncio.to_thread(cluster.settle)  # silence alone takes no replica away
        network.heal()
        await until_whole(cluster)

    assert await errors_under(cluster, trouble) == []


async def test_on_a_network_that_loses_a_third_nobody_is_taken_away(
    cluster: Cluster, network: Net
) -> None:
    others = [host for host in HOSTS if host not in STATES]
    alone = said(cluster, ALONE, *EDGES)

    async def lose(ones: Sequence[str]) -> None:
        while True:
            await asyncio.to_thread(network.cut, ones, others)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(network.heal)
            await asyncio.sleep(0.2)

    async def trouble(load: Load) -> None:
        async with TaskRunner() as runner:
            runner.forever("loss", lose(STATES))
            for _ in range(2):
                await more_answers(load)
                await next_push(cluster)
            await asyncio.to_thread(cluster.settle)
        network.heal()
        await until_whole(cluster)

    assert await errors_under(cluster, trouble) == []
    assert said(cluster, ALONE, *EDGES) == alone
