"""Limits on what peers may make us hold: names are refused, texts and lists are cut.

Rules: after these functions every string and tuple has a bound, so memory follows the number of
replicas (at most REPLICA_LIMIT) and never a peer's mood.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from trimtab.facts import NodeFacts
from trimtab.model import (
    Cohort,
    EngineFacts,
    EngineSample,
    GpuSample,
    HistogramDelta,
    OutcomeCount,
    PoolUse,
    ReplicaUse,
    Report,
    TenantUse,
)

T = TypeVar("T")
_TOTALS = (
    "prompt_tokens_total",
    "generation_tokens_total",
    "steps_total",
    "preemptions_total",
    "finished_total",
    "rejections_total",
    "prefix_cache_queries_tokens_total",
    "prefix_cache_hits_tokens_total",
)

REPLICA_LIMIT = 10_000
NODE_LIMIT = 4_096
EDGE_LIMIT = 1_000
NAME_LIMIT_CHARS = 128
URL_LIMIT_CHARS = 512
TEXT_LIMIT_CHARS = 300
MODEL_NAMES_LIMIT = 64
ADAPTERS_LIMIT = 128  # as the proto promises
ADAPTER_NAME_LIMIT_CHARS = 256
PER_NODE_LIMIT = 64  # engines and GPUs of one node, as the proto promises
XID_LIMIT = 8
LISTENS_LIMIT = 8
TENANTS_PER_POOL = 64  # as the proto promises, and so are the ages
AGES_PER_TENANT = 64
COUNT_LIMIT = 1_000_000  # requests that wait for one pool at one edge
WORK_LIMIT = 1e12  # tokens; a fleet of thousands takes a day for it
MAX_NUM_SEQS_LIMIT = 100_000  # far above any engine; REPLICA_LIMIT of them still fit in 32 bits
TERM_LIMIT = 2**62  # an edge that claims more is wrong, not ahead
CHARGED_LIMIT = 4_096  # tenants of one pool at one edge between two pushes
COHORTS_LIMIT = 64  # one a second of the last minute
OUTCOMES_LIMIT = 16  # twice as many as there are
BUCKETS_LIMIT = 64  # vLLM's histograms have 23
INFLIGHT_LIMIT = 100_000  # attempts of one edge on one replica
NEWS_LIMIT = 10**9  # requests or tokens in one report
AGE_LIMIT_MS = 10 * 365 * 86_400_000  # ten years; what is added to it stays far below 64 bits
TOTAL_LIMIT = 2**53  # of a counter; as floats know them
READING_LIMIT = 1e9  # watts, seconds, ratios: whatever is measured is far below


def clip(text: str, limit_chars: int = TEXT_LIMIT_CHARS) -> str:
    """The text, cut with a mark where it was too long, and safe to print on a terminal."""
    if len(text) > limit_chars:
        text = text[: limit_chars - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def name_fault(name: str) -> str:
    """What is wrong with a name that will be a key and a word on a terminal; empty if nothing."""
    if not 0 < len(name) <= NAME_LIMIT_CHARS:
        return f"a name has 1 to {NAME_LIMIT_CHARS} characters, not {len(name)}"
    if not name.isprintable() or " " in name:
        return f"the name {name!r} has spaces or control characters"
    return ""


def instance_fault(instance: str) -> str:
    """What is wrong with the id of a process; empty if nothing."""
    if len(instance) > NAME_LIMIT_CHARS:
        return f"an instance has at most {NAME_LIMIT_CHARS} characters, not {len(instance)}"
    return ""


def url_fault(url: str) -> str:
    """What makes this no base URL that an edge could send to; empty if nothing."""
    whole = 0 < len(url) <= URL_LIMIT_CHARS and url.isascii() and url.isprintable()
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if whole and good and not {"@", " ", "?", "#"} & set(url):
        return ""
    return f"url {clip(url)!r} is not an http URL of at most {URL_LIMIT_CHARS} characters"


def facts_fault(facts: EngineFacts) -> str:
    """What makes these facts unusable; empty if nothing."""
    if not 0 < facts.max_num_seqs <= MAX_NUM_SEQS_LIMIT:
        return f"max_num_seqs is {facts.max_num_seqs}, not 1 to {MAX_NUM_SEQS_LIMIT}"
    return name_fault(facts.replica) or url_fault(facts.url)


def bounded_facts(facts: EngineFacts) -> EngineFacts:
    """Facts of a bounded size."""
    models = facts.served_models[:MODEL_NAMES_LIMIT]
    return replace(
        facts,
        url=facts.url.rstrip("/"),
        served_models=tuple(clip(model) for model in models),
        vllm_version=clip(facts.vllm_version),
        unit=clip(facts.unit),
        max_model_len_tokens=_capped(facts.max_model_len_tokens, TOTAL_LIMIT),
        kv_cache_tokens=_capped(facts.kv_cache_tokens, TOTAL_LIMIT),
        uptime_ms=_capped(facts.uptime_ms, AGE_LIMIT_MS),
        adapters=tuple(filter(_is_adapter_name, facts.adapters[:ADAPTERS_LIMIT])),
    )


def _is_adapter_name(name: str) -> bool:
    """Whether requests can name it so; one that is cut would be another's name."""
    return 0 < len(name) <= ADAPTER_NAME_LIMIT_CHARS and name.isprintable()


def bounded_use(use: ReplicaUse) -> ReplicaUse:
    """An edge's word on a replica, of a bounded size and with numbers that can be added up."""
    return _with(
        use,
        inflight=min(use.inflight, INFLIGHT_LIMIT),
        dispatched=min(use.dispatched, NEWS_LIMIT),
        outcomes=_bounded_outcomes(use.outcomes),
        cohorts=tuple(map(_bounded_cohort, use.cohorts[:COHORTS_LIMIT])),
        tokens=min(use.tokens, NEWS_LIMIT),
        unanswered_ms=min(use.unanswered_ms, AGE_LIMIT_MS),
    )


