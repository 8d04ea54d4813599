"""The control plane: wires its parts together and ends them in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import controlplane.experiments  # noqa: F401  # both before gRPC: see there
import trimtab  # noqa: F401

# isort: split
import grpc

from controlplane import http, listen, reload, service_identity, services
from controlplane.config import ControlConfig, from_args
from controlplane.core.placement import Placement
from controlplane.core.registry import STALE_S
from controlplane.leader import Alone, Candidate, Election, StoreElection
from controlplane.members import Members
from controlplane.metrics import ControlMetrics, read
from controlplane.seat import Seat
from controlplane.settings import Settings
from controlplane.store import open as open_store
from controlplane.store.protocol import Store
from controlplane.term import Office
from trimtab.runtime import log as runtime_log
from trimtab.runtime import rpc, service, telemetry
from trimtab.runtime.notify import notify, stay_alive
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner

STOP_GRACE_S = 1.0
ANYWHERE = ("0.0.0.0:", "[::]:", ":")
GARBAGE_EVERY = 50_000  # objects: one edge's report has a thousand, and none is ever in a cycle
REPORTS_MISSED = 4  # this many periods without a report are silence
log = logging.getLogger("controlplane")


async def serve(config: ControlConfig) -> None:
    """Run until a signal."""
    await serve_until(service.stop_event(), config)


async def serve_until(
    stop: asyncio.Event, config: ControlConfig, shared: Store | None = None
) -> None:
    """Run until told to stop; with a `shared` store, one of its users leads. Raises ConfigError."""
    listen.prepare(config.listen)
    listen.prepare(config.admin_socket)
    if shared is not None:
        await _serve(stop, config, shared, _election(config, shared))
        return
    async with open_store.opened(config, stop) as store:
        if store is not None:
            election = _election(config, store) if config.etcd else Alone()
            await _serve(stop, config, store, election)


def _election(config: ControlConfig, store: Store) -> StoreElection:
    if config.advertise.startswith(ANYWHERE):
        raise ConfigError(f"others can't reach us at {config.advertise}: --advertise HOST:PORT")
    return StoreElection(store, Candidate(config.name, config.advertise))


async def _serve(
    stop: asyncio.Event, config: ControlConfig, store: Store, election: Election
) -> None:
    settings = _settings(config)
    seat = Seat(settings, store)
    members = await Members.open(config.tls, store) if config.tls else None
    server = await _bind(config, seat, members)
    async with TaskRunner() as runner:
        runner.forever("watchdog", stay_alive())
        if members:
            members.guard.on_refused = seat.turned_away
            await members.start(runner)
        office = runner.once("office", Office(settings, store, election, seat).run())
        metrics = ControlMetrics(lambda: read(seat.loop), members.identity if members else None)
        status = reload.follow(runner, config, settings, seat, metrics)
        log.info("serving", extra={"fields": {"listen": config.listen}})
        notify(ready=True, status=status)
        told = telemetry.told(config.otlp, metrics)
        async with told, http.serving(config.metrics, seat, metrics):
            await stop.wait()
        notify(stopping=True)
        if members:
            await members.stop()
        office.cancel()
        await asyncio.wait([office])
        await server.stop(STOP_GRACE_S)


def _settings(config: ControlConfig) -> Settings:
    return Settings(
        fleet=config.fleet,
        name=config.name,
        software_version=version("trimtab"),
        placement=Placement(config.pools, config.engines),
        keys=config.keys,
        policy=config.policy,
        stale_s=max(STALE_S, REPORTS_MISSED * config.report_period_s),
        node=config.node,
        others=config.settings,
        remediation=config.remediation,
        store="etcd" if config.etcd else "embedded",
    )


async def _bind(config: ControlConfig, seat: Seat, members: Members | None) -> grpc.aio.Server:
    names: tuple[str, ...] = services.NAMES
    identity, guards = (members.identity, [members.guard]) if members else (None, [])

    def register(server: grpc.aio.Server) -> None:
        services.register(seat, server, identity)
        if members:
            members.register(server)

    if members:
        names = (*names, *service_identity.NAMES)
    try:
        server = await rpc.serve(
            config.listen, names, register, identity, guards, config.admin_socket
        )
    except OSError as error:
        raise ConfigError(str(error)) from error
    for address in (config.listen, config.admin_socket):
        listen.protect(address)
    return server


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
