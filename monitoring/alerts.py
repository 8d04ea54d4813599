"""The alerts: when somebody is woken (page), when it can wait for the morning (ticket), and why.

Rules: an alert is something that somebody can do something about, and docs/runbooks/<name>.md says
what; it holds per model, replica or process, so that `summary` names it. What ends by itself within
its `for` is nobody's business. `ejected` alone is no alert: taking a sick engine out is our job.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitoring import foreign, recording
from monitoring.promql import Expr, absent, of
from monitoring.recording import ANSWERED_OBJECTIVE, LATE, TTFT_OBJECTIVE, TTFT_SLO_S, UNANSWERED
from trimtab import catalogue

PAGE, TICKET = "page", "ticket"
FAST_BURN, SLOW_BURN = 14.4, 6.0
"""Of a month's budget: 2 % in an hour, 5 % in six (the SRE workbook's)."""
DAY_S = 86_400
# Means and counts over minutes, not a `for` over what is seen now and then: a replica that is out
# for five seconds of every ten is in at every other scrape. And what the leader counts itself, not
# the `increase` of its moves: a counter that is born at 1 has not increased.


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule; `dashboard` is where to look first, with the alert's labels as its variables."""

    name: str
    severity: str
    expr: Expr
    wait: str
    summary: str
    description: str
    dashboard: str


def _max(expr: Expr, *by: str) -> Expr:
    """Over leaders: for a moment there may be two."""
    return expr.by("max", *by)


_TTFT_BEFORE = recording.TTFT_P99.read().ago("1d").number("*", "2")
_RUNNING = of(foreign.VLLM_RUNNING).over("min_over_time", "2m").by("sum", "replica") > 0
_HANGS = _RUNNING.also(recording.ITERATIONS.read().number("==", "0"))
_STALLED = _max(of(catalogue.REPLICA_STATE, state="stalled"), "replica") > 0
_PREEMPTS = of(foreign.VLLM_PREEMPTIONS).rate("5m").by("sum", "replica") > 0
_RETRIES = of(catalogue.EDGE_CLIENT_RETRIES).rate("5m").by("sum")
_ASKED = of(catalogue.EDGE_REQUESTS).rate("5m").by("sum")
_LEFT = of(catalogue.CERT_EXPIRY).number("-", "time()")
_LISTENERS = of(catalogue.CERT_EXPIRY, use="listener").number("-", "time()")


def _burns(rate: float, long: str, short: str) -> Expr:
    """Either budget, over a long window and a short one, so that it ends when the trouble does."""
    unanswered, late = rate * (1 - ANSWERED_OBJECTIVE), rate * (1 - TTFT_OBJECTIVE)
    one = (UNANSWERED[long].read() > unanswered).also(UNANSWERED[short].read() > unanswered)
    other = (LATE[long].read() > late).also(LATE[short].read() > late)
    return one.meet("or", other)


