"""One engine under watch: what its answers are taken for, and what is remembered."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from aiohttp.test_utils import unused_port

from agent.config import EngineConfig
from agent.engine import Answered, Model, Probed, Refused, Result, Silent
from agent.watch import EngineWatch
from trimtab.model import EngineState, GpuProcess, GpuSample, LimitSource, Outcome

S = EngineState
PAGE = b"vllm:num_requests_running{} 1.0\nvllm:generation_tokens_total{} 500.0\n"
ASLEEP = PAGE + b'vllm:engine_sleep_state{sleep_state="awake"} 0.0\n'
OK = Answered(200, b"")


class FakeEngine:
    """Answers what the test says."""

    def __init__(self) -> None:
        self.page: Result = Answered(200, PAGE)
        self.well: Result = OK
        self.served: tuple[Model, ...] = (Model("m", 4096),)

    async def metrics(self) -> Result:
        return self.page

    async def health(self) -> Result:
        return self.well

    async def models(self) -> tuple[Model, ...]:
        return self.served

    async def version(self) -> str:
        return "0.32.0"

    async def probe(self, model: str, timeout_s: float) -> Probed:
        return Probed(Outcome.OK, f"{model} {timeout_s}")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def watch(engine: FakeEngine) -> EngineWatch:
    url = f"http://127.0.0.1:{unused_port()}"
    return EngineWatch(EngineConfig("a", url), engine)


async def looked(watch: EngineWatch) -> EngineState:
    await watch.look()
    await watch.check()
    watch.assess()
    return watch.sample(()).state


@pytest.mark.parametrize(
    ("page", "well", "state"),
    [
        (Answered(200, PAGE), OK, S.READY),
        (Answered(200, PAGE), Answered(503, b""), S.DEAD),
        (Answered(200, PAGE), Refused(), S.STARTING),
        (Answered(200, PAGE), Silent("late"), S.READY),
        (Answered(200, PAGE), Answered(404, b""), S.READY),
        (Answered(200, ASLEEP), OK, S.SLEEPING),
        (Answered(200, b"python_info 1\n"), OK, S.READY),
        (Answered(404, PAGE), OK, S.READY),
        (Answered(500, b"\xff"), Answered(503, b""), S.DEAD),
        (Refused(), OK, S.STARTING),
        (Silent("late"), OK, S.UNKNOWN),
    ],
)
async def test_first_look(
    watch: EngineWatch, engine: FakeEngine, page: Result, well: Result, state: EngineState
) -> None:
    engine.page, engine.well = page, well
    assert await looked(watch) is state


async def test_metrics_prove_life_while_the_health_check_is_late(watch: EngineWatch) -> None:
    await watch.look()
    watch.assess()
    assert watch.sample(()).state is S.READY


async def test_a_health_answer_holds_until_the_next(watch: EngineWatch, engine: FakeEngine) -> None:
    engine.well = Answered(503, b"")
    assert await looked(watch) is S.DEAD
    await watch.look()
    watch.assess()
    assert watch.sample(()).state is S.DEAD
    engine.well = OK
    assert await looked(watch) is S.READY


async def test_drained_on_request(watch: EngineWatch) -> None:
    watch.draining = True
    assert await looked(watch) is S.DRAINING


async def test_dead_once_it_was_up(watch: EngineWatch, engine: FakeEngine) -> None:
    assert await looked(watch) is S.READY
    assert watch.sample(()).running == 1
    engine.page = Refused()
    assert await looked(watch) is S.DEAD
    assert watch.sample(()).running is None


async def test_starting_while_a_new_process_loads(engine: FakeEngine) -> None:
    port = unused_port()
    watch = EngineWatch(EngineConfig("a", f"http://127.0.0.1:{port}"), engine)
    assert await looked(watch) is S.READY
    engine.page = Refused()
    assert await looked(watch) is S.DEAD
    loads = [sys.executable, "-c", "print('up', flush=True); input()", "--port", str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(loads, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        await watch.learn()
        assert await looked(watch) is S.STARTING
        engine.page = Answered(200, PAGE)
        assert await looked(watch) is S.READY
        engine.page = Refused()
        assert await looked(watch) is S.DEAD  # what was loading then has died now
        await watch.learn()
        assert await looked(watch) is S.STARTING
        process.stdin.close()
    await watch.learn()
    assert await looked(watch) is S.DEAD


async def test_facts(watch: EngineWatch, engine: FakeEngine) -> None:
    assert not watch.should_learn()
    await looked(watch)
    assert watch.should_learn()
    assert not watch.known
    await watch.learn()
    assert watch.known
    facts = watch.facts()
    assert facts.served_models == ("m",)
    assert facts.max_model_len_tokens == 4096
    assert facts.vllm_version == "0.32.0"
    assert (facts.max_num_seqs, facts.max_num_seqs_source) == (256, LimitSource.ASSUMED)
    assert facts.epoch == watch.sample(()).epoch != 0
    assert not watch.should_learn()
    engine.served = ()
    await watch.learn()
    assert watch.facts().served_models == ("m",)


async def test_adapters_are_no_models(watch: EngineWatch, engine: FakeEngine) -> None:
    engine.served = (Model("m", 4096), Model("m2", 4096), Model("sql", None, "m"))
    await looked(watch)
    await watch.learn()
    facts = watch.facts()
    assert (facts.served_models, facts.adapters) == (("m", "m2"), ("sql",))
    engine.served = (Model("m", 4096),)
    await watch.learn()
    assert watch.facts().adapters == ()


async def test_facts_are_told_whole_or_not_at_all(watch: EngineWatch, engine: FakeEngine) -> None:
    told_meanwhile = []

    async def version() -> str:
        told_meanwhile.append(watch.facts())
        return "0.32.0"

    engine.version = version  # type: ignore[method-assign]
    await looked(watch)
    await watch.learn()
    assert [facts.served_models for facts in told_meanwhile] == [()]
    assert watch.facts().served_models == ("m",)


async def test_a_new_start_is_learned_about_at_once(watch: EngineWatch, engine: FakeEngine) -> None:
    await looked(watch)
    await watch.learn()
    engine.page = Answered(200, PAGE.replace(b"500.0", b"1.0"))
    await looked(watch)
    assert watch.should_learn()


async def test_the_configured_batch_wins(engine: FakeEngine) -> None:
    watch = EngineWatch(EngineConfig("a", "http://127.0.0.1:1", max_num_seqs=7), engine)
    facts = watch.facts()
    assert (facts.max_num_seqs, facts.max_num_seqs_source) == (7, LimitSource.CONFIG)


async def test_a_probe_asks_for_the_model_that_is_served(watch: EngineWatch) -> None:
    unknown = await watch.probe(2.5)
    assert unknown == Probed(Outcome.UNKNOWN, "which models it serves is not known")
    await watch.learn()
    assert await watch.probe(2.5) == Probed(Outcome.OK, "m 2.5")


async def test_gpus_of_unknown_processes_are_not_claimed(watch: EngineWatch) -> None:
    await looked(watch)
    assert watch.sample((GpuSample(0, processes=(GpuProcess(4242, 1),)),)).gpus == ()


async def test_a_state_is_logged_when_it_changes(
    watch: EngineWatch, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.watch")
    for _ in range(5):
        await looked(watch)
    assert caplog.messages == ["engine state"]
    engine.page = Refused()
    for _ in range(5):
        await looked(watch)
    assert caplog.messages == ["engine state"] * 2
