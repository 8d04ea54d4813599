"""GPU readings through the real nvidia-ml-py and a fake driver library.

The library is built here from tests/fakes/fakenvml with gcc and NVIDIA's header (nvidia-nvml-dev);
without a driver the state file is missing.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

ROOT = pathlib.Path(__file__).parents[3]
SOURCE = ROOT / "tests" / "fakes" / "fakenvml" / "fakenvml.c"
HEADER_PACKAGE = "nvidia-nvml-dev"
DEADLINE_S = 45.0
TWO_GPUS = """\
count 2
0.total 150000000000
0.used 90000000000
0.util 73
0.temp 61
0.power 512000
0.reasons 0x24
0.ecc_corr 3
0.proc 4242 88000000000
1.total 150000000000
"""
View = dict[str, Any]


@pytest.fixture(scope="module")
def header_folder(request: pytest.FixtureRequest) -> pathlib.Path:
    """Where nvml.h is; fetched once and kept in pytest's cache."""
    if shutil.which("gcc") is None:
        pytest.skip("NVML IS NOT TESTED: gcc is not installed")
    folder = request.config.cache.mkdir("nvml-header")
    if not list(folder.rglob("nvml.h")):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        done = subprocess.run([*pip, folder, HEADER_PACKAGE], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"NVML IS NOT TESTED: {HEADER_PACKAGE} could not be installed")
    return next(folder.rglob("nvml.h")).parent


