"""What an operator types at 3 a.m., and the line that names the cause: faults made in a real fleet.

Control plane, agent and edge run here over their wires, with simulated engines. The table in
docs/operating.md is what `ctl` printed; TRIMTAB_GOLDEN=write writes it anew.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import pytest

from agent.config import AgentConfig, EngineConfig
from agent.main import serve_until
from ctl.main import main
from edge import questions
from edge.config import EdgeConfig
from edge.feed import Feed
from tests.fakes.edge import MODEL, EdgeUnderTest, running_edge
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.running_control_plane import admin, config, running
from tests.fakes.wait import until
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import admin_pb2, types_pb2

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "operating.md"
TABLE = re.compile(r"(<!-- three a.m.: [^\n]*-->\n).*?(<!-- end of three a.m. -->)", re.DOTALL)
HEAD = "| what is wrong | typed | the first line |\n|---|---|---|\n"
ASK = {"model": MODEL, "prompt": "hello", "max_tokens": 2_000}
DEADLINE_S = 45.0


class Row(NamedTuple):
    """A fault, the command typed, the words that name it, and the line that had them."""

    fault: str
    typed: str
    cause: str
    line: str


@dataclass
class Night:
    """A fleet of four engines, r0 to r3, and what was typed."""

    target: str
    engines: list[LocalEngine]
    edge: EdgeUnderTest
    http: aiohttp.ClientSession
    stop_edge: Callable[[], object]
    stop_agent: Callable[[], object]
    tasks: TaskRunner
    capture: pytest.CaptureFixture[str]
    rows: list[Row] = field(default_factory=list)
    asked: list[asyncio.Task[tuple[int, str]]] = field(default_factory=list)

    async def ask(self, **headers: str) -> tuple[int, str]:
        """One request: status and id."""
        url = f"{self.edge.url}/v1/completions"
        async with self.http.post(url, json=ASK, headers=headers) as answer:
            await answer.read()
            return answer.status, answer.headers["x-request-id"]

    def ask_many(self, count: int) -> None:
        """Requests that nobody waits for."""
        for number in range(count):
            self.asked.append(self.tasks.once(f"request {number}", self.ask()))

    async def typed(self, words: str) -> list[str]:
        """The lines that a command prints."""
        await asyncio.to_thread(main, ["--server", self.target, *words.split()])
        return self.capture.readouterr().out.splitlines()

    async def names(self, fault: str, words: str, cause: str) -> None:
        """Type it until the first line names the cause."""
        line, end_s = "", clock.now_s() + DEADLINE_S
        while not re.search(cause, line):
            assert clock.now_s() < end_s, f"{words} says: {line}"
            line = "".join((await self.typed(words))[:1])  # none: it is not known yet
            await asyncio.sleep(0.1)
        self.rows.append(Row(fault, f"ctl {words}", cause, line))


@asynccontextmanager
async def night(
    directory: pathlib.Path, capture: pytest.CaptureFixture[str]
) -> AsyncIterator[Night]:
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        starts = (stack.enter_async_context(local_engine(MODEL)) for _ in range(4))
        engines = await asyncio.gather(*starts)
        watched = tuple(EngineConfig(f"r{n}", one.url) for n, one in enumerate(engines))
        target = await stack.enter_async_context(running(config(directory)))
        tasks = await stack.enter_async_context(TaskRunner())
        _ = tasks.once("agent", serve_until(stop, AgentConfig("n1", target, watched)))
        stack.callback(stop.set)
        edge = await stack.enter_async_context(running_edge([]))
        following = await stack.enter_async_context(TaskRunner())
        told = EdgeConfig("e1", "127.0.0.1", 1, "127.0.0.1", 2, target, None)
        feed = Feed(told, edge.table, edge.dispatch, edge.admission, edge.metrics)
        feed.tellers = questions.tellers(edge.proxy.decisions, edge.proxy.arrivals, edge.dispatch)
        follows = following.once("feed", feed.run())
        key = {"authorization": "Bearer sk-test"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=key))
        asking = await stack.enter_async_context(TaskRunner())
        await until(lambda: edge.table.open_replicas() == len(engines))
        await until(lambda: sum(c.slots > 0 for c in edge.table.credits.values()) == len(engines))
        at = Night(target, engines, edge, http, follows.cancel, stop.set, asking, capture)
        yield at
        for task in at.asked:
            task.cancel()


async def sick(at: Night) -> None:
    """A hung engine, a broken one, and one that somebody cordoned."""
    short = ASK | {"max_tokens": 50}
    async with at.http.post(f"{at.engines[0].url}/v1/completions", json=short) as answer:
        await answer.read()  # its first steps, in which hangs are called so much later
    await until(lambda: not at.edge.table.credits["r0"].running)
    await at.engines[0].fault(slow=50.0)  # so that it is at work when it hangs
    await at.engines[1].fault(error_rate=1.0)
    at.ask_many(60)
    await until(lambda: bool(at.edge.table.credits["r0"].running))
    await at.engines[0].fault(freeze=True)
    async with admin(at.target) as stub:
        await stub.SetIntent(
            admin_pb2.SetIntentRequest(
                replica="r2", intent=types_pb2.INTENT_CORDONED, reason="new fan", actor="ada@lab"
            )
        )
    await at.names(
        "an engine answers all with errors", "explain replica r1", "breaker ejected .* it fails"
    )
    await at.names(
        "a cordon that was forgotten", "explain replica r2", "intent cordoned by ada@lab .*new fan"
    )
    await at.names(
        "an engine hangs, its API lives", "explain replica r0", "^r0 gets no .*engine STALLED"
    )


async def without_room(at: Night) -> None:
    """Of what is left, one engine says that it is full."""
    await at.engines[3].fault(reject=True)
    status, request_id = await at.ask(**{"x-stainless-read-timeout": "1"})
    assert status == 503
    await at.engines[3].heal()
    words = f"explain request {request_id}"
    await at.names("a client's request came back as 503", words, "was refused with 503 .* waited")
    await at.names("one tenant complains", "explain tenant test", "had 1 of .* requests refused")
    await at.names(
        "a model is slow", f"explain model {MODEL}", "on 1 of 4 replicas: r0: .*; r1: .*; r2: "
    )
    head = "\n".join(await at.typed("status"))
    assert all(f"replica {name}: " in head for name in ("r0", "r1"))


async def cut_off(at: Night) -> None:
    """The edge loses its control plane, and the node its agent."""
    at.stop_edge()
    await at.names("an edge is cut off", "explain replica r3", "edges none .*: e1 for")
    at.stop_agent()
    await at.names("an agent was stopped", "explain replica r3", "agent its agent left")


STORY: tuple[Callable[[Night], Awaitable[None]], ...] = (sick, without_room, cut_off)


async def test_the_first_line_names_what_is_wrong(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with night(tmp_path, capsys) as at:
        for part in STORY:
            await part(at)
    page = PAGE.read_text()
    if os.environ.get("TRIMTAB_GOLDEN") == "write":
        rows = (f"| {one.fault} | `{one.typed}` | {one.line} |\n" for one in at.rows)
        page = TABLE.sub(lambda found: found[1] + HEAD + "".join(rows) + found[2], page)
        PAGE.write_text(page)
    told = re.findall(r"^\| (.*?) \| `(.*?)` \| (.*) \|$", page, re.MULTILINE)
    assert len(told) == len(at.rows)
    for one, (fault, typed, line) in zip(at.rows, told, strict=True):
        assert (fault, re.sub(r"req_\w+", "", typed)) == (
            one.fault,
            re.sub(r"req_\w+", "", one.typed),
        )
        assert re.search(one.cause, line), f"{fault}: TRIMTAB_GOLDEN=write writes the table anew"
