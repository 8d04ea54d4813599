"""Dashboards of who asks and of our own parts: tenants, edges, control plane, objectives."""

from __future__ import annotations

from monitoring import foreign, recording
from monitoring.boards_fleet import MODEL, MODELS, now, percentiles, rate
from monitoring.panels import WINDOW, Board, Line, Variable, figure, graph
from monitoring.promql import Expr, of, quantile
from monitoring.recording import LATE, TTFT_OBJECTIVE, UNANSWERED
from trimtab import catalogue as ours

TENANT, INSTANCE = "=~$tenant", "=~$instance"
TENANTS = Variable("tenant", of(ours.EDGE_REQUESTS))
EDGES = Variable("instance", of(ours.EDGE_CONNECTED))


def _process(metric: foreign.Foreign) -> Expr:
    return of(metric, job=foreign.EDGES, instance=INSTANCE)


TENANT_BOARD = Board(
    "tenant",
    "Tenants",
    "Who asks for how much, and does everybody get his turn? A tenant is the name of a key.",
    (MODELS, TENANTS),
    {
        "Asked": (
            graph(
                "Requests",
                "Ended, a second.",
                "reqps",
                Line(rate(ours.EDGE_REQUESTS, "tenant", model=MODEL, tenant=TENANT), "{{tenant}}"),
                stacked=True,
            ),
            graph(
                "Refused or failed by our doing",
                "Part of each tenant's requests: one far above the others floods, or is starved.",
                "percentunit",
                Line(
                    rate(
                        ours.EDGE_REQUESTS,
                        "tenant",
                        model=MODEL,
                        tenant=TENANT,
                        outcome=recording.OURS,
                    ).part_of(rate(ours.EDGE_REQUESTS, "tenant", model=MODEL, tenant=TENANT)),
                    "{{tenant}}",
                ),
            ),
            graph(
                "By status",
                "What its clients see: 429 and 503 are refusals, 499 left by itself.",
                "reqps",
                Line(
                    rate(
                        ours.EDGE_REQUESTS,
                        *("tenant", "code"),
                        model=MODEL,
                        tenant=TENANT,
                        code="!=200",
                    ),
                    "{{tenant}} {{code}}",
                ),
            ),
            graph(
                "Turned away before the queue",
                "No key, no such model, not JSON: these have no tenant.",
                "reqps",
                Line(rate(ours.EDGE_REJECTED, "code"), "{{code}}"),
            ),
        ),
        "Got": (
            graph(
                "Tokens made",
                "A second: the work that each tenant has had.",
                "none",
                Line(
                    rate(ours.EDGE_TOKENS, "tenant", model=MODEL, tenant=TENANT, type="output"),
                    "{{tenant}}",
                ),
                stacked=True,
            ),
            graph(
                "Share of tokens made",
                "Even among those who ask for more than they get: that is fair.",
                "percentunit",
                Line(
                    rate(
                        ours.EDGE_TOKENS, "tenant", model=MODEL, tenant=TENANT, type="output"
                    ).share_of(rate(ours.EDGE_TOKENS, model=MODEL, type="output")),
                    "{{tenant}}",
                ),
            ),
            graph(
                "Tokens read",
                "Prompts; cached ones cost next to nothing.",
                "none",
                Line(
                    rate(
                        ours.EDGE_TOKENS,
                        *("tenant", "type"),
                        model=MODEL,
                        tenant=TENANT,
                        type="=~input|cached",
                    ),
                    "{{tenant}} {{type}}",
                ),
            ),
        ),
    },
)
EDGE_BOARD = Board(
    "edge",
    "Edges",
    "What we cost, and whether each edge hears the control plane.",
    (EDGES,),
    {
        "Cost": (
            graph(
                "Overhead",
                "Of a request, what was neither queue nor replica.",
                "s",
                *percentiles(ours.EDGE_OVERHEAD, instance=INSTANCE),
            ),
            graph(
                "Lag of the event loop",
                "An edge that is late for itself is late for everybody.",
                "s",
                Line(
                    quantile(0.99, ours.EDGE_LOOP_LAG, "5m", "instance", instance=INSTANCE),
                    "p99 {{instance}}",
                ),
            ),
            graph(
                "In flight",
                "Accepted and not ended, queued ones included.",
                "none",
                Line(
                    of(ours.EDGE_REQUESTS_IN_FLIGHT, instance=INSTANCE).by("sum", "instance"),
                    "{{instance}}",
                ),
            ),
            graph(
                "Requests ended",
                "A second, by edge.",
                "reqps",
                Line(rate(ours.EDGE_REQUESTS, "instance", instance=INSTANCE), "{{instance}}"),
            ),
        ),
        "Steering": (
            graph(
                "Who rules",
                "0 the control plane, 1 its last word, 2 the edge itself.",
                "none",
                Line(
                    of(ours.EDGE_AUTONOMY, instance=INSTANCE).by("max", "instance"), "{{instance}}"
                ),
            ),
            graph(
                "Newest push applied",
                "Edges far apart: one of them hears less.",
                "none",
                Line(
                    of(ours.EDGE_CONFIG_REVISION, instance=INSTANCE).by("max", "instance"),
                    "{{instance}}",
                ),
            ),
            graph(
                "Retries left",
                "Part of the budget: at 0 a failure is the caller's.",
                "percentunit",
                Line(of(ours.EDGE_RETRY_BUDGET, instance=INSTANCE).by("min", "model"), "{{model}}"),
            ),
            graph(
                "Repeated by Idempotency-Key",
                "replayed: answered from what was kept.",
                "reqps",
                Line(rate(ours.EDGE_REPLAYS, "result", instance=INSTANCE), "{{result}}"),
            ),
        ),
        "Process": (
            graph(
                "Cores in use",
                "An edge, or a worker of one, can use one.",
                "none",
                Line(_process(foreign.PROCESS_CPU).rate(WINDOW), "{{instance}}"),
            ),
            graph(
                "Memory",
                "An open stream takes some 26 KB.",
                "bytes",
                Line(_process(foreign.PROCESS_MEMORY), "{{instance}}"),
            ),
            graph(
                "Open files and sockets",
                "Part of what the process may have.",
                "percentunit",
                Line(
                    _process(foreign.PROCESS_FILES) / _process(foreign.PROCESS_FILES_MAX),
                    "{{instance}}",
                ),
            ),
            graph(
                "Certificates",
                "Days until each one ends.",
                "d",
                Line(
                    of(ours.CERT_EXPIRY, job=foreign.EDGES)
                    .number("-", "time()")
                    .number("/", "86400"),
                    "{{instance}} {{use}}",
                ),
            ),
            graph(
                "Newest configuration taken",
                "0: it was refused, and the one before goes on.",
                "none",
                Line(of(ours.CONFIG_RELOADED, job=foreign.EDGES), "{{instance}}"),
            ),
            graph(
                "Lines of the access log that were dropped",
                "A second: there were too many at once, or there is no place for them.",
                "none",
                Line(
                    rate(ours.EDGE_ACCESS_LINES_DROPPED, "instance", instance=INSTANCE),
                    "{{instance}}",
                ),
            ),
        ),
    },
)
CONTROLPLANE_BOARD = Board(
    "controlplane",
    "Control plane",
    "Who leads, who is heard, and how fast what is decided arrives.",
    (),
    {
        "Now": (
            figure(
                "Leaders",
                "One is right.",
                "none",
                Line(of(ours.CONTROLPLANE_LEADER).by("sum"), "leaders"),
                (2, "yellow"),
            ),
            figure(
                "Push lag",
                "Age of the oldest push that an edge has not taken.",
                "s",
                Line(now(ours.CONTROLPLANE_PUSH_LAG), "lag"),
                *((1, "yellow"), (5, "red")),
            ),
            figure(
                "Writes that failed",
                "In 5 minutes; they are tried again.",
                "none",
                Line(of(ours.CONTROLPLANE_STORE_FAILURES).increase("5m").by("sum"), "failed"),
                (1, "yellow"),
            ),
        ),
        "Peers": (
            graph(
                "Leader",
                "Who leads, and the terms.",
                "none",
                Line(of(ours.CONTROLPLANE_LEADER).by("max", "instance"), "{{instance}} leads"),
                Line(now(ours.CONTROLPLANE_TERM), "term"),
            ),
            graph(
                "Open streams",
                "As many as there are agents and edges.",
                "none",
                Line(now(ours.CONTROLPLANE_STREAMS, "kind"), "{{kind}}"),
            ),
            graph(
                "Age of agents' reports",
                "Two a second are usual.",
                "s",
                Line(now(ours.AGENT_REPORT_AGE, "node"), "{{node}}"),
            ),
            graph(
                "Age of edges' reports",
                "Two a second are usual.",
                "s",
                Line(now(ours.EDGE_REPORT_AGE, "edge"), "{{edge}}"),
            ),
            graph(
                "Refused",
                "Messages and streams that were not taken, by what was wrong.",
                "none",
                Line(of(ours.CONTROLPLANE_REFUSED).increase("5m").by("sum", "kind"), "{{kind}}"),
            ),
            graph(
                "Replicas wanted",
                "By queues and first tokens, beside those that there are.",
                "none",
                Line(now(ours.MODEL_REPLICAS_WANTED, "model"), "wanted {{model}}"),
                Line(now(ours.MODEL_REPLICAS, "model"), "there {{model}}"),
            ),
        ),
    },
)


