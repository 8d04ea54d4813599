"""The simulated engine inside the test's process: its HTTP face and its clockwork, no faults."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from sim.driver import Driver
from sim.engine import EngineSpec
from sim.http_api import HttpApi, Identity
from trimtab.runtime.tasks import TaskRunner


@asynccontextmanager
async def sim_app(model: str) -> AsyncIterator[str]:
    """Its URL."""
    driver = Driver(EngineSpec.demo().faster(20.0), model)
    api = HttpApi(driver, Identity([model], model, "0.32.0", "vllm-0.32.0-sim"), random.Random(0))
    runner = web.AppRunner(
        api.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with TaskRunner() as tasks:
            tasks.forever("engine", driver.run())
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
