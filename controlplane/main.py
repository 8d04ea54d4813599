"""The control plane: wires its parts together and ends them in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import trimtab  # noqa: F401  # before gRPC: see there

# isort: split
import grpc

from controlplane import listen, service_admin, service_agent, service_edge, state
from controlplane.config import ControlConfig, from_args
from controlplane.core.placement import Placement
from controlplane.core.registry import STALE_S
from controlplane.loop import ControlLoop, Settings
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.protocol import StoreError
from trimtab.runtime import clock, rpc, service
from trimtab.runtime import log as runtime_log
from trimtab.runtime.notify import notify
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import admin_pb2_grpc, agent_pb2_grpc, edge_pb2_grpc

SERVICES = (service_agent.NAME, service_edge.NAME, service_admin.NAME)
STOP_GRACE_S = 1.0
GARBAGE_EVERY = 50_000  # objects: one edge's report has a thousand, and none is ever in a cycle
REPORTS_MISSED = 4  # this many periods without a report are silence
log = logging.getLogger("controlplane")


async def serve(config: ControlConfig) -> None:
    """Run until a signal."""
    await serve_until(service.stop_event(), config)


async def serve_until(stop: asyncio.Event, config: ControlConfig) -> None:
    """Run until told to stop; raises ConfigError."""
    listen.prepare(config.listen)
    try:
        store = await EmbeddedStore.open(config.store, clock.now_s)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    try:
        async with TaskRunner() as runner:
            runner.forever("lease expiry", store.expire_leases())
            loop = ControlLoop(_settings(config), store, await state.next_term(store))
            loop.load(await state.load(store))
            server = await _bind(config.listen, loop)
            runner.forever("control loop", loop.run())
            log.info("serving", extra={"fields": {"listen": config.listen}})
            notify(ready=True, status=f"serving on {config.listen}")
            await stop.wait()
            notify(stopping=True)
            await _end(loop, server)
    finally:
        await store.close()


def _settings(config: ControlConfig) -> Settings:
    return Settings(
        fleet=config.fleet,
        name=config.name,
        software_version=version("trimtab"),
        placement=Placement(config.pools, config.engines),
        keys=config.keys,
        policy=config.policy,
        stale_s=max(STALE_S, REPORTS_MISSED * config.report_period_s),
    )


async def _bind(address: str, loop: ControlLoop) -> grpc.aio.Server:
    def register(server: grpc.aio.Server) -> None:
        agent_pb2_grpc.add_AgentServiceServicer_to_server(service_agent.AgentService(loop), server)
        edge_pb2_grpc.add_EdgeServiceServicer_to_server(service_edge.EdgeService(loop), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(service_admin.AdminService(loop), server)

    try:
        server = await rpc.serve(address, SERVICES, register)
    except OSError as error:
        raise ConfigError(str(error)) from error
    listen.protect(address)
    return server


async def _end(loop: ControlLoop, server: grpc.aio.Server) -> None:
    try:
        await loop.stop()
    except StoreError as error:
        log.warning("not everything was stored", extra={"fields": {"error": str(error)}})
    await server.stop(STOP_GRACE_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status."""
    runtime_log.configure("controlplane")
    gc.set_threshold(GARBAGE_EVERY)
    os.umask(0o077)  # the socket and the store are ours alone from their first moment
    try:
        config = from_args(argv)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return service.EXIT_CONFIG
    return service.run(serve(config))


if __name__ == "__main__":
    raise SystemExit(main())
