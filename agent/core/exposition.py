"""vLLM's /metrics text to one reading, for vLLM 0.8 to 0.32.

Rules: only the lines that are needed are looked at; several engine labels (data parallel) are
summed; of alternative names the first that is present counts; absent is None, never 0; a line that
makes no sense is skipped. The KV usage of several engines is their mean: their caches are equally
large, so the mean is the share of the replica's whole cache, as running and waiting are sums.
Nothing raises, whatever the text is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from trimtab.policy.progress import Vitals

TEXT_LIMIT_BYTES = 4 * 1024 * 1024
"""Real pages are 50 to 70 kB; a page past this is not read to its end."""
COUNT_MAX = 2**63 - 1
VALUE_MAX = 2.0**53  # whole numbers are exact up to here; nothing real comes near

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
PROMPT_TOKENS = "vllm:prompt_tokens_total"
GENERATION_TOKENS = "vllm:generation_tokens_total"
STEPS = "vllm:iteration_tokens_total_count"  # a histogram over steps, in spite of its name
PREEMPTIONS = "vllm:num_preemptions_total"
FINISHED = "vllm:request_success_total"
REJECTIONS = "vllm:admission_rejections_total"
PREFIX_QUERIES = ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")
PREFIX_HITS = ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")
TTFT = ("vllm:time_to_first_token_seconds",)
ITL = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
SLEEP = "vllm:engine_sleep_state"
CACHE_CONFIG = "vllm:cache_config_info"
START_TIME = "process_start_time_seconds"

_BUCKETS = {f"{base}_bucket": base for base in (*TTFT, *ITL)}
_SUMS = frozenset(f"{base}_sum" for base in (*TTFT, *ITL))
_SCALARS = frozenset(
    {RUNNING, WAITING, PROMPT_TOKENS, GENERATION_TOKENS, STEPS, PREEMPTIONS, FINISHED, REJECTIONS}
    | {*KV_USAGE, *PREFIX_QUERIES, *PREFIX_HITS, START_TIME}
    | _SUMS
)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations since the engine's start: those at or below each bound."""

    le_s: tuple[float, ...]
    cumulative: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one /metrics page says."""

    vitals: Vitals
    preemptions: int | None = None
    rejections: int | None = None
    prefix_queries_tokens: int | None = None
    prefix_hits_tokens: int | None = None
    ttft: Histogram | None = None
    itl: Histogram | None = None
    asleep: bool = False
    kv_cache_tokens: int | None = None
    start_time_s: float | None = None
    """When the API process started, in seconds since 1970; multi-process servers don't say."""

    @property
    def is_vllm(self) -> bool:
        """Whether the page has anything of vLLM's (with --disable-log-stats it has not)."""
        return self.vitals != Vitals()


class _Page:
    """Collects the lines of interest of one page."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = defaultdict(float)
        self.lines: dict[str, int] = defaultdict(int)
        self.buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        self.awake: list[bool] = []
        self.cache_tokens: list[int] = []
        self.cache_blocks: list[int] = []

    def take(self, line: str) -> None:
        name, brace, rest = line.partition("{")
        labels, _, value_text = rest.rpartition("}")
        if not brace:
            name, _, value_text = line.partition(" ")
        if name in _SCALARS:
            value = _number(value_text)
            if value is not None:
                self.totals[name] += value
                self.lines[name] += 1
        elif name in _BUCKETS:
            self._take_bucket(_BUCKETS[name], labels, value_text)
        elif name == SLEEP and _label(labels, "sleep_state") == "awake":
            self.awake.append(_number(value_text) != 0.0)
        elif name == CACHE_CONFIG:
            self._take_cache(labels)

    def _take_bucket(self, base: str, labels: str, value_text: str) -> None:
        bound = _float(_label(labels, "le"))
        value = _number(value_text)
        if bound is not None and value is not None:
            self.buckets[base][bound] += value

    def _take_cache(self, labels: str) -> None:
        tokens = _whole(_label(labels, "kv_cache_size_tokens"))
        blocks = _whole(_label(labels, "num_gpu_blocks"))
        block_tokens = _whole(_label(labels, "block_size"))
        if tokens is not None:
            self.cache_tokens.append(tokens)
        if blocks is not None and block_tokens is not None:
            self.cache_blocks.append(blocks * block_tokens)

    def count(self, *names: str) -> int | None:
        """The sum over engines of the first name that is there."""
        for name in names:
            if name in self.lines:
                return min(int(self.totals[name]), COUNT_MAX)
        return None

    def mean_ratio(self, *names: str) -> float | None:
        for name in names:
            if name in self.lines:
                return min(self.totals[name] / self.lines[name], 1.0)
        return None

    def histogram(self, names: tuple[str, ...]) -> Histogram | None:
        for name in names:
            if name in self.buckets:
                items = sorted(self.buckets[name].items())
                counts = tuple(min(int(value), COUNT_MAX) for _, value in items)
                return Histogram(
                    tuple(bound for bound, _ in items), counts, self.totals.get(f"{name}_sum", 0.0)
                )
        return None

    def kv_cache_tokens(self) -> int | None:
        """Sizes in tokens are per engine; block counts already cover all engines in each line."""
        if self.cache_tokens:
            return min(sum(self.cache_tokens), COUNT_MAX)
        return min(max(self.cache_blocks), COUNT_MAX) if self.cache_blocks else None


def parse(text: str) -> Reading:
    """Read a page. O(lines)."""
    page = _Page()
    for line in text[:TEXT_LIMIT_BYTES].split("\n"):
        if line.startswith(("vllm:", START_TIME)):
            page.take(line)
    vitals = Vitals(
        running=page.count(RUNNING),
        waiting=page.count(WAITING),
        kv_cache_usage_ratio=page.mean_ratio(*KV_USAGE),
        prompt_tokens=page.count(PROMPT_TOKENS),
        generation_tokens=page.count(GENERATION_TOKENS),
        steps=page.count(STEPS),
        finished=page.count(FINISHED),
    )
    return Reading(
        vitals=vitals,
        preemptions=page.count(PREEMPTIONS),
        rejections=page.count(REJECTIONS),
        prefix_queries_tokens=page.count(*PREFIX_QUERIES),
        prefix_hits_tokens=page.count(*PREFIX_HITS),
        ttft=page.histogram(TTFT),
        itl=page.histogram(ITL),
        asleep=bool(page.awake) and not any(page.awake),
        kv_cache_tokens=page.kv_cache_tokens(),
        start_time_s=page.totals[START_TIME] if START_TIME in page.lines else None,
    )


def _label(labels: str, name: str) -> str:
    """The value of a label; empty when it is not there. Values that matter hold no quotes."""
    _, found, rest = f",{labels}".partition(f',{name}="')
    return rest.partition('"')[0] if found else ""


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if value != value else value  # noqa: PLR0124  # NaN


def _number(text: str) -> float | None:
    """A counter's or gauge's value; what follows it is a timestamp."""
    value = _float(text.strip().partition(" ")[0])
    return value if value is not None and 0.0 <= value <= VALUE_MAX else None


def _whole(text: str) -> int | None:
    value = _float(text)
    return int(value) if value is not None and 0.0 < value <= VALUE_MAX else None
