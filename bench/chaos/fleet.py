"""The fleet of a chaos run as processes: three engines with their agents, a control plane, an edge.

Between the edge and each engine is a wire (bench/chaos/wire) that this process relays.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from bench.chaos.faults import Strike
from bench.chaos.wire import Wire
from bench.cluster.parts import Part
from bench.cluster.ports import free
from sim.engine import EngineSpec
from trimtab.runtime import clock
from trimtab.runtime import config as file

ENGINES = 3
SLOTS = 16
SPEED = 0.5  # of the demo's engine: two cores are enough for all of it
MODEL = "demo"
KEY = "sk-chaos-0123456789"
IDLE_S = 15.0  # a stream's replica may be silent for so long
READY_S = 60.0


def capacity_tokens_s() -> float:
    """Of all engines, full."""
    spec = EngineSpec.demo().faster(SPEED)
    return ENGINES * SLOTS / spec.step_s(SLOTS, 0)


class Fleet:
    """`parts` by name: engine0, agent0, ..., controlplane, edge."""

    def __init__(self, root: pathlib.Path, http: aiohttp.ClientSession, seed: int) -> None:
        ports = free(3 * ENGINES + 2)
        self._root = root
        self._http = http
        self._engine, self._control = ports[:ENGINES], ports[ENGINES : 2 * ENGINES]
        self._wire_ports = ports[2 * ENGINES : 3 * ENGINES]
        self.url, self.admin_url = (f"http://127.0.0.1:{port}" for port in ports[-2:])
        self.wires = [
            Wire(port, engine, random.Random(f"{seed} {port_no}"))  # noqa: S311 - garbles
            for port_no, (port, engine) in enumerate(
                zip(self._wire_ports, self._engine, strict=True)
            )
        ]
        target, addresses = f"unix:{root}/cp.sock", (self.url, self.admin_url)
        (root / "key").write_text(KEY)
        self.parts = {"controlplane": self._part("controlplane", "controlplane", self._config(0))}
        for n in range(ENGINES):
            self.parts[f"engine{n}"] = self._part(f"engine{n}", "sim.engine_http", *self._flags(n))
            self.parts[f"agent{n}"] = self._part(f"agent{n}", "agent", self._config(n))
        listen, admin = (address.removeprefix("http://") for address in addresses)
        own = ("--controlplane", target, "--listen", listen, "--admin", admin)
        self.parts["edge"] = self._part("edge", "edge", self._config(0), *own)

    async def start(self) -> None:
        """Returns when every engine is in use."""
        for wire in self.wires:
            await wire.open()
        for part in self.parts.values():
            part.start()
        await until(self._all_open, "all engines in use", READY_S)

    def close(self) -> None:
        """End everything."""
        for wire in self.wires:
            wire.close()
        for part in reversed(self.parts.values()):
            part.end()

    async def strike(self, strike: Strike) -> None:
        """Let it happen, and return when it is over."""
        fault, victim = strike.fault, strike.victim
        if fault.place == "wire":
            await self.wires[victim].trouble(fault.how, fault.lasts_s)
        elif fault.how in {"killed", "frozen"}:
            await self._process(strike)
        else:
            victims = range(ENGINES) if fault.place == "every engine" else (victim,)
            for n in victims:
                await self._order(n, fault.order)
            await asyncio.sleep(fault.lasts_s)
            for n in victims:
                async with self._http.delete(self._faults(n)) as answer:
                    answer.raise_for_status()
                await self._order(n, fault.parting)

    async def rest(self) -> dict[str, int]:
        """What is still under way when there should be nothing: at the edge and in the engines."""
        async with self._http.get(f"{self.admin_url}/readyz") as answer:
            ready = await answer.json()
        found = {"edge in flight": ready["inflight"], "edge queued": ready["queued"]}
        for name, value in (await self.metrics()).items():
            if name.startswith(("trimtab_edge_requests_in_flight", "trimtab_edge_queue_depth")):
                family = name.partition("{")[0]
                found[family] = found.get(family, 0) + int(value)
        for n in range(ENGINES):
            counts = await self.counts(n)
            found[f"engine{n}"] = counts["running"] + counts["waiting"]
        return found

    async def counts(self, number: int) -> dict[str, int]:
        """What an engine counts."""
        async with self._http.get(
            self._faults(number).replace("/sim/faults", "/sim/counts")
        ) as answer:
            counts: dict[str, int] = await answer.json()
            return counts

    async def metrics(self) -> dict[str, float]:
        """The edge's series by name and labels."""
        async with self._http.get(f"{self.admin_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
        return {name: float(value) for name, value in pairs}

    async def decisions(self, limit: int) -> list[dict[str, Any]]:
        """The edge's newest records."""
        async with self._http.get(f"{self.admin_url}/decisions?limit={limit}") as answer:
            records: list[dict[str, Any]] = await answer.json()
            return records

    async def _process(self, strike: Strike) -> None:
        place, how, n = strike.fault.place, strike.fault.how, strike.victim
        part = self.parts[f"{place}{n}" if place in {"engine", "agent"} else place]
        part.strike(how)
        gone = place == "engine" and how == "killed"
        if gone:
            self.wires[n].close()
        await asyncio.sleep(strike.fault.lasts_s)
        part.recover(how)
        if gone:
            await self.wires[n].open()

    async def _order(self, number: int, order: object) -> None:
        if order:
            async with self._http.post(self._faults(number), json=order) as answer:
                answer.raise_for_status()

    async def _all_open(self) -> bool:
        async with self._http.get(f"{self.admin_url}/readyz") as answer:
            return bool((await answer.json())["open_replicas"] == ENGINES)

    def _faults(self, number: int) -> str:
        return f"http://127.0.0.1:{self._control[number]}/sim/faults"

    def _flags(self, n: int) -> tuple[str, ...]:
        ports = ("--port", str(self._engine[n]), "--control-port", str(self._control[n]))
        shape = ("--max-num-seqs", str(SLOTS), "--speed", str(SPEED))
        return (*ports, *shape, "--served-model-name", MODEL)

    def _part(self, name: str, module: str, *args: str) -> Part:
        argv = (sys.executable, "-P", "-m", module, *args)
        return Part(name, argv, self._root / f"{name}.log")

    def _config(self, n: int) -> str:
        """The flag for the file of a node."""
        config = file.Config(
            fleet="chaos",
            node=f"node{n}",
            state_dir=str(self._root),
            controlplane=f"unix:{self._root}/cp.sock",
            engines=(
                file.Engine(
                    url=f"http://127.0.0.1:{self._wire_ports[n]}",
                    name=f"engine{n}",
                    max_num_seqs=SLOTS,
                ),
            ),
            keys=(file.Key(name="users", key=file.Secret(file=str(self._root / "key"))),),
            edge=file.EdgeLimits(idle_timeout_s=IDLE_S),
        )
        path = self._root / f"node{n}.json"
        path.write_bytes(msgspec.json.encode(config))
        return f"--config={path}"


async def until(condition: Callable[[], Awaitable[bool]], what: str, within_s: float) -> None:
    """Wait for it; raises TimeoutError that says what for."""
    end_s = clock.now_s() + within_s
    while clock.now_s() < end_s:
        with contextlib.suppress(aiohttp.ClientError):
            if await condition():
                return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"not within {within_s:.0f} s: {what}")
