"""How a tenant is served, and what binds, in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.core import tenant_account
from controlplane.core.tenant_account import TenantCase
from trimtab.model import ApiKey
from trimtab.views import Account, Concern, PoolView, TenantAtEdge, TenantInPool

FULL = PoolView("m", 2, 2, 40, 40, inflight=40, queued=30)
SERVED = TenantInPool("m", requests=20, answered=20)
REFUSED = replace(
    SERVED,
    answered=15,
    refused=5,
    queued_all=30,
    latest_odd="req_1",
    predicted_wait_ms=12_000,
    wait_budget_ms=5_000,
)
OWN = replace(REFUSED, queued=25)
CLOSED = replace(REFUSED, nobody_open=5, refused=20)
CASES: dict[str, tuple[tuple[TenantInPool, ...], Concern, str]] = {
    "served": ((SERVED,), Concern.FINE, "t is served: 20 of 20 requests answered in 5.0 min"),
    "unheard": ((), Concern.FINE, "t asked for nothing that took a place in 5.0 min"),
    "waits": (
        (replace(SERVED, queued=3, oldest_wait_ms=900),),
        Concern.FINE,
        "t waits with 3 requests for m, the oldest for 900 ms",
    ),
    "behind others": (
        (SERVED, REFUSED),
        Concern.LIMITS,
        "t had 5 of 40 requests refused in 5.0 min: m had no room (now 40 of 40 slots are used, 30 "
        "wait, 0 of them its own); waits of up to 12.0 s were predicted, 5.0 s is allowed",
    ),
    "in vain": (
        (replace(REFUSED, predicted_wait_ms=0),),
        Concern.LIMITS,
        "they waited as long as they may, 5.0 s, in vain",
    ),
    "behind itself": ((OWN,), Concern.LIMITS, "up to 12.0 s, mostly behind its own, were"),
    "nobody open": (
        (replace(CLOSED, nobody_open=20),),
        Concern.BLOCKS,
        "t had 20 of 20 requests refused in 5.0 min: no replica of m was open (2 of 2 are now)",
    ),
    "failed": ((replace(SERVED, failed=4),), Concern.LIMITS, "t had 4 of 20 requests fail in"),
}


def tell(parts: tuple[TenantInPool, ...], *silent: str) -> Account:
    told = {f"e{n}": TenantAtEdge((part,), 300_000) for n, part in enumerate(parts)}
    keys = [ApiKey(b"", "t", models=("m", "x"))]
    case = TenantCase("t", keys, told or {"e": TenantAtEdge((), 300_000)}, silent, {"m": FULL})
    return tenant_account.tell(case)


@pytest.mark.parametrize("name", CASES)
def test_the_first_line_says_what_binds(name: str) -> None:
    parts, concern, words = CASES[name]
    found = tell(parts)
    assert words in found.headline
    assert found.concern is concern


def test_the_newest_odd_request_can_be_looked_at_and_silent_edges_are_named() -> None:
    found = tell((REFUSED,), "e9: no answer in 2 s")
    assert found.advice == ("ctl explain model m", "ctl explain request req_1")
    assert "e9: no answer in 2 s" in str(found.findings[:2])
    assert "1 of this name, default, may ask only for m, x" in str(found.findings)
