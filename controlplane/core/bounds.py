"""Limits on what peers may make us hold: names are refused, texts and lists are cut.

Rules: after these functions every string and tuple has a bound, so memory follows the number of
replicas (at most REPLICA_LIMIT) and never a peer's mood.
"""

from __future__ import annotations

from dataclasses import replace

from trimtab.model import EngineFacts, EngineSample, GpuSample, PoolUse, Report, TenantUse

REPLICA_LIMIT = 10_000
NODE_LIMIT = 4_096
EDGE_LIMIT = 1_000
NAME_LIMIT_CHARS = 128
URL_LIMIT_CHARS = 512
TEXT_LIMIT_CHARS = 300
MODEL_NAMES_LIMIT = 64
PER_NODE_LIMIT = 64  # engines and GPUs of one node, as the proto promises
XID_LIMIT = 8
TENANTS_PER_POOL = 64  # as the proto promises, and so are the ages
AGES_PER_TENANT = 64
COUNT_LIMIT = 1_000_000  # requests that wait for one pool at one edge
WORK_LIMIT = 1e12  # tokens; a fleet of thousands takes a day for it
MAX_NUM_SEQS_LIMIT = 1_000_000  # far above any engine; keeps sums of limits small


def clip(text: str, limit_chars: int = TEXT_LIMIT_CHARS) -> str:
    """The text, cut with a mark where it was too long."""
    return text if len(text) <= limit_chars else text[: limit_chars - 1] + "…"


def name_fault(name: str) -> str:
    """What is wrong with a name that will be a key and a word on a terminal; empty if nothing."""
    if not 0 < len(name) <= NAME_LIMIT_CHARS:
        return f"a name has 1 to {NAME_LIMIT_CHARS} characters, not {len(name)}"
    if not name.isprintable() or " " in name:
        return f"the name {name!r} has spaces or control characters"
    return ""


def facts_fault(facts: EngineFacts) -> str:
    """What makes these facts unusable; empty if nothing."""
    if not facts.url.startswith(("http://", "https://")) or len(facts.url) > URL_LIMIT_CHARS:
        return f"url {clip(facts.url)!r} is not an http URL of at most {URL_LIMIT_CHARS} characters"
    if not 0 < facts.max_num_seqs <= MAX_NUM_SEQS_LIMIT:
        return f"max_num_seqs is {facts.max_num_seqs}, not 1 to {MAX_NUM_SEQS_LIMIT}"
    return name_fault(facts.replica)


def bounded_facts(facts: EngineFacts) -> EngineFacts:
    """Facts of a bounded size."""
    models = facts.served_models[:MODEL_NAMES_LIMIT]
    return replace(
        facts,
        url=facts.url.rstrip("/"),
        served_models=tuple(clip(model) for model in models),
        vllm_version=clip(facts.vllm_version),
    )


def bounded_pool_use(use: PoolUse) -> PoolUse:
    """An edge's word on a pool, of a bounded size and with numbers that can be added up."""
    few = use.queued <= COUNT_LIMIT and len(use.tenants) <= TENANTS_PER_POOL
    if few and all(map(_is_bounded, use.tenants)):
        return use  # nearly always
    tenants = tuple(_bounded_tenant(tenant) for tenant in use.tenants[:TENANTS_PER_POOL])
    return replace(use, queued=min(use.queued, COUNT_LIMIT), tenants=tenants)


def bounded_report(report: Report) -> Report:
    """A report of a bounded size."""
    return Report(
        seq=report.seq,
        engines=tuple(_bounded_sample(sample) for sample in report.engines[:PER_NODE_LIMIT]),
        gpus=tuple(_bounded_gpu(gpu) for gpu in report.gpus[:PER_NODE_LIMIT]),
        gpu_detail=clip(report.gpu_detail),
    )


def _is_bounded(use: TenantUse) -> bool:
    return (
        len(use.tenant) <= NAME_LIMIT_CHARS
        and use.queued <= COUNT_LIMIT
        and 0.0 <= use.queued_work <= WORK_LIMIT
        and len(use.ages_ms) <= AGES_PER_TENANT
        and -WORK_LIMIT <= use.charged_work <= WORK_LIMIT
    )


def _bounded_tenant(use: TenantUse) -> TenantUse:
    return replace(
        use,
        tenant=clip(use.tenant, NAME_LIMIT_CHARS),
        queued=min(use.queued, COUNT_LIMIT),
        queued_work=min(max(0.0, use.queued_work), WORK_LIMIT),
        ages_ms=use.ages_ms[:AGES_PER_TENANT],
        charged_work=min(max(-WORK_LIMIT, use.charged_work), WORK_LIMIT),
    )


def _bounded_sample(sample: EngineSample) -> EngineSample:
    if len(sample.reason) <= TEXT_LIMIT_CHARS and len(sample.gpus) <= PER_NODE_LIMIT:
        return sample
    return replace(sample, reason=clip(sample.reason), gpus=sample.gpus[:PER_NODE_LIMIT])


def _bounded_gpu(gpu: GpuSample) -> GpuSample:
    return replace(
        gpu,
        uuid=clip(gpu.uuid),
        name=clip(gpu.name),
        detail=clip(gpu.detail),
        xids=gpu.xids[:XID_LIMIT],
        processes=gpu.processes[:PER_NODE_LIMIT],
    )
