"""`./run bench upgrade`: an edge is exchanged for another while people stream and others come.

Control plane, agent, two simulated engines and first one edge, then two, then the other one, which
share a listening socket as systemd would keep it open. Callers have no retries and look at the
end of each answer: one that was refused, reset or cut off is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from bench.cluster.parts import Part
from bench.cluster.ports import free
from sim.engine import EngineSpec
from trimtab.runtime import clock

RESULT = pathlib.Path(__file__).parent / "results" / "upgrade.md"
MODEL, KEY = "demo", "sk-upgrade"
ENGINES = 2
SHORT_TOKENS = 4
READY_S = 90.0
ANSWER_LIMIT_S = 120.0
RAMP_S = 3.0  # in which the first streams begin
SETTLE_S = 2.0  # before and after the exchange
TAIL_BYTES = 1_024
HAND_OVER = (
    "import os,sys;os.dup2(int(sys.argv[1]),3);"
    "os.environ.update(LISTEN_FDS='1',LISTEN_PID=str(os.getpid()));"
    "os.execv(sys.argv[2],sys.argv[2:])"
)


@dataclass(frozen=True, slots=True)
class Size:
    """How many people."""

    streams: int
    """Live all the time."""
    new_per_s: int
    """Short requests beside them, each on a connection of its own."""
    stream_s: float
    """A stream takes about so long."""
    tokens_per_s: float
    """Of each stream."""


@dataclass(slots=True)
class Outcome:
    """What they saw."""

    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    at_stop: int = 0
    """Streams that ran when the old edge was told to end."""
    took_s: float = 0.0
    """From then until it had ended."""
    exit_status: int | None = None


class Crowd:
    """The callers."""

    def __init__(self, port: int, size: Size) -> None:
        self._port = port
        self._size = size
        self._stopped = False
        self.live = 0
        self.outcome = Outcome()

    async def run(self) -> None:
        """Until told to stop; then until the last one has his answer."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._size.streams):
                _ = group.create_task(self._stream(RAMP_S * number / self._size.streams))
            count = 0
            while not self._stopped:
                count += 1
                _ = group.create_task(self._ask(SHORT_TOKENS, stream=count % 2 == 0))
                await asyncio.sleep(1 / self._size.new_per_s)

    def stop(self) -> None:
        """Nobody asks anything more."""
        self._stopped = True

    async def _stream(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        tokens = round(self._size.stream_s * self._size.tokens_per_s)
        while not self._stopped:
            self.live += 1
            await self._ask(tokens, stream=True)
            self.live -= 1

    async def _ask(self, tokens: int, *, stream: bool) -> None:
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                error = await self._answer(tokens, stream=stream)
        except OSError as problem:  # a timeout is one
            error = type(problem).__name__
        self.outcome.answers += 1
        self.outcome.errors += Counter(
            [f"{'stream' if stream else 'plain'}: {error}"] * bool(error)
        )

    async def _answer(self, tokens: int, *, stream: bool) -> str:
        fields = {"max_tokens": tokens, "ignore_eos": True, "stream": stream}
        body = json.dumps({"model": MODEL, "prompt": "hi", **fields}).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: e\r\nauthorization: Bearer {KEY}\r\n"
            "content-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(head.encode() + body)
            status = await reader.readline()
            tail = b""
            while chunk := await reader.read(65_536):
                tail = (tail + chunk)[-TAIL_BYTES:]
        finally:
            writer.close()
        if b" 200 " not in status:
            said = tail.decode(errors="replace").splitlines()[-1:]
            return " ".join([status.decode(errors="replace").strip(), *said]) or "closed"
        whole = b'"finish_reason":"length"' in tail.replace(b": ", b":")
        return "" if whole and (not stream or b"[DONE]" in tail) else "cut off"


class Fleet:
    """Everything as processes; edges by their number, 1 and 2."""

    def __init__(self, root: pathlib.Path, size: Size, listener: socket.socket) -> None:
        ports = free(2 * ENGINES + 2)
        self.admin = ports[-2:]
        self._root = root
        slots = 2 * size.streams
        demo = EngineSpec.demo()
        speed = demo.step_s(max(1, size.streams // ENGINES), 0) * size.tokens_per_s
        shape = ("--max-num-seqs", str(slots), "--num-gpu-blocks-override", str(16 * slots))
        engines = [
            ("--port", str(a), "--control-port", str(b), *shape, "--speed", f"{speed:.3f}")
            for a, b in zip(ports[:ENGINES], ports[ENGINES : 2 * ENGINES], strict=True)
        ]
        config = root / "trimtab.json"
        config.write_text(
            json.dumps({
                "state_dir": str(root),
                "controlplane": f"unix:{root}/cp.sock",
                "engines": [{"url": f"http://127.0.0.1:{port}"} for port in ports[:ENGINES]],
                "keys": [{"name": "users", "key": {"file": str(root / "key")}}],
                "edge": {"drain_s": ANSWER_LIMIT_S},
            })
        )  # fmt: skip
        (root / "key").write_text(KEY)
        own = ("--config", str(config))
        self.parts = [
            *(
                self._part(f"engine{n}", "sim.engine_http", "--model", MODEL, *flags)
                for n, flags in enumerate(engines)
            ),
            self._part("controlplane", "controlplane", *own),
            self._part("agent", "agent", *own),
        ]
        fd = listener.fileno()
        hand_over = (sys.executable, "-c", HAND_OVER, str(fd))
        self.edges = {
            n: Part(
                f"edge{n}",
                (*hand_over, *_module("edge"), *own, "--worker", str(n), *_admin(port, n)),
                root / f"edge{n}.log",
                fds=(fd,),
            )
            for n, port in enumerate(self.admin, 1)
        }

    async def serves(self, number: int) -> None:
        """Start an edge; returns when it knows both engines."""
        self.edges[number].start()
        url = f"http://127.0.0.1:{self.admin[number - 1]}/readyz"
        async with asyncio.timeout(READY_S), aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(url) as answer:
                        if (await answer.json()).get("open_replicas") == ENGINES:
                            return
                await asyncio.sleep(0.1)

    def close(self) -> None:
        """End everything."""
        for part in (*self.edges.values(), *self.parts):
            if part.running:
                part.kill()

    def _part(self, name: str, module: str, *args: str) -> Part:
        return Part(name, (*_module(module), *args), self._root / f"{name}.log")


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", name)


def _admin(port: int, worker: int) -> tuple[str, ...]:
    """Workers have their operators' ports in a row."""
    return ("--admin", f"127.0.0.1:{port - worker + 1}")


async def measure(root: pathlib.Path, size: Size) -> Outcome:
    """Start, let people come, exchange the edge, let them go."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    fleet = Fleet(root, size, listener)
    try:
        for part in fleet.parts:
            part.start()
        await fleet.serves(1)
        crowd = Crowd(listener.getsockname()[1], size)
        async with asyncio.TaskGroup() as group:
            people = group.create_task(crowd.run())
            await asyncio.sleep(RAMP_S + SETTLE_S)
            await fleet.serves(2)
            crowd.outcome.at_stop = crowd.live
            began_s, old = clock.now_s(), fleet.edges[1]
            os.kill(old.pid, signal.SIGTERM)
            crowd.outcome.exit_status = await asyncio.to_thread(old.wait)
            crowd.outcome.took_s = clock.now_s() - began_s
            await asyncio.sleep(SETTLE_S)
            crowd.stop()
            await people
        return crowd.outcome
    finally:
        fleet.close()
        listener.close()


def page(size: Size, seen: Outcome) -> str:
    """The result as Markdown."""
    cores = len(os.sched_getaffinity(0))
    errors = ", ".join(f"{n} {what}" for what, n in sorted(seen.errors.items())) or "none"
    return (
        "# An edge is exchanged under load\n\n"
        f"Generated by `./run bench upgrade`, everything on {cores} cores, callers too: "
        f"{size.streams} streams of {size.tokens_per_s:g} tokens/s all the time, "
        f"{size.new_per_s} new requests/s beside them, no retries.\n\n"
        "| streams live when the old edge was told to end | it ended after | answers in all "
        "| errors |\n|--:|--:|--:|---|\n"
        f"| {seen.at_stop} | {seen.took_s:.0f} s | {seen.answers} | {errors} |\n"
    )


def main() -> int:
    """Exit status: 1 when anybody saw an error."""
    parser = argparse.ArgumentParser(prog="./run bench upgrade", description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--new-per-s", type=int, default=50)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT, help="the page to write")
    args = parser.parse_args()
    size = Size(args.streams, args.new_per_s, stream_s=15.0, tokens_per_s=3.0)
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        seen = asyncio.run(measure(pathlib.Path(root), size))
    text = page(size, seen)
    args.out.write_text(text)
    print(text)
    return 1 if seen.errors else 0


if __name__ == "__main__":
    sys.exit(main())
