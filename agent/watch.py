"""One engine under watch: what it answers, what that means, and what is known about it.

Rules: `look` and `check` ask, `assess` judges; a look that has not come back by then is silence, so
a stuck engine is judged in time and holds up nobody; the last health answer holds until the next.
Facts are read again on a new start of the engine and
now and then; what can't be read keeps its last value. A state is logged when it changes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Protocol

from agent import process
from agent.config import EngineConfig
from agent.core import exposition, flags, sampler
from agent.core.leaving import Leaving
from agent.engine import Answered, Model, Probed, Refused, Result
from trimtab.facts import EngineSetup
from trimtab.model import (
    EngineFacts,
    EngineSample,
    EngineState,
    GpuSample,
    LimitSource,
    Outcome,
)
from trimtab.policy import progress
from trimtab.policy.progress import Answer, Observation
from trimtab.runtime import clock

FACTS_PERIOD_S = 30.0
SEARCH_PERIOD_S = 5.0
"""While facts are missing, or a process that loads is looked for: a scan of all processes."""
VLLM_MAX_NUM_SEQS = 256  # vLLM's default
LISTENS_LIMIT = 8  # as the proto promises
DEAD_STATUS = 503  # of /health, when the API process knows that its engine died
log = logging.getLogger("agent.watch")


class Client(Protocol):
    """The engine's API; see agent/engine.py."""

    async def metrics(self) -> Result:
        """The /metrics page."""

    async def health(self) -> Result:
        """What /health says."""

    async def models(self) -> tuple[Model, ...]:
        """The models it serves."""

    async def version(self) -> str:
        """vLLM's version."""

    async def probe(self, model: str, timeout_s: float) -> Probed:
        """Ask for one token."""


