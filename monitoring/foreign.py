"""Metrics of others that our queries may name: vLLM's, DCGM's, a process', and Prometheus' `up`.

Rules: only what is used. tests/unit/monitoring holds vLLM's against pages of a real vLLM, and
DCGM's against the counters that its exporter ships by default. `replica` is no label of vLLM's:
our scrape configuration puts it on each engine's target, so that both worlds meet there.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.metric import Kind, Label

EDGES, CONTROLPLANES, ENGINES, GPUS = JOBS = (
    *("trimtab-edge", "trimtab-controlplane", "vllm", "dcgm"),
)
"""Jobs of the scrape configuration."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """As `trimtab.metric.Metric`, but not ours."""

    name: str
    kind: Kind
    labels: tuple[Label, ...]
    buckets: tuple[float, ...] = ()


UP = Foreign("up", Kind.GAUGE, (Label("job", JOBS),))
PROCESS_CPU = Foreign("process_cpu_seconds", Kind.COUNTER, ())
PROCESS_MEMORY = Foreign("process_resident_memory_bytes", Kind.GAUGE, ())
PROCESS_FILES = Foreign("process_open_fds", Kind.GAUGE, ())
PROCESS_FILES_MAX = Foreign("process_max_fds", Kind.GAUGE, ())

REPLICA = Label("replica")
_OF_ENGINE = (REPLICA, Label("model_name"), Label("engine"))


def _vllm(name: str, kind: Kind) -> Foreign:
    return Foreign(f"vllm:{name}", kind, _OF_ENGINE)


VLLM_RUNNING = _vllm("num_requests_running", Kind.GAUGE)
VLLM_WAITING = _vllm("num_requests_waiting", Kind.GAUGE)
VLLM_KV = _vllm("kv_cache_usage_perc", Kind.GAUGE)
VLLM_PREEMPTIONS = _vllm("num_preemptions", Kind.COUNTER)
VLLM_PREFIX_HITS = _vllm("prefix_cache_hits", Kind.COUNTER)
VLLM_PREFIX_QUERIES = _vllm("prefix_cache_queries", Kind.COUNTER)
VLLM_PROMPT_TOKENS = _vllm("prompt_tokens", Kind.COUNTER)
VLLM_GENERATION_TOKENS = _vllm("generation_tokens", Kind.COUNTER)
VLLM_ITERATIONS = _vllm("iteration_tokens_total", Kind.HISTOGRAM)
VLLM_TTFT = _vllm("time_to_first_token_seconds", Kind.HISTOGRAM)
VLLM_QUEUE_TIME = _vllm("request_queue_time_seconds", Kind.HISTOGRAM)
VLLM_PREFILL_TIME = _vllm("request_prefill_time_seconds", Kind.HISTOGRAM)
VLLM_PROMPT_LENGTH = _vllm("request_prompt_tokens", Kind.HISTOGRAM)

_OF_GPU = (Label("Hostname"), Label("gpu"), Label("UUID"))


def _dcgm(name: str) -> Foreign:
    return Foreign(f"DCGM_FI_DEV_{name}", Kind.GAUGE, _OF_GPU)


GPU_TEMP = _dcgm("GPU_TEMP")
GPU_MEMORY_TEMP = _dcgm("MEMORY_TEMP")
GPU_MEMORY_USED = _dcgm("FB_USED")
GPU_POWER = _dcgm("POWER_USAGE")
GPU_UTIL = _dcgm("GPU_UTIL")
GPU_XID = _dcgm("XID_ERRORS")
