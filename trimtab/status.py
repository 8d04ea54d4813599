"""The fleet as the status page shows it: plain data, and what changed between two moments.

Rules: the same document for the page, its updates and `?format=json`; times are seconds since 1970,
so that what stands still does not change; absent is None; no prompt and no key is in it. The public
document says how the fleet is, and nothing of tenants, nodes, requests or reasons.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimtab import history
from trimtab.model import (
    BreakerState,
    EngineState,
    GpuSample,
    GpuState,
    Intent,
    Route,
    Serving,
)
from trimtab.steered import Override, OverrideKind
from trimtab.verdict import Verdict, why
from trimtab.views import Explanation, Fleet, FleetEvent, PoolView, ReplicaView

API_VERSION = "trimtab/v1"
SILENT_MS = 3_000
TENANTS_SHOWN = 20
REQUESTS_SHOWN = 10
EVENTS_SHOWN = 500
_OF_BREAKER = {
    BreakerState.PROBING: "probing",
    BreakerState.RAMPING: "ramping",
    BreakerState.DEGRADED: "degraded",
    BreakerState.DRAINING: "draining",
}
_OF_INTENT = {
    Intent.CORDONED: "cordoned",
    Intent.DRAINING: "draining",
    Intent.SPARE: "spare",
}
_CODES = {name: code for code, name in enumerate(history.USES)}
_ENGINE_CODES = {name: code for code, name in enumerate(history.ENGINES)}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tenant:
    """What one tenant has and waits for; the ratios are of all tenants' in its pool."""

    tenant: str
    pool: str
    queued: int = 0
    oldest_wait_s: float = 0.0
    inflight: int | None = None
    work_ratio: float | None = None
    """Of the work of the last minute."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request under way."""

    request_id: str
    since_s: float
    tenant: str
    pool: str
    replica: str = ""
    tokens: int = 0
    attempts: int = 0
    began: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment, as one process sees it."""

    seen_by: str
    """control plane or edge."""
    name: str
    fleet: Fleet
    verdict: Verdict
    at_s: float
    since_s: float
    facts: Sequence[tuple[str, str]] = ()
    avoided: frozenset[str] = frozenset()
    """Replicas that this edge doubts."""
    tenants: Iterable[Tenant] = ()
    requests: Iterable[Request] | None = None
    events: Sequence[FleetEvent] = ()


def use(route: Route, intent: Intent = Intent.ACTIVE, *, avoided: bool = False) -> str:
    """What is made of a replica, in one word of `history.USES`."""
    if route.breaker is BreakerState.EJECTED:
        return "ejected"
    if route.serving is Serving.LOST:
        return "lost"
    word = _OF_INTENT.get(intent) or _OF_BREAKER.get(route.breaker)
    if word and word != "degraded":
        return word
    if route.serving is not Serving.OPEN:
        return "joining" if route.breaker is BreakerState.JOINING else "closed"
    if avoided:
        return "avoided"
    return word or "healthy"


def code(word: str) -> int:
    """The code of a use in the history."""
    return _CODES[word]


def engine_code(state: EngineState) -> int:
    """The code of an engine's state in the history; 0 when nobody knows it."""
    return _ENGINE_CODES.get(state.name, 0)


def document(look: Look) -> Document:
    """All there is to see."""
    fleet, at_s = look.fleet, look.at_s
    tenants = sorted(look.tenants, key=lambda t: (-t.queued, -(t.work_ratio or 0.0), t.tenant))
    return {
        "apiVersion": API_VERSION,
        "kind": "Status",
        "seen_by": look.seen_by,
        "name": look.name,
        "fleet": fleet.name,
        "at_s": at_s,
        "since_s": round(look.since_s),
        "level": look.verdict.level.value,
        "sentence": look.verdict.sentence,
        "problems": look.verdict.problems,
        "facts": look.facts,
        "by_hand": [_by_hand(one, at_s) for one in fleet.overrides],
        "pools": [_pool(pool, fleet.replicas) for pool in fleet.pools],
        "replicas": {
            r.route.replica: _row(r, at_s, avoided=r.route.replica in look.avoided)
            for r in fleet.replicas
        },
        "tenants": [asdict(tenant) for tenant in tenants[:TENANTS_SHOWN]],
        "requests": None if look.requests is None else [asdict(one) for one in look.requests],
        "events": [_event(event) for event in look.events[-EVENTS_SHOWN:]],
    }


def public(whole: Document) -> Document:
    """The same for everybody."""
    shown = ("use", "pool", "serving", "inflight", "limit", "share_ratio")
    rows = whole["replicas"].items()
    return {
        **whole,
        "name": "",
        "problems": (),
        "facts": (),
        "by_hand": [],
        "replicas": {name: {key: row[key] for key in shown} for name, row in rows},
        "pools": [{**pool, "alarm": ""} for pool in whole["pools"]],
        "tenants": [],
        "requests": None,
        "events": [],
    }