class EngineWatch:
    """Watches one engine."""

    def __init__(self, config: EngineConfig, client: Client) -> None:
        self._config = config
        self.at = f":{config.port}"
        """Its port, as people on this node name it."""
        self._client = client
        self._page: Result | None = None
        self._health: Result | None = None
        self._progress: progress.Watch | None = None
        self._track = sampler.begin(config.replica, clock.now_s())
        self._local: bool | None = None
        self._process: process.EngineProcess | None = None
        self._loading = False
        self._models: tuple[Model, ...] = ()
        self._version = ""
        self._learned: tuple[float, int] | None = None
        self._kv_cache_tokens: int | None = None
        self.known = False
        """Whether the facts were looked for once."""
        self.draining = False
        """Whether the control plane wants it drained."""
        self.leaving: Leaving | None = None
        """Whether someone on this node does; see agent/local."""
        self.unit = config.unit
        """The service that it is, if that may be restarted."""
        self._given_up: int | None = None

    async def look(self) -> None:
        """Ask once for its metrics."""
        self._page = await self._client.metrics()

    async def check(self) -> None:
        """Ask once whether it is well."""
        self._health = await self._client.health()

    def assess(self) -> None:
        """Judge it by the newest look; none since the last time is silence."""
        now_s = clock.now_s()
        drained = self.draining or (self.leaving is not None and not self.leaving.gone)
        seen = replace(self._observe(), draining=drained)
        self._page = None
        self._progress, verdict = progress.step(self._progress, seen, now_s)
        before = self._track.verdict
        self._track = sampler.judge(self._track, verdict, now_s)
        if self.leaving:
            self._leave(self.leaving, seen, now_s)
        if verdict.state is not before.state:
            fields = {
                "replica": self._config.replica,
                "from": before.state.name,
                "to": verdict.state.name,
                "reason": verdict.reason,
            }
            log.info("engine state", extra={"fields": fields})

    def sample(self, gpus: tuple[GpuSample, ...]) -> EngineSample:
        """What to report now; its histogram deltas count as told."""
        own = self._process.pids if self._process else frozenset[int]()
        mine = tuple(gpu.index for gpu in gpus if any(p.pid in own for p in gpu.processes))
        self._track, taken = sampler.sample(self._track, clock.now_s(), mine)
        return taken

    def new_stream(self) -> None:
        """Whoever listens now was told nothing."""
        self._track = sampler.new_stream(self._track)

    def facts(self) -> EngineFacts:
        """What is known about it beside its samples."""
        started_s = self._track.started_s
        limit, source = self._limit()
        return EngineFacts(
            replica=self._config.replica,
            url=self._config.url,
            served_models=tuple(model.id for model in self._models if not model.parent),
            max_model_len_tokens=self._models[0].max_model_len if self._models else None,
            max_num_seqs=limit,
            max_num_seqs_source=source,
            kv_cache_tokens=self._kv_cache_tokens,
            vllm_version=self._version,
            epoch=self._track.epoch,
            uptime_ms=max(int((clock.wall_s() - started_s) * 1000), 0) if started_s else None,
            adapters=tuple(model.id for model in self._models if model.parent),
            unit=self.unit,
        )

    def setup(self) -> EngineSetup:
        """How it was started, as far as that can be seen."""
        found = self._process
        if found is None:
            return EngineSetup(self._config.replica)
        seen = flags.read(self._config.replica, found.lines, found.environment)
        return replace(
            seen,
            listens=found.listens[:LISTENS_LIMIT],
            strangers=found.strangers,
            open_files_limit=found.open_files_limit,
        )

    def should_learn(self) -> bool:
        """Whether it is time for `learn`."""
        if self._learned is None:
            return self._progress is not None
        at_s, epoch = self._learned
        searching = not self._models or self._is_gone()
        period_s = SEARCH_PERIOD_S if searching else FACTS_PERIOD_S
        return epoch != self._track.epoch or clock.now_s() - at_s >= period_s

    async def learn(self) -> None:
        """Read the facts; of an engine that is gone, whether a new one loads."""
        self._learned = (clock.now_s(), self._track.epoch)
        if self._local is None:
            self._local = await asyncio.to_thread(process.is_local, self._config.host)
        if self._is_gone():
            self._loading = self._local and await asyncio.to_thread(
                process.loading, self._config.port, self._process
            )
        else:
            await self._ask_facts()
        self.known = True

    async def _ask_facts(self) -> None:
        models = await self._client.models()
        version = await self._client.version()
        found = await asyncio.to_thread(process.find, self._config.port) if self._local else None
        # At once: with its models told before its limit, a new engine would be given far too much.
        self._models = models or self._models
        self._version = version or self._version
        self._process = found or self._process

    def give_up(self, epoch: int) -> str:
        """It is to be restarted, so nobody waits for it any more; or why it must not be."""
        state = self._track.verdict.state
        vitals = self._progress.vitals if self._progress else None
        if self._track.epoch != epoch:
            return "it was started anew meanwhile"
        idle = state is EngineState.READY and vitals is not None and not progress.work(vitals)
        if state is not EngineState.STALLED and not idle:
            return f"its agent sees that it is {state.name}"
        self._given_up = epoch
        return ""

    @property
    def is_given_up(self) -> bool:
        """Whether this start of it is being ended."""
        return self._given_up == self._track.epoch

    async def probe(self, timeout_s: float) -> Probed:
        """Ask for one token."""
        if not self._models:
            return Probed(Outcome.UNKNOWN, "which models it serves is not known")
        return await self._client.probe(self._models[0].id, timeout_s)

    def _observe(self) -> Observation:
        page, health = self._page, self._health
        if isinstance(page, Refused) or isinstance(health, Refused):
            self._track = sampler.forget(self._track)
            return Observation(Answer.REFUSED, loading=self._loading)
        if isinstance(health, Answered) and health.status == DEAD_STATUS:
            self._track = sampler.forget(self._track)
            return Observation(Answer.BLIND, dead=True)
        if not isinstance(page, Answered):
            return Observation(Answer.SILENT)
        self._loading = False  # what was loading is up; when it refuses again, it died
        reading = exposition.parse(page.body.decode(errors="replace"))
        if page.status != 200 or not reading.is_vllm:
            return Observation(Answer.BLIND)
        self._kv_cache_tokens = reading.kv_cache_tokens
        wall_ms = int(clock.wall_s() * 1000)
        self._track = sampler.read(self._track, reading, clock.now_s(), wall_ms)
        return Observation(Answer.METRICS, reading.vitals, asleep=reading.asleep)

    def _leave(self, leaving: Leaving, seen: Observation, now_s: float) -> None:
        if leaving.gone and not self._is_gone():
            self.leaving = None  # another start: it was not meant
            return
        work = progress.work(seen.vitals) if seen.answer is Answer.METRICS else None
        self.leaving = leaving.seen(work, now_s, gone=self._is_gone())

    def _is_gone(self) -> bool:
        return self._track.verdict.state in {EngineState.DEAD, EngineState.STARTING}

    def _limit(self) -> tuple[int, LimitSource]:
        if self._config.max_num_seqs is not None:
            return self._config.max_num_seqs, LimitSource.CONFIG
        if self._process is not None and self._process.max_num_seqs is not None:
            return self._process.max_num_seqs, LimitSource.COMMAND_LINE
        return VLLM_MAX_NUM_SEQS, LimitSource.ASSUMED
