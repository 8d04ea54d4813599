"""A `vllm` command: `vllm serve MODEL [FLAGS]` is the simulated engine, with a core beside it.

Like vLLM's, the core is a process of its own in the same session that outlives the API server, and
minds neither SIGTERM nor its parent's end. The environment tells it more: FAKE_VLLM_WORDS are its
last ones, with exit status 1; as long as the file FAKE_VLLM_LOADS is there, it loads.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

LOG = "(EngineCore pid=7) {} 11-21 22:00:00 [core.py:1] {}\n"
CORE = "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); [s.pause() for _ in iter(int, 1)]"
UNKNOWN = ("--shutdown-timeout",)


def install(folder: pathlib.Path) -> str:
    """Make the command in a folder; its path."""
    path = folder / "vllm"
    root = pathlib.Path(__file__).parents[2]
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        "from tests.fakes.vllm import main\nmain()\n"
    )
    path.chmod(0o755)
    return str(path)


def main() -> None:
    """Be it."""
    _, serve, model, *flags = sys.argv
    assert serve == "serve"
    core = [sys.executable, "-S", "-c", CORE, "VLLM::EngineCore"]
    _ = subprocess.Popen(core)
    if words := os.environ.get("FAKE_VLLM_WORDS"):
        sys.stdout.write(LOG.format("ERROR", words))
        sys.exit(1)
    if loads := os.environ.get("FAKE_VLLM_LOADS"):
        sys.stdout.write(LOG.format("INFO", "Loading weights: 43%"))
        sys.stdout.flush()
        while pathlib.Path(loads).exists():
            time.sleep(0.01)
    for at in [at for at, flag in enumerate(flags) if flag in UNKNOWN][::-1]:
        del flags[at : at + 2]
    sys.argv = ["vllm", "--model", model, *flags]
    from sim.engine_http import main as engine  # noqa: PLC0415 - what crashes need not load it

    engine()
