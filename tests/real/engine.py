"""A real vLLM engine on one CPU core: start it, hang it, kill it, leave nothing behind.

Rules: loopback only. Every engine leads its own session, and all of that session is killed: a kill
of the API server alone would orphan the engine core and the worker, which keep their memory. Its
log, sockets and locks go into a folder that is removed with it. Plain blocking calls: an engine
takes 20-60 s to start, so fixtures start it, outside of any event loop.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

# Small on purpose: 8 slots and 63 usable blocks of KV fill up quickly, and an engine costs 1.4 GB.
# One request may fill it all, but not more: vLLM refuses to start with a longer --max-model-len.
FLAGS = (
    *("--host", "127.0.0.1"),
    "--enforce-eager",
    *("--max-num-seqs", "8"),
    *("--max-model-len", "2000"),
    *("--num-gpu-blocks-override", "64"),
    *("--block-size", "32"),
)
MODEL = "real-80m"
POLL_S = 0.25


@dataclass(frozen=True)
class Pids:
    """The three processes of an engine."""

    api: int
    core: int
    worker: int


def free_port() -> int:
    """A port that was free a moment ago; vLLM itself says so if it no longer is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


TRACES_PORT = free_port()
"""Where the engine that is traced tells it; a test that wants to hear of it listens there."""


class RealEngine:
    """One vLLM server on a fixed port and core; may be started again after it was killed."""

    def __init__(self, real_dir: Path, core: int, more_flags: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._real_dir = real_dir
        self._core = core
        self._more_flags = more_flags
        self._scratch = tempfile.TemporaryDirectory(prefix="trimtab-real-")
        self._log = Path(self._scratch.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._scratch.cleanup()

    def start(self) -> None:
        """Begin to start."""
        command = [
            *(str(self._real_dir / "venv/bin/python"), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(self._real_dir / "model"), "--served-model-name", MODEL),
            *("--port", str(self.port), *FLAGS, *self._more_flags),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, deadline_s: float = 240) -> None:
        """Return once /health answers 200; fail with the end of the log."""
        for _ in range(int(deadline_s / POLL_S)):
            if self.is_healthy():
                return
            if not self.is_running():
                break
            time.sleep(POLL_S)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
        raise RuntimeError(f"vLLM on port {self.port} did not become ready:\n{tail}")

    def is_running(self) -> bool:
        """True while the API process lives."""
        return self._process is not None and self._process.poll() is None

    def is_healthy(self) -> bool:
        """True if /health answers 200: the API process is up, which says little of the core."""
        with contextlib.suppress(OSError):
            self._get("/health")
            return True
        return False

    def metric(self, name: str) -> int:
        """A gauge or counter of its /metrics, over all labels; 0 when it is not there."""
        lines = self._get("/metrics").splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(f"{name}{{"))

    def running(self) -> int:
        """Requests in its batch."""
        return self.metric("vllm:num_requests_running")

    def pids(self) -> Pids:
        """Only once ready; the core and the worker name themselves when they start."""
        assert self._process is not None
        api = self._process.pid
        by_name = {process.name(): process.pid for process in session_members(api)}
        return Pids(api, by_name["VLLM::EngineCore"], by_name["VLLM::Worker"])

    def sigstop_core(self) -> None:
        """Hang the engine as a bug would: no step is taken, and the API goes on answering."""
        os.kill(self.pids().core, signal.SIGSTOP)

    def sigcont_core(self) -> None:
        os.kill(self.pids().core, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL everything at once, and wait until it is gone.

        All but multiprocessing's resource tracker, which then removes the shared memory of the
        dead from the system, and ends; it would be left there for ever.
        """
        if self._process is None:
            return
        session = self._process.pid
        _kill([p for p in session_members(session) if not _is_resource_tracker(p)])
        self._process.wait()
        for _ in range(int(10 / POLL_S)):
            if not session_members(session):
                break
            time.sleep(POLL_S)
        _kill(session_members(session))
        self._process = None

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=2) as answer:  # noqa: S310
            return str(answer.read().decode())

    def _environment(self) -> dict[str, str]:
        return {
            "VLLM_CPU_OMP_THREADS_BIND": str(self._core),
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # whole GiB; the blocks in FLAGS decide
            "OMP_NUM_THREADS": "1",
            "VLLM_ENABLE_RESPONSES_API_STORE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "TMPDIR": self._scratch.name,
            "XDG_CACHE_HOME": str(self._real_dir / "cache"),
        }


def session_members(session: int) -> list[psutil.Process]:
    """The live processes of a session, orphans included."""
    return [
        process
        for process in psutil.process_iter(["status"])
        if process.info["status"] not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
        and _session_of(process.pid) == session
    ]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _is_resource_tracker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    return False


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
