"""`trimtab up --serve` end to end: a (fake) vLLM on each GPU is started, serves, ends in order."""

from __future__ import annotations

import pathlib

import psutil
import pytest

from tests.e2e.starter import WAIT_S, Starter
from tests.e2e.test_up import ask, client
from tests.fakes import vllm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
GPUS = ("--gpus", "0,1")


def test_a_model_is_served_on_two_gpus_and_drained_before_it_ends(
    starter: Starter, tmp_path: pathlib.Path
) -> None:
    up = starter.start(
        *("--serve", "lab/demo", *GPUS, "--vllm", vllm.install(tmp_path)),
        *("--", "--served-model-name", "demo", "--max-num-seqs", "16"),
    )
    up.wait_for("ready in")
    assert [line.split()[0] for line in up.lines[1:3]] == ["gpu0", "gpu1"]
    assert '"model": "demo"' in up.row("try")
    assert ask(up)
    seen = {p.environ()["CUDA_VISIBLE_DEVICES"] for p in up.children() if "serve" in p.cmdline()}
    assert seen == {"0", "1"}
    children = up.children()
    with client(up) as openai:
        stream = openai.completions.create(
            model="demo",
            prompt="go",
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
        next(iter(stream))
        up.process.terminate()
        *_, last = stream
    assert last.usage is not None
    assert last.usage.completion_tokens == 40
    assert up.process.wait(WAIT_S) == 0
    assert psutil.wait_procs(children, timeout=5)[1] == []
