"""A real control plane inside the test's event loop, on a unix socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

from controlplane import main
from controlplane.config import ControlConfig
from controlplane.store.protocol import Store
from trimtab.model import ApiKey, EdgePolicy
from trimtab.runtime import rpc
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import admin_pb2_grpc


def config(directory: pathlib.Path, **changes: Any) -> ControlConfig:
    """A control plane whose state is in a directory."""
    values: dict[str, Any] = {
        "fleet": "test",
        "name": "cp1",
        "listen": f"unix:{directory}/control.sock",
        "store": directory / "trimtab.db",
        "report_period_s": 0.5,
        "pools": (),
        "engines": (),
        "keys": (ApiKey(hashlib.sha256(b"sk-test").digest(), "test"),),
        "policy": EdgePolicy(),
    }
    values |= changes
    return ControlConfig(**{"advertise": values["listen"], **values})


@contextlib.asynccontextmanager
async def running(settings: ControlConfig, shared: Store | None = None) -> AsyncIterator[str]:
    """Run it for the length of the block; yields its gRPC target."""
    stop = asyncio.Event()
    async with TaskRunner() as runner:
        served = runner.once("control plane", main.serve_until(stop, settings, shared))
        try:
            async with rpc.channel(settings.admin_socket or settings.listen) as channel:
                await channel.channel_ready()
            yield settings.listen
        finally:
            stop.set()
            await served


@contextlib.asynccontextmanager
async def admin(target: str) -> AsyncIterator[admin_pb2_grpc.AdminServiceStub]:
    """An operator's connection."""
    async with rpc.channel(target) as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel)
