"""Every metric that Trimtab exports, by definition: docs/metrics.md is generated from it.

How to add one: a `Metric` here, then `./run docs`; a part makes it with runtime/telemetry's `make`,
or, what is only read at a scrape, with its `family`. `names()` has what queries may name.

Rules: `trimtab_` first, base units (_seconds, _bytes, _ratio, _timestamp_seconds), `_total` on what
only grows; latencies have vLLM's own buckets, so that percentiles here and there compare. A label
has a fixed set of values, or at most `most` of them: what is beyond that is counted as OTHER. No
label ever has a key, a user, an id, a path or a word of a prompt in it.
"""

from __future__ import annotations

from enum import Enum

from trimtab.metric import Kind, Label, Metric, Part
from trimtab.model import BreakerState, EngineState, Intent, Urgency
from trimtab.policy.breaker import Cause

OTHER = "other"
# vLLM 0.32, v1/metrics/buckets.py
TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_BUCKETS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_BUCKETS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
OWN_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
"""What takes us no time if all is well."""


def _set(name: str, *values: str) -> Label:
    return Label(name, values)


def _names(names: type[Enum]) -> tuple[str, ...]:
    return tuple(one.name.lower() for one in names if one.name != "UNSPECIFIED")


MODEL = Label("model", most=100, means="a pool, by its name")
TENANT = Label("tenant", most=500, means="a key, by its name, never the key")
REPLICA = Label("replica", most=1_000, means="an engine, by its name")
NODE = Label("node", most=1_000, means="a machine with an agent, by its name")
EDGE = Label("edge", most=100, means="an edge, or one of its workers, by its name")
VERSION = Label("version", most=1)
CLASS = Label("class", _names(Urgency))
CODE = _set(
    *("code", "200", "400", "401", "403", "404", "405", "408", "409", "413", "414", "415", "417"),
    *("422", "426", "429", "431", "499", "500", "502", "503", "504", OTHER),
)
OUTCOME = _set(
    *("outcome", "ok", "client_error", "client_disconnect", "shed", "replica_error", "timeout"),
    "internal_error",
)


def _edge(name: str, kind: Kind, text: str, *labels: Label) -> Metric:
    return Metric(f"trimtab_edge_{name}", kind, Part.EDGE, text, labels)


def _edge_seconds(name: str, buckets: tuple[float, ...], text: str, *labels: Label) -> Metric:
    name = f"trimtab_edge_{name}_seconds"
    return Metric(name, Kind.HISTOGRAM, Part.EDGE, text, labels, buckets)


def _led(name: str, kind: Kind, text: str, *labels: Label) -> Metric:
    return Metric(f"trimtab_{name}", kind, Part.LEADER, text, labels)


# What an edge counts of requests

