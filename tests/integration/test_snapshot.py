"""Saved and restored over the wire, into a control plane that runs: no restart, nothing lost."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from controlplane.core import audit
from controlplane.migrations import SCHEMA
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.protocol import Put
from tests.fakes.peers import fake_agent, fake_edge
from tests.fakes.running_control_plane import admin, config, running
from tests.fakes.wait import until
from trimtab.model import EdgeHello, Intent, Serving
from trimtab.runtime import clock
from trimtab.v1 import admin_pb2, admin_pb2_grpc

DEADLINE_S = 60.0
Stub = admin_pb2_grpc.AdminServiceStub


@pytest.fixture
async def target(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    async with running(config(tmp_path)) as address:
        yield address


async def ctl(target: str, *words: str) -> str:
    """What the real ctl prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ctl", "-s", target, "snapshot", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def saved(stub: Stub) -> dict[str, bytes]:
    parts = [part async for part in stub.SaveState(admin_pb2.SaveStateRequest())]
    assert parts[0].header.schema == SCHEMA
    records = {record.key: record.value for part in parts for record in part.records}
    assert parts[0].header.records == len(records)
    return records


async def restore(stub: Stub, records: dict[str, bytes], **order: Any) -> Any:
    parts = [admin_pb2.StateRecord(key=key, value=value) for key, value in records.items()]
    values: dict[str, Any] = {"expected": len(parts), "actor": "ada", "records": parts, **order}
    return await stub.RestoreState(iter([admin_pb2.RestoreStateRequest(**values)]))


async def cordon(stub: Stub, replica: str) -> None:
    fields: dict[str, Any] = {"replica": replica, "intent": Intent.CORDONED, "actor": "ada"}
    await stub.SetIntent(admin_pb2.SetIntentRequest(**fields))


async def test_a_restore_takes_effect_at_once(target: str, tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "state.jsonl")
    async with AsyncExitStack() as stack:
        stub = await stack.enter_async_context(admin(target))
        agent = await stack.enter_async_context(fake_agent(target))
        edge = await stack.enter_async_context(fake_edge(target))
        await agent.serve("r1", "r2")
        await edge.until_serving("r2", Serving.OPEN)
        await cordon(stub, "r1")
        await edge.until_serving("r1", Serving.CLOSED)
        await ctl(target, "save", file)
        await cordon(stub, "r2")
        await edge.until_serving("r2", Serving.CLOSED)

        said = await ctl(target, "restore", file, "--yes")
        assert said == "fleet test restored: 0 records added, 0 changed, 1 removed\n"
        await until(lambda: edge.error is not None and agent.error is not None)
        assert edge.error is not None
        assert edge.error.code() is grpc.StatusCode.UNAVAILABLE

        last = edge.updates[-1]
        hello = EdgeHello("e1", instance="e1", term=last.term, version=last.version)
        again = await stack.enter_async_context(fake_edge(target, hello=hello))
        await again.until_serving("r2", Serving.OPEN)  # its cordon is gone, nobody reported
        assert again.serving("r1") is Serving.CLOSED
        first = again.updates[0]
        assert (first.term, first.version) > (last.term, last.version)
        returned = await stack.enter_async_context(fake_agent(target, instance="j"))
        await returned.serve("r1", "r2")
        await until(lambda: "before the restart" not in again.reason("r2"))


async def test_a_restore_leaves_exactly_what_it_was_given(target: str) -> None:
    async with admin(target) as stub, fake_agent(target) as agent, fake_edge(target) as edge:
        before = await saved(stub)
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        await cordon(stub, "r1")
        many = {f"trimtab/intents/x{number}": b"{}" for number in range(300)}
        wanted = {**before, **many}
        preview = await restore(stub, wanted, preview=True)
        assert (preview.added, preview.changed, preview.fleet) == (300, 0, "test")
        assert not many.keys() & (await saved(stub)).keys()
        agent.call.cancel()
        done = await restore(stub, wanted)
        assert (done.added, done.removed) == (300, 2)
        now = await saved(stub)
        record = {name: value for name, value in now.items() if name.startswith("trimtab/audit")}
        assert now == {**wanted, "trimtab/term": b"2", **record}
        assert record.keys() == {audit.NEWEST_KEY, audit.key(1), audit.key(2)}, "cordon, restore"
        assert not (await stub.GetFleet(admin_pb2.GetFleetRequest())).fleet.replicas


async def test_the_term_never_falls(target: str) -> None:
    async with admin(target) as stub:
        state = await saved(stub)
        for term, after in ((b"41", 42), (b"7", 42), (b"42", 43)):
            await restore(stub, {**state, "trimtab/term": term})
            fleet = (await stub.GetFleet(admin_pb2.GetFleetRequest())).fleet
            assert fleet.term == after
            assert (await saved(stub))["trimtab/term"] == b"%d" % after


@pytest.mark.parametrize(
    ("records", "order", "words"),
    [
        ({}, {"expected": 1}, "1 records were announced and 0 came"),
        ({}, {"actor": ""}, "actor must say who asks"),
        ({"else/where": b""}, {}, "does not begin with trimtab/"),
        ({"trimtab/" + "x" * 1024: b""}, {}, "a key has 1 to 1024 bytes"),
        ({"trimtab/x": bytes(1024 * 1024 + 1)}, {}, "a value holds at most 1048576 bytes"),
        ({"trimtab/schema": b'{"version":9,"compatible_from":9}'}, {}, "needs software that knows"),
    ],
)
async def test_what_cannot_be_restored_changes_nothing(
    target: str, records: dict[str, bytes], order: dict[str, Any], words: str
) -> None:
    async with admin(target) as stub:
        before = await saved(stub)
        with pytest.raises(grpc.aio.AioRpcError, match="nothing was changed") as caught:
            await restore(stub, records, **order)
        assert words in str(caught.value.details())
        assert await saved(stub) == before


async def test_a_newer_schema_stops_the_start(tmp_path: pathlib.Path) -> None:
    store = await EmbeddedStore.open(tmp_path / "trimtab.db", clock.now_s)
    await store.txn([], [Put("trimtab/schema", b'{"version":9,"compatible_from":8}')])
    await store.close()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controlplane", "--listen", f"unix:{tmp_path}/c.sock"),
        *("--store", str(tmp_path / "trimtab.db")),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        _, err = await process.communicate()
    assert process.returncode == 64
    assert "needs software that knows schema 8 or newer; this one knows 1" in err.decode()
