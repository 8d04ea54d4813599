"""A process that prints what `agent.nvml` sees, one JSON line whenever that changes.

A process of its own, because the NVML library is loaded once per process. Run it with
LD_LIBRARY_PATH at the fake library and FAKE_NVML_STATE at its state file.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, replace

import msgspec

from agent import nvml
from trimtab.model import GpuSample, XidEvent
from trimtab.runtime import clock

nvml.PERIOD_S = 0.02
nvml.BACKOFF_FIRST_S = 0.1
nvml.BACKOFF_CAP_S = 0.2
nvml.RELOOK_S = 0.3
nvml.STALE_S = 0.5


def main() -> None:
    """Print until killed."""
    watch = nvml.GpuWatch(random.Random(1))
    watch.start()
    told = None
    while True:
        view = watch.latest(clock.now_s())
        view = replace(view, gpus=tuple(_ageless(gpu) for gpu in view.gpus))
        if view != told:
            told = view
            print(msgspec.json.encode(asdict(view)).decode(), flush=True)  # noqa: T201
        time.sleep(0.01)


def _ageless(gpu: GpuSample) -> GpuSample:
    return replace(gpu, xids=tuple(XidEvent(event.code, 0) for event in gpu.xids))


if __name__ == "__main__":
    main()
