"""Two real vLLM engines for the tests of this folder, started once and revived."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real.engine import RealEngine
from tests.real.setup import is_ready, real_dir

HERE = Path(__file__).parent
TIMEOUT_S = 300  # the first test of a run waits for both engines, 30-75 s


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def both_engines() -> Iterator[tuple[RealEngine, RealEngine]]:
    """The two engines, one pinned to each core; whatever happens, they end with the session."""
    if not is_ready():
        pytest.skip(
            f"NO REAL ENGINES in {real_dir()}: `./run test real` sets them up (100 s, 2.6 GB)"
        )
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(RealEngine(real_dir(), core)) for core in (cores[0], cores[-1])
        )
        yield first, second


@pytest.fixture
def engines(both_engines: tuple[RealEngine, RealEngine]) -> tuple[RealEngine, RealEngine]:
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
