"""Accounts of requests, tenants and models as a leader would tell them, for whoever shows them.

They are made by the code that tells them, from what edges would say.
"""

from __future__ import annotations

import json

from controlplane.core import model_account, request_account, tenant_account
from controlplane.core.model_account import ModelCase
from controlplane.core.tenant_account import TenantCase
from tests.fakes.fleet import BIG, FLEET, WHY_GPU1
from trimtab.model import ApiKey, Urgency
from trimtab.views import Account, EdgeRecord, TenantAtEdge, TenantInPool


def candidate(name: str, score: float, inflight: int, **more: object) -> dict[str, object]:
    """One of those that a choice was between."""
    return {"replica": name, "inflight": inflight, "slots": 16, "score": score, **more}


AMONG = [candidate("gpu0", 0.81, 13), candidate("gpu1", 1.0, 16, waiting=3)]
RETRIED = {
    "request_id": "req_7d1e",
    "caller_id": "nb-42",
    "pool": BIG,
    "tenant": "imaging",
    "urgency": "interactive",
    "path": "/v1/chat/completions",
    "stream": True,
    "prompt_tokens": 18_204,
    "came_ms": 1_700_000_000_000,
    "predicted_wait_ms": 3_900,
    "wait_budget_ms": 45_000,
    "waited_ms": 4_130,
    "attempts": [
        {
            "replica": "gpu0",
            "picked_ms": 4_120,
            "ended_ms": 4_130,
            "outcome": "overload",
            "fault": "status",
            "status": 503,
            "at_home": True,
            "among": AMONG,
        },
        {
            "replica": "gpu1",
            "picked_ms": 4_140,
            "ended_ms": 29_300,
            "outcome": "ok",
            "status": 200,
            "at_home": False,
            "tokens": 812,
            "among": [candidate("gpu1", 0.55, 8)],
        },
    ],
    "first_byte_ms": 4_910,
    "ended_ms": 29_300,
    "outcome": "ok",
    "status": 200,
}
REFUSED = RETRIED | {
    "request_id": "req_9f2c",
    "predicted_wait_ms": 14_200,
    "wait_budget_ms": 5_000,
    "waited_ms": 0,
    "attempts": [],
    "first_byte_ms": None,
    "ended_ms": 1,
    "outcome": "shed",
    "status": 503,
    "code": "server_is_overloaded",
    "retry_after_ms": 13_100,
    "a field of a newer edge": True,
}


def request(record: dict[str, object]) -> Account:
    """What is told of a request by its record."""
    content = json.dumps(record)
    read = request_account.read(content.encode())
    assert read is not None
    return request_account.tell([(read, EdgeRecord("edge-a", content))])


TRIALS = TenantAtEdge(
    (
        TenantInPool(
            *(BIG, 35, 4_100, 40, 60),
            answered=46,
            refused=12,
            left=2,
            predicted_wait_ms=14_200,
            wait_budget_ms=5_000,
            latest_odd="req_9f2c",
        ),
    ),
    300_000,
)
ACCOUNTS: dict[tuple[str, str], Account] = {
    ("request", "req_7d1e"): request(RETRIED),
    ("request", "req_9f2c"): request(REFUSED),
    ("tenant", "trials"): tenant_account.tell(
        TenantCase(
            "trials",
            [ApiKey(b"", "trials", Urgency.BATCH, (BIG,))],
            {"edge-a": TRIALS},
            ["edge-b: no answer in 2 s"],
            {pool.pool: pool for pool in FLEET.pools},
        )
    ),
    ("model", BIG): model_account.tell(
        ModelCase(BIG, FLEET.pools[0], [WHY_GPU1], queued_work=12_000.0, work_per_s=3e3)
    ),
}
