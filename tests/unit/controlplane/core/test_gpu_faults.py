"""Which GPU events make an engine useless."""

from __future__ import annotations

import pytest

from controlplane.core.gpu_faults import FATAL_XIDS, fatal
from trimtab.model import GpuSample, GpuState, XidEvent

HOUR_MS = 3_600_000


def gpu(
    *codes: int, index: int = 0, age_ms: int = 1000, state: GpuState = GpuState.OK
) -> GpuSample:
    return GpuSample(index, state=state, xids=tuple(XidEvent(code, age_ms) for code in codes))


@pytest.mark.parametrize("code", FATAL_XIDS)
def test_a_fatal_event_since_the_start(code: int) -> None:
    assert fatal([gpu(31, code)], [0], HOUR_MS).startswith(f"GPU 0: Xid {code}, ")


@pytest.mark.parametrize("code", [13, 31, 43, 45, 63, 94])
def test_what_an_application_can_cause_is_not_fatal(code: int) -> None:
    assert fatal([gpu(code)], [0], HOUR_MS) == ""


@pytest.mark.parametrize(
    ("uptime_ms", "is_fatal"), [(999, False), (1000, False), (1001, True), (None, True), (0, False)]
)
def test_what_came_before_the_engine_is_past(uptime_ms: int | None, *, is_fatal: bool) -> None:
    assert bool(fatal([gpu(79)], [0], uptime_ms)) is is_fatal


def test_a_lost_gpu() -> None:
    assert fatal([gpu(state=GpuState.LOST)], [0], HOUR_MS) == "GPU 0 is lost"
    assert fatal([gpu(state=GpuState.ERROR)], [0], HOUR_MS) == ""


def test_only_its_own_gpus_count() -> None:
    both = [gpu(79, index=1), gpu(index=0)]
    assert fatal(both, [0], HOUR_MS) == ""
    assert fatal(both, [0, 1], HOUR_MS)
    assert fatal(both, [], HOUR_MS) == ""
