"""A control plane for one edge: a snapshot at first, then credits twice a second."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from bench.goodput.client import KEY, MODEL
from edge.core.openai import key_hash
from trimtab.codec import encode_update
from trimtab.model import ApiKey, Credit, Credits, EdgeUpdate, Pool, Route, Serving, Snapshot
from trimtab.runtime import rpc
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import edge_pb2, edge_pb2_grpc

SLOTS = 4_096
PERIOD_S = 0.5


class Control(edge_pb2_grpc.EdgeServiceServicer):
    """Pushes; what the edge reports is read and forgotten."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._routes = tuple(
            Route(f"r{i}", MODEL, "node", url, MODEL, Serving.OPEN, "ready", 131_072)
            for i, url in enumerate(urls)
        )

    async def Watch(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[edge_pb2.EdgeMessage],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[edge_pb2.EdgeUpdate]:
        """One edge's stream."""
        async with TaskRunner() as runner:
            runner.forever("listen", _forget(request_iterator))
            keys = (ApiKey(key_hash(KEY), "bench"),)
            yield encode_update(EdgeUpdate(1, 1, 1, Snapshot((Pool(MODEL),), self._routes, keys)))
            room = Credits(
                tuple(Credit(r.replica, SLOTS, 1.0, 10, 0, 200, SLOTS) for r in self._routes)
            )
            for version in itertools.count(2):
                yield encode_update(EdgeUpdate(1, version, version, room))
                await asyncio.sleep(PERIOD_S)


async def _forget(messages: AsyncIterator[edge_pb2.EdgeMessage]) -> None:
    async for _ in messages:
        pass
    await asyncio.Event().wait()


@asynccontextmanager
async def control(target: str, urls: Sequence[str]) -> AsyncIterator[None]:
    """Serve for as long as the block lasts."""

    def register(server: grpc.aio.Server) -> None:
        edge_pb2_grpc.add_EdgeServiceServicer_to_server(Control(urls), server)

    server = await rpc.serve(target, ["trimtab.v1.EdgeService"], register)
    try:
        yield
    finally:
        await server.stop(None)
