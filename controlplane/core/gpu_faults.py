"""GPU events after which an engine can do no useful work until the GPU is reset or replaced.

Rules: only codes whose catalogue entry says reset, restart or replace count (NVIDIA's Xid list);
an event from before the engine's start is past: the engine runs in spite of it. What an application
can cause by itself (13, 31, 43, 45, 94) and what waits for a convenient moment (63, corrected
errors) is left to the engine's own progress to tell.
"""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.model import GpuSample, GpuState

FATAL_XIDS = {
    48: "double-bit memory error",
    64: "memory row remapping failed",
    74: "NVLink error",
    79: "fell off the bus",
    95: "uncontained memory error",
    119: "its firmware does not answer",
    120: "its firmware failed",
}


def fatal(gpus: Iterable[GpuSample], indexes: Iterable[int], uptime_ms: int | None) -> str:
    """What is wrong with the GPUs of an engine that has been up for so long; empty if nothing."""
    mine = set(indexes)
    for gpu in gpus:
        if gpu.index not in mine:
            continue
        if gpu.state is GpuState.LOST:
            return f"GPU {gpu.index} is lost"
        for event in gpu.xids:
            if event.code in FATAL_XIDS and (uptime_ms is None or event.age_ms < uptime_ms):
                return f"GPU {gpu.index}: Xid {event.code}, {FATAL_XIDS[event.code]}"
    return ""
