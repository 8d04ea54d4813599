"""A simulated engine in the test's own process: real sockets and faults, started in no time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sim.driver import Driver
from sim.engine import EngineSpec
from sim.faults import Faults, read_change
from sim.http_api import HttpApi, Identity
from sim.lifecycle import Lifecycle
from trimtab.runtime.tasks import TaskRunner

SPEED = 20.0  # a token in a millisecond


@dataclass(slots=True)
class LocalEngine:
    """One running engine."""

    driver: Driver
    lifecycle: Lifecycle
    seen: list[tuple[str, str, bytes]]
    """Method, path with query, and body of each request."""

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.lifecycle.port}"

    @property
    def held(self) -> int:
        """Requests in it, running and waiting."""
        return self.driver.engine.num_running + self.driver.engine.num_waiting

    async def fault(self, **faults: object) -> None:
        """Switch faults on."""
        changed, _ = read_change(self.driver.faults, msgspec.json.encode(faults))
        self.lifecycle.set_faults(changed)
        await self.lifecycle.settle()

    async def heal(self) -> None:
        """Switch all faults off; a dead engine lives again."""
        self.lifecycle.set_faults(Faults())
        if self.driver.dead:
            self.lifecycle.restart()
        await self.lifecycle.settle()


def _remember(seen: list[tuple[str, str, bytes]]) -> Middleware:
    @web.middleware
    async def remember(request: web.Request, handler: Handler) -> web.StreamResponse:
        seen.append((request.method, request.path_qs, await request.read()))
        return await handler(request)

    return remember


@asynccontextmanager
async def local_engine(
    model: str = "demo", *, keeps_responses: bool = False, **spec: int
) -> AsyncIterator[LocalEngine]:
    """An engine on a free port; `spec` changes the demo's, as max_model_len=100."""
    driver = Driver(replace(EngineSpec.demo(), **spec).faster(SPEED), model)
    identity = Identity([model], model, "0.32.0", "vllm-0.32.0", (), keeps_responses)
    app = HttpApi(driver, identity, random.Random(0)).app()
    seen: list[tuple[str, str, bytes]] = []
    app.middlewares.insert(0, _remember(seen))
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
    await runner.setup()
    lifecycle = Lifecycle(driver, runner, "127.0.0.1", 0)
    lifecycle.restart()
    await lifecycle.settle()
    async with TaskRunner() as tasks:
        tasks.forever("engine", driver.run())
        tasks.forever("port", lifecycle.run())
        engine = LocalEngine(driver, lifecycle, seen)
        try:
            yield engine
        finally:
            await engine.heal()  # nothing may hang, and a closed port is nobody's to close
            lifecycle.restart()  # which cuts all connections
            await runner.cleanup()
