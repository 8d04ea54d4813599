"""Three nodes as processes, over a real etcd cluster and closed wires, while parts of them die."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence

import aiohttp
import pytest

from bench.cluster.fleet import KEY, MODEL, Cluster
from bench.kill.load import Load, errors
from bench.kill.pushes import revisions
from tests.fakes.wait import until
from trimtab.runtime.tasks import TaskRunner

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
DEADLINE_S = 90.0
USERS = 8
TOKENS = 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        made = Cluster(pathlib.Path(root))
        try:
            made.start()
            yield made
        finally:
            made.close()


async def errors_under(cluster: Cluster, trouble: Callable[[Load], Awaitable[None]]) -> list[str]:
    """What users saw while it lasted, and until there were as many answers again."""
    await asyncio.to_thread(cluster.settle)
    load = Load(cluster.endpoints, KEY, MODEL, TOKENS)
    async with TaskRunner() as runner:
        users = runner.once("users", load.run(USERS))
        try:
            await more_answers(load)
            await trouble(load)
            await more_answers(load)
        finally:
            load.stop()
        await users
    if errors(load.asks):
        print(await decisions(cluster.edge_admins))  # noqa: T201 - shown when it fails
    return sorted(errors(load.asks))


async def decisions(admins: Sequence[str]) -> str:
    """The edges' records of what did not end well."""
    told = []
    async with aiohttp.ClientSession() as session:
        for admin in admins:
            async with session.get(f"{admin}/decisions") as answer:
                told.append(await answer.text())
    return "\n".join(told)


async def more_answers(load: Load) -> None:
    before = len(load.asks)
    await until(lambda: len(load.asks) >= before + 2 * USERS, DEADLINE_S)


async def next_push(cluster: Cluster) -> None:
    """Wait until every edge has taken something new from a control plane."""
    before = await revisions(cluster.edge_admins)
    async with asyncio.timeout(DEADLINE_S):
        while any(
            a == b for a, b in zip(before, await revisions(cluster.edge_admins), strict=True)
        ):
            pass


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
    _ = cluster.ctl("cordon", "engine3", "--reason", "fan")
    cluster.parts[cluster.leader()].end()
    shown = cluster.ctl("get", "replicas")
    assert "fan" in shown
    _ = cluster.ctl("uncordon", "engine3")
    for part in cluster.parts.values():
        part.start()
