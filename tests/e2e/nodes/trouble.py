"""What users saw while something was wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from bench.cluster.fleet import KEY, MODEL, Cluster
from bench.kill.load import Load, errors
from bench.kill.pushes import revisions
from tests.fakes.wait import until
from trimtab.runtime.tasks import TaskRunner

DEADLINE_S = 90.0
USERS = 8
TOKENS = 20


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
