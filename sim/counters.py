"""What the engine counts, as vLLM counts it.

Rules: nothing here knows a clock or a text format; names are vLLM's without the `vllm:` prefix;
bucket bounds are vLLM 0.32's own, so that quantiles read from them are as coarse as in production.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_LATENCY_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_PER_TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
_TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
BOUNDS: dict[str, tuple[float, ...]] = {
    "request_prompt_tokens": _TOKENS,
    "request_generation_tokens": _TOKENS,
    "iteration_tokens_total": (*(1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),),
    "request_max_num_generation_tokens": _TOKENS,
    "request_params_n": (1, 2, 5, 10, 20),
    "request_params_max_tokens": _TOKENS,
    "time_to_first_token_seconds": _TTFT_S,
    "inter_token_latency_seconds": _PER_TOKEN_S,
    "request_time_per_output_token_seconds": _PER_TOKEN_S,
    "e2e_request_latency_seconds": _LATENCY_S,
    "request_queue_time_seconds": _LATENCY_S,
    "request_inference_time_seconds": _LATENCY_S,
    "request_prefill_time_seconds": _LATENCY_S,
    "request_decode_time_seconds": _LATENCY_S,
    "request_num_preemptions": (1, 2, 3, 4, 5, 10, 20),
    "request_prefill_kv_computed_tokens": _TOKENS,
}
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")
REJECT_REASONS = ("max_num_queued_reqs", "max_num_queued_tokens")


class Histogram:
    """Counts per bucket (not cumulative: the renderer sums), and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a value on a bound belongs to that bound's bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


@dataclass(slots=True)
class Counters:
    """Everything that only grows; a restarted engine starts a new one."""

    prompt_tokens: int = 0
    prompt_tokens_cached: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    num_preemptions: int = 0
    request_success: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(FINISHED_REASONS, 0)
    )
    admission_rejections: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(REJECT_REASONS, 0)
    )
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram(bounds) for name, bounds in BOUNDS.items()}
    )


@dataclass(frozen=True, slots=True)
class Gauges:
    """What vLLM shows of the present. It moves only when a step ends, and so does this."""

    running: int = 0
    waiting: int = 0
    kv_usage_ratio: float = 0.0