STEERING = (
    Alert(
        "TrimtabPingPong",
        PAGE,
        _max(of(catalogue.MODEL_PING_PONG), "model") >= 2,
        "0m",
        "{{ $labels.model }}: healthy replicas are taken out in turns",
        "{{ $value }} times in 10 minutes a replica of {{ $labels.model }} was taken out within "
        "60 s after another one, while its engine did useful work and no operator had asked.",
        "pingpong",
    ),
    Alert(
        "TrimtabHealthyCapacityWithheld",
        PAGE,
        _max(of(catalogue.MODEL_WITHHELD).over("avg_over_time", "5m"), "model") > 0.25,
        "1m",
        "{{ $labels.model }}: {{ $value | humanizePercentage }} of its healthy room is unused",
        "Engines of {{ $labels.model }} do useful work by their agents' word, but requests may not "
        "go there: an ejection, a hold, a cordon, weights, or a ramp that does not end.",
        "pingpong",
    ),
    Alert(
        "TrimtabModelUnserved",
        PAGE,
        (_max(of(catalogue.MODEL_SLOTS), "model").number("==", "0")).also(
            _max(of(catalogue.MODEL_REPLICAS), "model") > 0
        ),
        "30s",
        "{{ $labels.model }}: no replica takes requests",
        "All requests for {{ $labels.model }} wait or are refused.",
        "fleet",
    ),
    Alert(
        "TrimtabEngineHung",
        PAGE,
        _HANGS.meet("or", _STALLED),
        "30s",
        "{{ $labels.replica }}: its engine has work and does nothing",
        "{{ $labels.replica }} has requests running and has made no step, by its own counters or "
        "by its agent's word. Requests go elsewhere; the engine does not mend itself.",
        "replica",
    ),
    Alert(
        "TrimtabReplicaCrashLoop",
        PAGE,
        of(catalogue.REPLICA_STARTS).increase("30m").by("sum", "model", "replica") >= 3,
        "0m",
        "{{ $labels.replica }}: its engine was started three times in 30 minutes",
        "The engine of {{ $labels.replica }} ({{ $labels.model }}) dies and is started again.",
        "replica",
    ),
    Alert(
        "TrimtabGPUXid",
        PAGE,
        (of(foreign.GPU_XID).over("changes", "5m") > 0).also(of(foreign.GPU_XID) > 0),
        "0m",
        "{{ $labels.Hostname }}: GPU {{ $labels.gpu }} reports an Xid",
        "The driver reported an error of GPU {{ $labels.gpu }} ({{ $labels.UUID }}) on "
        "{{ $labels.Hostname }}; which one is the value of DCGM_FI_DEV_XID_ERRORS.",
        "replica",
    ),
    Alert(
        "TrimtabKVCacheExhausted",
        TICKET,
        (_max(of(foreign.VLLM_KV), "replica") > 0.95).also(_PREEMPTS),
        "5m",
        "{{ $labels.replica }}: its KV cache is full, and it preempts",
        "The engine of {{ $labels.replica }} throws requests out and computes them again.",
        "replica",
    ),
)
CLIENTS = (
    Alert(
        "TrimtabTTFTDegraded",
        PAGE,
        (recording.TTFT_P99.read() > TTFT_SLO_S).unless(
            recording.TTFT_P99.read().meet("<", _TTFT_BEFORE)
        ),
        "10m",
        "{{ $labels.model }}: first tokens come late, p99 {{ $value | humanizeDuration }}",
        "One stream in a hundred of {{ $labels.model }} waits longer than 10 s for its first "
        "token, and more than twice as long as at this time yesterday.",
        "model",
    ),
    Alert(
        "TrimtabShedding",
        TICKET,
        recording.SHED.read() > 0.05,
        "10m",
        "{{ $labels.model }}: {{ $value | humanizePercentage }} of requests are refused",
        "More is asked of {{ $labels.model }} than its replicas can do in time.",
        "model",
    ),
    Alert(
        "TrimtabRetryStorm",
        TICKET,
        _RETRIES / _ASKED > 0.2,
        "5m",
        "{{ $value | humanizePercentage }} of all requests are repetitions",
        "Clients send again what was refused or cut; the load is less than it looks.",
        "fleet",
    ),
    Alert(
        "TrimtabErrorBudgetBurn",
        PAGE,
        _burns(FAST_BURN, "1h", "5m"),
        "2m",
        "{{ $labels.model }}: a month's error budget is gone in two days at this rate",
        "Requests of {{ $labels.model }} are refused, fail or begin late, for an hour and now.",
        "slo",
    ),
    Alert(
        "TrimtabErrorBudgetLow",
        TICKET,
        _burns(SLOW_BURN, "6h", "30m"),
        "15m",
        "{{ $labels.model }}: a month's error budget is gone in five days at this rate",
        "Requests of {{ $labels.model }} are refused, fail or begin late, for six hours and now.",
        "slo",
    ),
)
PARTS = (
    Alert(
        "TrimtabEdgeDown",
        PAGE,
        of(foreign.UP, job=foreign.EDGES).number("==", "0"),
        "1m",
        "edge {{ $labels.instance }} can't be scraped",
        "Its clients are refused connections, if it is really down: one address is one edge.",
        "edge",
    ),
    Alert(
        "TrimtabControlPlaneDown",
        PAGE,
        absent(of(catalogue.CONTROLPLANE_LEADER).number("==", "1")),
        "1m",
        "no control plane leads",
        "Edges serve on with what they know, and go on alone. Nothing can be changed, and no sick "
        "engine is taken out for all of them.",
        "controlplane",
    ),
    Alert(
        "TrimtabEdgeStaleConfig",
        TICKET,
        of(catalogue.EDGE_AUTONOMY) > 0,
        "2m",
        "edge {{ $labels.instance }} hears no control plane",
        "It serves by the last routing that it has, and rules its room itself.",
        "edge",
    ),
    Alert(
        "TrimtabAgentSilent",
        TICKET,
        _max(of(catalogue.AGENT_REPORT_AGE), "node") > 30,
        "1m",
        "{{ $labels.node }}: its agent has not reported for {{ $value | humanizeDuration }}",
        "Nobody sees whether the engines of {{ $labels.node }} make progress. Silence alone takes "
        "nothing out.",
        "controlplane",
    ),
    Alert(
        "TrimtabStoreFailing",
        TICKET,
        of(catalogue.CONTROLPLANE_STORE_FAILURES).increase("5m").by("sum") > 0,
        "5m",
        "the control plane's store refuses writes",
        "Intents can't be changed, and what is decided may be lost with the leader.",
        "controlplane",
    ),
    Alert(
        "TrimtabConfigRefused",
        TICKET,
        of(catalogue.CONFIG_RELOADED).number("==", "0"),
        "5m",
        "{{ $labels.instance }} has refused its newest configuration",
        "{{ $labels.job }} at {{ $labels.instance }} goes on with the one before.",
        "controlplane",
    ),
    Alert(
        "TrimtabCertExpiring",
        TICKET,
        (_LEFT < DAY_S).meet("or", _LISTENERS < 14 * DAY_S),
        "15m",
        "{{ $labels.instance }}: a certificate ends in {{ $value | humanizeDuration }}",
        "The {{ $labels.use }} certificate of {{ $labels.instance }}. Towards the fleet (peer) it "
        "should have been renewed by itself long ago; towards clients (listener) you renew it.",
        "controlplane",
    ),
)
GROUPS = {"steering": STEERING, "clients": CLIENTS, "parts": PARTS}
ALERTS = tuple(alert for group in GROUPS.values() for alert in group)