def delta(before: Document, after: Document) -> Document:
    """What to put over the document before: changed fields, changed rows, new events."""
    known = before["replicas"]
    newest = before["events"][-1]["number"] if before["events"] else 0
    changed = {key: value for key, value in after.items() if value != before.get(key)}
    changed["replicas"] = {n: row for n, row in after["replicas"].items() if row != known.get(n)}
    changed["gone"] = [name for name in known if name not in after["replicas"]]
    changed["events"] = [event for event in after["events"] if event["number"] > newest]
    return changed


def explained(found: Explanation) -> Document:
    """Why a replica gets the traffic it gets."""
    findings = [{**asdict(one), "concern": one.concern.name} for one in found.findings]
    return {**asdict(found), "findings": findings, "events": [_event(e) for e in found.events]}


def cells(past: history.History, finished: Iterable[history.Finished]) -> list[Document]:
    """Finished cells of the timeline, as an update carries them."""
    return [past.cell(*one)._asdict() for one in finished]


def _pool(pool: PoolView, replicas: Iterable[ReplicaView]) -> Document:
    """A pool; of latencies those of its worst replica, which is what some of its users see."""
    mine = [replica for replica in replicas if replica.route.pool == pool.pool]
    return {
        **asdict(pool),
        "ttft_p50_s": _most(replica.ttft_p50_s for replica in mine),
        "ttft_p99_s": _most(replica.ttft_p99_s for replica in mine),
        "tokens_per_s": _sum(replica.generation_tokens_per_s for replica in mine),
    }


def _row(replica: ReplicaView, at_s: float, *, avoided: bool) -> Document:
    route = replica.route
    silent = replica.report_age_ms is not None and replica.report_age_ms > SILENT_MS
    return {
        "pool": route.pool,
        "node": route.node,
        "serving": route.serving.name,
        "use": use(route, replica.intent, avoided=avoided),
        "why": why(replica),
        "state": replica.state.name,
        "intent": replica.intent.name,
        "breaker": route.breaker.name,
        "breaker_reason": replica.breaker_reason,
        "breaker_since_s": _since(at_s, replica.breaker_age_ms),
        "probed_at_s": _since(at_s, -(replica.ejected_for_ms or 0)),
        "ejections": replica.ejections,
        "limit": replica.limit_slots,
        "full": replica.full_slots,
        "inflight": replica.inflight,
        "running": replica.running,
        "waiting": replica.waiting,
        "kv_cache_usage_ratio": _rounded(replica.kv_cache_usage_ratio),
        "ttft_p50_s": _rounded(replica.ttft_p50_s),
        "ttft_p99_s": _rounded(replica.ttft_p99_s),
        "tokens_per_s": _rounded(replica.generation_tokens_per_s, 0),
        "share_ratio": _rounded(replica.share_ratio),
        "weight": _rounded(replica.weight),
        "failures_1m": replica.failures_1m,
        "overloads_1m": replica.overloads_1m,
        "silent_since_s": _since(at_s, replica.report_age_ms) if silent else None,
        "vllm_version": replica.vllm_version,
        "gpus": _gpus(replica.gpus),
    }


def _by_hand(one: Override, at_s: float) -> Document:
    """What an operator put in the place of automatic steering, and the command that ends it."""
    weights = " ".join(f"{share.replica}={share.weight:g}" for share in one.weights)
    said, undo = {
        OverrideKind.WEIGHTS: (f"weights of {one.target}: {weights}", "ctl weights reset {}"),
        OverrideKind.HOLD_OPEN: (f"{one.target} is held out", "ctl breaker reset {}"),
        OverrideKind.HOLD_CLOSED: (f"{one.target} is held in", "ctl breaker reset {}"),
        OverrideKind.PAUSE: ("automation is paused: edges' counts eject nobody", "ctl resume"),
        OverrideKind.EDGE_DRAIN: (f"edge {one.target} drains", "ctl uncordon edge {}"),
    }.get(one.kind, (one.kind.name, "ctl status"))
    return {
        "text": f"{said}, by {one.actor}" + (f": {one.reason}" if one.reason else ""),
        "until_s": round(at_s + one.left_ms / 1000),
        "undo": undo.format(shlex.quote(one.target)),
    }


def _event(event: FleetEvent) -> Document:
    """Without its details: `explain` has them."""
    names = ("number", "at_ms", "about", "what", "text")
    return {name: getattr(event, name) for name in names}


def _gpus(samples: Sequence[GpuSample]) -> Document | None:
    """The hottest, the mean load and memory, and anything wrong."""
    if not samples:
        return None
    loads = [s.utilization_ratio for s in samples if s.utilization_ratio is not None]
    used = [s.memory_used_bytes for s in samples if s.memory_used_bytes is not None]
    total = [s.memory_total_bytes for s in samples if s.memory_total_bytes is not None]
    return {
        "count": len(samples),
        "celsius": _most(s.temperature_celsius for s in samples),
        "load_ratio": _rounded(sum(loads) / len(loads)) if loads else None,
        "memory_ratio": _rounded(sum(used) / sum(total)) if used and sum(total) else None,
        "lost": sum(s.state is not GpuState.OK for s in samples),
        "xids": sorted({event.code for s in samples for event in s.xids}),
    }


def _since(at_s: float, age_ms: int | None) -> int | None:
    return round(at_s - age_ms / 1000) if age_ms else None


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known)) if known else None