EDGE_REQUESTS = _edge(
    "requests",
    Kind.COUNTER,
    "Client requests ended that asked for a replica. code: as answered, 499 when the client left.",
    *(MODEL, TENANT, CODE, OUTCOME),
)
EDGE_REJECTED = _edge(
    "rejected",
    Kind.COUNTER,
    "Client requests that were turned away before they asked for a replica: no key, no such model, "
    "not JSON.",
    CODE,
)
EDGE_REQUESTS_IN_FLIGHT = _edge(
    "requests_in_flight",
    Kind.GAUGE,
    "Client requests accepted and not ended, queued ones included.",
    *(MODEL, CLASS),
)
EDGE_QUEUE_DEPTH = _edge(
    "queue_depth", Kind.GAUGE, "Client requests waiting for a replica.", MODEL, CLASS
)
EDGE_QUEUE_WAIT = _edge_seconds(
    "queue_wait", TTFT_BUCKETS_S, "From arrival until a replica was picked, each attempt.", MODEL
)
EDGE_TTFT = _edge_seconds(
    "time_to_first_token",
    TTFT_BUCKETS_S,
    "From arrival until the first data of a stream was sent to the client.",
    MODEL,
)
EDGE_ITL = _edge_seconds(
    "inter_token_latency",
    TOKEN_BUCKETS_S,
    "Between two tokens of a stream: its mean, counted once for each of its tokens but the first.",
    MODEL,
)
EDGE_TPOT = _edge_seconds(
    "time_per_output_token",
    TOKEN_BUCKETS_S,
    "Between two tokens of a stream: its mean, counted once for each stream.",
    MODEL,
)
EDGE_DURATION = _edge_seconds(
    "request_duration", REQUEST_BUCKETS_S, "From arrival until the end.", MODEL
)
EDGE_OVERHEAD = _edge_seconds(
    "overhead",
    OWN_BUCKETS_S,
    "Of a request, what it neither waited in the queue nor was with a replica: reading it, finding "
    "its way, ending it.",
    MODEL,
)
EDGE_SHED = _edge(
    "shed",
    Kind.COUNTER,
    "Client requests refused for want of room, or to keep replicas from harm.",
    MODEL,
    _set("reason", "queue_full", "wait", "expired", "engines_full", "no_replica", "poison"),
)
EDGE_TOKENS = _edge(
    "tokens",
    Kind.COUNTER,
    "Tokens by the engines' own word. input: read, cached ones included; cached: those of them "
    "found in the prefix cache; output: made, reasoning included, of streams cut short as counted "
    "by events; reasoning: those of them that were thought.",
    *(MODEL, TENANT),
    _set("type", "input", "cached", "output", "reasoning"),
)
EDGE_CLIENT_RETRIES = _edge(
    "client_retries",
    Kind.COUNTER,
    "Client requests that are a repetition, by their SDK's word.",
    _set("attempt", "1", "2", "3+"),
)
EDGE_REPLAYS = _edge(
    "replays",
    Kind.COUNTER,
    "Requests with the Idempotency-Key of an earlier one: replayed, in_use (told to come back), "
    "mismatch (the key stood for another request).",
    _set("result", "replayed", "in_use", "mismatch"),
)
EDGE_ACCESS_LINES_DROPPED = _edge(
    "access_lines_dropped",
    Kind.COUNTER,
    "Lines of the access log that were dropped: too many at once, or no place for them.",
)

# What it counts of attempts

EDGE_ATTEMPTS = _edge(
    "upstream_attempts",
    Kind.COUNTER,
    "Attempts ended. backpressure: the engine had no room, which is no failure; abandoned: the "
    "caller left, its time was up, or another attempt was faster.",
    REPLICA,
    _set(
        *("result", "ok", "backpressure", "connect_error", "http_4xx", "http_5xx", "reset"),
        *("timeout", "lost", "malformed", "abandoned"),
    ),
)
EDGE_RETRY_BUDGET = _edge(
    "retry_budget_ratio", Kind.GAUGE, "What is left of the retries that it may spend.", MODEL
)
EDGE_FAILOVERS = _edge(
    "stream_failovers",
    Kind.COUNTER,
    "Streams cut after their first data, by what came of it: continued on another replica, off in "
    "the pool, inexact (see the decision record), given_up (too often or too many).",
    MODEL,
    _set("result", "continued", "off", "inexact", "given_up"),
)
EDGE_AFFINITY = _edge(
    "affinity",
    Kind.COUNTER,
    "Attempts of requests of a known session or prompt, by where they went.",
    MODEL,
    _set("went", "home", "away"),
)
EDGE_HEDGES = _edge(
    "hedges",
    Kind.COUNTER,
    "Second attempts beside a late first one.",
    MODEL,
    _set("result", "won", "lost", "failed"),
)
EDGE_FALLBACKS = _edge(
    "fallbacks",
    Kind.COUNTER,
    "Requests that the fleet would have refused and that may leave it: answered by the external "
    "API, failed there, full (too many of them at once).",
    MODEL,
    _set("result", "answered", "failed", "full"),
)

# What it says of itself

