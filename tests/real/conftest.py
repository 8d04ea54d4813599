"""Two real vLLM engines for the tests of this folder, started once and revived."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.adapter import ADAPTER, RANK, write_adapter
from tests.real.engine import TRACES_PORT, RealEngine
from tests.real.fleet import Fleet, fleet_up, wait_until
from tests.real.setup import is_ready, real_dir

HERE = Path(__file__).parent
TIMEOUT_S = 300  # the first test of a run waits for both engines, 30-75 s


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


Engines = tuple[RealEngine, RealEngine]


@pytest.fixture(scope="session")
def both_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The two engines, one pinned to each core, the first one traced, the second with an adapter.

    Whatever happens, they end with the session.
    """
    if not is_ready():
        pytest.skip(
            f"NO REAL ENGINES in {real_dir()}: `./run test real` sets them up (100 s, 2.6 GB)"
        )
    cores = sorted(os.sched_getaffinity(0))
    adapter = write_adapter(tmp_path_factory.mktemp("lora") / ADAPTER, real_dir() / "model")
    traced = ("--otlp-traces-endpoint", f"http://127.0.0.1:{TRACES_PORT}")  # mostly nobody's
    lora = ("--enable-lora", "--max-lora-rank", f"{RANK}", "--lora-modules", f"{ADAPTER}={adapter}")
    with (
        RealEngine(real_dir(), cores[0], traced) as first,
        RealEngine(real_dir(), cores[-1], lora) as second,
    ):
        yield first, second


@pytest.fixture
def engines(both_engines: Engines) -> Engines:
    """Both engines, ready: what an earlier test hung goes on, what it killed starts again."""
    for engine in both_engines:
        if engine.is_healthy():
            engine.sigcont_core()
        else:
            engine.kill()
            engine.start()
    for engine in both_engines:
        engine.wait_ready()
    return both_engines


@pytest.fixture(scope="session")
def lasting_fleet(both_engines: Engines) -> Iterator[Fleet]:
    """One for all tests, so that each also begins with what the one before left.

    Up before its engines are: they join when they have loaded.
    """
    with fleet_up(both_engines) as fleet:
        yield fleet


@pytest.fixture
def fleet(lasting_fleet: Fleet, engines: Engines) -> Fleet:
    """Both engines in rotation, with nothing to do."""
    for engine in engines:
        lasting_fleet.wait_for(engine, "READY", "OPEN")
    wait_until(lambda: sum(engine.running() for engine in engines) == 0, "idle engines")
    wait_until(lambda: bool(lasting_fleet.client.models.list().data), "the edge to know them")
    return lasting_fleet
