"""One vLLM server: the engine model behind an API, with everything that can be wrong with it.

Rules: this is the ground truth, and only faults change it; every attempt that was posted ends in
one `ended` or `failed`, unless it was aborted, or the server stands still for ever; what a client
of a real vLLM would see is what the sink is told (sim/faults.py has the same faults over HTTP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from sim.engine import EngineSpec, Request
from sim.world.leaping import LeapingEngine, News
from sim.world.loop import Loop
from sim.world.network import Network
from sim.world.requests import Job
from sim.world.seen import ReplicaSeen, Steering
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.dice import Dice

WARMING_SLOWDOWN = 5.0  # first steps of a cold engine: kernels are compiled, graphs captured
CONNECT_TIMEOUT_S = 2.0  # the gateways'
BUSY = Failure(Fault.STATUS, 503, "The engine is currently busy and cannot accept new requests.")
REQUEST_FAILED = Failure(Fault.STATUS, 500, "")
REFUSED, CUT, UNREACHABLE = (Failure(f) for f in (Fault.REFUSED, Fault.CUT, Fault.UNREACHABLE))


class Sink(Protocol):
    """Who sends attempts."""

    @property
    def name(self) -> str:
        """Its name in the network."""

    def began(self, attempt: Attempt) -> None:
        """The first data event arrived."""

    def ended(self, attempt: Attempt) -> None:
        """The answer is whole."""

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """It failed so."""


class Attempt:
    """One job at one replica; `over` once its sink has heard the end, or has given it up."""

    __slots__ = ("began_s", "job", "name", "over", "posted_s", "replica", "sink")

    def __init__(self, job: Job, replica: str, sink: Sink, now_s: float) -> None:
        job.attempts += 1
        self.job = job
        self.replica = replica
        self.sink = sink
        self.name = f"{job.number}.{job.attempts}"
        self.posted_s = now_s
        self.began_s: float | None = None
        self.over = False


class Replica:
    """See the rules at the top of this file."""

    def __init__(
        self, name: str, spec: EngineSpec, loop: Loop, network: Network, dice: Dice
    ) -> None:
        self.name = name
        self.spec = spec
        self._loop = loop
        self._network = network
        self._dice = dice
        self._tokens_before = 0  # by engines that are no more
        self._live: dict[str, Attempt] = {}
        self._stuck: list[Attempt] = []  # posted to a server that hangs
        self._wake_at_s: float | None = None
        self._engine = LeapingEngine(spec)
        self.started_s = 0.0
        self.is_up = True
        self.is_loading = False  # a process is there, and will listen
        self.is_hung = False  # API and core stand still
        self.is_frozen = False  # the core stands still
        self.is_warming = False
        self.slow = 1.0
        self.fail_ratio = 0.0
        self.fail_after_s = 0.05
        self.cut_ratio = 0.0
        self.cut_after_s = 5.0
        self.rejects = False
        self.posts_s: list[float] = []
        self.useful_tokens = 0
        self.wasted_tokens = 0
        self.wasted_prompt_tokens = 0

    @property
    def is_healthy(self) -> bool:
        """Whether it does all the work it is given: the truth that steering can only guess."""
        return not (self.is_stopped or self.rejects or self.fail_ratio or self.cut_ratio)

    @property
    def is_stopped(self) -> bool:
        """Whether it does no work at all."""
        return self.is_frozen or not self.is_up

    @property
    def in_flight(self) -> int:
        """Attempts inside."""
        return len(self._live)

    @property
    def engine(self) -> LeapingEngine:
        """The engine, with all steps run that are over."""
        self._advance()
        return self._engine

    def seen(self, eligible: float, steering: Steering) -> ReplicaSeen:
        """This replica as the checks see it, with what others make of it."""
        engine = self.engine
        return ReplicaSeen(
            is_healthy=self.is_healthy,
            is_stopped=self.is_stopped,
            slots=self.spec.max_num_seqs,
            running=engine.num_running,
            waiting=engine.num_waiting,
            tokens=self._tokens_before + engine.generation_tokens,
            eligible=eligible,
            steering=steering,
        )

    def progress(self) -> list[tuple[int, float]]:
        """The jobs inside and how much of each is done."""
        engine = self.engine
        return [
            (attempt.job.number, engine.generated(name) / attempt.job.output_tokens)
            for name, attempt in self._live.items()
        ]

    def post(self, attempt: Attempt, *, is_probe: bool = False) -> None:
        """An attempt sets out; it arrives after the network's delay."""
        if not is_probe:
            self.posts_s.append(self._loop.now_s)
        if self._network.is_cut(attempt.sink.name, self.name):
            self._loop.after(CONNECT_TIMEOUT_S, _fail, attempt, UNREACHABLE)
        else:
            self._loop.after(self._delay_s(attempt), self._arrive, attempt)

    def abort(self, attempt: Attempt) -> None:
        """Its sender closed the connection."""
        attempt.over = True
        self._loop.after(self._delay_s(attempt), self._drop, attempt)

    def last_token_s(self, attempt: Attempt) -> float:
        """When its sender last got something of it; when it was posted, if never."""
        if attempt.began_s is None:
            return attempt.posted_s
        if self._network.is_cut(attempt.sink.name, self.name):
            return attempt.began_s
        return max(attempt.began_s, self.engine.last_step_s)

    # Faults

    def crash(self) -> None:
        """The process is gone: port closed, streams cut."""
        self._advance()
        self.is_up = self.is_hung = self.is_frozen = False
        live, self._live = self._live, {}
        stuck, self._stuck = self._stuck, []
        for attempt in live.values():
            self._waste(self._engine.generated(attempt.name), attempt)
        for attempt in (*live.values(), *stuck):
            self._tell(attempt, _fail, CUT)
        self._tokens_before += self._engine.generation_tokens
        self._engine = LeapingEngine(self.spec)
        self._wake_at_s = None

    def start(self, warming_s: float) -> None:
        """A new process listens; its first steps are slow."""
        self.is_up, self.is_loading = True, False
        self.started_s = self._loop.now_s
        self._engine = LeapingEngine(self.spec)
        self._set_speed(is_warming=warming_s > 0)
        if warming_s:
            self._loop.after(warming_s, self._warmed, self.started_s)

    def stop_core(self, *, api_too: bool) -> None:
        """The engine core stands still, maybe the API as well."""
        self._advance()
        self.is_frozen, self.is_hung = True, api_too

    def resume_core(self) -> None:
        """It goes on where it was."""
        if not self.is_frozen:
            return
        self.is_frozen = self.is_hung = False
        self._engine.thaw(self._loop.now_s)
        self._plan_wake()
        stuck, self._stuck = self._stuck, []
        for attempt in stuck:
            self._arrive(attempt)

    def set_slow(self, factor: float) -> None:
        """Every step to come takes this many times as long."""
        self._advance()
        self.slow = factor
        self._set_speed(is_warming=self.is_warming)
        self._plan_wake()

    def limit_queue(self, most: int | None) -> None:
        """max_num_queued_reqs from now on."""
        self.spec = self._engine.spec = replace(self.spec, max_num_queued_reqs=most)

    # Inside

    def _arrive(self, attempt: Attempt) -> None:
        if attempt.over:
            return
        if self.is_hung:
            self._stuck.append(attempt)
        elif not self.is_up:
            self._tell(attempt, _fail, REFUSED)
        elif self.fail_ratio and self._dice.random() < self.fail_ratio:
            self._loop.after(self.fail_after_s, self._tell, attempt, _fail, REQUEST_FAILED)
        elif self.rejects:
            self._tell(attempt, _fail, BUSY)
        else:
            self._submit(attempt)

    def _submit(self, attempt: Attempt) -> None:
        job = attempt.job
        request = Request(
            attempt.name, job.prompt_tokens, job.output_tokens, block_hashes=job.hashes
        )
        self._advance()
        if self._engine.submit(self._loop.now_s, request) is not None:
            self._tell(attempt, _fail, BUSY)
            return
        self._live[attempt.name] = attempt
        self._plan_wake()

    def _drop(self, attempt: Attempt) -> None:
        if self._live.pop(attempt.name, None) is not None:
            self._advance()
            self._waste(self._engine.abort(self._loop.now_s, attempt.name), attempt)
            self._plan_wake()

    def _cut(self, attempt: Attempt) -> None:
        if attempt.name in self._live and not attempt.over:
            self._drop(attempt)
            self._tell(attempt, _fail, CUT)

    def _wake(self, at_s: float) -> None:
        if at_s == self._wake_at_s:
            self._wake_at_s = None
            self._advance()
            self._plan_wake()

    def _advance(self) -> None:
        if not self.is_frozen:
            for news in self._engine.advance(self._loop.now_s):
                self._spread(news)

    def _plan_wake(self) -> None:
        at_s = None if self.is_frozen else self._engine.next_news_s()
        if at_s is not None and (self._wake_at_s is None or at_s < self._wake_at_s):
            self._wake_at_s = at_s
            self._loop.at(at_s, self._wake, at_s)

    def _spread(self, news: News) -> None:
        attempt = self._live[news.request_id]
        if news.is_first:
            self._tell(attempt, self._begin)
            if self.cut_ratio and self._dice.random() < self.cut_ratio:
                self._loop.after(self.cut_after_s * self._dice.random(), self._cut, attempt)
        if news.finished_reason is not None:
            del self._live[news.request_id]
            self.useful_tokens += attempt.job.output_tokens
            self._tell(attempt, self._end)

    def _tell(self, attempt: Attempt, how: Callable[..., None], *failure: Failure) -> None:
        if not self._network.is_cut(attempt.sink.name, self.name):
            self._loop.after(self._delay_s(attempt), how, attempt, *failure)

    def _begin(self, attempt: Attempt) -> None:
        if not attempt.over and attempt.began_s is None:
            attempt.began_s = self._loop.now_s
            attempt.sink.began(attempt)

    def _end(self, attempt: Attempt) -> None:
        self._begin(attempt)  # with the last token, if both are one
        if not attempt.over:
            attempt.over = True
            attempt.sink.ended(attempt)

    def _waste(self, generated: int, attempt: Attempt) -> None:
        self.wasted_tokens += generated
        if generated:
            self.wasted_prompt_tokens += attempt.job.prompt_tokens

    def _delay_s(self, attempt: Attempt) -> float:
        return self._network.data_delay_s(attempt.sink.name, self.name)

    def _set_speed(self, *, is_warming: bool) -> None:
        self.is_warming = is_warming
        self._engine.slowdown = self.slow * (WARMING_SLOWDOWN if is_warming else 1.0)

    def _warmed(self, started_s: float) -> None:
        if started_s == self.started_s and self.is_up:
            self._advance()
            self._set_speed(is_warming=False)


def _fail(attempt: Attempt, failure: Failure) -> None:
    if not attempt.over:
        attempt.over = True
        attempt.sink.failed(attempt, failure)
