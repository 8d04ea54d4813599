"""edge/metrics: what requests add, and that it stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge.core.decisions import Attempt, Ending, Notes, Record
from edge.metrics import EdgeMetrics, result_of
from trimtab.catalogue import MODEL, OTHER, TENANT
from trimtab.model import Outcome, Urgency
from trimtab.policy.classify import Failure, Fault, classify


def attempt(tokens: int = 0, prompt_tokens: int = 0, **more: int) -> Attempt:
    return Attempt(
        *("r1", 10.0, 11.0, Outcome.OK, "", 200, ()),
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        **more,  # type: ignore[arg-type]
    )


def record(
    *attempts: Attempt,
    ending: Ending = Ending("ok", 200),  # noqa: B008 - it is frozen
    pool: str = "m",
    tenant: str = "lab",
    first_byte_s: float | None = None,
    **more: object,
) -> Record:
    notes = Notes(None, list(attempts))
    return Record(
        *("req", pool, tenant, Urgency.DEFAULT, 1, 10.0, notes, first_byte_s, 12.0, ending),
        **more,  # type: ignore[arg-type]
    )


def value(metrics: EdgeMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"trimtab_edge_{name}", labels)


def test_a_stream_adds_its_tokens_and_its_times() -> None:
    metrics = EdgeMetrics()
    metrics.ended(record(attempt(21, 400, cached_tokens=100), first_byte_s=11.0, own_s=0.0002))
    of = {"model": "m", "tenant": "lab"}
    assert value(metrics, "requests_total", **of, code="200", outcome="ok") == 1
    assert value(metrics, "tokens_total", **of, type="input") == 400
    assert value(metrics, "tokens_total", **of, type="cached") == 100
    assert value(metrics, "tokens_total", **of, type="output") == 21
    assert value(metrics, "time_to_first_token_seconds_sum", model="m") == 1.0
    assert value(metrics, "time_per_output_token_seconds_sum", model="m") == pytest.approx(0.05)
    assert value(metrics, "inter_token_latency_seconds_count", model="m") == 20
    assert value(metrics, "inter_token_latency_seconds_sum", model="m") == pytest.approx(1.0)
    assert value(metrics, "inter_token_latency_seconds_bucket", model="m", le="0.05") == 20
    assert value(metrics, "request_duration_seconds_sum", model="m") == 2.0
    assert value(metrics, "overhead_seconds_bucket", model="m", le="0.00025") == 1


def test_who_goes_on_with_an_answer_has_not_read_a_longer_prompt() -> None:
    metrics = EdgeMetrics()
    metrics.ended(record(attempt(5), attempt(6, 45, continued_at_tokens=5), first_byte_s=11.0))
    of = {"model": "m", "tenant": "lab"}
    assert value(metrics, "tokens_total", **of, type="input") == 40
    assert value(metrics, "tokens_total", **of, type="output") == 11


def test_a_pass_makes_no_tokens() -> None:
    metrics = EdgeMetrics()
    metrics.ended(record(attempt(17, 400), is_pass=True))
    assert value(metrics, "tokens_total", model="m", tenant="lab", type="output") == 0


def test_a_refusal_says_why_and_was_with_nobody() -> None:
    metrics = EdgeMetrics()
    ending = Ending("shed", 503, "server_is_overloaded", 2.0, "wait")
    metrics.ended(record(ending=ending, retries=4))
    metrics.ended(record(ending=Ending("client_disconnect")))
    of = {"model": "m", "tenant": "lab"}
    assert value(metrics, "requests_total", **of, code="503", outcome="shed") == 1
    assert value(metrics, "requests_total", **of, code="499", outcome="client_disconnect") == 1
    assert value(metrics, "shed_total", model="m", reason="wait") == 1
    assert value(metrics, "client_retries_total", attempt="3+") == 1
    assert value(metrics, "overhead_seconds_count", model="m") == 0
    metrics.ended(record(ending=Ending("client_error", 451)))
    assert value(metrics, "requests_total", **of, code=OTHER, outcome="client_error") == 1


@pytest.mark.parametrize(
    ("make", "most", "label"),
    [
        (lambda n: record(attempt(1), tenant=f"t{n}"), TENANT.most, "tenant"),
        (lambda n: record(attempt(1), pool=f"m{n}"), MODEL.most, "model"),
    ],
)
def test_labels_are_bounded_and_nothing_is_lost(
    make: Callable[[int], Record], most: int, label: str
) -> None:
    metrics = EdgeMetrics()
    for number in range(most + 50):
        metrics.ended(make(number))
    (family,) = metrics.requests.collect()
    counts = {sample.labels[label]: sample.value for sample in family.samples}
    assert len(counts) == most + 1
    assert counts[OTHER] == 50


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_a_result(fault: Fault) -> None:
    failure = Failure(fault, 502)
    declared = EdgeMetrics().attempts.definition.labels[1].values
    assert result_of(failure, classify(failure)) in declared


@pytest.mark.parametrize(
    ("failure", "result"),
    [
        (None, "ok"),
        (Failure(Fault.STATUS, 503), "backpressure"),
        (Failure(Fault.STATUS, 404), "http_4xx"),
        (Failure(Fault.STATUS, 500), "http_5xx"),
        (Failure(Fault.SILENT), "timeout"),
    ],
)
def test_how_an_attempt_ended(failure: Failure | None, result: str) -> None:
    assert result_of(failure, classify(failure)) == result
