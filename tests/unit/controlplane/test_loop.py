"""The shell without the wire: what it does when the store, the configuration or a peer is bad."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from controlplane import loop as loop_module
from controlplane import saver
from controlplane.core import audit
from controlplane.core.audit import Deed
from controlplane.core.placement import Placement
from controlplane.core.records import EVENTS
from controlplane.leader import DeposedError, Tenure
from controlplane.loop import ControlLoop
from controlplane.settings import Settings
from controlplane.steering import set_intents
from controlplane.store.protocol import Compare, Op, StoreError, TxnResult
from controlplane.streams import OUTBOX_LIMIT, AgentStream, EdgeStream
from tests.fakes.clock import FakeClock
from tests.fakes.peers import facts, sample
from tests.fakes.store import FakeStore
from tests.fakes.wait import until
from trimtab.model import (
    EdgeHello,
    EdgePolicy,
    EdgeUpdate,
    Intent,
    NodeHello,
    Pool,
    Refused,
    Report,
    Serving,
    Snapshot,
)
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner
from trimtab.steered import Order

ADA = Order("ada", "fan", outage_ok=True)
DEED = Deed(ADA, "restore")
SETTINGS = Settings("lab", "cp1", "0", Placement(()), (), EdgePolicy(), stale_s=2.0)


def make(store: FakeStore, *pools: Pool) -> ControlLoop:
    return ControlLoop(
        replace(SETTINGS, placement=Placement(pools)), store, term=1, tenure=Tenure()
    )


@asynccontextmanager
async def running(control: ControlLoop) -> AsyncIterator[ControlLoop]:
    async with TaskRunner() as runner:
        runner.forever("control", control.run())
        yield control


def serve(control: ControlLoop, replica: str = "r1") -> AgentStream:
    agent = control.open_agent()
    control.agent_said(agent, NodeHello("n1"))
    control.agent_said(agent, facts(replica))
    control.agent_said(agent, Report(1, (sample(replica),)))
    return agent


def connect(control: ControlLoop, name: str = "e1") -> EdgeStream:
    edge = control.open_edge()
    control.edge_said(edge, EdgeHello(name))
    return edge


class Taken:
    """What an edge would have been sent so far."""

    def __init__(self, control: ControlLoop, edge: EdgeStream) -> None:
        self._control, self._edge = control, edge
        self.updates: list[EdgeUpdate] = []

    def holds(self, replica: str, serving: Serving) -> bool:
        """Whether a snapshot says so."""
        self.updates += self._control.updates(self._edge)
        return any(
            (route.replica, route.serving) == (replica, serving)
            for update in self.updates
            if isinstance(update.body, Snapshot)
            for route in update.body.routes
        )


async def test_a_broken_store_stops_no_push() -> None:
    store = FakeStore()
    store.error = "disk full"
    async with running(make(store)) as control:
        serve(control)
        taken = Taken(control, connect(control))
        await until(lambda: taken.holds("r1", Serving.OPEN))
        with pytest.raises(StoreError, match="disk full"):
            await set_intents(control, ["r1"], Intent.CORDONED, ADA)
        assert control.fleet().replicas[0].intent is Intent.ACTIVE
        with pytest.raises(StoreError, match="disk full"):
            await control.flush()
        store.error = ""
        await until(lambda: "trimtab/replicas/r1" in store.entries)


async def test_a_store_that_hangs_stops_no_push_and_what_it_refused_stays_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(saver, "WRITE_DEADLINE_S", 0.01)
    store = FakeStore()
    async with running(make(store)) as control:
        store.answers.clear()
        serve(control)
        taken = Taken(control, connect(control))
        await until(lambda: taken.holds("r1", Serving.OPEN))
        with pytest.raises(StoreError, match=r"not answered in 0 s: is its disk slow\?"):
            await set_intents(control, ["r1"], Intent.CORDONED, ADA)
        store.answers.set()
        await until(lambda: "trimtab/replicas/r1" in store.entries)
        await control.flush()
        store.answers.clear()
        with pytest.raises(StoreError, match="not answered"):
            await set_intents(control, ["r1"], Intent.CORDONED, ADA)
        assert "trimtab/intents/r1" in store.entries, "it came through, and nobody was told"
        store.answers.set()
        await until(lambda: "trimtab/intents/r1" not in store.entries)
        assert control.fleet().replicas[0].intent is Intent.ACTIVE


async def test_a_snapshot_that_contradicts_itself_is_not_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    async with running(make(FakeStore(), Pool("a"), Pool("b", ("a",)))) as control:
        edge = connect(control)
        serve(control)
        serve(control, "r2")
        await until(lambda: bool(control.fleet().replicas[0].weight) and edge.wake.is_set())
        await until(lambda: "snapshot not published; edges keep the last" in caplog.messages)
        assert [u for u in control.updates(edge) if isinstance(u.body, Snapshot)] == []
    assert caplog.messages == ["snapshot not published; edges keep the last"]


async def test_those_who_say_nothing_or_never_ack_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeClock()
    monkeypatch.setattr(clock, "now_s", fake)
    async with running(make(FakeStore())) as control:
        mute, edge = control.open_agent(), connect(control)
        await until(lambda: bool(control.updates(edge)))
        fake.advance(10.5)
        await until(lambda: mute.reason != "" and edge.reason != "")
    assert mute.reason == "no hello for 10 s"
    assert edge.reason == "an update was not acked in time"


async def test_streams_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STREAM_LIMIT", 1)
    control = make(FakeStore())
    assert control.open_agent().reason == ""
    assert control.open_edge().reason == "too many streams"


async def test_an_agent_that_does_not_read_is_dropped() -> None:
    control = make(FakeStore())
    agent = control.open_agent()
    control.agent_said(agent, NodeHello("n1"))
    for number in range(OUTBOX_LIMIT):
        agent.tell(Refused(str(number)))
    assert agent.reason == ""
    control.agent_said(agent, facts("r1", url="bad"))
    assert agent.reason == "the agent does not read its directives"


@pytest.mark.parametrize(
    ("hello", "after"),
    [
        (EdgeHello("e", term=0), (1, 1)),
        (EdgeHello("e", term=1, version=41), (1, 42)),
        (EdgeHello("e", term=9, version=41), (10, 1)),
    ],
)
async def test_pushes_are_newer_than_what_the_edge_has(
    hello: EdgeHello, after: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeClock()
    monkeypatch.setattr(clock, "now_s", fake)
    async with running(make(FakeStore())) as control:
        edge = control.open_edge()
        control.edge_said(edge, hello)
        fake.advance(5.0)
        updates: list[EdgeUpdate] = []

        def something_came() -> bool:
            updates.extend(control.updates(edge))
            return bool(updates)

        await until(something_came)
    assert (updates[0].term, updates[0].version) == after


class BreakingStore(FakeStore):
    """Takes so many more transactions; None: any number."""

    left: int | None = None

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        if self.left is not None:
            if not self.left:
                raise StoreError("gone")
            self.left -= 1
        return await super().txn(compares, successes, failures)


async def test_a_restore_that_broke_off_changes_no_routing_and_is_repeated() -> None:
    store = BreakingStore()
    control = make(store)
    agent = serve(control)
    wanted = {f"trimtab/intents/r{number}": b'{"intent":2}' for number in range(200)}
    store.left = 1
    with pytest.raises(StoreError):
        await control.restore(wanted, DEED, preview=False)
    assert 0 < len(store.entries) < 200
    assert [view.intent for view in control.fleet().replicas] == [Intent.ACTIVE]
    assert agent.reason == ""
    store.left = None
    await control.restore(wanted, DEED, preview=False)
    others = store.entries.keys() - wanted.keys()
    assert others == {"trimtab/term", "trimtab/schema", audit.NEWEST_KEY, audit.key(1)}
    assert agent.reason == "the state was restored: connect again"
    serve(control)
    assert [view.intent for view in control.fleet().replicas] == [Intent.CORDONED]


async def test_what_waited_to_be_stored_is_not_stored_over_a_restore() -> None:
    store = FakeStore()
    control = make(store)
    agent = serve(control)  # its record waits
    await control.restore({}, DEED, preview=False)
    control.agent_said(agent, facts("late"))  # its stream is ending
    await control.flush()
    kept = {key for key in store.entries if not key.startswith(EVENTS)}
    assert kept == {"trimtab/term", "trimtab/schema", audit.NEWEST_KEY, audit.key(1)}


async def test_who_leads_no_longer_pushes_and_promises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, store = FakeClock(), FakeStore()
    monkeypatch.setattr(clock, "now_s", fake)
    tenure = Tenure(until_s=fake.now_s + 1.0)
    control = ControlLoop(SETTINGS, store, 1, tenure)
    async with running(control):
        edge = connect(control)
        serve(control)
        await until(lambda: edge.wake.is_set() and "trimtab/replicas/r1" in store.entries)
        fake.advance(1.0)  # the process was paused, and goes on where it was
        assert control.updates(edge) == []
        with pytest.raises(DeposedError):
            await set_intents(control, ["r1"], Intent.CORDONED, ADA)
        assert list(store.entries) == ["trimtab/replicas/r1"]
        tenure.until_s = fake.now_s + 1.0
        assert control.updates(edge) != []
