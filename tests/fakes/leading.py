"""A leader in the test's process, with its loop in reach, that serves its peers over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

import grpc

from controlplane import main, service_admin, service_agent, service_edge, service_whatif
from controlplane.core.placement import Placement
from controlplane.leader import Tenure
from controlplane.loop import ControlLoop, Settings
from controlplane.seat import Seat
from tests.fakes.store import FakeStore
from trimtab.model import EdgePolicy
from trimtab.runtime import rpc
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import admin_pb2_grpc, agent_pb2_grpc

SETTINGS = Settings("lab", "cp1", "0.1.0", Placement(()), (), EdgePolicy(), stale_s=2.0)


@contextlib.asynccontextmanager
async def leading(
    directory: pathlib.Path, settings: Settings = SETTINGS, store: FakeStore | None = None
) -> AsyncIterator[tuple[str, ControlLoop]]:
    """Lead for the length of the block; yields the gRPC target and the loop."""
    store = store or FakeStore()
    seat = Seat(settings, store)
    loop = ControlLoop(settings, store, term=1, tenure=Tenure())

    def register(server: grpc.aio.Server) -> None:
        agent_pb2_grpc.add_AgentServiceServicer_to_server(service_agent.AgentService(seat), server)
        service_edge.register(service_edge.EdgeService(seat), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(service_admin.AdminService(seat), server)
        service_whatif.register(seat, server)

    target = f"unix:{directory}/control.sock"
    server = await rpc.serve(target, main.SERVICES, register)
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
