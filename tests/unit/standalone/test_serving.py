"""Which vLLM processes `--serve` runs, with which flags, and what is refused."""

from __future__ import annotations

import shlex

import pytest

from standalone import serving
from standalone.serving import Machine, Wish
from trimtab.runtime.service import ConfigError

BOX = Machine("/bin/vllm", gpus=(0, 1), cores=(0, 1, 2, 3))
CPU = Machine("/bin/vllm", cores=(0, 1, 2, 3))


def wish(*flags: str, model: str = "org/m") -> Wish:
    """A wish with these flags for vLLM."""
    return Wish(model, flags=flags)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Wish(gpus="0"), "--gpus is about engines that are started: give --serve MODEL"),
        (Wish(flags=("-q", "x")), "-- is about engines that are started: give --serve MODEL"),
        (Wish(engines=2), "--engines is about engines"),
        (Wish("m", gpus="0", engines=1), "give one of them"),
        (Wish("m", engines=65), "--engines 65: 1 to 64"),
        (Wish("m", gpus="0;1"), "--gpus 0;1: indexes as nvidia-smi shows them"),
        (Wish("m", gpus="0,0"), "--gpus 0,0: indexes"),
        (wish("m2"), "m2: what follows -- are flags of vLLM"),
        (wish("--port", "1"), "--port can't be given to vLLM here: engines listen on loopback"),
        (wish("--disable_log_stats"), "those are what Trimtab steers by"),
        (wish("--api-key=x"), "TRIMTAB_UPSTREAM_KEY"),
        (wish("-dp", "2"), "each GPU has an engine of its own"),
        (wish("--tensor-parallel-size", "all"), "--tensor-parallel-size all: a number from 1"),
    ],
)
def test_what_cannot_be_is_one_sentence(wanted: Wish, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        serving.check(wanted)
    assert sentence in str(refused.value)


def test_what_can_be_is_not_refused() -> None:
    serving.check(Wish())
    serving.check(Wish("m", gpus="0,1", command="vllm", flags=("--max_num_seqs=8", "-tp", "2")))


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (wish(), ("org/m",)),
        (wish(model="/models/gpt-oss-120b/"), ("gpt-oss-120b",)),
        (wish("--served-model-name", "a", "b", "--max-num-seqs", "1"), ("a", "b")),
        (wish("--served_model_name=a"), ("a",)),
    ],
)
def test_the_name_that_clients_use(wanted: Wish, names: tuple[str, ...]) -> None:
    assert serving.names(wanted) == names


def test_one_engine_on_each_gpu_and_what_it_is_told() -> None:
    engines, specs = serving.engines(wish("--quantization", "mxfp4"), BOX, [8200, 8201], "sk-up")
    assert [(e.name, e.url) for e in engines] == [
        ("gpu0", "http://127.0.0.1:8200"),
        ("gpu1", "http://127.0.0.1:8201"),
    ]
    assert specs[1].env == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1",
        "VLLM_API_KEY": "sk-up",
    }
    assert (specs[1].name, specs[1].loads) == ("gpu1", True)
    assert shlex.split(specs[1].argv[-1]) == [
        *("/bin/vllm", "serve", "org/m", "--served-model-name", "org/m"),
        *("--max-num-seqs", "256", "--shutdown-timeout", "60", "--quantization", "mxfp4"),
        *("--host", "127.0.0.1", "--port", "8201"),
    ]
    assert "sk-up" not in " ".join(specs[1].argv)


def test_what_the_operator_says_goes_before_what_we_recommend() -> None:
    line = serving.command_line(
        wish("--max_num_seqs=128", "--served-model-name", "m", "--shutdown-timeout", "5"), "v", 1
    )
    told = "v serve org/m --max_num_seqs=128 --served-model-name m --shutdown-timeout 5"
    assert " ".join(line) == f"{told} --host 127.0.0.1 --port 1"


def test_an_engine_over_several_gpus() -> None:
    four = Machine("v", gpus=(4, 5, 6, 7))
    found = serving.places(wish("-tp", "2"), four)
    assert [(name, env["CUDA_VISIBLE_DEVICES"]) for name, env in found] == [
        ("gpu4", "4,5"),
        ("gpu6", "6,7"),
    ]
    with pytest.raises(ConfigError, match="an engine takes 8 GPUs, and 4 are to be used"):
        serving.places(wish("-tp", "2", "--pipeline-parallel-size=4"), four)


def test_engines_on_the_cpu_share_its_cores() -> None:
    assert serving.places(wish(), CPU) == [("cpu0", {})]
    assert serving.places(Wish("m", engines=2), CPU) == [
        ("cpu0", {"VLLM_CPU_OMP_THREADS_BIND": "0,2"}),
        ("cpu1", {"VLLM_CPU_OMP_THREADS_BIND": "1,3"}),
    ]
