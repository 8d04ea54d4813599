"""The stream to the control plane: takes pushes, acks them, reports what the edge does.

Rules: losing it changes nothing for clients; the last table goes on, also over a restart (the
snapshot file, which counts only when no control plane answers soon); whoever does not lead names
the leader (runtime/targets), other reconnects back off with jitter; two reports a second, and one
at once when requests begin to wait; each is made when it is sent, so a slow stream never carries
old ones. Silence is noticed here, and makes the edge go on alone (policy/autonomy).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import random
import uuid
from collections.abc import AsyncIterator
from importlib.metadata import version

import grpc

from edge import snapshot_file
from edge.admission import Admission
from edge.config import EdgeConfig
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.core.uses import folded
from edge.metrics import EdgeMetrics
from edge.questions import Teller, answers
from trimtab.codec import WireError, decode_update, encode_body
from trimtab.model import Ack, Credits, EdgeHello, EdgeReport
from trimtab.policy.autonomy import Mode, Silence
from trimtab.runtime import clock, rpc
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.log import Trouble
from trimtab.runtime.targets import Targets, leader_named
from trimtab.v1 import edge_pb2, edge_pb2_grpc
from trimtab.v1.question_pb2 import EdgeQuestion

REPORT_PERIOD_S = 0.5
LISTEN_PERIOD_S = 0.25  # between two looks at how long nothing was heard
REPORT_GAP_S = 0.1  # between two reports, however pressing the second
SETTLE_S = 1.0  # after a start, for a push to be preferred over what the disk remembers
SAVE_PERIOD_S = 1.0
CREDITS_SAVE_PERIOD_S = 10.0  # they change all the time; any recent ones will do after a restart
OUTBOX_MAX = 16
Item = Ack | EdgeQuestion | None  # a verdict, a question to answer, or a report due at once
log = logging.getLogger("edge.feed")


class Feed:
    """Keeps the table fresh."""

    def __init__(
        self,
        config: EdgeConfig,
        table: RoutingTable,
        dispatch: Dispatch,
        admission: Admission,
        metrics: EdgeMetrics,
    ) -> None:
        self._config = config
        self._table = table
        self._dispatch = dispatch
        self._admission = admission
        self._metrics = metrics
        self._targets = Targets(config.controlplane)
        self._instance = uuid.uuid4().hex
        self._file = config.state_dir / f"edge-{config.name}.snapshot" if config.state_dir else None
        self._outbox: asyncio.Queue[Item] = asyncio.Queue(maxsize=OUTBOX_MAX)
        self._unsaved = asyncio.Event()
        self._saved_credits: set[str] = set()
        self._saved_s = 0.0
        self._settled = asyncio.Event()
        self._refused = Trouble(log, "refused an update", "takes updates again")
        self._unkept = Trouble(log, "cannot keep the snapshot", "the snapshot is kept again")
        self._silence = Silence()
        self._reads_steady = False  # whether the control plane does
        self.fresh = asyncio.Event()
        self.connected = False
        self.tellers: dict[str, Teller] = {}
        """What can be asked of this edge."""
        admission.on_wait = self._report_soon

    def restore(self) -> None:
        """Begin with what the disk remembers."""
        if self._file is not None and snapshot_file.restore(self._file, self._table):
            log.info("serving the snapshot on disk", extra={"fields": {"term": self._table.term}})
            self._dispatch.resize()

    @property
    def silent_s(self) -> float:
        """How long the control plane was not heard."""
        return self._silence.seconds

    async def settle(self) -> None:
        """Wait for the first push while it may be near; then what the disk remembers will do.

        The file may be a moment too old: that of a fleet which was starting would refuse all.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._settled.wait()
        if self._table.ready:
            self.fresh.set()

    async def run(self) -> None:
        """For ever: connect, follow, lose the connection, back off."""
        backoff = Backoff(random.SystemRandom())
        while True:
            began_s = clock.now_s()
            leader: str | None = None
            try:
                identity = self._config.identity
                async with rpc.channel(self._targets.current, identity) as channel:
                    await self._follow(edge_pb2_grpc.EdgeServiceStub(channel), backoff)
                reason = "the control plane ended the stream"
            except grpc.aio.AioRpcError as error:
                reason, leader = rpc.explain(error), leader_named(error)
            tried_s = 0.0 if self.connected else clock.now_s() - began_s
            if self.connected:
                self._set_connected(up=False, reason=reason)
            if self._targets.move(leader):
                continue
            self._settled.set()
            await asyncio.sleep(backoff.next_s(tried_s))

    async def listen_forever(self) -> None:
        """Notice that the control plane is silent, and go on alone."""
        then_s = clock.now_s()
        while True:
            await asyncio.sleep(LISTEN_PERIOD_S)
            now_s = clock.now_s()
            self._enter(self._silence.passed(now_s - then_s))
            then_s = now_s

    async def save_forever(self) -> None:
        """Write the table to disk after it changed, at most once a second."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            self._saved_credits = set(self._table.credits)
            self._saved_s = clock.now_s()
            if self._file is not None:
                await self._save(self._file, snapshot_file.render(self._table))
            await asyncio.sleep(SAVE_PERIOD_S)

    async def _follow(self, stub: edge_pb2_grpc.EdgeServiceStub, backoff: Backoff) -> None:
        outbox = self._outbox = asyncio.Queue(maxsize=OUTBOX_MAX)
        self._reads_steady = False
        watch = stub.Watch(self._messages(outbox), metadata=self._targets.metadata)
        async for message in watch:
            if not self.connected:
                self._set_connected(up=True, reason="")
                self._targets.served()
                backoff.reset()
            if message.HasField("question"):
                if outbox.qsize() < OUTBOX_MAX // 2:  # else it has enough to do, and says nothing
                    outbox.put_nowait(message.question)
                continue
            error = self._take(message)
            await outbox.put(Ack(message.nonce, error))

    def _take(self, message: edge_pb2.EdgeUpdate) -> str:
        self._reads_steady = message.reads_steady
        if message.WhichOneof("body") is None:
            return ""  # of a newer kind: nothing to us, and no reason to be sent all again
        try:
            update = decode_update(message)
        except WireError as error:
            return str(error)
        refusal = self._admission.apply(update)
        if refusal:
            self._refused.on(reason=refusal)
            return refusal
        self._refused.off()
        self._enter(self._silence.heard())
        self._metrics.config_revision.set(self._table.version)
        if not isinstance(update.body, Credits) or self._credits_worth_saving():
            self._unsaved.set()
        self._settled.set()
        self.fresh.set()
        return ""

    def _credits_worth_saving(self) -> bool:
        old = clock.now_s() - self._saved_s >= CREDITS_SAVE_PERIOD_S
        return old or set(self._table.credits) != self._saved_credits

    def _report_soon(self) -> None:
        if not self._outbox.full():  # else there is enough to do
            self._outbox.put_nowait(None)

    async def _messages(self, outbox: asyncio.Queue[Item]) -> AsyncIterator[edge_pb2.EdgeMessage]:
        hello = EdgeHello(
            edge=self._config.name,
            edge_version=version("trimtab"),
            instance=self._instance,
            listen_url=self._config.listen_url,
            term=self._table.term,
            version=self._table.version,
        )
        yield encode_body(edge_pb2.EdgeMessage, hello)
        seq = 0
        due_s = clock.now_s() + REPORT_PERIOD_S
        while True:
            try:
                async with asyncio.timeout(max(0.0, due_s - clock.now_s())):
                    item = await outbox.get()
                if item is None:
                    due_s = min(due_s, due_s - REPORT_PERIOD_S + REPORT_GAP_S)
                elif isinstance(item, Ack):
                    yield encode_body(edge_pb2.EdgeMessage, item)
                else:
                    for answer in answers(self.tellers, item):
                        yield edge_pb2.EdgeMessage(edge_answer=answer)
            except TimeoutError:
                seq += 1
                due_s = clock.now_s() + REPORT_PERIOD_S
                yield encode_body(edge_pb2.EdgeMessage, self._report(seq))

    def _report(self, seq: int) -> EdgeReport:
        now_s = clock.now_s()
        pools = self._dispatch.report_pools(now_s)
        report = EdgeReport(seq, self._dispatch.report_replicas(now_s), pools)
        return folded(report) if self._reads_steady else report

    def _enter(self, mode: Mode) -> None:
        before = self._dispatch.mode
        if mode is before:
            return
        self._dispatch.enter(mode)
        self._metrics.mode.set(mode)
        slots = sum(credit.slots for credit in self._table.credits.values())
        fields = {"mode": mode.name, "mode_before": before.name, "slots": slots}
        log.info("who rules this edge's room has changed", extra={"fields": fields})

    def _set_connected(self, *, up: bool, reason: str) -> None:
        self.connected = up
        self._metrics.connected.set(int(up))
        event = "connected to the control plane" if up else "lost the control plane; serving on"
        log.info(event, extra={"fields": {"target": self._targets.current, "reason": reason}})

    async def _save(self, path: pathlib.Path, content: bytes) -> None:
        try:
            await asyncio.to_thread(snapshot_file.save, path, content)
        except OSError as error:
            self._unkept.on(error=str(error))
        else:
            self._unkept.off()
