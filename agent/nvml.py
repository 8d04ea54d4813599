"""GPUs through NVML: readings and critical events (Xid).

Rules: NVML calls can block for as long as a sick GPU likes, so they are made in daemon threads and
the rest of the agent only takes what was read last; no driver, a lost GPU, an unsupported reading
are states, not errors; NVML is started anew, with growing pauses, until all is well. Xid events
have a thread of their own, so that they come even while a reading hangs.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pynvml

from trimtab.model import GpuProcess, GpuSample, GpuState, XidEvent
from trimtab.policy.dice import Dice
from trimtab.runtime import clock
from trimtab.runtime.backoff import Backoff

PERIOD_S = 1.0
"""NVML averages over up to a second itself."""
RELOOK_S = 60.0
"""NVML is started anew this often while a GPU is not well: a reset GPU needs it."""
STALE_S = 10.0
"""No reading for this long: NVML hangs."""
BACKOFF_FIRST_S = 4 * PERIOD_S
"""At least half of it, so both threads have let go of NVML before the first takes it up again."""
BACKOFF_CAP_S = 60.0
GPUS_LIMIT = 64
PROCESSES_LIMIT = 64
XIDS_LIMIT = 8
_ABSENT = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_FunctionNotFound,
    pynvml.NVMLError_NoPermission,
)


@dataclass(frozen=True, slots=True)
class GpuView:
    """What is known now."""

    gpus: tuple[GpuSample, ...] = ()
    detail: str = ""
    """Why there are no readings; empty when there are, or the driver says there is no GPU."""


class GpuWatch:
    """Reads all GPUs of the node for as long as the process lives."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._stop = threading.Event()
        self._resubscribe = threading.Event()
        self._seen = (GpuView(detail="not read yet"), clock.now_s())
        self._xids: dict[int, tuple[tuple[int, float], ...]] = {}

    def start(self) -> None:
        """Begin reading."""
        for name, session in (("nvml-read", self._read), ("nvml-xid", self._listen)):
            threading.Thread(target=self._for_life, args=(session,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Let the threads end; they are not waited for, since NVML may hold them."""
        self._stop.set()

    def latest(self, now_s: float) -> GpuView:
        """The newest readings, with the events so far."""
        view, read_s = self._seen
        if now_s - read_s > STALE_S and view.gpus:
            view = GpuView(tuple(_sick(gpu, "NVML does not answer") for gpu in view.gpus))
        return replace(view, gpus=tuple(self._with_xids(gpu, now_s) for gpu in view.gpus))

    def _with_xids(self, gpu: GpuSample, now_s: float) -> GpuSample:
        events = self._xids.get(gpu.index, ())
        xids = (XidEvent(code, max(round((now_s - at_s) * 1000), 0)) for code, at_s in events)
        return replace(gpu, xids=tuple(xids))

    def _for_life(self, session: Callable[[], None]) -> None:
        backoff = Backoff(self._dice, BACKOFF_FIRST_S, BACKOFF_CAP_S)
        while not self._stop.is_set():
            try:
                pynvml.nvmlInit()
                try:
                    session()
                    backoff.reset()
                finally:
                    pynvml.nvmlShutdown()
            except pynvml.NVMLError as error:
                if session == self._read:
                    self._seen = (GpuView(detail=_explain(error)), clock.now_s())
            self._stop.wait(backoff.next_s())

    def _read(self) -> None:
        """Read until a GPU has not been well for a while."""
        count = min(pynvml.nvmlDeviceGetCount(), GPUS_LIMIT)
        known = tuple(GpuSample(index) for index in range(count))
        sick_since_s: float | None = None
        while sick_since_s is None or clock.now_s() - sick_since_s < RELOOK_S:
            known = tuple(read_gpu(gpu) for gpu in known)
            self._seen = (GpuView(known), clock.now_s())
            if any(gpu.state is not GpuState.OK for gpu in known):
                sick_since_s = sick_since_s or clock.now_s()
            elif sick_since_s is not None:
                sick_since_s = None
                self._resubscribe.set()
            if self._stop.wait(PERIOD_S):
                return
        self._resubscribe.set()

    def _listen(self) -> None:
        """Take events until the set of GPUs that can send them may have changed."""
        self._resubscribe.clear()
        events = pynvml.nvmlEventSetCreate()
        try:
            indexes = _subscribe(events)
            while indexes and not (self._stop.is_set() or self._resubscribe.is_set()):
                try:
                    event = pynvml.nvmlEventSetWait(events, int(PERIOD_S * 1000))
                except pynvml.NVMLError_Timeout:
                    continue
                index = indexes.get(_address(event.device))
                if index is not None:
                    newest = (int(event.eventData), clock.now_s())
                    self._xids[index] = (*self._xids.get(index, ()), newest)[-XIDS_LIMIT:]
        finally:
            pynvml.nvmlEventSetFree(events)


def read_gpu(before: GpuSample) -> GpuSample:
    """One GPU now; `before` keeps its name and id when it can't be asked any more."""
    index = before.index
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = _maybe(pynvml.nvmlDeviceGetMemoryInfo, handle)
        use = _maybe(pynvml.nvmlDeviceGetUtilizationRates, handle)
        power_milliwatts = _maybe(pynvml.nvmlDeviceGetPowerUsage, handle)
        return GpuSample(
            index=index,
            uuid=before.uuid or _maybe(pynvml.nvmlDeviceGetUUID, handle) or "",
            name=before.name or _maybe(pynvml.nvmlDeviceGetName, handle) or "",
            memory_total_bytes=memory and memory.total,
            memory_used_bytes=memory and memory.used,
            utilization_ratio=use and use.gpu / 100,
            temperature_celsius=_maybe(
                pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU
            ),
            power_watts=None if power_milliwatts is None else power_milliwatts / 1000,
            throttle_reasons=_throttle_reasons(handle),
            ecc_corrected_total=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected_total=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            processes=_processes(handle),
        )
    except pynvml.NVMLError_GpuIsLost as error:
        return _sick(before, _explain(error), GpuState.LOST)
    except pynvml.NVMLError as error:
        return _sick(before, _explain(error))


def _sick(gpu: GpuSample, detail: str, state: GpuState = GpuState.ERROR) -> GpuSample:
    return GpuSample(gpu.index, gpu.uuid, gpu.name, state, detail)


def _maybe(call: Callable[..., Any], *arguments: Any) -> Any:
    """What NVML says; None where this GPU or driver has no such reading."""
    try:
        return call(*arguments)
    except _ABSENT:
        return None


def _throttle_reasons(handle: Any) -> int | None:
    reasons: int | None = _maybe(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:  # the name before driver 535
        reasons = _maybe(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return reasons


def _ecc(handle: Any, kind: int) -> int | None:
    count: int | None = _maybe(
        pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC
    )
    return count


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    found = _maybe(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return tuple(GpuProcess(item.pid, item.usedGpuMemory) for item in found[:PROCESSES_LIMIT])


def _subscribe(events: Any) -> dict[int | None, int]:
    """The GPUs that will send Xid events, by the address of their handle."""
    wanted = pynvml.nvmlEventTypeXidCriticalError
    indexes: dict[int | None, int] = {}
    for index in range(min(pynvml.nvmlDeviceGetCount(), GPUS_LIMIT)):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            if pynvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
                pynvml.nvmlDeviceRegisterEvents(handle, wanted, events)
                indexes[_address(handle)] = index
        except pynvml.NVMLError:
            continue  # the readings say what is wrong with it
    return indexes


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _explain(error: Exception) -> str:
    if isinstance(error, pynvml.NVMLError_LibraryNotFound):
        return "no NVIDIA driver: its library was not found"
    return str(error)