EDGE_CONFIG_REVISION = _edge(
    "config_revision", Kind.GAUGE, "Version of the newest push applied: routing, or room."
)
EDGE_CONNECTED = _edge(
    "controlplane_connected", Kind.GAUGE, "1 while the stream to the control plane is up."
)
EDGE_AUTONOMY = _edge(
    "autonomy",
    Kind.GAUGE,
    "Who rules this edge's room: 0 the control plane, 1 its last word, 2 the edge itself.",
)
EDGE_LOOP_LAG = _edge_seconds(
    "event_loop_lag",
    OWN_BUCKETS_S,
    "How much later than asked for the event loop came back to one who slept a second.",
)
EDGE_ACCESS_LINES_DROPPED = _edge(
    "access_lines_dropped",
    Kind.COUNTER,
    "Lines of the access log that were dropped: too many at once, or no place for them.",
)

# Every process with a page

BUILD_INFO = Metric(
    "trimtab_build_info",
    Kind.GAUGE,
    Part.BOTH,
    "1, of what and by which version this page is.",
    (VERSION, _set("part", "edge", "controlplane")),
)
CERT_EXPIRY = Metric(
    "trimtab_cert_expiry_timestamp_seconds",
    Kind.GAUGE,
    Part.BOTH,
    "When its certificate ends. peer: towards the fleet; listener: towards clients.",
    (_set("use", "peer", "listener"),),
)
CONFIG_RELOADED = Metric(
    "trimtab_config_last_reload_successful",
    Kind.GAUGE,
    Part.BOTH,
    "1 unless the last reload (SIGHUP) found a configuration that could not be taken.",
)
CONFIG_RELOADED_AT = Metric(
    "trimtab_config_last_reload_success_timestamp_seconds",
    Kind.GAUGE,
    Part.BOTH,
    "When a configuration was last taken: at the start, or by a reload.",
)
OTLP_EXPORTED = Metric(
    "trimtab_otlp_exported",
    Kind.COUNTER,
    Part.BOTH,
    "Spans, and exports of metrics, by what became of them. refused: by the receiver; failed: not "
    "taken after several tries; dropped: more than may wait. Only where OTLP is on.",
    (_set("signal", "traces", "metrics"), _set("result", "sent", "refused", "failed", "dropped")),
)

# Control plane

CONTROLPLANE_LEADER = Metric(
    "trimtab_controlplane_leader", Kind.GAUGE, Part.CONTROLPLANE, "1 while it leads."
)
CONTROLPLANE_REFUSED = _led(
    "controlplane_refused",
    Kind.COUNTER,
    "Messages and streams of peers that were not taken, by what was wrong.",
    _set(
        *("kind", "message", "size", "order", "name", "claim", "facts", "sample", "nonce", "flood"),
        *("full", "silent"),
    ),
)
CONTROLPLANE_STREAMS = _led(
    "controlplane_streams", Kind.GAUGE, "Open streams.", _set("kind", "agent", "edge")
)
CONTROLPLANE_REPLICAS = _led(
    "controlplane_replicas",
    Kind.GAUGE,
    "Replicas, by what edges may do with them.",
    _set("serving", "open", "closed", "lost"),
)
CONTROLPLANE_TERM = _led("controlplane_term", Kind.GAUGE, "The term that its pushes carry.")
CONTROLPLANE_PUSH_LAG = _led(
    "controlplane_push_lag_seconds",
    Kind.GAUGE,
    "Age of the oldest push that an edge has not acked; 0 when all have.",
)
CONTROLPLANE_STORE_FAILURES = _led(
    "controlplane_store_failures",
    Kind.COUNTER,
    "Writes to the store that failed, and are tried again.",
)

# The fleet, as its leader sees it

