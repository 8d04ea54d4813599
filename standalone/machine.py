"""What this machine has to serve a model with: the `vllm` program, and GPUs.

Rule: nothing of vLLM or CUDA is imported; GPUs are counted by NVML, or named by the operator or by
CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
from collections.abc import Mapping

import pynvml

from standalone.serving import Machine, Wish, indexes
from trimtab.runtime.service import ConfigError

_INSTALL = "pip install 'trimtab[vllm]', or name the program: --vllm PATH"


def look(wish: Wish, environ: Mapping[str, str]) -> Machine:
    """The program, and what to run it on; raises ConfigError."""
    gpus = () if wish.engines else _gpus(wish.gpus, environ)
    return Machine(find_command(wish.command), gpus, tuple(sorted(os.sched_getaffinity(0))))


def find_command(named: str) -> str:
    """The `vllm` program: the named one, else the one beside this Python, else on PATH."""
    beside = pathlib.Path(sys.executable).parent / "vllm"
    wanted = [str(pathlib.Path(named).expanduser())] if named else [str(beside), "vllm"]
    for name in wanted:
        if found := shutil.which(name):
            return os.path.abspath(found)
    if named:
        raise ConfigError(f"--vllm {named}: no such program")
    raise ConfigError(f"no vllm beside {sys.executable} or on PATH: {_INSTALL}")


def _gpus(named: str, environ: Mapping[str, str]) -> tuple[int, ...]:
    """Those that were named, else those that this process may see, else all."""
    if named:
        return indexes(named)
    allowed = environ.get("CUDA_VISIBLE_DEVICES")
    if allowed:
        try:
            return indexes(allowed)
        except ConfigError:
            raise ConfigError(f"CUDA_VISIBLE_DEVICES={allowed}: give --gpus 0,1") from None
    if allowed is not None:  # empty: somebody wants none to be seen
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return ()
    except pynvml.NVMLError as error:
        raise ConfigError(
            f"GPUs can't be counted ({error}): name them with --gpus 0,1, or give --engines 1 to "
            "serve on the CPU"
        ) from None
    try:
        return tuple(range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()
