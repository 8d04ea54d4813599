"""A simulated engine inside the test's process: a second cheaper than one of its own."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from sim.driver import Driver
from sim.engine import EngineSpec
from sim.faults import Faults
from sim.http_api import HttpApi, Identity
from trimtab.runtime.tasks import TaskRunner


@dataclass(slots=True)
class LocalEngine:
    """One running engine."""

    url: str
    driver: Driver
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Method, path with query, and body of each request."""

    def fault(self, **faults: object) -> None:
        """Switch faults on."""
        self.driver.set_faults(msgspec.convert(faults, Faults))


@asynccontextmanager
async def local_engine(
    *models: str, speed: float = 20.0, keeps_responses: bool = False
) -> AsyncIterator[LocalEngine]:
    """An engine on a free port."""
    driver = Driver(EngineSpec.demo().faster(speed), models[0])
    identity = Identity([*models], models[0], "0.32.0", "vllm-0.32.0-0000", (), keeps_responses)
    app = HttpApi(driver, identity, random.Random(0)).app()
    engine = LocalEngine("", driver)

    @web.middleware
    async def remember(request: web.Request, handler: Handler) -> web.StreamResponse:
        engine.seen.append((request.method, request.path_qs, await request.read()))
        return await handler(request)

    app.middlewares.insert(0, remember)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()

    def die(_mode: str) -> None:
        """Cut all connections, once: who comes again finds it alive."""
        driver.set_faults(Faults())
        for connection in runner.server.connections if runner.server else []:
            if connection.transport is not None:
                connection.transport.abort()

    driver.on_death = die
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with TaskRunner() as tasks:
        tasks.forever("engine", driver.run())
        try:
            yield engine
        finally:
            await runner.cleanup()