_OF_REPLICA = (MODEL, REPLICA)
REPLICA_STATE = _led(
    "replica_state",
    Kind.STATES,
    "What its agent makes of the engine.",
    *_OF_REPLICA,
    Label("state", _names(EngineState)),
)
REPLICA_BREAKER = _led(
    "replica_breaker_state",
    Kind.STATES,
    "What the policy makes of the replica, over all edges.",
    *_OF_REPLICA,
    Label("state", _names(BreakerState)),
)
REPLICA_INTENT = _led(
    "replica_intent",
    Kind.STATES,
    "What operators want of it.",
    *_OF_REPLICA,
    Label("state", _names(Intent)),
)
REPLICA_TRANSITIONS = _led(
    "replica_breaker_transitions",
    Kind.COUNTER,
    "Moves of the breaker since this leader began.",
    *_OF_REPLICA,
    Label("from", _names(BreakerState)),
    Label("to", _names(BreakerState)),
    Label("reason", _names(Cause)),
)
REPLICA_WEIGHT = _led(
    "replica_weight_ratio", Kind.GAUGE, "Its share of its model's traffic, as meant.", *_OF_REPLICA
)
REPLICA_ROUTED = _led(
    "replica_routed", Kind.COUNTER, "Attempts that edges have sent to it.", *_OF_REPLICA
)
REPLICA_SLOTS = _led(
    "replica_slots", Kind.GAUGE, "Attempts that it may have at once, over all edges.", *_OF_REPLICA
)
REPLICA_SLOTS_USED = _led(
    "replica_slots_used", Kind.GAUGE, "Attempts that edges have on it.", *_OF_REPLICA
)
REPLICA_HEARTBEAT = _led(
    "replica_engine_heartbeat_age_seconds",
    Kind.GAUGE,
    "How old the newest numbers are that the engine itself gave.",
    *_OF_REPLICA,
)
REPLICA_HEALTHY = _led(
    "replica_engine_healthy",
    Kind.GAUGE,
    "1 while its agent says that the engine does useful work, whatever the breaker makes of it.",
    *_OF_REPLICA,
)
REPLICA_STARTS = _led(
    "replica_engine_starts",
    Kind.COUNTER,
    "Starts of the engine that this leader has seen.",
    *_OF_REPLICA,
)
AGENT_REPORT_AGE = _led(
    "agent_report_age_seconds", Kind.GAUGE, "Since an agent last reported.", NODE
)
EDGE_REPORT_AGE = _led("edge_report_age_seconds", Kind.GAUGE, "Since an edge last reported.", EDGE)
MODEL_HEALTHY_SLOTS = _led(
    "model_healthy_slots",
    Kind.GAUGE,
    "Attempts that those of its engines could have at once that operators want in use and that "
    "their agents call healthy.",
    MODEL,
)
MODEL_SLOTS = _led("model_slots", Kind.GAUGE, "Attempts that it may have at once.", MODEL)
MODEL_SLOTS_USED = _led("model_slots_used", Kind.GAUGE, "Attempts that edges have on it.", MODEL)
MODEL_QUEUED = _led("model_queued", Kind.GAUGE, "Requests that wait at the edges.", MODEL)
MODEL_WITHHELD = _led(
    "model_capacity_withheld_ratio",
    Kind.GAUGE,
    "Part of the healthy engines' room that requests do not get: 0 is good, .5 is one of two "
    "healthy engines unused.",
    MODEL,
)
MODEL_PING_PONG = _led(
    "model_ping_pong_index",
    Kind.GAUGE,
    "How often in 10 minutes a replica whose engine was healthy was taken out within 60 s after "
    "another one: 0 is good, 1 an accident, more is ping-pong.",
    MODEL,
)
MODEL_REPLICAS = _led(
    "model_replicas", Kind.GAUGE, "Replicas, warm spares and those out of use included.", MODEL
)
MODEL_REPLICAS_WANTED = _led(
    "model_replicas_wanted",
    Kind.GAUGE,
    "Replicas that its queue and its first tokens ask for: what the KEDA scaler says.",
    MODEL,
)

METRICS: tuple[Metric, ...] = tuple(one for one in globals().values() if isinstance(one, Metric))
BY_NAME = {metric.name: metric for metric in METRICS}


def names() -> frozenset[str]:
    """Everything that a query may name."""
    return frozenset(name for metric in METRICS for name in metric.series)
