"""What an observer reads beside the port: counts that outlive deaths and are given in any state."""

import asyncio
import json
from urllib.request import urlopen

from tests.sim.conftest import DEADLINE_S, SimEngine, Start


async def _counts(engine: SimEngine) -> dict[str, int]:
    def read() -> dict[str, int]:
        url = f"http://127.0.0.1:{engine.control_port}/sim/counts"
        with urlopen(url, timeout=DEADLINE_S) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts

    return await asyncio.to_thread(read)


async def test_counts_outlive_a_restart(start_engine: Start) -> None:
    engine = start_engine("--speed", "10")
    question = {"prompt": "x", "max_tokens": 6, "ignore_eos": True}
    await engine.post("/v1/completions", question)
    await engine.post("/v1/completions", question)
    await engine.post("/v1/completions", {"prompt": 1.5, "max_tokens": "many"})
    assert await _counts(engine) == {
        "arrived_total": 3,
        "tokens_total": 12,
        "running": 0,
        "waiting": 0,
    }
    await engine.faults(restart=True)
    await engine.faults(hang=True)
    assert (await _counts(engine))["tokens_total"] == 12


async def test_what_knocks_at_a_hung_engine_has_arrived(start_engine: Start) -> None:
    engine = start_engine()
    await engine.faults(hang=True)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        knock = tasks.create_task(engine.post("/v1/completions", {"prompt": "x"}))
        while (await _counts(engine))["arrived_total"] != 1:
            pass
        await engine.heal()
    assert b"200 OK" in await knock
