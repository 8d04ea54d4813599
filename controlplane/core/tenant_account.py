"""How one tenant is served, and what binds where it is refused: told from what edges remember.

Rules: of requests that ended in the last minutes; a tenant is the name of its keys; what binds is
said of the pool with the most refusals. Edges that did not answer are named, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.core.bounds import clip
from controlplane.core.looks import span
from controlplane.core.request_account import ms
from trimtab.model import ApiKey, Urgency
from trimtab.views import Account, Concern, Finding, PoolView, TenantAtEdge, TenantInPool

OWN_RATIO = 0.5
"""So much of what waits is its own: it waits behind itself."""
NOBODY = PoolView("")
NO_LIMITS = "no rate limit, quota or budget exists for tenants: a 429 is an engine's own"


@dataclass(frozen=True, slots=True)
class TenantCase:
    """Everything there is to look at."""

    name: str
    keys: Sequence[ApiKey]
    told: Mapping[str, TenantAtEdge]
    """By edge."""
    silent: Sequence[str]
    """Edges that did not answer, and why."""
    pools: Mapping[str, PoolView]


def tell(case: TenantCase) -> Account:
    """Look at everything; O(edges x pools)."""
    pools = [_together(name, parts) for name, parts in sorted(_by_pool(case.told.values()).items())]
    worst = max(pools, key=lambda pool: (pool.refused, pool.failed, pool.queued), default=None)
    concern, words = _verdict(case, worst)
    findings = [_pool(pool) for pool in pools]
    findings += [_key(case), Finding(Concern.FINE, "limits", NO_LIMITS)]
    if case.silent:
        text = f"not all answered, so there may be more: {'; '.join(case.silent[:5])}"
        findings.append(Finding(Concern.LIMITS, "edges", text))
    return Account(
        subject="tenant",
        name=case.name,
        headline=f"{case.name} {words}",
        concern=concern,
        findings=tuple(sorted(findings, key=lambda finding: finding.concern)),
        advice=tuple(_advice(worst)),
    )


def _by_pool(told: Iterable[TenantAtEdge]) -> dict[str, list[TenantInPool]]:
    found: dict[str, list[TenantInPool]] = {}
    for pool in (pool for edge in told for pool in edge.pools):
        found.setdefault(clip(pool.pool), []).append(pool)
    return found


def _together(name: str, parts: Sequence[TenantInPool]) -> TenantInPool:
    """What all edges tell of one pool."""
    worst = max(parts, key=lambda part: part.predicted_wait_ms)
    return TenantInPool(
        name,
        queued=sum(part.queued for part in parts),
        oldest_wait_ms=max(part.oldest_wait_ms for part in parts),
        queued_all=sum(part.queued_all for part in parts),
        requests=sum(part.requests for part in parts),
        answered=sum(part.answered for part in parts),
        refused=sum(part.refused for part in parts),
        failed=sum(part.failed for part in parts),
        left=sum(part.left for part in parts),
        predicted_wait_ms=worst.predicted_wait_ms,
        wait_budget_ms=worst.wait_budget_ms,
        nobody_open=sum(part.nobody_open for part in parts),
        latest_odd=next((clip(part.latest_odd) for part in parts if part.latest_odd), ""),
    )


def _verdict(case: TenantCase, pool: TenantInPool | None) -> tuple[Concern, str]:
    lately = f"in {span(max((one.span_ms for one in case.told.values()), default=0) / 1000)}"
    if pool is None or not (pool.requests or pool.queued):
        return Concern.FINE, f"asked for nothing that took a place {lately}"
    if pool.refused:
        none = pool.refused == pool.requests
        what = f"had {pool.refused} of {pool.requests} requests refused {lately}"
        concern = Concern.BLOCKS if none else Concern.LIMITS
        return concern, f"{what}: {_binds(pool, case.pools.get(pool.pool, NOBODY))}"
    if pool.failed:
        return Concern.LIMITS, f"had {pool.failed} of {pool.requests} requests fail {lately}"
    if pool.queued:
        wait = f"the oldest for {ms(pool.oldest_wait_ms)}"
        return Concern.FINE, f"waits with {pool.queued} requests for {pool.pool}, {wait}"
    return Concern.FINE, f"is served: {pool.answered} of {pool.requests} requests answered {lately}"


def _binds(pool: TenantInPool, view: PoolView) -> str:
    if 2 * pool.nobody_open > pool.refused:
        return f"no replica of {pool.pool} was open ({view.open} of {view.replicas} are now)"
    full = f"{pool.pool} had no room (now {view.inflight} of {view.open_slots} slots are used"
    full += f", {pool.queued_all} wait, {pool.queued} of them its own)"
    allowed = ms(pool.wait_budget_ms)
    if pool.predicted_wait_ms <= pool.wait_budget_ms:
        return f"{full}; they waited as long as they may, {allowed}, in vain"
    own = pool.queued_all and pool.queued >= OWN_RATIO * pool.queued_all
    wait = f"waits of up to {ms(pool.predicted_wait_ms)}{', mostly behind its own,' if own else ''}"
    return f"{full}; {wait} were predicted, {allowed} is allowed"


def _pool(pool: TenantInPool) -> Finding:
    parts = [f"{pool.requests} ended: {pool.answered} answered"]
    named = {"refused": pool.refused, "failed": pool.failed, "left by callers": pool.left}
    parts += [f"{count} {what}" for what, count in named.items() if count]
    if pool.queued:
        parts.append(f"{pool.queued} wait now")
    concern = Concern.LIMITS if pool.refused or pool.failed else Concern.FINE
    return Finding(concern, "pool", f"{pool.pool}: {', '.join(parts)}")


def _key(case: TenantCase) -> Finding:
    urgencies = sorted({_urgency(key.urgency) for key in case.keys})
    models = sorted({model for key in case.keys for model in key.models})
    asks = f"only for {', '.join(models[:10])}" if models else "for all models"
    text = f"{len(case.keys)} of this name, {' and '.join(urgencies)}, may ask {asks}"
    return Finding(Concern.FINE, "keys", text if case.keys else "none of this name is known now")


def _urgency(urgency: Urgency) -> str:
    return "default" if urgency is Urgency.UNSPECIFIED else urgency.name.lower()


def _advice(pool: TenantInPool | None) -> Iterator[str]:
    if pool is None:
        return
    if pool.refused or pool.queued:
        yield f"ctl explain model {pool.pool}"
    if pool.latest_odd:
        yield f"ctl explain request {pool.latest_odd}"