@pytest.fixture(scope="module", params=["", "-DOLD_DRIVER"], ids=["driver", "old-driver"])
def library_folder(
    request: pytest.FixtureRequest,
    header_folder: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    """Where the fake driver library is."""
    folder = tmp_path_factory.mktemp("fakenvml")
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", f"-I{header_folder}", f"-Wl,-soname,{library.name}"]
    extra = [request.param] if request.param else []
    compiler = shutil.which("gcc") or "gcc"
    subprocess.run([compiler, *flags, *extra, "-o", library, SOURCE], check=True)
    return folder


class Reader:
    """Follows what the agent's reader sees."""

    def __init__(self, lines: asyncio.StreamReader, state: pathlib.Path) -> None:
        self._lines = lines
        self._state = state

    def drive(self, text: str) -> None:
        """The driver's new state."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self._state)

    async def until(self, condition: Callable[[View], bool]) -> View:
        """The first view that fits."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                view: View = msgspec.json.decode(await self._lines.readline())
                if condition(view):
                    return view

    async def until_gpu(self, index: int, condition: Callable[[View], bool]) -> View:
        """The first reading of one GPU that fits."""
        view = await self.until(lambda v: len(v["gpus"]) > index and condition(v["gpus"][index]))
        gpu: View = view["gpus"][index]
        return gpu


@asynccontextmanager
async def reader(library: pathlib.Path | None, state: pathlib.Path) -> AsyncIterator[Reader]:
    environment = {**os.environ, "FAKE_NVML_STATE": str(state)}
    if library is not None:
        environment["LD_LIBRARY_PATH"] = str(library)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.nvml_reader"),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield Reader(process.stdout, state)
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def two_gpus(library_folder: pathlib.Path, tmp_path: pathlib.Path) -> AsyncIterator[Reader]:
    state = tmp_path / "state.txt"
    state.write_text(TWO_GPUS)
    async with reader(library_folder, state) as running:
        yield running


async def test_readings(two_gpus: Reader) -> None:
    view = await two_gpus.until(lambda v: bool(v["gpus"]))
    assert not view["detail"]
    assert view["gpus"][0] == {
        "index": 0,
        "uuid": "GPU-fake-0",
        "name": "Fake H200",
        "state": 1,
        "detail": "",
        "memory_total_bytes": 150_000_000_000,
        "memory_used_bytes": 90_000_000_000,
        "utilization_ratio": 0.73,
        "temperature_celsius": 61,
        "power_watts": 512.0,
        "throttle_reasons": 0x24,
        "ecc_corrected_total": 3,
        "ecc_uncorrected_total": 0,
        "xids": [],
        "processes": [{"pid": 4242, "used_bytes": 88_000_000_000}],
    }
    assert view["gpus"][1]["processes"] == []


async def test_a_reading_that_this_gpu_lacks_is_absent(two_gpus: Reader) -> None:
    two_gpus.drive(TWO_GPUS + "0.util_ret 3\n")
    gpu = await two_gpus.until_gpu(0, lambda g: g["utilization_ratio"] is None)
    assert (gpu["state"], gpu["temperature_celsius"]) == (1, 61)


async def test_a_lost_gpu_is_a_state_and_returns(two_gpus: Reader) -> None:
    await two_gpus.until(lambda v: bool(v["gpus"]))
    two_gpus.drive(TWO_GPUS + "0.ret 15\n")
    gpu = await two_gpus.until_gpu(0, lambda g: g["state"] == 2)
    assert (gpu["uuid"], gpu["memory_used_bytes"]) == ("GPU-fake-0", None)
    assert gpu["detail"]
    await two_gpus.until_gpu(1, lambda g: g["state"] == 1)
    two_gpus.drive(TWO_GPUS)
    await two_gpus.until_gpu(0, lambda g: g["state"] == 1)
    two_gpus.drive(TWO_GPUS + "xid 63 0\n")
    await two_gpus.until_gpu(0, lambda g: [x["code"] for x in g["xids"]] == [63])


async def test_any_other_error_is_told(two_gpus: Reader) -> None:
    two_gpus.drive(TWO_GPUS + "0.ret 999\n")
    gpu = await two_gpus.until_gpu(0, lambda g: g["state"] == 3)
    assert gpu["detail"]


async def test_critical_events_reach_their_gpu(two_gpus: Reader) -> None:
    two_gpus.drive(TWO_GPUS + "xid 79 1\n")
    gpu = await two_gpus.until_gpu(1, lambda g: bool(g["xids"]))
    assert [event["code"] for event in gpu["xids"]] == [79]
    two_gpus.drive(TWO_GPUS + "xid 79 1\n" + "xid 31 1\n" * 9)
    gpu = await two_gpus.until_gpu(1, lambda g: len(g["xids"]) == 8 and g["xids"][0]["code"] == 31)
    assert gpu["xids"][-1]["code"] == 31


async def test_a_reading_that_hangs_holds_up_neither_the_view_nor_events(two_gpus: Reader) -> None:
    await two_gpus.until(lambda v: bool(v["gpus"]))
    two_gpus.drive(TWO_GPUS + "0.hang 1\n")
    gpu = await two_gpus.until_gpu(0, lambda g: g["state"] == 3)
    assert gpu["detail"] == "NVML does not answer"
    two_gpus.drive(TWO_GPUS + "0.hang 1\nxid 119 0\n")
    await two_gpus.until_gpu(0, lambda g: [x["code"] for x in g["xids"]] == [119])
    two_gpus.drive(TWO_GPUS + "xid 119 0\n")
    await two_gpus.until_gpu(0, lambda g: g["state"] == 1)


async def test_a_driver_that_comes_later(
    library_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    async with reader(library_folder, tmp_path / "state.txt") as running:
        view = await running.until(lambda v: v["detail"] != "not read yet")
        assert view == {"gpus": [], "detail": "Driver Not Loaded"}
        running.drive(TWO_GPUS)
        await running.until(lambda v: len(v["gpus"]) == 2 and not v["detail"])


async def test_a_driver_without_gpus(library_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    state = tmp_path / "state.txt"
    state.write_text("count 0\n")
    async with reader(library_folder, state) as running:
        await running.until(lambda v: v == {"gpus": [], "detail": ""})


async def test_no_driver(tmp_path: pathlib.Path) -> None:
    """On a machine with a driver, its GPUs are seen instead."""
    async with reader(None, tmp_path / "state.txt") as running:
        view = await running.until(lambda v: v["detail"] != "not read yet")
    assert view["gpus"] or view["detail"] == "no NVIDIA driver: its library was not found"
