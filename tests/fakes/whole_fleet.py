"""Control plane, agent and edge in the test's process, joined by their real wires."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agent.config import AgentConfig, EngineConfig
from agent.main import serve_until
from edge.config import EdgeConfig
from edge.feed import Feed
from edge.questions import tellers
from tests.fakes.edge import EdgeUnderTest, running_edge
from tests.fakes.running_control_plane import config, running
from tests.fakes.wait import until
from trimtab.runtime.tasks import TaskRunner


@contextlib.asynccontextmanager
async def whole_fleet(
    directory: pathlib.Path, engines: Mapping[str, str], **settings: Any
) -> AsyncIterator[EdgeUnderTest]:
    """A fleet of these engines, by name and URL; ready when all may get requests."""
    stop = asyncio.Event()
    watched = tuple(EngineConfig(name, url) for name, url in engines.items())
    async with running(config(directory, **settings)) as target, TaskRunner() as tasks:
        _ = tasks.once("agent", serve_until(stop, AgentConfig("n1", target, watched)))
        async with running_edge([]) as edge, TaskRunner() as following:
            told = EdgeConfig("e1", "127.0.0.1", 1, "127.0.0.1", 2, target, None)
            feed = Feed(told, edge.table, edge.dispatch, edge.admission, edge.metrics)
            feed.tellers = tellers(edge.proxy.decisions, edge.proxy.arrivals, edge.dispatch)
            following.forever("feed", feed.run())
            following.forever("listen", feed.listen_forever())
            await until(lambda: edge.table.open_replicas() == len(engines))
            await until(lambda: all(c.slots for c in edge.table.credits.values()))
            yield edge
        stop.set()