def _burn(budget: float, *rules: recording.Recorded) -> list[Line]:
    """How many times faster than allowed each budget goes."""
    return [
        Line(
            rule.of(model="$model").number("/", f"{1 - budget:.10g}"),
            f"{{{{model}}}} over {rule.record.rpartition('ratio_rate')[2]}",
        )
        for rule in rules
    ]


SLO_BOARD = Board(
    "slo",
    "Objectives",
    f"{recording.ANSWERED_OBJECTIVE:.1%} of requests are answered, and {TTFT_OBJECTIVE:.0%} of "
    f"streams begin within {recording.TTFT_SLO_S:g} s. 1 is what the budget allows; 14.4 over an "
    "hour pages, 6 over six hours can wait for the morning.",
    (MODELS,),
    {
        "How fast the budgets go": (
            graph(
                "Unanswered",
                "Refused, failed or too late, by our doing.",
                "none",
                *_burn(recording.ANSWERED_OBJECTIVE, UNANSWERED["1h"], UNANSWERED["6h"]),
            ),
            graph(
                "Late",
                "Streams whose first token came too late.",
                "none",
                *_burn(TTFT_OBJECTIVE, LATE["1h"], LATE["6h"]),
            ),
        ),
        "What they are made of": (
            graph(
                "Unanswered, part of requests",
                "Over 5 minutes.",
                "percentunit",
                Line(UNANSWERED["5m"].of(model="$model"), "{{model}}"),
            ),
            graph(
                "Late, part of streams",
                "Over 5 minutes.",
                "percentunit",
                Line(LATE["5m"].of(model="$model"), "{{model}}"),
            ),
            graph(
                "Unanswered, by kind",
                "A second.",
                "reqps",
                Line(
                    rate(
                        ours.EDGE_REQUESTS,
                        *("model", "outcome"),
                        model=MODEL,
                        outcome=recording.OURS,
                    ),
                    "{{model}} {{outcome}}",
                ),
            ),
            graph(
                "First token",
                "p99 over 5 minutes.",
                "s",
                Line(recording.TTFT_P99.of(model="$model"), "{{model}}"),
            ),
        ),
    },
)
