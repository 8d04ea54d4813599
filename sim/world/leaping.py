"""The engine model at the speed of a simulation: what `sim.engine` does, at O(changes) a step.

Rule 1: equal to `sim.engine.Engine` in every time, token, block, gauge and counter; a property test
        holds the two together. What differs is what a step costs: a sequence that only decodes is
        not touched, its tokens are the steps that passed since it began.
Rule 2: nobody steps it. `advance(until_s)` runs all steps that end by then and tells what was new,
        and `next_news_s` says until when nothing can be, if nobody intervenes.
Blocks: decoders that reach a block's end in the same step are counted together (`_phases`), and all
blocks they grew by belong to one table (`_growth`), so that growth costs one call a step.
Only the histograms that agents read are kept (TTFT, ITL).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import OrderedDict
from enum import Enum, auto
from typing import NamedTuple

from sim.counters import BOUNDS, FINISHED_REASONS, REJECT_REASONS, Gauges, Histogram
from sim.engine import EngineSpec, Request
from sim.kv import BlockTable, KvCache


class News(NamedTuple):
    """A request's first token, or its last one (with a reason), or both."""

    at_s: float
    request_id: str
    is_first: bool
    finished_reason: str | None


class _State(Enum):
    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()
    GONE = auto()


class _Sequence:
    """A request inside the engine."""

    __slots__ = (
        *("request", "table", "state", "order", "computed", "generated", "base", "cached"),
        *("arrived_s", "scheduled", "last_token_s", "preemptions", "preemptions_told"),
    )

    def __init__(self, request: Request, now_s: float) -> None:
        self.request = request
        self.table = BlockTable()
        self.state = _State.WAITING
        self.order = 0  # place among the running
        self.computed = 0  # tokens whose KV is there; not kept while decoding
        self.generated = 0  # not kept while decoding: steps - base
        self.base = 0
        self.cached = 0
        self.arrived_s = now_s
        self.scheduled = False
        self.last_token_s = 0.0  # not kept while decoding
        self.preemptions = 0
        self.preemptions_told = 0


