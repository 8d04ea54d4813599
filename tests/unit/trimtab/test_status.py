"""The page's document: words for replicas, changes between two looks, and what is not public."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from tests.fakes.fleet import EVENTS, FLEET, GPU0
from trimtab import status
from trimtab.history import USES
from trimtab.model import BreakerState, Intent, Route, Serving
from trimtab.steered import Override, OverrideKind, Share
from trimtab.verdict import judge

OPEN, CLOSED, LOST = Serving.OPEN, Serving.CLOSED, Serving.LOST
AT_S = 1_800_000_000.0


def look(**changes: object) -> status.Look:
    """The fixed fleet."""
    whole = status.Look("control plane", "cp1", FLEET, judge(FLEET), AT_S, AT_S - 60)
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("serving", "breaker", "intent", "avoided", "word"),
    [
        (OPEN, BreakerState.HEALTHY, Intent.ACTIVE, False, "healthy"),
        (OPEN, BreakerState.UNSPECIFIED, Intent.UNSPECIFIED, False, "healthy"),
        (OPEN, BreakerState.HEALTHY, Intent.ACTIVE, True, "avoided"),
        (OPEN, BreakerState.DEGRADED, Intent.ACTIVE, False, "degraded"),
        (OPEN, BreakerState.RAMPING, Intent.ACTIVE, False, "ramping"),
        (CLOSED, BreakerState.PROBING, Intent.ACTIVE, False, "probing"),
        (CLOSED, BreakerState.JOINING, Intent.ACTIVE, False, "joining"),
        (CLOSED, BreakerState.HEALTHY, Intent.ACTIVE, False, "closed"),
        (CLOSED, BreakerState.HEALTHY, Intent.CORDONED, False, "cordoned"),
        (CLOSED, BreakerState.HEALTHY, Intent.SPARE, False, "spare"),
        (CLOSED, BreakerState.HEALTHY, Intent.DRAINING, False, "draining"),
        (CLOSED, BreakerState.DRAINING, Intent.ACTIVE, False, "draining"),
        (LOST, BreakerState.HEALTHY, Intent.ACTIVE, False, "lost"),
        (LOST, BreakerState.EJECTED, Intent.CORDONED, False, "ejected"),
    ],
)
def test_one_word_for_what_is_made_of_a_replica(
    serving: Serving, breaker: BreakerState, intent: Intent, avoided: bool, word: str
) -> None:
    route = Route("r", "m", "n", "http://h", "m", serving, breaker=breaker)
    assert status.use(route, intent, avoided=avoided) == word
    assert USES[status.code(word)] == word


def test_it_is_plain_data_with_the_verdict_of_ctl_status() -> None:
    found = json.loads(msgspec.json.encode(status.document(look())))
    assert (found["level"], found["sentence"]) == (
        judge(FLEET).level.value,
        judge(FLEET).sentence,
    )
    row = found["replicas"]["gpu1"]
    assert (row["use"], row["state"], row["ejections"]) == ("ejected", "STALLED", 3)
    assert row["probed_at_s"] == AT_S + 17
    assert row["gpus"] == {
        "count": 2,
        "celsius": 88,
        "load_ratio": 1.0,
        "memory_ratio": None,
        "lost": 1,
        "xids": [79],
    }
    assert found["replicas"]["gpu0"]["silent_since_s"] is None
    assert found["pools"][0]["ttft_p99_s"] == 21.7


def test_a_delta_has_what_changed_and_nothing_else() -> None:
    before = status.document(look(events=EVENTS[:1]))
    assert status.delta(before, before) == {"replicas": {}, "gone": [], "events": []}
    fleet = replace(FLEET, replicas=(replace(GPU0, inflight=97),))
    after = status.document(look(fleet=fleet, at_s=AT_S + 1, events=EVENTS))
    found = status.delta(before, after)
    assert found["replicas"].keys() == {"gpu0"}
    assert "gpu1" in found["gone"]
    assert [event["number"] for event in found["events"]] == [e.number for e in EVENTS[1:]]
    assert "fleet" not in found
    assert found["at_s"] == AT_S + 1


def test_the_public_document_keeps_names_and_reasons() -> None:
    request = status.Request("req_canary", AT_S, "canary-tenant", "m")
    tenant = status.Tenant("canary-tenant", "m", 3)
    whole = status.document(look(tenants=[tenant], requests=[request], events=EVENTS))
    text = msgspec.json.encode(whole).decode()
    assert "canary-tenant" in text
    assert "h200a" in text
    shown = msgspec.json.encode(status.public(whole)).decode()
    for secret in ("canary", "h200a", "http://", "no token for", "cp1"):
        assert secret not in shown
    assert judge(FLEET).sentence in shown


@pytest.mark.parametrize(
    ("override", "text", "undo"),
    [
        (
            Override(OverrideKind.WEIGHTS, "m", (Share("a", 70.0),), "anna", "a test"),
            "weights of m: a=70, by anna: a test",
            "ctl weights reset m",
        ),
        (Override(OverrideKind.PAUSE, actor="bo"), "automation is paused", "ctl resume"),
        (Override(OverrideKind.HOLD_OPEN, "it's"), "it's is held out", "reset 'it'\"'\"'s'"),
        (Override(OverrideKind.EDGE_DRAIN, "e"), "edge e drains", "ctl uncordon edge e"),
    ],
)
def test_what_is_steered_by_hand_is_shown_with_its_end(
    override: Override, text: str, undo: str
) -> None:
    fleet = replace(FLEET, overrides=(replace(override, left_ms=60_000),))
    whole = status.document(look(fleet=fleet))
    (shown,) = whole["by_hand"]
    assert text in shown["text"]
    assert shown["undo"].endswith(undo)
    assert shown["until_s"] == AT_S + 60
    assert status.public(whole)["by_hand"] == []


def test_lists_are_bounded() -> None:
    many = [status.Tenant(f"t{i}", "m", i) for i in range(100)]
    found = status.document(look(tenants=many, events=EVENTS * 400))
    assert [t["tenant"] for t in found["tenants"]][:2] == ["t99", "t98"]
    assert len(found["tenants"]) == status.TENANTS_SHOWN
    assert len(found["events"]) == status.EVENTS_SHOWN
