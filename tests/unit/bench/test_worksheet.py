"""The worksheet of docs/tuning.md: its law, and that the page says what it computes."""

from __future__ import annotations

import pathlib

import pytest

from bench import worksheet
from bench.worksheet import ALL, ONE, Moment
from sim.engine import EngineSpec

PAGE = (pathlib.Path(__file__).parents[3] / "docs" / "tuning.md").read_text()


def test_littles_law() -> None:
    at = Moment(running=40, queued=10, tokens_per_s=400, answer_tokens=100)
    assert (at.requests_per_s, at.wait_s, at.service_s) == (4.0, 2.5, 10.0)
    assert (at.stream_tokens_per_s, at.queue_bound(2.5)) == (10.0, 10.0)


def test_the_labs_wait_is_that_of_one_full_engine() -> None:
    assert pytest.approx(worksheet.MEASURED_WAIT_S, rel=0.2) == ONE.wait_s
    assert ALL.wait_s < worksheet.MEASURED_WAIT_S / 2


@pytest.mark.parametrize(
    "row",
    [
        f"{ALL.requests_per_s:.2f} | {ONE.requests_per_s:.2f} |",
        f"| {ALL.wait_s:.1f} s | **{ONE.wait_s:.1f} s** |",
        f"| {ALL.service_s:.0f} s | {ONE.service_s:.0f} s |",
        f"| {ALL.stream_tokens_per_s:.0f} | {ONE.stream_tokens_per_s:.0f} |",
        f"{1 - ONE.wait_s / worksheet.MEASURED_WAIT_S:.0%}".replace("%", " % below the measured"),
        f"a wait of 15 s is worth {ALL.queue_bound(15):.0f} places",
        f"| 8,192 | {worksheet.logits_bytes(8_192, 201_088) / 1e9:.1f} GB |",
        f"| 100,000 | {worksheet.logits_bytes(100_000, 201_088) / 1e9:.1f} GB |",
        *(
            f"| {chunk:,} | {EngineSpec().step_s(86, chunk) * 1000:.0f} ms |"
            for chunk in (2_048, 8_192, 16_384)
        ),
    ],
)
def test_the_page_says_what_is_computed(row: str) -> None:
    assert row in PAGE
