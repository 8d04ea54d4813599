"""The agent: wires its parts together and ends them in order."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from agent import ask, engine, local, reload
from agent.config import AgentConfig, from_args
from agent.loop import AgentLoop
from agent.nvml import GpuWatch
from agent.uplink import Uplink
from agent.watch import EngineWatch
from trimtab.runtime import log, service
from trimtab.runtime.notify import notify, stay_alive
from trimtab.runtime.reload import Reloading
from trimtab.runtime.renewal import keep_renewed
from trimtab.runtime.service import ConfigError
from trimtab.runtime.targets import Targets
from trimtab.runtime.tasks import TaskRunner


async def serve(config: AgentConfig) -> None:
    """Run until a signal comes."""
    await serve_until(service.stop_event(), config)


async def serve_until(stop: asyncio.Event, config: AgentConfig) -> None:
    """Run until told to stop."""
    dice = random.SystemRandom()
    identity = config.identity
    uplink = Uplink(config.controlplane, dice, identity)
    gpus = GpuWatch(dice)
    async with AsyncExitStack() as stack:
        watches: dict[str, EngineWatch] = {}
        for item in config.engines:
            client = await stack.enter_async_context(engine.connect(item.url, config.upstream_key))
            watches[item.replica] = EngineWatch(item, client)
        loop = AgentLoop(config.node, watches, gpus, uplink, config.report_period_s)
        gpus.start()
        stack.callback(gpus.stop)
        await stack.enter_async_context(local.listening(config.socket, watches))
        async with TaskRunner() as tasks:
            tasks.forever("watchdog", stay_alive())
            tasks.forever("agent.loop", loop.run())
            tasks.forever("agent.uplink", uplink.run(loop))
            if identity:
                tasks.forever(
                    "renewal", keep_renewed(identity, Targets(config.controlplane).listed, dice)
                )
            await loop.looked.wait()
            status = f"watching {len(watches)} engines"
            reloading = Reloading(partial(reload.take, config, loop, stack), lambda _: None, status)
            tasks.forever("reload", reloading.run())
            notify(ready=True, status=status)
            await stop.wait()
            notify(stopping=True)
            await uplink.close("shutting down")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] in (["drain"], ["resume"]):
        return ask.main(words)
    log.configure("agent")
    try:
        config = from_args(argv)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return service.EXIT_CONFIG
    return service.run(serve(config))


if __name__ == "__main__":
    raise SystemExit(main())
