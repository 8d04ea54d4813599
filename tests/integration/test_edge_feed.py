"""The edge's stream to its control plane over real gRPC, and its life without one."""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from edge import snapshot_file
from edge.admission import Admission
from edge.config import EdgeConfig
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.feed import Feed
from edge.metrics import EdgeMetrics
from tests.fakes.edge import routes
from tests.fakes.wait import until
from trimtab.codec import decode_body, encode_update
from trimtab.model import (
    Ack,
    ApiKey,
    Credit,
    Credits,
    Delta,
    EdgeHello,
    EdgeReport,
    EdgeUpdate,
    Pool,
    ReplicaUse,
    Serving,
    Snapshot,
    SteadyUse,
)
from trimtab.policy import autonomy
from trimtab.policy.autonomy import Mode
from trimtab.runtime import rpc
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import edge_pb2, edge_pb2_grpc

ROUTES = routes(["http://127.0.0.1:1"])
SNAPSHOT = Snapshot((Pool("demo"),), ROUTES, (ApiKey(b"k" * 32, "key"),))
CREDITS = Credits((Credit("r0", 8),))


class FakePusher(edge_pb2_grpc.EdgeServiceServicer):
    """A control plane that pushes what the test says and keeps what edges say."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._outbox: asyncio.Queue[edge_pb2.EdgeUpdate] = asyncio.Queue()

    def push(self, term: int, version: int, body: Snapshot | Delta | Credits) -> None:
        self.push_message(encode_update(EdgeUpdate(term, version, version, body)))

    def push_message(self, message: edge_pb2.EdgeUpdate) -> None:
        self._outbox.put_nowait(message)

    def all(self, kind: type) -> list[object]:
        return [message for message in self.heard if isinstance(message, kind)]

    async def Watch(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[edge_pb2.EdgeMessage],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[edge_pb2.EdgeUpdate]:
        async with TaskRunner() as runner:
            runner.forever("listen", self._listen(request_iterator))
            while True:
                yield await self._outbox.get()

    async def _listen(self, messages: AsyncIterator[edge_pb2.EdgeMessage]) -> None:
        async for message in messages:
            self.heard.append(decode_body(message))
        await asyncio.Event().wait()


@asynccontextmanager
async def pushing(target: str) -> AsyncIterator[FakePusher]:
    fake = FakePusher()

    def register(server: grpc.aio.Server) -> None:
        edge_pb2_grpc.add_EdgeServiceServicer_to_server(fake, server)

    server = await rpc.serve(target, ["trimtab.v1.EdgeService"], register)
    try:
        yield fake
    finally:
        await server.stop(grace=None)


@asynccontextmanager
async def following(
    target: str, state: pathlib.Path
) -> AsyncIterator[tuple[Feed, RoutingTable, Dispatch]]:
    config = EdgeConfig("e1", "127.0.0.1", 1, "127.0.0.1", 2, target, state)
    table = RoutingTable()
    dispatch = Dispatch(table, random.Random(0))
    feed = Feed(config, table, dispatch, Admission(table, dispatch), EdgeMetrics())
    feed.restore()
    async with TaskRunner() as runner:
        runner.forever("feed", feed.run())
        runner.forever("file", feed.save_forever())
        runner.forever("listen", feed.listen_forever())
        yield feed, table, dispatch


@pytest.fixture
def target(tmp_path: pathlib.Path) -> str:
    return f"unix:{tmp_path}/c.sock"


async def test_hello_then_every_update_is_acked_and_reports_follow(
    target: str, tmp_path: pathlib.Path
) -> None:
    async with pushing(target) as pusher, following(target, tmp_path) as (_, table, _):
        await until(lambda: bool(pusher.heard))
        hello = pusher.heard[0]
        assert isinstance(hello, EdgeHello)
        assert (hello.edge, hello.term, hello.version) == ("e1", 0, 0)
        pusher.push(1, 1, SNAPSHOT)
        pusher.push(1, 2, CREDITS)
        closed = replace(ROUTES[0], serving=Serving.CLOSED)
        pusher.push(1, 3, Delta(1, routes=(closed,)))
        await until(lambda: len(pusher.all(Ack)) == 3)
        assert pusher.all(Ack) == [Ack(1), Ack(2), Ack(3)]
        assert table.routes("demo") == (closed,)
        await until(lambda: len(pusher.all(EdgeReport)) >= 2)
        sequence = [r.seq for r in pusher.all(EdgeReport) if isinstance(r, EdgeReport)]
        assert sequence == sorted(set(sequence))


async def test_steady_use_is_told_as_columns_to_who_reads_them(
    target: str, tmp_path: pathlib.Path
) -> None:
    async with pushing(target) as pusher, following(target, tmp_path) as (_, table, dispatch):

        def told() -> list[tuple[object, object]]:
            reports = [r for r in pusher.all(EdgeReport) if isinstance(r, EdgeReport)]
            return [(r.replicas, r.steady) for r in reports]

        pusher.push(1, 1, SNAPSHOT)
        await until(lambda: table.ready)
        dispatch.replica("r0").inflight = 2
        await until(lambda: ((ReplicaUse("r0", 2),), None) in told())
        newer = encode_update(EdgeUpdate(1, 2, 2, CREDITS))
        newer.reads_steady = True
        pusher.push_message(newer)
        await until(lambda: ((), SteadyUse(("r0",), (2,), (0,))) in told())


async def test_what_is_refused_is_said_and_changes_nothing(
    target: str, tmp_path: pathlib.Path
) -> None:
    async with pushing(target) as pusher, following(target, tmp_path) as (_, table, _):
        pusher.push(2, 5, SNAPSHOT)
        pusher.push(1, 9, Snapshot())
        pusher.push(2, 6, Delta(4, routes_gone=("r0",)))
        await until(lambda: len(pusher.all(Ack)) == 3)
        errors = [ack.error for ack in pusher.all(Ack) if isinstance(ack, Ack)]
        assert errors[0] == ""
        assert "stale" in errors[1]
        assert "delta on version 4" in errors[2]
        assert table.snapshot == SNAPSHOT


async def test_a_lost_control_plane_changes_nothing_and_a_new_one_is_found(
    target: str, tmp_path: pathlib.Path
) -> None:
    async with following(target, tmp_path) as (feed, table, dispatch):
        async with pushing(target) as pusher:
            pusher.push(1, 1, SNAPSHOT)
            pusher.push(1, 2, CREDITS)
            await until(lambda: table.version == 2)
        await until(lambda: not feed.connected)
        assert dispatch.has_open("demo")
        async with pushing(target) as pusher:
            await until(lambda: bool(pusher.heard))
            hello = pusher.heard[0]
            assert isinstance(hello, EdgeHello)
            assert (hello.term, hello.version) == (1, 2)
            pusher.push(2, 1, Snapshot())
            await until(lambda: table.term == 2)


async def test_a_silent_control_plane_is_done_without_until_it_speaks_again(
    target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autonomy, "HOLD_AFTER_S", 0.1)
    monkeypatch.setattr(autonomy, "AUTONOMOUS_AFTER_S", 0.3)
    async with pushing(target) as pusher, following(target, tmp_path) as (feed, _, dispatch):
        pusher.push(1, 1, SNAPSHOT)
        pusher.push(1, 2, Credits((Credit("r0", 8, limit_slots=20),)))
        lease = dispatch.replica("r0").lease
        await until(lambda: lease.slots == 8)  # connected, but nothing is said
        assert feed.connected
        assert [dispatch.mode] == [Mode.AUTONOMOUS]
        pusher.push(1, 3, SNAPSHOT)
        pusher.push(1, 4, Credits((Credit("r0", 5),)))
        await until(lambda: lease.slots is None)
        assert dispatch.mode is Mode.NORMAL


async def test_a_restarted_edge_without_a_control_plane_floats_the_credits_on_disk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autonomy, "AUTONOMOUS_AFTER_S", 0.3)
    table = RoutingTable()
    table.apply(EdgeUpdate(3, 1, 0, SNAPSHOT))
    table.apply(EdgeUpdate(3, 2, 0, Credits((Credit("r0", 8, limit_slots=20),))))
    snapshot_file.save(tmp_path / "edge-e1.snapshot", snapshot_file.render(table))
    async with following(f"unix:{tmp_path}/nobody.sock", tmp_path) as (_, _, dispatch):
        lease = dispatch.replica("r0").lease
        await until(lambda: lease.slots == 8)
        for _ in range(20):
            lease.began(0.1, 20, 0.0)
        assert lease.slots == 20


async def test_a_restarted_edge_serves_the_snapshot_on_disk(
    target: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "edge-e1.snapshot"
    async with pushing(target) as pusher, following(target, tmp_path) as (_, table, _):
        pusher.push(3, 1, SNAPSHOT)
        pusher.push(3, 2, CREDITS)
        await until(lambda: table.version == 2)
        content = snapshot_file.render(table)
        await until(lambda: file.exists() and file.read_bytes() == content)
    assert file.stat().st_mode & 0o077 == 0
    async with following(f"unix:{tmp_path}/nobody.sock", tmp_path) as (feed, table, dispatch):
        await feed.settle()
        assert feed.fresh.is_set()
        assert table.term == 3
        assert table.snapshot == SNAPSHOT
        assert table.credits["r0"].slots == 8
        assert dispatch.has_open("demo")


async def test_a_push_is_preferred_to_the_snapshot_on_disk(
    target: str, tmp_path: pathlib.Path
) -> None:
    table = RoutingTable()
    table.apply(EdgeUpdate(3, 1, 0, Snapshot()))
    snapshot_file.save(tmp_path / "edge-e1.snapshot", snapshot_file.render(table))
    async with pushing(target) as pusher, following(target, tmp_path) as (feed, table, _):
        pusher.push(3, 7, SNAPSHOT)
        await feed.settle()
        assert table.snapshot == SNAPSHOT


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"\x00\x00\x00\xffgarbage", b"\x00" * 8])
async def test_a_damaged_file_is_as_good_as_none(tmp_path: pathlib.Path, content: bytes) -> None:
    file = tmp_path / "damaged"
    file.write_bytes(content)
    table = RoutingTable()
    assert snapshot_file.restore(file, table) is False
    assert not table.ready
