"""What an agent takes anew from its file by a reload: engines that it does not watch yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from agent import engine
from agent.config import AgentConfig, from_args
from agent.loop import AgentLoop
from agent.watch import EngineWatch
from trimtab.runtime import live_config


async def take(config: AgentConfig, loop: AgentLoop, clients: AsyncExitStack) -> Sequence[str]:
    """Do so; what waits for a restart. Raises ConfigError."""
    new = await asyncio.to_thread(from_args, config.argv)
    for item in new.engines:
        if item.replica not in loop.watched:
            client = await clients.enter_async_context(engine.connect(item.url, new.upstream_key))
            loop.watch(item.replica, EngineWatch(item, client))
    wanted = {(item.replica, item.url) for item in new.engines}
    other = [f"engine {item.replica}" for item in config.engines
             if (item.replica, item.url) not in wanted]  # fmt: skip
    return [*live_config.held(config.base, new.base, "agents"), *other]
