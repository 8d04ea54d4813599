"""Which engines are chosen, and that it is said."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import pathlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from standalone import banner, discover, engines
from standalone.banner import Console
from standalone.config import Plan
from standalone.engines import Engines, choose
from standalone.serving import Wish
from standalone.state import State
from trimtab.runtime.config import Config, Engine, Pool

PLACE = State(pathlib.Path("/s"))
BODIES = {
    b"/version": b'{"version":"0.32.0"}',
    b"/v1/models": b'{"data":[{"id":"tiny","owned_by":"vllm"}]}',
}


@contextlib.asynccontextmanager
async def vllm() -> AsyncIterator[int]:
    """Something that looks like vLLM; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        body = BODIES[path]
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def plan(**values: object) -> Plan:
    """A plan with these engines."""
    base = Config(**values)  # type: ignore[arg-type]
    return Plan(base, pathlib.Path("/s"), is_default_state=True)


async def test_named_engines_are_taken_as_they_are() -> None:
    said = io.StringIO()
    async with vllm() as port:
        named = plan(engines=(Engine(url=f"http://127.0.0.1:{port}"),))
        assert await choose(named, PLACE, Console(said)) == Engines(model="tiny")
        pooled = plan(pools=(Pool(name="big", engines=named.engines),))
        assert await choose(pooled, PLACE, Console(said)) == Engines(model="big")
    assert said.getvalue() == ""


async def test_what_runs_here_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    async with vllm() as port:
        monkeypatch.setattr(discover, "PORTS", range(port, port + 1))
        chosen = await choose(plan(), PLACE, Console(said))
    url = f"http://127.0.0.1:{port}"
    assert chosen == Engines((Engine(url=url),), model="tiny")
    assert said.getvalue() == f"found {url}: vLLM 0.32.0, serves tiny\n"


async def test_without_any_the_simulated_ones_are_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(discover, "PORTS", range(0))
    chosen = await choose(plan(), PLACE, Console(said))
    assert [spec.name for spec in chosen.specs] == [engine.name for engine in chosen.added]
    assert (len(chosen.specs), chosen.model) == (2, "demo")
    assert said.getvalue().splitlines() == [banner.NO_ENGINES, f"! {banner.SIMULATED}"]


async def test_those_to_serve_are_started_and_said(tmp_path: pathlib.Path) -> None:
    said = io.StringIO()
    program = tmp_path / "vllm"
    program.touch(mode=0o755)
    wish = Wish("org/m", gpus="0,2", command=str(program))
    chosen = await choose(replace(plan(), serve=wish), PLACE, Console(said))
    assert [engine.name for engine in chosen.added] == ["gpu0", "gpu2"]
    assert [spec.name for spec in chosen.specs] == ["gpu0", "gpu2"]
    assert (chosen.model, chosen.wait_s) == ("org/m", math.inf)
    first = chosen.added[0]
    assert said.getvalue().splitlines()[:2] == [
        "starting vLLM for org/m:",
        f"  gpu0  {first.url}  /s/logs/gpu0.log",
    ]


class FakeEndpoint:
    """Our endpoint: what it says, call by call; the last answer stays."""

    def __init__(self, rotation: list[bool], models: list[tuple[str, ...]]) -> None:
        self.rotation, self.models = rotation, models

    async def has_rotation(self, _base_url: str) -> bool:
        return self.rotation.pop(0) if len(self.rotation) > 1 else self.rotation[0]

    async def served(self, _base_url: str, _key: str) -> tuple[str, ...]:
        return self.models.pop(0) if len(self.models) > 1 else self.models[0]


@pytest.mark.parametrize(
    ("key", "expected", "models", "shown"),
    [
        ("sk", "tiny", [(), ("other", "tiny")], "tiny"),
        ("sk", "tiny", [("other",)], "other"),
        ("sk", "", [("other",)], "other"),
        ("", "tiny", [()], "tiny"),
    ],
)
async def test_a_replica_in_rotation_is_waited_for(
    key: str,
    expected: str,
    models: list[tuple[str, ...]],
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = FakeEndpoint([False, False, True], models)
    monkeypatch.setattr(engines, "discover", endpoint)
    assert await engines.first_model("http://h/v1", key, expected, 9.0) == shown
    assert endpoint.rotation == [True]


async def test_no_replica_in_rotation_means_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "discover", FakeEndpoint([False], [("tiny",)]))
    assert await engines.first_model("http://h/v1", "sk", "tiny", 0.0) == ""