class LeapingEngine:
    """Slots, blocks and a FIFO queue. See the rules at the top of this file."""

    def __init__(self, spec: EngineSpec) -> None:
        if spec.max_num_batched_tokens <= spec.max_num_seqs:
            raise ValueError("max_num_batched_tokens must exceed max_num_seqs")
        self.spec = spec
        self.kv = KvCache(spec.num_gpu_blocks, spec.block_size)
        self.slowdown = 1.0  # stretches the steps to come
        self.step_ends_at: float | None = None
        self.steps = 0
        self.prompt_tokens = self.prompt_tokens_cached = self.generation_tokens = 0
        self.prefix_cache_queries = self.prefix_cache_hits = 0
        self.num_preemptions = 0
        self.request_success = dict.fromkeys(FINISHED_REASONS, 0)
        self.admission_rejections = dict.fromkeys(REJECT_REASONS, 0)
        self.ttft = Histogram(BOUNDS["time_to_first_token_seconds"])
        self.itl = Histogram(BOUNDS["inter_token_latency_seconds"])
        self._gauges = (0, 0, 0)  # running, waiting, blocks: as of the last step
        self._gauges_stale = False
        self._live: dict[str, _Sequence] = {}
        self._waiting: OrderedDict[str, _Sequence] = OrderedDict()
        self._running: dict[str, _Sequence] = {}
        self._orders = 0
        self._decoders = 0
        self._in_step = False
        self._began_s = 0.0
        self._prefills: list[tuple[_Sequence, int]] = []  # of the step in flight
        self._finishing: list[tuple[int, int, _Sequence]] = []  # by step, then order
        self._phases = [0] * spec.block_size
        self._growth = BlockTable()
        self._backlog_tokens = 0

    @property
    def in_flight(self) -> int:
        """Requests waiting or running."""
        return len(self._live)

    @property
    def num_running(self) -> int:
        """Requests holding a slot now."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests in the queue now, the preempted among them."""
        return len(self._waiting)

    @property
    def finished(self) -> int:
        """Requests that came to their end."""
        return sum(self.request_success.values())

    @property
    def rejections(self) -> int:
        """Requests refused by a queue limit."""
        return sum(self.admission_rejections.values())

    @property
    def last_step_s(self) -> float:
        """When the last step ended that did; who decodes got a token then."""
        return self._began_s

    @property
    def gauges(self) -> Gauges:
        """What vLLM would show: as of the last step."""
        running, waiting, used = self._gauges
        return Gauges(running, waiting, used / self.kv.capacity)

    def generated(self, request_id: str) -> int:
        """Tokens a live request has got; 0 for others."""
        sequence = self._live.get(request_id)
        if sequence is None:
            return 0
        is_decoding = sequence.state is _State.DECODE
        return self.steps - sequence.base if is_decoding else sequence.generated

    def rejection(self) -> str | None:
        """Why one more request would be refused by a queue limit; counts the refusal."""
        spec = self.spec
        reason = None
        if spec.max_num_queued_reqs is not None and self.in_flight + 1 > spec.max_num_queued_reqs:
            reason = "max_num_queued_reqs"
        elif (
            spec.max_num_queued_tokens is not None
            and self._backlog_tokens >= spec.max_num_queued_tokens
        ):
            reason = "max_num_queued_tokens"
        if reason is not None:
            self.admission_rejections[reason] += 1
        return reason

    def submit(self, now_s: float, request: Request) -> str | None:
        """Queue a request; all steps up to `now_s` must have been run. A limit's name refuses."""
        if request.prompt_tokens + request.output_tokens > self.spec.max_model_len:
            raise ValueError("prompt and output exceed max_model_len")
        if (reason := self.rejection()) is not None:
            return reason
        sequence = _Sequence(request, now_s)
        self._live[request.request_id] = self._waiting[request.request_id] = sequence
        self._backlog_tokens += request.prompt_tokens
        self._wake(now_s)
        return None

    def abort(self, now_s: float, request_id: str) -> int:
        """Forget a request, as when its client left; how many tokens it had got."""
        sequence = self._live.get(request_id)
        if sequence is None:
            return 0
        got = self._generated(sequence)
        if sequence.state is _State.WAITING:
            del self._waiting[request_id]
        else:
            del self._running[request_id]
        if sequence.state is _State.DECODE:
            self._leave_decoders(sequence, self.steps + 1 if self._in_step else self.steps)
        self._forget(sequence, got)
        self._gauges_stale = True
        self._wake(now_s)
        return got

    def thaw(self, now_s: float) -> None:
        """Steps stood still until now: the one in flight ends now at the earliest."""
        if self.step_ends_at is not None:
            self.step_ends_at = max(self.step_ends_at, now_s)

    def advance(self, until_s: float) -> list[News]:
        """Run every step that ends by `until_s`; what was new, in order."""
        news: list[News] = []
        while self.step_ends_at is not None and self.step_ends_at <= until_s:
            now_s = self._leap(until_s)
            if now_s > until_s:
                break
            if self._in_step:
                self._end_step(now_s, news)
            if self._in_step or self._gauges_stale:
                self._gauges = (len(self._running), len(self._waiting), self.kv.used)
                self._gauges_stale = False
            self._begin_step(now_s)
        return news

    def next_news_s(self) -> float | None:
        """When to call `advance` at the latest to miss nothing; None while there is no work."""
        ends_s, more = self.step_ends_at, self._uneventful_steps()
        if ends_s is None or not more:
            return ends_s
        growth = self._decoders * (more // self.spec.block_size + 1)
        if growth > self.kv.capacity - self.kv.used:
            return ends_s  # blocks may run out before
        step_s = self.slowdown * self.spec.step_s(self._decoders, 0)
        for _ in range(more):  # not a product: `advance` adds step by step, and rounds so
            ends_s += step_s
        return ends_s

    def _leap(self, until_s: float) -> float:
        """Run the steps in which all only decode and nobody ends; when the next one ends."""
        ends_s = self.step_ends_at or 0.0
        steps = self._uneventful_steps()
        if steps == 0 or ends_s > until_s:
            return ends_s
        decoders, began_s = self._decoders, self._began_s
        used = used_next = self.kv.used
        step_s = self.slowdown * self.spec.step_s(decoders, 0)
        phases, itl = self._phases, self.itl
        last = self.steps + steps
        while self.steps < last and ends_s <= until_s:
            needed = phases[-self.steps % len(phases)]
            if needed and not self._grow(needed):
                break  # somebody will be preempted at this step's end
            used = used_next
            if needed:
                used_next = self.kv.used
            self.steps += 1
            self.generation_tokens += decoders
            took_s = ends_s - began_s
            itl.counts[bisect_left(itl.bounds, took_s)] += decoders
            itl.total += took_s * decoders
            began_s, ends_s = ends_s, ends_s + step_s
        if began_s != self._began_s:
            self._began_s, self.step_ends_at = began_s, ends_s
            self._gauges = (len(self._running), len(self._waiting), used)
            self._gauges_stale = False
        return ends_s

    def _uneventful_steps(self) -> int:
        """How many steps will end from now on before one that admits, starts or ends anybody."""
        if self._prefills or not self._decoders or not self._in_step:
            return 0
        if self._waiting and len(self._running) < self.spec.max_num_seqs:
            return 0
        finishing = self._finishing
        while not self._is_due(finishing[0]):
            heapq.heappop(finishing)
        return finishing[0][0] - self.steps - 1

    # The end of a step

    def _end_step(self, now_s: float, news: list[News]) -> None:
        self.steps += 1
        decoders = self._decoders
        if decoders:
            step_s = now_s - self._began_s
            self.generation_tokens += decoders
            self.itl.counts[bisect_left(self.itl.bounds, step_s)] += decoders
            self.itl.total += step_s * decoders
            finishing = self._finishing
            while finishing and finishing[0][0] <= self.steps:
                entry = heapq.heappop(finishing)
                if self._is_due(entry):
                    self._finish(entry[2], now_s, news, is_first=False)
        for sequence, n in self._prefills:
            if sequence.state is _State.PREFILL:
                sequence.computed += n
                if sequence.computed == sequence.request.prompt_tokens + sequence.generated:
                    self._emit(sequence, now_s, news)

    def _emit(self, sequence: _Sequence, now_s: float, news: list[News]) -> None:
        """The token at the end of a prefill."""
        request = sequence.request
        is_first = sequence.generated == 0
        if is_first:
            self._backlog_tokens -= request.prompt_tokens
            self.prompt_tokens += request.prompt_tokens
            self.prompt_tokens_cached += sequence.cached
            self.ttft.observe(now_s - sequence.arrived_s)
        else:
            self.itl.observe(now_s - sequence.last_token_s)
        self.generation_tokens += 1
        self.num_preemptions += sequence.preemptions - sequence.preemptions_told
        sequence.preemptions_told = sequence.preemptions
        sequence.generated += 1
        sequence.state = _State.DECODE
        sequence.base = self.steps - sequence.generated
        self._decoders += 1
        self._phases[self._phase(sequence)] += 1
        if sequence.generated == request.output_tokens:
            self._finish(sequence, now_s, news, is_first)
            return
        finish_step = sequence.base + request.output_tokens
        heapq.heappush(self._finishing, (finish_step, sequence.order, sequence))
        if is_first:
            news.append(News(now_s, request.request_id, True, None))

    def _finish(self, sequence: _Sequence, now_s: float, news: list[News], is_first: bool) -> None:
        request = sequence.request
        self._leave_decoders(sequence, self.steps)
        del self._running[request.request_id]
        self.request_success[request.finished_reason] += 1
        self._forget(sequence, request.output_tokens)
        news.append(News(now_s, request.request_id, is_first, request.finished_reason))

    def _is_due(self, entry: tuple[int, int, _Sequence]) -> bool:
        """Whether an entry of `_finishing` still holds."""
        return entry[2].state is _State.DECODE and entry[2].order == entry[1]

    # The beginning of a step

    def _begin_step(self, now_s: float) -> None:
        preempted = self._grow_decoders(now_s)
        budget = self.spec.max_num_batched_tokens - self._decoders
        unfinished = [s for s, _ in self._prefills if s.state is _State.PREFILL]
        self._prefills = []
        for sequence in unfinished:  # at most one: the last, which the budget cut
            n = min(self._missing(sequence), budget)
            if self.kv.grow(sequence.table, sequence.request.block_hashes, sequence.computed + n):
                self._prefills.append((sequence, n))
                budget -= n
            else:
                self._preempt(self._running.popitem()[1], now_s)
                preempted = True
        while self._waiting and budget > 0 and not preempted:
            if len(self._running) == self.spec.max_num_seqs:
                break
            n = self._admit(next(iter(self._waiting.values())), budget)
            if n == 0:
                break
            budget -= n
        self._in_step = bool(self._decoders or self._prefills)
        self._began_s = now_s
        self.step_ends_at = now_s + self._step_s() if self._in_step else None

    def _grow_decoders(self, now_s: float) -> bool:
        """Give a block to each decoder that needs one; whether somebody paid with its place."""
        phase = (1 - self.steps) % self.spec.block_size
        needed = self._phases[phase]
        if not needed or self._grow(needed):
            return False
        for sequence in list(self._running.values()):
            if sequence.state is not _State.DECODE or self._phase(sequence) != phase:
                continue
            while not self._grow(1):  # the newest pays, and may be the sequence itself
                victim = self._running.popitem()[1]
                self._preempt(victim, now_s)
                if victim is sequence:
                    return True
        return True

    def _grow(self, blocks: int) -> bool:
        tokens = (len(self._growth) + blocks) * self.spec.block_size
        return self.kv.grow(self._growth, (), tokens)

    def _preempt(self, victim: _Sequence, now_s: float) -> None:
        if victim.state is _State.DECODE:
            victim.generated = self._generated(victim)
            victim.last_token_s = now_s
            self._leave_decoders(victim, self.steps)
        self.kv.release(victim.table)
        victim.state = _State.WAITING
        victim.computed = 0
        victim.preemptions += 1
        self._waiting[victim.request.request_id] = victim
        self._waiting.move_to_end(victim.request.request_id, last=False)

    def _admit(self, sequence: _Sequence, budget: int) -> int:
        """Move the head of the queue into a slot; returns the tokens to compute, 0 if no room."""
        request, spec = sequence.request, self.spec
        total = self._missing(sequence)
        hits = self.kv.hits(request.block_hashes, (total - 1) // spec.block_size)
        cached = hits * spec.block_size
        n = min(total - cached, budget)
        if not self.kv.fits(request.block_hashes, hits, total):
            return 0
        self.kv.adopt(sequence.table, request.block_hashes, hits)
        self.kv.grow(sequence.table, request.block_hashes, cached + n)
        del self._waiting[request.request_id]
        self._running[request.request_id] = sequence
        self._orders += 1
        sequence.order = self._orders
        sequence.state = _State.PREFILL
        sequence.computed = cached
        if not sequence.scheduled:
            sequence.scheduled = True
            sequence.cached = cached
            self.prefix_cache_queries += request.prompt_tokens
            self.prefix_cache_hits += cached
        self._prefills.append((sequence, n))
        return n

    def _step_s(self) -> float:
        decoding, prefill_tokens = self._decoders, 0
        for sequence, n in self._prefills:
            if sequence.generated > 0 and n == 1:
                decoding += 1
            else:
                prefill_tokens += n
        return self.slowdown * self.spec.step_s(decoding, prefill_tokens)

    # Sequences

    def _missing(self, sequence: _Sequence) -> int:
        """Tokens to compute before its next one can come; not while decoding."""
        return sequence.request.prompt_tokens + sequence.generated - sequence.computed

    def _generated(self, sequence: _Sequence) -> int:
        if sequence.state is _State.DECODE:
            return self.steps - sequence.base
        return sequence.generated

    def _phase(self, sequence: _Sequence) -> int:
        """Decoders of equal phase need their next block in the same step."""
        return (sequence.request.prompt_tokens - sequence.base) % self.spec.block_size

    def _leave_decoders(self, sequence: _Sequence, begun_steps: int) -> None:
        """It decodes no more; `begun_steps` were begun in all, and it has the blocks for them."""
        self._decoders -= 1
        self._phases[self._phase(sequence)] -= 1
        tokens = sequence.request.prompt_tokens + begun_steps - 1 - sequence.base
        grown = -(-tokens // self.spec.block_size) - len(sequence.table)
        if grown > 0:
            left = len(self._growth) - grown
            self.kv.release(self._growth)
            self.kv.grow(self._growth, (), left * self.spec.block_size)

    def _forget(self, sequence: _Sequence, generated: int) -> None:
        if generated == 0:
            self._backlog_tokens -= sequence.request.prompt_tokens
        sequence.state = _State.GONE
        self.kv.release(sequence.table)
        del self._live[sequence.request.request_id]

    def _wake(self, now_s: float) -> None:
        if self.step_ends_at is None:
            self.step_ends_at = now_s
