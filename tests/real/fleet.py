"""`trimtab up` in front of real engines, as its user has it: the two commands and a client.

Rules: only what a user can reach is used: the endpoint, `trimtab-ctl`, the files of the state
directory. Its path is short, because unix sockets in it may have 100 bytes.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Completion

from tests.real.engine import MODEL, RealEngine, free_port
from trimtab.runtime import clock

KEY = "sk-real-fleet-key"
PROMPT = "import os"
BIN = Path(sys.executable).parent
DEADLINE_S = 60.0  # the longest wait: a replica that hung twice is probed after 10 s
POLL_S = 0.05


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return once the condition holds."""
    end_s = clock.now_s() + deadline_s
    while not condition():
        time.sleep(POLL_S)
        if clock.now_s() > end_s:
            pytest.fail(f"not within {deadline_s} s: {what}")


@dataclass(frozen=True)
class Fleet:
    """A running `trimtab up`."""

    client: openai.OpenAI
    state_dir: Path

    @property
    def url(self) -> str:
        """Where its clients ask, for any path."""
        return str(self.client.base_url).removesuffix("/v1/")

    def complete(self, tokens: int = 4, timeout_s: float = 120) -> Completion:
        """A plain completion of exactly so many tokens."""
        return self.client.completions.create(
            model=MODEL,
            prompt=PROMPT,
            max_tokens=tokens,
            temperature=0,
            extra_body={"ignore_eos": True},
            extra_headers={"x-stainless-read-timeout": "120"},  # who leaves earlier does not say so
            timeout=timeout_s,
        )

    def stream(self, tokens: int) -> openai.Stream[Completion]:
        """The same, streamed."""
        return self.client.completions.create(
            model=MODEL,
            prompt=PROMPT,
            max_tokens=tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )

    def ctl(self, *words: str) -> list[str]:
        """The command line of `trimtab-ctl` for this fleet."""
        return [str(BIN / "trimtab-ctl"), "--server", f"unix:{self.state_dir}/control.sock", *words]

    def replica(self, engine: RealEngine) -> dict[str, Any]:
        """What `ctl get replicas -o json` shows of an engine."""
        command = self.ctl("get", "replicas", "-o", "json")
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        items: list[dict[str, Any]] = json.loads(shown)["items"]
        return next(item for item in items if item["url"] == engine.url)

    def wait_for(
        self, engine: RealEngine, state: str, serving: str, deadline_s: float = DEADLINE_S
    ) -> None:
        """Return once `ctl get replicas -w` has the engine so."""

        def is_so() -> bool:
            lines = (self.state_dir / "watched").read_text().split("\n")[:-1]
            mine = (item for item in map(json.loads, reversed(lines)) if item["url"] == engine.url)
            newest: dict[str, Any] = next(mine, {})
            return [newest.get(k) for k in ("pool", "state", "serving")] == [MODEL, state, serving]

        wait_until(is_so, f"{engine.url} {state} {serving}", deadline_s)

    def changed_s(self, engine: RealEngine) -> float:
        """When the control plane last changed its mind about an engine, by its log."""
        lines = (self.state_dir / "logs/controlplane.log").read_text().splitlines()
        name = f"-{engine.port}"
        events = map(json.loads, lines)
        return max(float(e["ts"]) for e in events if e.get("replica", "").endswith(name))

    @contextmanager
    def cordoned(self, engine: RealEngine) -> Iterator[None]:
        """Inside, new requests go to the other engine."""
        name = self.replica(engine)["replica"]
        subprocess.run(self.ctl("cordon", name, "--yes"), capture_output=True, check=True)
        self.wait_for(engine, "READY", "CLOSED")
        try:
            yield
        finally:
            subprocess.run(self.ctl("uncordon", name), capture_output=True, check=True)
            self.wait_for(engine, "READY", "OPEN")


@contextmanager
def fleet_up(engines: Sequence[RealEngine]) -> Iterator[Fleet]:
    """From `trimtab up` to its end, which must be in order and leave clean logs."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="trimtab-") as directory:
        state_dir = Path(directory)
        command = [str(BIN / "trimtab"), "up", "--key", KEY, "--state", directory]
        command += [word for engine in engines for word in ("--engine", engine.url)]
        command += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}"]
        output = state_dir / "output"
        with (
            _running(command, output) as up,
            openai.OpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0
            ) as client,
        ):
            _wait_ready(up, output)
            fleet = Fleet(client, state_dir)
            watch = fleet.ctl("get", "replicas", "-w", "-o", "jsonl")
            with _running(watch, state_dir / "watched"):
                yield fleet
        assert up.returncode == 0
        for log in (state_dir / "logs").iterdir():
            _check(log.read_text())


def _wait_ready(up: subprocess.Popen[bytes], output: Path) -> None:
    end_s = clock.now_s() + 60
    while "\nready in" not in f"\n{output.read_text()}":
        if up.poll() is not None or clock.now_s() > end_s:
            logs = {log.name: log.read_text()[-500:] for log in output.parent.glob("logs/*")}
            pytest.fail(f"`trimtab up` is not ready: {output.read_text()}\n{logs}")
        time.sleep(POLL_S)


def _check(log: str) -> None:
    """Every line is an event or of the access log, none is an error, none holds what is private."""
    assert KEY not in log
    assert PROMPT not in log
    events = [json.loads(line) for line in log.splitlines()]
    errors = [one for one in events if one.get("level") == "error" or "trace" in one]
    assert errors == [], errors


@contextmanager
def _running(command: Sequence[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Ends it in order; what `trimtab up` has started dies with it even after a kill."""
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
