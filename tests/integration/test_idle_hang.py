"""An engine whose core hangs while idle: well by its numbers, and it answers nobody."""

from __future__ import annotations

import asyncio
import pathlib

import aiohttp
import pytest

from edge.core import uses
from tests.fakes.edge import MODEL, EdgeUnderTest
from tests.fakes.local_engine import local_engine
from tests.fakes.wait import until
from tests.fakes.whole_fleet import whole_fleet
from trimtab.model import Serving
from trimtab.policy import breaker, progress

ASK = {"model": MODEL, "prompt": "hello", "max_tokens": 5}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hang is called one after a second, also of an engine that has made few steps."""
    monkeypatch.setattr(progress, "HANG_EJECT_S", 1.0)
    monkeypatch.setattr(progress, "WARMING_STEPS", 0)
    monkeypatch.setattr(uses, "HANG_SUSPECT_S", 0.3)
    monkeypatch.setattr(breaker, "BACKOFF_S", 0.5)


def serving(edge: EdgeUnderTest, replica: str) -> Serving:
    return edge.table.route(replica).serving


async def asked(edge: EdgeUnderTest, *, stream: bool) -> int:
    key = {"authorization": "Bearer sk-test"}
    async with (
        aiohttp.ClientSession(headers=key) as http,
        http.post(f"{edge.url}/v1/completions", json=ASK | {"stream": stream}) as answer,
    ):
        text = await answer.text()
        assert not stream or "[DONE]" in text
        return answer.status


async def test_requests_leave_it_it_is_out_and_comes_back_when_a_probe_is_answered(
    tmp_path: pathlib.Path, impatient: None
) -> None:
    async with (
        local_engine(MODEL) as one,
        local_engine(MODEL) as two,
        whole_fleet(tmp_path, {"r1": one.url, "r2": two.url}) as edge,
    ):
        await one.fault(freeze=True)
        asks = [asked(edge, stream=number % 2 == 0) for number in range(8)]
        assert set(await asyncio.gather(*asks)) == {200}, "moved, all of them"
        assert serving(edge, "r1") is not Serving.OPEN
        assert serving(edge, "r2") is Serving.OPEN
        assert [path for _, path, _ in one.seen].count("/v1/completions") > 1, "some sat on it"
        await one.heal()
        await until(lambda: serving(edge, "r1") is Serving.OPEN)
