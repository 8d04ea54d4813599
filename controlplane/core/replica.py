"""What the leader holds in memory about replicas and the nodes they run on.

Rules: three facts about a replica have three writers and are never merged: `health` (its agent's
word, kept while there is no newer one), `wish` (the operator's), and the breaker in `standing` (the
policy's). What an edge may do is computed from them, see `serving`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.core.load import Load
from controlplane.core.records import Wish
from controlplane.core.standing import Standing
from controlplane.core.window import Minute
from trimtab.facts import NodeFacts
from trimtab.model import (
    EngineFacts,
    EngineSample,
    EngineState,
    GpuSample,
    NodeHello,
    Route,
    Serving,
)
from trimtab.policy.breaker import Hold


@dataclass(slots=True)
class Node:
    """A machine with an agent; `stream` None means that the agent is not connected."""

    hello: NodeHello
    heard_at_s: float
    stream: int | None = None
    reported_at_s: float | None = None
    reporting_since_s: float | None = None  # first report on this stream
    seq: int = 0  # of the newest report on this stream
    gpus: tuple[GpuSample, ...] = ()
    gpu_detail: str = ""
    bye: str | None = None
    setup: NodeFacts | None = None
    ahead_s: float = 0.0  # its clock, when it last told its setup
    told: set[str] = field(default_factory=set)  # refusals said on this stream: each once


@dataclass(slots=True)
class Replica:
    """One engine as the leader knows it."""

    name: str
    url: str
    known_since_s: float
    configured: bool = False
    node: str = ""
    facts: EngineFacts | None = None
    facts_at_s: float = 0.0
    sample: EngineSample | None = None
    sampled_at_s: float | None = None
    health: Serving = Serving.CLOSED
    cause: str = ""  # the agent's words when the state began; the live ones change too often
    gpu_fault: str = ""  # what makes its GPU useless
    unseen_since_s: float | None = None
    """Since when edges have requests on it of which its engine knows nothing; None: not so."""
    stalled_warming: bool = False  # it was WARMING when it stalled
    loaded: bool = False  # known from before a restart
    wish: Wish = field(default_factory=Wish)
    drained: bool = False
    """It was told that nothing runs on it any more."""
    hold: Hold = Hold.NONE
    weights: Mapping[str, float] = field(default_factory=dict)
    """What operators put in the place of automatic steering, of all in its pool."""
    standing: Standing = field(default_factory=Standing)
    load: Load = field(default_factory=Load)
    route: Route | None = None
    route_of: tuple[object, ...] = ()
    """What the route was made of."""
    saved: bytes = b""
    minute: Minute = field(default_factory=Minute)
    started: int = 0
    """Attempts since it is known."""
    starts: int = 0
    """Starts of its engine since then, the one that it was found in left out."""
    _epoch: int = 0
    """Of the newest start; an agent that has just begun does not know it yet."""

    def take(self, sample: EngineSample, inflight: int, now_s: float) -> None:
        """Its agent's newest sample; `inflight` is what edges have on it."""
        before = self.sample
        self.sample, self.sampled_at_s = sample, now_s
        if sample.epoch > self._epoch:
            self.starts += self._epoch > 0
            self._epoch = sample.epoch
        still = before is not None and _counted(before) == _counted(sample)
        unseen = inflight and still and sample.running == 0 and not sample.waiting
        self.unseen_since_s = (self.unseen_since_s or now_s) if unseen else None

    @property
    def state(self) -> EngineState:
        """The engine's state as last reported."""
        return EngineState.UNKNOWN if self.sample is None else self.sample.state

    def age_s(self, now_s: float) -> float | None:
        """Age of the newest sample; None before the first."""
        return None if self.sampled_at_s is None else now_s - self.sampled_at_s

    def uptime_ms(self, now_s: float) -> int | None:
        """How long its engine has been up, as far as known."""
        if self.facts is None or self.facts.uptime_ms is None:
            return None
        return self.facts.uptime_ms + max(0, round(1000 * (now_s - self.facts_at_s)))

    def count(self, before: EngineSample | None, sample: EngineSample, now_s: float) -> None:
        """Add what the engine did since its last sample; a restart starts its counters anew."""
        if sample.generation_tokens_total is not None:
            same_start = before is not None and before.epoch == sample.epoch
            earlier = before.generation_tokens_total if before and same_start else None
            grown = 0 if earlier is None else sample.generation_tokens_total - earlier
            self.minute.add("tokens", max(0, grown), now_s)
        if sample.ttft is not None:
            for bound_s, count in zip(sample.ttft.le_s, sample.ttft.count, strict=False):
                if bound_s > 0 and count:
                    self.minute.add(("ttft", bound_s), count, now_s)

    def unheard_s(self, now_s: float) -> float:
        """How long nobody has said anything about it."""
        since_s = self.known_since_s if self.sampled_at_s is None else self.sampled_at_s
        return now_s - since_s


def _counted(sample: EngineSample) -> tuple[int | None, ...]:
    """What grows with any work."""
    done = sample.prompt_tokens_total, sample.generation_tokens_total, sample.finished_total
    return *done, sample.steps_total
