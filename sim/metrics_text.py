"""The engine's numbers as vLLM's /metrics text: same names, labels, help, order and buckets.

Written with prometheus_client, as vLLM's own page is. The engine counts (sim.counters); this file
only names. What a simulated engine cannot have (LoRA, offloading, images) is there, and 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, GCCollector, PlatformCollector, Summary
from prometheus_client import Histogram as ClientHistogram
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from sim.counters import Histogram
from sim.engine import Engine
from sim.metrics_table import CACHE_CONFIG, FAMILIES

CONTENT_TYPE = CONTENT_TYPE_LATEST
_HIGH_RESOLUTION_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5),
    *(7.5, 10, 30, 60),
)
_LOW_RESOLUTION_S = (0.1, 0.5, 1)
_SIZE_NOTE = "Only value of header is respected. Otherwise ignored. No percentile calculated. "
Values = dict[str, float]  # by the value of the family's own label; "" where it has none


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """What vLLM's web framework counts of a request. Sizes are as declared: 0 for a stream."""

    handler: str
    method: str
    status: int
    request_bytes: int
    response_bytes: int
    duration_s: float


class MetricsPage:
    """One engine's page. A restarted engine gets a new one, and so all counters at 0."""

    def __init__(self, engine: Engine, model_name: str, started_s: float) -> None:
        self._registry = CollectorRegistry()
        GCCollector(self._registry)
        PlatformCollector(self._registry)
        self._registry.register(_Process(started_s))
        self._registry.register(_EngineCollector(engine, model_name, started_s))
        self._http = _HttpMetrics(self._registry)

    def render(self) -> bytes:
        """The page's text."""
        return generate_latest(self._registry)

    def count_http(self, exchange: HttpExchange) -> None:
        """Count one answered HTTP request."""
        self._http.observe(exchange)


class _Process(Collector):
    """What the kernel says of this process, but started when the engine was."""

    def __init__(self, started_s: float) -> None:
        self._kernel = ProcessCollector(registry=None)
        self._started_s = started_s

    def collect(self) -> Iterator[Metric]:
        for family in self._kernel.collect():
            if family.name == "process_start_time_seconds":
                yield GaugeMetricFamily(family.name, family.documentation, self._started_s)
            else:
                yield family


