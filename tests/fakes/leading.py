"""A leader in the test's process, with its loop in reach, that serves its peers over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from functools import partial

from controlplane import services, state
from controlplane.core.placement import Placement
from controlplane.leader import Tenure
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.settings import Settings
from tests.fakes.store import FakeStore
from trimtab.model import EdgePolicy
from trimtab.runtime import rpc
from trimtab.runtime.tasks import TaskRunner

SETTINGS = Settings("lab", "cp1", "0.1.0", Placement(()), (), EdgePolicy(), stale_s=2.0)


@contextlib.asynccontextmanager
async def leading(
    directory: pathlib.Path, settings: Settings = SETTINGS, store: FakeStore | None = None
) -> AsyncIterator[tuple[str, ControlLoop]]:
    """Lead for the length of the block; yields the gRPC target and the loop."""
    store = store or FakeStore()
    seat = Seat(settings, store)
    loop = ControlLoop(settings, store, term=1, tenure=Tenure())
    loop.load(await state.load(store))

    target = f"unix:{directory}/control.sock"
    server = await rpc.serve(target, services.NAMES, partial(services.register, seat))
    async with TaskRunner() as runner:
        leads = runner.once("control plane", loop.run())
        seat.take(loop)
        try:
            yield target, loop
        finally:
            loop.end("the test is over")
            await server.stop(0)
            leads.cancel()
            await asyncio.wait([leads])
            await loop.flush()
