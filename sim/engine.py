"""A vLLM engine as a pure model: continuous batching over slots and KV blocks.

Rule 1: no I/O, clock or dice. Time comes in as `now_s`, tokens go out as events; the same calls
        give the same results, so a server in real time and a simulator in virtual time share it.
Rule 2: one step runs at a time. `step(now_s)` ends the step in flight and starts the next; call
        it when `next_step_at` says so. What arrives during a step waits for its end, as in vLLM.
Rule 3: a request knows how many tokens it will produce. What the tokens say is not our business.
Step time: base + a little per decoding sequence + a little per prompt token (chunked prefill).
The defaults were fitted to a pair of large GPUs: 86 running give 1,420 tokens/s.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from sim.counters import Counters, Gauges
from sim.kv import BlockTable, KvCache


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine is: vLLM's flags by their names, and the cost of a step."""

    max_num_seqs: int = 128
    max_num_batched_tokens: int = 8192
    max_model_len: int = 32_768
    block_size: int = 16
    num_gpu_blocks: int = 32_768
    max_num_queued_reqs: int | None = None
    max_num_queued_tokens: int | None = None
    step_base_s: float = 0.015
    step_per_sequence_s: float = 0.00053
    step_per_prefill_token_s: float = 28e-6

    def __post_init__(self) -> None:
        if (self.num_gpu_blocks - 1) * self.block_size < self.max_model_len:
            raise ValueError("the KV cache cannot hold one request of max_model_len tokens")
        if self.max_num_seqs < 1 or self.max_num_batched_tokens < 1:
            raise ValueError("max_num_seqs and max_num_batched_tokens must be at least 1")

    @classmethod
    def h200(cls) -> Self:
        """A production-size engine: about 3,000 tokens/s when full."""
        return cls()

    @classmethod
    def demo(cls) -> Self:
        """Several fit on a laptop: reading speed, about 450 tokens/s when its 16 slots are full."""
        return cls(
            max_num_seqs=16,
            max_num_batched_tokens=2048,
            max_model_len=8192,
            num_gpu_blocks=2048,
            step_base_s=0.02,
            step_per_sequence_s=0.001,
            step_per_prefill_token_s=0.0001,
        )

    def faster(self, factor: float) -> Self:
        """The same engine with every step `factor` times as fast."""
        return replace(
            self,
            step_base_s=self.step_base_s / factor,
            step_per_sequence_s=self.step_per_sequence_s / factor,
            step_per_prefill_token_s=self.step_per_prefill_token_s / factor,
        )

    def step_s(self, decoding: int, prefill_tokens: int) -> float:
        """How long one step takes."""
        return (
            self.step_base_s
            + self.step_per_sequence_s * decoding
            + self.step_per_prefill_token_s * prefill_tokens
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to run. `block_hashes` are those of the prompt's whole blocks, chained."""

    request_id: str
    prompt_tokens: int
    output_tokens: int
    finished_reason: str = "length"  # how it will end once it has its output_tokens
    block_hashes: Sequence[int] = ()
    max_tokens: int | None = None
    n: int = 1


class TokenEvent(NamedTuple):
    """A request got tokens; with a reason, its last ones."""

    request_id: str
    n_tokens: int
    finished_reason: str | None


class StepResult(NamedTuple):
    """What the ended step gave, who was preempted for the next, and when that one ends."""

    tokens: list[TokenEvent]
    preempted: list[str]
    next_step_at: float | None


class _Sequence:
    """A request inside the engine."""

    __slots__ = (
        *("request", "table", "computed", "generated", "cached", "live"),
        *("arrived_s", "scheduled_s", "first_token_s", "last_token_s"),
        *("preemptions", "preemptions_told"),
    )

    def __init__(self, request: Request, now_s: float) -> None:
        self.request = request
        self.table = BlockTable()
        self.computed = 0  # tokens whose KV is there
        self.generated = 0
        self.cached = 0
        self.live = True
        self.arrived_s = now_s
        self.scheduled_s = -1.0  # negative: not yet
        self.first_token_s = 0.0
        self.last_token_s = 0.0
        self.preemptions = 0
        self.preemptions_told = 0

    @property
    def missing(self) -> int:
        """Tokens to compute before the next one can come: 1 while decoding."""
        return self.request.prompt_tokens + self.generated - self.computed


class Engine:
    """Slots, blocks and a FIFO queue. See the rules at the top of this file."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.kv = KvCache(spec.num_gpu_blocks, spec.block_size)
        self.counters = Counters()
        self.gauges = Gauges()
        self.slowdown = 1.0  # stretches the steps to come
        self.next_step_at: float | None = None
        self._live: dict[str, _Sequence] = {}
        self._waiting: OrderedDict[str, _Sequence] = OrderedDict()
        self._running: list[_Sequence] = []
        self._batch: list[tuple[_Sequence, int]] | None = None
        self._prefill_backlog_tokens = 0
        self._gauges_stale = False

    @property
    def in_flight(self) -> int:
        """Requests waiting or running."""
        return len(self._live)

    @property
    def num_running(self) -> int:
        """Requests holding a slot now (`gauges` shows it only as of the last step)."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests in the queue now, the preempted among them."""
        return len(self._waiting)

    def rejection(self, n: int = 1) -> str | None:
        """Why `n` more requests would be refused by a queue limit; counts the refusal."""
        spec = self.spec
        reason = None
        if spec.max_num_queued_reqs is not None and self.in_flight + n > spec.max_num_queued_reqs:
            reason = "max_num_queued_reqs"
        elif (
            spec.max_num_queued_tokens is not None
            and self._prefill_backlog_tokens >= spec.max_num_queued_tokens
        ):
            reason = "max_num_queued_tokens"
        if reason is not None:
            self.counters.admission_rejections[reason] += 1
        return reason

    def submit(self, now_s: float, request: Request) -> str | None:
        """Queue a request. A queue limit returns its name instead of taking the request."""
        if request.request_id in self._live:
            raise ValueError(f"request id in use: {request.request_id}")
        tokens = request.prompt_tokens + request.output_tokens
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError("a request has at least one prompt token and one output token")
        if tokens > self.spec.max_model_len:
            raise ValueError("prompt and output exceed max_model_len")
        if (reason := self.rejection()) is not None:
            return reason
        sequence = _Sequence(request, now_s)
        self._live[request.request_id] = self._waiting[request.request_id] = sequence
        self._prefill_backlog_tokens += request.prompt_tokens
        self._wake(now_s)
        return None

    def abort(self, now_s: float, request_id: str, *, counted: bool = False) -> None:
        """Forget a request. A client that left is counted nowhere; an operator's abort is."""
        sequence = self._live.get(request_id)
        if sequence is None:
            return
        if self._waiting.pop(request_id, None) is None:
            self._running.remove(sequence)
        if counted:
            self.counters.request_success["abort"] += 1
        self._forget(sequence)
        self._gauges_stale = True
        self._wake(now_s)

    def step(self, now_s: float) -> StepResult:
        """End the step in flight and start the next one, if there is work."""
        if self._batch is not None and self.next_step_at is not None and now_s < self.next_step_at:
            raise ValueError("the step in flight has not ended")
        tokens: list[TokenEvent] = []
        if self._batch is not None:
            tokens = self._end_step(self._batch, now_s)
        if self._batch is not None or self._gauges_stale:
            self.gauges = Gauges(self.num_running, self.num_waiting, self.kv.usage_ratio)
            self._gauges_stale = False
        preempted: list[str] = []
        self._batch = self._schedule(now_s, preempted) or None
        self.next_step_at = None
        if self._batch is not None:
            self.next_step_at = now_s + self._step_s(self._batch)
        return StepResult(tokens, preempted, self.next_step_at)

    def _wake(self, now_s: float) -> None:
        if self.next_step_at is None:
            self.next_step_at = now_s

    def _step_s(self, batch: list[tuple[_Sequence, int]]) -> float:
        decoding = sum(sequence.generated > 0 and n == 1 for sequence, n in batch)
        prefill_tokens = sum(n for _, n in batch) - decoding
        return self.slowdown * self.spec.step_s(decoding, prefill_tokens)

    def _schedule(self, now_s: float, preempted: list[str]) -> list[tuple[_Sequence, int]]:
        """Fill the token budget: those running first, then the queue in order of arrival."""
        budget = self.spec.max_num_batched_tokens
        batch: list[tuple[_Sequence, int]] = []
        while len(batch) < len(self._running) and budget > 0:
            sequence = self._running[len(batch)]
            n = min(sequence.missing, budget)
            if not self._make_room(sequence, n, preempted):
                break
            batch.append((sequence, n))
            budget -= n
        while budget > 0 and not preempted and self._waiting:
            if len(self._running) == self.spec.max_num_seqs:
                break
            sequence = next(iter(self._waiting.values()))
            n = self._admit(sequence, budget, now_s)
            if n == 0:
                break
            batch.append((sequence, n))
            budget -= n
        return batch

    def _make_room(self, sequence: _Sequence, n: int, preempted: list[str]) -> bool:
        """Grow a running sequence's blocks; the newest pays, and may be the sequence itself."""
        hashes = sequence.request.block_hashes
        while not self.kv.grow(sequence.table, hashes, sequence.computed + n):
            victim = self._running.pop()
            self.kv.release(victim.table)
            victim.computed = 0
            victim.preemptions += 1
            request_id = victim.request.request_id
            self._waiting[request_id] = victim
            self._waiting.move_to_end(request_id, last=False)
            preempted.append(request_id)
            if victim is sequence:
                return False
        return True

    def _admit(self, sequence: _Sequence, budget: int, now_s: float) -> int:
        """Move the head of the queue into a slot; returns the tokens to compute, 0 if no room."""
        request = sequence.request
        total = sequence.missing
        # The last token is always computed: its output is what we want.
        hits = self.kv.hits(request.block_hashes, (total - 1) // self.spec.block_size)
        cached = hits * self.spec.block_size
        n = min(total - cached, budget)
        # Room for all of it is asked for, not only for its first chunk: admitting what cannot be
        # finished only makes it be preempted again (vLLM's scheduler_reserve_full_isl).
        if not self.kv.fits(request.block_hashes, hits, total):
            return 0
        self.kv.adopt(sequence.table, request.block_hashes, hits)
        self.kv.grow(sequence.table, request.block_hashes, cached + n)
        del self._waiting[request.request_id]
        self._running.append(sequence)
        sequence.computed = cached
        if sequence.scheduled_s < 0:
            sequence.scheduled_s = now_s
            sequence.cached = cached
            self.counters.prefix_cache_queries += request.prompt_tokens
            self.counters.prefix_cache_hits += cached
        return n

    def _end_step(self, batch: list[tuple[_Sequence, int]], now_s: float) -> list[TokenEvent]:
        prompt_tokens_before = self.counters.prompt_tokens
        tokens: list[TokenEvent] = []
        for sequence, n in batch:
            if not sequence.live:  # aborted while the step ran
                continue
            sequence.computed += n
            if sequence.missing == 0:
                tokens.append(self._emit(sequence, now_s))
        if any(event.finished_reason for event in tokens):
            self._running = [sequence for sequence in self._running if sequence.live]
        prompt_tokens = self.counters.prompt_tokens - prompt_tokens_before
        self._observe("iteration_tokens_total", prompt_tokens + len(tokens))
        return tokens

    def _emit(self, sequence: _Sequence, now_s: float) -> TokenEvent:
        """One token; all the bookkeeping that vLLM does when a token arrives."""
        counters = self.counters
        request = sequence.request
        if sequence.generated == 0:
            self._prefill_backlog_tokens -= request.prompt_tokens
            counters.prompt_tokens += request.prompt_tokens
            counters.prompt_tokens_cached += sequence.cached
            sequence.first_token_s = now_s
            self._observe("time_to_first_token_seconds", now_s - sequence.arrived_s)
        else:
            self._observe("inter_token_latency_seconds", now_s - sequence.last_token_s)
        sequence.generated += 1
        sequence.last_token_s = now_s
        counters.generation_tokens += 1
        # vLLM tells of a preemption only when its victim yields a token again.
        counters.num_preemptions += sequence.preemptions - sequence.preemptions_told
        sequence.preemptions_told = sequence.preemptions
        if sequence.generated < request.output_tokens:
            return TokenEvent(request.request_id, 1, None)
        self._finish(sequence, now_s)
        return TokenEvent(request.request_id, 1, request.finished_reason)

    def _finish(self, sequence: _Sequence, now_s: float) -> None:
        request = sequence.request
        decode_s = sequence.last_token_s - sequence.first_token_s
        self.counters.request_success[request.finished_reason] += 1
        self._observe("request_prompt_tokens", request.prompt_tokens)
        self._observe("request_generation_tokens", sequence.generated)
        self._observe("request_max_num_generation_tokens", sequence.generated)
        self._observe("request_params_n", request.n)
        if request.max_tokens is not None:
            self._observe("request_params_max_tokens", request.max_tokens)
        per_token_s = decode_s / max(sequence.generated - 1, 1)
        self._observe("request_time_per_output_token_seconds", per_token_s)
        self._observe("e2e_request_latency_seconds", now_s - sequence.arrived_s)
        self._observe("request_queue_time_seconds", sequence.scheduled_s - sequence.arrived_s)
        self._observe("request_inference_time_seconds", now_s - sequence.scheduled_s)
        self._observe("request_prefill_time_seconds", sequence.first_token_s - sequence.scheduled_s)
        self._observe("request_decode_time_seconds", decode_s)
        self._observe("request_num_preemptions", sequence.preemptions)
        computed_tokens = request.prompt_tokens - sequence.cached
        self._observe("request_prefill_kv_computed_tokens", computed_tokens)
        self._forget(sequence)

    def _forget(self, sequence: _Sequence) -> None:
        if sequence.generated == 0:
            self._prefill_backlog_tokens -= sequence.request.prompt_tokens
        sequence.live = False
        self.kv.release(sequence.table)
        del self._live[sequence.request.request_id]

    def _observe(self, histogram: str, value: float) -> None:
        self.counters.histograms[histogram].observe(value)