class _HttpMetrics:
    """The instrumentation of vLLM's web framework; the only trace of its 4xx and 5xx."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "http_requests_total",
            "Total number of requests by method, status and handler.",
            ("method", "status", "handler"),
            registry=registry,
        )
        self._request_size = Summary(
            "http_request_size_bytes",
            f"Content length of incoming requests by handler. {_SIZE_NOTE}",
            ("handler",),
            registry=registry,
        )
        self._response_size = Summary(
            "http_response_size_bytes",
            f"Content length of outgoing responses by handler. {_SIZE_NOTE}",
            ("handler",),
            registry=registry,
        )
        self._latency_fine = ClientHistogram(
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no API specific labels. "
            "Made for more accurate percentile calculations. ",
            buckets=_HIGH_RESOLUTION_S,
            registry=registry,
        )
        self._latency = ClientHistogram(
            "http_request_duration_seconds",
            "Latency with only few buckets by handler. "
            "Made to be only used if aggregation by handler is important. ",
            ("handler", "method"),
            buckets=_LOW_RESOLUTION_S,
            registry=registry,
        )

    def observe(self, exchange: HttpExchange) -> None:
        handler, method = exchange.handler, exchange.method
        self._requests.labels(method, f"{exchange.status // 100}xx", handler).inc()
        self._request_size.labels(handler).observe(exchange.request_bytes)
        self._response_size.labels(handler).observe(exchange.response_bytes)
        self._latency_fine.observe(exchange.duration_s)
        self._latency.labels(handler, method).observe(exchange.duration_s)


class _EngineCollector(Collector):
    """The vllm:* families."""

    def __init__(self, engine: Engine, model_name: str, started_s: float) -> None:
        self._engine = engine
        self._model = model_name
        self._created_s = started_s

    def collect(self) -> Iterator[Metric]:
        scalars = _scalars(self._engine)
        histograms = self._engine.counters.histograms
        for kind, name, text in FAMILIES:
            if kind == "histogram":
                yield self._histogram(name, text, histograms[name])
            else:
                label, values = scalars.get(name, ("", {"": 0.0}))
                yield self._scalar(kind, name, text, label, values)
        yield self._cache_config()

    def _scalar(self, kind: str, name: str, text: str, label: str, values: Values) -> Metric:
        shared = {"model_name": self._model}
        if name != "admission_rejections":  # counted by the API server, which has no engine number
            shared["engine"] = "0"
        family = Metric(f"vllm:{name}", text, kind)
        suffix = "_total" if kind == "counter" else ""
        for own, value in values.items():
            labels = shared | ({label: own} if label else {})
            family.add_sample(family.name + suffix, labels, value)
            if kind == "counter":
                family.add_sample(family.name + "_created", labels, self._created_s)
        return family

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        labels = {"model_name": self._model, "engine": "0"}
        family = HistogramMetricFamily(f"vllm:{name}", text, labels=[*labels])
        bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
        cumulative = [float(count) for count in accumulate(histogram.counts)]
        buckets = list(zip(bounds, cumulative, strict=True))
        family.add_metric([*labels.values()], buckets, histogram.total)
        family.add_sample(f"vllm:{name}_created", labels, self._created_s)
        return family

    def _cache_config(self) -> Metric:
        spec = self._engine.spec
        tokens = spec.num_gpu_blocks * spec.block_size
        labels = CACHE_CONFIG | {
            "engine": "0",
            "block_size": str(spec.block_size),
            "effective_attention_block_size": str(spec.block_size),
            "num_gpu_blocks": str(spec.num_gpu_blocks),
            "kv_cache_size_tokens": str(tokens),
            "kv_cache_max_concurrency": str(tokens / spec.max_model_len),
        }
        text = "Information of the LLMEngine CacheConfig"
        family = GaugeMetricFamily("vllm:cache_config_info", text, labels=[*labels])
        family.add_metric([*labels.values()], 1.0)
        return family


def _scalars(engine: Engine) -> dict[str, tuple[str, Values]]:
    """Every counter and gauge that is not always 0: its own label, and its values."""
    counters, gauges = engine.counters, engine.gauges
    computed = counters.prompt_tokens - counters.prompt_tokens_cached
    cached = counters.prompt_tokens_cached
    sources = {"local_compute": computed, "local_cache_hit": cached, "external_kv_transfer": 0}
    tiers = {"device": counters.prefix_cache_hits, "host": 0, "p2p": 0, "disk": 0}
    tiers["external_unspecified"] = 0
    return {
        "num_requests_running": ("", {"": gauges.running}),
        "num_requests_waiting": ("", {"": gauges.waiting}),
        "num_requests_waiting_by_reason": ("reason", {"capacity": gauges.waiting, "deferred": 0}),
        "engine_sleep_state": (
            "sleep_state",
            {"awake": 1, "weights_offloaded": 0, "discard_all": 0},
        ),
        "kv_cache_usage_perc": ("", {"": gauges.kv_usage_ratio}),
        "prefix_cache_queries": ("", {"": counters.prefix_cache_queries}),
        "prefix_cache_hits": ("", {"": counters.prefix_cache_hits}),
        "num_preemptions": ("", {"": counters.num_preemptions}),
        "prompt_tokens": ("", {"": counters.prompt_tokens}),
        "prompt_tokens_by_source": ("source", _floats(sources)),
        "prompt_tokens_cached": ("", {"": cached}),
        "prompt_tokens_cached_by_source": ("source", _floats(tiers)),
        "generation_tokens": ("", {"": counters.generation_tokens}),
        "request_success": ("finished_reason", _floats(counters.request_success)),
        "admission_rejections": ("reason", _floats(counters.admission_rejections)),
    }


def _floats(counts: dict[str, int]) -> Values:
    return {name: float(count) for name, count in counts.items()}
