"""How single values read in a cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ctl import columns
from tests.fakes.fleet import FLEET, GPU0, GPU1
from trimtab.model import BreakerState, GpuSample, GpuState


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (None, "-"),
        (0, "0.0s"),
        (240, "0.2s"),
        (9_999, "10.0s"),
        (12_400, "12s"),
        (60_000, "1m"),
        (184_000, "3m4s"),
        (7_500_000, "2h5m"),
        (525_600_000, "6d2h"),
        (86_400_000, "1d"),
    ],
)
def test_span(milliseconds: int | None, words: str) -> None:
    assert columns.span(milliseconds) == words


def test_absent_is_never_zero() -> None:
    assert [f(None) for f in (columns.count, columns.ratio, columns.seconds, columns.ago)] == [
        "-"
    ] * 4
    assert [columns.count(0), columns.ratio(0.0), columns.seconds(0.0)] == ["0", "0.00", "0ms"]


@pytest.mark.parametrize(
    ("words", "cell"),
    [
        ("", "-"),
        ("two\nlines\tand more", "two lines and more"),
        ("red \x1b[31malert\x07", "red ?[31malert?"),
        ("grün", "grün"),
    ],
)
def test_text_is_one_harmless_line(words: str, cell: str) -> None:
    assert columns.text(words) == cell


@pytest.mark.parametrize(
    ("samples", "cell"),
    [
        ((), "-"),
        ((GpuSample(0),), "-"),
        (GPU0.gpus, "61C 98%"),
        (GPU1.gpus, "2x 88C 100% 1 lost xid 79 throttled"),
        ((GpuSample(0, state=GpuState.ERROR),), "1 error"),
    ],
)
def test_gpus(samples: tuple[GpuSample, ...], cell: str) -> None:
    assert columns.gpus(samples) == cell


@pytest.mark.parametrize(
    ("state", "changes", "cell"),
    [
        (BreakerState.UNSPECIFIED, {}, "-"),
        (BreakerState.HEALTHY, {}, "healthy"),
        (BreakerState.RAMPING, {"limit_slots": 12, "full_slots": 68}, "ramping 12/68"),
        (BreakerState.EJECTED, {"ejected_for_ms": 23_400}, "ejected 23s"),
        (BreakerState.EJECTED, {"ejected_for_ms": 0}, "ejected"),
        (BreakerState.DEGRADED, {}, "degraded"),
    ],
)
def test_breaker(state: BreakerState, changes: dict[str, Any], cell: str) -> None:
    route = replace(GPU0.route, breaker=state)
    assert columns.breaker(replace(GPU0, route=route, **changes)) == cell


@pytest.mark.parametrize(
    ("noun", "first"),
    [("replicas", "gpu0"), ("edges", "edge-a"), ("agents", "h200a"), ("pools", "gpt-oss-120b")],
)
def test_only_keeps_one_of_its_kind(noun: str, first: str) -> None:
    view = columns.VIEWS[noun]
    kept = columns.only(view, FLEET, first)
    assert columns.names(view, kept) == [first]
    assert kept.name == FLEET.name
    assert sum(columns.names(v, kept) != columns.names(v, FLEET) for v in columns.VIEWS.values())
