"""Dashboards of what the fleet does: all of it, ping-pong, a model, a replica.

Rule: each begins with what a healthy fleet shows as zero or as a flat line.
"""

from __future__ import annotations

from monitoring import foreign, recording
from monitoring.panels import WINDOW, Board, Line, Variable, cloud, figure, graph, lanes
from monitoring.promql import Expr, Scraped, buckets, mean, of, quantile
from trimtab import catalogue as ours

MODEL, REPLICA = "=~$model", "=~$replica"
GOOD, FAIR, BAD, GONE, OTHER = "green", "yellow", "red", "dark-red", "blue"
BREAKER = {
    "healthy": GOOD,
    "degraded": FAIR,
    "ramping": OTHER,
    "probing": "purple",
    "ejected": BAD,
    "draining": "text",
    "joining": "light-blue",
}
ENGINE = {
    "ready": GOOD,
    "warming": "light-green",
    "starting": OTHER,
    "stalled": BAD,
    "dead": GONE,
    "draining": "text",
    "sleeping": "purple",
}
MODELS = Variable("model", of(ours.MODEL_REPLICAS))
REPLICAS = Variable("replica", of(ours.REPLICA_SLOTS, model=MODEL))
EJECTED = {"ejected": of(ours.REPLICA_BREAKER, state="ejected", model=MODEL).number("==", "1")}


def rate(metric: Scraped, *by: str, **matchers: str) -> Expr:
    """A counter's growth a second, over all processes."""
    return of(metric, **matchers).rate(WINDOW).by("sum", *by)


def now(metric: Scraped, *by: str, **matchers: str) -> Expr:
    """What the leader says; for a moment there may be two."""
    return of(metric, **matchers).by("max", *by)


def percentiles(metric: Scraped, *by: str, **matchers: str) -> list[Line]:
    """p50, p95 and p99 of a histogram."""
    labels = " ".join(f"{{{{{label}}}}}" for label in by)
    return [
        Line(quantile(share, metric, WINDOW, *by, **matchers), f"p{share * 100:.0f} {labels}")
        for share in (0.5, 0.95, 0.99)
    ]


def _gpu(metric: Scraped, what: str = "") -> list[Line]:
    return [Line(of(metric), what + "{{Hostname}} {{gpu}}")]