def bounded_pool_use(use: PoolUse) -> PoolUse:
    """An edge's word on a pool, of a bounded size and with numbers that can be added up."""
    tenants = use.tenants[:TENANTS_PER_POOL]
    if not all(map(_is_bounded, tenants)):
        tenants = tuple(map(_bounded_tenant, tenants))
    return _with(
        use,
        queued=min(use.queued, COUNT_LIMIT),
        oldest_wait_ms=min(use.oldest_wait_ms, AGE_LIMIT_MS),
        requests=min(use.requests, NEWS_LIMIT),
        shed=min(use.shed, NEWS_LIMIT),
        tenants=tenants,
    )


def bounded_report(report: Report) -> Report:
    """A report of a bounded size."""
    return _with(
        report,
        engines=tuple(_bounded_sample(sample) for sample in report.engines[:PER_NODE_LIMIT]),
        gpus=tuple(_bounded_gpu(gpu) for gpu in report.gpus[:PER_NODE_LIMIT]),
        gpu_detail=clip(report.gpu_detail),
    )


def bounded_node_facts(facts: NodeFacts) -> NodeFacts:
    """A node's word on how it is set up, of a bounded size."""
    engines = tuple(
        _with(
            one,
            replica=clip(one.replica, NAME_LIMIT_CHARS),
            listens=tuple(clip(at, NAME_LIMIT_CHARS) for at in one.listens[:LISTENS_LIMIT]),
            scheduling_policy=clip(one.scheduling_policy, NAME_LIMIT_CHARS),
        )
        for one in facts.engines[:PER_NODE_LIMIT]
    )
    return _with(facts, engines=engines)


def _with(value: T, **fields: Any) -> T:
    """The value with these; itself if it has them already, as nearly all that comes has."""
    for name, wanted in fields.items():
        if getattr(value, name) != wanted:
            return replace(value, **fields)  # type: ignore[type-var]
    return value


def _is_bounded(use: TenantUse) -> bool:
    return (
        len(use.tenant) <= NAME_LIMIT_CHARS
        and use.queued <= COUNT_LIMIT
        and 0.0 <= use.queued_work <= WORK_LIMIT
        and len(use.ages_ms) <= AGES_PER_TENANT
        and -WORK_LIMIT <= use.charged_work <= WORK_LIMIT
    )


def _bounded_tenant(use: TenantUse) -> TenantUse:
    return _with(
        use,
        tenant=clip(use.tenant, NAME_LIMIT_CHARS),
        queued=min(use.queued, COUNT_LIMIT),
        queued_work=min(max(0.0, use.queued_work), WORK_LIMIT),
        ages_ms=use.ages_ms[:AGES_PER_TENANT],
        charged_work=min(max(-WORK_LIMIT, use.charged_work), WORK_LIMIT),
    )


def _bounded_sample(sample: EngineSample) -> EngineSample:
    totals: dict[str, Any] = {name: _capped(getattr(sample, name), TOTAL_LIMIT) for name in _TOTALS}
    return _with(
        sample,
        reason=clip(sample.reason),
        state_age_ms=min(sample.state_age_ms, AGE_LIMIT_MS),
        metrics_age_ms=_capped(sample.metrics_age_ms, AGE_LIMIT_MS),
        no_progress_ms=min(sample.no_progress_ms, AGE_LIMIT_MS),
        running=_capped(sample.running, COUNT_LIMIT),
        waiting=_capped(sample.waiting, COUNT_LIMIT),
        kv_cache_usage_ratio=_reading(sample.kv_cache_usage_ratio, 1.0),
        ttft=_bounded_histogram(sample.ttft),
        itl=_bounded_histogram(sample.itl),
        gpus=sample.gpus[:PER_NODE_LIMIT],
        **totals,
    )


def _bounded_histogram(delta: HistogramDelta | None) -> HistogramDelta | None:
    if delta is None or len(delta.le_s) != len(delta.count):
        return None
    count = delta.count[:BUCKETS_LIMIT]
    return _with(
        delta,
        le_s=delta.le_s[:BUCKETS_LIMIT],
        count=count if max(count, default=0) <= NEWS_LIMIT else tuple(map(_news, count)),
        sum_s=min(max(0.0, delta.sum_s), READING_LIMIT),
    )


def _bounded_cohort(cohort: Cohort) -> Cohort:
    return _with(
        cohort,
        dispatched=min(cohort.dispatched, NEWS_LIMIT),
        outcomes=_bounded_outcomes(cohort.outcomes),
    )


def _bounded_outcomes(outcomes: tuple[OutcomeCount, ...]) -> tuple[OutcomeCount, ...]:
    return tuple([_with(one, count=_news(one.count)) for one in outcomes[:OUTCOMES_LIMIT]])


def _news(count: int) -> int:
    return min(count, NEWS_LIMIT)


def _capped(value: int | None, limit: int) -> int | None:
    return None if value is None else min(value, limit)


def _reading(value: float | None, limit: float = READING_LIMIT) -> float | None:
    """A measured number; a negative one is absent."""
    return min(value, limit) if value is not None and value >= 0 else None


def _bounded_gpu(gpu: GpuSample) -> GpuSample:
    return _with(
        gpu,
        uuid=clip(gpu.uuid),
        name=clip(gpu.name),
        detail=clip(gpu.detail),
        xids=gpu.xids[:XID_LIMIT],
        processes=gpu.processes[:PER_NODE_LIMIT],
        utilization_ratio=_reading(gpu.utilization_ratio, 1.0),
        power_watts=_reading(gpu.power_watts),
    )
