"""One agent process beside one engine: the very verdict and sampler, no HTTP in between.

Rules: `policy.progress` and `agent.core.sampler` are the very code of the process; this file stands
for agent/{watch,loop,uplink}.py and does what they do, in their order. Whoever changes those,
changes this. What it reads is what vLLM's /metrics would say, which is not always the truth.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import accumulate
from typing import Literal

from agent.core import sampler
from agent.core.exposition import Histogram, Reading
from sim.counters import Histogram as Counts
from sim.world.controlplane import EPOCH_S, POOL, AgentPeer, ControlPlane
from sim.world.loop import Loop
from sim.world.network import KEEPALIVE_S, Network, Stream
from sim.world.replica import Attempt, Replica
from sim.world.requests import Job
from trimtab.model import (
    AgentDirective,
    AgentMessage,
    EngineFacts,
    LimitSource,
    NodeHello,
    Probe,
    ProbeResult,
    Report,
)
from trimtab.policy import progress
from trimtab.policy.classify import Failure
from trimtab.policy.dice import Dice
from trimtab.policy.progress import Answer, Observation, Vitals
from trimtab.runtime.backoff import Backoff

PERIOD_S = 0.5
CONNECT_S = 1.0  # until a connection into a partition is given up
Lie = Literal["", "idle", "stuck"]


class Agent:
    """See the rules at the top of this file."""

    def __init__(self, replica: Replica, loop: Loop, network: Network, dice: Dice) -> None:
        self.name = f"agent-{replica.name}"
        self._replica = replica
        self._loop = loop
        self._network = network
        self._dice = dice
        self._life = 0
        self._stream: Stream | None = None
        self.lie: Lie = ""
        self.is_up = False
        self.period_s = PERIOD_S
        self._boot()

    # Life

    def start(self, controlplane: ControlPlane) -> None:
        """Begin to look, knowing nothing."""
        self._life += 1
        self.is_up = True
        self._boot(controlplane)
        self._connect(self._life)
        self._loop.after(self.period_s * self._dice.random(), self._look, self._life)

    def stop(self, *, silently: bool) -> None:
        """The process is gone; or it stands still, which its peer notices later."""
        self.is_up = False
        self._life += 1
        if self._stream is not None:
            self._loop.after(KEEPALIVE_S if silently else 0.0, self._stream.end)

    def _boot(self, controlplane: ControlPlane | None = None) -> None:
        self._controlplane = controlplane
        self._stream = None
        self._peer: AgentPeer | None = None
        self._backoff = Backoff(self._dice)
        self._watch: progress.Watch | None = None
        self._track = sampler.begin(self._replica.name, self._loop.now_s)
        self._seq = 0
        self._told: EngineFacts | None = None
        self._probes: dict[str, Probe] = {}
        self._old_vitals: Vitals | None = None

    # The uplink

    def _connect(self, life: int) -> None:
        controlplane = self._controlplane
        if life != self._life or controlplane is None:
            return
        if self._network.is_cut(self.name, controlplane.name):
            self._loop.after(CONNECT_S + self._backoff.next_s(), self._connect, life)
            return
        if not controlplane.is_up:
            self._loop.after(self._backoff.next_s(), self._connect, life)
            return
        stream = Stream(self._network, self.name, controlplane.name)
        peer = controlplane.open_agent(stream, self._take)
        stream.on_end = (lambda: self._lost(life), lambda: controlplane.agent_gone(peer))
        self._stream, self._peer = stream, peer
        self._seq = 0
        self._track = sampler.new_stream(self._track)
        self._send(NodeHello(self.name))
        if self._told is not None:
            self._send(self._told)

    def _lost(self, life: int) -> None:
        if life == self._life:
            self._stream = self._peer = None
            self._loop.after(self._backoff.next_s(), self._connect, life)

    def _send(self, message: AgentMessage) -> None:
        if self._stream is not None and self._peer is not None and self._controlplane is not None:
            self._stream.up(self._controlplane.agent_said, self._peer, message)

    def _take(self, directive: AgentDirective) -> None:
        if isinstance(directive, Probe) and self.is_up:
            probe = Job(-directive.probe_id, -1, "", self._loop.now_s)
            attempt = Attempt(probe, self._replica.name, self, self._loop.now_s)
            self._probes[attempt.name] = directive
            self._replica.post(attempt, is_probe=True)
            self._loop.after(directive.timeout_ms / 1000, self._give_up, attempt)

    # Probes

    def began(self, attempt: Attempt) -> None:
        """The probe's token came."""

    def ended(self, attempt: Attempt) -> None:
        """The probe's answer is whole."""
        self._probed(attempt, ok=True)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """The probe failed so."""
        self._probed(attempt, ok=False, detail=failure.fault.name)

    def _give_up(self, attempt: Attempt) -> None:
        if not attempt.over:
            self._replica.abort(attempt)
            self._probed(attempt, ok=False, detail="no answer in time")

    def _probed(self, attempt: Attempt, *, ok: bool, detail: str = "") -> None:
        probe = self._probes.pop(attempt.name, None)
        if probe is not None and self.is_up:
            self._send(ProbeResult(probe.probe_id, probe.replica, ok, detail))

    # Looking and judging

    def _look(self, life: int) -> None:
        if life != self._life:
            return
        now_s = self._loop.now_s
        seen = self._observe()
        self._watch, verdict = progress.step(self._watch, seen, now_s)
        self._track = sampler.judge(self._track, verdict, now_s)
        if seen.answer is Answer.METRICS:
            self._tell_facts()
        if self._told is not None:
            self._track, sample = sampler.sample(self._track, now_s, ())
            self._seq += 1
            self._send(Report(self._seq, (sample,)))
        self._loop.after(self.period_s, self._look, life)

    def _observe(self) -> Observation:
        replica = self._replica
        if not replica.is_up:
            self._track = sampler.forget(self._track)
            return Observation(Answer.REFUSED, loading=replica.is_loading)
        if replica.is_hung:
            return Observation(Answer.SILENT)
        reading = self._read()
        wall_ms = int((EPOCH_S + self._loop.now_s) * 1000)
        self._track = sampler.read(self._track, reading, self._loop.now_s, wall_ms)
        return Observation(Answer.METRICS, reading.vitals)

    def _read(self) -> Reading:
        engine = self._replica.engine
        gauges = engine.gauges
        vitals = Vitals(
            running=gauges.running,
            waiting=gauges.waiting,
            kv_cache_usage_ratio=gauges.kv_usage_ratio,
            prompt_tokens=engine.prompt_tokens,
            generation_tokens=engine.generation_tokens,
            steps=engine.steps,
            finished=engine.finished,
        )
        if self.lie == "idle":
            vitals = Vitals(0, 0, 0.0, 0, 0, 0, 0)
        elif self.lie == "stuck":
            vitals = self._old_vitals or vitals
        self._old_vitals = vitals
        return Reading(
            vitals,
            preemptions=engine.num_preemptions,
            rejections=engine.rejections,
            prefix_queries_tokens=engine.prefix_cache_queries,
            prefix_hits_tokens=engine.prefix_cache_hits,
            ttft=_cumulative(engine.ttft),
            itl=_cumulative(engine.itl),
            start_time_s=EPOCH_S + self._replica.started_s,
        )

    def _tell_facts(self) -> None:
        if self._told is not None and self._told.epoch == self._track.epoch:
            return  # nothing else of it changes while it runs
        spec = self._replica.spec
        self._told = EngineFacts(
            replica=self._replica.name,
            url=f"http://{self._replica.name}:8000",
            served_models=(POOL,),
            max_model_len_tokens=spec.max_model_len,
            max_num_seqs=spec.max_num_seqs,
            max_num_seqs_source=LimitSource.CONFIG,
            kv_cache_tokens=spec.num_gpu_blocks * spec.block_size,
            epoch=self._track.epoch,
        )
        self._send(self._told)


def _cumulative(counts: Counts) -> Histogram:
    return Histogram(_bounds(counts.bounds), tuple(accumulate(counts.counts)), counts.total)


@cache
def _bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    return (*bounds, math.inf)