FLEET = Board(
    "fleet",
    "Fleet",
    "Is everything all right? Green figures, and room in use close to healthy room.",
    (MODELS,),
    {
        "Now": (
            figure(
                "Withheld",
                "Room of healthy engines that requests do not get: the worst model.",
                "percentunit",
                Line(now(ours.MODEL_WITHHELD, model=MODEL), "withheld"),
                *((0.1, FAIR), (0.25, BAD)),
            ),
            figure(
                "Ping-pong",
                "Healthy replicas taken out soon after each other, in 10 minutes.",
                "none",
                Line(now(ours.MODEL_PING_PONG, model=MODEL), "index"),
                *((1, FAIR), (2, BAD)),
            ),
            figure(
                "Refused",
                "Requests that found no room in time.",
                "percentunit",
                Line(recording.SHED.of(model="$model").by("max"), "refused"),
                *((0.01, FAIR), (0.05, BAD)),
            ),
            figure(
                "First token, p99",
                "Over 5 minutes, of the worst model.",
                "s",
                Line(recording.TTFT_P99.of(model="$model").by("max"), "p99"),
                *((recording.TTFT_SLO_S / 2, FAIR), (recording.TTFT_SLO_S, BAD)),
            ),
            figure(
                "Waiting",
                "At all edges.",
                "none",
                Line(of(ours.MODEL_QUEUED, model=MODEL).by("sum"), "waiting"),
            ),
            figure(
                "Replicas not open",
                "Closed by an operator or the breaker, or lost.",
                "none",
                Line(of(ours.CONTROLPLANE_REPLICAS, serving="=~closed|lost").by("sum"), "not open"),
                (1, FAIR),
            ),
        ),
        "Room": (
            graph(
                "Slots",
                "Healthy: what engines could have at once. Allowed: what they may. Used. The gap "
                "between the first two is capacity that is withheld.",
                "none",
                Line(now(ours.MODEL_HEALTHY_SLOTS, "model", model=MODEL), "healthy {{model}}"),
                Line(now(ours.MODEL_SLOTS, "model", model=MODEL), "allowed {{model}}"),
                Line(now(ours.MODEL_SLOTS_USED, "model", model=MODEL), "used {{model}}"),
            ),
            graph(
                "Replicas, by what edges may do",
                "open: requests go there.",
                "none",
                Line(now(ours.CONTROLPLANE_REPLICAS, "serving"), "{{serving}}"),
                stacked=True,
            ),
        ),
        "Requests": (
            graph(
                "By outcome",
                "Ended, a second. shed: refused for want of room.",
                "reqps",
                Line(rate(ours.EDGE_REQUESTS, "outcome", model=MODEL), "{{outcome}}"),
                stacked=True,
            ),
            graph(
                "Refused, by reason",
                "wait: it would have waited too long; expired: it did.",
                "reqps",
                Line(rate(ours.EDGE_SHED, "model", "reason", model=MODEL), "{{model}} {{reason}}"),
                stacked=True,
            ),
            graph(
                "First token",
                "From arrival at the edge, its queue included.",
                "s",
                *percentiles(ours.EDGE_TTFT, model=MODEL),
            ),
            graph(
                "Waiting at the edges",
                "The backlog: it waits here, not in the engines.",
                "none",
                Line(now(ours.MODEL_QUEUED, "model", model=MODEL), "{{model}}"),
            ),
            graph(
                "Tokens a second",
                "By the engines' own word.",
                "none",
                Line(rate(ours.EDGE_TOKENS, "type", model=MODEL), "{{type}}"),
            ),
            graph(
                "Clients' repetitions",
                "By their SDKs' word: load that refusals and cuts have made.",
                "reqps",
                Line(rate(ours.EDGE_CLIENT_RETRIES, "attempt"), "attempt {{attempt}}"),
            ),
        ),
    },
    EJECTED,
)
PINGPONG = Board(
    "pingpong",
    "Ping-pong",
    "Does load jump between replicas while their engines are fine? Flat shares, and green lanes.",
    (MODELS,),
    {
        "Who gets what": (
            graph(
                "Share of requests",
                "Of what was sent to each model's replicas in a minute.",
                "percentunit",
                Line(recording.SHARE.of(model="$model"), "{{model}} {{replica}}"),
                stacked=True,
            ),
            graph(
                "Ping-pong index",
                "Healthy replicas taken out within 60 s after another one, in 10 minutes.",
                "none",
                Line(now(ours.MODEL_PING_PONG, "model", model=MODEL), "{{model}}"),
            ),
            lanes(
                "Breaker",
                "What the policy makes of each replica.",
                ours.REPLICA_BREAKER,
                BREAKER,
                *("model", "replica"),
            ),
            lanes(
                "Engine",
                "What its agent makes of each engine: compare with the lane above.",
                ours.REPLICA_STATE,
                ENGINE,
                *("model", "replica"),
            ),
        ),
        "Why": (
            graph(
                "Moves of breakers, by cause",
                "Since this leader began. The causes are those of docs/steering.md.",
                "none",
                Line(
                    of(ours.REPLICA_TRANSITIONS, model=MODEL)
                    .total()
                    .by("sum", "replica", "to", "reason"),
                    "{{replica}} to {{to}}: {{reason}}",
                ),
            ),
            graph(
                "Attempts: overload beside failures",
                "backpressure is no failure, and ejects nobody.",
                "reqps",
                Line(
                    rate(ours.EDGE_ATTEMPTS, "replica", result="backpressure"),
                    "{{replica}} backpressure",
                ),
                Line(
                    rate(
                        ours.EDGE_ATTEMPTS,
                        *("replica", "result"),
                        result="=~connect_error|http_5xx|reset|timeout|lost|malformed",
                    ),
                    "{{replica}} {{result}}",
                ),
            ),
            graph(
                "Weights",
                "Each replica's share as meant: by limits, ramps and what operators set.",
                "percentunit",
                Line(
                    now(ours.REPLICA_WEIGHT, "model", "replica", model=MODEL),
                    "{{model}} {{replica}}",
                ),
                stacked=True,
            ),
            graph(
                "Limits",
                "Slots that each replica may have; a ramp grows step by step.",
                "none",
                Line(now(ours.REPLICA_SLOTS, "replica", model=MODEL), "{{replica}}"),
            ),
            graph(
                "Withheld",
                "Part of the healthy room that requests do not get.",
                "percentunit",
                Line(now(ours.MODEL_WITHHELD, "model", model=MODEL), "{{model}}"),
            ),
        ),
    },
    EJECTED,
)
MODEL_BOARD = Board(
    "model",
    "Model",
    "How is a model served? Where a first token's time goes, and what its engines spend.",
    (MODELS, REPLICAS),
    {
        "Asked and answered": (
            graph(
                "Requests by outcome",
                "Ended, a second.",
                "reqps",
                Line(
                    rate(ours.EDGE_REQUESTS, "model", "outcome", model=MODEL),
                    "{{model}} {{outcome}}",
                ),
                stacked=True,
            ),
            graph(
                "Slots and queue",
                "Used of allowed, and what waits at the edges by class.",
                "none",
                Line(now(ours.MODEL_SLOTS, "model", model=MODEL), "allowed {{model}}"),
                Line(now(ours.MODEL_SLOTS_USED, "model", model=MODEL), "used {{model}}"),
                Line(
                    of(ours.EDGE_QUEUE_DEPTH, model=MODEL).by("sum", "model", "class"),
                    "waiting {{model}} {{class}}",
                ),
            ),
        ),
        "Time": (
            graph(
                "First token",
                "As clients see it.",
                "s",
                *percentiles(ours.EDGE_TTFT, "model", model=MODEL),
            ),
            graph(
                "What a first token waits for",
                "Means on each other: our queue, the engine's queue, the prompt.",
                "s",
                Line(mean(ours.EDGE_QUEUE_WAIT, WINDOW, model=MODEL), "edge queue"),
                Line(mean(foreign.VLLM_QUEUE_TIME, WINDOW, replica=REPLICA), "engine queue"),
                Line(mean(foreign.VLLM_PREFILL_TIME, WINDOW, replica=REPLICA), "prefill"),
                stacked=True,
            ),
            graph(
                "Between tokens",
                "A stream's mean, counted for each token.",
                "s",
                *percentiles(ours.EDGE_ITL, "model", model=MODEL),
            ),
            graph(
                "Whole requests",
                "From arrival to the end.",
                "s",
                *percentiles(ours.EDGE_DURATION, "model", model=MODEL),
            ),
        ),
        "Engines": (
            graph(
                "Prompt tokens found in the cache",
                "Of all replicas chosen above.",
                "percentunit",
                Line(
                    rate(foreign.VLLM_PREFIX_HITS, "replica", replica=REPLICA)
                    / rate(foreign.VLLM_PREFIX_QUERIES, "replica", replica=REPLICA),
                    "{{replica}}",
                ),
            ),
            graph(
                "Preemptions",
                "A request that is thrown out is computed again.",
                "none",
                Line(rate(foreign.VLLM_PREEMPTIONS, "replica", replica=REPLICA), "{{replica}}"),
            ),
            graph(
                "Conversations sent home",
                "Attempts of known sessions, by where they went.",
                "reqps",
                Line(rate(ours.EDGE_AFFINITY, "model", "went", model=MODEL), "{{model}} {{went}}"),
            ),
            cloud(
                "Length of prompts",
                "Tokens, by the engines.",
                "none",
                buckets(foreign.VLLM_PROMPT_LENGTH, replica=REPLICA)
                .increase(WINDOW)
                .by("sum", "le"),
            ),
        ),
        "Promises": (
            graph(
                "Streams cut, by what came of it",
                "continued: the caller saw one stream.",
                "reqps",
                Line(
                    rate(ours.EDGE_FAILOVERS, "model", "result", model=MODEL),
                    "{{model}} {{result}}",
                ),
            ),
            graph(
                "Hedges and fallbacks",
                "Second attempts beside a late first one, and requests that left the fleet.",
                "reqps",
                Line(
                    rate(ours.EDGE_HEDGES, "model", "result", model=MODEL),
                    "hedge {{model}} {{result}}",
                ),
                Line(
                    rate(ours.EDGE_FALLBACKS, "model", "result", model=MODEL),
                    "fallback {{model}} {{result}}",
                ),
            ),
        ),
    },
    EJECTED,
)
XID = {"Xid": of(foreign.GPU_XID).over("changes", "1m") > 0}
REPLICA_BOARD = Board(
    "replica",
    "Replica",
    "What a replica is asked to do, and what its engine and GPU do. GPUs need NVIDIA's exporter.",
    (MODELS, REPLICAS),
    {
        "What it is": (
            lanes("Engine", "By its agent.", ours.REPLICA_STATE, ENGINE, *("model", "replica")),
            lanes(
                "Breaker", "By the policy.", ours.REPLICA_BREAKER, BREAKER, *("model", "replica")
            ),
        ),
        "Work": (
            graph(
                "Slots",
                "Allowed and used, over all edges.",
                "none",
                Line(now(ours.REPLICA_SLOTS, "replica", replica=REPLICA), "allowed {{replica}}"),
                Line(now(ours.REPLICA_SLOTS_USED, "replica", replica=REPLICA), "used {{replica}}"),
            ),
            graph(
                "In the engine",
                "By its own counters: a few may wait, so that a slot is taken in the next step.",
                "none",
                Line(now(foreign.VLLM_RUNNING, "replica", replica=REPLICA), "running {{replica}}"),
                Line(now(foreign.VLLM_WAITING, "replica", replica=REPLICA), "waiting {{replica}}"),
            ),
            graph(
                "Tokens a second",
                "Read and made, by its own counters.",
                "none",
                Line(
                    rate(foreign.VLLM_PROMPT_TOKENS, "replica", replica=REPLICA), "read {{replica}}"
                ),
                Line(
                    rate(foreign.VLLM_GENERATION_TOKENS, "replica", replica=REPLICA),
                    "made {{replica}}",
                ),
            ),
            graph(
                "KV cache",
                "Full, with preemptions: requests are too long for this many at once.",
                "percentunit",
                Line(now(foreign.VLLM_KV, "replica", replica=REPLICA), "{{replica}}"),
            ),
            graph(
                "Attempts ended",
                "By what came of them.",
                "reqps",
                Line(
                    rate(ours.EDGE_ATTEMPTS, "replica", "result", replica=REPLICA),
                    "{{replica}} {{result}}",
                ),
            ),
            graph(
                "Age of its numbers",
                "How long ago the engine itself said anything.",
                "s",
                Line(now(ours.REPLICA_HEARTBEAT, "replica", replica=REPLICA), "{{replica}}"),
            ),
        ),
        "GPUs": (
            graph("Utilisation", "All nodes.", "percent", *_gpu(foreign.GPU_UTIL)),
            graph("Memory used", "All nodes.", "decmbytes", *_gpu(foreign.GPU_MEMORY_USED)),
            graph(
                "Temperature",
                "Of the chip and of its memory.",
                "celsius",
                *_gpu(foreign.GPU_TEMP),
                *_gpu(foreign.GPU_MEMORY_TEMP, "memory "),
            ),
            graph("Power", "All nodes.", "watt", *_gpu(foreign.GPU_POWER)),
        ),
    },
    {**EJECTED, **XID},
)
